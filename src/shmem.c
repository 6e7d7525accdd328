/*
 * shmem.c
 *
 * Requests and sets up shared memory.  The request and startup hooks run again
 * after a crash restart, with memory that is all new: whatever stood there was
 * a hint, and the sweep that starts every pool finds the truth in the tables.
 * Only what crash.c has to know outlives it, in files.
 */
#include "postgres.h"

#include "crash.h"
#include "held.h"
#include "miscadmin.h"
#include "runqueue.h"
#include "shmem.h"
#include "slots.h"
#include "stats.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "waiters.h"

DjaShared  *dja_shared = NULL;

static DjaShared dja_shared_local;
static shmem_request_hook_type dja_prev_shmem_request = NULL;
static shmem_startup_hook_type dja_prev_shmem_startup = NULL;

static void
dja_shmem_request(void)
{
	if (dja_prev_shmem_request)
		dja_prev_shmem_request();
	RequestAddinShmemSpace(dja_slots_size());
	RequestAddinShmemSpace(dja_runqueue_size());
	RequestAddinShmemSpace(dja_waiters_size());
	RequestAddinShmemSpace(dja_stats_size());
	RequestAddinShmemSpace(dja_crash_size());
	RequestAddinShmemSpace(dja_held_size());
	RequestNamedLWLockTranche("djactor", 1);
}

static void
dja_shmem_startup(void)
{
	bool		found;

	if (dja_prev_shmem_startup)
		dja_prev_shmem_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	dja_shared_local.lock = &GetNamedLWLockTranche("djactor")->lock;
	dja_shared_local.slots = ShmemInitStruct("djactor slots", dja_slots_size(), &found);
	if (!found)
		dja_slots_setup(dja_shared_local.slots);
	dja_shared_local.queue = ShmemInitStruct("djactor run queue", dja_runqueue_size(), &found);
	if (!found)
		dja_runqueue_setup(dja_shared_local.queue);
	dja_shared_local.waiters = ShmemInitStruct("djactor waiters", dja_waiters_size(), &found);
	if (!found)
		dja_waiters_setup(dja_shared_local.waiters);
	dja_shared_local.stats = ShmemInitStruct("djactor stats", dja_stats_size(), &found);
	if (!found)
		dja_stats_setup(dja_shared_local.stats);
	dja_shared_local.crashes = ShmemInitStruct("djactor crashes", dja_crash_size(), &found);
	if (!found)
		dja_crash_setup(dja_shared_local.crashes);
	dja_shared_local.held = ShmemInitStruct("djactor held", dja_held_size(), &found);
	if (!found)
		dja_held_setup(dja_shared_local.held);
	LWLockRelease(AddinShmemInitLock);
	dja_shared = &dja_shared_local;
}

void
dja_shmem_init(void)
{
	dja_prev_shmem_request = shmem_request_hook;
	shmem_request_hook = dja_shmem_request;
	dja_prev_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = dja_shmem_startup;
}

/*
 * Raises 55000 when the library was loaded too late to share memory with the
 * workers: a message would lie there and nobody would know.
 */
void
dja_require_preload(void)
{
	if (dja_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("djactor is not loaded by the server"),
				 errdetail("The library djactor is missing from shared_preload_libraries, so no worker would handle the message."),
				 errhint("Add djactor to shared_preload_libraries and restart the server.")));
}
