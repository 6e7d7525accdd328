/*
 * pools.c
 *
 * Decides which workers run.  The launcher looks at each pool, and starts and
 * stops workers for it by means of places.c:
 *
 *   no resident		start one if the pool has something to do; otherwise if a
 *						place is left over
 *   all in long turns	start another worker if there is something to do
 *   pool.wanted		mail waits too long: wake an idle worker of the pool, or start one
 *   no place free		have one cleared for each pool that waits
 *
 * Pools with something to do get places in the order in which they began to
 * wait.  A worker that has to leave while its mail waits puts its pool behind
 * the others.  So pools take turns, and each gets its own.
 *
 * If a pool's workers fail to start (a role without LOGIN, too many connections),
 * it is tried again after a second, then after two, up to a minute.  If pools have
 * to take turns for two seconds, since djactor.max_workers are all taken, that is
 * logged with a hint, at most once a minute.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "process/places.h"
#include "process/pools.h"
#include "process/start_process.h"
#include "shmem/copy_shmem.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"

#define DJA_QUIET_MS 60000
#define DJA_SHORT_MS 2000		/* how long a pool goes without a worker until
								 * that is logged */

/* What a pool asks for. */
typedef enum DjaWant
{
	DJA_WANTS_PLACE,			/* something is to be done, nobody is there */
	DJA_WANTS_HELP,				/* mail waits too long */
	DJA_WANTS_RESIDENT,			/* nothing is to be done, nobody is there */
	DJA_WANTS_NOTHING
} DjaWant;

/*
 * Do the pool's database and role still exist, and does the database allow
 * connections?  One that does not is treated as dropped.  When it is opened, or the
 * server starts, a scout finds its types again.
 */
static bool
dja_pool_alive(DjaPool *pool)
{
	bool		alive;

	if (!dja_database_is_open(pool->database))
		return false;
	StartTransactionCommand();
	alive = SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(pool->role));
	CommitTransactionCommand();
	return alive;
}

/*
 * Forgets a pool that has neither workers nor type queues.  dead: forgets its
 * type queues first, since its database or role is gone.
 */
static void
dja_discard_pool(int i, bool dead)
{
	Oid			database = dja_pool(i)->database;

	dja_lock();
	while (dead && dja_shared->queue->pool_type_queues[i] >= 0)
		dja_type_queue_free(dja_shared->queue->pool_type_queues[i]);
	if (dja_pool(i)->workers == 0 && dja_pool_type_queue_count(i) == 0)
		dja_pool_free(i);
	dja_unlock();
	if (dead)
		dja_copy_forget(database);
}

/*
 * Has this pool no worker that is its resident, or will be soon?  Then it has no
 * worker at all, or all are in long turns.
 */
static bool
dja_pool_has_nobody(int i)
{
	dja_assert_locked();
	for (int w = 0; w < dja_max_workers; w++)
	{
		DjaWorker  *worker = dja_worker(w);

		if (worker->state == DJA_WORKER_FREE || worker->pool != i || worker->long_turn)
			continue;
		if (worker->state == DJA_WORKER_IDLE && dja_pool(i)->resident != w)
			dja_wake(worker->procno);	/* to become it */
		return false;
	}
	return true;
}

/*
 * Returns what a pool asks for.  Lowers again to when its next mail is due, if it
 * has no worker and nothing to do before.
 */
static DjaWant
dja_look_at_pool(int i, TimestampTz now, TimestampTz *again)
{
	DjaPool    *pool = dja_pool(i);
	DjaWant		want = DJA_WANTS_NOTHING;
	bool		gone;

	dja_lock();
	gone = dja_pool_type_queue_count(i) == 0;
	if (gone)
		(void) dja_stop_workers(pool->database, pool->role, NULL);
	else if (dja_pool_has_nobody(i))
	{
		if (dja_queue_has_work(i, true, now))
			want = DJA_WANTS_PLACE;
		else
		{
			if (pool->resident < 0)
				want = DJA_WANTS_RESIDENT;
			*again = Min(*again, dja_queue_next_due(i, now));
		}
	}
	else if (pool->wanted)
	{
		pool->wanted = false;
		if (dja_queue_length(i) > 0 && !dja_wake_idle(i))
			want = DJA_WANTS_HELP;
	}
	if (want != DJA_WANTS_PLACE)
		pool->waits_since = 0;
	else if (pool->waits_since == 0)
		pool->waits_since = now;
	dja_unlock();

	if (gone)
		dja_discard_pool(i, false);
	return want;
}

/*
 * Starts a worker for a pool.  Returns false if no place, or no process, was free.
 * Returns true without a worker if the pool may not have one now; again is then
 * lowered to when it may, if that is known.
 */
static bool
dja_serve_pool(int i, TimestampTz now, TimestampTz *again)
{
	DjaPool    *pool = dja_pool(i);
	TimestampTz not_before = Max(pool->not_before, dja_process_not_before());

	if (dja_is_locked_out(pool->database))
		return true;			/* the end of the lockout rings */
	if (now < not_before)
	{
		*again = Min(*again, not_before);
		return true;
	}
	if (!dja_pool_alive(pool))
	{
		/* its workers may go on; the end of the last one rings */
		if (pool->workers == 0)
			dja_discard_pool(i, true);
		return true;
	}
	if (dja_copy_is_held(pool->database))
		return true;			/* resume() sends a scout, which rings */
	if (dja_place_take(i))
		return true;
	if (now < dja_process_not_before())
		*again = Min(*again, dja_process_not_before());
	return false;
}

/*
 * Logs that a pool has mail and no worker, since all places are taken.  Places
 * change hands quickly, so that is logged only when it lasts.
 */
static void
dja_report_shortage(bool short_of_places, TimestampTz now)
{
	static TimestampTz since = DJA_NEVER;
	static TimestampTz quiet_until = 0;

	if (!short_of_places)
	{
		since = DJA_NEVER;
		return;
	}
	since = Min(since, now);
	if (now < TimestampTzPlusMilliseconds(since, DJA_SHORT_MS))
		return;
	if (now >= quiet_until)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("djactor.max_workers (%d) are all taken: databases and owners of actor types take turns",
						dja_max_workers),
				 errhint("Increase djactor.max_workers, and max_worker_processes with it.")));
	quiet_until = TimestampTzPlusMilliseconds(now, DJA_QUIET_MS);
}

static int
dja_compare_waiting(const void *a, const void *b)
{
	TimestampTz since_a = dja_pool(*(const int *) a)->waits_since;
	TimestampTz since_b = dja_pool(*(const int *) b)->waits_since;

	return since_a < since_b ? -1 : since_a > since_b;
}

/*
 * Gives places to pools that have something to do and no worker, in the order in
 * which they began to wait, and has places cleared for those that get none.
 * Returns false if a pool without any worker got none.
 */
static bool
dja_give_places(int *pools, int n, TimestampTz now, TimestampTz *again)
{
	bool		waits[DJA_MAX_POOLS] = {0};
	int			without = 0;
	int			reliefs = 0;

	qsort(pools, n, sizeof(int), dja_compare_waiting);
	for (int i = 0; i < n; i++)
	{
		if (dja_serve_pool(pools[i], now, again))
			continue;
		waits[pools[i]] = true;
		if (dja_pool(pools[i])->resident >= 0)
			reliefs++;
		else
			without++;
	}

	/* before the look at the workers: one that goes idle later rings */
	dja_shared->slots->places_wanted = without + reliefs > 0;
	pg_memory_barrier();
	if (without + reliefs > 0)
		*again = Min(*again, dja_places_clear(without, reliefs, waits, now));
	return without == 0;
}

/*
 * Looks at all pools, and serves them: those with mail first.
 */
TimestampTz
dja_see_to_pools(TimestampTz now)
{
	int			pools[DJA_WANTS_NOTHING][DJA_MAX_POOLS];
	int			n[DJA_WANTS_NOTHING] = {0};
	TimestampTz again = DJA_NEVER;
	bool		enough;

	dja_assert_launcher();
	for (int i = 0; i < DJA_MAX_POOLS; i++)
	{
		DjaWant		want = dja_pool(i)->in_use ? dja_look_at_pool(i, now, &again) : DJA_WANTS_NOTHING;

		if (want != DJA_WANTS_NOTHING)
			pools[want][n[want]++] = i;
	}
	enough = dja_give_places(pools[DJA_WANTS_PLACE], n[DJA_WANTS_PLACE], now, &again);
	dja_report_shortage(!enough && now >= dja_process_not_before(), now);
	for (int want = DJA_WANTS_HELP; enough && want < DJA_WANTS_NOTHING; want++)
		for (int i = 0; i < n[want] && dja_place_free(); i++)
			(void) dja_serve_pool(pools[want][i], now, &again);
	return again;
}
