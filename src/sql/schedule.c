/*
 * schedule.c
 *
 * Schedules: timers of actors that are set, changed and ended from outside of
 * turns.  They are for roles that may act for the owner of the type, as pause()
 * and resume() are.
 *
 * The actor's row is locked, if it has one, so that none of its turns is under
 * way meanwhile.  To make a timer, a transaction locks its name for a short time.
 * Another one that would make the same timer waits for the end of the first.
 *
 * schedule() may be called again at any time.  A timer that is right stays as it
 * is, its next firing included.  It is wrong if the rule has changed, or if the
 * clock was wrong: the firing was sent, or its retry is due, at a time that
 * cannot be, or the rule has an earlier time to come.
 */
#include "postgres.h"

#include "access/table.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "shmem/run_queue.h"
#include "sql/send.h"
#include "sql/type_change.h"
#include "tables/place.h"
#include "turn/row_lock.h"
#include "turn/timer.h"
#include "turn/turn.h"
#include "xact/copy_check.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_schedule);
PG_FUNCTION_INFO_V1(dja_unschedule);
PG_FUNCTION_INFO_V1(dja_run_now);
PG_FUNCTION_INFO_V1(dja_pause_timer);
PG_FUNCTION_INFO_V1(dja_resume_timer);

/* Clocks of two servers differ by less, after a failover. */
#define DJA_CLOCKS_DIFFER USECS_PER_MINUTE

/*
 * Returns the timer of this name with its row locked; NULL if there is none.
 */
static DjaTimer *
dja_schedule_find(DjaType *type, text *key, text *name)
{
	Relation	rel = table_open(dja_table_oid(DJA_TIMER_TABLE), RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	DjaTimer   *timer;
	bool		done;

	do
	{
		Snapshot	snapshot;

		timer = dja_timer_find(CStringGetTextDatum(type->name), PointerGetDatum(key), PointerGetDatum(name));
		if (timer == NULL)
			break;
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		done = dja_lock_row(rel, &timer->tid, snapshot, slot, LockTupleNoKeyExclusive);
		UnregisterSnapshot(snapshot);
	} while (!done);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return timer;
}

/*
 * Waits for a transaction that is making a timer of this name, and keeps others
 * from doing so until tag is released.  The caller releases it soon: in a bulk,
 * locks that last to the end of the transaction would fill shared memory, and
 * two bulks would deadlock over them.
 */
static void
dja_schedule_lock_name(DjaType *type, text *key, text *name, LOCKTAG *tag)
{
	Datum		keys[3] = {CStringGetTextDatum(type->name), PointerGetDatum(key), PointerGetDatum(name)};
	TransactionId writer;

	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, dja_table_oid(DJA_TIMER_TABLE),
					   (Oid) hash_combine64(hash_combine64(type->hash, dja_hash_text(key)), dja_hash_text(name)), 0);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		(void) LockAcquire(tag, ShareUpdateExclusiveLock, false, false);
		writer = dja_find_writer(DJA_TIMER_TABLE, DJA_TIMER_PKEY, 3, keys);
		if (!TransactionIdIsValid(writer))
			break;
		LockRelease(tag, ShareUpdateExclusiveLock, false);
		if (dja_turn.actor != NULL)
			dja_row_trouble(TM_BeingModified);	/* a turn waits for nobody */
		XactLockTableWait(writer, NULL, NULL, XLTW_None);
	}
}

/*
 * Waits for the first turn of an actor that has no row yet: that turn has the
 * firing locked.  Returns false if the firing has changed.
 */
static bool
dja_schedule_lock_firing(DjaType *type, text *key, text *name)
{
	DjaTimer   *timer = dja_timer_find(CStringGetTextDatum(type->name), PointerGetDatum(key),
									   PointerGetDatum(name));
	bool		done = true;
	TupleTableSlot *slot;
	DjaMessage *message;
	Snapshot	snapshot;
	Relation	rel;

	if (timer == NULL || timer->message_id == 0 || timer->due_at > dja_clock())
		return true;
	rel = table_open(dja_table_oid(DJA_MESSAGE_TABLE), RowExclusiveLock);
	slot = table_slot_create(rel, NULL);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	message = dja_message_by_id(timer->message_id, snapshot);
	if (message != NULL)
		done = dja_lock_row(rel, &message->tid, snapshot, slot, LockTupleNoKeyExclusive);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return done;
}

/*
 * Returns the timer with its row locked, NULL if there is none.  The actor has no
 * turn until the end of the transaction.
 */
static DjaTimer *
dja_schedule_lock(DjaType *type, text *key, text *name)
{
	dja_require_here(key);
	while (dja_batch_actor(type, key) == NULL &&
		   !dja_actor_locked(type, key, dja_hash_text(key), LockTupleNoKeyExclusive)->exists &&
		   !dja_schedule_lock_firing(type, key, name))
		;
	return dja_schedule_find(type, key, name);
}

/*
 * Is this turn the timer's firing?  Then the end of the turn decides how the
 * timer goes on.
 */
static bool
dja_schedule_is_firing(const DjaTimer *timer)
{
	return dja_turn.message != NULL && timer->message_id == dja_turn.message->id;
}

static DjaTimer *
dja_schedule_require(DjaType *type, text *key, text *name)
{
	DjaTimer   *timer = dja_schedule_lock(type, key, name);

	if (timer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("actor %s \"%s\" has no timer \"%s\"", type->name, text_to_cstring(key),
						text_to_cstring(name))));
	return timer;
}

/*
 * Has the mailbox read from its start: messages behind a firing that is deleted
 * need not wait any more.
 */
static void
dja_schedule_wake(DjaType *type, text *key)
{
	dja_pending_mailbox(type, dja_hash_text(key), DJA_CURSOR_START, 0);
}

static bool
dja_same_column(const DjaTimerArguments *arguments, const DjaTimer *timer, int column)
{
	Datum		a = arguments->values[column - 1];
	Datum		b = timer->values[column - 1];

	if (arguments->nulls[column - 1] || timer->nulls[column - 1])
		return arguments->nulls[column - 1] == timer->nulls[column - 1];
	if (column == DJA_TIMER_PAYLOAD)
		return DatumGetBool(DirectFunctionCall2(jsonb_eq, a, b));
	if (column == DJA_TIMER_EVERY)	/* a month is not 30 days */
		return memcmp(DatumGetIntervalP(a), DatumGetIntervalP(b), sizeof(Interval)) == 0;
	return dja_text_equal(DatumGetTextPP(a), DatumGetTextPP(b));
}

/*
 * Was the timer set by the same rule?  A timer that fires once, after an interval,
 * is never the same.
 */
static bool
dja_same_rule(const DjaTimerArguments *arguments, const DjaTimer *timer)
{
	static const int columns[] = {DJA_TIMER_EVERY, DJA_TIMER_CRON, DJA_TIMER_TIME_ZONE, DJA_TIMER_CATCH_UP};

	for (size_t i = 0; i < lengthof(columns); i++)
		if (!dja_same_column(arguments, timer, columns[i]))
			return false;
	if (arguments->has_at)
		return !timer->nulls[DJA_TIMER_ANCHOR - 1] &&
			DatumGetTimestampTz(timer->values[DJA_TIMER_ANCHOR - 1]) == arguments->at;
	return arguments->after == NULL || !arguments->nulls[DJA_TIMER_EVERY - 1];
}

/*
 * Returns the time from which on a timer may fire next: not before its last
 * firing, if the clock was right then.
 */
static TimestampTz
dja_schedule_from(DjaTimer *timer, TimestampTz now)
{
	TimestampTz last;

	if (timer == NULL || timer->nulls[DJA_TIMER_LAST_FIRED_AT - 1])
		return now;
	last = DatumGetTimestampTz(timer->values[DJA_TIMER_LAST_FIRED_AT - 1]);
	return last > now + DJA_CLOCKS_DIFFER ? now : Max(last, now);
}

/*
 * Was the clock wrong when the next firing was determined?
 */
static bool
dja_schedule_is_wrong(DjaType *type, DjaTimer *timer, TimestampTz now)
{
	DjaMessage *message;
	TimestampTz sent_at;
	DjaRule		rule;

	if (timer->message_id == 0)
		return false;			/* paused: resume() determines it */
	message = dja_message_by_id(timer->message_id, NULL);
	if (message == NULL)
		return true;
	sent_at = DatumGetTimestampTz(message->values[DJA_MSG_SENT_AT - 1]);
	if (sent_at > GetCurrentTimestamp() + DJA_CLOCKS_DIFFER)
		return true;
	if (!message->nulls[DJA_MSG_RETRY_AT - 1] &&
		message->retry_at - now > type->backoff_max + type->backoff_max / 4 + DJA_CLOCKS_DIFFER)
		return true;
	return dja_timer_rule(type, timer->values, timer->nulls, &rule) &&
		timer->due_at > dja_rule_next(&rule, dja_schedule_from(timer, now));
}

/*
 * Returns when a timer that is scheduled fires first.  Firings that it would have
 * had before are not made up for.
 */
static TimestampTz
dja_schedule_first(DjaType *type, DjaTimerArguments *arguments, DjaTimer *before, bool same,
				   TimestampTz now)
{
	TimestampTz due = dja_timer_first(type, arguments, now);
	TimestampTz anchor;
	DjaRule		rule;

	if (!dja_timer_rule(type, arguments->values, arguments->nulls, &rule))
		return due;
	/* it keeps in step with itself */
	if (same && rule.every != NULL && !arguments->has_at)
	{
		anchor = DatumGetTimestampTz(before->values[DJA_TIMER_ANCHOR - 1]);
		if (anchor <= now)
		{
			arguments->values[DJA_TIMER_ANCHOR - 1] = TimestampTzGetDatum(anchor);
			rule.anchor = anchor;
		}
	}
	if (rule.every != NULL && rule.anchor > now)
		return due;
	due = dja_rule_next(&rule, dja_schedule_from(before, now));
	if (due == DT_NOEND)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a timer would fire beyond the end of time")));
	return due;
}

/*
 * schedule(actor_type, actor_key, name, after, payload, every, at, cron,
 * time_zone, catch_up): returns when it fires next.
 */
Datum
dja_schedule(PG_FUNCTION_ARGS)
{
	TimestampTz now = dja_clock();
	DjaTimerArguments arguments;
	DjaType    *type;
	DjaTimer   *before;
	TimestampTz due;
	LOCKTAG		tag;
	text	   *key;
	bool		making;
	bool		same;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("actor type and key of a schedule must not be null")));
	type = dja_require_own_type(PG_GETARG_TEXT_PP(0), "djactor.schedule()");
	key = PG_GETARG_TEXT_PP(1);
	dja_check_key(key, "actor key");
	dja_timer_arguments(fcinfo, 2, type, &arguments);
	arguments.values[DJA_TIMER_TYPE - 1] = CStringGetTextDatum(type->name);
	arguments.values[DJA_TIMER_KEY - 1] = PointerGetDatum(key);
	dja_home_sending();
	dja_type_lock(type->hash, AccessShareLock);
	before = dja_schedule_lock(type, key, DatumGetTextPP(arguments.values[DJA_TIMER_NAME - 1]));

	making = before == NULL;
	if (making)
	{
		dja_schedule_lock_name(type, key, DatumGetTextPP(arguments.values[DJA_TIMER_NAME - 1]), &tag);
		before = dja_schedule_find(type, key, DatumGetTextPP(arguments.values[DJA_TIMER_NAME - 1]));
		if (before != NULL)
		{
			LockRelease(&tag, ShareUpdateExclusiveLock, false);
			making = false;
		}
	}

	same = before != NULL && dja_same_rule(&arguments, before);
	if (same && !dja_schedule_is_wrong(type, before, now))
	{
		if (dja_same_column(&arguments, before, DJA_TIMER_PAYLOAD))
			PG_RETURN_TIMESTAMPTZ(before->due_at);
		if (dja_schedule_is_firing(before))
		{
			before->values[DJA_TIMER_PAYLOAD - 1] = arguments.values[DJA_TIMER_PAYLOAD - 1];
			dja_timer_update(before);
			PG_RETURN_TIMESTAMPTZ(before->due_at);
		}
		due = before->due_at;
		arguments.values[DJA_TIMER_ANCHOR - 1] = before->values[DJA_TIMER_ANCHOR - 1];
		arguments.nulls[DJA_TIMER_ANCHOR - 1] = before->nulls[DJA_TIMER_ANCHOR - 1];
	}
	else
		due = dja_schedule_first(type, &arguments, before, same, now);
	dja_timer_write(arguments.values, arguments.nulls, before, due);
	if (making)
		LockRelease(&tag, ShareUpdateExclusiveLock, false);
	if (before != NULL)
		dja_schedule_wake(type, key);
	PG_RETURN_TIMESTAMPTZ(due);
}

/*
 * unschedule(actor_type, actor_key, name): was there one?
 */
Datum
dja_unschedule(PG_FUNCTION_ARGS)
{
	DjaType    *type = dja_require_own_type(PG_GETARG_TEXT_PP(0), "djactor.unschedule()");
	text	   *key = PG_GETARG_TEXT_PP(1);

	if (!dja_timer_end(dja_schedule_lock(type, key, PG_GETARG_TEXT_PP(2))))
		PG_RETURN_BOOL(false);
	dja_schedule_wake(type, key);
	PG_RETURN_BOOL(true);
}

/*
 * run_now(actor_type, actor_key, name): has a timer fire now, also if it is
 * paused, and returns the id of the message.
 */
Datum
dja_run_now(PG_FUNCTION_ARGS)
{
	DjaType    *type = dja_require_own_type(PG_GETARG_TEXT_PP(0), "djactor.run_now()");
	text	   *key = PG_GETARG_TEXT_PP(1);
	DjaTimer   *timer = dja_schedule_require(type, key, PG_GETARG_TEXT_PP(2));
	int64		id;

	dja_timer_drop_firing(timer->message_id);
	id = dja_timer_send(timer->values, 0, NULL);
	dja_set_column(timer->values, timer->nulls, DJA_TIMER_MESSAGE_ID, Int64GetDatum(id), false);
	timer->values[DJA_TIMER_DUE_AT - 1] = TimestampTzGetDatum(dja_clock());
	dja_timer_update(timer);
	dja_schedule_wake(type, key);
	PG_RETURN_INT64(id);
}

/*
 * pause(actor_type, actor_key, name)
 */
Datum
dja_pause_timer(PG_FUNCTION_ARGS)
{
	DjaType    *type = dja_require_own_type(PG_GETARG_TEXT_PP(0), "djactor.pause()");
	text	   *key = PG_GETARG_TEXT_PP(1);
	DjaTimer   *timer = dja_schedule_require(type, key, PG_GETARG_TEXT_PP(2));

	if (!timer->nulls[DJA_TIMER_PAUSED_AT - 1])
		PG_RETURN_VOID();
	if (!dja_schedule_is_firing(timer))
	{
		dja_timer_drop_firing(timer->message_id);
		timer->nulls[DJA_TIMER_MESSAGE_ID - 1] = true;
	}
	dja_set_column(timer->values, timer->nulls, DJA_TIMER_PAUSED_AT, TimestampTzGetDatum(dja_clock()), false);
	dja_timer_update(timer);
	dja_schedule_wake(type, key);
	PG_RETURN_VOID();
}

/*
 * resume(actor_type, actor_key, name): the timer goes on with its next time.
 */
Datum
dja_resume_timer(PG_FUNCTION_ARGS)
{
	DjaType    *type = dja_require_own_type(PG_GETARG_TEXT_PP(0), "djactor.resume()");
	text	   *key = PG_GETARG_TEXT_PP(1);
	DjaTimer   *timer = dja_schedule_require(type, key, PG_GETARG_TEXT_PP(2));
	DjaRule		rule;

	if (timer->nulls[DJA_TIMER_PAUSED_AT - 1])
		PG_RETURN_VOID();
	timer->nulls[DJA_TIMER_PAUSED_AT - 1] = true;
	if (timer->message_id == 0)
	{
		TimestampTz due = timer->due_at;

		if (dja_timer_rule(type, timer->values, timer->nulls, &rule))
			due = dja_rule_next(&rule, dja_schedule_from(timer, dja_clock()));
		if (due == DT_NOEND)
			due = timer->due_at;
		dja_timer_send_next(timer->values, timer->nulls, due, NULL);
	}
	dja_timer_update(timer);
	PG_RETURN_VOID();
}
