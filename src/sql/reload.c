/*
 * reload.c
 *
 * reload(): has fresh sessions take over.  It asks the workers of this database
 * to end after their batch.  The launcher hears of each end and starts a new
 * resident.  A worker that is still starting is fresh already.
 */
#include "postgres.h"

#include "fmgr.h"

#include "base/compat.h"
#include "base/guc.h"
#include "shmem/slots.h"

PG_FUNCTION_INFO_V1(dja_reload);

/*
 * Asks the workers whose roles the caller may act for, and returns how many.
 *
 * Rights are looked up without the lock.  A slot that belongs to another worker
 * afterwards is known by its generation.
 */
Datum
dja_reload(PG_FUNCTION_ARGS)
{
	int			stopped = 0;

	dja_require_preload();
	for (int i = 0; i < dja_max_workers; i++)
	{
		DjaWorker  *worker = dja_worker(i);
		uint32		generation;
		bool		ours;
		Oid			role;

		dja_lock();
		generation = worker->generation;
		ours = worker->state != DJA_WORKER_FREE &&
			dja_pool(worker->pool)->database == MyDatabaseId;
		role = dja_pool(worker->pool)->role;
		dja_unlock();
		if (!ours || !dja_can_act_for(role))
			continue;

		dja_lock();
		if (worker->pid != 0 && worker->generation == generation && !worker->stop)
		{
			worker->stop = true;
			dja_wake(worker->procno);
			stopped++;
		}
		dja_unlock();
	}
	PG_RETURN_INT32(stopped);
}
