/*
 * utility_hook.c
 *
 * The utility commands that concern djactor, and the functions that run around
 * each.  The guard sees a command before them, and may refuse it.
 */
#include "postgres.h"

#include "tcop/utility.h"

#include "sql/utility_guard.h"
#include "sql/utility_hook.h"

typedef void (*DjaUtilityFunction) (DjaUtility *utility);

typedef struct DjaUtilitySubject
{
	NodeTag		tag;
	DjaUtilityFunction before;
	DjaUtilityFunction after;	/* it has succeeded; NULL = nothing to do */
	DjaUtilityFunction failed;	/* raises no error; NULL = nothing to do */
} DjaUtilitySubject;

/*
 * The functions of a row see each command of its tag, and find out themselves
 * whether it concerns djactor.  If before() raises an error, failed() is not
 * called.
 */
static const DjaUtilitySubject dja_utility_subjects[] = {
	{T_CopyStmt, dja_before_copy, dja_after_copy, dja_failed_copy},
	{T_CreatedbStmt, dja_before_database, dja_after_database, dja_failed_database},
	{T_DropdbStmt, dja_before_database, dja_after_database, dja_failed_database},
	{T_AlterDatabaseStmt, dja_before_database, dja_after_database, dja_failed_database},
	{T_RenameStmt, dja_before_database, dja_after_database, dja_failed_database},
	{T_CreateExtensionStmt, dja_before_extension, dja_after_extension, NULL},
	{T_AlterExtensionStmt, dja_before_extension, dja_after_extension, NULL},
	{T_DropStmt, dja_before_extension, dja_after_extension, NULL},
	{T_TransactionStmt, dja_before_prepared, dja_after_prepared, dja_failed_prepared},
	{T_AlterDatabaseSetStmt, dja_before_settings, dja_after_settings, NULL},
	{T_AlterRoleSetStmt, dja_before_settings, dja_after_settings, NULL},
	{T_PrepareStmt, dja_before_session, NULL, NULL},
	{T_DeclareCursorStmt, dja_before_session, NULL, NULL},
	{T_ConstraintsSetStmt, dja_before_session, NULL, NULL},
	{T_AlterTableStmt, dja_before_trigger, NULL, NULL},
	{T_Invalid, NULL, NULL, NULL}	/* any other */
};

static ProcessUtility_hook_type dja_prev_process_utility = NULL;

static const DjaUtilitySubject *
dja_find_utility_subject(NodeTag tag)
{
	const DjaUtilitySubject *subject = dja_utility_subjects;

	while (subject->tag != T_Invalid && subject->tag != tag)
		subject++;
	return subject;
}

static void
dja_process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
					ProcessUtilityContext context, ParamListInfo params,
					QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	DjaUtility	utility = {
		.tag = nodeTag(pstmt->utilityStmt),
		.top_level = context == PROCESS_UTILITY_TOPLEVEL,
		.plan = pstmt,
		.statement = pstmt->utilityStmt
	};
	const DjaUtilitySubject *volatile subject = dja_find_utility_subject(utility.tag);
	PlannedStmt *plan;

	dja_guard_utility(utility.statement);
	if (subject->before != NULL)
		subject->before(&utility);
	plan = utility.plan;		/* may be gone with its tree afterwards */
	utility.plan = NULL;
	utility.statement = NULL;
	PG_TRY();
	{
		(dja_prev_process_utility ? dja_prev_process_utility : standard_ProcessUtility)
			(plan, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	}
	PG_CATCH();
	{
		if (subject->failed != NULL)
			subject->failed(&utility);
		PG_RE_THROW();
	}
	PG_END_TRY();
	utility.rows = qc ? qc->nprocessed : 1;
	if (subject->after != NULL)
		subject->after(&utility);
}

/*
 * Installs the hook, when the server loads the library.
 */
void
dja_utility_init(void)
{
	dja_prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = dja_process_utility;
}
