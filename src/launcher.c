/*
 * launcher.c
 *
 * Decides which processes run.  One launcher runs in a server that is not in
 * recovery; it waits on its latch and looks at shared memory when rung:
 *
 *   scout_wanted		databases came or may have: send a scout to each, one at a time
 *   a pool without a	start a resident, when it has something to do, or at all while
 *   resident			there are places
 *   pool.wanted		mail waits too long: wake an idle worker of the pool, or start one
 *   no place free		ask the worker that has been idle the longest to make room,
 *						or the one that has served the longest: pools take turns
 *
 * A pool whose workers do not come to life (role without LOGIN, too many
 * connections) is tried again after a second, then after two, up to a minute.
 * When the server has no slot left for background workers that is logged once,
 * with a hint, and tried likewise; so it is when pools have to take turns since
 * djactor.max_workers are all taken.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "compat.h"
#include "crash.h"
#include "guc.h"
#include "held.h"
#include "launcher.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "runqueue.h"
#include "slots.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker.h"

#define DJA_BACKOFF_MS 1000
#define DJA_BACKOFF_MAX_MS 60000
#define DJA_QUIET_MS 60000
#define DJA_MAKE_ROOM_MS 200	/* a worker idle for less is not asked to go */
#define DJA_TIME_SLICE_MS 1000	/* nor a busy one that started later */
#define DJA_SHORT_MS 2000		/* for so long somebody goes without before it is said */
#define DJA_SCOUT_AGAIN_MS 10000
#define DJA_CHECK_MS 1000		/* while something is starting or short of places */

static BackgroundWorkerHandle **dja_handles;	/* by worker slot */
static BackgroundWorkerHandle *dja_scout_handle = NULL;
static List *dja_databases = NIL;	/* still to be scouted */
static Oid	dja_scouting;		/* where the present scout is */
static TimestampTz dja_scout_again = DJA_NEVER; /* some scout failed */
static TimestampTz dja_exhausted_until = 0; /* was said; need not be again */
static TimestampTz dja_not_before = 0;
static uint32 dja_generation = 0;
static MemoryContext dja_launcher_context;

/* ---------- starting processes ---------- */

/*
 * Registers a background process; false when the server has no slot left for
 * it.
 */
static bool
dja_start_process(const char *function, const char *name, Datum arg, uint32 generation,
				  BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};
	MemoryContext old = MemoryContextSwitchTo(dja_launcher_context);
	bool		ok;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "djactor", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, name, sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, name, sizeof(worker.bgw_type));
	worker.bgw_main_arg = arg;
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, &generation, sizeof(generation));

	ok = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);
	if (!ok)
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

static void
dja_pool_back_off(DjaPool *pool)
{
	long		ms = DJA_BACKOFF_MS << Min(pool->failures, 6);

	pool->failures++;
	pool->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   Min(ms, DJA_BACKOFF_MAX_MS));
}

/*
 * A scout says where it has been.  One that did not come that far (no
 * connection was free, say) is sent again, with all the others.
 */
static void
dja_scout_ended(void)
{
	if (dja_shared->slots->scouted != dja_scouting)
		dja_scout_again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_SCOUT_AGAIN_MS);
}

/*
 * Sees which of the processes we started have come to nothing.
 */
static bool
dja_reap(void)
{
	bool		starting = false;
	pid_t		pid;

	if (dja_scout_handle != NULL)
	{
		if (GetBackgroundWorkerPid(dja_scout_handle, &pid) == BGWH_STOPPED)
		{
			pfree(dja_scout_handle);
			dja_scout_handle = NULL;
			dja_not_before = 0;	/* its slot is free */
			dja_scout_ended();
		}
		else
			starting = true;
	}
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

/* ---------- databases ---------- */

/*
 * Lists the databases that may be connected to.
 */
static void
dja_list_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext old;

	list_free(dja_databases);
	dja_databases = NIL;
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (!database->datallowconn || database->datistemplate)
			continue;
		old = MemoryContextSwitchTo(dja_launcher_context);
		dja_databases = lappend_oid(dja_databases, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
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

/* ---------- workers ---------- */

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
	/* who wants the database for himself looks for workers under the same lock */
	slot = dja_database_held(pool->database) ? -1 : dja_free_slot();
	if (slot >= 0)
	{
		DjaWorker  *worker = dja_worker(slot);

		worker->state = DJA_WORKER_STARTING;
		worker->pool = pool_id;
		worker->generation = generation;
		worker->stop = false;
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
 * Asks a worker to end, for a pool that has none: the one that has been idle
 * the longest, else the one that has served the longest.  It ends after its
 * batch.
 */
static void
dja_make_room(TimestampTz now)
{
	int			chosen = -1;

	dja_lock();
	for (int i = 0; i < dja_max_workers; i++)
	{
		DjaWorker  *worker = dja_worker(i);
		DjaWorker  *best = chosen < 0 ? NULL : dja_worker(chosen);

		if (worker->stop && worker->state != DJA_WORKER_FREE)
		{
			chosen = -1;
			break;				/* one is on its way out */
		}
		if (!dja_may_go(worker, now))
			continue;
		if (best == NULL ||
			(worker->state == DJA_WORKER_IDLE && best->state != DJA_WORKER_IDLE) ||
			(worker->state == best->state &&
			 (worker->state == DJA_WORKER_IDLE ? worker->since < best->since :
			  worker->started < best->started)))
			chosen = i;
	}
	if (chosen >= 0)
	{
		dja_worker(chosen)->stop = true;
		SetLatch(&ProcGlobal->allProcs[dja_worker(chosen)->procno].procLatch);
	}
	dja_unlock();
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
	if (pool->workers == 0)
	{
		needed = dja_queue_has_work(i, true, now);
		start = !gone && (needed ? !idle_ones :
						  idle_ones && !*short_of_places && dja_free_slot() >= 0);
		if (!needed)
			again = dja_queue_next_due(i, now);
	}
	else if (pool->resident < 0)
		(void) dja_wake_idle(i);	/* to become the resident */
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
		return again;		/* the end of a hold rings */
	if (now < pool->not_before || now < dja_not_before)
		return Max(pool->not_before, dja_not_before);
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
		*short_of_places = true;
		dja_make_room(now);
	}
	return Max(TimestampTzPlusMilliseconds(now, DJA_MAKE_ROOM_MS), dja_not_before);
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
static TimestampTz
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
	dja_report_shortage(short_of_places && now >= dja_not_before, now);
	for (int i = 0; i < DJA_MAX_POOLS; i++)
		if (dja_pool(i)->in_use)
			again = Min(again, dja_see_to_pool(i, now, true, &short_of_places));
	return again;
}

/* ---------- the loop ---------- */

static void
dja_launcher_detach(int code, Datum arg)
{
	dja_shared->slots->launcher_procno = -1;
}

static TimestampTz
dja_see_to_scouts(TimestampTz now)
{
	if (now >= dja_scout_again)
	{
		dja_scout_again = DJA_NEVER;
		dja_shared->slots->scout_wanted = true;
	}
	if (dja_shared->slots->scout_wanted && dja_databases == NIL)
	{
		dja_shared->slots->scout_wanted = false;
		dja_list_databases();
		dja_crash_forget_databases(dja_databases);
	}
	for (int i = 0; i < DJA_MAX_SCOUTS; i++)
	{
		Oid			database = dja_shared->slots->scout_databases[i];
		MemoryContext old;

		if (!OidIsValid(database))
			continue;
		dja_shared->slots->scout_databases[i] = InvalidOid;
		old = MemoryContextSwitchTo(dja_launcher_context);
		dja_databases = list_append_unique_oid(dja_databases, database);
		MemoryContextSwitchTo(old);
	}
	if (dja_databases == NIL || dja_scout_handle != NULL)
		return dja_scout_again;
	if (now < dja_not_before)
		return dja_not_before;
	if (dja_database_held(linitial_oid(dja_databases)))
		return TimestampTzPlusMilliseconds(now, DJA_CHECK_MS);
	if (dja_start_process("dja_scout_main", "djactor scout",
						  ObjectIdGetDatum(linitial_oid(dja_databases)), 0, &dja_scout_handle))
	{
		dja_scouting = linitial_oid(dja_databases);
		dja_databases = list_delete_first(dja_databases);
		return dja_scout_again;
	}
	return dja_not_before;
}

void
dja_launcher_main(Datum arg)
{
	dja_process_signals();
	dja_shared->slots->launcher_procno = dja_my_procno();
	before_shmem_exit(dja_launcher_detach, (Datum) 0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	dja_launcher_context = AllocSetContextCreate(TopMemoryContext, "djactor launcher",
												 ALLOCSET_DEFAULT_SIZES);
	dja_handles = MemoryContextAllocZero(dja_launcher_context,
										 sizeof(BackgroundWorkerHandle *) * dja_max_workers);
	dja_shared->slots->scout_wanted = true;
	dja_forget_starting();
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		static uint32 wait_event = 0;
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz again;
		long		timeout;

		dja_check_interrupts();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		/* the postmaster's signal about a process that ended sets our latch */
		again = dja_reap() ? TimestampTzPlusMilliseconds(now, DJA_CHECK_MS) : DJA_NEVER;
		again = Min(again, dja_see_to_pools(now));
		again = Min(again, dja_see_to_scouts(now)); /* mail goes first */

		timeout = again == DJA_NEVER ? -1 :
			Max(1, Min((again - GetCurrentTimestamp()) / 1000 + 1, 3600 * 1000L));
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0),
						 timeout, DJA_WAIT_EVENT(wait_event, "DjactorLauncherMain"));
		ResetLatch(MyLatch);
	}
}

/*
 * The launcher starts with the server, and again after a standby's promotion.
 */
void
dja_launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "djactor", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "dja_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "djactor launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "djactor launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}
