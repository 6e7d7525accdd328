/*
 * pace.c
 *
 * The two limits of a type that adapt; see pace.h.
 *
 * They work like congestion control: a conflict halves what was in use, quiet
 * adds a little.  Which of the two a conflict lowers depends on what batches
 * gain.  Short turns gain most of their speed from sharing a transaction.  So as
 * long as several workers run such a type, the number of workers is lowered.
 * Turns that last as long as a commit gain nothing from sharing, but a lot from
 * workers: their batches get smaller.  If only one worker is left, or a session
 * from outside is in the way, only smaller batches help.
 *
 * Both sides notice a conflict, and batches under way may meet more of the same
 * kind.  So a batch that began before a limit was lowered tells nothing new.
 *
 * A long turn says nothing about conflicts, so after one the former size is
 * reached again in few steps.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/guc.h"
#include "shmem/pace.h"
#include "shmem/shmem.h"

#define DJA_PACE_STEP 4			/* turns added after a quiet batch */
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
 * Notes how a batch has ended.  turns: how many it had.  workers: how many run
 * the type.  started: when the batch began.
 */
void
dja_pace_note(DjaPace *pace, DjaPaceEvent event, int turns, int workers,
			  TimestampTz started, TimestampTz now)
{
	dja_assert_locked();
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
