/*
 * rate.c
 *
 * Reads rates.  The grammar is
 *
 *   rate      number "/" [ number ] unit
 *   unit      "s" | "min" | "h" | "hour" | "day"
 *
 * with blanks between any two of these: 100/min, 5/s, 10 / 30 s.
 */
#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/rate.h"

static const char *
dja_skip_blanks(const char *text)
{
	while (*text == ' ')
		text	  ++;
	return text;
}

/*
 * Reads a number, from 0 to limit + 1, which stands for all that are larger.
 */
static int64
dja_rate_number(const char **text, int64 limit)
{
	int64		number = 0;

	for (; **text >='0' && **text <='9'; (*text) ++)
		number = Min(10 * number + (**text -'0'), limit + 1);
	*text = dja_skip_blanks(*text);
	return number;
}

/*
 * Returns how long a unit is, or 0 if it is none.
 */
static int64
dja_rate_unit(const char *text)
{
	static const struct
	{
		const char *name;
		int64		usec;
	}			units[] = {
		{"s", USECS_PER_SEC},
		{"min", USECS_PER_MINUTE},
		{"h", USECS_PER_HOUR},
		{"hour", USECS_PER_HOUR},
		{"day", USECS_PER_DAY},
	};
	int			len = (int) strlen(text);

	while (len > 0 && text[len - 1] == ' ')
		len--;
	for (int i = 0; i < (int) lengthof(units); i++)
		if (len == (int) strlen(units[i].name) && memcmp(text, units[i].name, len) == 0)
			return units[i].usec;
	return 0;
}

const char *
dja_rate_parse(const char *text, DjaRate *rate)
{
	const int64 max_period = DJA_RATE_MAX_DAYS * USECS_PER_DAY;
	int64		turns;
	int64		units = 1;
	int64		unit;

	text = dja_skip_blanks(text);

	if (*text <'0' || *text >'9')
		return "It does not begin with a number.";
	turns = dja_rate_number(&text, DJA_RATE_MAX_TURNS);
	if (*text !='/')
		return "There is no slash after the number.";
	text = dja_skip_blanks(text +1);

	if (*text >='0' && *text <='9')
		units = dja_rate_number(&text, max_period / USECS_PER_SEC);
	unit = dja_rate_unit(text);
	if (unit == 0)
		return "It does not end with a unit of time.";
	if (turns == 0)
		return "No turn would ever begin.";
	if (turns > DJA_RATE_MAX_TURNS)
		return "The number is larger than 1000000.";
	if (units == 0)
		return "The period has no length.";
	if (units > max_period / unit)
		return "The period is longer than 31 days.";
	rate->turns = (int) turns;
	rate->period = units * unit;
	return NULL;
}
