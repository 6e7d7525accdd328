/*
 * timer.h
 *
 * Named durable timers of actors.
 */
#ifndef DJA_TIMER_H
#define DJA_TIMER_H

#include "fmgr.h"

#include "base/calendar.h"
#include "tables/message.h"

/* A row of djactor.timer, copied. */
typedef struct DjaTimer
{
	ItemPointerData tid;
	Datum		values[DJA_TIMER_NATTS];
	bool		nulls[DJA_TIMER_NATTS];
	int64		message_id;		/* 0 = paused */
	TimestampTz due_at;
} DjaTimer;

/* A timer, as the arguments of set_timer() describe it. */
typedef struct DjaTimerArguments
{
	Datum		values[DJA_TIMER_NATTS];
	bool		nulls[DJA_TIMER_NATTS];
	Interval   *after;			/* NULL = none */
	bool		has_at;
	TimestampTz at;
} DjaTimerArguments;

/* the firing of a timer, in a batch */
extern bool dja_timer_fires(DjaMessage *message, TimestampTz now);
extern bool dja_timer_skipped(DjaMessage *message, TimestampTz now);
extern void dja_timer_done(DjaMessage *message, const char *outcome);
extern void dja_timer_cancelled(DjaMessage *message);
extern void dja_timers_drop(DjaType *type, text *key);

/* to set a timer, in this order */
extern void dja_timer_arguments(FunctionCallInfo fcinfo, int base, DjaType *type,
								DjaTimerArguments *arguments);
extern TimestampTz dja_timer_first(DjaType *type, DjaTimerArguments *arguments, TimestampTz now);
extern DjaTimer *dja_timer_find(Datum actor_type, Datum actor_key, Datum name);
extern bool dja_timer_rule(DjaType *type, const Datum *values, const bool *nulls, DjaRule *rule);
extern void dja_timer_write(Datum *values, bool *nulls, DjaTimer *before, TimestampTz due);
extern int64 dja_timer_send(const Datum *values, TimestampTz due, DjaMessage *origin);
extern void dja_timer_drop_firing(int64 id);

/* to change or end one */
extern void dja_timer_send_next(Datum *values, bool *nulls, TimestampTz due, DjaMessage *origin);
extern void dja_timer_update(DjaTimer *timer);
extern bool dja_timer_end(DjaTimer *timer);

#endif							/* DJA_TIMER_H */
