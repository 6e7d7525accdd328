/*
 * worker_view.c
 *
 * Rows of the view djactor.worker: the workers of this database.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "shmem/slots.h"

PG_FUNCTION_INFO_V1(dja_worker_list);

/*
 * worker_list(): one row for each worker of this database.
 */
Datum
dja_worker_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	dja_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < dja_max_workers; i++)
	{
		Datum		values[7] = {0};
		bool		nulls[7] = {0};
		DjaWorker	worker;
		DjaPool		pool;

		dja_lock();
		worker = *dja_worker(i);
		pool = *dja_pool(worker.pool);
		dja_unlock();
		if (worker.state == DJA_WORKER_FREE || pool.database != MyDatabaseId)
			continue;

		values[0] = Int32GetDatum(worker.pid);
		nulls[0] = worker.pid == 0;
		values[1] = ObjectIdGetDatum(pool.role);
		values[2] = CStringGetTextDatum(worker.state == DJA_WORKER_STARTING ? "starting" :
										worker.state == DJA_WORKER_BUSY ? "busy" : "idle");
		values[3] = BoolGetDatum(pool.resident == i);
		nulls[4] = nulls[5] = worker.message_id == 0;
		if (worker.message_id != 0)
			values[4] = CStringGetTextDatum(worker.actor_type);
		values[5] = Int64GetDatum(worker.message_id);
		values[6] = TimestampTzGetDatum(worker.since);
		nulls[6] = worker.since == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
