/*
 * utility_trigger.c
 *
 * ALTER TABLE djactor.message ENABLE TRIGGER ALL, or USER, would also enable the
 * trigger of copy_replication.c for what is sent here, and all of that would be
 * put aside.  So the command gets one more action, which has that trigger fire
 * for replication only, as it was made.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "nodes/parsenodes.h"
#include "utils/lsyscache.h"

#include "sql/utility_hook.h"
#include "tables/catalog.h"

void
dja_before_trigger(DjaUtility *utility)
{
	AlterTableStmt *alter = (AlterTableStmt *) utility->statement;
	AlterTableCmd *again;
	ListCell   *lc;
	bool		all = false;
	Oid			relid;

	foreach(lc, alter->cmds)
	{
		AlterTableType subtype = lfirst_node(AlterTableCmd, lc)->subtype;

		all |= subtype == AT_EnableTrigAll || subtype == AT_EnableTrigUser;
	}
	if (!all || alter->objtype != OBJECT_TABLE)
		return;
	relid = RangeVarGetRelid(alter->relation, NoLock, true);
	if (!OidIsValid(relid) || strcmp(get_rel_name(relid), "message") != 0 ||
		dja_catalog_check(false) != DJA_INSTALLED || relid != dja_table_oid(DJA_MESSAGE_TABLE))
		return;
	again = makeNode(AlterTableCmd);
	again->subtype = AT_EnableReplicaTrig;
	again->name = pstrdup("arrived");
	utility->plan = copyObject(utility->plan);
	alter = (AlterTableStmt *) utility->plan->utilityStmt;
	alter->cmds = lappend(alter->cmds, again);
}
