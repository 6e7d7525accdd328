/*
 * dbhook.c
 *
 * Utility commands that djactor has to know of:
 *
 *   COMMIT PREPARED		makes messages visible that nobody pushes: lanes are swept
 *   CREATE DATABASE		may be a copy with actors in it: the launcher scouts
 *   CREATE, ALTER, DROP EXTENSION djactor	likewise, and sessions forget what they know of it
 */
#include "postgres.h"

#include "catalog.h"
#include "compat.h"
#include "dbhook.h"
#include "nodes/parsenodes.h"
#include "pending.h"
#include "shmem.h"
#include "tcop/utility.h"
#include "utils/inval.h"

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

static void
dja_process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
					ProcessUtilityContext context, ParamListInfo params,
					QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;
	volatile bool prepared = dja_is_commit_prepared(statement);
	volatile bool changes = dja_changes_installation(statement);

	if (prepared)
		dja_pending_prepared(true);
	PG_TRY();
	{
		(dja_prev_process_utility ? dja_prev_process_utility : standard_ProcessUtility)
			(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	}
	PG_FINALLY();
	{
		if (prepared)
			dja_pending_prepared(false);
	}
	PG_END_TRY();
	if (changes)
	{
		dja_pending_scout();
		dja_catalog_forget();
	}
}

void
dja_dbhook_init(void)
{
	dja_prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = dja_process_utility;
}
