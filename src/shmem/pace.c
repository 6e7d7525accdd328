/*
 * pace.c
 *
 * The two limits of a type that adapt; see pace.h.
 *
 * As congestion control does it: a conflict halves what was in use, quiet adds a
 * little.  Which of the two limits a conflict lowers depends on what batches gain.
 * Short turns gain most of their speed from sharing a transaction, so as long as
 * several workers run such a type, it is they who get fewer.  Turns that last as
 * long as a commit gain nothing from it, but a lot from workers: their batches
 * get smaller.  Where one worker is left, or somebody from outside is in the way,
 * only smaller batches help.
 *
 * Both sides of a conflict notice it, and what was under way then may meet more of the
 * kind; but a batch that began before a limit was lowered tells nothing new.
 *
 * A long turn says nothing about conflicts, so after one the former size is
 * reached again in few steps.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/guc.h"
#include "shmem/pace.h"

#define DJA_PACE_STEP 4			/* turns more after a quiet batch */
#define DJA_PACE_WORKER_MS 1000 /* of quiet until another worker is tried */
#define DJA_LIKE_COMMIT_USEC 1000	/* a turn so long gains nothing from a
									 * batch */

static void
dja_pace_slow_down(DjaPace *pace, int turns, int workers, int64 usec, TimestampTz now)
{
	pace->conflicts++;
	pace->lowered_at = now;
	pace->worker_at = TimestampTzPlusMilliseconds(now, DJA_PACE_WORKER_MS);
	if (workers > 1 && usec < (int64) turns * DJA_LIKE_COMMIT_USEC)
		pace->workers = workers / 2;
	else
		pace->turns = pace->threshold = Max(1, turns / 2);
}

static void
dja_pace_speed_up(DjaPace *pace, TimestampTz now)
{
	if (pace->turns > 0)
	{
		if (pace->threshold == 0 || pace->turns < pace->threshold)
			pace->turns *= 2;
		else
			pace->turns += DJA_PACE_STEP;
		if (pace->turns >= dja_batch_size)
			pace->turns = pace->threshold = 0;
	}
	if (pace->workers > 0 && now >= pace->worker_at)
	{
		pace->worker_at = TimestampTzPlusMilliseconds(now, DJA_PACE_WORKER_MS);
		if (++pace->workers >= dja_max_workers)
			pace->workers = 0;
	}
}

/*
 * A batch of so many turns, which began then, has come to its end, while so
 * many workers ran the type.
 */
void
dja_pace_note(DjaPace *pace, DjaPaceEvent event, int turns, int workers,
			  TimestampTz started, TimestampTz now)
{
	switch (event)
	{
		case DJA_PACE_NOTHING:
			break;
		case DJA_PACE_QUIET:
			if (started >= pace->lowered_at)
				dja_pace_speed_up(pace, now);
			break;
		case DJA_PACE_LONG_TURN:
			pace->turns = 1;
			break;
		case DJA_PACE_CONFLICT:
			if (started >= pace->lowered_at)
				dja_pace_slow_down(pace, turns, workers, now - started, now);
			break;
	}
}
