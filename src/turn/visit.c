/*
 * visit.c
 *
 * Visiting mailboxes: one turn after the other, and the consequences of each for
 * its message, its mailbox and its batch; see visit.h.  read.c reads the mailboxes,
 * turn_run.c calls the handlers, batch_xact.c begins and ends a transaction.
 *
 * The batch ends when it has had its turns or its time, when a turn leaves
 * something for the next ones to meet, and as soon as another process waits for
 * one of its locks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/grow.h"
#include "shmem/copy_shmem.h"
#include "shmem/crash.h"
#include "shmem/rates.h"
#include "shmem/slots.h"
#include "shmem/stats.h"
#include "tables/type_settings.h"
#include "turn/coalesce.h"
#include "turn/reply.h"
#include "turn/session.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "turn/turn_outcome.h"
#include "turn/turn_run.h"
#include "turn/visit.h"

#define DJA_BATCH_BYTES ((Size) 64 * 1024 * 1024)	/* of states and messages
													 * in one transaction */
#define DJA_WRITING_MAX 60		/* below PGPROC's cache of 64 subtransactions */

/*
 * Leaves the rest of a claim for another time, from one of its messages on.  Sets
 * the claim's end.
 */
void
dja_claim_leave(DjaClaim *claim, int from)
{
	bool		touched = claim->turns > 0 || claim->removed > 0;

	Assert(from >= claim->next && from <= claim->nmessages);
	if (from < claim->nmessages)
	{
		claim->end = touched ? DJA_END_REMAINING : DJA_END_RETURNED;
		claim->cursor = claim->messages[from]->position;
	}
	else
	{
		claim->end = claim->read_end;
		claim->cursor = claim->read_cursor;
	}
}

/*
 * Has the rest of a claim read anew from the mailbox's start.  Sets the claim's
 * end.
 */
static void
dja_claim_again(DjaClaim *claim)
{
	claim->end = DJA_END_REMAINING;
	claim->cursor = DJA_CURSOR_START;
}

/*
 * Puts a mailbox off, since another transaction has locked a row that its turn would
 * write.  Sets the claim's end.  No other mailbox waits for that.
 */
void
dja_claim_put_off(DjaBatch *batch, DjaClaim *claim, text *key, TransactionId locker)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	dja_assert_unlocked();
	claim->end = DJA_END_PUT_OFF;
	claim->waiting = psprintf("%s \"%s\"", claim->type ? claim->type->name : "?", text_to_cstring(key));
	claim->locker = locker;
	claim->asker_dropped = false;
	MemoryContextSwitchTo(old);
}

/*
 * A turn may have failed because the session remembers what is no longer so.  Then
 * the message is run alone in a fresh session, without a charge.  Returns whether it
 * is.
 */
bool
dja_claim_in_fresh_session(DjaBatch *batch, DjaClaim *claim, DjaError *error)
{
	if (!batch->own_transaction || !dja_session_outdated || !dja_error_of_session(error))
		return false;
	claim->run_alone = 1;
	dja_session_renew();
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("a turn of actor type \"%s\" is tried again in a fresh session: %s",
					claim->type ? claim->type->name : "?", error->message),
			 errdetail("Columns or types have changed since this worker has begun.")));
	return true;
}

/*
 * Sees to a turn that failed under its savepoint.  Unless the failure is plainly its
 * own fault, the message is run alone next.  Returns whether the claim can go on.
 */
static bool
dja_claim_failed(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, int i, DjaError *error)
{
	DjaBlame	blame = dja_error_blame(error);

	if (error->limit == DJA_TURN_TIMEOUT_CANCELLED)
	{
		/* who cancels it has its row, or is about to */
		claim->cursor = claim->messages[i]->position;
		dja_claim_put_off(batch, claim, claim->messages[i]->key, InvalidTransactionId);
		return false;
	}
	if (dja_claim_in_fresh_session(batch, claim, error))
	{
		dja_claim_leave(claim, i);
		return false;
	}
	if (blame != DJA_BLAME_MESSAGE && batch->own_transaction && batch->executed > 1)
	{
		/* what it waited for may wait for us */
		batch->waited_for |= blame == DJA_BLAME_CONFLICT;
		claim->long_turn |= blame == DJA_BLAME_LONG;
		claim->run_alone = 1;
		dja_claim_leave(claim, i);
		return false;
	}
	return dja_message_failed(batch, claim, actor, claim->messages[i], error);
}

/*
 * The message has been handled: its row goes at the end of the batch.
 */
void
dja_claim_handled(DjaBatch *batch, DjaClaim *claim, DjaMessage *message)
{
	batch->handled = dja_grow(batch->memory, batch->handled, sizeof(DjaHandled), batch->nhandled,
							  &batch->max_handled);
	batch->handled[batch->nhandled].row = dja_tid_encode(&message->tid);
	batch->handled[batch->nhandled++].claim = claim;
	dja_claim_remove(claim, message);
}

/*
 * Notes how long a message has waited and its turn has taken.
 */
static void
dja_claim_note(DjaClaim *claim, DjaMessage *message, TimestampTz start, TimestampTz end)
{
	DjaType    *type = claim->type;
	TimestampTz due = DatumGetTimestampTz(message->values[DJA_MSG_SENT_AT - 1]);

	if (!message->nulls[DJA_MSG_DELIVER_AT - 1])
		due = Max(due, DatumGetTimestampTz(message->values[DJA_MSG_DELIVER_AT - 1]));
	dja_stat_handled(&type->stat, start - due, end - start);
	type->turn_usec = type->turn_usec == 0 ? end - start : (7 * type->turn_usec + (end - start)) / 8;
	claim->long_turn |= dja_turn_timeout_long;
}

/*
 * Has this message crashed a process, or is it suspected to?  Then it gets a
 * transaction of its own.
 */
bool
dja_is_dangerous(DjaMessage *message)
{
	return DatumGetInt16(message->values[DJA_MSG_CRASHES - 1]) > 0 ||
		dja_crash_suspected(message->id);
}

/*
 * Shows the message that a worker is handling, NULL for none: in djactor.worker, in
 * pg_stat_activity, and to the postmaster should this process crash.
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
	/* a worker that was idle meanwhile shows something else */
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
	if (message != NULL)
	{
		dja_my_worker->cancel_id = 0;	/* meant for an earlier turn */
		pg_compiler_barrier();
	}
	dja_my_worker->message_id = message ? message->id : 0;
}

/*
 * What the batch noted as its last turn before one begins, for the case that it
 * does not come to it.
 */
typedef struct DjaTurnBefore
{
	DjaClaim   *claim;
	DjaMessage *message;
} DjaTurnBefore;

static DjaTurnBefore
dja_turn_begins(DjaBatch *batch, DjaClaim *claim, DjaMessage *message)
{
	DjaTurnBefore before = {batch->claim, batch->message};

	Assert(batch->phase == DJA_PHASE_READING);
	Assert(message->state == DJA_MESSAGE_OPEN);
	batch->phase = DJA_PHASE_TURN;
	batch->claim = claim;
	batch->message = message;
	batch->actor_read = false;
	batch->executed++;
	claim->turns++;
	return before;
}

static void
dja_turn_did_not_happen(DjaBatch *batch, DjaTurnBefore before)
{
	Assert(batch->phase == DJA_PHASE_TURN);
	Assert(batch->executed > 0 && batch->claim->turns > 0);
	batch->phase = DJA_PHASE_READING;
	batch->claim->turns--;
	batch->claim = before.claim;
	batch->message = before.message;
	batch->executed--;
}

/*
 * Where the batch goes on after a message.
 */
typedef enum DjaNext
{
	DJA_NEXT_MESSAGE,
	DJA_NEXT_CLAIM,
	DJA_NEXT_BATCH
} DjaNext;

/*
 * Returns the mode of the next turn.
 */
static DjaMode
dja_turn_mode(DjaBatch *batch, DjaClaim *claim)
{
	if (!batch->own_transaction)
		return batch->mode;
	if (batch->executed == 0 && batch->budget == 1)
		return DJA_MODE_ONE;
	return claim->type->savepoints > 0 ? DJA_MODE_SAVEPOINTS : DJA_MODE_FAST;
}

/*
 * May the transaction have one more turn, and this one?  Lowers the budget to what
 * the type, or the message's past, allows.  What has been done without a turn is
 * committed before the first one, which is not broken off, however long it lasts.
 */
static bool
dja_turn_fits(DjaBatch *batch, DjaClaim *claim, DjaMessage *message, TimestampTz now)
{
	int			limit;

	if (!batch->own_transaction)
		return batch->budget > 0;
	limit = dja_handler_batch_size(claim->type);
	if (dja_is_dangerous(message))
	{
		limit = 1;
		claim->run_alone = batch->executed > 0;
	}
	if (limit > 0)
		batch->budget = Min(batch->budget, limit - batch->executed);
	if (batch->executed == 0)
		return batch->budget > 0 && batch->nclaims == 1 && claim->removed == 0;
	return batch->budget > 0 && now < batch->deadline;
}

/*
 * Locks the rows that a turn in mode ONE will write, before its handler is called,
 * since outsiders could notice that it is called again.  Returns false if another
 * transaction has locked one of them; the claim knows how it ends.
 */
static bool
dja_turn_lock_rows(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message)
{
	TM_Result	result = dja_row_lock(batch->messages, &message->tid, LockTupleExclusive,
									  batch->message_slot);

	if (result == TM_Ok && actor->exists)
		result = dja_row_lock(batch->actors, &actor->tid, LockTupleNoKeyExclusive, batch->actor_slot);
	if (result == TM_WouldBlock)
	{
		claim->cursor = message->position;
		dja_claim_put_off(batch, claim, message->key, InvalidTransactionId);
	}
	else if (result != TM_Ok)
		dja_claim_again(claim);
	return result == TM_Ok;
}

/*
 * Can the actor have a turn now?  If not, sets the claim's end.
 */
static bool
dja_actor_is_ready(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message)
{
	if (actor->suspended || actor->paused)
	{
		claim->end = DJA_END_EMPTY; /* resume() pushes the mailbox */
		return false;
	}
	if (actor->exists && actor->state_version > claim->type->state_version)
	{
		dja_log_newer(actor);
		claim->end = DJA_END_EMPTY; /* defining the type anew has the type
									 * queue swept */
		return false;
	}
	if (claim->reread)
	{
		dja_claim_again(claim); /* it waited until just now */
		return false;
	}
	if (batch->own_transaction && TransactionIdIsValid(actor->locker))
	{
		claim->cursor = message->position;
		dja_claim_put_off(batch, claim, actor->key, actor->locker);
		return false;
	}
	return true;
}

/*
 * Can the asker be answered after the turn?  It is checked before the handler is
 * called, so that another's open transaction does not have the call repeated.  If
 * not, sets the claim's end.
 */
static bool
dja_asker_is_ready(DjaBatch *batch, DjaClaim *claim, DjaMessage *message)
{
	if (!batch->own_transaction || dja_can_answer(message))
		return true;
	claim->cursor = message->position;
	dja_claim_put_off(batch, claim, message->key, InvalidTransactionId);
	claim->asker_dropped = true;
	return false;
}

/*
 * Makes the turn, and notes its outcome in message, claim and batch.  Returns whether
 * the claim can go on.
 */
static bool
dja_claim_turn(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, int i, DjaMode mode, TimestampTz now)
{
	DjaMessage *message = claim->messages[i];
	DjaError   *error = NULL;

	Assert(batch->phase == DJA_PHASE_TURN);
	Assert(batch->budget > 0);
	Assert(mode != DJA_MODE_ONE || batch->executed == 1);
	batch->budget--;
	dja_worker_shows(claim->type, message);
	if (mode == DJA_MODE_SAVEPOINTS)
	{
		error = dja_turn_in_savepoint(batch, claim, actor, message, now);
		if (claim->type->savepoints > 0)
			claim->type->savepoints--;
	}
	else
		dja_effects_apply(dja_turn_run(batch, claim, actor, message, now));
	batch->clock = GetCurrentTimestamp();
	dja_worker_shows(claim->type, NULL);
	batch->phase = DJA_PHASE_READING;
	if (error != NULL)
		return dja_claim_failed(batch, claim, actor, i, error);

	Assert(message->state == DJA_MESSAGE_HANDLED || message->state == DJA_MESSAGE_ASIDE);
	if (message->state == DJA_MESSAGE_HANDLED)
		dja_claim_handled(batch, claim, message);
	else
		dja_claim_remove(claim, message);	/* it is aside */
	batch->turns++;
	dja_claim_note(claim, message, now, batch->clock);
	return true;
}

/*
 * Does the batch end after a turn?  It does with one that has lasted long, that
 * leaves something for the next ones to meet, or that somebody waits for.
 */
static bool
dja_batch_is_over(DjaBatch *batch, DjaClaim *claim)
{
	bool		over = claim->long_turn || batch->budget <= 0 || batch->writing >= DJA_WRITING_MAX;

	over |= MemoryContextMemAllocated(batch->memory, false) > DJA_BATCH_BYTES;
	if (batch->own_transaction)
	{
		batch->waited_for |= dja_session_waited_for();
		over |= batch->waited_for || dja_session_touched ||
			(MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) != 0;
	}
	return over;
}

/*
 * Can the claim go on with message i?  It cannot if it has to be read anew, or if
 * its type was changed, by earlier turns of the batch or by others, and cannot be run
 * now.  If not, sets the claim's end.
 */
static bool
dja_claim_goes_on(DjaBatch *batch, DjaClaim *claim, int i)
{
	if (claim->reread)
	{
		dja_claim_again(claim);
		return false;
	}
	if (dja_type_is_current(claim->type, claim->generation) && claim->type->call != NULL)
		return true;
	if (dja_claim_resolve(batch, claim))
		return true;
	/* messages that were read and not run are left to the next claimer */
	if (claim->end == DJA_END_REMAINING)
		dja_claim_leave(claim, i);
	return false;
}

/*
 * Checks whether a message can have its turn now: its actor, its asker, the message
 * itself, and in mode ONE the rows that the turn will write.
 */
DjaReady
dja_turn_readiness(DjaBatch *batch, DjaClaim *claim, DjaMessage *message, DjaActor *actor,
				   DjaMode mode, TimestampTz now)
{
	if (!dja_actor_is_ready(batch, claim, actor, message))
		return DJA_READY_LATER;
	if (!dja_asker_is_ready(batch, claim, message))
		return DJA_READY_LATER;
	if (!message->plain || message->expires_at <= now)
	{
		DjaReady	ready;

		if (dja_claim_without_turn(batch, claim, message, now))
			return DJA_READY_NO_MORE;
		ready = dja_coalesce(batch, claim, message, now);
		if (ready != DJA_READY)
			return ready;
	}
	if (mode == DJA_MODE_ONE && !dja_turn_lock_rows(batch, claim, actor, message))
		return DJA_READY_LATER;
	return DJA_READY;
}

/*
 * Begins a turn of a type with a rate, as far as that is concerned.  Returns false if none
 * may begin now.
 */
bool
dja_claim_rated(DjaClaim *claim, DjaMessage *message)
{
	uint64		value = claim->type->rate.by ? dja_tenant_value(&claim->type->by, message->values, message->nulls) : 0;

	if (!dja_rate_begin_turn(claim->mailbox, claim->type->rate, value, claim->epoch))
		return false;
	message->rated = value;
	return true;
}

/*
 * Does the rate of the claim's type allow a turn now, which is counted then?  If not,
 * sets the claim's end.  drain() may move the clock, and knows no rates.
 */
static bool
dja_claim_may_begin(DjaBatch *batch, DjaClaim *claim, int i)
{
	if (claim->type->rate.rate.turns == 0 || !batch->own_transaction)
		return true;
	if (!dja_claim_rated(claim, claim->messages[i]))
	{
		dja_claim_leave(claim, i);
		return false;
	}
	claim->rated++;
	return true;
}

/*
 * Decides where the batch goes on after a turn for message i.  go_on says whether the
 * claim can.
 */
static DjaNext
dja_claim_after_turn(DjaBatch *batch, DjaClaim *claim, int i, bool go_on)
{
	bool		over = dja_batch_is_over(batch, claim);

	if (go_on && claim->reread)
	{
		dja_claim_again(claim); /* what was put back sorts before */
		go_on = false;
	}
	if (over && go_on)
		dja_claim_leave(claim, i + 1);
	return over ? DJA_NEXT_BATCH : go_on ? DJA_NEXT_MESSAGE : DJA_NEXT_CLAIM;
}

/*
 * Handles message i of a claim, or ends it without a turn.  Sets the claim's end
 * unless it returns DJA_NEXT_MESSAGE.
 */
static DjaNext
dja_claim_message(DjaBatch *batch, DjaClaim *claim, int i)
{
	DjaMessage *message = claim->messages[i];
	TimestampTz now = batch->own_transaction ? batch->clock : dja_clock();
	DjaTurnBefore before;
	DjaActor   *actor;
	DjaMode		mode;
	DjaReady	ready;

	if (message->state != DJA_MESSAGE_OPEN)
		return DJA_NEXT_MESSAGE;	/* an earlier turn has cancelled it */
	if (!dja_claim_goes_on(batch, claim, i))
		return DJA_NEXT_CLAIM;
	if (!dja_turn_fits(batch, claim, message, now))
	{
		dja_claim_leave(claim, i);
		if (claim->turns == 0)
			claim->end = DJA_END_RETURNED;	/* its turn is still to come */
		return DJA_NEXT_BATCH;
	}
	mode = dja_turn_mode(batch, claim);

	before = dja_turn_begins(batch, claim, message);
	dja_settings_see(claim->type, ERROR);
	actor = dja_claim_actor(batch, claim, message->key);
	batch->actor_read = true;
	ready = dja_turn_readiness(batch, claim, message, actor, mode, now);
	if (ready == DJA_READY && !dja_claim_may_begin(batch, claim, i))
		ready = DJA_READY_LATER;
	if (ready == DJA_READY)
		return dja_claim_after_turn(batch, claim, i,
									dja_claim_turn(batch, claim, actor, i, mode, now));
	dja_turn_did_not_happen(batch, before);
	if (ready == DJA_READY_LATER)
		return DJA_NEXT_CLAIM;
	dja_claim_remove(claim, message);
	return DJA_NEXT_MESSAGE;
}

/*
 * Visits a mailbox: handles the messages that were read of it until they are done,
 * or its moment is over.  Returns false if the batch has to end here.
 */
bool
dja_batch_visit(DjaBatch *batch, DjaClaim *claim)
{
	DjaNext		next = DJA_NEXT_MESSAGE;
	TimestampTz until;

	Assert(batch->phase == DJA_PHASE_READING);
	Assert(claim->was_read && !claim->closed);
	/* after the snapshot that it was read with: rows of a restore are not run */
	if (batch->own_transaction && dja_copy_is_held(MyDatabaseId))
	{
		dja_claim_leave(claim, claim->next);
		return false;
	}
	batch->clock = GetCurrentTimestamp();
	until = batch->own_transaction ? batch->clock + DJA_VISIT_USEC : DT_NOEND;
	while (next == DJA_NEXT_MESSAGE && claim->next < claim->nmessages && batch->clock < until)
	{
		next = dja_claim_message(batch, claim, claim->next);
		claim->next += next == DJA_NEXT_MESSAGE;
	}
	if (next == DJA_NEXT_MESSAGE && claim->type != NULL && claim->nmessages > 0)
		dja_claim_leave(claim, claim->next);
	claim->closed |= next != DJA_NEXT_MESSAGE;
	return next != DJA_NEXT_BATCH;
}

/*
 * Returns the next mailbox in which the batch has left messages that it has read,
 * or NULL.
 */
DjaClaim *
dja_batch_revisit(DjaBatch *batch)
{
	for (int n = 0; n < batch->nclaims; n++)
	{
		DjaClaim   *claim = batch->claims[batch->revisit++ % batch->nclaims];

		if (!claim->closed && claim->next < claim->nmessages)
			return claim;
	}
	return NULL;
}
