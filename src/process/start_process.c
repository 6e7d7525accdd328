/*
 * start_process.c
 *
 * Starting background processes, for the launcher alone; see start_process.h.
 *
 * When the server has no slot left for a process, nothing is started for a
 * second.  That is logged with a hint, at most once a minute.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "postmaster/bgworker.h"
#include "utils/fmgroids.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "process/start_process.h"

#define DJA_BACKOFF_MS 1000
#define DJA_QUIET_MS 60000

static TimestampTz dja_exhausted_until = 0; /* logged; not again before */
static TimestampTz dja_not_before = 0;

/*
 * The time before which nothing should be started.
 */
TimestampTz
dja_process_not_before(void)
{
	return dja_not_before;
}

/*
 * Has this process ended?  If so, forgets its handle, and notes that the server has a
 * slot for another one.
 */
bool
dja_process_reap(BackgroundWorkerHandle **handle)
{
	pid_t		pid;

	if (*handle == NULL || GetBackgroundWorkerPid(*handle, &pid) != BGWH_STOPPED)
		return false;
	pfree(*handle);
	*handle = NULL;
	dja_not_before = 0;
	return true;
}

/*
 * Can a process connect to this database?
 */
bool
dja_database_open(Form_pg_database database)
{
	return database->datallowconn && database->datconnlimit != DATCONNLIMIT_INVALID_DB;
}

/*
 * Likewise for a database by OID; false if it does not exist.
 *
 * ALTER DATABASE ... ALLOW_CONNECTIONS rings the launcher while it commits, and the
 * caches hear of it after that.  A database that was opened must not be taken for
 * closed, since its mail would be forgotten.  So if the cache says closed, the
 * catalog itself is read.
 */
bool
dja_database_is_open(Oid database)
{
	HeapTuple	tuple;
	bool		open;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	open = HeapTupleIsValid(tuple) && dja_database_open((Form_pg_database) GETSTRUCT(tuple));
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (!open)
	{
		Relation	databases = table_open(DatabaseRelationId, AccessShareLock);
		SysScanDesc scan;
		ScanKeyData key;

		ScanKeyInit(&key, Anum_pg_database_oid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(database));
		scan = systable_beginscan(databases, DatabaseOidIndexId, true, NULL, 1, &key);
		tuple = systable_getnext(scan);
		open = HeapTupleIsValid(tuple) && dja_database_open((Form_pg_database) GETSTRUCT(tuple));
		systable_endscan(scan);
		table_close(databases, AccessShareLock);
	}
	CommitTransactionCommand();
	return open;
}

/*
 * Fills in what all processes of djactor have in common.
 */
void
dja_process_describe(BackgroundWorker *worker, const char *function, const char *name,
					 int restart_time)
{
	memset(worker, 0, sizeof(BackgroundWorker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = restart_time;
	strlcpy(worker->bgw_library_name, "djactor", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_name, name, sizeof(worker->bgw_name));
	strlcpy(worker->bgw_type, name, sizeof(worker->bgw_type));
}

/*
 * Registers a background process.  Returns false if the server has no slot for
 * it.  leaving: one of ours is on its way out; then that is not logged, since its
 * end rings.
 */
bool
dja_start_process(const char *function, const char *name, Datum arg, uint32 generation,
				  bool leaving, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;
	bool		ok;

	dja_process_describe(&worker, function, name, BGW_NEVER_RESTART);
	worker.bgw_main_arg = arg;
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, &generation, sizeof(generation));

	ok = RegisterDynamicBackgroundWorker(&worker, handle);
	if (!ok && !leaving)
	{
		TimestampTz now = GetCurrentTimestamp();

		/* once, until there has been room for a while */
		if (now >= dja_exhausted_until)
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("djactor cannot start a process: no background worker slot is free"),
					 errdetail("Mail waits until one is."),
					 errhint("Increase max_worker_processes, or lower djactor.max_workers.")));
		dja_exhausted_until = TimestampTzPlusMilliseconds(now, DJA_QUIET_MS);
		dja_not_before = TimestampTzPlusMilliseconds(now, DJA_BACKOFF_MS);
	}
	return ok;
}
