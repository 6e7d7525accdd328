/*
 * slots.c
 *
 * The arrays of pools and workers; see slots.h for who writes what.  Latches
 * are reached through the proc array and never kept as pointers, since a process
 * and its latch may be gone at any time: a latch set by mistake is harmless.
 */
#include "postgres.h"

#include "guc.h"
#include "runqueue.h"
#include "slots.h"
#include "storage/proc.h"

DjaWorker  *dja_my_worker = NULL;

Size
dja_slots_size(void)
{
	return MAXALIGN(offsetof(DjaSlots, workers) + sizeof(DjaWorker) * (Size) dja_max_workers);
}

void
dja_slots_setup(DjaSlots *slots)
{
	memset(slots, 0, dja_slots_size());
	slots->launcher_procno = -1;
}

/*
 * The pool of a role in a database, -1 when there is none (and no room for one,
 * if create asks for it).
 */
int
dja_pool_find(Oid database, Oid role, bool create)
{
	int			room = -1;
	DjaPool    *pool;

	for (int i = 0; i < DJA_MAX_POOLS; i++)
	{
		pool = dja_pool(i);
		if (pool->in_use && pool->database == database && pool->role == role)
			return i;
		if (!pool->in_use && room < 0)
			room = i;
	}
	if (!create || room < 0)
		return -1;

	pool = dja_pool(room);
	memset(pool, 0, sizeof(DjaPool));
	pool->in_use = true;
	pool->database = database;
	pool->role = role;
	pool->state = DJA_POOL_ABSENT;
	pool->resident = -1;
	return room;
}

/*
 * Forgets a pool that has neither lanes nor workers any more.
 */
void
dja_pool_free(int pool)
{
	Assert(dja_pool(pool)->workers == 0);
	dja_pool(pool)->in_use = false;
}

/*
 * The resident's latch, NULL without a resident.
 */
Latch *
dja_pool_latch(int pool)
{
	int			resident = dja_pool(pool)->resident;

	if (resident < 0)
		return NULL;
	return &ProcGlobal->allProcs[dja_worker(resident)->procno].procLatch;
}

/*
 * Wakes the launcher.  Takes no lock: a signal handler may call it.
 */
void
dja_ring_launcher(void)
{
	int			procno = dja_shared->slots->launcher_procno;

	if (procno >= 0)
		SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

/*
 * Has the launcher look through the databases again.  Takes no lock.
 */
void
dja_ring_scout(void)
{
	dja_shared->slots->scout_wanted = true;
	dja_ring_launcher();
}
