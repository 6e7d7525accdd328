/*
 * wait.c
 *
 * How wait_reply(), wait_idle() and ask() wait.
 *
 * A function waits inside of its caller's statement, whose snapshot stays until
 * it returns: as long as it waits no version of a row that was visible when it
 * began can be removed, in no table of the database, and who updates a row often
 * walks over all of them.
 *
 * A procedure need not do that to others.  It commits what the session has done,
 * and commits again after each look, before it sleeps.  So while it sleeps it
 * has no snapshot (neither of the portal, nor of the catalogs, nor that of a
 * REPEATABLE READ transaction), no lock, and a transaction that is no older
 * than the last look.
 *
 * It takes a CALL that is not inside of a transaction block, and memory that
 * outlives a commit.  The caller's does, since the server keeps it with the
 * portal; so does SPI's where it knows that there will be commits.  Arguments
 * that may be toasted have to be copied before the first commit.  And what was
 * true before a commit need not be so after it: the extension itself may be
 * gone.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "utils/inval.h"

#include "base/compat.h"
#include "sql/wait.h"

/*
 * A procedure that waits begins: it may commit from now on.  Returns what its
 * row of results, which has one column, looks like.
 */
TupleDesc
dja_call_begin(FunctionCallInfo fcinfo, const char *procedure, const char *detail,
			   const char *hint)
{
	CallContext *call = NULL;
	TupleDesc	row;

	if (fcinfo->context != NULL && IsA(fcinfo->context, CallContext))
		call = castNode(CallContext, fcinfo->context);
	if (call == NULL || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s cannot be called inside a transaction block", procedure),
				 errdetail_internal("%s", detail),
				 errhint("%s", hint)));
	if (get_call_result_type(fcinfo, NULL, &row) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "%s must return a row", procedure);
	row = BlessTupleDesc(CreateTupleDescCopy(row));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	return row;
}

/*
 * It ends.  The value lies in memory that SPI frees.
 */
Datum
dja_call_end(TupleDesc row, Datum value)
{
	bool		isnull = false;

	value = SPI_datumTransfer(value, TupleDescAttr(row, 0)->attbyval,
							  TupleDescAttr(row, 0)->attlen);
	SPI_finish();
	return HeapTupleGetDatum(heap_form_tuple(row, &value, &isnull));
}

/*
 * Between two looks: sleeps until the latch is set, or that long.
 */
void
dja_nap(bool commit, long ms, uint32 wait_event)
{
	if (commit)
		SPI_commit();
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	/* so that the next look opens no table that is gone meanwhile */
	AcceptInvalidationMessages();
}
