/*
 * copy_check.c
 *
 * A copy of a database must not handle the mail of the original again.
 * djactor.home says where the data was at home: the cluster, the database,
 * djactor.instance, and the last start from a backup.  A row that describes this
 * server is called "mine".
 *
 *   no rows					a new database: at home
 *   rows, none of them mine	a copy: a clone, a start from a backup, another instance
 *   a marker, "0, 0"			a copy, whatever else stands there: mail was loaded
 *							from a dump, or the server started from a backup
 *
 * A copy with mail or timers is held until djactor.resume() replaces the rows by
 * mine.  A copy without any cannot repeat the original's mail: the first process
 * that looks makes it at home.  A row of mine counts although others stand beside
 * it.  So a sender into a fresh copy, which must not wait for anybody, need only
 * add one.
 *
 * The scout looks before it announces types, each worker when it starts, and a
 * session once, when it first sends.  What they find for the workers is kept in
 * shared memory (copy_shmem.c).  Markers are added by the COPY of a restore
 * (utility_copy.c), by INSERTs of messages with their ids (dump_insert.c), and by
 * the trigger of djactor.home, into which only a restore inserts.
 *
 * Rows that arrive by replication are put aside one by one instead
 * (copy_replication.c), since the rest of their database is no copy.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/columns.h"
#include "base/compat.h"
#include "base/guc.h"
#include "shmem/copy_backup.h"
#include "shmem/copy_shmem.h"
#include "tables/actor_type.h"
#include "tables/rows.h"
#include "xact/copy_check.h"
#include "xact/copy_replication.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_home_changed);
PG_FUNCTION_INFO_V1(dja_resume_database);
PG_FUNCTION_INFO_V1(dja_held_database);

#define DJA_RESUME_HINT "Check that it may run here, then use SELECT djactor.resume()."

#define DJA_FROM_BACKUP "The server was started from a backup."

/* What djactor.home says. */
typedef struct DjaHome
{
	int			rows;
	int			mine;
	bool		marker;
	bool		marker_stands;	/* no open transaction deletes it */
	bool		marked;			/* this transaction has added one */
	char	   *origin;			/* where a row that is not mine comes from */
	bool		from_backup;	/* a row differs only by the server's last
								 * start */
} DjaHome;

bool		dja_restoring = false;

static bool dja_home_known = false; /* this session need not look again */
static LocalTransactionId dja_settled_in = InvalidLocalTransactionId;

/* ---------- rows ---------- */

static bool
dja_home_is_marker(TupleTableSlot *slot)
{
	return DatumGetInt64(slot->tts_values[DJA_HOME_SYSTEM_IDENTIFIER - 1]) == 0 &&
		!OidIsValid(DatumGetObjectId(slot->tts_values[DJA_HOME_DATABASE - 1]));
}

/*
 * Returns why a row is not mine, or NULL if it is.
 */
static const char *
dja_home_difference(TupleTableSlot *slot)
{
	Datum	   *values = slot->tts_values;

	if (dja_home_is_marker(slot))
		return DatumGetInt64(values[DJA_HOME_RESTORED - 1]) == 0 ?
			"Rows of it were loaded from a dump." : DJA_FROM_BACKUP;
	if (DatumGetInt64(values[DJA_HOME_SYSTEM_IDENTIFIER - 1]) != (int64) GetSystemIdentifier())
		return "It was at home in another cluster.";
	if (DatumGetObjectId(values[DJA_HOME_DATABASE - 1]) != MyDatabaseId)
		return "It was at home in another database of this cluster.";
	if (strcmp(TextDatumGetCString(values[DJA_HOME_INSTANCE - 1]), dja_instance) != 0)
		return "It was at home where djactor.instance had another value.";
	if (dja_shared->copies->restored != DJA_TOKEN_INHERITED &&
		DatumGetInt64(values[DJA_HOME_RESTORED - 1]) != dja_shared->copies->restored)
		return DJA_FROM_BACKUP;
	return NULL;
}

/*
 * Is another transaction deleting this row, which is visible to us?
 */
static bool
dja_home_is_leaving(TupleTableSlot *slot)
{
	bool		isnull;
	TransactionId xmax = DatumGetTransactionId(slot_getsysattr(slot, MaxTransactionIdAttributeNumber,
															   &isnull));

	return TransactionIdIsNormal(xmax) && !TransactionIdIsCurrentTransactionId(xmax) &&
		TransactionIdIsInProgress(xmax);
}

static bool
dja_row_is_mine(TupleTableSlot *slot)
{
	bool		isnull;

	return TransactionIdIsCurrentTransactionId(DatumGetTransactionId(slot_getsysattr(slot,
																					 MinTransactionIdAttributeNumber,
																					 &isnull)));
}

/*
 * Reads djactor.home as the snapshot (NULL: the latest) sees it.
 */
static void
dja_home_read(DjaHome *home, Snapshot snapshot)
{
	DjaFind		find;

	memset(home, 0, sizeof(DjaHome));
	dja_find_begin(&find, DJA_HOME_TABLE, DJA_NO_INDEX, 0, NULL, snapshot);
	while (dja_find_next(&find))
	{
		const char *difference = dja_home_difference(find.slot);

		home->rows++;
		if (difference == NULL)
			home->mine++;
		else if (home->origin == NULL)
			home->origin = pstrdup(difference);
		home->from_backup |= difference != NULL && strcmp(difference, DJA_FROM_BACKUP) == 0;
		if (dja_home_is_marker(find.slot))
		{
			home->marker = true;
			home->marker_stands |= !dja_home_is_leaving(find.slot);
			home->marked |= dja_row_is_mine(find.slot);
		}
	}
	dja_find_end(&find);
}

static bool
dja_home_is_copy(const DjaHome *home)
{
	return home->marker || (home->rows > 0 && home->mine == 0);
}

static void
dja_home_insert(int64 system, Oid database, const char *instance, int64 restored)
{
	Datum		values[DJA_HOME_NATTS];
	bool		nulls[DJA_HOME_NATTS] = {0};

	values[DJA_HOME_SYSTEM_IDENTIFIER - 1] = Int64GetDatum(system);
	values[DJA_HOME_DATABASE - 1] = ObjectIdGetDatum(database);
	values[DJA_HOME_INSTANCE - 1] = CStringGetTextDatum(instance);
	values[DJA_HOME_RESTORED - 1] = Int64GetDatum(restored);
	dja_table_insert(DJA_HOME_TABLE, values, nulls);
}

/*
 * Makes this database at home here: leaves one row of mine, and no other.  A row
 * that another transaction has locked stays; with must, it raises an error.
 * may_prepare: the transaction may still be prepared.
 */
static void
dja_home_settle(Snapshot snapshot, bool must, bool may_prepare)
{
	DjaWriter  *writer = dja_writer_open(DJA_HOME_TABLE, RowExclusiveLock);
	DjaFind		find;
	bool		mine = false;

	dja_find_begin(&find, DJA_HOME_TABLE, DJA_NO_INDEX, 0, NULL, snapshot);
	while (dja_find_next(&find))
	{
		TM_Result	result;

		if (!mine && dja_home_difference(find.slot) == NULL)
		{
			mine = true;
			continue;
		}
		result = dja_row_try_delete(writer, &find.slot->tts_tid);
		if (must && result != TM_Ok)
			dja_row_trouble(result);

		/*
		 * a scout looks again at our end, also if we abort; if another
		 * transaction has the row locked, that one sends it
		 */
		if (result == TM_Ok && dja_home_is_marker(find.slot))
			dja_copy_look_again(may_prepare);
	}
	dja_find_end(&find);
	if (!mine)
		dja_home_insert((int64) GetSystemIdentifier(), MyDatabaseId, dja_instance,
						dja_shared->copies->restored);
	dja_writer_close(writer);
}

/*
 * Does the snapshot see a row of this table?  others: rows of this transaction do
 * not count.
 */
static bool
dja_any_row(DjaTable table, DjaIndex pkey, Snapshot snapshot, bool others)
{
	DjaFind		find;
	bool		found = false;

	dja_find_begin(&find, table, pkey, 0, NULL, snapshot);
	while (!found && dja_find_next(&find))
		found = !others || !dja_row_is_mine(find.slot);
	dja_find_end(&find);
	return found;
}

/*
 * Does the snapshot see any mail or timer?
 */
static bool
dja_any_mail(Snapshot snapshot, bool others)
{
	return dja_any_row(DJA_MESSAGE_TABLE, DJA_MESSAGE_PKEY, snapshot, others) ||
		dja_any_row(DJA_TIMER_TABLE, DJA_TIMER_PKEY, snapshot, others);
}

/* ---------- looking ---------- */

/*
 * Adds a marker to a database that is held since the server was started from a
 * backup: a standby of this server has to find that in its tables when it is
 * promoted.  If the table is locked, nothing is done: the holder may be in
 * resume(), which has a scout look again.
 */
static void
dja_home_mark_backup(void)
{
	DjaHome		home;

	if (!ConditionalLockRelationOid(dja_table_oid(DJA_HOME_TABLE), ShareRowExclusiveLock))
		return;
	dja_home_read(&home, NULL);
	if (!home.marker && dja_home_is_copy(&home))
		dja_home_insert(0, InvalidOid, "", dja_shared->copies->restored);
}

/*
 * Looks at this database, and returns whether its mail may be handled.  Called by
 * scouts and workers, in a transaction with an active snapshot.  Logs that a copy
 * is held, once.  One snapshot serves for all tables: restored mail and its
 * marker commit together.
 */
bool
dja_home_check(void)
{
	DjaCopyLook look;
	DjaCopyVerdict verdict = DJA_COPY_AT_HOME;
	DjaHome		home;
	Snapshot	snapshot;
	bool		served;
	bool		news;

	dja_copy_look(&look);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	dja_home_read(&home, snapshot);
	if (dja_home_is_copy(&home) && dja_any_mail(snapshot, false))
		verdict = home.mine > 0 && !home.marker_stands ? DJA_COPY_UNDECIDED : DJA_COPY_HELD;
	else if (home.rows != 1 || home.mine != 1)
		dja_home_settle(snapshot, false, true);
	UnregisterSnapshot(snapshot);
	if (verdict == DJA_COPY_HELD && home.from_backup && !home.marker)
		dja_home_mark_backup();

	served = dja_copy_verdict(&look, verdict, &news);
	if (news)
		ereport(LOG,
				(errmsg("djactor holds the mail of database \"%s\": it is a copy",
						get_database_name(MyDatabaseId)),
				 errdetail_internal("%s", home.origin),
				 errhint(DJA_RESUME_HINT)));
	return served;
}

/*
 * Is the mail of this database held, as this transaction sees it?
 */
static bool
dja_home_is_held(void)
{
	DjaHome		home;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		held;

	dja_home_read(&home, snapshot);
	held = dja_home_is_copy(&home) && dja_any_mail(snapshot, false);
	UnregisterSnapshot(snapshot);
	return held;
}

/*
 * Raises 55000 if the mail of this database is held.
 */
void
dja_home_require(void)
{
	if (dja_home_is_held())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the mail of database \"%s\" is held: it is a copy",
						get_database_name(MyDatabaseId)),
				 errhint(DJA_RESUME_HINT)));
}

/* ---------- sending and restoring ---------- */

/*
 * Adds a marker.
 */
static void
dja_home_mark(void)
{
	dja_home_insert(0, InvalidOid, "", 0);
	dja_copy_suspect();
}

/*
 * Marks the database as a copy: this transaction has loaded rows of djactor's.
 */
void
dja_home_restored(void)
{
	if (dja_catalog_check(false) == DJA_INSTALLED)
		dja_home_mark();
}

/*
 * Likewise for one of many INSERTs.  One marker for each would be too many, so
 * none is added if this transaction has added one, or if there is one that stays
 * until resume().  The latter is certain only once a look has found mail with it.
 */
void
dja_home_restored_rows(void)
{
	DjaHome		home;

	dja_home_read(&home, NULL);
	if (!home.marked && !(home.marker_stands && dja_copy_found(MyDatabaseId)))
		dja_home_mark();
}

/*
 * Called before a session sends.  The database may not have been looked at yet,
 * and a copy without mail has to be at home before this message is in it.  Mail
 * of this transaction does not make a copy one that is held.
 */
void
dja_home_sending(void)
{
	DjaHome		home;
	Snapshot	snapshot;

	if (dja_home_known || dja_restoring)
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	dja_home_read(&home, snapshot);
	if (home.marked)
		;						/* it restores, too */
	else if (home.rows > 0 && !dja_home_is_copy(&home))
		/* a row that this transaction has added may be rolled back */
		dja_home_known = dja_settled_in != dja_my_xact();
	else if (home.rows == 0 || !dja_any_mail(snapshot, true))
	{
		dja_home_settle(snapshot, false, true);
		dja_settled_in = dja_my_xact();
	}
	UnregisterSnapshot(snapshot);
}

/*
 * The trigger of djactor.home, into which only a dump made of INSERTs inserts.
 * utility_copy.c handles COPY.
 */
Datum
dja_home_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("djactor.home_changed() is the trigger of djactor.home")));
	if (dja_shared != NULL && !dja_restoring)
		dja_home_restored();
	return PointerGetDatum(NULL);
}

/* ---------- for the operator ---------- */

/*
 * resume(): lets this copy run.  Raises 42501 unless the user is a superuser or
 * owns the database.
 */
Datum
dja_resume_database(PG_FUNCTION_ARGS)
{
	DjaHome		home;
	Snapshot	snapshot;

	PreventCommandIfReadOnly("djactor.resume()");
	dja_require_installed();
	if (!superuser() && !dja_owns_database(MyDatabaseId, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to resume the mail of database \"%s\"",
						get_database_name(MyDatabaseId)),
				 errhint("Only a superuser or the owner of the database may say that a copy may run.")));

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	dja_home_read(&home, snapshot);
	if (dja_home_is_copy(&home))
	{
		dja_home_settle(snapshot, true, false);
		dja_copy_look_again(false);
	}
	UnregisterSnapshot(snapshot);
	if (dja_replicated_release() > 0)
	{
		ListCell   *lc;

		/*
		 * it is below all cursors: mail that is sent from now on must not
		 * overtake it
		 */
		foreach(lc, dja_types_all())
			dja_pending_type(((DjaType *) lfirst(lc))->hash, ((DjaType *) lfirst(lc))->owner);
		dja_copy_look_again(false);
	}
	CommandCounterIncrement();
	PG_RETURN_VOID();
}

/*
 * held(): is the mail of this database held?
 */
Datum
dja_held_database(PG_FUNCTION_ARGS)
{
	dja_require_installed();
	PG_RETURN_BOOL(dja_home_is_held());
}
