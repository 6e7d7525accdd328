/*
 * windows.c
 *
 * Counting the turns of a rate; see windows.h.
 */
#include "postgres.h"

#include "shmem/shmem.h"
#include "shmem/windows.h"

static inline DjaWindowPart *
dja_window_part(DjaWindow *window, int i)
{
	return &window->parts[(window->first + i) % DJA_WINDOW_PARTS];
}

/*
 * Forgets the turns of more than a period ago.  What seems to have begun later than
 * now did so before the clock was put back.
 */
static void
dja_window_forget(DjaWindow *window, const DjaRate *rate, TimestampTz now)
{
	for (int i = window->nparts - 1; i >= 0 && dja_window_part(window, i)->at > now; i--)
		dja_window_part(window, i)->at = now;
	while (window->nparts > 0 && dja_window_part(window, 0)->at <= now - rate->period)
	{
		window->first = (window->first + 1) % DJA_WINDOW_PARTS;
		window->nparts--;
	}
}

int
dja_window_left(DjaWindow *window, const DjaRate *rate, TimestampTz now, TimestampTz *until)
{
	int			taken = 0;

	dja_assert_locked();
	Assert(rate->turns > 0);
	dja_window_forget(window, rate, now);
	for (int i = 0; i < window->nparts; i++)
		taken += dja_window_part(window, i)->turns;
	if (taken < rate->turns)
		return rate->turns - taken;

	/* after the first parts that leave room, should the rate have fallen */
	for (int i = 0; taken >= rate->turns && i < window->nparts; i++)
	{
		taken -= dja_window_part(window, i)->turns;
		*until = dja_window_part(window, i)->at + rate->period;
	}
	return 0;
}

void
dja_window_take(DjaWindow *window, const DjaRate *rate, TimestampTz now)
{
	int64		together = rate->turns <= DJA_WINDOW_PARTS ? 1 : rate->period / (DJA_WINDOW_PARTS - 1);
	DjaWindowPart *last;

	dja_assert_locked();
	dja_window_forget(window, rate, now);
	last = dja_window_part(window, Max(window->nparts - 1, 0));
	if (window->nparts == 0 || (window->nparts < DJA_WINDOW_PARTS && last->at / together != now / together))
	{
		last = dja_window_part(window, window->nparts++);
		last->turns = 0;
	}
	last->at = now;
	last->turns++;
}

void
dja_window_give_back(DjaWindow *window, TimestampTz since)
{
	dja_assert_locked();
	for (int i = 0; i < window->nparts; i++)
	{
		DjaWindowPart *part = dja_window_part(window, i);

		if (part->at < since || part->turns == 0)
			continue;
		part->turns--;
		return;
	}
}
