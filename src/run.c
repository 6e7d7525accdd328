/*
 * run.c
 *
 * The steps of a batch turn; see run.h.  read.c reads the mailboxes, turn.c
 * calls the handlers; here is what stands around them.
 *
 * Handled messages are deleted and touched actors written only at the end, in
 * one go.  Failures under a savepoint are written at once, in the same
 * transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "clock.h"
#include "compat.h"
#include "crash.h"
#include "held.h"
#include "pending.h"
#include "pgstat.h"
#include "run.h"
#include "session.h"
#include "settle.h"
#include "slots.h"
#include "stats.h"
#include "storage/bufmgr.h"
#include "turn.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define DJA_ATTEMPT_BYTES ((Size) 64 * 1024 * 1024) /* of states and messages
													 * in one transaction */
#define DJA_WRITING_MAX 60		/* below PGPROC's cache of 64 subtransactions */

static uint32 dja_batch_serial = 0;

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

		run->start = run->cursor = DJA_CURSOR_START;
		run->end = DJA_END_REMAINING;
		run->removed = run->freed = 0;
		run->alone = run->reread = run->suspended = false;
		run->type = NULL;
		run->actors = NULL;
		run->messages = NULL;
		run->nmessages = 0;
	}
	batch->writing = batch->executed = batch->turns = 0;
	batch->run = NULL;
	batch->message = NULL;
	batch->phase = DJA_PHASE_READING;
	batch->nhandled = batch->max_handled = 0;
	batch->handled = NULL;
	dja_batch_serial++;
	dja_turn_batch(batch);

	old = MemoryContextSwitchTo(batch->attempt);
	dja_writers_keep(batch->attempt);
	batch->messages = dja_writer_get(DJA_MESSAGE_TABLE);
	batch->actors = dja_writer_get(DJA_ACTOR_TABLE);
	batch->identities = dja_writer_get(DJA_IDENTITY_TABLE);
	batch->actor_slot = table_slot_create(batch->actors->rel, NULL);
	batch->actor_blocks = RelationGetNumberOfBlocks(batch->actors->rel);
	MemoryContextSwitchTo(old);

	/* for what is read and written between the turns */
	PushActiveSnapshot(GetTransactionSnapshot());
}

/* ---------- executing ---------- */

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
 * Has all that is left of a run read anew, from the mailbox's start.
 */
static void
dja_run_again(DjaRun *run)
{
	run->end = DJA_END_REMAINING;
	run->cursor = DJA_CURSOR_START;
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
			palloc(sizeof(uint64) * batch->max_handled) :
			repalloc(batch->handled, sizeof(uint64) * batch->max_handled);
		MemoryContextSwitchTo(old);
	}
	batch->handled[batch->nhandled++] = dja_place_of(&message->tid);
	dja_run_remove(run, message);
}

/*
 * A turn is over: what it took, for djactor.stat.
 */
static void
dja_run_note(DjaRun *run, DjaMessage *message, TimestampTz start, TimestampTz end)
{
	TimestampTz due = DatumGetTimestampTz(message->values[DJA_MSG_SENT_AT - 1]);

	if (!message->nulls[DJA_MSG_DELIVER_AT - 1])
		due = Max(due, DatumGetTimestampTz(message->values[DJA_MSG_DELIVER_AT - 1]));
	dja_stat_handled(run->type, start - due, end - start);
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
	TimestampTz now = batch->own_transaction ? batch->clock : dja_clock();
	DjaTurnBefore before;
	DjaActor   *actor;
	DjaError   *error = NULL;
	bool		go_on = true;
	bool		over = false;
	bool		solo;

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

	solo = run->type->call->solo || run->type->batch_size == 1;
	if (batch->executed > 0 && (now >= batch->deadline || solo))
	{
		dja_run_leave(run, i);
		return DJA_NEXT_BATCH;
	}
	if (batch->own_transaction && dja_is_dangerous(message))
	{
		if (batch->executed > 0)
		{
			run->alone = true;
			dja_run_leave(run, i);
			return DJA_NEXT_RUN;
		}
		solo = true;
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
	if (actor->exists && actor->state_version > run->type->state_version)
	{
		dja_log_newer(actor);
		run->end = DJA_END_DRAINED; /* defining the type anew has the lane
									 * swept */
		dja_turn_did_not_happen(batch, before);
		return DJA_NEXT_RUN;
	}
	if (run->reread)
	{
		dja_run_again(run);		/* it waited until just now */
		dja_turn_did_not_happen(batch, before);
		return DJA_NEXT_RUN;
	}
	if ((!message->plain || message->expires_at <= now) && dja_run_without_turn(batch, run, message, now))
	{
		dja_turn_did_not_happen(batch, before);
		dja_run_remove(run, message);
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
	batch->clock = GetCurrentTimestamp();
	dja_worker_shows(run->type, NULL);
	batch->phase = DJA_PHASE_READING;

	if (error != NULL)
		go_on = dja_run_failed(batch, run, actor, i, error);
	else if (message->fate == DJA_FATE_HANDLED)
		dja_run_handled(batch, run, message);
	else
		dja_run_remove(run, message);	/* it is aside */
	if (error == NULL)
	{
		batch->turns++;
		dja_run_note(run, message, now, batch->clock);
	}

	/* a turn that leaves something for the next ones to meet ends the batch */
	if (batch->own_transaction)
	{
		dja_session_unlock();
		over = dja_session_touched || (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE);
	}
	over |= solo || batch->budget <= 0 || batch->writing >= DJA_WRITING_MAX ||
		MemoryContextMemAllocated(batch->attempt, false) > DJA_ATTEMPT_BYTES;
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
 * Handles what was read of the runs from first on.  False when the batch has
 * to end here; each run knows how it ends.
 */
bool
dja_batch_execute(DjaBatch *batch, int first)
{
	/* after the snapshot of dja_batch_read(): rows of a restore are not run */
	bool		over = batch->own_transaction && dja_held(MyDatabaseId);

	batch->clock = GetCurrentTimestamp();
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

#define ST_SORT dja_sort_places
#define ST_ELEMENT_TYPE uint64
#define ST_COMPARE(a, b) (*(a) < *(b) ? -1 : *(a) > *(b))
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

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
	dja_sort_places(batch->handled, batch->nhandled);
	for (int i = 0; i < batch->nhandled; i++)
	{
		ItemPointerData tid;

		dja_place_tid(batch->handled[i], &tid);
		dja_row_delete(batch->messages, &tid);
	}
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
	dja_writers_close();
	MemoryContextSwitchTo(old);
	dja_turn_batch(NULL);
}
