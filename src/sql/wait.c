/*
 * wait.c
 *
 * How wait_reply(), wait_idle() and ask() wait.
 *
 * A function waits inside its caller's statement, whose snapshot stays until the
 * function returns.  As long as it waits, no row version that was visible when it
 * began can be removed, in any table of the database.  A session that updates one
 * row often has to walk over all its versions.
 *
 * A procedure avoids that.  It commits the work of the session, and commits again
 * after each look, before it sleeps.  So while it sleeps it has no lock, no
 * snapshot (of the portal, of the catalogs, or of a REPEATABLE READ transaction),
 * and a transaction that is no older than the last look.
 *
 * It needs a CALL outside of a transaction block, and memory that outlives a
 * commit.  The caller's memory does, since the server keeps it with the portal;
 * so does SPI's, if SPI knows that there will be commits.  Arguments that may be
 * toasted have to be copied before the first commit.  After a commit nothing is
 * certain: even the extension may be gone.
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
 * Begins a procedure that waits: it may commit from now on.  Returns the
 * descriptor of its result, a row of one column.
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
 * Ends such a procedure, and returns its result.  The value may lie in memory
 * that SPI frees.
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
 * Sleeps between two looks, until the latch is set or so many milliseconds are
 * over.
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
