/*
 * utility_database.c
 *
 * Commands on whole databases:
 *
 *   DROP DATABASE, ALTER DATABASE RENAME or SET TABLESPACE, CREATE DATABASE with a template
 *							need a database without sessions: its workers, and a scout, have to go
 *   CREATE DATABASE		may make a copy with actors in it: a scout looks, after a while
 *   ALTER DATABASE ALLOW_CONNECTIONS or IS_TEMPLATE	may open a database: a scout looks
 *
 * Workers are stopped only for a command that its user may run, as far as can
 * be told before it runs.  Otherwise anybody could stop them.  The lockout that
 * keeps new workers away ends with the transaction, whatever becomes of it, or
 * with a command that fails.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "nodes/parsenodes.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "shmem/slots.h"
#include "sql/utility_hook.h"
#include "sql/wait.h"
#include "xact/deliver.h"
#include "xact/pending.h"

#define DJA_STOP_MS 500			/* for the end of the running batch */
#define DJA_GONE_MS 5000		/* for the end of a process that is cut off */

/*
 * Returns the value of an option; otherwise, if it is absent or has none.
 */
static const char *
dja_find_option(List *options, const char *name, const char *otherwise)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0)
			return option->arg ? defGetString(option) : otherwise;
	}
	return otherwise;
}

/*
 * Returns the name of the database that a command needs without sessions, NULL
 * if it needs none.
 */
static const char *
dja_find_needed_database(Node *statement)
{
	AlterDatabaseStmt *alter = (AlterDatabaseStmt *) statement;

	switch (nodeTag(statement))
	{
		case T_CreatedbStmt:
			return dja_find_option(((CreatedbStmt *) statement)->options, "template", "template1");
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_RenameStmt:
			return ((RenameStmt *) statement)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) statement)->subname : NULL;
		default:
			return dja_find_option(alter->options, "tablespace", NULL) ? alter->dbname : NULL;
	}
}

/*
 * Reads two columns of pg_database; both are false if the database is gone.
 */
static void
dja_read_database(Oid database, bool *allows_connections, bool *is_template)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));

	*allows_connections = *is_template = false;
	if (!HeapTupleIsValid(tuple))
		return;
	*allows_connections = ((Form_pg_database) GETSTRUCT(tuple))->datallowconn;
	*is_template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
}

static bool
dja_may_create_databases(void)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	bool		may = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return may;
}

/*
 * May the user run this command on the database that it needs?  The server asks
 * again, later.
 */
static bool
dja_may_need_database(Oid database, Node *statement)
{
	bool		allows_connections;
	bool		is_template;

	if (superuser())
		return true;
	if ((IsA(statement, CreatedbStmt) || IsA(statement, RenameStmt)) && !dja_may_create_databases())
		return false;
	if (dja_owns_database(database, GetUserId()))
		return true;
	dja_read_database(database, &allows_connections, &is_template);
	return IsA(statement, CreatedbStmt) && is_template;
}

/*
 * Waits until processes are gone, some seconds at most.  After half a second
 * those that are left are cut off: a worker in a long handler, whose message is
 * not charged, or a scout that waits for a lock.
 */
static void
dja_wait_gone(int *pids, int n)
{
	static uint32 wait_event = 0;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz cut_off = TimestampTzPlusMilliseconds(now, DJA_STOP_MS);
	TimestampTz until = TimestampTzPlusMilliseconds(now, DJA_STOP_MS + DJA_GONE_MS);

	for (int i = 0; i < n && now < until;)
	{
		if (BackendPidGetProc(pids[i]) == NULL)
		{
			i++;
			continue;
		}
		for (int k = i; k < n && now >= cut_off; k++)
			if (BackendPidGetProc(pids[k]) != NULL)
				kill(pids[k], SIGTERM);
		if (now >= cut_off)
			cut_off = DT_NOEND;
		dja_nap(false, 5, DJA_WAIT_EVENT(wait_event, "DjactorStopWorkers"));
		now = GetCurrentTimestamp();
	}
}

/*
 * Begins a lockout of a database and waits until its workers, and a scout, are
 * gone.  Returns false if there are too many lockouts; then the server will say
 * that the database is in use.
 */
static bool
dja_lock_out_workers(Oid database)
{
	int		   *pids = palloc(sizeof(int) * (dja_max_workers + 1));
	int			n = 0;
	bool		begun;

	dja_lock();
	begun = dja_lockout_begin(database);
	if (begun)
	{
		n = dja_stop_workers(database, InvalidOid, pids);
		pids[n] = dja_stop_scout(database);
		n += pids[n] != 0;
	}
	dja_unlock();
	if (begun)
		dja_pending.locks_out = true;
	dja_wait_gone(pids, n);
	pfree(pids);
	return begun;
}

/*
 * The server refuses these commands in a transaction block, but for RENAME; so
 * there they are no reason to stop anything.
 */
void
dja_before_database(DjaUtility *utility)
{
	Node	   *statement = utility->statement;
	AlterDatabaseStmt *alter = (AlterDatabaseStmt *) statement;
	const char *needed = dja_find_needed_database(statement);
	Oid			database;

	if (IsA(statement, CreatedbStmt))
		namestrcpy(&utility->database, ((CreatedbStmt *) statement)->dbname);
	else if (IsA(statement, AlterDatabaseStmt) &&
			 (dja_find_option(alter->options, "allow_connections", NULL) != NULL ||
			  dja_find_option(alter->options, "is_template", NULL) != NULL))
		namestrcpy(&utility->database, alter->dbname);

	if (needed == NULL || (!IsA(statement, RenameStmt) && IsInTransactionBlock(utility->top_level)))
		return;
	database = get_database_oid(needed, true);
	if (OidIsValid(database) && database != MyDatabaseId &&
		dja_may_need_database(database, statement) && dja_lock_out_workers(database))
		utility->locked_out = database;
}

/*
 * Ends the lockout, since the transaction may go on.
 */
void
dja_failed_database(DjaUtility *utility)
{
	if (!OidIsValid(utility->locked_out))
		return;
	dja_lock();
	dja_lockout_end(utility->locked_out);
	dja_unlock();
	dja_ring_launcher();
}

/*
 * Sends a scout into a database that was created, or that is open now: no scout
 * looks into one without connections, nor into a template.
 */
void
dja_after_database(DjaUtility *utility)
{
	char	   *name = NameStr(utility->database);
	Oid			database;
	bool		allows_connections;
	bool		is_template;

	if (utility->tag == T_DropdbStmt && OidIsValid(utility->locked_out))
		dja_pending.dropped = utility->locked_out;
	else if (utility->tag == T_CreatedbStmt)
		dja_pending_created(get_database_oid(name, true));
	else if (utility->tag == T_AlterDatabaseStmt && name[0] != '\0')
	{
		CommandCounterIncrement();
		database = get_database_oid(name, false);
		dja_read_database(database, &allows_connections, &is_template);
		if (allows_connections && !is_template)
			dja_pending_scout(database);
	}
}
