/*
 * utility_hook.c
 *
 * Utility commands that djactor has to know of:
 *
 *   COMMIT PREPARED		makes messages visible that nobody pushes: type queues are swept
 *   CREATE DATABASE		may be a copy with actors in it: the launcher scouts, after a while
 *   ALTER DATABASE ALLOW_CONNECTIONS or IS_TEMPLATE	may open one: likewise
 *   ALTER ROLE or DATABASE ... SET	workers are sessions, too: fresh ones take over
 *   CREATE, ALTER, DROP EXTENSION djactor	likewise, and sessions forget what they know of it;
 *							ALTER waits for running batches, as DROP does by itself
 *   COPY into our tables	may be a restore, which brings mail before its types,
 *							and types that nobody defined; the database is a copy then
 *   ENABLE TRIGGER ALL	the trigger for what arrives by replication fires for that only
 *   PREPARE, DECLARE CURSOR, SET CONSTRAINTS	outlive the turn that runs them
 *   DROP DATABASE, ALTER DATABASE RENAME or SET TABLESPACE, CREATE DATABASE with a template
 *							want a database without sessions: its workers, and a scout, have to go
 *
 * Workers are stopped only for a command that its user may run, as far as can
 * be told before it runs; else anybody could stop them.  The hold that keeps
 * new ones away ends with the transaction, whatever becomes of it, or with a
 * command that fails.
 *
 * A command's tree is read only before it runs.  A procedure that was called by
 * a prepared statement may deallocate that and roll back: then its plan, and the
 * tree in it, are gone when it returns.  So what is to be done afterwards stands
 * in a DjaAfter, which points to nothing.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "shmem/slots.h"
#include "sql/utility_guard.h"
#include "sql/utility_hook.h"
#include "tables/catalog.h"
#include "turn/session.h"
#include "xact/copy_check.h"
#include "xact/pending.h"
#include "xact/prepared.h"

#define DJA_STOP_MS 500			/* for the end of the running batch; then it
								 * is cut off */
#define DJA_GONE_MS 5000

/* What to do after a command. */
typedef struct DjaAfter
{
	bool		dropped;		/* the database that it held is gone */
	bool		restored;		/* this is a copy now, if any row came */
	bool		opened;			/* database may be open for workers now */
	bool		created;		/* database is new */
	bool		set;			/* what sessions have in database, or all, of
								 * role, or all, is another */
	Oid			role;
	bool		changed;		/* sessions forget what they know; a scout
								 * looks here, or into what was created */
	NameData	database;
} DjaAfter;

static ProcessUtility_hook_type dja_prev_process_utility = NULL;

static bool
dja_is_commit_prepared(Node *statement)
{
	return IsA(statement, TransactionStmt) &&
		((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED;
}

/*
 * Does this command bring or change an installation of the extension?
 */
static bool
dja_changes_installation(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_CreatedbStmt:
			return true;
		case T_CreateExtensionStmt:
			return strcmp(((CreateExtensionStmt *) statement)->extname, "djactor") == 0;
		case T_AlterExtensionStmt:
			return strcmp(((AlterExtensionStmt *) statement)->extname, "djactor") == 0;
		case T_DropStmt:
			return ((DropStmt *) statement)->removeType == OBJECT_EXTENSION;
		default:
			return false;
	}
}

/*
 * Does what this command does outlive the turn that runs it, to be met by the
 * next ones of its batch?  Settings are undone anyway, temporary tables looked
 * for.
 */
static bool
dja_outlives_turn(Node *statement)
{
	return IsA(statement, PrepareStmt) || IsA(statement, DeclareCursorStmt) ||
		IsA(statement, ConstraintsSetStmt);
}

/*
 * Is this COPY what a dump has to say of a table of ours?  Only a superuser may
 * load whole tables; senders have no right to write an id.
 */
static bool
dja_restores(Node *statement, const char *table)
{
	CopyStmt   *copy = (CopyStmt *) statement;

	return IsA(statement, CopyStmt) && copy->is_from && copy->relation != NULL &&
		copy->relation->schemaname != NULL && superuser() &&
		strcmp(copy->relation->schemaname, "djactor") == 0 &&
		strcmp(copy->relation->relname, table) == 0;
}

static bool
dja_lists_column(List *columns, const char *name)
{
	ListCell   *lc;

	if (columns == NIL)
		return true;			/* all of them */
	foreach(lc, columns)
	{
		if (strcmp(strVal(lfirst(lc)), name) == 0)
			return true;
	}
	return false;
}

static const char *
dja_option(List *options, const char *name, const char *otherwise)
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
 * The name of the database that this command wants without sessions, NULL if
 * none. template tells that a copy is made of it; createdb, that the right to
 * create databases is wanted too.
 */
static const char *
dja_wanted_database(Node *statement, bool *template, bool *createdb)
{
	*template = *createdb = false;
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_RenameStmt:
			*createdb = true;
			return ((RenameStmt *) statement)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) statement)->subname : NULL;
		case T_AlterDatabaseStmt:
			return dja_option(((AlterDatabaseStmt *) statement)->options, "tablespace", NULL) ?
				((AlterDatabaseStmt *) statement)->dbname : NULL;
		case T_CreatedbStmt:
			*template = *createdb = true;
			return dja_option(((CreatedbStmt *) statement)->options, "template", "template1");
		default:
			return NULL;
	}
}

/*
 * May the user do that to this database?  The server asks again, later.
 */
static bool
dja_may_take(Oid database, bool template, bool createdb)
{
	HeapTuple	tuple;
	bool		may = true;

	if (superuser())
		return true;
	if (createdb)
	{
		tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
		may = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		if (HeapTupleIsValid(tuple))
			ReleaseSysCache(tuple);
	}
	if (!may || dja_owns_database(database, GetUserId()))
		return may;
	if (!template)
		return false;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	may = HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return may;
}

/*
 * May this command open a database for workers?
 */
static bool
dja_opens_database(Node *statement)
{
	AlterDatabaseStmt *alter = (AlterDatabaseStmt *) statement;

	return IsA(statement, AlterDatabaseStmt) &&
		(dja_option(alter->options, "allow_connections", NULL) != NULL ||
		 dja_option(alter->options, "is_template", NULL) != NULL);
}

/*
 * Such a command has run: the database, if it is open, which no scout looks
 * into before; else InvalidOid.
 */
static Oid
dja_opened_database(const char *name)
{
	HeapTuple	tuple;
	Oid			database;
	bool		open;

	CommandCounterIncrement();
	database = get_database_oid(name, false);
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	open = ((Form_pg_database) GETSTRUCT(tuple))->datallowconn &&
		!((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return open ? database : InvalidOid;
}

/*
 * Waits until the processes are gone; true if they are in time.
 */
static bool
dja_wait_gone(int *pids, int n, int timeout)
{
	static uint32 wait_event = 0;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);

	for (int i = 0; i < n;)
	{
		if (BackendPidGetProc(pids[i]) == NULL)
		{
			i++;
			continue;
		}
		if (GetCurrentTimestamp() >= until)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 5,
						 DJA_WAIT_EVENT(wait_event, "DjactorStopWorkers"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/*
 * ALTER TABLE djactor.message ENABLE TRIGGER ALL, or USER, leaves the trigger
 * of copy_replication.c as it was made: else all that is sent would be put aside.
 */
static PlannedStmt *
dja_keep_replica_trigger(PlannedStmt *pstmt)
{
	AlterTableStmt *alter = (AlterTableStmt *) pstmt->utilityStmt;
	AlterTableCmd *again;
	ListCell   *lc;
	bool		all = false;
	Oid			relid;

	if (!IsA(alter, AlterTableStmt) || alter->objtype != OBJECT_TABLE)
		return pstmt;
	foreach(lc, alter->cmds)
	{
		AlterTableType subtype = lfirst_node(AlterTableCmd, lc)->subtype;

		all |= subtype == AT_EnableTrigAll || subtype == AT_EnableTrigUser;
	}
	if (!all)
		return pstmt;
	relid = RangeVarGetRelid(alter->relation, NoLock, true);
	if (!OidIsValid(relid) || strcmp(get_rel_name(relid), "message") != 0 ||
		dja_catalog_check(false) != DJA_INSTALLED || relid != dja_table_oid(DJA_MESSAGE_TABLE))
		return pstmt;
	pstmt = copyObject(pstmt);
	again = makeNode(AlterTableCmd);
	again->subtype = AT_EnableReplicaTrig;
	again->name = pstrdup("arrived");
	alter = (AlterTableStmt *) pstmt->utilityStmt;
	alter->cmds = lappend(alter->cmds, again);
	return pstmt;
}

/*
 * Clears a database of workers for a command that wants it without sessions.
 * Returns the database, if this command holds it now.
 */
static Oid
dja_clear_database(Node *statement, ProcessUtilityContext context)
{
	bool		template;
	bool		createdb;
	const char *name = dja_wanted_database(statement, &template, &createdb);
	Oid			database;
	int		   *pids;
	int			n;
	int			scout;
	bool		held;

	if (name == NULL)
		return InvalidOid;

	/*
	 * the server refuses these there, so they are no reason to stop anything
	 */
	if (!IsA(statement, RenameStmt) &&
		IsInTransactionBlock(context == PROCESS_UTILITY_TOPLEVEL))
		return InvalidOid;
	database = get_database_oid(name, true);
	if (!OidIsValid(database) || database == MyDatabaseId ||
		!dja_may_take(database, template, createdb))
		return InvalidOid;

	pids = palloc(sizeof(int) * (dja_max_workers + 1));
	dja_lock();
	held = dja_lockout_begin(database);
	n = held ? dja_stop_workers(database, pids) : 0;
	scout = held ? dja_stop_scout(database) : 0;
	dja_unlock();
	if (!held)
		return InvalidOid;		/* the server will say that the database is in
								 * use */
	dja_pending_lockout();
	if (scout != 0)
		pids[n++] = scout;

	if (!dja_wait_gone(pids, n, DJA_STOP_MS))
	{
		/*
		 * in a long handler: it is cut off, and its message not charged; a
		 * scout waits for a lock
		 */
		for (int i = 0; i < n; i++)
			if (BackendPidGetProc(pids[i]) != NULL)
				kill(pids[i], SIGTERM);
		(void) dja_wait_gone(pids, n, DJA_GONE_MS);
	}
	pfree(pids);
	return database;
}

/*
 * The command has failed: what it held is free again, though the transaction
 * may go on.
 */
static void
dja_let_go(Oid database)
{
	dja_lock();
	dja_lockout_end(database);
	dja_unlock();
	dja_ring_launcher();
}

/*
 * Before the command runs: what is to be done after it?
 */
static void
dja_plan_after(Node *statement, DjaAfter *after)
{
	memset(after, 0, sizeof(DjaAfter));
	after->dropped = IsA(statement, DropdbStmt);
	after->changed = dja_changes_installation(statement);
	after->created = IsA(statement, CreatedbStmt);
	after->opened = dja_opens_database(statement);
	if (after->created)
		namestrcpy(&after->database, ((CreatedbStmt *) statement)->dbname);
	else if (after->opened)
		namestrcpy(&after->database, ((AlterDatabaseStmt *) statement)->dbname);

	if (IsA(statement, AlterDatabaseSetStmt))
	{
		after->set = true;
		namestrcpy(&after->database, ((AlterDatabaseSetStmt *) statement)->dbname);
	}
	else if (IsA(statement, AlterRoleSetStmt))
	{
		AlterRoleSetStmt *alter = (AlterRoleSetStmt *) statement;

		after->set = true;
		after->role = alter->role ? get_rolespec_oid(alter->role, true) : InvalidOid;
		if (alter->database != NULL)
			namestrcpy(&after->database, alter->database);
	}

	if (dja_restores(statement, "actor_type"))
		after->changed = true;
	else if (dja_restores(statement, "message"))
		after->changed = after->restored = dja_lists_column(((CopyStmt *) statement)->attlist, "id");
	else if (dja_restores(statement, "timer") || dja_restores(statement, "home"))
		after->restored = true;
}

static void
dja_do_after(DjaAfter *after, Oid held, QueryCompletion *qc)
{
	if (after->dropped && OidIsValid(held))
		dja_pending_dropped(held);
	if (after->restored && (qc == NULL || qc->nprocessed > 0))
		dja_home_restored();
	if (after->opened)
	{
		Oid			opened = dja_opened_database(NameStr(after->database));

		if (OidIsValid(opened))
			dja_pending_scout(opened);
	}
	if (after->set)
		dja_pending_renew(NameStr(after->database)[0] == '\0' ? InvalidOid :
						  get_database_oid(NameStr(after->database), true), after->role);
	if (after->changed)
	{
		if (after->created)
			dja_pending_created(get_database_oid(NameStr(after->database), true));
		else
			dja_pending_scout(MyDatabaseId);
		dja_catalog_forget();
	}
}

static void
dja_process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
					ProcessUtilityContext context, ParamListInfo params,
					QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;
	volatile bool prepared = dja_is_commit_prepared(statement);
	volatile bool done = false;
	volatile Oid held;
	PlannedStmt *volatile run;
	DjaAfter	after;

	dja_guard(statement);
	run = dja_keep_replica_trigger(pstmt);
	dja_plan_after(statement, &after);
	if (IsA(statement, AlterExtensionStmt) && after.changed)
		dja_catalog_lock();
	held = dja_clear_database(statement, context);
	dja_session_touched |= dja_outlives_turn(statement);
	if (prepared)
		dja_prepared_begin();
	dja_restoring = after.restored;
	PG_TRY();
	{
		(dja_prev_process_utility ? dja_prev_process_utility : standard_ProcessUtility)
			(run, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
		done = true;
	}
	PG_FINALLY();
	{
		/* pstmt, run and statement may be gone, and another transaction begun */
		if (prepared)
			dja_prepared_end();
		dja_restoring = false;
		if (!done && OidIsValid(held))
			dja_let_go(held);
	}
	PG_END_TRY();
	dja_do_after(&after, held, qc);
}

void
dja_dbhook_init(void)
{
	dja_prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = dja_process_utility;
}
