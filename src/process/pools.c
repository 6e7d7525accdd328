/*
 * pools.c
 *
 * Which workers run: the launcher looks at the pools, and starts and stops
 * workers for them (places.c).
 *
 *   a pool without a	start a resident, when it has something to do, or at all while
 *   resident			there are places
 *   all in long turns	start another one, when there is something to do
 *   pool.wanted		mail waits too long: wake an idle worker of the pool, or start one
 *   no place free		have one cleared for each pool that waits
 *
 * Pools with something to do get places in the order in which they have come
 * to wait, and whoever has to leave with mail waiting comes to wait behind
 * them: so pools take turns, and each gets its own.
 *
 * A pool whose workers do not come to life (role without LOGIN, too many
 * connections) is tried again after a second, then after two, up to a minute.
 * That pools have to take turns since djactor.max_workers are all taken is logged
 * once, with a hint, when it lasts.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "process/places.h"
#include "process/pools.h"
#include "process/start_process.h"
#include "shmem/copy_shmem.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"

#define DJA_QUIET_MS 60000
#define DJA_SHORT_MS 2000		/* for so long somebody goes without before it
								 * is said */

/* What a pool asks for. */
typedef enum DjaWant
{
	DJA_WANTS_PLACE,			/* something is to be done, nobody is there */
	DJA_WANTS_HELP,				/* mail waits too long */
	DJA_WANTS_RESIDENT,			/* nothing is to be done, nobody is there */
	DJA_WANTS_NOTHING
} DjaWant;

/*
 * Do the pool's database and role still exist, and is the database open?  One that
 * is closed is as good as gone until it is opened, which calls for a scout, as does
 * a start of the server.
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
 * Forgets a pool, if it has nothing left; dead, with all its type queues.
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
 * Has this pool nobody who is its resident, or will be soon?  Then all that it
 * has are in long turns.
 */
static bool
dja_pool_has_nobody(int i)
{
	for (int w = 0; w < dja_max_workers; w++)
	{
		DjaWorker  *worker = dja_worker(w);

		if (worker->state == DJA_WORKER_FREE || worker->pool != i || worker->long_turn)
			continue;
		if (worker->state == DJA_WORKER_IDLE && dja_pool(i)->resident != w)
			SetLatch(&ProcGlobal->allProcs[worker->procno].procLatch);	/* to become it */
		return false;
	}
	return true;
}

/*
 * The pool's types are gone: so may its workers.  The lock is held.
 */
static void
dja_pool_dismiss(int i)
{
	for (int w = 0; w < dja_max_workers && dja_pool(i)->workers > 0; w++)
	{
		DjaWorker  *worker = dja_worker(w);

		if (worker->state == DJA_WORKER_FREE || worker->pool != i || worker->pid == 0 ||
			worker->stop)
			continue;
		worker->stop = true;
		SetLatch(&ProcGlobal->allProcs[worker->procno].procLatch);
	}
}

/*
 * Looks at one pool.  If it waits for its time, again is lowered to that.
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
		dja_pool_dismiss(i);
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
 * Starts a worker for a pool, if nothing but a place is wanting; false if that
 * is.  If the pool has to wait for a while, again is lowered to the end of it.
 */
static bool
dja_serve_pool(int i, TimestampTz now, TimestampTz *again)
{
	DjaPool    *pool = dja_pool(i);
	TimestampTz not_before = Max(pool->not_before, dja_process_not_before());

	if (dja_is_locked_out(pool->database))
		return true;			/* the end of a hold rings */
	if (now < not_before)
	{
		*again = Min(*again, not_before);
		return true;
	}
	if (!dja_pool_alive(pool))
	{
		/* who is still in there may go on; the end of the last one rings */
		if (pool->workers == 0)
			dja_discard_pool(i, true);
		return true;
	}
	if (dja_copy_is_held(pool->database))
		return true;			/* so does a scout that lifts it */
	if (dja_place_take(i))
		return true;
	if (now < dja_process_not_before())
		*again = Min(*again, dja_process_not_before());
	return false;
}

/*
 * Some pool has mail and no worker, and all places are taken.  Places change
 * hands quickly, so that is worth a word only when it lasts.
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
 * Gives places to pools that have something to do and nobody, in the order in
 * which they have come to wait, and has places cleared for those who get none.
 * False if somebody went without.
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

	/* before a look at the workers: one that goes idle after it rings */
	dja_shared->slots->places_wanted = without + reliefs > 0;
	pg_memory_barrier();
	if (without + reliefs > 0)
		*again = Min(*again, dja_places_clear(without, reliefs, waits, now));
	return without == 0;
}

/*
 * Looks at all pools, and sees to them: mail goes first.
 */
TimestampTz
dja_see_to_pools(TimestampTz now)
{
	int			pools[DJA_WANTS_NOTHING][DJA_MAX_POOLS];
	int			n[DJA_WANTS_NOTHING] = {0};
	TimestampTz again = DJA_NEVER;
	bool		enough;

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
