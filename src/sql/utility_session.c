/*
 * utility_session.c
 *
 * Commands that concern the sessions of workers.
 *
 * ALTER ROLE ... SET and ALTER DATABASE ... SET change what a new session starts
 * with: fresh workers take over.
 *
 * PREPARE, DECLARE CURSOR and SET CONSTRAINTS outlive the turn that runs them,
 * and the next turns of its batch would meet what they leave: the batch ends
 * after that turn.  Settings are undone after each turn anyway, and temporary
 * tables are looked for.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "sql/utility_hook.h"
#include "turn/session.h"
#include "xact/pending.h"

void
dja_before_settings(DjaUtility *utility)
{
	AlterRoleSetStmt *alter = (AlterRoleSetStmt *) utility->statement;
	char	   *database;

	if (IsA(alter, AlterRoleSetStmt))
	{
		database = alter->database;
		utility->role = alter->role ? get_rolespec_oid(alter->role, true) : InvalidOid;
	}
	else
		database = ((AlterDatabaseSetStmt *) alter)->dbname;
	if (database != NULL)
		namestrcpy(&utility->database, database);
}

/*
 * No database means all of them, no role likewise.
 */
void
dja_after_settings(DjaUtility *utility)
{
	char	   *database = NameStr(utility->database);

	dja_pending_renew(database[0] ? get_database_oid(database, true) : InvalidOid, utility->role);
}

void
dja_before_session(DjaUtility *utility)
{
	dja_session_touched = true;
}
