/*
 * calendar.c
 *
 * Computes when something recurs in a time zone; see calendar.h.
 *
 * A wall clock that is put forward skips some times of day, and one that is put
 * back shows some of them twice.  Two rules follow from that.  A time of day
 * comes once: at the first moment after it if it does not exist, and the first
 * time if it comes twice.  That holds for cron expressions that name minute and
 * hour, and for periods with days or months.  Cron expressions whose minute or
 * hour begins with a star mean whatever the clock shows.  A time that does not
 * exist is left out, and one that comes twice comes twice, so that a quarter of
 * an hour remains one.  Debian's cron does the same.  A period of hours or less
 * is a span of time, and no clock matters.
 *
 * A period counts from its anchor, not from the last time.  So the 31st comes
 * back after February, and 02:30 after the night that had none.
 *
 * A time on a wall clock is a number of seconds since 1970, or of microseconds
 * since 2000, as if it were UTC.
 */
#include "postgres.h"

#include <math.h>

#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "base/calendar.h"
#include "base/compat.h"

PG_FUNCTION_INFO_V1(dja_sql_cron_next);
PG_FUNCTION_INFO_V1(dja_sql_every_next);

#define DJA_EPOCH_SECS ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

#define DJA_MIN_PERIOD 1000		/* microseconds */

/* Timestamps begin and end in these years, and span so many days. */
#define DJA_YEARS_BC 4800
#define DJA_YEARS_AD 294276
#define DJA_EVERY_MAX 110000000

/* No zone is further from UTC, and no clock was ever changed by more. */
#define DJA_ZONE_MAX (INT64CONST(36) * SECS_PER_HOUR)

/*
 * Converts a moment to seconds since 1970, rounded down.
 */
static int64
dja_to_secs(TimestampTz moment)
{
	int64		secs = moment / USECS_PER_SEC;

	return secs - (secs * USECS_PER_SEC > moment) + DJA_EPOCH_SECS;
}

static TimestampTz
dja_from_secs(int64 secs)
{
	secs -= DJA_EPOCH_SECS;
	if (secs >= END_TIMESTAMP / USECS_PER_SEC || secs <= MIN_TIMESTAMP / USECS_PER_SEC)
		return DT_NOEND;
	return secs * USECS_PER_SEC;
}

/*
 * Returns the length of an interval, cut off at 10,000 years, so that it may be
 * added to any time without an overflow.
 */
int64
dja_interval_usec(Interval *interval)
{
	int64		most = INT64CONST(10000) * DJA_YEAR_USEC;
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day;

	days = Min(Max(days, -most / USECS_PER_DAY), most / USECS_PER_DAY);
	return Min(Max(days * USECS_PER_DAY + Min(Max(interval->time, -most), most), -most), most);
}

/* ---------- zones ---------- */

/*
 * Returns the zone of this name, or NULL.  A number is hours east of UTC, as in
 * the setting TimeZone.
 */
pg_tz *
dja_zone_find(const char *name)
{
	pg_tz	   *zone;
	char	   *end;
	double		hours = strtod(name, &end);

	if (end != name && *end == '\0')
		return fabs(hours) <= 24 ? pg_tzset_offset((long) (-hours * SECS_PER_HOUR)) : NULL;
	zone = strlen(name) <= TZ_STRLEN_MAX ? pg_tzset(name) : NULL;
	return zone != NULL && pg_tz_acceptable(zone) ? zone : NULL;
}

/*
 * Likewise, but raises 22023 if there is no such zone.
 */
pg_tz *
dja_zone(const char *name)
{
	pg_tz	   *zone = dja_zone_find(name);

	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", name),
				 errdetail("It is the value of time_zone."),
				 errhint("pg_timezone_names lists the names.")));
	return zone;
}

/*
 * Returns the offset from UTC at a moment.  *until: when it ends, or
 * DJA_CRON_FOREVER.
 */
static int64
dja_zone_offset(pg_tz *zone, int64 secs, int64 *until)
{
	pg_time_t	t = secs;
	pg_time_t	boundary;
	long int	before = 0;
	long int	after;
	int			isdst;

	if (pg_next_dst_boundary(&t, &before, &isdst, &boundary, &after, &isdst, zone) > 0)
		*until = boundary;
	else
		*until = DJA_CRON_FOREVER;
	return before;
}

/*
 * Returns the moment at which a wall clock shows a time: the first one if there
 * are two, and if there is none the first moment after it.
 */
static int64
dja_zone_moment(pg_tz *zone, int64 wall)
{
	pg_time_t	t = wall - DJA_ZONE_MAX;
	pg_time_t	boundary;
	long int	before = 0;
	long int	after;
	int			isdst;

	if (pg_next_dst_boundary(&t, &before, &isdst, &boundary, &after, &isdst, zone) <= 0 ||
		wall - before < boundary)
		return wall - before;
	if (wall - after >= boundary)
	{
		/* there may be another change shortly afterwards */
		int64		until;
		int64		offset = dja_zone_offset(zone, boundary, &until);

		if (wall - offset < until)
			return wall - offset;
		return Max(wall - dja_zone_offset(zone, until, &boundary), until);
	}
	return boundary;
}

/* ---------- cron ---------- */

/*
 * Returns the next time of an expression that names its times of day.
 */
static int64
dja_cron_by_the_clock(const DjaCron *cron, int64 secs, pg_tz *zone)
{
	int64		until;
	int64		wall = secs + dja_zone_offset(zone, secs, &until) + 1;

	for (;;)
	{
		int64		moment;

		CHECK_FOR_INTERRUPTS();
		wall = dja_cron_wall(cron, wall);
		if (wall == DJA_CRON_FOREVER)
			return DJA_CRON_FOREVER;
		moment = dja_zone_moment(zone, wall);
		if (moment > secs)
			return moment;

		/* it is shown for the second time: go on to a time not shown yet */
		wall = Max(wall + 1, dja_zone_offset(zone, moment, &until) + Min(until, secs));
	}
}

/*
 * Returns the next time of an expression that matches whatever the clock shows.
 */
static int64
dja_cron_as_shown(const DjaCron *cron, int64 secs, pg_tz *zone)
{
	secs++;
	for (;;)
	{
		int64		until;
		int64		offset = dja_zone_offset(zone, secs, &until);
		int64		wall = dja_cron_wall(cron, secs + offset);

		CHECK_FOR_INTERRUPTS();
		if (wall == DJA_CRON_FOREVER || wall - offset < until)
			return wall == DJA_CRON_FOREVER ? wall : wall - offset;

		/*
		 * A change of the clock that is far away cannot show a time again
		 * that was shown before now.  So all moments far before the next time
		 * to be shown can be skipped.
		 */
		if (until - secs > 2 * DJA_ZONE_MAX && wall - DJA_ZONE_MAX > until)
			secs = wall - DJA_ZONE_MAX;
		else
			secs = until;
	}
}

/* ---------- periods ---------- */

/*
 * Raises 22023 for an interval that is no period.
 */
void
dja_check_period(Interval *every)
{
	if (DJA_INTERVAL_INFINITE(every) || every->month < 0 || every->day < 0 || every->time < 0 ||
		dja_interval_usec(every) < DJA_MIN_PERIOD)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("period of a timer must be at least 1 ms"),
				 errdetail("It is the value of every."),
				 errhint("Leave every out for a timer that fires once.")));
	if (dja_interval_usec(every) > DJA_MAX_YEARS * DJA_YEAR_USEC)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("period of a timer must not exceed %d years", DJA_MAX_YEARS),
				 errdetail("It is the value of every.")));
}

static bool
dja_every_is_span(const Interval *every)
{
	return every->month == 0 && every->day == 0;
}

/*
 * Returns the n-th time after the anchor, or DT_NOEND beyond the range of
 * timestamps.
 */
static TimestampTz
dja_every_at(const DjaRule *rule, int64 n)
{
	const Interval *every = rule->every;
	int64		secs = dja_to_secs(rule->anchor);
	int64		until;
	int64		wall;
	int64		date;
	int64		time;
	int64		months;
	int			year;
	int			month;
	int			day;

	if (n == 0)
		return rule->anchor;
	if (dja_every_is_span(every))
	{
		/* the whole range of time does not fit into an int64 */
		uint64		left = (uint64) END_TIMESTAMP - (uint64) rule->anchor;

		if ((uint64) n > (left - 1) / every->time)
			return DT_NOEND;
		return (TimestampTz) ((uint64) rule->anchor + (uint64) n * every->time);
	}
	if (pg_mul_s64_overflow(n, every->time, &time) || time > END_TIMESTAMP)
		return DT_NOEND;

	wall = rule->anchor + dja_zone_offset(rule->zone, secs, &until) * USECS_PER_SEC;
	date = wall / USECS_PER_DAY - (wall % USECS_PER_DAY < 0);
	time += wall - date * USECS_PER_DAY;
	j2date((int) (date + POSTGRES_EPOCH_JDATE), &year, &month, &day);
	if (n > DJA_EVERY_MAX)
		return DT_NOEND;
	months = ((int64) year + DJA_YEARS_BC) * 12 + month - 1 + n * every->month;
	if (months / 12 > DJA_YEARS_AD + DJA_YEARS_BC)
		return DT_NOEND;
	year = (int) (months / 12) - DJA_YEARS_BC;
	month = (int) (months % 12) + 1;
	day = Min(day, day_tab[isleap(year)][month - 1]);
	date = (int64) date2j(year, month, day) - POSTGRES_EPOCH_JDATE + n * every->day;
	if (date > END_TIMESTAMP / USECS_PER_DAY)
		return DT_NOEND;
	if (pg_add_s64_overflow(date * USECS_PER_DAY, time, &wall) || wall >= END_TIMESTAMP)
		return DT_NOEND;

	secs = dja_to_secs(wall);
	until = dja_zone_moment(rule->zone, secs);
	time = dja_from_secs(until);
	if (time == DT_NOEND)
		return DT_NOEND;
	/* a time that does not exist has no fraction either */
	if (until + dja_zone_offset(rule->zone, until, &date) == secs)
		time += wall - dja_from_secs(secs);
	return time;
}

/*
 * Returns how many times the period has come round at a moment, the anchor not
 * counted; -1 before the anchor.
 */
static int64
dja_every_index(const DjaRule *rule, TimestampTz at)
{
	const Interval *every = rule->every;
	uint64		since;
	double		length;
	int64		n;

	if (at < rule->anchor)
		return -1;
	since = (uint64) at - (uint64) rule->anchor;	/* as above */
	if (dja_every_is_span(every))
		return since / every->time;
	length = (every->month * (365.2425 / 12) + every->day) * USECS_PER_DAY + every->time;
	n = (int64) (since / length);
	while (n > 0 && dja_every_at(rule, n) > at)
		n--;
	while (dja_every_at(rule, n + 1) <= at)
		n++;
	return n;
}

/* ---------- rules ---------- */

/*
 * Returns the first time after a moment, or DT_NOEND if there is none.
 */
TimestampTz
dja_rule_next(const DjaRule *rule, TimestampTz after)
{
	int64		next;

	if (rule->every != NULL)
		return dja_every_at(rule, dja_every_index(rule, after) + 1);
	next = rule->cron.by_the_clock ?
		dja_cron_by_the_clock(&rule->cron, dja_to_secs(after), rule->zone) :
		dja_cron_as_shown(&rule->cron, dja_to_secs(after), rule->zone);
	return next == DJA_CRON_FOREVER ? DT_NOEND : dja_from_secs(next);
}

/*
 * Returns how many times lie between two moments: after due, and up to now.
 */
int64
dja_rule_count(const DjaRule *rule, TimestampTz due, TimestampTz now)
{
	int64		count = 0;

	if (now <= due)
		return 0;
	if (rule->every != NULL)
		return dja_every_index(rule, now) - dja_every_index(rule, due);
	while ((due = dja_rule_next(rule, due)) <= now)
		count++;
	return count;
}

/* ---------- in SQL ---------- */

static void
dja_return_times(FunctionCallInfo fcinfo, const DjaRule *rule, TimestampTz after, int count)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	if (count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("count must not be negative")));
	if (TIMESTAMP_NOT_FINITE(after))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("after must be finite")));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < count; i++)
	{
		Datum		value;
		bool		null = false;

		CHECK_FOR_INTERRUPTS();
		after = dja_rule_next(rule, after);
		if (after == DT_NOEND)
			break;
		value = TimestampTzGetDatum(after);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &null);
	}
}

/*
 * cron_next(expression, after, time_zone, count)
 */
Datum
dja_sql_cron_next(PG_FUNCTION_ARGS)
{
	DjaRule		rule = {.every = NULL};

	dja_cron_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &rule.cron);
	rule.zone = dja_zone(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	dja_return_times(fcinfo, &rule, PG_GETARG_TIMESTAMPTZ(1), PG_GETARG_INT32(3));
	return (Datum) 0;
}

/*
 * every_next(every, anchor, after, time_zone, count)
 */
Datum
dja_sql_every_next(PG_FUNCTION_ARGS)
{
	Interval   *every = PG_GETARG_INTERVAL_P(0);
	DjaRule		rule = {.every = every};

	dja_check_period(every);
	rule.anchor = PG_GETARG_TIMESTAMPTZ(1);
	if (TIMESTAMP_NOT_FINITE(rule.anchor))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("anchor must be finite")));
	rule.zone = dja_zone(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	dja_return_times(fcinfo, &rule, PG_GETARG_TIMESTAMPTZ(2), PG_GETARG_INT32(4));
	return (Datum) 0;
}
