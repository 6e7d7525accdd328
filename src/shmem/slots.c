/*
 * slots.c
 *
 * The arrays of pools and workers; slots.h says which process writes what.
 *
 * Latches are reached through the proc array and never kept as pointers, since a
 * process and its latch may be gone at any time.  A latch set by mistake is harmless.
 */
#include "postgres.h"

#include "storage/proc.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"

DjaWorker  *dja_my_worker = NULL;

Size
dja_slots_size(void)
{
	return MAXALIGN(offsetof(DjaSlots, workers) + sizeof(DjaWorker) * (Size) dja_max_workers);
}

void
dja_slots_setup(void *memory)
{
	DjaSlots   *slots = memory;

	memset(slots, 0, dja_slots_size());
	slots->launcher_procno = DJA_NO_PROC;
}

/*
 * Returns the pool of a role in a database, and makes it if create asks for it.
 * DJA_NO_POOL if there is none, or no room for one.
 */
int
dja_pool_find(Oid database, Oid role, bool create)
{
	int			room = DJA_NO_POOL;
	DjaPool    *pool;

	dja_assert_locked();
	for (int i = 0; i < DJA_MAX_POOLS; i++)
	{
		pool = dja_pool(i);
		if (pool->in_use && pool->database == database && pool->role == role)
			return i;
		if (!pool->in_use && room < 0)
			room = i;
	}
	if (!create || room < 0)
		return DJA_NO_POOL;

	pool = dja_pool(room);
	memset(pool, 0, sizeof(DjaPool));
	pool->in_use = true;
	pool->database = database;
	pool->role = role;
	pool->state = DJA_POOL_ABSENT;
	pool->resident = DJA_NO_SLOT;
	return room;
}

/*
 * Frees a pool that has neither type queues nor workers any more; the launcher's.
 */
void
dja_pool_free(int pool)
{
	dja_assert_locked();
	dja_assert_launcher();
	Assert(dja_pool(pool)->in_use);
	Assert(dja_pool(pool)->workers == 0 && dja_pool(pool)->resident < 0);
	Assert(dja_shared->queue->pool_type_queues[pool] < 0);
	dja_pool(pool)->in_use = false;
}

/*
 * Wakes an idle worker of the pool.  Returns false if none is idle.
 */
bool
dja_wake_idle(int pool)
{
	bool		woken = false;

	dja_assert_locked();
	for (int i = 0; i < dja_max_workers && !woken; i++)
	{
		DjaWorker  *worker = dja_worker(i);

		if (worker->pool == pool && worker->state == DJA_WORKER_IDLE && worker->pid != 0)
		{
			dja_wake(worker->procno);
			woken = true;
		}
	}
	return woken;
}

/*
 * Is this process the resident of its pool?
 */
bool
dja_is_resident(void)
{
	int			resident = dja_my_worker == NULL ? DJA_NO_SLOT : dja_pool(dja_my_worker->pool)->resident;

	dja_assert_locked();
	return resident >= 0 && dja_worker(resident) == dja_my_worker;
}

/*
 * Returns how many workers of a pool are in long turns.
 */
int
dja_long_turns(int pool)
{
	int			n = 0;

	dja_assert_locked();
	for (int i = 0; i < dja_max_workers; i++)
		n += dja_worker(i)->state != DJA_WORKER_FREE && dja_worker(i)->pool == pool &&
			dja_worker(i)->long_turn;
	return n;
}

/*
 * Are all workers of a pool in long turns?  Then none looks at new mail.
 */
static bool
dja_pool_is_stuck(int pool)
{
	return dja_long_turns(pool) >= dja_pool(pool)->workers;
}

/*
 * Wakes a pool that has something new to do: its resident, if that waits; another
 * worker, if the resident is in a long turn; the launcher, if there is no resident.
 */
void
dja_wake_pool(int pool)
{
	int			resident = dja_pool(pool)->resident;

	dja_assert_locked();
	Assert(dja_pool(pool)->in_use);
	Assert((dja_pool(pool)->state == DJA_POOL_ABSENT) == (resident < 0));
	switch (dja_pool(pool)->state)
	{
		case DJA_POOL_BUSY:
			if (resident < 0 || !dja_worker(resident)->long_turn || dja_wake_idle(pool) ||
				dja_pool(pool)->wanted || !dja_pool_is_stuck(pool))
				break;
			dja_pool(pool)->wanted = true;
			dja_ring_launcher();
			break;
		case DJA_POOL_ABSENT:
			/* as long as places are wanted the launcher looks by itself */
			if (dja_pool(pool)->waits_since != 0 && dja_shared->slots->places_wanted)
				break;
			if (dja_pool(pool)->waits_since == 0)
				dja_pool(pool)->waits_since = GetCurrentTimestamp();
			dja_ring_launcher();
			break;
		case DJA_POOL_LINGERING:
		case DJA_POOL_ASLEEP:
			Assert(dja_worker(resident)->pool == pool && dja_worker(resident)->pid != 0);
			dja_wake(dja_worker(resident)->procno);
			break;
	}
}

/*
 * Asks the workers of a database, of a role, or of all (InvalidOid) to end.  Stores
 * their pids in pids, which is NULL or has room for djactor.max_workers, and returns
 * how many there are.
 */
int
dja_stop_workers(Oid database, Oid role, int *pids)
{
	int			n = 0;

	dja_assert_locked();
	for (int i = 0; i < dja_max_workers; i++)
	{
		DjaWorker  *worker = dja_worker(i);

		if (worker->state == DJA_WORKER_FREE ||
			(OidIsValid(database) && dja_pool(worker->pool)->database != database) ||
			(OidIsValid(role) && dja_pool(worker->pool)->role != role))
			continue;
		worker->stop = true;
		if (worker->pid == 0)
			continue;			/* starting: it sees stop when it gets there */
		dja_wake(worker->procno);
		if (pids != NULL)
			pids[n] = worker->pid;
		n++;
	}
	return n;
}

/*
 * Wakes the launcher.  Takes no lock, so a signal handler may call it.
 */
void
dja_ring_launcher(void)
{
	int			procno = dja_shared->slots->launcher_procno;

	if (procno >= 0)
		dja_wake(procno);
}

/*
 * Has the worker that runs a message, if there is one, break its turn off at the next
 * tick of its clock (turn_timeout.c).  Returns whether there is one.
 */
bool
dja_worker_cancel(Oid database, int64 message_id)
{
	dja_assert_locked();
	for (int i = 0; i < dja_max_workers; i++)
	{
		DjaWorker  *worker = dja_worker(i);

		if (worker->state != DJA_WORKER_BUSY || worker->message_id != message_id ||
			dja_pool(worker->pool)->database != database)
			continue;
		worker->cancel_id = message_id;
		return true;
	}
	return false;
}
