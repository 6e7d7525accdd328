/*
 * launcher.c
 *
 * The launcher: one process in a server that is not in recovery.  It is
 * connected to no database.  It waits on its latch, and looks at shared memory
 * when it is rung:
 *
 *   pools			starts and stops workers; pools.c decides which
 *   scout_wanted	sends a scout to each database, one at a time
 *
 * A database that was just created gets its scout after a second.  No mail that
 * may be handled waits there yet, and a scout would hold up a DROP DATABASE, which
 * often follows at once.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "process/launcher.h"
#include "process/places.h"
#include "process/pools.h"
#include "process/start_process.h"
#include "process/worker.h"
#include "shmem/crash.h"
#include "shmem/run_queue.h"
#include "shmem/hosts.h"
#include "shmem/slots.h"

#define DJA_SCOUT_AGAIN_MS 10000
#define DJA_SCOUT_NEW_MS 1000	/* until a new database gets its scout */
#define DJA_CHECK_MS 1000		/* while something is starting or a database
								 * is held */

/* A database that was just created. */
typedef struct DjaNewcomer
{
	Oid			database;
	TimestampTz scout_at;		/* not before */
} DjaNewcomer;

static BackgroundWorkerHandle *dja_scout_handle = NULL;
static List *dja_databases = NIL;	/* still to be scouted */
static Oid	dja_scouting;		/* where the present scout is */
static List *dja_newcomers = NIL;	/* new databases, as they came */
static List *dja_scouts_failed = NIL;	/* where scouts have failed ... */
static TimestampTz dja_scout_again = DJA_NEVER; /* ... until others are sent */

/* ---------- scouts ---------- */

/*
 * Lists the databases that may be connected to.
 */
static List *
dja_list_databases(void)
{
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext old;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (!dja_database_open(database) || database->datistemplate)
			continue;
		old = MemoryContextSwitchTo(TopMemoryContext);
		databases = lappend_oid(databases, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return databases;
}

/*
 * The scout's process has ended.  A scout that came to its end has said so in
 * slots->scouted.  If this one has not (no connection was free, say), another is
 * sent after a while: not at once, since a scout that fails may have called for
 * the next one.  If it was stopped by a backend that needs the database for
 * itself, the next one waits until that is over.
 */
static void
dja_scout_ended(void)
{
	bool		stopped;

	dja_assert_launcher();
	dja_lock();
	stopped = dja_shared->slots->scout_stop;
	dja_shared->slots->scouting = InvalidOid;
	dja_unlock();
	if (dja_shared->slots->scouted == dja_scouting)
		return;
	if (stopped)
	{
		dja_databases = list_append_unique_oid(dja_databases, dja_scouting);
		return;
	}
	dja_scout_again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_SCOUT_AGAIN_MS);
	dja_scouts_failed = list_append_unique_oid(dja_scouts_failed, dja_scouting);
}

/*
 * Lists those databases again where scouts have failed, if they still exist.
 */
static void
dja_try_again(void)
{
	List	   *there = dja_list_databases();
	ListCell   *lc;

	foreach(lc, dja_scouts_failed)
	{
		if (list_member_oid(there, lfirst_oid(lc)))
			dja_databases = list_append_unique_oid(dja_databases, lfirst_oid(lc));
	}
	list_free(there);
	list_free(dja_scouts_failed);
	dja_scouts_failed = NIL;
	dja_scout_again = DJA_NEVER;
}

/*
 * The next database to be scouted, or InvalidOid.  Databases that are locked
 * out, and those where a scout has just failed, are passed over.
 */
static Oid
dja_next_database(void)
{
	ListCell   *lc;

	foreach(lc, dja_databases)
	{
		if (!dja_is_locked_out(lfirst_oid(lc)) && !list_member_oid(dja_scouts_failed, lfirst_oid(lc)))
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

/*
 * Notes new databases, and lists those that are a second old for scouting.
 * Returns when the next one will be.
 */
static TimestampTz
dja_see_to_newcomers(TimestampTz now)
{
	for (int i = 0; i < DJA_MAX_SCOUTS; i++)
	{
		DjaNewcomer *newcomer;

		if (!OidIsValid(dja_shared->slots->scout_new[i]))
			continue;
		newcomer = palloc(sizeof(DjaNewcomer));
		newcomer->database = dja_shared->slots->scout_new[i];
		newcomer->scout_at = TimestampTzPlusMilliseconds(now, DJA_SCOUT_NEW_MS);
		dja_shared->slots->scout_new[i] = InvalidOid;
		dja_newcomers = lappend(dja_newcomers, newcomer);
	}
	while (dja_newcomers != NIL)
	{
		DjaNewcomer *newcomer = linitial(dja_newcomers);

		if (newcomer->scout_at > now)
			return newcomer->scout_at;
		dja_databases = list_append_unique_oid(dja_databases, newcomer->database);
		dja_newcomers = list_delete_first(dja_newcomers);
		pfree(newcomer);
	}
	return DJA_NEVER;
}

/*
 * Sends a scout to a database.  Returns false if the server has no slot for its
 * process.
 */
static bool
dja_send_scout(Oid database)
{
	bool		sent;

	dja_lock();
	sent = dja_scout_sent(database);
	dja_unlock();
	if (!sent)
		return true;			/* locked out: the next look passes it over */
	dja_shared->slots->scouted = InvalidOid;

	/* from now on a DROP DATABASE stops the scout, so the look is safe */
	sent = dja_database_is_open(database);
	if (sent && !dja_start_process("dja_scout_main", "djactor scout", ObjectIdGetDatum(database),
								   0, dja_places_leaving(), &dja_scout_handle))
		return false;
	if (sent)
		dja_scouting = database;
	dja_databases = list_delete_oid(dja_databases, database);
	return true;
}

/*
 * Sends the next scout, if one is wanted and none is running.  Returns when to
 * look again at the latest.
 */
static TimestampTz
dja_see_to_scouts(TimestampTz now)
{
	TimestampTz again;
	Oid			next;

	dja_assert_launcher();
	if (now >= dja_scout_again)
		dja_try_again();
	if (dja_shared->slots->scout_wanted && !OidIsValid(dja_next_database()))
	{
		dja_shared->slots->scout_wanted = false;
		list_free(dja_databases);
		dja_databases = dja_list_databases();
		if (dja_databases != NIL)
			dja_crash_forget(dja_databases);
	}
	for (int i = 0; i < DJA_MAX_SCOUTS; i++)
	{
		Oid			database = dja_shared->slots->scout_databases[i];

		if (!OidIsValid(database))
			continue;
		dja_shared->slots->scout_databases[i] = InvalidOid;
		dja_databases = list_append_unique_oid(dja_databases, database);
	}
	again = Min(dja_scout_again, dja_see_to_newcomers(now));
	if (dja_databases == NIL || dja_scout_handle != NULL)
		return again;
	if (now < dja_process_not_before())
		return Min(again, dja_process_not_before());
	while (dja_scout_handle == NULL && OidIsValid(next = dja_next_database()))
		if (!dja_send_scout(next))
			return Max(dja_process_not_before(), TimestampTzPlusMilliseconds(now, DJA_CHECK_MS));
	if (dja_scout_handle == NULL && dja_databases != NIL)
		again = Min(again, TimestampTzPlusMilliseconds(now, DJA_CHECK_MS));
	return again;
}

/* ---------- hosts ---------- */

/*
 * Takes mail back from hosts that do not come to an end with it.  Returns when to look
 * again.
 */
static TimestampTz
dja_see_to_hosts(TimestampTz now)
{
	TimestampTz again;
	int			lost;

	dja_lock();
	again = dja_hosts_reap(now, &lost);
	dja_unlock();
	if (lost > 0)
		ereport(LOG,
				(errmsg("took mail of %d actors back from hosts whose lease or time limit was over", lost),
				 errhint("See djactor.host. A host has to call heartbeat() or take() before its lease is over.")));
	return again;
}

/* ---------- the loop ---------- */

static void
dja_launcher_detach(int code, Datum arg)
{
	dja_assert_launcher();
	dja_shared->slots->launcher_procno = DJA_NO_PROC;
}

void
dja_launcher_main(Datum arg)
{
	dja_process_signals();
	Assert(dja_shared->slots->launcher_procno == DJA_NO_PROC);
	dja_shared->slots->launcher_procno = dja_my_procno();
	before_shmem_exit(dja_launcher_detach, (Datum) 0);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	/* what is allocated outside of transactions lasts as long as the process */
	MemoryContextSwitchTo(TopMemoryContext);
	dja_places_init();
	dja_shared->slots->scout_wanted = true;
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		static uint32 wait_event = 0;
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz again;
		bool		starting;
		long		timeout;

		dja_check_interrupts();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		/* the postmaster's signal about a process that ended sets our latch */
		if (dja_process_reap(&dja_scout_handle))
			dja_scout_ended();
		starting = dja_places_reap() || dja_scout_handle != NULL;
		again = starting ? TimestampTzPlusMilliseconds(now, DJA_CHECK_MS) : DJA_NEVER;
		again = Min(again, dja_see_to_pools(now));
		again = Min(again, dja_see_to_scouts(now)); /* mail goes first */
		again = Min(again, dja_see_to_hosts(now));

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
	BackgroundWorker worker;

	dja_process_describe(&worker, "dja_launcher_main", "djactor launcher", 1);
	RegisterBackgroundWorker(&worker);
}
