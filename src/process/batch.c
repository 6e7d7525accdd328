/*
 * batch.c
 *
 * A worker's batch; visit.c has the steps.
 *
 * A batch is one transaction over as many turns as there is time for, in the
 * mailboxes that have waited longest.  It is optimistic: there are no savepoints, and
 * an error aborts all of it.  The remedy depends on when the error came, whose fault
 * it is (failure.c) and whether turns shared the transaction.  The table dja_remedies
 * has one for each case, dja_remedy_steps has what it does.  Mailboxes in which
 * nothing was done go back to where they were claimed from, so the order of service
 * is as if the batch had not been.
 *
 * The failure of a turn that was alone cannot be written down in the transaction that
 * it aborted.  That takes a second one.  The claims are kept until the outcome is
 * durable.
 */
#include "postgres.h"

#include "access/xact.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "process/batch.h"
#include "process/worker.h"
#include "shmem/slots.h"
#include "shmem/stats.h"
#include "tables/catalog.h"
#include "tables/type_settings.h"
#include "turn/remote.h"
#include "turn/session.h"
#include "turn/turn.h"
#include "turn/turn_outcome.h"
#include "turn/turn_timeout.h"
#include "turn/visit.h"
#include "xact/deliver.h"

#define DJA_SAVEPOINT_TURNS 10000	/* of a type after one of its turns has
									 * failed */
#define DJA_GIVE_WAY_MS 1
#define DJA_PUT_OFFS_TOLD 8		/* so often a mailbox is put off until it is
								 * said */

/* How a batch's transaction ended. */
typedef enum DjaOutcome
{
	DJA_COMMITTED,
	DJA_ABORTED,				/* each claim knows what comes next */
	DJA_STALLED					/* likewise, and the server is in trouble */
} DjaOutcome;

/* The remedies for an error. */
typedef enum DjaRemedy
{
	DJA_RECORD,					/* write down that this message has failed */
	DJA_ALONE,					/* run this message alone, the others again */
	DJA_SAVEPOINTS,				/* run all of it again, with savepoints around
								 * the turns of this type */
	DJA_EACH_ALONE,				/* run every message of the batch alone */
	DJA_PUT_OFF,				/* somebody has a row of this mailbox: it
								 * waits */
	DJA_STALL,					/* wait; then run every message alone, so that
								 * one that always brings this about does not
								 * keep the others waiting */
	DJA_END						/* end the worker */
} DjaRemedy;

/*
 * The remedies, for an error that turns which share a transaction have met, and
 * for one that a single turn has met.
 */
#define DJA_ANY(remedy) {(remedy), (remedy), (remedy), (remedy), (remedy)}

static const DjaRemedy dja_remedies[2][DJA_PHASE_COMMITTED + 1][DJA_NBLAMES] = {
	{
		/* shared: conflict, server, long, mates, message */
		[DJA_PHASE_READING] = {DJA_EACH_ALONE, DJA_STALL, DJA_STALL, DJA_STALL, DJA_STALL},
		[DJA_PHASE_TURN] = {DJA_ALONE, DJA_ALONE, DJA_ALONE, DJA_SAVEPOINTS, DJA_SAVEPOINTS},
		[DJA_PHASE_WRITING] = {DJA_PUT_OFF, DJA_STALL, DJA_STALL, DJA_EACH_ALONE, DJA_EACH_ALONE},
		[DJA_PHASE_COMMITTING] = {DJA_EACH_ALONE, DJA_STALL, DJA_STALL, DJA_EACH_ALONE, DJA_EACH_ALONE},
		[DJA_PHASE_COMMITTED] = DJA_ANY(DJA_END),
	},
	{
		/* single */
		/* what is read is another mailbox than the one that had the turn */
		[DJA_PHASE_READING] = {DJA_EACH_ALONE, DJA_STALL, DJA_STALL, DJA_STALL, DJA_STALL},
		[DJA_PHASE_TURN] = DJA_ANY(DJA_RECORD),
		[DJA_PHASE_WRITING] = {DJA_PUT_OFF, DJA_STALL, DJA_STALL, DJA_RECORD, DJA_RECORD},
		[DJA_PHASE_COMMITTING] = DJA_ANY(DJA_RECORD),
		[DJA_PHASE_COMMITTED] = DJA_ANY(DJA_END),
	}
};

static bool dja_trouble = false;

/*
 * Leaves the transaction after an error, and gets ready for the next one.  Returns
 * the error, copied into the given context.
 */
static DjaError *
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
	dja_ring_scout(MyDatabaseId);
	proc_exit(0);
}

/*
 * Starts a transaction over the batch's mailboxes.
 */
static void
dja_transaction_start(DjaBatch *batch)
{
	Assert(!IsTransactionState());
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (dja_catalog_check(true) != DJA_INSTALLED)
		dja_extension_lost();
	dja_session_check();
	dja_remote_begin();
	dja_batch_begin(batch);
}

static void
dja_transaction_commit(DjaBatch *batch)
{
	dja_batch_write(batch);
	Assert(batch->phase == DJA_PHASE_WRITING);
	batch->phase = DJA_PHASE_COMMITTING;
	CommitTransactionCommand();
	batch->phase = DJA_PHASE_COMMITTED;
	MemoryContextSwitchTo(batch->context);
	dja_stat_flush();
	dja_session_clean();
}

/*
 * Claims the next mailbox that fits in.  Returns NULL if there is none.
 */
static DjaClaim *
dja_batch_claim(DjaBatch *batch, int pool)
{
	int			limit;
	int			mailbox = dja_queue_pop(pool, batch->executed, batch->clock, &limit);

	Assert(batch->phase == DJA_PHASE_READING);
	batch->budget = Min(batch->budget, limit - batch->executed);
	return mailbox < 0 ? NULL : dja_batch_add(batch, mailbox);
}

/*
 * Handles mail, beginning with the given claim: one mailbox after the other and, when
 * no other waits, the mail that is left in them.
 */
static void
dja_batch_work(DjaBatch *batch, DjaClaim *claim, int pool)
{
	while (claim != NULL)
	{
		if (!claim->was_read)
			dja_claim_read(batch, claim);
		if (!dja_batch_visit(batch, claim) || batch->budget <= 0 || batch->clock >= batch->deadline)
			return;
		CHECK_FOR_INTERRUPTS();
		claim = dja_batch_claim(batch, pool);
		if (claim == NULL && batch->budget > 0)
			claim = dja_batch_revisit(batch);
	}
}

/*
 * The second transaction: writes down the failure of the message that took its
 * transaction along.  Returns DJA_RECORD if it could, DJA_PUT_OFF if another
 * transaction has locked the message's row or its actor's, else DJA_STALL.
 */
static DjaRemedy
dja_write_failure(DjaBatch *batch, DjaClaim *failed, int64 id, DjaError *error, bool with_actor)
{
	volatile DjaRemedy result = DJA_RECORD;

	PG_TRY();
	{
		DjaMessage *message;

		dja_transaction_start(batch);
		failed->end = DJA_END_REMAINING;
		failed->type = dja_type_by_hash(failed->type_hash);
		message = dja_message_by_id(id, GetActiveSnapshot());
		if (failed->type != NULL && message != NULL)
		{
			DjaActor   *actor;

			dja_settings_see(failed->type->settings, LOG);
			actor = with_actor ? dja_claim_actor(batch, failed, message->key) : NULL;

			(void) dja_message_failed(batch, failed, actor, message, error);
		}
		dja_transaction_commit(batch);
	}
	PG_CATCH();
	{
		DjaError   *second = dja_recover(batch->context);

		result = dja_error_blame(second) == DJA_BLAME_CONFLICT ? DJA_PUT_OFF : DJA_STALL;
		failed->freed = 0;
		if (result == DJA_STALL)
			ereport(LOG,
					(errmsg("could not record the failure of message " INT64_FORMAT ": %s",
							id, second->message)));
	}
	PG_END_TRY();
	return result;
}

/*
 * Records a failure as well as possible: without its actor, if that cannot be read or
 * its row stays locked.  If the message's own row is locked, it is put off.
 */
static DjaOutcome
dja_record_failure(DjaBatch *batch, DjaClaim *failed, DjaError *error)
{
	int64		id = batch->message->id;
	text	   *key = batch->message->key;
	DjaRemedy	result = DJA_PUT_OFF;
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	key = DatumGetTextPCopy(PointerGetDatum(key));	/* the batch's memory is
													 * emptied */
	MemoryContextSwitchTo(old);
	if (batch->actor_read)
		result = dja_write_failure(batch, failed, id, error, true);
	if (result == DJA_PUT_OFF)
		result = dja_write_failure(batch, failed, id, error, false);
	if (result == DJA_PUT_OFF)
		dja_claim_put_off(batch, failed, key, InvalidTransactionId);
	else if (failed->end == DJA_END_RETRY)
		failed->end = DJA_END_REMAINING;	/* its next reader sees how long */
	failed->cursor = DJA_CURSOR_START;
	return result == DJA_STALL ? DJA_STALLED : DJA_ABORTED;
}

/*
 * Returns the remedy for an error.
 */
static DjaRemedy
dja_choose_remedy(DjaBatch *batch, DjaError *error)
{
	DjaRemedy	remedy;
	DjaBlame	blame;

	/* what heap_update says of a row that its own transaction has changed */
	if (batch->phase == DJA_PHASE_WRITING &&
		error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
	{
		error->sqlerrcode = ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION;
		error->message = "the turn has changed a row of djactor that it runs on\n"
			"HINT:  Return the new state from the handler instead of updating djactor.actor.";
	}
	blame = dja_error_blame(error);
	if (batch->executed == 0 && batch->phase != DJA_PHASE_COMMITTED)
		return DJA_STALL;		/* our own bookkeeping */

	/*
	 * While the rows are written, only what the turn itself has brought about
	 * is its fault: a state that is too large, a row that it has changed.
	 */
	if (batch->phase == DJA_PHASE_WRITING && !dja_is_nobodys(blame) &&
		error->sqlerrcode != ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		return DJA_STALL;

	remedy = dja_remedies[batch->executed == 1][batch->phase][blame];
	/* outside its savepoint: its actor cannot be read, say */
	if (remedy == DJA_SAVEPOINTS && batch->claim->type->savepoints > 0)
		return DJA_ALONE;
	return remedy;
}

/* ---------- the remedies ---------- */

static DjaOutcome
dja_remedy_record(DjaBatch *batch, DjaClaim *claim, DjaError *error)
{
	if (batch->phase == DJA_PHASE_TURN && dja_claim_in_fresh_session(batch, claim, error))
		return DJA_ABORTED;
	return dja_record_failure(batch, claim, error);
}

static DjaOutcome
dja_remedy_alone(DjaBatch *batch, DjaClaim *claim, DjaError *error)
{
	claim->long_turn = dja_error_blame(error) == DJA_BLAME_LONG;
	claim->run_alone = 1;
	return DJA_ABORTED;
}

static DjaOutcome
dja_remedy_savepoints(DjaBatch *batch, DjaClaim *claim, DjaError *error)
{
	claim->type->savepoints = DJA_SAVEPOINT_TURNS;
	return DJA_ABORTED;
}

/*
 * As many messages of each mailbox are run alone as it has had turns.
 */
static DjaOutcome
dja_remedy_each_alone(DjaBatch *batch, DjaClaim *claim, DjaError *error)
{
	for (int i = 0; i < batch->nclaims; i++)
		batch->claims[i]->run_alone = Max(1, batch->claims[i]->turns);
	return DJA_ABORTED;
}

/*
 * Where a row was changed under us there is nothing to wait for: it is just read
 * again.
 */
static DjaOutcome
dja_remedy_put_off(DjaBatch *batch, DjaClaim *claim, DjaError *error)
{
	batch->waited_for = false;
	if (error->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE)
		dja_claim_put_off(batch, claim, claim->messages[0]->key, InvalidTransactionId);
	return DJA_ABORTED;
}

static DjaOutcome
dja_remedy_stall(DjaBatch *batch, DjaClaim *claim, DjaError *error)
{
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("a batch of djactor is tried again: %s", error->message),
			 error->context ? errcontext("%s", error->context) : 0));
	if (batch->nclaims > 1 || batch->executed > 1)
		(void) dja_remedy_each_alone(batch, claim, error);
	return DJA_STALLED;
}

static DjaOutcome
dja_remedy_end(DjaBatch *batch, DjaClaim *claim, DjaError *error)
{
	ereport(FATAL,
			(errcode(error->sqlerrcode),
			 errmsg("could not clean a worker's session: %s", error->message)));
	return DJA_STALLED;			/* not reached */
}

/*
 * What each remedy does to a batch whose claims all return to where they stood.
 * claim is the one of the last turn, NULL if there was none.
 */
typedef DjaOutcome (*DjaRemedyStep) (DjaBatch *batch, DjaClaim *claim, DjaError *error);

static const DjaRemedyStep dja_remedy_steps[] = {
	[DJA_RECORD] = dja_remedy_record,
	[DJA_ALONE] = dja_remedy_alone,
	[DJA_SAVEPOINTS] = dja_remedy_savepoints,
	[DJA_EACH_ALONE] = dja_remedy_each_alone,
	[DJA_PUT_OFF] = dja_remedy_put_off,
	[DJA_STALL] = dja_remedy_stall,
	[DJA_END] = dja_remedy_end,
};

/*
 * Decides after an error, which has aborted the transaction, how each claim ends.
 */
static DjaOutcome
dja_batch_failed(DjaBatch *batch, DjaError *error)
{
	DjaRemedy	remedy = dja_choose_remedy(batch, error);

	Assert(!IsTransactionState());
	for (int i = 0; i < batch->nclaims; i++)
	{
		batch->claims[i]->end = DJA_END_RETURNED;
		batch->claims[i]->cursor = DJA_CURSOR_START;
		batch->claims[i]->freed = 0;
		batch->claims[i]->long_turn = false;
	}
	batch->waited_for = batch->executed > 1 && dja_error_blame(error) == DJA_BLAME_CONFLICT;
	return dja_remedy_steps[remedy] (batch, batch->claim, error);
}

/*
 * Makes one transaction over the mailbox that is claimed, and others.  Returns how it
 * ended; each claim knows how it ends.
 */
static DjaOutcome
dja_batch_attempt(DjaBatch *batch, int pool)
{
	volatile DjaOutcome outcome = DJA_COMMITTED;

	dja_turn_timeout_arm();
	PG_TRY();
	{
		dja_transaction_start(batch);
		dja_batch_work(batch, batch->claims[0], pool);
		dja_transaction_commit(batch);
	}
	PG_CATCH();
	{
		DjaError   *error = dja_recover(batch->context);

		outcome = dja_batch_failed(batch, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(batch->context);
	return outcome;
}

/*
 * Logs, once, that a mailbox waits for another transaction's lock.  That transaction
 * may have locked very many rows.  Then the first of them stands for all.
 */
static void
dja_tell_put_off(DjaClaim *claim)
{
	static TransactionId told = InvalidTransactionId;
	int			pid = TransactionIdIsValid(claim->locker) ? BackendXidGetPid(claim->locker) : 0;

	if (TransactionIdIsValid(claim->locker) && claim->locker == told)
		return;
	told = claim->locker;
	ereport(LOG,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 claim->asker_dropped ?
			 errmsg("mail of actor %s waits: another transaction drops the actor type that has asked it",
					claim->waiting) :
			 errmsg("mail of actor %s waits: another transaction has locked the actor's row, or a message's",
					claim->waiting),
			 pid != 0 ? errdetail("Process %d has.", pid) : 0,
			 errhint("It goes on when that transaction ends. See djactor.mailbox and pg_stat_activity.")));
}

/*
 * Notes for the pace of its types how the batch has gone.
 */
static void
dja_batch_note(DjaBatch *batch, DjaOutcome outcome)
{
	for (int i = 0; i < batch->nclaims; i++)
	{
		DjaClaim   *claim = batch->claims[i];
		DjaPaceEvent event = DJA_PACE_NOTHING;

		if (batch->waited_for)
			event = batch->executed > 1 ? DJA_PACE_CONFLICT : DJA_PACE_NOTHING;
		else if (claim->long_turn)
			event = DJA_PACE_LONG_TURN;
		else if (outcome == DJA_COMMITTED && claim->turns > 0)
			event = DJA_PACE_QUIET;
		dja_queue_note(claim->type_queue, event);
	}
}

/*
 * Gives the mailboxes back: first those that return to where they came from, the last
 * of them first, then the others.
 */
static void
dja_batch_release(DjaBatch *batch, DjaOutcome outcome)
{
	TimestampTz now = GetCurrentTimestamp();

	Assert(!IsTransactionState());
	Assert(outcome != DJA_COMMITTED || batch->phase == DJA_PHASE_COMMITTED);
	dja_batch_note(batch, outcome);
	dja_lock();
	for (int i = 0; i < 2 * batch->nclaims; i++)
	{
		bool		returning = i < batch->nclaims;
		DjaClaim   *claim = batch->claims[returning ? batch->nclaims - 1 - i : i - batch->nclaims];

		if ((claim->end == DJA_END_RETURNED) != returning)
			continue;
		if (claim->end == DJA_END_PUT_OFF && dja_mailbox(claim->mailbox)->put_offs != DJA_PUT_OFFS_TOLD - 1)
			claim->waiting = NULL;
		dja_queue_finish(claim->mailbox, claim->end, claim->cursor, claim->freed, claim->run_alone);
		if ((i + 1) % 64 == 0)
		{
			dja_unlock();
			dja_lock();
		}
	}
	if (outcome == DJA_COMMITTED && batch->turns > 0)
		dja_trouble_over(&dja_shared->queue->trouble, now);
	dja_queue_leave_type_queues(batch->executed, batch->started, now);
	dja_unlock();
	for (int i = 0; i < batch->nclaims; i++)
		if (batch->claims[i]->end == DJA_END_PUT_OFF && batch->claims[i]->waiting != NULL)
			dja_tell_put_off(batch->claims[i]);
}

/*
 * Pauses for a moment, since a process has waited for one of the batch's locks.  It
 * has to be scheduled before it can take the lock, and the next batch may need the
 * same one.
 */
static void
dja_give_way(void)
{
	static uint32 wait_event = 0;

	(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, DJA_GIVE_WAY_MS,
					 DJA_WAIT_EVENT(wait_event, "DjactorGiveWay"));
	dja_check_interrupts();
}

/*
 * Runs one batch: claims mailboxes of the pool and handles their mail.  Needs a
 * worker of that pool, outside a transaction.
 */
DjaBatchResult
dja_batch_run(int pool)
{
	DjaBatch   *batch = dja_batch_create(true, DJA_MODE_FAST);
	DjaOutcome	outcome = DJA_COMMITTED;
	bool		any;
	bool		waited_for;

	dja_assert_worker();
	Assert(!IsTransactionState());
	batch->started = batch->clock = GetCurrentTimestamp();
	batch->deadline = TimestampTzPlusMilliseconds(batch->started, dja_batch_time);
	batch->budget = dja_batch_size;
	any = dja_batch_claim(batch, pool) != NULL;
	if (any)
	{
		outcome = dja_batch_attempt(batch, pool);
		dja_batch_release(batch, outcome);
		dja_turn_timeout_rest();
		dja_my_worker->long_turn = false;
	}
	waited_for = batch->waited_for;
	MemoryContextSwitchTo(TopMemoryContext);
	dja_batch_free(batch);
	if (waited_for)
		dja_give_way();
	return !any ? DJA_BATCH_EMPTY : outcome == DJA_STALLED ? DJA_BATCH_STALLED : DJA_BATCH_DONE;
}

/*
 * Runs step(arg) in a transaction of its own; see batch.h.
 */
bool
dja_in_transaction(void (*step) (void *arg), void *arg)
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

		ereport(LOG, (errcode(error->sqlerrcode), errmsg("%s", error->message)));
		dja_trouble = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(context);
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
