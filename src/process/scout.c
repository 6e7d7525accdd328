/*
 * scout.c
 *
 * A scout looks into one database, since the launcher cannot.  It finds out
 * whether the extension is installed in a version that this library serves, and
 * which types the database has.  It makes their type queues and pools, each with
 * a sweep that finds the mail which waits, and ends.  It only scans
 * djactor.actor_type and djactor.home and runs no user code, so it may log in as a
 * superuser.
 *
 * There is one scout at a time.  A lock, or settings of one database, that kept
 * it waiting would keep all databases of the server waiting.  So it has settings of
 * its own, and gives up after five seconds; another one is sent later.
 */
#include "postgres.h"

#include "access/xact.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "process/launcher.h"
#include "process/worker.h"
#include "shmem/crash.h"
#include "shmem/rates.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "tables/actor_type.h"
#include "tables/handler.h"
#include "turn/session.h"
#include "xact/copy_check.h"
#include "xact/pending.h"

#define DJA_SAY_AGAIN_MS 10000
#define DJA_SCOUT_LOCK_TIMEOUT "5s"

/*
 * Logs that the extension has another version than the library, so that nothing
 * is handled in this database.  Each worker that finds out calls for a scout; so
 * this is logged once in ten seconds.  There is one scout at a time, and no
 * lock is needed.
 */
static void
dja_report_version(DjaInstalled installed)
{
	DjaSlots   *slots = dja_shared->slots;
	TimestampTz now = GetCurrentTimestamp();

	if (slots->told_database == MyDatabaseId && slots->told == (int) installed &&
		now < TimestampTzPlusMilliseconds(slots->told_at, DJA_SAY_AGAIN_MS))
		return;
	slots->told_database = MyDatabaseId;
	slots->told = (int) installed;
	slots->told_at = now;
	ereport(LOG,
			(errmsg("djactor stands still in database \"%s\": the extension has version %s, the loaded library serves %s",
					get_database_name(MyDatabaseId), dja_catalog_version(), DJA_SQL_VERSION),
			 installed == DJA_LIBRARY_NEWER ?
			 errhint("Use ALTER EXTENSION djactor UPDATE.") :
			 errhint("Restart the server so that it loads the library that belongs to the extension.")));
}

static void
dja_announce_type(DjaType *type)
{
	int			pool;
	int			type_queue = DJA_NO_TYPE_QUEUE;
	int			batch_size;

	batch_size = dja_handler_known_batch_size(type);
	dja_lock();
	pool = dja_pool_find(MyDatabaseId, type->owner, true);
	if (pool >= 0)
		type_queue = dja_ensure_type_queue(MyDatabaseId, type->hash, type->owner);
	if (type_queue >= 0)
	{
		dja_type_queue_move(type_queue, pool);
		dja_type_queue(type_queue)->concurrency = type->concurrency;
		dja_type_queue(type_queue)->batch_size = batch_size;
		dja_type_queue(type_queue)->hosted = type->hosted;
		dja_type_queue_order(type_queue, type->stateless);
		dja_type_queue_set_rate(type_queue, type->rate);
		dja_type_queue_unblock(type_queue);
		if (dja_pool(pool)->resident >= 0)
			dja_wake(dja_worker(dja_pool(pool)->resident)->procno);
	}
	dja_unlock();
	if (type_queue < 0)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room for actor type \"%s\" of database \"%s\"",
						type->name, get_database_name(MyDatabaseId))));
}

void
dja_scout_main(Datum arg)
{
	DjaInstalled installed;
	bool		wanted;

	dja_process_signals();
	/* before it connects, since connecting waits for locks, too */
	SetConfigOption("lock_timeout", DJA_SCOUT_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	dja_lock();
	wanted = dja_scout_attach(DatumGetObjectId(arg));
	dja_unlock();
	if (!wanted)
		proc_exit(0);			/* a backend needs the database for itself */
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	dja_session_settings("djactor scout");

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	installed = dja_catalog_check(true);
	if (installed == DJA_INSTALLED)
	{
		ListCell   *lc;

		/* before anybody may serve them: mail of a copy is below all cursors */
		dja_type_queues_sweep(MyDatabaseId);
		(void) dja_home_check();	/* a held copy gets type queues and pools,
									 * too, but no worker */
		foreach(lc, dja_types_all())
			dja_announce_type(lfirst(lc));
	}
	else
	{
		dja_type_queues_forget(MyDatabaseId);
		if (installed != DJA_NOT_INSTALLED)
			dja_report_version(installed);
	}
	if (installed == DJA_INSTALLED || installed == DJA_NOT_INSTALLED)
		dja_crash_forget(NIL);
	PopActiveSnapshot();
	CommitTransactionCommand();
	dja_shared->slots->scouted = MyDatabaseId;
	dja_ring_launcher();
	proc_exit(0);
}
