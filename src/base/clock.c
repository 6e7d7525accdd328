/*
 * clock.c
 *
 * The clock of actors; see clock.h.  A caller that moves it has to put it back,
 * also after an error.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"

PG_FUNCTION_INFO_V1(dja_now);

static TimestampTz dja_moved_to = 0;	/* 0 = not moved */

TimestampTz
dja_clock(void)
{
	return dja_moved_to != 0 ? dja_moved_to : GetCurrentTimestamp();
}

void
dja_clock_move(TimestampTz to)
{
	dja_moved_to = to;
}

void
dja_clock_reset(void)
{
	dja_moved_to = 0;
}

/*
 * now(): the time for a handler.
 */
Datum
dja_now(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(dja_clock());
}
