/*
 * turn_outcome.c
 *
 * The ends of a message besides a turn that comes out well: a failed attempt is
 * written down, and a message that needs no turn ends without one.
 *
 * All of it is done in the present transaction.  The savepoint of a failed turn has
 * been rolled back before.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "shmem/stats.h"
#include "tables/journal.h"
#include "turn/breaker.h"
#include "turn/dead_letter.h"
#include "turn/idempotency.h"
#include "turn/reply.h"
#include "turn/timer.h"
#include "turn/turn.h"
#include "turn/turn_outcome.h"
#include "turn/watch.h"
#include "xact/pending.h"

/*
 * Does this error use up an attempt?  An error that is nobody's fault does not,
 * unless it has repeated alone while the server serves others.
 */
static bool
dja_error_charges(DjaBatch *batch, DjaMessage *message, DjaError *error)
{
	DjaBlame	blame = dja_error_blame(error);
	bool		its_own = true;

	if (!dja_is_nobodys(blame))
		return true;
	if (blame == DJA_BLAME_CONFLICT)
		return message->put_offs >= DJA_CONFLICT_TRIES;
	if (dja_error_of_surroundings(error))
		return false;
	if (batch->own_transaction)
	{
		TimestampTz now = GetCurrentTimestamp();

		dja_lock();
		its_own = dja_trouble_is_its_own(&dja_shared->queue->trouble, message->id, now);
		dja_unlock();
	}
	return its_own && message->put_offs >= DJA_QUICK_TRIES;
}

/*
 * Gives up a message that has had its last attempt, or suspends its actor, as its
 * type says.  Returns whether the claim can go on.
 */
static bool
dja_message_exhausted(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message,
					  DjaError *error)
{
	DjaType    *type = claim->type;
	bool		suspend = type->suspend && actor != NULL && !error->rejected;

	if (suspend)
	{
		actor->suspended = actor->dirty = true;
		dja_message_retry(batch->messages, message, DT_NOBEGIN, error->message, false);
		dja_watchers_tell(type, message->key, "suspended", false);
		claim->end = DJA_END_EMPTY; /* until resume() */
	}
	else
	{
		DjaFailure	failure = {error->rejected ? "rejected" : "failed", error->sqlerrcode,
		error->message, error->context};

		dja_give_up(type, message, &failure);
		dja_claim_remove(claim, message);
	}
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 error->rejected ?
			 errmsg("actor %s \"%s\" rejected message " INT64_FORMAT ": %s",
					type->name, text_to_cstring(message->key), message->id, error->message) :
			 errmsg("actor %s \"%s\", message " INT64_FORMAT " failed %d times: %s",
					type->name, text_to_cstring(message->key), message->id, message->attempts,
					error->message),
			 error->context ? errcontext("%s", error->context) : 0,
			 suspend ? errhint("The actor is suspended until djactor.resume().") :
			 errhint("The message is in djactor.dead_letter.")));
	return !suspend;
}

/*
 * Has a message tried again at a later moment.  Returns whether the claim can go
 * on before that.
 */
static bool
dja_message_tried_again(DjaBatch *batch, DjaClaim *claim, DjaMessage *message, DjaError *error,
						TimestampTz retry_at, bool charge)
{
	DjaType    *type = claim->type;

	dja_message_retry(batch->messages, message, retry_at, error->message, type->skip);
	dja_pending_due(type, retry_at);
	dja_stat_count(&type->stat, DJA_STAT_RETRIED);
	if (!type->skip)
	{
		claim->end = DJA_END_RETRY;
		claim->cursor = message->position;
		claim->first = batch->messages->slot->tts_tid;
	}
	if (charge)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("actor %s \"%s\", message " INT64_FORMAT " failed (attempt %d of %d): %s",
						type->name, text_to_cstring(message->key), message->id,
						message->attempts, type->max_attempts, error->message),
				 error->context ? errcontext("%s", error->context) : 0));
	else
		ereport(message->put_offs == DJA_QUICK_TRIES ? LOG : DEBUG1,
				(errcode(error->sqlerrcode),
				 errmsg("actor %s \"%s\", message " INT64_FORMAT " is put off: %s",
						type->name, text_to_cstring(message->key), message->id, error->message),
				 errdetail("That may be the server's or somebody else's doing, so it has used up no attempt %d times.",
						   message->put_offs),
				 error->context ? errcontext("%s", error->context) : 0));
	return type->skip;
}

/*
 * Counts a failed attempt.  One that is charged counts for the message and its
 * actor, unless it is a rejection.  Any other counts as put off.
 */
static void
dja_failure_count(DjaType *type, DjaActor *actor, DjaMessage *message, DjaError *error, bool charge)
{
	if (!charge)
	{
		message->put_offs++;
		return;
	}
	if (error->rejected)
		return;
	message->attempts++;
	if (actor != NULL)
	{
		actor->failures = actor->exists || actor->dirty ? actor->failures + 1 : message->attempts;
		actor->last_error = error->message;
		actor->dirty |= actor->exists;
	}
	dja_stat_count(&type->stat, DJA_STAT_FAILED);
}

/*
 * Returns when the next attempt at a message is due.  Its failure has been counted.
 */
static TimestampTz
dja_failure_retry_at(DjaType *type, DjaMessage *message, DjaError *error, bool charge)
{
	TimestampTz now = dja_clock();

	return charge ? dja_retry_time(type, message->attempts, now) :
		dja_put_off_time(type, dja_error_blame(error), message->put_offs, now);
}

/*
 * Writes down an attempt that failed, in the present transaction.  Needs a message
 * that is OPEN; actor is NULL if it cannot be read.  Returns whether the claim can go
 * on with the next message.
 */
bool
dja_message_failed(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message,
				   DjaError *error)
{
	MemoryContext old = MemoryContextSwitchTo(batch->memory);
	DjaType    *type = claim->type;
	bool		charge = dja_error_charges(batch, message, error);
	bool		go_on;

	Assert(IsTransactionState() && dja_turn.actor == NULL);
	Assert(message->state == DJA_MESSAGE_OPEN);
	Assert(actor == NULL || actor->type == type);
	/* it cannot be suspended now: later, then */
	if (actor == NULL && type->suspend && !error->rejected &&
		message->attempts + 1 >= type->max_attempts)
		charge = false;
	dja_failure_count(type, actor, message, error, charge);
	if (charge && (error->rejected || message->attempts >= type->max_attempts))
		go_on = dja_message_exhausted(batch, claim, actor, message, error);
	else
		go_on = dja_message_tried_again(batch, claim, message, error,
										dja_failure_retry_at(type, message, error, charge), charge);
	if (charge && !error->rejected && batch->own_transaction)
		dja_breaker_count(claim->type_queue, type);
	MemoryContextSwitchTo(old);
	return go_on;
}

static void
dja_claim_journal(DjaClaim *claim, DjaMessage *message, TimestampTz now, const char *outcome)
{
	if (claim->type->journal >= 0)
		dja_journal_write(message, DJA_NO_TURN, now, now, outcome, 0);
}

/*
 * Sees to a message that needs no turn, or none now: it has expired, came too early,
 * is of a timer that was cancelled, or is a duplicate.  Returns false if it has to be
 * handled.
 */
bool
dja_claim_without_turn(DjaBatch *batch, DjaClaim *claim, DjaMessage *message, TimestampTz now)
{
	MemoryContext old = MemoryContextSwitchTo(batch->memory);
	TimestampTz deliver_at = DT_NOBEGIN;

	Assert(message->state == DJA_MESSAGE_OPEN);
	if (!message->nulls[DJA_MSG_DELIVER_AT - 1])
		deliver_at = DatumGetTimestampTz(message->values[DJA_MSG_DELIVER_AT - 1]);
	if (deliver_at > now)
	{
		/* the clock was put back */
		dja_message_delay(batch->messages, message);
		dja_pending_due(claim->type, deliver_at);
	}
	else if (message->expires_at <= now && message->asks)
	{
		dja_row_delete(batch->messages, &message->tid);
		message->state = DJA_MESSAGE_GONE;
		dja_answer_expired(message, message->attempts > 0 ?
						   "the ask expired before its next attempt" : "the ask expired before its turn");
		dja_claim_journal(claim, message, now, "expired");
		dja_stat_count(&claim->type->stat, DJA_STAT_EXPIRED);
	}
	else if (message->expires_at <= now)
	{
		DjaFailure	failure = {"expired", 0, NULL, NULL};

		dja_give_up(claim->type, message, &failure);
	}
	else if (dja_message_is_kind(message, "timer") &&
			 (!dja_timer_fires(message, now) || dja_timer_skipped(message, now)))
	{
		/* whoever cancelled it may have deleted it */
		(void) dja_row_try_delete(batch->messages, &message->tid);
		message->state = DJA_MESSAGE_GONE;
	}
	else if (dja_idempotency_is_duplicate(claim->type, message))
	{
		dja_claim_journal(claim, message, now, "duplicate");
		dja_stat_count(&claim->type->stat, DJA_STAT_DUPLICATES);
	}
	MemoryContextSwitchTo(old);
	return message->state != DJA_MESSAGE_OPEN;
}

/*
 * Logs that an actor waits whose state was written by a newer version of its type.
 * For one actor it is logged once in a row.
 */
void
dja_log_newer(DjaActor *actor)
{
	static int64 said = 0;

	if (said == actor->id)
		return;
	said = actor->id;
	ereport(LOG,
			(errmsg("actor %s \"%s\" waits: its state has version %d, its type serves %d",
					actor->type->name, text_to_cstring(actor->key), actor->state_version,
					actor->type->state_version),
			 errhint("Define the actor type with the newer handler and state_version.")));
}
