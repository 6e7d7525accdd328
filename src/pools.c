/*
 * pools.c
 *
 * Which workers run: the launcher looks at the pools, and starts and stops
 * workers for them.
 *
 *   a pool without a	start a resident, when it has something to do, or at all while
 *   resident			there are places
 *   all in long turns	start another one, when there is something to do
 *   pool.wanted		mail waits too long: wake an idle worker of the pool, or start one
 *   no place free		ask the worker that has been idle the longest to make room,
 *						or, for a pool without a resident, the one that has served
 *						the longest: pools take turns
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
#include "compat.h"
#include "guc.h"
#include "held.h"
#include "miscadmin.h"
#include "pools.h"
#include "process.h"
#include "runqueue.h"
#include "slots.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define DJA_BACKOFF_MS 1000
#define DJA_BACKOFF_MAX_MS 60000
#define DJA_QUIET_MS 60000
#define DJA_MAKE_ROOM_MS 200	/* a worker idle for less is not asked to go */
#define DJA_TIME_SLICE_MS 1000	/* nor a busy one that started later */
#define DJA_GOING_MS 1000		/* so long one who was asked to go may take
								 * before another one is asked, too */
#define DJA_SHORT_MS 2000		/* for so long somebody goes without before it
								 * is said */

static BackgroundWorkerHandle **dja_handles;	/* by worker slot */
static uint32 dja_generation = 0;

static void
dja_pool_back_off(DjaPool *pool)
{
	long		ms = DJA_BACKOFF_MS << Min(pool->failures, 6);

	pool->failures++;
	pool->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   Min(ms, DJA_BACKOFF_MAX_MS));
}

/*
 * Sees which workers have ended, or have come to nothing.  True while some are
 * starting.
 */
bool
dja_pools_reap(void)
{
	bool		starting = false;
	pid_t		pid;

	for (int i = 0; i < dja_max_workers; i++)
	{
		if (dja_handles[i] == NULL)
			continue;
		if (GetBackgroundWorkerPid(dja_handles[i], &pid) != BGWH_STOPPED)
		{
			starting |= dja_worker(i)->state == DJA_WORKER_STARTING;
			continue;
		}
		pfree(dja_handles[i]);
		dja_handles[i] = NULL;
		dja_lock();
		if (dja_worker(i)->state == DJA_WORKER_STARTING)
		{
			/* ended before it took its slot */
			dja_worker(i)->state = DJA_WORKER_FREE;
			dja_pool(dja_worker(i)->pool)->workers--;
		}
		dja_unlock();
	}
	return starting;
}

/*
 * Does the pool's database still exist, and its role, with the right to log
 * in?
 */
static bool
dja_pool_alive(DjaPool *pool)
{
	HeapTuple	tuple;
	bool		alive;

	StartTransactionCommand();
	alive = SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(pool->database));
	if (alive)
	{
		tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(pool->role));
		alive = HeapTupleIsValid(tuple);
		if (alive)
			ReleaseSysCache(tuple);
	}
	CommitTransactionCommand();
	return alive;
}

/*
 * Forgets a pool, if it has nothing left; dead, with all its lanes.
 */
static void
dja_discard_pool(int i, bool dead)
{
	Oid			database = dja_pool(i)->database;

	dja_lock();
	while (dead && dja_shared->queue->pool_lanes[i] >= 0)
		dja_lane_free(dja_shared->queue->pool_lanes[i]);
	if (dja_pool(i)->workers == 0 && dja_pool_lane_count(i) == 0)
		dja_pool_free(i);
	dja_unlock();
	if (dead)
		dja_held_forget(database);
}

/*
 * A free worker slot, -1 without.  The lock is held.
 */
static int
dja_free_slot(void)
{
	for (int i = 0; i < dja_max_workers; i++)
		if (dja_worker(i)->state == DJA_WORKER_FREE && dja_handles[i] == NULL)
			return i;
	return -1;
}

/*
 * Starts a worker for a pool in a free slot.
 */
static bool
dja_start_worker(int pool_id)
{
	DjaPool    *pool = dja_pool(pool_id);
	char		name[BGW_MAXLEN];
	uint32		generation = ++dja_generation;
	int			slot;

	dja_lock();

	/*
	 * who wants the database for himself looks for workers under the same
	 * lock
	 */
	slot = dja_database_held(pool->database) ? -1 : dja_free_slot();
	if (slot >= 0)
	{
		DjaWorker  *worker = dja_worker(slot);

		worker->state = DJA_WORKER_STARTING;
		worker->pool = pool_id;
		worker->generation = generation;
		worker->stop = worker->long_turn = false;
		worker->stop_seen = 0;
		worker->message_id = 0;
		worker->actor_type[0] = '\0';
		pool->workers++;
		/* counted as a failure until the worker says otherwise */
		dja_pool_back_off(pool);
	}
	dja_unlock();
	if (slot < 0)
		return false;

	snprintf(name, sizeof(name), "djactor worker");
	if (dja_start_process("dja_worker_main", name, Int32GetDatum(slot), generation,
						  &dja_handles[slot]))
		return true;
	dja_lock();
	dja_worker(slot)->state = DJA_WORKER_FREE;
	pool->workers--;
	pool->failures = 0;
	pool->not_before = 0;
	dja_unlock();
	return false;
}

/*
 * May this worker be asked to make room?  Idle ones at once, so to speak; a
 * busy one when it has had its time.
 */
static bool
dja_may_go(DjaWorker *worker, TimestampTz now)
{
	if (worker->pid == 0)
		return false;
	if (worker->state == DJA_WORKER_IDLE)
		return TimestampTzPlusMilliseconds(worker->since, DJA_MAKE_ROOM_MS) <= now;
	return TimestampTzPlusMilliseconds(worker->started, DJA_TIME_SLICE_MS) <= now;
}

/*
 * Who of two is to go: who has been idle, or who has served, the longest; and
 * last of all somebody in a long turn, of which nobody knows when it ends.
 */
static bool
dja_goes_before(DjaWorker *a, DjaWorker *b)
{
	int			rank_a = a->state == DJA_WORKER_IDLE ? 0 : a->long_turn ? 2 : 1;
	int			rank_b = b->state == DJA_WORKER_IDLE ? 0 : b->long_turn ? 2 : 1;

	if (rank_a != rank_b)
		return rank_a < rank_b;
	return rank_a == 0 ? a->since < b->since : a->started < b->started;
}

/*
 * Is this worker, which was asked to end, about to?  Not if it is in a long
 * turn, or stuck in something else, such as a lock that it waits for.
 */
static bool
dja_is_going(DjaWorker *worker, TimestampTz now)
{
	if (worker->stop_seen == 0)
		worker->stop_seen = now;
	return !worker->long_turn && now < TimestampTzPlusMilliseconds(worker->stop_seen, DJA_GOING_MS);
}

/*
 * Asks a worker to end, for a pool that has nobody, or only if one is idle.  It
 * ends after its batch.
 */
static void
dja_pool_make_room(int pool, bool idle_only, TimestampTz now)
{
	int			chosen = -1;
	bool		asked = false;
	bool		goes = false;

	dja_lock();
	for (int i = 0; i < dja_max_workers; i++)
	{
		DjaWorker  *worker = dja_worker(i);

		if (worker->state == DJA_WORKER_FREE)
			goes |= dja_handles[i] != NULL; /* its process has not been reaped */
		else if (worker->stop)
		{
			asked = true;
			goes |= dja_is_going(worker, now);
		}
		else if (worker->pool != pool && dja_may_go(worker, now) &&
				 (!idle_only || worker->state == DJA_WORKER_IDLE) &&
				 (chosen < 0 || dja_goes_before(worker, dja_worker(chosen))))
			chosen = i;
	}
	/* one is on its way out, or the best to be had has been asked */
	if (goes || (asked && chosen >= 0 && dja_worker(chosen)->long_turn))
		chosen = -1;
	if (chosen >= 0)
	{
		dja_worker(chosen)->stop = true;
		SetLatch(&ProcGlobal->allProcs[dja_worker(chosen)->procno].procLatch);
	}
	dja_unlock();
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
 * Looks at one pool.  Pools with something to do come first: an idle one gets
 * a worker only if none of them went short.  Returns when to look again at the
 * latest.
 */
static TimestampTz
dja_see_to_pool(int i, TimestampTz now, bool idle_ones, bool *short_of_places)
{
	DjaPool    *pool = dja_pool(i);
	TimestampTz again = DJA_NEVER;
	bool		start = false;
	bool		needed = false;
	bool		gone;

	dja_lock();
	gone = dja_pool_lane_count(i) == 0;
	if (dja_pool_has_nobody(i))
	{
		needed = dja_queue_has_work(i, true, now);
		start = !gone && (needed ? !idle_ones :
						  idle_ones && pool->resident < 0 && !*short_of_places && dja_free_slot() >= 0);
		if (!needed)
			again = dja_queue_next_due(i, now);
	}
	else if (pool->wanted)
	{
		pool->wanted = false;
		start = dja_queue_length(i) > 0 && !dja_wake_idle(i) && dja_free_slot() >= 0;
	}
	if (gone && pool->workers > 0)
	{
		/* its types are gone: so may its workers */
		for (int w = 0; w < dja_max_workers; w++)
		{
			DjaWorker  *worker = dja_worker(w);

			if (worker->pool == i && worker->pid != 0 && !worker->stop)
			{
				worker->stop = true;
				SetLatch(&ProcGlobal->allProcs[worker->procno].procLatch);
			}
		}
	}
	dja_unlock();

	if (gone)
	{
		dja_discard_pool(i, false);
		return again;
	}
	if (!start || dja_database_held(pool->database))
		return again;			/* the end of a hold rings */
	if (now < pool->not_before || now < dja_process_not_before())
		return Max(pool->not_before, dja_process_not_before());
	if (pool->workers == 0 && !dja_pool_alive(pool))
	{
		dja_discard_pool(i, true);
		return again;
	}
	if (dja_held(pool->database))
		return again;			/* so does a scout that lifts it */
	if (dja_start_worker(i))
		return again;
	if (needed)
	{
		bool		relief = pool->resident >= 0;

		*short_of_places |= !relief;
		dja_pool_make_room(i, relief, now);
	}
	return Max(TimestampTzPlusMilliseconds(now, DJA_MAKE_ROOM_MS), dja_process_not_before());
}

/*
 * An earlier launcher may have ended between registering a worker and hearing
 * of it.  Its slot is free again; should the worker still come, it finds that
 * the slot is not meant for it.
 */
static void
dja_forget_starting(void)
{
	dja_lock();
	for (int i = 0; i < dja_max_workers; i++)
	{
		DjaWorker  *worker = dja_worker(i);

		if (worker->state != DJA_WORKER_STARTING)
			continue;
		worker->state = DJA_WORKER_FREE;
		dja_pool(worker->pool)->workers--;
	}
	for (int i = 0; i < dja_max_workers; i++)
		dja_generation = Max(dja_generation, dja_worker(i)->generation);
	dja_unlock();
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

/*
 * Looks at all pools: those with something to do in the order in which they
 * have come to wait, then the others.
 */
TimestampTz
dja_see_to_pools(TimestampTz now)
{
	bool		seen[DJA_MAX_POOLS] = {0};
	bool		short_of_places = false;
	TimestampTz again = DJA_NEVER;

	for (;;)
	{
		int			next = -1;

		for (int i = 0; i < DJA_MAX_POOLS; i++)
			if (dja_pool(i)->in_use && !seen[i] &&
				(next < 0 || dja_pool(i)->waits_since < dja_pool(next)->waits_since))
				next = i;
		if (next < 0)
			break;
		seen[next] = true;
		again = Min(again, dja_see_to_pool(next, now, false, &short_of_places));
	}
	dja_report_shortage(short_of_places && now >= dja_process_not_before(), now);
	for (int i = 0; i < DJA_MAX_POOLS; i++)
		if (dja_pool(i)->in_use)
			again = Min(again, dja_see_to_pool(i, now, true, &short_of_places));
	return again;
}

/*
 * The launcher has started.
 */
void
dja_pools_init(MemoryContext context)
{
	dja_handles = MemoryContextAllocZero(context,
										 sizeof(BackgroundWorkerHandle *) * dja_max_workers);
	dja_forget_starting();
}
