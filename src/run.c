/*
 * run.c
 *
 * Visiting mailboxes: one turn after the other, and what each of them means to
 * its message, its mailbox and its batch; see run.h.  read.c reads the mailboxes,
 * turn.c calls the handlers, attempt.c begins and ends what stands in one
 * transaction.
 *
 * The batch ends when it has had its turns or its time, when a turn leaves
 * something for the next ones to meet, and as soon as somebody waits for what
 * it has locked.
 */
#include "postgres.h"

#include "access/xact.h"
#include "clock.h"
#include "compat.h"
#include "crash.h"
#include "held.h"
#include "pgstat.h"
#include "reply.h"
#include "run.h"
#include "session.h"
#include "settings.h"
#include "settle.h"
#include "slots.h"
#include "stats.h"
#include "turn.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define DJA_ATTEMPT_BYTES ((Size) 64 * 1024 * 1024) /* of states and messages
													 * in one transaction */
#define DJA_WRITING_MAX 60		/* below PGPROC's cache of 64 subtransactions */

/*
 * Leaves the rest of a run, from one of its messages on, for another time.
 */
static void
dja_run_leave(DjaRun *run, int from)
{
	bool		touched = run->turns > 0 || run->removed > 0;

	if (from < run->nmessages)
	{
		run->end = touched ? DJA_END_REMAINING : DJA_END_RETURNED;
		run->cursor = run->messages[from]->position;
	}
	else
	{
		run->end = run->read_end;
		run->cursor = run->read_cursor;
	}
}

/*
 * Has all that is left of a run read anew, from the mailbox's start.
 */
static void
dja_run_again(DjaRun *run)
{
	run->end = DJA_END_REMAINING;
	run->cursor = DJA_CURSOR_START;
}

/*
 * Somebody else has a row locked that a turn of this mailbox would write: the
 * mailbox waits until that is over, and nobody else does.
 */
void
dja_run_put_off(DjaBatch *batch, DjaRun *run, text *key, TransactionId locker)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	run->end = DJA_END_PUT_OFF;
	run->waiting = psprintf("%s \"%s\"", run->type ? run->type->name : "?", text_to_cstring(key));
	run->locker = locker;
	run->asker_dropped = false;
	MemoryContextSwitchTo(old);
}

/*
 * A turn that has failed may have done so for what the session remembers: it is
 * run alone in a fresh one, and not charged before.
 */
bool
dja_run_in_fresh_session(DjaBatch *batch, DjaRun *run, DjaError *error)
{
	if (!batch->own_transaction || !dja_session_outdated() || !dja_error_of_session(error))
		return false;
	run->alone = 1;
	dja_session_renew();
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("a turn of actor type \"%s\" is tried again in a fresh session: %s",
					run->type ? run->type->name : "?", error->message),
			 errdetail("Columns or types have changed since this worker has begun.")));
	return true;
}

/*
 * A turn that failed under its savepoint.  What is not plainly its own fault is
 * settled by running it alone.  True if the run can go on.
 */
static bool
dja_run_failed(DjaBatch *batch, DjaRun *run, DjaActor *actor, int i, DjaError *error)
{
	DjaBlame	blame = dja_error_blame(error);

	if (dja_run_in_fresh_session(batch, run, error))
	{
		dja_run_leave(run, i);
		return false;
	}
	if (blame != DJA_BLAME_MESSAGE && batch->own_transaction && batch->executed > 1)
	{
		/* what it waited for may wait for us */
		batch->waited_for |= blame == DJA_BLAME_CONFLICT;
		run->long_turn |= blame == DJA_BLAME_LONG;
		run->alone = 1;
		dja_run_leave(run, i);
		return false;
	}
	return dja_message_failed(batch, run, actor, run->messages[i], error);
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
			palloc(sizeof(DjaHandled) * batch->max_handled) :
			repalloc(batch->handled, sizeof(DjaHandled) * batch->max_handled);
		MemoryContextSwitchTo(old);
	}
	batch->handled[batch->nhandled].place = dja_place_of(&message->tid);
	batch->handled[batch->nhandled++].run = run;
	dja_run_remove(run, message);
}

/*
 * A turn is over: what it took.
 */
static void
dja_run_note(DjaRun *run, DjaMessage *message, TimestampTz start, TimestampTz end)
{
	DjaType    *type = run->type;
	TimestampTz due = DatumGetTimestampTz(message->values[DJA_MSG_SENT_AT - 1]);

	if (!message->nulls[DJA_MSG_DELIVER_AT - 1])
		due = Max(due, DatumGetTimestampTz(message->values[DJA_MSG_DELIVER_AT - 1]));
	dja_stat_handled(type, start - due, end - start);
	type->turn_usec = type->turn_usec == 0 ? end - start : (7 * type->turn_usec + (end - start)) / 8;
	run->long_turn |= dja_limit_long;
}

/*
 * Has this message crashed a process, or may it have?  Then nothing else is in
 * its transaction.
 */
static bool
dja_is_dangerous(DjaMessage *message)
{
	return DatumGetInt16(message->values[DJA_MSG_CRASHES - 1]) > 0 ||
		dja_crash_suspected(message->id);
}

/*
 * Says what is being handled: to djactor.worker and pg_stat_activity, and to
 * the postmaster should this process crash.
 */
static void
dja_worker_shows(DjaType *type, DjaMessage *message)
{
	static uint64 shown = 0;
	static TimestampTz shown_since = 0;

	if (dja_my_worker == NULL)
		return;
	if (message != NULL)
		dja_crash_mark(type->hash, message->id, dja_is_dangerous(message));
	else
		dja_crash_unmark();
	/* who was idle meanwhile shows something else */
	if (message != NULL && (shown != type->hash || shown_since != dja_my_worker->since))
	{
		char		activity[DJA_TYPE_NAME_MAX + 16];

		shown = type->hash;
		shown_since = dja_my_worker->since;
		snprintf(activity, sizeof(activity), "djactor: %s", type->name);
		pgstat_report_activity(STATE_RUNNING, activity);
	}
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
	run->turns++;
	return before;
}

static void
dja_turn_did_not_happen(DjaBatch *batch, DjaTurnBefore before)
{
	batch->phase = DJA_PHASE_READING;
	batch->run->turns--;
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
 * How the next turn is to be made.
 */
static DjaMode
dja_turn_mode(DjaBatch *batch, DjaRun *run)
{
	if (!batch->own_transaction)
		return batch->mode;
	if (batch->executed == 0 && batch->budget == 1)
		return DJA_MODE_ONE;
	return run->type->savepoints > 0 ? DJA_MODE_SAVEPOINTS : DJA_MODE_FAST;
}

/*
 * May the transaction have one more turn, and this one?  What its type, or its
 * past, wants to be alone with is told by the budget.
 */
static bool
dja_turn_fits(DjaBatch *batch, DjaRun *run, DjaMessage *message, TimestampTz now)
{
	int			limit;

	if (!batch->own_transaction)
		return batch->budget > 0;
	limit = dja_handler_batch_size(run->type);
	if (dja_is_dangerous(message))
	{
		limit = 1;
		run->alone = batch->executed > 0;
	}
	if (limit > 0)
		batch->budget = Min(batch->budget, limit - batch->executed);
	return batch->budget > 0 && (batch->executed == 0 || now < batch->deadline);
}

/*
 * Before a handler is called whose repetition could be seen from outside: locks
 * the rows that its turn will write.  False if somebody else has one of them.
 */
static bool
dja_turn_lock_rows(DjaBatch *batch, DjaRun *run, DjaActor *actor, DjaMessage *message)
{
	TM_Result	result = dja_row_lock(batch->messages, &message->tid, LockTupleExclusive,
									  batch->message_slot);

	if (result == TM_Ok && actor->exists)
		result = dja_row_lock(batch->actors, &actor->tid, LockTupleNoKeyExclusive, batch->actor_slot);
	if (result == TM_WouldBlock)
	{
		run->cursor = message->position;
		dja_run_put_off(batch, run, message->key, InvalidTransactionId);
	}
	else if (result != TM_Ok)
		dja_run_again(run);
	return result == TM_Ok;
}

/*
 * Can the actor have a turn now?  If not, the run knows how it ends.
 */
static bool
dja_actor_is_ready(DjaBatch *batch, DjaRun *run, DjaActor *actor, DjaMessage *message)
{
	if (actor->suspended || actor->paused)
	{
		run->end = DJA_END_DRAINED; /* resume() pushes the mailbox */
		return false;
	}
	if (actor->exists && actor->state_version > run->type->state_version)
	{
		dja_log_newer(actor);
		run->end = DJA_END_DRAINED; /* defining the type anew has the lane
									 * swept */
		return false;
	}
	if (run->reread)
	{
		dja_run_again(run);		/* it waited until just now */
		return false;
	}
	if (batch->own_transaction && TransactionIdIsValid(actor->locker))
	{
		run->cursor = message->position;
		dja_run_put_off(batch, run, actor->key, actor->locker);
		return false;
	}
	return true;
}

/*
 * Will the message's asker be there to be answered?  That is seen to before its
 * handler is called, which somebody's open transaction must not have repeated.
 */
static bool
dja_asker_is_ready(DjaBatch *batch, DjaRun *run, DjaMessage *message)
{
	if (!batch->own_transaction || dja_can_answer(message))
		return true;
	run->cursor = message->position;
	dja_run_put_off(batch, run, message->key, InvalidTransactionId);
	run->asker_dropped = true;
	return false;
}

/*
 * The turn itself, and what its outcome means to the message and the run.
 */
static bool
dja_run_turn(DjaBatch *batch, DjaRun *run, DjaActor *actor, int i, DjaMode mode, TimestampTz now)
{
	DjaMessage *message = run->messages[i];
	DjaError   *error = NULL;

	batch->budget--;
	dja_worker_shows(run->type, message);
	if (mode == DJA_MODE_SAVEPOINTS)
	{
		error = dja_turn_in_savepoint(batch, run, actor, message, now);
		if (run->type->savepoints > 0)
			run->type->savepoints--;
	}
	else
		dja_turn_execute(batch, run, actor, message, now);
	batch->clock = GetCurrentTimestamp();
	dja_worker_shows(run->type, NULL);
	batch->phase = DJA_PHASE_READING;
	if (error != NULL)
		return dja_run_failed(batch, run, actor, i, error);

	if (message->fate == DJA_FATE_HANDLED)
		dja_run_handled(batch, run, message);
	else
		dja_run_remove(run, message);	/* it is aside */
	batch->turns++;
	dja_run_note(run, message, now, batch->clock);
	return true;
}

/*
 * Does the batch end after a turn?  It does with one that has lasted long, that leaves
 * something for the next ones to meet, or that somebody waits for.
 */
static bool
dja_batch_is_over(DjaBatch *batch, DjaRun *run)
{
	bool		over = run->long_turn || batch->budget <= 0 || batch->writing >= DJA_WRITING_MAX;

	over |= MemoryContextMemAllocated(batch->attempt, false) > DJA_ATTEMPT_BYTES;
	if (batch->own_transaction)
	{
		batch->waited_for |= dja_session_waited_for();
		over |= batch->waited_for || dja_session_touched ||
			(MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) != 0;
	}
	return over;
}

/*
 * Handles, or otherwise deals with, message i of a run.  The run's end is set
 * where the answer is not DJA_NEXT_MESSAGE.
 */
static DjaNext
dja_run_message(DjaBatch *batch, DjaRun *run, int i)
{
	DjaMessage *message = run->messages[i];
	TimestampTz now = batch->own_transaction ? batch->clock : dja_clock();
	DjaTurnBefore before;
	DjaActor   *actor;
	DjaMode		mode;
	bool		go_on;
	bool		over;

	if (message->fate != DJA_FATE_OPEN)
		return DJA_NEXT_MESSAGE;	/* an earlier turn has cancelled it */
	if (run->reread)
	{
		dja_run_again(run);
		return DJA_NEXT_RUN;
	}

	/* what earlier turns of the batch, or others, have done to the type */
	if ((!dja_type_is_current(run->type, run->generation) || run->type->call == NULL) &&
		!dja_run_resolve(batch, run))
	{
		/* what was read and not run is still to come, for whoever runs it */
		if (run->end == DJA_END_REMAINING)
			dja_run_leave(run, i);
		return DJA_NEXT_RUN;
	}
	if (!dja_turn_fits(batch, run, message, now))
	{
		dja_run_leave(run, i);
		return DJA_NEXT_BATCH;
	}
	mode = dja_turn_mode(batch, run);

	before = dja_turn_begins(batch, run, message);
	dja_settings_see(run->type->settings, ERROR);
	actor = dja_run_actor(batch, run, message->key);
	batch->actor_read = true;
	if (!dja_actor_is_ready(batch, run, actor, message) || !dja_asker_is_ready(batch, run, message))
	{
		dja_turn_did_not_happen(batch, before);
		return DJA_NEXT_RUN;
	}
	if ((!message->plain || message->expires_at <= now) && dja_run_without_turn(batch, run, message, now))
	{
		dja_turn_did_not_happen(batch, before);
		dja_run_remove(run, message);
		return DJA_NEXT_MESSAGE;
	}
	if (mode == DJA_MODE_ONE && !dja_turn_lock_rows(batch, run, actor, message))
	{
		dja_turn_did_not_happen(batch, before);
		return DJA_NEXT_RUN;
	}

	go_on = dja_run_turn(batch, run, actor, i, mode, now);
	over = dja_batch_is_over(batch, run);
	if (go_on && run->reread)
	{
		dja_run_again(run);		/* what was put back sorts before */
		go_on = false;
	}
	if (over && go_on)
		dja_run_leave(run, i + 1);
	return over ? DJA_NEXT_BATCH : go_on ? DJA_NEXT_MESSAGE : DJA_NEXT_RUN;
}

/*
 * Visits a mailbox: handles what was read of it until that is done, or its
 * moment is over.  False when the batch has to end here; the run knows how it
 * ends.
 */
bool
dja_batch_visit(DjaBatch *batch, DjaRun *run)
{
	DjaNext		next = DJA_NEXT_MESSAGE;
	TimestampTz until;

	/* after the snapshot that it was read with: rows of a restore are not run */
	if (batch->own_transaction && dja_held(MyDatabaseId))
	{
		dja_run_leave(run, run->next);
		return false;
	}
	batch->clock = GetCurrentTimestamp();
	until = batch->own_transaction ? batch->clock + DJA_VISIT_USEC : DT_NOEND;
	while (next == DJA_NEXT_MESSAGE && run->next < run->nmessages && batch->clock < until)
	{
		next = dja_run_message(batch, run, run->next);
		run->next += next == DJA_NEXT_MESSAGE;
	}
	if (next == DJA_NEXT_MESSAGE && run->type != NULL && run->nmessages > 0)
		dja_run_leave(run, run->next);
	run->closed |= next != DJA_NEXT_MESSAGE;
	return next != DJA_NEXT_BATCH;
}

/*
 * Has the batch left anything in its mailboxes?  The next one to come back to,
 * in their order, or NULL.
 */
DjaRun *
dja_batch_revisit(DjaBatch *batch)
{
	for (int n = 0; n < batch->nruns; n++)
	{
		DjaRun	   *run = batch->runs[batch->revisit++ % batch->nruns];

		if (!run->closed && run->next < run->nmessages)
			return run;
	}
	return NULL;
}
