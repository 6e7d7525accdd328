/*
 * batch.c
 *
 * A worker's batch; run.c has the steps.
 *
 * The batch is optimistic: no savepoints, an error aborts all of it.  Then it
 * depends on whose fault it was (failure.c):
 *
 *   a message's		its type becomes careful: the same mailboxes are run again with a
 *						savepoint around each message of that type, and so are its next ten
 *						thousand
 *   perhaps a mate's	likewise, but what fails in its savepoint then is run once more alone, and
 *						only that counts
 *   nobody's			the message is put off for a moment, without using up an attempt
 *   at the commit		as many messages as the batch held are run one by one
 *
 * What failed alone cannot be written down in the transaction that it aborted,
 * so that takes a second one.  The claims are kept until the outcome is
 * durable.
 */
#include "postgres.h"

#include "access/xact.h"
#include "batch.h"
#include "catalog.h"
#include "compat.h"
#include "deliver.h"
#include "guc.h"
#include "limit.h"
#include "pgstat.h"
#include "run.h"
#include "session.h"
#include "settle.h"
#include "slots.h"
#include "stats.h"
#include "storage/ipc.h"
#include "turn.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define DJA_CHUNK 16			/* mailboxes claimed at a time */
#define DJA_CAREFUL_MESSAGES 10000
#define DJA_HELP_MS 100			/* a batch that takes longer calls for another
								 * worker */

/* How one transaction over the claimed mailboxes ended. */
typedef enum DjaOutcome
{
	DJA_COMMITTED,
	DJA_AGAIN,					/* aborted; run the same again, more carefully */
	DJA_GIVE_BACK,				/* aborted; give the mailboxes back */
	DJA_STALLED
} DjaOutcome;

/* Messages to be run one by one, since a commit of several failed. */
static int	dja_alone_budget = 0;

static bool dja_trouble = false;

static TimeoutId dja_help_timeout;
static bool dja_help_registered = false;
static int	dja_help_pool;
static int64 dja_help_message;	/* that was handled when it last fired */

/*
 * The batch takes long, and others may wait.  Runs in a signal handler.
 */
static void
dja_help_handler(void)
{
	int64		message;

	if (dja_my_worker == NULL)
		return;					/* it is on its way out */
	message = dja_my_worker->message_id;
	dja_pool(dja_help_pool)->wanted = true;
	if (message != 0 && message == dja_help_message)
		dja_my_worker->long_turn = true;
	dja_help_message = message;
	dja_ring_launcher();
}

static void
dja_help_arm(int pool)
{
	if (!dja_help_registered)
	{
		dja_help_timeout = RegisterTimeout(USER_TIMEOUT, dja_help_handler);
		dja_help_registered = true;
	}
	dja_help_pool = pool;
	dja_help_message = 0;
	enable_timeout_every(dja_help_timeout,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_HELP_MS),
						 DJA_HELP_MS);
}

/*
 * After an error: out of the transaction, ready for the next one.  Returns the
 * error in the given context.
 */
static DjaError *
dja_recover(MemoryContext context)
{
	ErrorData  *edata;
	DjaError   *error;
	bool		timed_out = dja_limit_exceeded;

	HOLD_INTERRUPTS();
	dja_limit_stop();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	error = dja_error_copy(edata, timed_out);
	FreeErrorData(edata);
	FlushErrorState();
	AbortOutOfAnyTransaction(); /* a handler may have left a subtransaction */
	dja_stat_forget();
	MemoryContextSwitchTo(context);
	dja_turn_over();
	dja_session_clean();
	dja_handlers_forget();
	dja_limit_exceeded = false;
	if (error->notify_full)
		(void) dja_can_notify();	/* the next attempt may find room */
	RESUME_INTERRUPTS();
	return error;
}

/*
 * The extension is gone from this database, or of another version than this
 * library: the scout has to look at it, and says so.  The claims are given
 * back on the way out.
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
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (dja_catalog_check(true) != DJA_INSTALLED)
		dja_extension_lost();
	dja_session_check();
	dja_batch_begin(batch);
}

static void
dja_transaction_commit(DjaBatch *batch)
{
	dja_batch_write(batch);
	batch->phase = DJA_PHASE_COMMITTING;
	CommitTransactionCommand();
	batch->phase = DJA_PHASE_COMMITTED;
	MemoryContextSwitchTo(batch->context);
	dja_stat_flush();
	dja_session_clean();
}

/*
 * Messages for each mailbox: few when many mailboxes wait, so that each gets
 * its turn soon, all that the batch may hold when there is only one.
 */
static int
dja_quota(DjaBatch *batch, int nruns)
{
	return Max(1, batch->budget / Max(1, nruns));
}

/*
 * Handles what is claimed; with grow, claims more as long as there is time.
 */
static void
dja_batch_work(DjaBatch *batch, int pool, bool grow)
{
	int			first = 0;

	for (;;)
	{
		int			mailboxes[DJA_CHUNK];
		int			n;

		dja_batch_read(batch, first, dja_quota(batch, batch->nruns - first));
		if (!dja_batch_execute(batch, first) || !grow ||
			batch->budget <= 0 || GetCurrentTimestamp() >= batch->deadline)
			return;
		CHECK_FOR_INTERRUPTS();

		first = batch->nruns;
		n = dja_queue_pop(pool, DJA_CHUNK, mailboxes, false);
		if (n == 0)
			return;
		for (int i = 0; i < n; i++)
			dja_batch_add(batch, mailboxes[i]);
	}
}

/*
 * The second transaction: writes down what became of the message that failed
 * and took its transaction along.  If even that fails the server is in
 * trouble.
 */
static DjaOutcome
dja_write_failure(DjaBatch *batch, DjaRun *failed, int64 id, DjaError *error, bool charge,
				  bool with_actor)
{
	volatile DjaOutcome outcome = DJA_GIVE_BACK;

	PG_TRY();
	{
		DjaMessage *message;
		bool		suspended;

		dja_transaction_start(batch);
		failed->type = dja_type_by_hash(failed->type_hash);
		message = dja_message_by_id(id, GetActiveSnapshot());
		if (failed->type != NULL && message != NULL)
		{
			DjaActor   *actor = with_actor ? dja_run_actor(batch, failed, message->key) : NULL;

			dja_message_failed(batch, failed, actor, message, error, charge);
		}
		suspended = failed->end == DJA_END_DRAINED;
		dja_transaction_commit(batch);
		failed->suspended = suspended;
	}
	PG_CATCH();
	{
		DjaError   *second = dja_recover(batch->context);

		outcome = DJA_STALLED;
		if (with_actor && dja_error_blame(second) == DJA_BLAME_NOBODY)
			outcome = DJA_AGAIN;	/* somebody has the actor's row: do
									 * without */
		else
			ereport(LOG,
					(errmsg("could not record the failure of message " INT64_FORMAT ": %s",
							id, second->message)));
	}
	PG_END_TRY();
	return outcome;
}

/*
 * The same, as well as it goes: an actor that cannot be read, or whose row
 * somebody keeps locked, does without the note of the failure.
 */
static DjaOutcome
dja_record_failure(DjaBatch *batch, DjaRun *failed, int64 id, DjaError *error, bool charge)
{
	DjaOutcome	outcome = DJA_AGAIN;

	if (batch->actor_read)
		outcome = dja_write_failure(batch, failed, id, error, charge, true);
	if (outcome == DJA_AGAIN)
		outcome = dja_write_failure(batch, failed, id, error, charge, false);
	return outcome;
}

/*
 * The transaction was aborted by an error.  Decides what comes next; see the
 * top of the file.
 */
static DjaOutcome
dja_batch_failed(DjaBatch *batch, DjaError *error)
{
	DjaBlame	blame;
	DjaRun	   *run = batch->run;
	DjaMessage *message = batch->message;
	bool		single = batch->executed == 1;

	/* what heap_update says of a row that its own transaction has changed */
	if (batch->phase == DJA_PHASE_WRITING &&
		error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
	{
		error->sqlerrcode = ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION;
		error->message = "the turn has changed a row of djactor that it runs on\n"
			"HINT:  Return the new state from the handler instead of updating djactor.actor.";
	}
	blame = dja_error_blame(error);

	if (batch->phase == DJA_PHASE_COMMITTED)
		ereport(FATAL,
				(errcode(error->sqlerrcode),
				 errmsg("could not clean a worker's session: %s", error->message)));

	/* our own bookkeeping: no message's fault */
	if (batch->executed == 0 || batch->phase == DJA_PHASE_READING)
	{
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("a batch of djactor is tried again: %s", error->message),
				 error->context ? errcontext("%s", error->context) : 0));
		if (batch->nruns > 1)
			dja_alone_budget = batch->nruns;	/* so that the others go on */
		return DJA_STALLED;
	}

	if (blame == DJA_BLAME_NOBODY)
	{
		/*
		 * an actor's row changed under us: nothing to wait for, just read it
		 * again
		 */
		if (batch->phase == DJA_PHASE_WRITING &&
			error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
			return DJA_GIVE_BACK;
		if (batch->phase == DJA_PHASE_WRITING && run->nmessages > 0)
			message = run->messages[0];
		if (batch->phase == DJA_PHASE_COMMITTING && !single)
		{
			ereport(LOG,
					(errcode(error->sqlerrcode),
					 errmsg("a batch of djactor is tried again: %s", error->message)));
			return DJA_STALLED;
		}
		return dja_record_failure(batch, run, message->id, error, false);
	}

	/*
	 * While the rows are written, only what the turn itself has brought about
	 * is its fault: a state that is too large, a row that it has changed.
	 */
	if (batch->phase == DJA_PHASE_WRITING &&
		error->sqlerrcode != ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
	{
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("a batch of djactor is tried again: %s", error->message)));
		dja_alone_budget = single ? 0 : batch->executed;
		return DJA_STALLED;
	}

	/* it was alone, so it was its own doing, in its turn or at the commit */
	if (single)
		return dja_record_failure(batch, run, message->id, error, true);

	if (batch->phase != DJA_PHASE_TURN)
	{
		/* anybody's fault */
		dja_alone_budget = batch->executed;
		return DJA_GIVE_BACK;
	}
	if (run->type->careful > 0)
	{
		/* outside its savepoint: its actor cannot be read, say */
		run->alone = true;
		return DJA_GIVE_BACK;
	}
	run->type->careful = DJA_CAREFUL_MESSAGES;
	return DJA_AGAIN;
}

/*
 * One transaction over the mailboxes of the batch.
 */
static DjaOutcome
dja_batch_attempt(DjaBatch *batch, int pool, bool single, bool grow)
{
	volatile DjaOutcome outcome = DJA_COMMITTED;

	dja_help_arm(pool);			/* an error has stopped the clock */
	batch->phase = DJA_PHASE_READING;
	batch->executed = 0;
	batch->budget = single ? 1 : dja_batch_size;
	batch->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), dja_batch_time);
	batch->savepoints = single ? DJA_SAVEPOINT_NEVER : DJA_SAVEPOINT_CAREFUL;
	PG_TRY();
	{
		dja_transaction_start(batch);
		dja_batch_work(batch, pool, grow);
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
 * Gives the mailboxes back, except those that are to be run alone first.  After
 * an abort a new start reads what there is, a hold too, from the table: what the
 * batch has seen of a mailbox, or not seen, was perhaps its own doing.
 */
static void
dja_batch_release(DjaBatch *batch, DjaOutcome outcome)
{
	dja_lock();
	for (int i = 0; i < batch->nruns; i++)
	{
		DjaRun	   *run = batch->runs[i];

		if (run->alone)
			continue;
		if (outcome != DJA_COMMITTED)
		{
			run->end = run->suspended ? DJA_END_DRAINED : DJA_END_REMAINING;
			run->cursor = DJA_CURSOR_START;
			run->freed = 0;
		}
		dja_queue_finish(run->mailbox, run->end, run->cursor, run->freed);
		if ((i + 1) % 64 == 0)
		{
			dja_unlock();
			dja_lock();
		}
	}
	dja_unlock();
}

/*
 * Runs the first message of a mailbox in a transaction of its own.
 */
static DjaOutcome
dja_run_alone(DjaRun *run, int pool)
{
	DjaBatch   *batch = dja_batch_create(true, DJA_SAVEPOINT_NEVER);
	DjaOutcome	outcome;

	dja_batch_add(batch, run->mailbox);
	outcome = dja_batch_attempt(batch, pool, true, false);
	batch->runs[0]->alone = false;
	dja_batch_release(batch, outcome);
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(batch->context);
	return outcome;
}

/*
 * Claims mailboxes of the pool and handles their mail.
 */
DjaBatchResult
dja_batch_run(int pool)
{
	bool		single = dja_alone_budget > 0;
	int			mailboxes[DJA_CHUNK];
	int			n = dja_queue_pop(pool, single ? 1 : DJA_CHUNK, mailboxes, true);
	DjaBatch   *batch;
	DjaOutcome	outcome;

	if (n == 0)
		return DJA_BATCH_EMPTY;
	batch = dja_batch_create(true, DJA_SAVEPOINT_CAREFUL);
	for (int i = 0; i < n; i++)
		dja_batch_add(batch, mailboxes[i]);
	if (single)
		dja_alone_budget--;

	do
	{
		outcome = dja_batch_attempt(batch, pool, single, !single);
	} while (outcome == DJA_AGAIN);

	dja_batch_release(batch, outcome);
	for (int i = 0; i < batch->nruns; i++)
	{
		if (!batch->runs[i]->alone)
			continue;
		if (dja_run_alone(batch->runs[i], pool) == DJA_STALLED)
			outcome = DJA_STALLED;
	}
	disable_timeout(dja_help_timeout, false);
	dja_my_worker->long_turn = false;
	dja_limit_rest();
	dja_lock();
	dja_queue_leave_lanes();
	dja_unlock();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(batch->context);
	return outcome == DJA_STALLED ? DJA_BATCH_STALLED : DJA_BATCH_DONE;
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
