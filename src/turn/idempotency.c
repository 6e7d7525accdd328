/*
 * idempotency.c
 *
 * Idempotency keys (contract 19); see idempotency.h.
 *
 * A key is written down in the turn that handles the first message with it,
 * and found by a later one at its own turn: the sender neither waits nor fails.
 * An actor's turns follow one another, so nobody writes the same key at the
 * same time.  A message that dies, is cancelled or expires has written nothing,
 * and its key is free.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/json.h"
#include "turn/idempotency.h"
#include "turn/reply.h"
#include "xact/pending.h"

static void
dja_idempotency_find(DjaFind *find, DjaMessage *message)
{
	Datum		keys[3] = {
		message->values[DJA_MSG_ACTOR_TYPE - 1],
		message->values[DJA_MSG_ACTOR_KEY - 1],
		message->values[DJA_MSG_IDEMPOTENCY_KEY - 1],
	};

	dja_find_begin(find, DJA_ONCE_TABLE, DJA_ONCE_PKEY, 3, keys);
}

/*
 * Is it this message that the key was noted for?
 */
static bool
dja_idempotency_is_of(DjaFind *find, DjaMessage *message)
{
	return DatumGetInt64(find->slot->tts_values[DJA_ONCE_MESSAGE_ID - 1]) == message->id;
}

static bool
dja_idempotency_expired(TupleTableSlot *slot)
{
	/* what is not answered yet is not completed */
	return DatumGetBool(slot->tts_values[DJA_ONCE_ANSWERED - 1]) &&
		DatumGetTimestampTz(slot->tts_values[DJA_ONCE_COMPLETED_AT - 1]) +
		(int64) dja_idempotency_retention * USECS_PER_SEC < dja_clock();
}

/*
 * Answers the asker of a duplicate as the first one was answered.
 */
static void
dja_answer_like(DjaMessage *message, Datum *values, const bool *nulls)
{
	if (!nulls[DJA_ONCE_ERROR - 1])
		dja_answer_error(message, values[DJA_ONCE_ERROR - 1]);
	else
		dja_answer(message, nulls[DJA_ONCE_REPLY - 1] ? dja_json_null() : values[DJA_ONCE_REPLY - 1]);
}

/*
 * Keeps who answers the first one from passing us by: our duplicate would wait
 * for an answer that has been given.  Nobody waits: who is late starts over.
 */
static void
dja_idempotency_lock(DjaFind *find)
{
	TupleTableSlot *slot = table_slot_create(find->rel, NULL);
	ItemPointerData tid = find->slot->tts_tid;
	TM_FailureData failure;
	TM_Result	result = table_tuple_lock(find->rel, &tid, find->snapshot, slot,
										  GetCurrentCommandId(true), LockTupleShare, LockWaitSkip,
										  0, &failure);

	ExecDropSingleTupleTableSlot(slot);
	if (result != TM_Ok)
		dja_row_trouble(result);
}

/*
 * Deals with a message whose key was handled before: true, and the message's
 * fate is decided.  What a redrive brings back is never a duplicate.
 */
bool
dja_idempotency_is_duplicate(DjaType *type, DjaMessage *message)
{
	DjaWriter  *writer;
	DjaFind		find;
	bool		duplicate;

	if (message->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1] ||
		DatumGetInt16(message->values[DJA_MSG_REDRIVES - 1]) > 0)
		return false;
	dja_idempotency_find(&find, message);
	duplicate = dja_find_next(&find) && !dja_idempotency_expired(find.slot) &&
		!dja_idempotency_is_of(&find, message);
	if (duplicate)
	{
		writer = dja_writer_get(DJA_MESSAGE_TABLE);
		if (message->asks && !DatumGetBool(find.slot->tts_values[DJA_ONCE_ANSWERED - 1]))
		{
			dja_idempotency_lock(&find);
			dja_message_set_aside(writer, message, "duplicate", message->expires_at);
			if (message->expires_at != DT_NOEND)
				dja_pending_due(type, message->expires_at);
		}
		else
		{
			dja_row_delete(writer, &message->tid);
			message->state = DJA_MESSAGE_GONE;
			dja_answer_like(message, find.slot->tts_values, find.slot->tts_isnull);
		}
		dja_writer_put(writer);
		CommandCounterIncrement();
	}
	dja_find_end(&find);
	return duplicate;
}

/*
 * A message was handled: notes its key, with the answer that its asker has got
 * (0 = none or deferred).  The first answer counts: one that was given before
 * the message was stashed stays.
 */
void
dja_idempotency_complete(DjaMessage *message, bool answered, Datum reply, Datum error)
{
	Datum		values[DJA_ONCE_NATTS];
	bool		nulls[DJA_ONCE_NATTS] = {0};
	DjaWriter  *writer;
	DjaFind		find;

	values[DJA_ONCE_TYPE - 1] = message->values[DJA_MSG_ACTOR_TYPE - 1];
	values[DJA_ONCE_KEY - 1] = message->values[DJA_MSG_ACTOR_KEY - 1];
	values[DJA_ONCE_IDEMPOTENCY_KEY - 1] = message->values[DJA_MSG_IDEMPOTENCY_KEY - 1];
	values[DJA_ONCE_MESSAGE_ID - 1] = Int64GetDatum(message->id);
	values[DJA_ONCE_ANSWERED - 1] = BoolGetDatum(answered);
	values[DJA_ONCE_REPLY - 1] = reply;
	nulls[DJA_ONCE_REPLY - 1] = reply == 0;
	values[DJA_ONCE_ERROR - 1] = error;
	nulls[DJA_ONCE_ERROR - 1] = error == 0;
	values[DJA_ONCE_COMPLETED_AT - 1] = TimestampTzGetDatum(answered ? dja_clock() : DT_NOEND);

	writer = dja_writer_get(DJA_ONCE_TABLE);
	dja_idempotency_find(&find, message);
	if (!dja_find_next(&find))
		dja_row_insert(writer, values, nulls);
	else
	{
		if (dja_idempotency_is_of(&find, message) && DatumGetBool(find.slot->tts_values[DJA_ONCE_ANSWERED - 1]))
		{
			values[DJA_ONCE_REPLY - 1] = find.slot->tts_values[DJA_ONCE_REPLY - 1];
			nulls[DJA_ONCE_REPLY - 1] = find.slot->tts_isnull[DJA_ONCE_REPLY - 1];
			values[DJA_ONCE_ERROR - 1] = find.slot->tts_values[DJA_ONCE_ERROR - 1];
			nulls[DJA_ONCE_ERROR - 1] = find.slot->tts_isnull[DJA_ONCE_ERROR - 1];
			values[DJA_ONCE_ANSWERED - 1] = BoolGetDatum(true);
			values[DJA_ONCE_COMPLETED_AT - 1] = TimestampTzGetDatum(dja_clock());
		}
		dja_row_update(writer, &find.slot->tts_tid, values, nulls);
	}
	dja_find_end(&find);
	dja_writer_put(writer);
	CommandCounterIncrement();
}

/*
 * Takes the duplicates that wait for the same deferred answer, and gives it to
 * them: a reply, an error of a handler's, or else a failure.
 */
static void
dja_answer_duplicates(DjaMessage *ask, Datum reply, Datum error, const char *reason,
					  const char *failure)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	DjaWriter  *writer = dja_writer_get(DJA_MESSAGE_TABLE);
	text	   *type = DatumGetTextPP(ask->values[DJA_MSG_ACTOR_TYPE - 1]);
	text	   *key = DatumGetTextPP(ask->values[DJA_MSG_IDEMPOTENCY_KEY - 1]);
	DjaScan		scan;

	dja_aside_scan_begin(&scan, dja_hash_text(type), dja_hash_text(ask->key), snapshot);
	while (dja_scan_next(&scan))
	{
		DjaMessage *message = dja_scan_message(&scan);

		if (!dja_message_is_aside(message, "duplicate") || !dja_text_equal(message->key, ask->key) ||
			message->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1] ||
			!dja_text_equal(DatumGetTextPP(message->values[DJA_MSG_IDEMPOTENCY_KEY - 1]), key))
			continue;
		dja_row_delete(writer, &message->tid);
		if (reply != 0)
			dja_answer(message, reply);
		else if (error != 0)
			dja_answer_error(message, error);
		else
			dja_answer_failure(message, reason, 0, failure);
	}
	dja_scan_end(&scan);
	dja_writer_put(writer);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
}

/*
 * A deferred message with a key has got its answer, which is noted already.
 */
void
dja_idempotency_answer_duplicates(DjaMessage *ask, Datum reply, Datum error)
{
	dja_answer_duplicates(ask, reply, error, NULL, NULL);
}

/*
 * A deferred message with a key ends without an answer of its actor's: the key
 * is free again, unless another one that was brought back has been handled.
 */
void
dja_idempotency_ended(DjaMessage *ask, const char *reason, const char *error)
{
	DjaWriter  *writer = dja_writer_get(DJA_ONCE_TABLE);
	DjaFind		find;

	dja_idempotency_find(&find, ask);
	if (dja_find_next(&find) && dja_idempotency_is_of(&find, ask))
		dja_row_delete(writer, &find.slot->tts_tid);
	dja_find_end(&find);
	dja_writer_put(writer);
	CommandCounterIncrement();
	dja_answer_duplicates(ask, 0, 0, reason, error);
}
