/*
 * remote.c
 *
 * The connections that dblink keeps for a session.  They outlive the transaction.
 * If a turn left one open, the next turns would find it, with its remote
 * transaction, and so would the repetition of a batch that was aborted.  So they are
 * closed at the end of each turn, and after each abort.
 *
 * This takes dblink's own functions, which are there if a handler has loaded its
 * library.  Asking the dynamic linker for them costs as much as a small turn.  So it
 * is asked once in a transaction, and again when a turn has left a memory context
 * for the life of the session.  dblink makes one for its list of connections.
 */
#include "postgres.h"

#include <dlfcn.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "turn/remote.h"

static PGFunction dja_dblink_names = NULL;
static PGFunction dja_dblink_disconnect = NULL;
static MemoryContext dja_newest_context = NULL; /* when the linker was asked */

/*
 * Notes that a transaction begins, in which the dynamic linker has not been asked.
 */
void
dja_remote_begin(void)
{
	dja_newest_context = NULL;
}

static bool
dja_dblink_loaded(void)
{
	if (dja_dblink_disconnect == NULL && dja_newest_context != TopMemoryContext->firstchild)
	{
		dja_newest_context = TopMemoryContext->firstchild;
		dja_dblink_names = (PGFunction) dlsym(RTLD_DEFAULT, "dblink_get_connections");
		if (dja_dblink_names != NULL)
			dja_dblink_disconnect = (PGFunction) dlsym(RTLD_DEFAULT, "dblink_disconnect");
	}
	return dja_dblink_disconnect != NULL;
}

static Datum
dja_dblink_call(PGFunction function, int nargs, Datum arg, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, NULL, nargs, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = arg;
	fcinfo->args[0].isnull = false;
	result = function(fcinfo);
	*isnull = fcinfo->isnull;
	return result;
}

static void
dja_close_named(void)
{
	bool		isnull;
	Datum		names = dja_dblink_call(dja_dblink_names, 0, (Datum) 0, &isnull);
	Datum	   *elements;
	int			n;

	if (isnull)
		return;
	deconstruct_array(DatumGetArrayTypeP(names), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &n);
	for (int i = 0; i < n; i++)
		(void) dja_dblink_call(dja_dblink_disconnect, 1, elements[i], &isnull);
}

/*
 * Closes the connection without a name, if there is one.  dblink cannot be asked
 * whether there is.  If there is none, that is the first thing that it finds, and it
 * has nothing to clean up when it raises its error.
 */
static void
dja_close_unnamed(void)
{
	MemoryContext old = CurrentMemoryContext;
	uint32		held = InterruptHoldoffCount;
	bool		isnull;

	PG_TRY();
	{
		(void) dja_dblink_call(dja_dblink_disconnect, 0, (Datum) 0, &isnull);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		if (geterrcode() != ERRCODE_CONNECTION_DOES_NOT_EXIST)
			PG_RE_THROW();
		FlushErrorState();
		InterruptHoldoffCount = held;	/* an error resets it */
	}
	PG_END_TRY();
}

/*
 * Closes all connections of the session.  Needs a transaction.
 */
void
dja_remote_close(void)
{
	if (!dja_dblink_loaded())
		return;
	dja_close_named();
	dja_close_unnamed();
}

/*
 * Closes them after an abort, in a transaction of its own.
 */
void
dja_remote_aborted(void)
{
	if (!dja_dblink_loaded())
		return;
	StartTransactionCommand();
	dja_remote_close();
	CommitTransactionCommand();
}
