/*
 * calendar.h
 *
 * Computes when something recurs: by cron expressions, and by periods that count
 * from an anchor.  Computation only: no catalog, no shared memory, no rows.
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
	bool		last_day;		/* also on the last day of the month */
	bool		both_days;		/* day and weekday must both match; else one
								 * of them is enough */
	bool		by_the_clock;	/* neither minute nor hour begins with a star:
								 * each time of day once a day */
} DjaCron;

/* When a timer fires again. */
typedef struct DjaRule
{
	const Interval *every;		/* NULL: by cron */
	TimestampTz anchor;			/* of every */
	DjaCron		cron;
	pg_tz	   *zone;
} DjaRule;

/* No interval given by a user may be longer. */
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

/* Raises 22023 for an interval that is no period. */
extern void dja_check_period(Interval *every);

#endif							/* DJA_CALENDAR_H */
