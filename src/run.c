/*
 * run.c
 *
 * The steps of a batch turn; see run.h.
 *
 * A run is a claimed mailbox.  Its messages are read under a snapshot taken
 * after the claim; each handler call then has a snapshot of its own.  State is
 * handed from call to call in memory.  Deferred triggers fire at the end of
 * each turn, settings are put back, and a turn that touched temporary tables
 * ends the batch after they are dropped: batch-mates must not meet what others
 * left behind.
 *
 * Handled messages are deleted and touched actors written only at the end, in
 * one go.  Failures under a savepoint are written at once, in the same
 * transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "compat.h"
#include "guc.h"
#include "pending.h"
#include "run.h"
#include "session.h"
#include "slots.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "turn.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define DJA_READ_BYTES (16 * 1024 * 1024)	/* of one mailbox at a time */
#define DJA_ATTEMPT_BYTES (64 * 1024 * 1024)	/* of states and messages in one transaction */
#define DJA_WRITING_MAX 60		/* below PGPROC's cache of 64 subtransactions */
#define DJA_RECHECK_MS 1000		/* a handler that cannot be called */

/* What a turn wants of an actor that the batch holds in memory. */
typedef struct DjaWish
{
	DjaActor   *actor;
	bool		paused;
	SubTransactionId subid;		/* with which it would be rolled back */
} DjaWish;

DjaTurn		dja_turn = {NULL, NULL};

static DjaBatch *dja_current_batch = NULL;
static uint32 dja_batch_serial = 0;
static List *dja_wishes = NIL;	/* in the batch's attempt */

DjaBatch *
dja_batch_create(bool own_transaction, DjaSavepoints savepoints)
{
	MemoryContext context = AllocSetContextCreate(own_transaction ? TopMemoryContext : CurrentMemoryContext,
												  "djactor batch", ALLOCSET_DEFAULT_SIZES);
	DjaBatch   *batch = MemoryContextAllocZero(context, sizeof(DjaBatch));

	batch->context = context;
	batch->attempt = AllocSetContextCreate(context, "djactor attempt", ALLOCSET_DEFAULT_SIZES);
	batch->turn = AllocSetContextCreate(context, "djactor turn", ALLOCSET_DEFAULT_SIZES);
	batch->own_transaction = own_transaction;
	batch->savepoints = savepoints;
	return batch;
}

/*
 * Takes a claimed mailbox into the batch.
 */
void
dja_batch_add(DjaBatch *batch, int mailbox)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	DjaRun	   *run = palloc0(sizeof(DjaRun));

	if (batch->nruns == batch->max_runs)
	{
		batch->max_runs = Max(64, 2 * batch->max_runs);
		batch->runs = batch->runs == NULL ? palloc(sizeof(DjaRun *) * batch->max_runs) :
			repalloc(batch->runs, sizeof(DjaRun *) * batch->max_runs);
	}
	batch->runs[batch->nruns++] = run;

	/* a claimed mailbox stays where it is, so these need no lock */
	run->mailbox = mailbox;
	run->lane = dja_mailbox(mailbox)->lane;
	run->key_hash = dja_mailbox(mailbox)->key_hash;
	run->type_hash = dja_lane(run->lane)->type_hash;
	MemoryContextSwitchTo(old);
}

/*
 * A transaction begins, for the first time or anew after an abort.  The caller
 * has checked the extension.
 */
void
dja_batch_begin(DjaBatch *batch)
{
	MemoryContext old;

	MemoryContextReset(batch->attempt);
	MemoryContextReset(batch->turn);
	for (int i = 0; i < batch->nruns; i++)
	{
		DjaRun	   *run = batch->runs[i];

		run->cursor = DJA_CURSOR_START;
		run->end = DJA_END_REMAINING;
		run->removed = 0;
		run->alone = false;
		run->type = NULL;
		run->actors = NULL;
		run->messages = NULL;
		run->nmessages = 0;
	}
	batch->writing = batch->executed = 0;
	batch->run = NULL;
	batch->message = NULL;
	batch->phase = DJA_PHASE_READING;
	batch->nhandled = batch->max_handled = 0;
	batch->handled = NULL;
	dja_wishes = NIL;
	dja_batch_serial++;
	dja_current_batch = batch;

	old = MemoryContextSwitchTo(batch->attempt);
	batch->messages = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	batch->dead_letters = dja_writer_open(DJA_DEAD_LETTER_TABLE, RowExclusiveLock);
	batch->actors = dja_writer_open(DJA_ACTOR_TABLE, RowExclusiveLock);
	batch->identities = dja_writer_open(DJA_IDENTITY_TABLE, RowExclusiveLock);
	batch->actor_slot = table_slot_create(batch->actors->rel, NULL);
	batch->actor_blocks = RelationGetNumberOfBlocks(batch->actors->rel);
	MemoryContextSwitchTo(old);

	/* for what is read and written between the turns */
	PushActiveSnapshot(GetTransactionSnapshot());
}

/* ---------- reading ---------- */

/*
 * Nothing of this lane can run now: let nobody pop from it until its type
 * changes, or until recheck_at.
 */
static void
dja_run_block(DjaRun *run, TimestampTz recheck_at)
{
	run->end = DJA_END_DROPPED;
	dja_lock();
	dja_lane_block(run->lane, run->epoch, recheck_at);
	dja_unlock();
}

/*
 * The type belongs to somebody else, be it that its owner has changed or that
 * a sender did not know yet: its lane goes to that role's workers.
 */
static void
dja_run_move(DjaRun *run)
{
	int			pool;

	dja_lock();
	pool = dja_pool_find(MyDatabaseId, run->type->owner, true);
	if (dja_lane(run->lane)->in_use && dja_lane(run->lane)->epoch == run->epoch)
	{
		if (pool < 0)
			dja_lane_free(run->lane);	/* no room; the next sender tries again */
		else
			dja_lane_move(run->lane, pool);
	}
	run->end = DJA_END_REMAINING;	/* whoever gives it back rings there */
	dja_unlock();
}

/*
 * Can this run's type be run now?
 */
static bool
dja_run_resolve(DjaBatch *batch, DjaRun *run)
{
	char	   *problem = NULL;

	run->type = dja_type_by_hash(run->type_hash);
	if (run->type == NULL || run->type->lane_epoch != run->epoch)
	{
		/* the lane hears of a change a moment before the invalidation comes */
		dja_types_reload();
		run->type = dja_type_by_hash(run->type_hash);
		if (run->type != NULL)
			run->type->lane_epoch = run->epoch;
	}
	run->generation = run->type ? run->type->generation : 0;
	if (run->type == NULL)
	{
		/*
		 * never committed, or dropped: whoever defines it makes the lane anew
		 */
		run->end = DJA_END_DROPPED;
		dja_lock();
		if (dja_lane(run->lane)->in_use && dja_lane(run->lane)->epoch == run->epoch)
			dja_lane_free(run->lane);
		dja_unlock();
		return false;
	}
	if (run->type->owner != GetUserId())
	{
		run->end = DJA_END_DROPPED;
		if (batch->own_transaction)
			dja_run_move(run);
		return false;
	}
	if (run->type->paused && dja_type_paused_now(run->type))
	{
		dja_run_block(run, DJA_NEVER);
		return false;
	}
	if (dja_handler_resolve(run->type, &problem) == NULL)
	{
		if (!batch->own_transaction)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("mail of actor type \"%s\" cannot be handled", run->type->name),
					 errdetail_internal("%s", problem)));
		if (run->type->problem == NULL || strcmp(run->type->problem, problem) != 0)
		{
			ereport(WARNING,
					(errmsg("mail of actor type \"%s\" waits: %s", run->type->name, problem),
					 errhint("It is handled as soon as the handler can be called again.")));
			dja_type_set_problem(run->type, problem);
		}
		dja_run_block(run, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_RECHECK_MS));
		return false;
	}
	if (run->type->problem != NULL && batch->own_transaction)
		dja_type_set_problem(run->type, NULL);
	return true;
}

/*
 * Reads the messages of one run, and says how the run ends once they are
 * handled.
 */
static void
dja_run_read(DjaRun *run, DjaScan *scan, int quota, TimestampTz now)
{
	int			size = 16;
	Size		bytes = 0;

	run->messages = palloc(sizeof(DjaMessage *) * size);
	run->nmessages = 0;
	dja_mailbox_scan_start(scan, run->type_hash, run->key_hash, run->cursor);
	for (;;)
	{
		DjaMessage *message;

		if (run->nmessages >= quota || bytes > DJA_READ_BYTES)
		{
			run->end = DJA_END_REMAINING;
			break;
		}
		if (!dja_scan_next(scan))
		{
			run->end = DJA_END_DRAINED;
			break;
		}
		message = dja_scan_message(scan);
		run->cursor = message->position;
		if (!dja_type_is_named(run->type,
							   DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1])))
			continue;			/* same hash, other type */
		if (message->retry_at > now)
		{
			run->end = DJA_END_HELD;
			break;
		}
		if (run->nmessages == size)
		{
			size *= 2;
			run->messages = repalloc(run->messages, sizeof(DjaMessage *) * size);
		}
		run->messages[run->nmessages++] = message;
		bytes += sizeof(DjaMessage) +
			VARSIZE_ANY(DatumGetPointer(message->values[DJA_MSG_PAYLOAD - 1]));
		run->cursor++;
	}
}

/*
 * As many messages as a type may have in one transaction.
 */
static int
dja_type_quota(DjaBatch *batch, DjaType *type)
{
	if (!batch->own_transaction)
		return PG_INT32_MAX;
	if (type->call->solo)
		return 1;
	return type->batch_size > 0 ? type->batch_size : PG_INT32_MAX;
}

/*
 * Reads the runs from first on, up to quota messages each.
 */
void
dja_batch_read(DjaBatch *batch, int first, int quota)
{
	MemoryContext old = MemoryContextSwitchTo(batch->attempt);
	TimestampTz now = GetCurrentTimestamp();
	Snapshot	snapshot;
	DjaScan		scan;

	/* the snapshot comes after the claims and before the cursors */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	dja_lock();
	for (int i = first; i < batch->nruns; i++)
	{
		batch->runs[i]->epoch = dja_lane(batch->runs[i]->lane)->epoch;
		/* what the caller's own transaction has sent is in no cursor */
		batch->runs[i]->cursor = batch->own_transaction ?
			dja_queue_read_cursor(batch->runs[i]->mailbox) : DJA_CURSOR_START;
	}
	dja_unlock();

	dja_mailbox_scan_begin(&scan, snapshot);
	for (int i = first; i < batch->nruns; i++)
		if (dja_run_resolve(batch, batch->runs[i]))
			dja_run_read(batch->runs[i], &scan,
						 Min(quota, dja_type_quota(batch, batch->runs[i]->type)), now);
	dja_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
}

/*
 * The actor of a message, read when its first message comes up.
 */
DjaActor *
dja_run_actor(DjaBatch *batch, DjaRun *run, text *key)
{
	MemoryContext old;
	Snapshot	snapshot;
	DjaActor   *actor;

	for (actor = run->actors; actor != NULL; actor = actor->next)
		if (dja_text_equal(actor->key, key))
			return actor;

	old = MemoryContextSwitchTo(batch->attempt);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	actor = dja_actor_read(batch->actors->rel, batch->actor_blocks, batch->actor_slot,
						   run->type, key, run->key_hash, snapshot);
	UnregisterSnapshot(snapshot);
	actor->next = run->actors;
	run->actors = actor;
	MemoryContextSwitchTo(old);
	return actor;
}

/*
 * The actor, if the batch under way holds it in memory: what is to be changed
 * about it has to be changed there.
 */
DjaActor *
dja_batch_actor(DjaType *type, text *key)
{
	if (dja_turn.actor == NULL || dja_current_batch == NULL)
		return NULL;
	for (int i = 0; i < dja_current_batch->nruns; i++)
		for (DjaActor *actor = dja_current_batch->runs[i]->actors; actor != NULL; actor = actor->next)
			if (actor->type == type && dja_text_equal(actor->key, key))
				return actor;
	return NULL;
}

/*
 * Pauses or resumes an actor that the batch holds in memory, from the end of
 * the running turn on.
 */
void
dja_batch_wish(DjaActor *actor, bool paused)
{
	MemoryContext old = MemoryContextSwitchTo(dja_current_batch->attempt);
	DjaWish    *wish = palloc(sizeof(DjaWish));

	wish->actor = actor;
	wish->paused = paused;
	wish->subid = GetCurrentSubTransactionId();
	dja_wishes = lappend(dja_wishes, wish);
	MemoryContextSwitchTo(old);
}

static void
dja_fulfil_wishes(void)
{
	ListCell   *lc;

	foreach(lc, dja_wishes)
	{
		DjaWish    *wish = lfirst(lc);

		wish->actor->paused = wish->paused;
		if (!wish->paused)
			wish->actor->suspended = false;
		wish->actor->dirty = true;
	}
	dja_wishes = NIL;
}

/*
 * After an error that ended the transaction, or left drain(): nothing of what
 * stood in memory counts any more.
 */
void
dja_turn_over(void)
{
	dja_turn.actor = NULL;
	dja_turn.message = NULL;
	dja_wishes = NIL;
	dja_current_batch = NULL;
	if (dja_my_worker != NULL)
		dja_my_worker->message_id = 0;
}

/*
 * Wishes share the fate of the subtransaction in which they were made.
 */
static void
dja_wish_subxact_callback(SubXactEvent event, SubTransactionId subid,
						  SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	foreach(lc, dja_wishes)
	{
		DjaWish    *wish = lfirst(lc);

		if (wish->subid != subid)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			dja_wishes = foreach_delete_current(dja_wishes, lc);
		else if (event == SUBXACT_EVENT_COMMIT_SUB)
			wish->subid = parent;
	}
}

void
dja_run_init(void)
{
	RegisterSubXactCallback(dja_wish_subxact_callback, NULL);
}

/* ---------- executing ---------- */

static void
dja_turn_error_context(void *arg)
{
	DjaTurn    *turn = (DjaTurn *) arg;

	errcontext("actor %s \"%s\", message " INT64_FORMAT,
			   turn->actor->type->name, text_to_cstring(turn->actor->key), turn->message->id);
}

/*
 * One turn, without regard to errors: they are thrown.
 */
static void
dja_turn_execute(DjaBatch *batch, DjaRun *run, DjaActor *actor, DjaMessage *message, TimestampTz now)
{
	ErrorContextCallback callback;
	MemoryContext old;
	Datum		result;
	bool		changed;
	int			nest_level;
	int			xact_level;

	dja_turn.actor = actor;
	dja_turn.message = message;
	callback.callback = dja_turn_error_context;
	callback.arg = &dja_turn;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	nest_level = NewGUCNestLevel();
	old = MemoryContextSwitchTo(batch->turn);

	PushActiveSnapshot(GetTransactionSnapshot());
	dja_handler_arm(run->type->handler_timeout, now);
	xact_level = GetCurrentTransactionNestLevel();
	changed = dja_handler_call(run->type, actor->state,
							   message->values[DJA_MSG_PAYLOAD - 1], &result);
	if (GetCurrentTransactionNestLevel() != xact_level)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("handler %s left a subtransaction open", run->type->handler)));
	if (batch->own_transaction)
	{
		AfterTriggerFireDeferred();
		if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
			ResetTempTableNamespace();
	}
	dja_handler_disarm();
	PopActiveSnapshot();

	if (changed)
	{
		Datum		state;

		MemoryContextSwitchTo(batch->attempt);
		state = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
		if (actor->state_owned)
			pfree(DatumGetPointer(actor->state));
		actor->state = state;
		actor->state_owned = true;
	}
	actor->turns++;
	actor->dirty = true;

	dja_fulfil_wishes();
	AtEOXact_GUC(false, nest_level);
	CommandCounterIncrement();
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->turn);
	error_context_stack = callback.previous;
	dja_turn.actor = NULL;
	dja_turn.message = NULL;
}

/*
 * One turn in a subtransaction.  The error, if it fails.
 */
static DjaError *
dja_turn_in_savepoint(DjaBatch *batch, DjaRun *run, DjaActor *actor, DjaMessage *message,
					  TimestampTz now)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	DjaError   *volatile error = NULL;
	DjaActor	before = *actor;

	/* a turn replaces the state; a failed one must find the old one again */
	actor->state_owned = false;
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		dja_turn_execute(batch, run, actor, message, now);
		if (TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
			batch->writing++;
		ReleaseCurrentSubTransaction();
		if (before.state_owned && actor->state != before.state)
			pfree(DatumGetPointer(before.state));
		actor->state_owned |= before.state_owned;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(batch->attempt);
		edata = CopyErrorData();
		FlushErrorState();
		dja_turn.actor = NULL;
		dja_turn.message = NULL;
		error = dja_error_copy(edata, dja_handler_timed_out);
		dja_handler_stop();
		RollbackAndReleaseCurrentSubTransaction();
		dja_handlers_forget();
		*actor = before;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
	MemoryContextReset(batch->turn);
	return error;
}

/*
 * Writes down a failed attempt, in the present transaction.  With charge it
 * counts, else the message is only put off.  actor is NULL when it cannot be
 * read.  True if the run can go on with the next message.
 */
bool
dja_message_failed(DjaBatch *batch, DjaRun *run, DjaActor *actor, DjaMessage *message,
				   DjaError *error, bool charge)
{
	MemoryContext old = MemoryContextSwitchTo(batch->attempt);
	TimestampTz now = GetCurrentTimestamp();
	DjaType    *type = run->type;
	TimestampTz retry_at;
	bool		go_on = true;

	/* it cannot be suspended now: later, then */
	if (actor == NULL && type->suspend && message->attempts + 1 >= type->max_attempts)
		charge = false;
	if (charge)
	{
		message->attempts++;
		if (actor != NULL)
		{
			actor->failures = actor->exists ? actor->failures + 1 : message->attempts;
			actor->last_error = error->message;
			actor->dirty |= actor->exists;
		}
	}
	if (charge && message->attempts >= type->max_attempts)
	{
		if (type->suspend && actor != NULL)
		{
			actor->suspended = actor->dirty = true;
			dja_message_retry(batch->messages, message, message->attempts, DT_NOBEGIN,
							  error->message, false);
			run->end = DJA_END_DRAINED; /* until resume() */
			go_on = false;
		}
		else
		{
			DjaFailure	failure = {"failed", error->sqlerrcode, error->message, error->context};

			dja_message_dead(batch->messages, batch->dead_letters, message, &failure);
			run->removed++;
		}
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("actor %s \"%s\", message " INT64_FORMAT " failed %d times: %s",
						type->name, text_to_cstring(message->key), message->id, message->attempts,
						error->message),
				 error->context ? errcontext("%s", error->context) : 0,
				 actor != NULL && actor->suspended ? errhint("The actor is suspended until djactor.resume().") :
				 errhint("The message is in djactor.dead_letter.")));
	}
	else
	{
		retry_at = charge ? dja_retry_time(type, message->attempts, now) :
			dja_postpone_time(error, now);
		dja_message_retry(batch->messages, message, message->attempts, retry_at,
						  error->message, type->skip);
		dja_pending_due(type, retry_at);
		if (!type->skip)
		{
			run->end = DJA_END_HELD;
			run->cursor = message->position;
			go_on = false;
		}
		ereport(charge ? LOG : DEBUG1,
				(errcode(error->sqlerrcode),
				 errmsg("actor %s \"%s\", message " INT64_FORMAT " failed (attempt %d of %d): %s",
						type->name, text_to_cstring(message->key), message->id,
						message->attempts + (charge ? 0 : 1), type->max_attempts, error->message),
				 error->context ? errcontext("%s", error->context) : 0));
	}
	MemoryContextSwitchTo(old);
	return go_on;
}

/*
 * Leaves the rest of a run, from one of its messages on, for another time.
 */
static void
dja_run_leave(DjaRun *run, int from)
{
	if (from < run->nmessages)
	{
		run->end = DJA_END_REMAINING;
		run->cursor = run->messages[from]->position;
	}
}

/*
 * A turn that failed under its savepoint.  True if the run can go on.
 */
static bool
dja_run_failed(DjaBatch *batch, DjaRun *run, DjaActor *actor, int i, DjaError *error)
{
	DjaBlame	blame = dja_error_blame(error);

	if (blame == DJA_BLAME_ALONE && batch->own_transaction && batch->executed > 1)
	{
		run->alone = true;
		dja_run_leave(run, i);
		return false;
	}
	return dja_message_failed(batch, run, actor, run->messages[i], error,
							  blame != DJA_BLAME_NOBODY);
}

/*
 * The message has been handled.
 */
static void
dja_run_handled(DjaBatch *batch, DjaRun *run, DjaMessage *message)
{
	if (batch->nhandled == batch->max_handled)
	{
		MemoryContext old = MemoryContextSwitchTo(batch->attempt);

		batch->max_handled = Max(64, 2 * batch->max_handled);
		batch->handled = batch->handled == NULL ?
			palloc(sizeof(DjaMessage *) * batch->max_handled) :
			repalloc(batch->handled, sizeof(DjaMessage *) * batch->max_handled);
		MemoryContextSwitchTo(old);
	}
	batch->handled[batch->nhandled++] = message;
	run->removed++;
}

static void
dja_worker_shows(DjaType *type, DjaMessage *message)
{
	if (dja_my_worker == NULL)
		return;
	if (message != NULL && strncmp(dja_my_worker->actor_type, type->name, NAMEDATALEN - 1) != 0)
		strlcpy(dja_my_worker->actor_type, type->name, NAMEDATALEN);
	dja_my_worker->message_id = message ? message->id : 0;
}

/*
 * Where a turn is about to start, for who has to catch its error; and that it
 * did not come to it.
 */
typedef struct DjaTurnBefore
{
	DjaRun	   *run;
	DjaMessage *message;
} DjaTurnBefore;

static DjaTurnBefore
dja_turn_begins(DjaBatch *batch, DjaRun *run, DjaMessage *message)
{
	DjaTurnBefore before = {batch->run, batch->message};

	batch->phase = DJA_PHASE_TURN;
	batch->run = run;
	batch->message = message;
	batch->actor_read = false;
	batch->executed++;
	return before;
}

static void
dja_turn_did_not_happen(DjaBatch *batch, DjaTurnBefore before)
{
	batch->phase = DJA_PHASE_READING;
	batch->run = before.run;
	batch->message = before.message;
	batch->executed--;
}

/*
 * What to do after a message.
 */
typedef enum DjaNext
{
	DJA_NEXT_MESSAGE,
	DJA_NEXT_RUN,
	DJA_NEXT_BATCH
} DjaNext;

/*
 * Handles, or otherwise deals with, message i of a run.  The run's end is set
 * where the answer is not DJA_NEXT_MESSAGE.
 */
static DjaNext
dja_run_message(DjaBatch *batch, DjaRun *run, int i)
{
	DjaMessage *message = run->messages[i];
	TimestampTz now = GetCurrentTimestamp();
	DjaTurnBefore before;
	DjaActor   *actor;
	DjaError   *error = NULL;
	bool		go_on = true;
	bool		over = false;
	bool		solo;

	/* what earlier turns of the batch, or others, have done to the type */
	if ((!dja_type_is_current(run->type, run->generation) || run->type->call == NULL) &&
		!dja_run_resolve(batch, run))
		return DJA_NEXT_RUN;

	solo = run->type->call->solo || run->type->batch_size == 1;
	if (batch->executed > 0 && (now >= batch->deadline || solo))
	{
		dja_run_leave(run, i);
		return DJA_NEXT_BATCH;
	}
	if (run->type->batch != dja_batch_serial)
	{
		run->type->batch = dja_batch_serial;
		run->type->batch_count = 0;
	}
	if (run->type->batch_size > 0 && run->type->batch_count >= run->type->batch_size &&
		batch->own_transaction)
	{
		dja_run_leave(run, i);
		return DJA_NEXT_RUN;
	}

	before = dja_turn_begins(batch, run, message);
	actor = dja_run_actor(batch, run, message->key);
	batch->actor_read = true;
	if (actor->suspended || actor->paused)
	{
		run->end = DJA_END_DRAINED; /* resume() pushes the mailbox */
		dja_turn_did_not_happen(batch, before);
		return DJA_NEXT_RUN;
	}
	if (message->expires_at <= now)
	{
		DjaFailure	failure = {"expired", 0, NULL, NULL};
		MemoryContext old = MemoryContextSwitchTo(batch->attempt);

		dja_turn_did_not_happen(batch, before);
		dja_message_dead(batch->messages, batch->dead_letters, message, &failure);
		run->removed++;
		MemoryContextSwitchTo(old);
		return DJA_NEXT_MESSAGE;
	}

	batch->budget--;
	run->type->batch_count++;
	dja_worker_shows(run->type, message);
	if (batch->savepoints == DJA_SAVEPOINT_ALWAYS ||
		(batch->savepoints == DJA_SAVEPOINT_CAREFUL && run->type->careful > 0 && !solo))
	{
		error = dja_turn_in_savepoint(batch, run, actor, message, now);
		if (run->type->careful > 0)
			run->type->careful--;
	}
	else
		dja_turn_execute(batch, run, actor, message, now);
	dja_worker_shows(run->type, NULL);
	batch->phase = DJA_PHASE_READING;

	if (error != NULL)
		go_on = dja_run_failed(batch, run, actor, i, error);
	else
		dja_run_handled(batch, run, message);

	/* a turn that leaves something for the next ones to meet ends the batch */
	if (batch->own_transaction)
	{
		LockReleaseSession(USER_LOCKMETHOD);
		over = dja_session_touched || (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE);
	}
	over |= solo || batch->budget <= 0 || batch->writing >= DJA_WRITING_MAX ||
		MemoryContextMemAllocated(batch->attempt, false) > DJA_ATTEMPT_BYTES;
	if (over && go_on)
		dja_run_leave(run, i + 1);
	return over ? DJA_NEXT_BATCH : go_on ? DJA_NEXT_MESSAGE : DJA_NEXT_RUN;
}

/*
 * Handles what was read of the runs from first on.  False when the batch has
 * to end here; each run knows how it ends.
 */
bool
dja_batch_execute(DjaBatch *batch, int first)
{
	bool		over = false;

	for (int r = first; r < batch->nruns; r++)
	{
		DjaRun	   *run = batch->runs[r];
		DjaNext		next = DJA_NEXT_MESSAGE;

		if (over)
		{
			dja_run_leave(run, 0);
			continue;
		}
		for (int i = 0; i < run->nmessages && next == DJA_NEXT_MESSAGE; i++)
			next = dja_run_message(batch, run, i);
		over = next == DJA_NEXT_BATCH;
	}
	return !over;
}

/* ---------- writing ---------- */

static int
dja_compare_places(const void *a, const void *b)
{
	return ItemPointerCompare(&(*(DjaMessage *const *) a)->tid, &(*(DjaMessage *const *) b)->tid);
}

/*
 * Deletes what was handled, writes the actors that were touched.  Any row that
 * is not as it was read makes this raise an error: then all of it starts over.
 */
void
dja_batch_write(DjaBatch *batch)
{
	MemoryContext old = MemoryContextSwitchTo(batch->attempt);

	/* neighbours share pages */
	batch->phase = DJA_PHASE_WRITING;
	if (batch->nhandled > 1)
		qsort(batch->handled, batch->nhandled, sizeof(DjaMessage *), dja_compare_places);
	for (int i = 0; i < batch->nhandled; i++)
		dja_row_delete(batch->messages, &batch->handled[i]->tid);
	batch->nhandled = 0;

	for (int r = 0; r < batch->nruns; r++)
	{
		for (DjaActor *actor = batch->runs[r]->actors; actor != NULL; actor = actor->next)
		{
			if (!actor->dirty)
				continue;
			if (batch->executed > 1)
				batch->run = batch->runs[r];
			dja_actor_write(actor, batch->actors, batch->identities);
		}
	}
	PopActiveSnapshot();
	CommandCounterIncrement();

	ExecDropSingleTupleTableSlot(batch->actor_slot);
	dja_writer_close(batch->identities);
	dja_writer_close(batch->actors);
	dja_writer_close(batch->dead_letters);
	dja_writer_close(batch->messages);
	MemoryContextSwitchTo(old);
	dja_current_batch = NULL;
}
