/*
 * places.c
 *
 * The places of workers; see places.h.
 *
 * A place is a slot of slots.h.  Its worker gives it back when it has detached
 * itself, and the next one may start at once.  The end of the old process takes as
 * long as half a start, and goes on beside it.
 *
 * When pools wait and no place is free, workers are asked to end, in this order:
 *
 *   spare			idle, and not its pool's resident; the longest idle first
 *   unused			the pool has nothing to do now; the longest idle first
 *   serving		busy, and has had its slice of time
 *   in a long turn	last, since its end is unknown
 *
 * A worker that goes idle while pools wait rings the launcher, so nothing is
 * polled.
 *
 * A slice of time begins at the end of the worker's first batch, so each serves
 * before it is asked to end.  It is longer where a start costs more, so that
 * starts take a twentieth of the time, unless one takes more than 50 ms.
 */
#include "postgres.h"

#include "postmaster/bgworker.h"

#include "base/guc.h"
#include "process/places.h"
#include "process/start_process.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"

#define DJA_BACKOFF_MS 1000
#define DJA_BACKOFF_MAX_MS 60000
#define DJA_FIRST_MS 10000		/* a worker whose first batch takes longer may
								 * be asked to end */
#define DJA_GOING_MS 1000		/* time for a worker to end before another one
								 * is asked, too */
#define DJA_CLEAR_MS 200		/* between two looks, while pools wait */
#define DJA_MAX_LEAVING 4		/* processes on their way out, beside
								 * djactor.max_workers */

/* In what order workers are asked to end. */
typedef enum DjaStanding
{
	DJA_SPARE,					/* idle, and not the resident */
	DJA_UNUSED,					/* its pool has nothing to do now */
	DJA_SERVING,				/* has had its slice of time */
	DJA_IN_LONG_TURN,
	DJA_STAYS
} DjaStanding;

static BackgroundWorkerHandle **dja_handles;	/* by worker slot */
static BackgroundWorkerHandle *dja_leaving[DJA_MAX_LEAVING];
static DjaStanding *dja_standings;	/* by worker slot */
static uint32 dja_generation = 0;

/* ---------- processes ---------- */

/*
 * Frees the slot of a worker that has not come to take it.
 */
static void
dja_give_slot_back(int slot)
{
	DjaWorker  *worker = dja_worker(slot);

	dja_assert_locked();
	dja_assert_launcher();
	Assert(worker->state == DJA_WORKER_STARTING && worker->pid == 0);
	worker->state = DJA_WORKER_FREE;
	dja_pool(worker->pool)->workers--;
	dja_assert_pool_counts(dja_pool(worker->pool));
}

/*
 * Forgets workers that have ended, and frees the slots of those that ended before
 * they took them.  Returns whether a worker is starting.
 */
bool
dja_places_reap(void)
{
	bool		starting = false;

	dja_assert_launcher();
	for (int i = 0; i < DJA_MAX_LEAVING; i++)
		(void) dja_process_reap(&dja_leaving[i]);
	for (int i = 0; i < dja_max_workers; i++)
	{
		if (dja_process_reap(&dja_handles[i]))
		{
			dja_lock();
			/* has it ended before it took its slot? */
			if (dja_worker(i)->state == DJA_WORKER_STARTING)
				dja_give_slot_back(i);
			dja_unlock();
		}
		else
			starting |= dja_handles[i] != NULL && dja_worker(i)->state == DJA_WORKER_STARTING;
	}
	return starting;
}

bool
dja_places_leaving(void)
{
	for (int i = 0; i < DJA_MAX_LEAVING; i++)
		if (dja_leaving[i] != NULL)
			return true;
	return false;
}

/*
 * Room for the handle of one more process on its way out, or NULL.
 */
static BackgroundWorkerHandle **
dja_leaving_room(void)
{
	for (int i = 0; i < DJA_MAX_LEAVING; i++)
		if (dja_leaving[i] == NULL)
			return &dja_leaving[i];
	return NULL;
}

/* ---------- taking a place ---------- */

/*
 * A free slot, or DJA_NO_SLOT.
 */
static int
dja_free_slot(void)
{
	dja_assert_locked();
	for (int i = 0; i < dja_max_workers; i++)
		if (dja_worker(i)->state == DJA_WORKER_FREE &&
			(dja_handles[i] == NULL || dja_leaving_room() != NULL))
			return i;
	return DJA_NO_SLOT;
}

bool
dja_place_free(void)
{
	bool		free;

	dja_lock();
	free = dja_free_slot() >= 0;
	dja_unlock();
	return free;
}

static void
dja_pool_back_off(DjaPool *pool)
{
	long		ms = DJA_BACKOFF_MS << Min(pool->failures, 6);

	pool->failures++;
	pool->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   Min(ms, DJA_BACKOFF_MAX_MS));
}

/*
 * Starts a worker for a pool in a free slot.  Returns false if there is no slot, if
 * the database is locked out, or if the server has no process.
 */
bool
dja_place_take(int pool_id)
{
	DjaPool    *pool = dja_pool(pool_id);
	uint32		generation = ++dja_generation;
	int			slot;

	dja_assert_launcher();
	dja_lock();

	/* a backend that locks a database out stops workers under this lock */
	slot = dja_is_locked_out(pool->database) ? DJA_NO_SLOT : dja_free_slot();
	if (slot >= 0)
	{
		DjaWorker  *worker = dja_worker(slot);

		Assert(worker->pid == 0);
		worker->state = DJA_WORKER_STARTING;
		worker->pool = pool_id;
		worker->generation = generation;
		worker->stop = worker->long_turn = worker->stalled = false;
		worker->stop_seen = 0;
		worker->serves_since = 0;
		worker->message_id = 0;
		worker->actor_type[0] = '\0';
		pool->workers++;
		dja_assert_pool_counts(pool);
		/* counted as a failure until the worker says otherwise */
		dja_pool_back_off(pool);
	}
	dja_unlock();
	if (slot < 0)
		return false;

	if (dja_handles[slot] != NULL)
	{
		*dja_leaving_room() = dja_handles[slot];
		dja_handles[slot] = NULL;
	}
	if (dja_start_process("dja_worker_main", "djactor worker", Int32GetDatum(slot), generation,
						  dja_places_leaving(), &dja_handles[slot]))
		return true;
	dja_lock();
	dja_give_slot_back(slot);
	pool->failures = 0;
	pool->not_before = 0;
	dja_unlock();
	return false;
}

/* ---------- leaving a place ---------- */

/*
 * When a worker is asked to end, compared with others.  If it stays, again is
 * lowered to when that may change.
 */
static DjaStanding
dja_standing(int i, TimestampTz now, TimestampTz *again)
{
	DjaWorker  *worker = dja_worker(i);
	bool		resident = dja_pool(worker->pool)->resident == i;
	TimestampTz until;

	dja_assert_locked();
	if (worker->pid == 0)
		return DJA_STAYS;
	if (worker->serves_since == 0)
		until = TimestampTzPlusMilliseconds(worker->since, DJA_FIRST_MS);
	else
	{
		bool		idle = worker->state == DJA_WORKER_IDLE;

		if (idle)
			idle = !dja_queue_has_work(worker->pool, resident, now);
		until = TimestampTzPlusMilliseconds(worker->serves_since, worker->slice_ms);
		if (idle)
			until = Min(until, TimestampTzPlusMilliseconds(worker->since, DJA_BREATH_MS));
		if (worker->stalled || (idle && now >= until))
			return resident ? DJA_UNUSED : DJA_SPARE;
	}
	if (now >= until)
		return worker->long_turn ? DJA_IN_LONG_TURN : DJA_SERVING;
	*again = Min(*again, until);
	return DJA_STAYS;
}

/*
 * Is the first of two workers asked to end before the second?
 */
static bool
dja_goes_before(int a, int b)
{
	if (dja_standings[a] != dja_standings[b])
		return dja_standings[a] < dja_standings[b];
	if (dja_standings[a] <= DJA_UNUSED)
		return dja_worker(a)->since < dja_worker(b)->since;
	return dja_worker(a)->serves_since < dja_worker(b)->serves_since;
}

/*
 * Will this worker, which was asked to end, do so soon?  Not if it is in a long
 * turn, or has not ended for a second, since it waits for a lock, say.
 */
static bool
dja_is_going(DjaWorker *worker, TimestampTz now, TimestampTz *again)
{
	TimestampTz until;

	if (worker->stop_seen == 0)
		worker->stop_seen = now;
	if (worker->long_turn)
		return false;
	until = TimestampTzPlusMilliseconds(worker->stop_seen, DJA_GOING_MS);
	if (now < until)
		*again = Min(*again, until);
	return now < until;
}

TimestampTz
dja_places_clear(int pools, int reliefs, const bool *waits, TimestampTz now)
{
	TimestampTz again = TimestampTzPlusMilliseconds(now, DJA_CLEAR_MS);
	int			asked = 0;		/* or gone already */
	int			going = 0;		/* of those: will be gone soon */

	dja_assert_launcher();
	dja_lock();
	for (int i = 0; i < dja_max_workers; i++)
	{
		DjaWorker  *worker = dja_worker(i);

		dja_standings[i] = DJA_STAYS;
		if (worker->state == DJA_WORKER_FREE)
		{
			/* free already, but its successor has no process yet */
			if (dja_handles[i] == NULL && !dja_places_leaving())
				continue;
			asked++;
			going++;
		}
		else if (worker->stop)
		{
			asked++;
			going += dja_is_going(worker, now, &again);
		}
		else if (!waits[worker->pool])
			dja_standings[i] = dja_standing(i, now, &again);
	}
	while (going < pools + reliefs)
	{
		int			chosen = 0;

		for (int i = 1; i < dja_max_workers; i++)
			if (dja_goes_before(i, chosen))
				chosen = i;
		if (dja_standings[chosen] == DJA_STAYS)
			break;
		if (dja_standings[chosen] > DJA_UNUSED && going >= pools)
			break;
		/* enough have been asked already */
		if (dja_standings[chosen] == DJA_IN_LONG_TURN && asked >= pools)
			break;
		going += dja_standings[chosen] != DJA_IN_LONG_TURN;
		asked++;
		dja_standings[chosen] = DJA_STAYS;
		dja_worker(chosen)->stop = true;
		dja_wake(dja_worker(chosen)->procno);
	}
	dja_unlock();
	return again;
}

/* ---------- beginning ---------- */

/*
 * Called once by each launcher, when it starts.  Frees the slots of workers that an
 * earlier launcher has registered and never heard of.  If such a worker still comes,
 * it finds that the slot is not its own.
 */
void
dja_places_init(void)
{
	dja_handles = palloc0(sizeof(BackgroundWorkerHandle *) * dja_max_workers);
	dja_standings = palloc0(sizeof(DjaStanding) * dja_max_workers);
	dja_lock();
	for (int i = 0; i < dja_max_workers; i++)
		if (dja_worker(i)->state == DJA_WORKER_STARTING)
			dja_give_slot_back(i);
	for (int i = 0; i < dja_max_workers; i++)
		dja_generation = Max(dja_generation, dja_worker(i)->generation);
	dja_unlock();
}
