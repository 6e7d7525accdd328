/*
 * dump_insert.c
 *
 * A dump made of INSERTs gives messages their ids, with OVERRIDING SYSTEM VALUE.
 * No sender does that.  Several sessions may load the dump, some before they see
 * its row of djactor.home, and with the triggers off (--disable-triggers).
 *
 * So the INSERT itself is looked at, each time that it runs, however long ago it
 * was parsed or planned.  A plan does not keep OVERRIDING, but the statement names
 * the column id, and its value does not come from the sequence.  The mark that the
 * database is a copy is written in the same transaction as the rows.  Whatever
 * undoes the rows undoes the mark, and nothing is left in the session.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "executor/executor.h"
#include "nodes/primnodes.h"
#include "parser/parsetree.h"

#include "base/columns.h"
#include "base/compat.h"
#include "shmem/slots.h"
#include "sql/dump_insert.h"
#include "tables/catalog.h"
#include "xact/copy_check.h"

static ExecutorFinish_hook_type dja_prev_executor_finish = NULL;

/*
 * Is this an INSERT into djactor.message that gives the ids?
 */
static bool
dja_plan_gives_ids(QueryDesc *query, Plan *plan)
{
	ModifyTable *insert = (ModifyTable *) plan;
	TargetEntry *id;
	Index		rti;
	Relation	rel;

	if (plan == NULL || !IsA(plan, ModifyTable) || insert->operation != CMD_INSERT ||
		outerPlan(plan) == NULL)
		return false;
	rti = linitial_int(insert->resultRelations);
	rel = query->estate->es_relations[rti - 1];
	if (rel == NULL || strcmp(RelationGetRelationName(rel), "message") != 0 ||
		!bms_is_member(DJA_MSG_ID - FirstLowInvalidHeapAttributeNumber,
					   dja_inserted_columns(query->plannedstmt,
											rt_fetch(rti, query->plannedstmt->rtable))))
		return false;
	id = get_tle_by_resno(outerPlan(plan)->targetlist, DJA_MSG_ID);
	if (id == NULL || IsA(id->expr, NextValueExpr))
		return false;
	return dja_catalog_check(false) == DJA_INSTALLED &&
		RelationGetRelid(rel) == dja_table_oid(DJA_MESSAGE_TABLE);
}

/*
 * Does this query restore messages?  Only a superuser may; senders have no right
 * to write an id.
 */
static bool
dja_gives_ids(QueryDesc *query)
{
	PlannedStmt *plan = query->plannedstmt;
	ListCell   *lc;

	if ((query->operation != CMD_INSERT && !plan->hasModifyingCTE) ||
		dja_my_worker != NULL || !superuser())
		return false;
	if (query->operation == CMD_INSERT && query->estate->es_processed > 0 &&
		dja_plan_gives_ids(query, plan->planTree))
		return true;
	if (!plan->hasModifyingCTE)
		return false;
	foreach(lc, plan->subplans)
	{
		if (dja_plan_gives_ids(query, lfirst(lc)))
			return true;
	}
	return false;
}

/*
 * Runs ExecutorFinish, in which the trigger sees the rows.
 */
static void
dja_executor_finish(QueryDesc *query)
{
	bool		gives_ids = dja_gives_ids(query);
	bool		before = dja_restoring;

	dja_restoring |= gives_ids;
	PG_TRY();
	{
		(dja_prev_executor_finish ? dja_prev_executor_finish : standard_ExecutorFinish) (query);
	}
	PG_FINALLY();
	{
		dja_restoring = before;
	}
	PG_END_TRY();
	if (gives_ids)
		dja_home_restored_rows();
}

void
dja_dump_insert_init(void)
{
	dja_prev_executor_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = dja_executor_finish;
}
