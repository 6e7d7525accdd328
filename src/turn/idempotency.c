/*
 * idempotency.c
 *
 * Idempotency keys (contract 19).
 *
 * The turn that handles the first message with a key writes the key to
 * djactor.idempotency.  A later message with that key finds it at its own turn,
 * so the sender neither waits nor fails.  The turns of an actor follow one
 * another, so no two transactions write the same key at the same time.  A message
 * that dies, is cancelled or expires writes nothing, and its key is free.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
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

	dja_find_begin(find, DJA_ONCE_TABLE, DJA_ONCE_PKEY, 3, keys, NULL);
}

/*
 * Was the key written for this message?
 */
static bool
dja_idempotency_is_of(DjaFind *find, DjaMessage *message)
{
	return DatumGetInt64(find->slot->tts_values[DJA_ONCE_MESSAGE_ID - 1]) == message->id;
}

static bool
dja_idempotency_expired(TupleTableSlot *slot)
{
	/* a message without an answer is not completed yet */
	return DatumGetBool(slot->tts_values[DJA_ONCE_ANSWERED - 1]) &&
		DatumGetTimestampTz(slot->tts_values[DJA_ONCE_COMPLETED_AT - 1]) +
		(int64) dja_idempotency_retention * USECS_PER_SEC < dja_clock();
}

/*
 * Answers a duplicate as the first message with the key was answered.  Needs the
 * columns of the key's row.
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
 * Locks the row of a key, so that no transaction answers the first message while
 * this one sets a duplicate aside.  The duplicate would wait for an answer that has
 * been given already.  Raises an error, instead of waiting, if another transaction
 * has locked or changed the row; then the turn starts over.
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
 * Returns true if a message with the same key was handled before.  Then this one
 * is done with: it was answered and deleted, or set aside until the first one has
 * its answer.  A message that redrive() has brought back is never a duplicate.
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
	}
	dja_find_end(&find);
	return duplicate;
}

/*
 * Writes the key of a message that was handled, with the answer that its asker has
 * got.  reply or error is 0, both are 0 without an answer.  answered is false if the
 * answer was deferred.  The first answer counts, so one that was given before the
 * message was stashed stays.
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
	dja_set_column(values, nulls, DJA_ONCE_REPLY, reply, reply == 0);
	dja_set_column(values, nulls, DJA_ONCE_ERROR, error, error == 0);
	values[DJA_ONCE_COMPLETED_AT - 1] = TimestampTzGetDatum(answered ? dja_clock() : DT_NOEND);

	writer = dja_writer_get(DJA_ONCE_TABLE);
	dja_idempotency_find(&find, message);
	if (!dja_find_next(&find))
		dja_row_insert(writer, values, nulls);
	else
	{
		if (dja_idempotency_is_of(&find, message) && DatumGetBool(find.slot->tts_values[DJA_ONCE_ANSWERED - 1]))
		{
			dja_set_column(values, nulls, DJA_ONCE_REPLY, find.slot->tts_values[DJA_ONCE_REPLY - 1],
						   find.slot->tts_isnull[DJA_ONCE_REPLY - 1]);
			dja_set_column(values, nulls, DJA_ONCE_ERROR, find.slot->tts_values[DJA_ONCE_ERROR - 1],
						   find.slot->tts_isnull[DJA_ONCE_ERROR - 1]);
			values[DJA_ONCE_ANSWERED - 1] = BoolGetDatum(true);
			values[DJA_ONCE_COMPLETED_AT - 1] = TimestampTzGetDatum(dja_clock());
		}
		dja_row_update(writer, &find.slot->tts_tid, values, nulls);
	}
	dja_find_end(&find);
	dja_writer_put(writer);
}

/*
 * Deletes the duplicates that wait for the deferred answer of a message, and
 * answers them: with reply, with the error that a handler has given, or, if both
 * are 0, with a failure.
 */
void
dja_idempotency_answer_duplicates(DjaMessage *ask, Datum reply, Datum error,
								  const char *reason, const char *failure)
{
	DjaWriter  *writer = dja_writer_get(DJA_MESSAGE_TABLE);
	text	   *type = DatumGetTextPP(ask->values[DJA_MSG_ACTOR_TYPE - 1]);
	text	   *key = DatumGetTextPP(ask->values[DJA_MSG_IDEMPOTENCY_KEY - 1]);
	DjaScan		scan;

	dja_aside_scan_begin(&scan, dja_hash_text(type), dja_hash_text(ask->key));
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
}

/*
 * Frees the key of a deferred message that ends without an answer of its actor,
 * and answers its duplicates with a failure.  The key stays if another message
 * with it, which redrive() has brought back, has been handled since.
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
	dja_idempotency_answer_duplicates(ask, 0, 0, reason, error);
}
