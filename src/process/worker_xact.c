/*
 * worker_xact.c
 *
 * A worker's transactions: those of its batches, and those of its other duties.
 *
 * The transaction of a batch is a transaction block, as if BEGIN had opened it.
 * Extensions that write on other servers ask IsTransactionBlock() whether their
 * statement may have to be undone later.  Citus then sends BEGIN to the other node, and
 * ends that transaction with ours.  Without a block it has a write to one shard
 * committed at once, and a turn that fails would leave that write behind.
 *
 * Handlers are called without a query around them, so hooks of the executor count one
 * level less than in a function that a client calls with SELECT.  In a block that makes
 * no difference to Citus's transactions: it looks at its ExecutorLevel and PlannerLevel
 * only where there is no block (MaybeExecutingUDF), and for one thing more.  It may send
 * a function that was distributed with force_delegation to another node, which PL/pgSQL
 * cannot cope with in an assignment such as x := f(1), and Citus recognizes that case by
 * the levels.  A handler has to call such a function with SELECT ... INTO x FROM f(1).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "process/worker_xact.h"
#include "shmem/slots.h"
#include "shmem/stats.h"
#include "tables/catalog.h"
#include "tables/handler.h"
#include "turn/remote.h"
#include "turn/session.h"
#include "turn/turn.h"
#include "turn/turn_timeout.h"
#include "xact/deliver.h"

static bool dja_trouble = false;	/* a step has failed */

/*
 * Leaves the transaction after an error, and gets ready for the next one.  Returns
 * the error, copied into the given context.
 */
DjaError *
dja_recover(MemoryContext context)
{
	ErrorData  *edata;
	DjaError   *error;
	DjaTurnTimeoutHit hit = dja_turn_timeout_hit;

	HOLD_INTERRUPTS();
	dja_turn_timeout_stop();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	error = dja_error_copy(edata, hit);
	FreeErrorData(edata);
	FlushErrorState();
	AbortOutOfAnyTransaction(); /* a handler may have left a subtransaction */
	dja_stat_forget();
	MemoryContextSwitchTo(context);
	dja_turn_over();
	dja_session_clean();
	dja_handlers_forget();
	dja_remote_aborted();
	MemoryContextSwitchTo(context);
	dja_turn_timeout_hit = DJA_TURN_TIMEOUT_NONE;
	if (error->notify_full)
		(void) dja_can_notify();	/* the next attempt may find room */
	if (error->python_lost)
		dja_session_renew();
	RESUME_INTERRUPTS();
	return error;
}

/*
 * Ends the worker, since the extension is gone from this database, or has another
 * version than this library.  The scout that it calls for logs that.  The claims are
 * given back on the way out.
 */
static void
dja_extension_lost(void)
{
	AbortOutOfAnyTransaction();
	dja_ring_scout(MyDatabaseId, false);
	proc_exit(0);
}

/*
 * Starts a transaction over the batch's mailboxes.
 */
void
dja_transaction_start(DjaBatch *batch)
{
	Assert(!IsTransactionState());
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	BeginTransactionBlock();
	CommitTransactionCommand(); /* of the BEGIN */
	Assert(IsTransactionBlock());
	if (dja_catalog_check(true) != DJA_INSTALLED)
		dja_extension_lost();
	dja_session_check();
	dja_remote_begin();
	dja_batch_begin(batch);
}

/*
 * Writes what the batch has to write, and commits.
 */
void
dja_transaction_commit(DjaBatch *batch)
{
	dja_batch_write(batch);
	Assert(batch->phase == DJA_PHASE_WRITING);
	batch->phase = DJA_PHASE_COMMITTING;
	(void) EndTransactionBlock(false);
	CommitTransactionCommand();
	batch->phase = DJA_PHASE_COMMITTED;
	MemoryContextSwitchTo(batch->context);
	dja_stat_flush();
	dja_session_clean();
}

/*
 * Runs step(arg) in a transaction of its own.  Returns false, logged, if that
 * failed.  *cancelled: since somebody has cancelled it.
 */
static bool
dja_run_step(void (*step) (void *arg), void *arg, bool *cancelled)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "djactor step",
												  ALLOCSET_SMALL_SIZES);
	volatile bool done = false;

	dja_assert_unlocked();
	Assert(!IsTransactionState());
	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		if (dja_catalog_check(true) != DJA_INSTALLED)
			dja_extension_lost();
		PushActiveSnapshot(GetTransactionSnapshot());
		step(arg);
		PopActiveSnapshot();
		CommitTransactionCommand();
		dja_stat_flush();
		done = true;
	}
	PG_CATCH();
	{
		DjaError   *error = dja_recover(context);

		*cancelled = dja_error_is_cancel(error);
		ereport(LOG, (errcode(error->sqlerrcode), errmsg("%s", error->message)));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(context);
	return done;
}

/*
 * Runs step(arg) in a transaction of its own.  Returns false, logged, if that
 * failed.
 */
bool
dja_try_in_transaction(void (*step) (void *arg), void *arg)
{
	bool		cancelled = false;

	return dja_run_step(step, arg, &cancelled);
}

/*
 * Likewise, for what mail depends on.  After a failure, unless it was cancelled,
 * dja_had_trouble() is true, once.
 */
bool
dja_in_transaction(void (*step) (void *arg), void *arg)
{
	bool		cancelled = false;
	bool		done = dja_run_step(step, arg, &cancelled);

	if (!done && !cancelled)
		dja_trouble = true;
	return done;
}

/*
 * Has a step failed since the last call?
 */
bool
dja_had_trouble(void)
{
	bool		trouble = dja_trouble;

	dja_trouble = false;
	return trouble;
}
