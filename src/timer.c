/*
 * timer.c
 *
 * Timers (contract 16).  A pending timer is a row of djactor.timer and the
 * delayed message of kind timer that it names: its next firing.  So waiting
 * costs nothing, and what makes delayed messages punctual, durable and fair
 * makes timers so.
 *
 * A firing counts only as long as its timer names it.  Cancelling deletes the
 * timer, replacing makes it name another message, and a firing that is in the
 * mailbox already, or even in the memory of the batch, is discarded at its
 * turn.  A periodic timer gets its next firing when the last one has been
 * handled or given up: however late that is, missed periods become one firing
 * with their count.
 */
#include "postgres.h"

#include "access/xact.h"
#include "calendar.h"
#include "clock.h"
#include "compat.h"
#include "fmgr.h"
#include "json.h"
#include "post.h"
#include "timer.h"
#include "turn.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "wish.h"

PG_FUNCTION_INFO_V1(dja_set_timer);
PG_FUNCTION_INFO_V1(dja_cancel_timer);

/* A row of djactor.timer, copied. */
typedef struct DjaTimer
{
	ItemPointerData tid;
	Datum		values[DJA_TIMER_NATTS];
	bool		nulls[DJA_TIMER_NATTS];
	int64		message_id;
	TimestampTz due_at;
	Interval   *every;			/* NULL = once */
} DjaTimer;

static DjaTimer *
dja_timer_copy(TupleTableSlot *slot)
{
	DjaTimer   *timer = palloc(sizeof(DjaTimer));

	timer->tid = slot->tts_tid;
	for (int i = 0; i < DJA_TIMER_NATTS; i++)
	{
		Form_pg_attribute att = TupleDescAttr(slot->tts_tupleDescriptor, i);

		timer->nulls[i] = slot->tts_isnull[i];
		timer->values[i] = timer->nulls[i] ? (Datum) 0 :
			datumCopy(slot->tts_values[i], att->attbyval, att->attlen);
	}
	timer->message_id = DatumGetInt64(timer->values[DJA_TIMER_MESSAGE_ID - 1]);
	timer->due_at = DatumGetTimestampTz(timer->values[DJA_TIMER_DUE_AT - 1]);
	timer->every = timer->nulls[DJA_TIMER_EVERY - 1] ? NULL :
		DatumGetIntervalP(timer->values[DJA_TIMER_EVERY - 1]);
	return timer;
}

/*
 * The actor's timer of this name, NULL without.
 */
static DjaTimer *
dja_timer_find(Datum actor_type, Datum actor_key, Datum name)
{
	Datum		keys[3] = {actor_type, actor_key, name};
	DjaTimer   *timer = NULL;
	DjaFind		find;

	dja_find_begin(&find, DJA_TIMER_TABLE, DJA_TIMER_PKEY, 3, keys);
	if (dja_find_next(&find))
		timer = dja_timer_copy(find.slot);
	dja_find_end(&find);
	return timer;
}

static DjaTimer *
dja_timer_of_message(DjaMessage *message)
{
	char	   *name = NULL;

	if (!message->nulls[DJA_MSG_META - 1])
		name = dja_json_string(message->values[DJA_MSG_META - 1], "name");
	if (name == NULL)
		return NULL;
	return dja_timer_find(message->values[DJA_MSG_ACTOR_TYPE - 1],
						  message->values[DJA_MSG_ACTOR_KEY - 1], CStringGetTextDatum(name));
}

/*
 * Deletes the firing that a timer has named so far.  One that the timekeeper
 * has at hand at this moment stays, and is discarded at its turn.
 */
static void
dja_timer_drop_firing(int64 id)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	DjaMessage *message = dja_message_by_id(id, snapshot);

	UnregisterSnapshot(snapshot);
	if (message != NULL && (dja_turn.message == NULL || dja_turn.message->id != id))
	{
		DjaWriter  *writer = dja_writer_get(DJA_MESSAGE_TABLE);
		DjaMessage *mate = dja_batch_message(id);

		(void) dja_row_try_delete(writer, &message->tid);
		dja_writer_put(writer);
		if (mate != NULL)
			dja_wish(DJA_WISH_GONE, NULL, mate);
	}
}

/*
 * Sends the next firing; its id.
 */
static int64
dja_timer_post(Datum actor_type, Datum actor_key, Datum name, Datum payload, TimestampTz due,
			   DjaMessage *origin)
{
	DjaPair		pairs[] = {DJA_PAIR_STRING("name", TextDatumGetCString(name))};
	DjaPost		post = {
		.kind = "timer",
		.actor_type = DatumGetTextPP(actor_type),
		.actor_key = DatumGetTextPP(actor_key),
		.payload = payload,
		.meta = dja_json_object(pairs, lengthof(pairs)),
		.deliver_at = due,
		.sender_type = DatumGetTextPP(actor_type),
		.sender_key = DatumGetTextPP(actor_key),
		.origin = origin,
	};

	return dja_post(&post);
}

/*
 * Where a period that began at due is now: how many whole periods have passed,
 * and when the next one ends.
 */
static TimestampTz
dja_timer_next(TimestampTz due, Interval *every, TimestampTz now, int64 *missed)
{
	TimestampTz next = due;

	*missed = 0;
	if (every->month == 0 && every->day == 0)
	{
		if (now > due)
			*missed = (now - due) / every->time;
		return due + (*missed + 1) * every->time;
	}
	/* days and months differ in length */
	for (;;)
	{
		next = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(next),
													   IntervalPGetDatum(every)));
		if (next > now)
			return next;
		CHECK_FOR_INTERRUPTS();
		(*missed)++;
	}
}

/*
 * Does this firing still count?  Then what the handler will see as its meta is
 * made here.  One that was given up and brought back by redrive() counts.
 */
bool
dja_timer_fires(DjaMessage *message, TimestampTz now)
{
	DjaTimer   *timer;
	int64		missed = 0;

	if (DatumGetInt16(message->values[DJA_MSG_REDRIVES - 1]) > 0)
		return true;
	timer = dja_timer_of_message(message);
	if (timer == NULL || timer->message_id != message->id)
		return false;
	if (timer->every != NULL)
		(void) dja_timer_next(timer->due_at, timer->every, now, &missed);
	{
		DjaPair		pairs[] = {
			DJA_PAIR_STRING("name", TextDatumGetCString(timer->values[DJA_TIMER_NAME - 1])),
			DJA_PAIR_STRING("due_at", dja_time_string(timer->due_at)),
			DJA_PAIR_NUMBER("missed", missed),
		};

		message->fired_meta = dja_json_object(pairs, lengthof(pairs));
		message->fired_at = now;
	}
	return true;
}

/*
 * A firing was handled, or given up: the timer is over, or goes on to its next
 * period.
 */
void
dja_timer_done(DjaMessage *message)
{
	DjaTimer   *timer = dja_timer_of_message(message);
	DjaWriter  *writer;
	TimestampTz next;
	int64		missed;

	if (timer == NULL || timer->message_id != message->id)
		return;					/* cancelled or set anew meanwhile */
	writer = dja_writer_get(DJA_TIMER_TABLE);
	if (timer->every == NULL)
		dja_row_delete(writer, &timer->tid);
	else
	{
		/* from where its count of missed periods ends */
		next = dja_timer_next(timer->due_at, timer->every,
							  message->fired_meta != 0 ? message->fired_at : dja_clock(), &missed);
		timer->values[DJA_TIMER_DUE_AT - 1] = TimestampTzGetDatum(next);
		timer->values[DJA_TIMER_MESSAGE_ID - 1] =
			Int64GetDatum(dja_timer_post(timer->values[DJA_TIMER_TYPE - 1],
										 timer->values[DJA_TIMER_KEY - 1],
										 timer->values[DJA_TIMER_NAME - 1],
										 timer->values[DJA_TIMER_PAYLOAD - 1], next, message));
		dja_row_update(writer, &timer->tid, timer->values, timer->nulls);
	}
	dja_writer_put(writer);
	CommandCounterIncrement();
}

/*
 * All timers of an actor, which stops.
 */
void
dja_timers_drop(DjaType *type, text *key)
{
	Datum		keys[2] = {CStringGetTextDatum(type->name), PointerGetDatum(key)};
	DjaWriter  *writer = dja_writer_get(DJA_TIMER_TABLE);
	DjaFind		find;

	dja_find_begin(&find, DJA_TIMER_TABLE, DJA_TIMER_PKEY, 2, keys);
	while (dja_find_next(&find))
	{
		dja_timer_drop_firing(DatumGetInt64(find.slot->tts_values[DJA_TIMER_MESSAGE_ID - 1]));
		dja_row_delete(writer, &find.slot->tts_tid);
	}
	dja_find_end(&find);
	dja_writer_put(writer);
	CommandCounterIncrement();
}

/* ---------- in a turn ---------- */

static void
dja_check_timer_name(text *name)
{
	int			len = VARSIZE_ANY_EXHDR(name);

	if (len < 1 || len > DJA_TYPE_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a timer must have 1 to %d bytes", DJA_TYPE_NAME_MAX)));
}

/*
 * When a timer that is set now fires first.
 */
static TimestampTz
dja_timer_first(FunctionCallInfo fcinfo)
{
	Datum		now = TimestampTzGetDatum(dja_clock());
	TimestampTz due;

	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a timer is set either after an interval or at a time, not both")));
	if (!PG_ARGISNULL(4))
		due = PG_GETARG_TIMESTAMPTZ(4);
	else if (PG_ARGISNULL(1) && PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a timer needs one of after, every and at")));
	else
	{
		Interval   *after = PG_GETARG_INTERVAL_P(PG_ARGISNULL(1) ? 3 : 1);

		if (DJA_INTERVAL_INFINITE(after) || dja_interval_usec(after) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a timer cannot be set after a negative or infinite interval")));
		due = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, now,
													  IntervalPGetDatum(after)));
	}
	if (TIMESTAMP_NOT_FINITE(due))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a timer cannot be set at an infinite time")));
	return due;
}

/*
 * set_timer(name, after, payload, every, at)
 */
Datum
dja_set_timer(PG_FUNCTION_ARGS)
{
	Datum		values[DJA_TIMER_NATTS];
	bool		nulls[DJA_TIMER_NATTS] = {0};
	TimestampTz due;
	DjaTimer   *before;
	DjaWriter  *writer;

	dja_require_turn("set_timer()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name and payload of a timer must not be null")));
	dja_check_timer_name(PG_GETARG_TEXT_PP(0));
	if (!PG_ARGISNULL(3))
		dja_check_period(PG_GETARG_INTERVAL_P(3));
	due = dja_timer_first(fcinfo);

	values[DJA_TIMER_TYPE - 1] = CStringGetTextDatum(dja_turn.actor->type->name);
	values[DJA_TIMER_KEY - 1] = PointerGetDatum(dja_turn.actor->key);
	values[DJA_TIMER_NAME - 1] = PG_GETARG_DATUM(0);
	values[DJA_TIMER_DUE_AT - 1] = TimestampTzGetDatum(due);
	values[DJA_TIMER_EVERY - 1] = PG_GETARG_DATUM(3);
	nulls[DJA_TIMER_EVERY - 1] = PG_ARGISNULL(3);
	values[DJA_TIMER_PAYLOAD - 1] = PG_GETARG_DATUM(2);

	before = dja_timer_find(values[DJA_TIMER_TYPE - 1], values[DJA_TIMER_KEY - 1],
							values[DJA_TIMER_NAME - 1]);
	if (before != NULL)
		dja_timer_drop_firing(before->message_id);
	values[DJA_TIMER_MESSAGE_ID - 1] =
		Int64GetDatum(dja_timer_post(values[DJA_TIMER_TYPE - 1], values[DJA_TIMER_KEY - 1],
									 values[DJA_TIMER_NAME - 1], values[DJA_TIMER_PAYLOAD - 1],
									 due, NULL));
	writer = dja_writer_get(DJA_TIMER_TABLE);
	if (before != NULL)
		dja_row_update(writer, &before->tid, values, nulls);
	else
		dja_row_insert(writer, values, nulls);
	dja_writer_put(writer);
	CommandCounterIncrement();
	PG_RETURN_VOID();
}

/*
 * cancel_timer(name): was there one?
 */
Datum
dja_cancel_timer(PG_FUNCTION_ARGS)
{
	DjaTimer   *timer;
	DjaWriter  *writer;

	dja_require_turn("cancel_timer()");
	timer = dja_timer_find(CStringGetTextDatum(dja_turn.actor->type->name),
						   PointerGetDatum(dja_turn.actor->key), PG_GETARG_DATUM(0));
	if (timer == NULL)
		PG_RETURN_BOOL(false);
	dja_timer_drop_firing(timer->message_id);
	writer = dja_writer_get(DJA_TIMER_TABLE);
	dja_row_delete(writer, &timer->tid);
	dja_writer_put(writer);
	CommandCounterIncrement();
	PG_RETURN_BOOL(true);
}

/*
 * A firing was cancelled by its id: so is its timer.
 */
void
dja_timer_cancelled(DjaMessage *message)
{
	DjaTimer   *timer = dja_timer_of_message(message);
	DjaWriter  *writer;

	if (timer == NULL || timer->message_id != message->id)
		return;
	writer = dja_writer_get(DJA_TIMER_TABLE);
	dja_row_delete(writer, &timer->tid);
	dja_writer_put(writer);
	CommandCounterIncrement();
}
