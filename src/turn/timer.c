/*
 * timer.c
 *
 * Timers (contract 16).  A pending timer is a row of djactor.timer and the
 * delayed message of kind timer that the row names: its next firing.  So waiting
 * costs nothing, and timers are as punctual, durable and fair as delayed messages.
 *
 * A firing counts only as long as its timer names it.  Cancelling deletes the
 * timer; replacing it makes it name another message.  A firing that is in the
 * mailbox already, or in the memory of the batch, is discarded at its turn.
 *
 * A recurring timer keeps its rule as it was given (calendar.c).  It gets its next
 * firing when the last one has been handled or given up.  The times that were
 * missed by then become one firing with their count, or are dropped, as the timer
 * says.
 *
 * schedule.c does the same outside of turns.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/calendar.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/json.h"
#include "turn/system_message.h"
#include "turn/timer.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"

PG_FUNCTION_INFO_V1(dja_set_timer);
PG_FUNCTION_INFO_V1(dja_cancel_timer);

/* A firing that is later than this was missed. */
#define DJA_TIMER_LATE USECS_PER_MINUTE

static DjaTimer *
dja_timer_copy(TupleTableSlot *slot)
{
	DjaTimer   *timer = palloc(sizeof(DjaTimer));

	timer->tid = slot->tts_tid;
	heap_deform_tuple(ExecCopySlotHeapTuple(slot), slot->tts_tupleDescriptor, timer->values, timer->nulls);
	timer->message_id = timer->nulls[DJA_TIMER_MESSAGE_ID - 1] ? 0 :
		DatumGetInt64(timer->values[DJA_TIMER_MESSAGE_ID - 1]);
	timer->due_at = DatumGetTimestampTz(timer->values[DJA_TIMER_DUE_AT - 1]);
	return timer;
}

/*
 * Computes when the timer in these columns fires next.  Returns false if it does
 * not recur.
 */
bool
dja_timer_rule(DjaType *type, const Datum *values, const bool *nulls, DjaRule *rule)
{
	const char *zone = NULL;

	memset(rule, 0, sizeof(DjaRule));
	if (nulls[DJA_TIMER_EVERY - 1] && nulls[DJA_TIMER_CRON - 1])
		return false;
	if (!nulls[DJA_TIMER_TIME_ZONE - 1])
		zone = TextDatumGetCString(values[DJA_TIMER_TIME_ZONE - 1]);
	else if (type != NULL)
		zone = dja_json_string(JsonbPGetDatum(type->settings), "TimeZone");
	rule->zone = zone != NULL ? dja_zone(zone) : session_timezone;
	if (nulls[DJA_TIMER_EVERY - 1])
		dja_cron_parse(TextDatumGetCString(values[DJA_TIMER_CRON - 1]), &rule->cron);
	else
	{
		rule->every = DatumGetIntervalP(values[DJA_TIMER_EVERY - 1]);
		rule->anchor = DatumGetTimestampTz(values[DJA_TIMER_ANCHOR - 1]);
	}
	return true;
}

static DjaType *
dja_timer_type(DjaTimer *timer)
{
	return dja_type_by_hash(dja_hash_text(DatumGetTextPP(timer->values[DJA_TIMER_TYPE - 1])));
}

/*
 * Is the timer's zone unknown to the server by now?  Its files may have changed.
 */
static bool
dja_timer_lost_zone(DjaTimer *timer)
{
	return !timer->nulls[DJA_TIMER_TIME_ZONE - 1] &&
		dja_zone_find(TextDatumGetCString(timer->values[DJA_TIMER_TIME_ZONE - 1])) == NULL;
}

static bool
dja_timer_skips(DjaTimer *timer)
{
	return strcmp(TextDatumGetCString(timer->values[DJA_TIMER_CATCH_UP - 1]), "skip") == 0;
}

/*
 * The actor's timer of this name, or NULL.
 */
DjaTimer *
dja_timer_find(Datum actor_type, Datum actor_key, Datum name)
{
	Datum		keys[3] = {actor_type, actor_key, name};
	DjaTimer   *timer = NULL;
	DjaFind		find;

	dja_find_begin(&find, DJA_TIMER_TABLE, DJA_TIMER_PKEY, 3, keys, NULL);
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
 * Deletes the firing that a timer names.  A firing that the timekeeper has locked
 * at this moment stays, and is discarded at its turn.
 */
void
dja_timer_drop_firing(int64 id)
{
	DjaMessage *message;

	if (id == 0)
		return;					/* it is paused */
	message = dja_message_by_id(id, NULL);
	if (message != NULL && (dja_turn.message == NULL || dja_turn.message->id != id))
	{
		DjaMessage *mate = dja_batch_message(id);

		(void) dja_table_try_delete(DJA_MESSAGE_TABLE, &message->tid);
		if (mate != NULL)
			dja_effect_request(DJA_EFFECT_GONE, NULL, mate);
	}
}

/*
 * Writes the changed columns of a timer.
 */
void
dja_timer_update(DjaTimer *timer)
{
	DjaWriter  *writer = dja_writer_get(DJA_TIMER_TABLE);

	dja_row_update(writer, &timer->tid, timer->values, timer->nulls);
	dja_writer_put(writer);
}

/*
 * Deletes a timer.  Its firing may stay, and is then discarded at its turn.
 */
static void
dja_timer_delete(DjaTimer *timer)
{
	DjaWriter  *writer = dja_writer_get(DJA_TIMER_TABLE);

	dja_row_delete(writer, &timer->tid);
	dja_writer_put(writer);
}

/*
 * Ends a timer, with a firing that is in the mailbox already.  Returns false if
 * timer is NULL.
 */
bool
dja_timer_end(DjaTimer *timer)
{
	if (timer == NULL)
		return false;
	dja_timer_drop_firing(timer->message_id);
	dja_timer_delete(timer);
	return true;
}

/*
 * Sends the firing of the timer in these columns, for a time, or for now if that
 * is 0.  Returns its id.
 */
int64
dja_timer_send(const Datum *values, TimestampTz due, DjaMessage *origin)
{
	Datum		actor_type = values[DJA_TIMER_TYPE - 1];
	Datum		actor_key = values[DJA_TIMER_KEY - 1];
	DjaPair		pairs[] = {DJA_PAIR_STRING("name", TextDatumGetCString(values[DJA_TIMER_NAME - 1]))};
	DjaSystemMessage post = {
		.kind = "timer",
		.actor_type = DatumGetTextPP(actor_type),
		.actor_key = DatumGetTextPP(actor_key),
		.payload = values[DJA_TIMER_PAYLOAD - 1],
		.meta = dja_json_object(pairs, lengthof(pairs)),
		.deliver_at = due,
		.sender_type = DatumGetTextPP(actor_type),
		.sender_key = DatumGetTextPP(actor_key),
		.origin = origin,
	};

	return dja_send_system_message(&post);
}

/*
 * Sends the next firing of the timer in these columns, unless it is paused, and
 * has them name it.
 */
void
dja_timer_send_next(Datum *values, bool *nulls, TimestampTz due, DjaMessage *origin)
{
	bool		paused = !nulls[DJA_TIMER_PAUSED_AT - 1];

	dja_set_column(values, nulls, DJA_TIMER_DUE_AT, TimestampTzGetDatum(due), false);
	nulls[DJA_TIMER_MESSAGE_ID - 1] = paused;
	if (!paused)
		values[DJA_TIMER_MESSAGE_ID - 1] = Int64GetDatum(dja_timer_send(values, due, origin));
}

/*
 * Does this firing still count?  If so, makes the meta that its handler will see.
 * A firing that redrive() has brought back counts.
 */
bool
dja_timer_fires(DjaMessage *message, TimestampTz now)
{
	DjaTimer   *timer;
	DjaRule		rule;
	int64		missed = 0;

	if (DatumGetInt16(message->values[DJA_MSG_REDRIVES - 1]) > 0)
		return true;
	timer = dja_timer_of_message(message);
	if (timer == NULL || timer->message_id != message->id)
		return false;
	if (!dja_timer_skips(timer) && !dja_timer_lost_zone(timer) &&
		dja_timer_rule(dja_timer_type(timer), timer->values, timer->nulls, &rule))
		missed = dja_rule_count(&rule, timer->due_at, now);
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
 * Pauses a timer in a zone that the server does not know, and logs it.
 */
static void
dja_timer_pause(DjaTimer *timer, TimestampTz now)
{
	ereport(LOG,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("timer \"%s\" of actor %s \"%s\" is paused: time zone \"%s\" not recognized",
					TextDatumGetCString(timer->values[DJA_TIMER_NAME - 1]),
					TextDatumGetCString(timer->values[DJA_TIMER_TYPE - 1]),
					TextDatumGetCString(timer->values[DJA_TIMER_KEY - 1]),
					TextDatumGetCString(timer->values[DJA_TIMER_TIME_ZONE - 1])),
			 errhint("Use djactor.schedule() with one of pg_timezone_names, or install the server's time zones.")));
	dja_set_column(timer->values, timer->nulls, DJA_TIMER_PAUSED_AT, TimestampTzGetDatum(now), false);
}

/*
 * Sends the next firing after a moment, or deletes the timer if there is none.
 * outcome is that of the last firing.
 */
static void
dja_timer_go_on(DjaTimer *timer, DjaMessage *message, TimestampTz from, const char *outcome)
{
	TimestampTz next = DT_NOEND;
	DjaRule		rule;

	if (dja_timer_lost_zone(timer))
	{
		dja_timer_pause(timer, from);
		next = timer->due_at;
	}
	else if (dja_timer_rule(dja_timer_type(timer), timer->values, timer->nulls, &rule))
		next = dja_rule_next(&rule, Max(from, timer->due_at));
	if (next == DT_NOEND)
	{
		dja_timer_delete(timer);
		return;
	}
	dja_set_column(timer->values, timer->nulls, DJA_TIMER_LAST_FIRED_AT, TimestampTzGetDatum(from), false);
	dja_set_text(timer->values, timer->nulls, DJA_TIMER_LAST_OUTCOME, outcome);
	dja_timer_send_next(timer->values, timer->nulls, next, message);
	dja_timer_update(timer);
}

/*
 * Called when a firing was handled or given up: sends the timer's next firing, or
 * deletes the timer.
 */
void
dja_timer_done(DjaMessage *message, const char *outcome)
{
	DjaTimer   *timer = dja_timer_of_message(message);

	if (timer == NULL || timer->message_id != message->id)
		return;					/* cancelled or set anew meanwhile */
	/* missed periods were counted up to here */
	dja_timer_go_on(timer, message,
					message->fired_meta != 0 ? message->fired_at : dja_clock(), outcome);
}

/*
 * Is this firing, which has never been tried, so late that its timer skips it?
 * If so, the next firing is sent here.  A firing of run_now() is never late.
 */
bool
dja_timer_skipped(DjaMessage *message, TimestampTz now)
{
	DjaTimer   *timer;
	DjaRule		rule;

	if (message->nulls[DJA_MSG_DELIVER_AT - 1] || message->attempts > 0 || message->put_offs > 0 ||
		DatumGetInt16(message->values[DJA_MSG_CRASHES - 1]) > 0 ||
		DatumGetInt16(message->values[DJA_MSG_REDRIVES - 1]) > 0)
		return false;
	timer = dja_timer_of_message(message);
	if (timer == NULL || timer->message_id != message->id || !dja_timer_skips(timer) ||
		dja_timer_lost_zone(timer))
		return false;
	if (now - timer->due_at <= DJA_TIMER_LATE &&
		(!dja_timer_rule(dja_timer_type(timer), timer->values, timer->nulls, &rule) ||
		 dja_rule_next(&rule, timer->due_at) > now))
		return false;
	dja_timer_go_on(timer, message, now, "skipped");
	return true;
}

/*
 * Deletes all timers of an actor, which stops.
 */
void
dja_timers_drop(DjaType *type, text *key)
{
	Datum		keys[2] = {CStringGetTextDatum(type->name), PointerGetDatum(key)};
	DjaWriter  *writer = dja_writer_get(DJA_TIMER_TABLE);
	DjaFind		find;

	dja_find_begin(&find, DJA_TIMER_TABLE, DJA_TIMER_PKEY, 2, keys, NULL);
	while (dja_find_next(&find))
	{
		if (!find.slot->tts_isnull[DJA_TIMER_MESSAGE_ID - 1])
			dja_timer_drop_firing(DatumGetInt64(find.slot->tts_values[DJA_TIMER_MESSAGE_ID - 1]));
		dja_row_delete(writer, &find.slot->tts_tid);
	}
	dja_find_end(&find);
	dja_writer_put(writer);
}

/* ---------- setting ---------- */

static void
dja_check_timer_name(text *name)
{
	int			len = VARSIZE_ANY_EXHDR(name);

	if (len < 1 || len > DJA_TYPE_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a timer must have 1 to %d bytes", DJA_TYPE_NAME_MAX)));
}

static void
dja_check_combination(bool after, bool every, bool at, bool cron, bool zone)
{
	const char *wrong = NULL;

	if (every && cron)
		wrong = "a timer comes again either by every or by cron, not both";
	else if (cron && (after || at))
		wrong = "a timer by cron has neither after nor at";
	else if (after && at)
		wrong = "a timer is set either after an interval or at a time, not both";
	else if (!after && !every && !at && !cron)
		wrong = "a timer needs one of after, every, at and cron";
	else if (zone && !every && !cron)
		wrong = "time_zone is for a timer by every or cron";
	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s", wrong)));
}

/*
 * Fills the columns of a timer from the arguments that set_timer() and
 * schedule() share, from the one of this number on: name, after, payload,
 * every, at, cron, time_zone, catch_up.  Raises 22023 if they make no timer.
 */
void
dja_timer_arguments(FunctionCallInfo fcinfo, int base, DjaType *type, DjaTimerArguments *arguments)
{
	static const int columns[] = {DJA_TIMER_NAME, 0, DJA_TIMER_PAYLOAD, DJA_TIMER_EVERY, 0,
	DJA_TIMER_CRON, DJA_TIMER_TIME_ZONE, DJA_TIMER_CATCH_UP};
	DjaRule		rule;

	memset(arguments->values, 0, sizeof(arguments->values));
	memset(arguments->nulls, true, sizeof(arguments->nulls));
	for (size_t i = 0; i < lengthof(columns); i++)
		if (columns[i] != 0)
		{
			arguments->values[columns[i] - 1] = PG_GETARG_DATUM(base + i);
			arguments->nulls[columns[i] - 1] = PG_ARGISNULL(base + i);
		}
	arguments->after = PG_ARGISNULL(base + 1) ? NULL : PG_GETARG_INTERVAL_P(base + 1);
	arguments->has_at = !PG_ARGISNULL(base + 4);
	arguments->at = arguments->has_at ? PG_GETARG_TIMESTAMPTZ(base + 4) : 0;

	if (PG_ARGISNULL(base) || PG_ARGISNULL(base + 2) || PG_ARGISNULL(base + 7))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name, payload and catch_up of a timer must not be null")));
	dja_check_timer_name(PG_GETARG_TEXT_PP(base));
	dja_check_combination(arguments->after != NULL, !PG_ARGISNULL(base + 3), arguments->has_at,
						  !PG_ARGISNULL(base + 5), !PG_ARGISNULL(base + 6));
	if (!PG_ARGISNULL(base + 3))
		dja_check_period(PG_GETARG_INTERVAL_P(base + 3));
	if (arguments->after != NULL &&
		(DJA_INTERVAL_INFINITE(arguments->after) || dja_interval_usec(arguments->after) < 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a timer cannot be set after a negative or infinite interval")));
	if (arguments->has_at && TIMESTAMP_NOT_FINITE(arguments->at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a timer cannot be set at an infinite time")));
	{
		char	   *catch_up = text_to_cstring(PG_GETARG_TEXT_PP(base + 7));

		if (strcmp(catch_up, "once") != 0 && strcmp(catch_up, "skip") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for catch_up: \"%s\"", catch_up),
					 errhint("Use \"once\" or \"skip\".")));
	}
	/* checks cron and time_zone; the anchor does not matter */
	(void) dja_timer_rule(type, arguments->values, arguments->nulls, &rule);
}

/*
 * Computes the anchor of the timer and its first firing, which is never now.
 */
TimestampTz
dja_timer_first(DjaType *type, DjaTimerArguments *arguments, TimestampTz now)
{
	TimestampTz anchor = now;
	TimestampTz due = DT_NOEND;
	DjaRule		rule;

	if (arguments->has_at)
		due = anchor = arguments->at;
	else if (arguments->after != NULL)
		due = anchor = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															   TimestampTzGetDatum(now),
															   IntervalPGetDatum(arguments->after)));
	/* a single firing after an interval has no time of day */
	arguments->nulls[DJA_TIMER_ANCHOR - 1] =
		!arguments->has_at && arguments->nulls[DJA_TIMER_EVERY - 1];
	arguments->values[DJA_TIMER_ANCHOR - 1] = TimestampTzGetDatum(anchor);
	if (due == DT_NOEND && dja_timer_rule(type, arguments->values, arguments->nulls, &rule))
		due = dja_rule_next(&rule, now);
	if (TIMESTAMP_NOT_FINITE(due))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a timer would fire beyond the end of time")));
	return due;
}

/*
 * Writes a timer, in place of the former one if there is one.  Of that, it keeps
 * whether it is paused, and the outcome of the last firing.
 */
void
dja_timer_write(Datum *values, bool *nulls, DjaTimer *before, TimestampTz due)
{
	static const int kept[] = {DJA_TIMER_PAUSED_AT, DJA_TIMER_LAST_FIRED_AT, DJA_TIMER_LAST_OUTCOME};
	DjaWriter  *writer;

	if (before != NULL)
	{
		for (size_t i = 0; i < lengthof(kept); i++)
		{
			values[kept[i] - 1] = before->values[kept[i] - 1];
			nulls[kept[i] - 1] = before->nulls[kept[i] - 1];
		}
		dja_timer_drop_firing(before->message_id);
	}
	nulls[DJA_TIMER_TYPE - 1] = nulls[DJA_TIMER_KEY - 1] = false;
	dja_timer_send_next(values, nulls, due, NULL);
	writer = dja_writer_get(DJA_TIMER_TABLE);
	if (before != NULL)
		dja_row_update(writer, &before->tid, values, nulls);
	else
		dja_row_insert(writer, values, nulls);
	dja_writer_put(writer);
}

/* ---------- in a turn ---------- */

/*
 * set_timer(name, after, payload, every, at, cron, time_zone, catch_up)
 */
Datum
dja_set_timer(PG_FUNCTION_ARGS)
{
	DjaTimerArguments arguments;
	DjaTimer   *before;
	TimestampTz due;

	dja_require_turn("set_timer()");
	dja_timer_arguments(fcinfo, 0, dja_turn.actor->type, &arguments);
	due = dja_timer_first(dja_turn.actor->type, &arguments, dja_clock());
	arguments.values[DJA_TIMER_TYPE - 1] = CStringGetTextDatum(dja_turn.actor->type->name);
	arguments.values[DJA_TIMER_KEY - 1] = PointerGetDatum(dja_turn.actor->key);
	before = dja_timer_find(arguments.values[DJA_TIMER_TYPE - 1], arguments.values[DJA_TIMER_KEY - 1],
							arguments.values[DJA_TIMER_NAME - 1]);
	dja_timer_write(arguments.values, arguments.nulls, before, due);
	PG_RETURN_VOID();
}

/*
 * cancel_timer(name): returns whether there was one.
 */
Datum
dja_cancel_timer(PG_FUNCTION_ARGS)
{
	dja_require_turn("cancel_timer()");
	PG_RETURN_BOOL(dja_timer_end(dja_timer_find(CStringGetTextDatum(dja_turn.actor->type->name),
												PointerGetDatum(dja_turn.actor->key),
												PG_GETARG_DATUM(0))));
}

/*
 * Deletes the timer of a firing that was cancelled by its id.
 */
void
dja_timer_cancelled(DjaMessage *message)
{
	DjaTimer   *timer = dja_timer_of_message(message);

	if (timer != NULL && timer->message_id == message->id)
		dja_timer_delete(timer);
}
