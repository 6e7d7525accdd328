/*
 * copy_shmem.c
 *
 * Which databases must not be served; see copy_shmem.h.
 *
 * A worker must not see the rows of a restoring transaction before a scout or
 * worker has looked at the database.  So:
 *
 *   PRE_COMMIT	make an entry, which counts the transaction as open, and stop the workers
 *   (rows become visible)
 *   COMMIT		no longer open; send a scout to look
 *   ABORT		likewise
 *
 * A worker calls dja_copy_is_held() after it has taken the snapshot with which it
 * reads messages (visit.c).  If the snapshot sees the rows, the worker also finds
 * the entry.  A look removes an entry only if no such transaction was open before
 * its snapshot and none has come since.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "shmem/copy_backup.h"
#include "shmem/copy_shmem.h"
#include "shmem/slots.h"

/* What this transaction has to do at its end. */
static bool dja_suspects = false;	/* it has restored rows */
static bool dja_counted = false;	/* ... and is counted as open */
static bool dja_wants_look = false; /* it has changed what the verdict depends
									 * on */
static bool dja_no_prepare = false;

Size
dja_copies_size(void)
{
	return MAXALIGN(sizeof(DjaCopies));
}

void
dja_copies_setup(void *memory)
{
	DjaCopies  *copies = memory;

	memset(copies, 0, sizeof(DjaCopies));
	copies->restored = dja_backup_token;
}

/*
 * Returns the entry of a database, or NULL.  create: makes it, if there is room.
 * Needs the lock.
 */
static DjaCopy *
dja_copy_entry(Oid database, bool create)
{
	DjaCopies  *copies = dja_shared->copies;
	DjaCopy    *room = NULL;

	dja_assert_locked();
	Assert(OidIsValid(database));
	for (int i = 0; i < DJA_MAX_COPIES; i++)
	{
		if (copies->databases[i].database == database)
			return &copies->databases[i];
		if (room == NULL && !OidIsValid(copies->databases[i].database))
			room = &copies->databases[i];
	}
	if (!create || room == NULL)
		return NULL;
	memset(room, 0, sizeof(DjaCopy));
	room->database = database;
	copies->count++;
	Assert(copies->count <= DJA_MAX_COPIES);
	return room;
}

/*
 * Removes the entry of a database that no restoring transaction is open in.
 */
static void
dja_copy_remove(DjaCopy *entry)
{
	dja_assert_locked();
	Assert(OidIsValid(entry->database) && entry->open == 0);
	Assert(dja_shared->copies->count > 0);
	entry->database = InvalidOid;
	dja_shared->copies->count--;
}

/*
 * Must this database not be served?  A snapshot that sees restored rows is taken
 * after their entry was made, so the count can be read without the lock.
 */
bool
dja_copy_is_held(Oid database)
{
	bool		held;

	if (dja_shared->copies->count == 0)
		return false;
	dja_lock();
	held = dja_copy_entry(database, false) != NULL;
	dja_unlock();
	return held;
}

/*
 * Has a look found this database to be held?
 */
bool
dja_copy_found(Oid database)
{
	DjaCopy    *entry;
	bool		found;

	dja_lock();
	entry = dja_copy_entry(database, false);
	found = entry != NULL && entry->held;
	dja_unlock();
	return found;
}

/*
 * Begins a look at this database's tables.  Called before the look takes its
 * snapshot.
 */
void
dja_copy_look(DjaCopyLook *look)
{
	DjaCopy    *entry;

	dja_lock();
	entry = dja_copy_entry(MyDatabaseId, false);
	look->open = entry ? entry->open : 0;
	look->asked = entry ? entry->asked : 0;
	dja_unlock();
}

/*
 * Ends a look, with its verdict.  Returns whether the database may be served.
 * *news: it is held from now on, which has to be logged.  Stops the workers
 * unless the database is at home.
 */
bool
dja_copy_verdict(const DjaCopyLook *look, DjaCopyVerdict verdict, bool *news)
{
	DjaCopy    *entry;

	*news = false;
	dja_lock();
	entry = dja_copy_entry(MyDatabaseId, verdict != DJA_COPY_AT_HOME);
	if (verdict == DJA_COPY_AT_HOME)
	{
		if (entry != NULL && entry->open == 0 && look->open == 0 && entry->asked == look->asked)
		{
			dja_copy_remove(entry);
			entry = NULL;
		}
	}
	else
	{
		*news = verdict == DJA_COPY_HELD && (entry == NULL || !entry->held);
		if (entry != NULL)
			entry->held |= verdict == DJA_COPY_HELD;
		(void) dja_stop_workers(MyDatabaseId, InvalidOid, NULL);
	}
	dja_unlock();
	return verdict == DJA_COPY_AT_HOME && entry == NULL;
}

/*
 * Removes the entry of a database that is gone, or seems gone to the launcher.
 * If it is not, the next worker looks for itself.
 */
void
dja_copy_forget(Oid database)
{
	DjaCopy    *entry;

	dja_lock();
	entry = dja_copy_entry(database, false);
	if (entry != NULL && entry->open == 0)
		dja_copy_remove(entry);
	dja_unlock();
}

/*
 * Has a scout look again if the database is held.  Called when rows have become
 * visible without their own session's doing, as by COMMIT PREPARED.
 */
void
dja_copy_recheck(void)
{
	if (dja_copy_is_held(MyDatabaseId))
		dja_ring_scout(MyDatabaseId, false);
}

/* ---------- at the end of the transaction ---------- */

/*
 * Notes that this transaction restores rows: from its commit on the database is
 * not served until a scout or worker has looked.
 */
void
dja_copy_suspect(void)
{
	dja_suspects = true;
}

/*
 * Has a scout look when this transaction ends, since it changes what a look
 * finds.  may_prepare: it may still be prepared.
 */
void
dja_copy_look_again(bool may_prepare)
{
	dja_wants_look = true;
	dja_no_prepare |= !may_prepare;
}

static void
dja_copy_open(void)
{
	DjaCopy    *entry;

	Assert(!dja_counted);
	dja_lock();
	entry = dja_copy_entry(MyDatabaseId, true);
	if (entry != NULL)
	{
		entry->open++;
		entry->asked++;
		dja_counted = true;
		(void) dja_stop_workers(MyDatabaseId, InvalidOid, NULL);
	}
	dja_unlock();
	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the mail of too many databases is held"),
				 errdetail("There is room for %d databases.", DJA_MAX_COPIES),
				 errhint("Use djactor.resume() in some of them, or drop them.")));
}

static void
dja_copy_close(void)
{
	if (dja_counted)
	{
		DjaCopy    *entry;

		dja_lock();
		entry = dja_copy_entry(MyDatabaseId, false);
		Assert(entry == NULL || entry->open > 0);
		if (entry != NULL)
			entry->open--;
		dja_unlock();
	}
	if (dja_counted || dja_wants_look)
		dja_ring_scout(MyDatabaseId, false);
}

static void
dja_copy_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (dja_suspects)
				dja_copy_open();
			return;
		case XACT_EVENT_PRE_PREPARE:
			if (dja_suspects || dja_no_prepare)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has restored rows of djactor or called djactor.resume()")));
			return;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			dja_copy_close();
			break;
		case XACT_EVENT_PREPARE:
			break;				/* COMMIT PREPARED sends a scout */
		default:
			return;
	}
	dja_suspects = dja_counted = dja_wants_look = dja_no_prepare = false;
}

void
dja_copy_init(void)
{
	RegisterXactCallback(dja_copy_xact_callback, NULL);
}
