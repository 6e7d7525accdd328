/*
 * message.c
 *
 * Changes to messages in djactor.message and djactor.dead_letter; see message.h.
 *
 * Each change acts on the very row version that was read, and waits for no other
 * transaction.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "tables/message.h"

/*
 * Moves a message to djactor.dead_letter.
 */
void
dja_message_dead(DjaWriter *messages, DjaWriter *dead_letters,
				 DjaMessage *message, DjaFailure *failure)
{
	Datum		values[DJA_DEAD_NATTS];
	bool		nulls[DJA_DEAD_NATTS];

	memcpy(values, message->values, sizeof(Datum) * DJA_MSG_COMMON);
	memcpy(nulls, message->nulls, sizeof(bool) * DJA_MSG_COMMON);
	values[DJA_MSG_ATTEMPTS - 1] = Int32GetDatum(message->attempts);
	if (message->fired_meta != 0)
		values[DJA_MSG_META - 1] = message->fired_meta;
	nulls[DJA_MSG_RETRY_AT - 1] = true;
	if (failure->error != NULL)
		dja_set_text(values, nulls, DJA_MSG_LAST_ERROR, failure->error);
	dja_set_text(values, nulls, DJA_DEAD_REASON, failure->reason);
	dja_set_text(values, nulls, DJA_DEAD_SQLSTATE,
				 failure->sqlerrcode ? unpack_sql_state(failure->sqlerrcode) : NULL);
	dja_set_text(values, nulls, DJA_DEAD_ERROR, failure->error);
	dja_set_text(values, nulls, DJA_DEAD_CONTEXT, failure->context);
	dja_set_column(values, nulls, DJA_DEAD_FAILED_AT, TimestampTzGetDatum(GetCurrentTimestamp()), false);

	dja_row_delete(messages, &message->tid);
	dja_row_insert(dead_letters, values, nulls);
}

/*
 * Puts a message off until its next attempt.  Stores its attempts and
 * put_offs.  With skip (its type's retry_order) it is delayed anew, which takes
 * it out of its mailbox; else it stays there, and messages that sort after it
 * wait.
 */
void
dja_message_retry(DjaWriter *messages, DjaMessage *message, TimestampTz retry_at,
				  const char *error, bool skip)
{
	Datum	   *values = message->values;
	bool	   *nulls = message->nulls;

	message->retry_at = retry_at;
	values[DJA_MSG_ATTEMPTS - 1] = Int32GetDatum(message->attempts);
	values[DJA_MSG_PUT_OFFS - 1] = Int32GetDatum(message->put_offs);
	dja_set_column(values, nulls, DJA_MSG_RETRY_AT, TimestampTzGetDatum(retry_at),
				   TIMESTAMP_IS_NOBEGIN(retry_at));
	dja_set_text(values, nulls, DJA_MSG_LAST_ERROR, error);
	if (skip)
	{
		dja_set_column(values, nulls, DJA_MSG_DELIVER_AT, TimestampTzGetDatum(retry_at), false);
		values[DJA_MSG_RELEASED - 1] = BoolGetDatum(false);
	}
	dja_row_update(messages, &message->tid, values, nulls);
}

/*
 * Puts a delayed message that is due into its mailbox, unless another transaction has
 * locked its row.
 */
TM_Result
dja_message_release(DjaWriter *messages, DjaMessage *message)
{
	message->values[DJA_MSG_RELEASED - 1] = BoolGetDatum(true);
	message->nulls[DJA_MSG_RETRY_AT - 1] = true;
	return dja_row_try_update(messages, &message->tid, message->values, message->nulls);
}

/*
 * Delays a message again that came too early, since the clock was put back after it
 * was released.
 */
void
dja_message_delay(DjaWriter *messages, DjaMessage *message)
{
	message->values[DJA_MSG_RELEASED - 1] = BoolGetDatum(false);
	dja_row_update(messages, &message->tid, message->values, message->nulls);
	message->state = DJA_MESSAGE_ASIDE;
}

/*
 * Takes a message out of its mailbox, or puts it back with aside = NULL.  The
 * timekeeper looks at it again at until, unless that is infinite.
 */
void
dja_message_set_aside(DjaWriter *messages, DjaMessage *message, const char *aside,
					  TimestampTz until)
{
	dja_set_text(message->values, message->nulls, DJA_MSG_ASIDE, aside);
	dja_set_column(message->values, message->nulls, DJA_MSG_RETRY_AT, TimestampTzGetDatum(until),
				   until == DT_NOEND);
	message->values[DJA_MSG_RELEASED - 1] = BoolGetDatum(true);
	dja_row_update(messages, &message->tid, message->values, message->nulls);
	message->state = DJA_MESSAGE_ASIDE;
}

/*
 * Returns when a message of the due index is due.
 */
TimestampTz
dja_message_due_at(DjaMessage *message)
{
	return message->nulls[DJA_MSG_RETRY_AT - 1] ?
		DatumGetTimestampTz(message->values[DJA_MSG_DELIVER_AT - 1]) : message->retry_at;
}

/*
 * Is this message out of its mailbox until its time comes?
 */
bool
dja_message_is_delayed(DjaMessage *message)
{
	return !message->nulls[DJA_MSG_DELIVER_AT - 1] &&
		!DatumGetBool(message->values[DJA_MSG_RELEASED - 1]);
}

bool
dja_message_is_aside(DjaMessage *message, const char *aside)
{
	return !message->nulls[DJA_MSG_ASIDE - 1] &&
		strcmp(TextDatumGetCString(message->values[DJA_MSG_ASIDE - 1]), aside) == 0;
}
