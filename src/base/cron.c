/*
 * cron.c
 *
 * Cron expressions: their five fields as sets of bits, and the next time on a
 * wall clock that is never changed.  calendar.c handles clocks that are.
 *
 * The syntax is that of Debian's cron: a field is a list of *, numbers, names and
 * ranges, each with an optional step.  If neither of the two fields for days
 * begins with a star, it is enough that one of them matches; else both have to.
 * L is the last day of a month.  An expression that can never come true is
 * refused.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "utils/datetime.h"

#include "base/calendar.h"

#define DJA_CRON_MAX 1000		/* bytes of an expression */
#define DJA_CRON_YEARS 294276	/* the last year of a timestamp */

typedef enum DjaCronField
{
	DJA_CRON_MINUTE,
	DJA_CRON_HOUR,
	DJA_CRON_DAY,
	DJA_CRON_MONTH,
	DJA_CRON_WEEKDAY,
	DJA_CRON_FIELDS
} DjaCronField;

static const struct
{
	const char *name;
	int			min;
	int			max;
	const char *names;			/* three letters each, from min on */
}			dja_cron_fields[DJA_CRON_FIELDS] = {
	{"minute", 0, 59, NULL},
	{"hour", 0, 23, NULL},
	{"day of month", 1, 31, NULL},
	{"month", 1, 12, "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"},
	{"day of week", 0, 7, "SUNMONTUEWEDTHUFRISAT"}
};

static const struct
{
	const char *name;
	const char *means;
}			dja_cron_nicknames[] = {
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"}
};

/* A field while it is read. */
typedef struct DjaCronReader
{
	const char *expression;
	DjaCronField field;
	const char *at;
	const char *end;
} DjaCronReader;

static void
dja_cron_refuse(DjaCronReader *reader, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid cron expression \"%s\"", reader->expression),
			 errdetail("Field \"%s\": %s", dja_cron_fields[reader->field].name, detail),
			 errhint("%s", hint)));
}

static const char *
dja_cron_range_hint(DjaCronField field)
{
	return psprintf("A value of this field is between %d and %d%s.",
					dja_cron_fields[field].min, dja_cron_fields[field].max,
					field == DJA_CRON_MONTH ? ", or a name such as JAN" :
					field == DJA_CRON_WEEKDAY ? " (0 and 7 are Sunday), or a name such as MON" : "");
}

/*
 * Reads a number.  Raises 22023 if there is none.
 */
static int
dja_cron_number(DjaCronReader *reader)
{
	int			number = 0;
	const char *start = reader->at;

	while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9' && number < 10000)
		number = 10 * number + (*reader->at++ - '0');
	if (reader->at == start)
		dja_cron_refuse(reader, reader->at == reader->end ? "a value is missing." :
						psprintf("\"%.*s\" is no value.", (int) (reader->end - start), start),
						dja_cron_range_hint(reader->field));
	return number;
}

static int
dja_cron_value(DjaCronReader *reader)
{
	const char *names = dja_cron_fields[reader->field].names;
	int			min = dja_cron_fields[reader->field].min;
	int			max = dja_cron_fields[reader->field].max;
	int			value = min;

	for (; names != NULL && *names != '\0' && reader->end - reader->at >= 3; names += 3, value++)
		if (pg_strncasecmp(reader->at, names, 3) == 0)
		{
			reader->at += 3;
			return value;
		}
	value = dja_cron_number(reader);
	if (value < min || value > max)
		dja_cron_refuse(reader, psprintf("%d is out of range.", value),
						dja_cron_range_hint(reader->field));
	return value;
}

/*
 * Reads one part of a list, up to its end: *, a value or a range, with or without
 * a step.
 */
static uint64
dja_cron_part(DjaCronReader *reader)
{
	int			max = dja_cron_fields[reader->field].max;
	int			first = dja_cron_fields[reader->field].min;
	int			last = max;
	int			step = 1;
	bool		single = false;
	uint64		set = 0;

	if (reader->at < reader->end && *reader->at == '*')
		reader->at++;
	else
	{
		first = last = dja_cron_value(reader);
		single = true;
		if (reader->at < reader->end && *reader->at == '-')
		{
			reader->at++;
			last = dja_cron_value(reader);
			single = false;
			if (last < first)
				dja_cron_refuse(reader, psprintf("the range from %d to %d is empty.", first, last),
								"A range does not pass the end of its field: write two, with a comma between them.");
		}
	}
	if (reader->at < reader->end && *reader->at == '/')
	{
		int			values = max - dja_cron_fields[reader->field].min + 1;

		if (reader->field == DJA_CRON_WEEKDAY)
			values = 7;
		reader->at++;
		step = dja_cron_number(reader);
		if (step < 1 || step > values)
			dja_cron_refuse(reader, psprintf("a step of %d is out of range.", step),
							psprintf("A step of this field is between 1 and %d, and begins anew with each %s; for a period of another length use every.",
									 values, reader->field == DJA_CRON_MINUTE ? "hour" :
									 reader->field == DJA_CRON_HOUR ? "day" :
									 reader->field == DJA_CRON_DAY ? "month" :
									 reader->field == DJA_CRON_MONTH ? "year" : "week"));
		if (single)
			last = max;
	}
	if (reader->at < reader->end)
		dja_cron_refuse(reader, psprintf("\"%.*s\" is not understood.", (int) (reader->end - reader->at), reader->at),
						"A field is a list of *, values and ranges such as 1-5, each of which may have a step such as */2.");
	for (int i = first; i <= last; i += step)
		set |= UINT64CONST(1) << i;
	return set;
}

/*
 * Reads a field, which is a list.
 */
static uint64
dja_cron_set(DjaCronReader *reader, bool *last_day)
{
	const char *end = reader->end;
	uint64		set = 0;

	for (;;)
	{
		const char *comma = memchr(reader->at, ',', end - reader->at);

		reader->end = comma != NULL ? comma : end;
		if (reader->field == DJA_CRON_DAY && reader->end - reader->at == 1 &&
			(*reader->at == 'L' || *reader->at == 'l'))
			*last_day = true;
		else
			set |= dja_cron_part(reader);
		if (comma == NULL)
			return set;
		reader->at = comma + 1;
	}
}

/*
 * Splits an expression into its fields, and returns how many it has.
 */
static int
dja_cron_split(const char *expression, DjaCronReader *readers)
{
	const char *at = expression;
	int			n = 0;

	for (;;)
	{
		at += strspn(at, " \t");
		if (*at == '\0')
			return n;
		if (n < DJA_CRON_FIELDS)
		{
			readers[n].field = n;
			readers[n].at = at;
			readers[n].end = at + strcspn(at, " \t");
		}
		n++;
		at += strcspn(at, " \t");
	}
}

static const char *
dja_cron_meaning(const char *expression)
{
	const char *start = expression + strspn(expression, " \t");
	int			len = (int) strcspn(start, " \t");

	if (*start != '@')
		return expression;
	for (size_t i = 0; i < lengthof(dja_cron_nicknames); i++)
		if ((int) strlen(dja_cron_nicknames[i].name) == len &&
			pg_strncasecmp(start, dja_cron_nicknames[i].name, len) == 0 &&
			start[len + strspn(start + len, " \t")] == '\0')
			return dja_cron_nicknames[i].means;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid cron expression \"%s\"", expression),
			 errdetail("There is no such nickname."),
			 errhint("There are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly; for a period use every.")));
}

/*
 * Reads an expression.  Raises 22023, and names the field.
 */
void
dja_cron_parse(const char *expression, DjaCron *cron)
{
	static const int longest[] = {0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	DjaCronReader readers[DJA_CRON_FIELDS];
	uint64		sets[DJA_CRON_FIELDS];
	bool		stars[DJA_CRON_FIELDS];
	int			n;

	if (strlen(expression) > DJA_CRON_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cron expression is longer than %d bytes", DJA_CRON_MAX)));
	memset(cron, 0, sizeof(DjaCron));
	n = dja_cron_split(dja_cron_meaning(expression), readers);
	if (n != DJA_CRON_FIELDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid cron expression \"%s\"", expression),
				 errdetail("It has %d fields instead of 5.", n),
				 errhint("The fields are minute, hour, day of month, month, and day of week; there are none for seconds or years.")));
	for (int i = 0; i < DJA_CRON_FIELDS; i++)
	{
		readers[i].expression = expression;
		stars[i] = *readers[i].at == '*';
		sets[i] = dja_cron_set(&readers[i], &cron->last_day);
	}
	cron->minutes = sets[DJA_CRON_MINUTE];
	cron->hours = (uint32) sets[DJA_CRON_HOUR];
	cron->days = (uint32) sets[DJA_CRON_DAY];
	cron->months = (uint32) sets[DJA_CRON_MONTH];
	cron->weekdays = (uint32) ((sets[DJA_CRON_WEEKDAY] | sets[DJA_CRON_WEEKDAY] >> 7) & 0x7F);
	cron->both_days = stars[DJA_CRON_DAY] || stars[DJA_CRON_WEEKDAY];
	cron->by_the_clock = !stars[DJA_CRON_MINUTE] && !stars[DJA_CRON_HOUR];

	/* each date falls on each day of the week in some year */
	if (!cron->both_days || cron->last_day)
		return;
	for (int month = 1; month <= 12; month++)
		if ((cron->months >> month & 1) && (cron->days & ((UINT64CONST(2) << longest[month]) - 1)) != 0)
			return;
	dja_cron_refuse(&readers[DJA_CRON_DAY], "none of these months has such a day, so the expression never comes true.",
					"L is the last day of a month.");
}

/* ---------- the next time ---------- */

/*
 * Returns the days of a month that match, as bits.
 */
static uint32
dja_cron_days(const DjaCron *cron, int year, int month)
{
	int			length = day_tab[isleap(year)][month - 1];
	int			weekday = j2day(date2j(year, month, 1));	/* 0 = Sunday */
	uint64		all = ((UINT64CONST(2) << length) - 1) & ~UINT64CONST(1);
	uint64		days = cron->days;
	uint64		weeks = cron->weekdays;

	if (cron->last_day)
		days |= UINT64CONST(1) << length;
	/* bit 1 is the first of the month */
	weeks |= weeks << 7 | weeks << 14 | weeks << 21 | weeks << 28 | weeks << 35;
	weeks = (weeks >> weekday) << 1;
	return (uint32) ((cron->both_days ? days & weeks : days | weeks) & all);
}

/*
 * Returns the lowest member of a set that is not below from, or -1.
 */
static int
dja_cron_member(uint64 set, int from)
{
	set = from > 63 ? 0 : set >> from << from;
	return set == 0 ? -1 : pg_rightmost_one_pos64(set);
}

/*
 * Returns the first matching time that is not before wall, or DJA_CRON_FOREVER.
 * Times are seconds since 1970 as if the wall clock were UTC.
 */
int64
dja_cron_wall(const DjaCron *cron, int64 wall)
{
	int64		minutes = wall >= 0 ? (wall + 59) / 60 : -(-wall / 60);
	int64		date = minutes >= 0 ? minutes / 1440 : -((1439 - minutes) / 1440);
	int			hour = (int) (minutes - date * 1440) / 60;
	int			minute = (int) (minutes - date * 1440) % 60;
	int			year;
	int			month;
	int			day;

	j2date((int) (date + UNIX_EPOCH_JDATE), &year, &month, &day);
	while (year <= DJA_CRON_YEARS)
	{
		int			m = dja_cron_member(cron->months, month);
		int			d;
		int			h;

		if (m != month)
		{
			day = 1;
			hour = minute = 0;
			year += m < 0;
			month = m < 0 ? 1 : m;
			continue;
		}
		d = dja_cron_member(dja_cron_days(cron, year, month), day);
		if (d < 0)
		{
			day = 1;
			hour = minute = 0;
			month++;			/* 13 is in no set */
			continue;
		}
		if (d > day)
			hour = minute = 0;
		day = d;
		h = dja_cron_member(cron->hours, hour);
		if (h > hour)
			minute = 0;
		if (h >= 0)
		{
			minute = dja_cron_member(cron->minutes, minute);
			if (minute < 0)
			{
				minute = dja_cron_member(cron->minutes, 0);
				h = dja_cron_member(cron->hours, h + 1);
			}
		}
		if (h >= 0)
			return ((int64) date2j(year, month, day) - UNIX_EPOCH_JDATE) * SECS_PER_DAY +
				(int64) h * SECS_PER_HOUR + (int64) minute * SECS_PER_MINUTE;
		day++;					/* the 32nd is in no set */
		hour = minute = 0;
	}
	return DJA_CRON_FOREVER;
}
