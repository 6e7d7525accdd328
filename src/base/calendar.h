/*
 * calendar.h
 *
 * When something comes again: cron expressions, and periods that count from
 * an anchor.  Computation only: no catalog, no shared memory, no rows.
 */
#ifndef DJA_CALENDAR_H
#define DJA_CALENDAR_H

#include "datatype/timestamp.h"
#include "pgtime.h"

/* A cron expression: each field as a set of bits. */
typedef struct DjaCron
{
	uint64		minutes;
	uint32		hours;
	uint32		days;			/* of the month, 1 to 31 */
	uint32		months;			/* 1 to 12 */
	uint32		weekdays;		/* 0 = Sunday, to 6 */
	bool		last_day;		/* of the month, too */
	bool		both_days;		/* day and weekday must agree; else one of
								 * them does */
	bool		by_the_clock;	/* neither minute nor hour begins with a star:
								 * each time of day once a day */
} DjaCron;

/* When a timer comes again. */
typedef struct DjaRule
{
	const Interval *every;		/* NULL: by cron */
	TimestampTz anchor;			/* of every */
	DjaCron		cron;
	pg_tz	   *zone;
} DjaRule;

/* No interval that somebody gives may be longer. */
#define DJA_MAX_YEARS 1000
#define DJA_YEAR_USEC (365 * USECS_PER_DAY)

#define DJA_CRON_FOREVER PG_INT64_MAX	/* no such time */

extern void dja_cron_parse(const char *expression, DjaCron *cron);
extern int64 dja_cron_wall(const DjaCron *cron, int64 wall);

extern pg_tz *dja_zone_find(const char *name);
extern pg_tz *dja_zone(const char *name);
extern TimestampTz dja_rule_next(const DjaRule *rule, TimestampTz after);
extern int64 dja_rule_count(const DjaRule *rule, TimestampTz due, TimestampTz now);

extern int64 dja_interval_usec(Interval *interval);

/* of an interval that comes again */
extern void dja_check_period(Interval *every);

#endif							/* DJA_CALENDAR_H */
