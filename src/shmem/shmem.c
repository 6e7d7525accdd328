/*
 * shmem.c
 *
 * Requests and sets up shared memory.  The request and startup hooks run again
 * after a crash restart, with new memory.  The old contents were only a hint: the
 * sweep that starts every pool finds the truth in the tables.  Only what crash.c
 * has to know survives, in files.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "shmem/copy_shmem.h"
#include "shmem/crash.h"
#include "shmem/hosts.h"
#include "shmem/prepared_xacts.h"
#include "shmem/progress.h"
#include "shmem/run_queue.h"
#include "shmem/shmem.h"
#include "shmem/slots.h"
#include "shmem/stats.h"
#include "shmem/waiters.h"

DjaShared  *dja_shared = NULL;

static DjaShared dja_shared_local;
static shmem_request_hook_type dja_prev_shmem_request = NULL;
static shmem_startup_hook_type dja_prev_shmem_startup = NULL;

/*
 * The parts of shared memory, each with the functions of its own file.
 */
typedef struct DjaShmemPart
{
	const char *name;
	Size		(*size) (void);
	void		(*setup) (void *memory);
	size_t		where;			/* offset of its pointer in DjaShared */
} DjaShmemPart;

static const DjaShmemPart dja_shmem_parts[] = {
	{"djactor slots", dja_slots_size, dja_slots_setup, offsetof(DjaShared, slots)},
	{"djactor run queue", dja_run_queue_bytes, dja_run_queue_setup, offsetof(DjaShared, queue)},
	{"djactor waiters", dja_waiters_size, dja_waiters_setup, offsetof(DjaShared, waiters)},
	{"djactor stats", dja_stats_size, dja_stats_setup, offsetof(DjaShared, stats)},
	{"djactor crashes", dja_crash_size, dja_crash_setup, offsetof(DjaShared, crashes)},
	{"djactor copies", dja_copies_size, dja_copies_setup, offsetof(DjaShared, copies)},
	{"djactor hosts", dja_hosts_size, dja_hosts_setup, offsetof(DjaShared, hosts)},
	{"djactor progress", dja_progress_size, dja_progress_setup, offsetof(DjaShared, progress)},
	{"djactor prepared", dja_prepared_xacts_size, dja_prepared_xacts_setup, offsetof(DjaShared, prepared)},
};

static void
dja_shmem_request(void)
{
	if (dja_prev_shmem_request)
		dja_prev_shmem_request();
	for (int i = 0; i < (int) lengthof(dja_shmem_parts); i++)
		RequestAddinShmemSpace(dja_shmem_parts[i].size());
	RequestNamedLWLockTranche("djactor", 1);
}

static void
dja_shmem_startup(void)
{
	if (dja_prev_shmem_startup)
		dja_prev_shmem_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	dja_shared_local.lock = &GetNamedLWLockTranche("djactor")->lock;
	for (int i = 0; i < (int) lengthof(dja_shmem_parts); i++)
	{
		const DjaShmemPart *part = &dja_shmem_parts[i];
		bool		found;
		void	   *memory = ShmemInitStruct(part->name, part->size(), &found);

		if (!found)
			part->setup(memory);
		*(void **) ((char *) &dja_shared_local + part->where) = memory;
	}
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
 * Raises 55000 if the library was loaded too late to share memory with the
 * workers: then no worker would know of a message.
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
