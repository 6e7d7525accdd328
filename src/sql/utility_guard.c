/*
 * utility_guard.c
 *
 * The server locks some objects before it checks the user's right to them, or
 * requires no right at all:
 *
 *   DROP EXTENSION				locks the extension, then checks its owner
 *   ALTER ... DEPENDS ON EXTENSION	locks it, until the transaction ends, and checks nothing
 *   CREATE TRIGGER, CREATE RULE	lock the table, then check
 *   FOREIGN KEY				likewise
 *   PARTITION OF, ATTACH, DETACH	likewise, also the index of ALTER INDEX
 *   ALTER INDEX or MATERIALIZED VIEW ... DEPENDS ON EXTENSION	likewise, the object that it names
 *
 * For such a lock a command waits until the longest handler has come to its end,
 * and all other workers and senders wait for the command.  Any role that may
 * connect could stop all work that way.  So a user without the right is refused
 * here, before anything is locked.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "nodes/parsenodes.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "sql/utility_guard.h"
#include "tables/catalog.h"

/*
 * Returns the table of the extension that a name means, or to which the index of
 * that name belongs; InvalidOid if it is no table of the extension.
 */
static Oid
dja_find_guarded(RangeVar *name, LOCKMODE lockmode, Oid extension)
{
	Oid			relid = RangeVarGetRelid(name, lockmode, true);
	char		relkind = OidIsValid(relid) ? get_rel_relkind(relid) : '\0';

	if (relkind == RELKIND_INDEX || relkind == RELKIND_PARTITIONED_INDEX)
		relid = IndexGetRelation(relid, true);
	if (!OidIsValid(relid) || getExtensionOfObject(RelationRelationId, relid) != extension)
		return InvalidOid;
	return relid;
}

/*
 * Would a name without a schema mean a table of the extension, if the table that
 * it means now were not there?
 */
static bool
dja_shadows(RangeVar *name)
{
	Oid			schema = name->schemaname ? InvalidOid : get_namespace_oid("djactor", true);
	List	   *path;
	bool		shadows;

	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid(name->relname, schema)))
		return false;
	path = fetch_search_path(false);
	shadows = list_member_oid(path, schema);
	list_free(path);
	return shadows;
}

/*
 * Raises 42501 if a table, or the table of an index, is the extension's and the
 * user lacks a right to it; right 0 means to own it.
 */
static void
dja_guard_table(RangeVar *name, AclMode right)
{
	Oid			extension = get_extension_oid("djactor", true);
	Oid			relid;

	if (name == NULL || !OidIsValid(extension))
		return;
	relid = dja_find_guarded(name, NoLock, extension);

	/*
	 * A table that hides ours could be dropped meanwhile.  With a lock it
	 * stays.
	 */
	if (!OidIsValid(relid) && dja_shadows(name))
		relid = dja_find_guarded(name, AccessShareLock, extension);
	if (!OidIsValid(relid) || dja_owns_table(relid, GetUserId()))
		return;
	if (right == 0)
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, name->relname);
	if (pg_class_aclcheck(relid, GetUserId(), right) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, GetUserId(), right, ACLMASK_ANY) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, name->relname);
}

static void
dja_guard_constraints(List *constraints)
{
	ListCell   *lc;

	foreach(lc, constraints)
	{
		Constraint *constraint = lfirst(lc);

		if (IsA(constraint, Constraint) && constraint->contype == CONSTR_FOREIGN)
			dja_guard_table(constraint->pktable, ACL_REFERENCES);
	}
}

/*
 * Checks the tables that ALTER TABLE names beside its own.  The foreign keys of
 * CREATE TABLE come here too, as commands of their own.
 */
static void
dja_guard_alter_table(AlterTableStmt *statement)
{
	ListCell   *lc;

	foreach(lc, statement->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, lc);

		if (command->def == NULL)
			continue;
		if (IsA(command->def, Constraint))
			dja_guard_constraints(list_make1(command->def));
		else if (IsA(command->def, ColumnDef))
			dja_guard_constraints(((ColumnDef *) command->def)->constraints);
		else if (IsA(command->def, PartitionCmd))
			dja_guard_table(((PartitionCmd *) command->def)->name, 0);
	}
}

static void
dja_guard_create_table(CreateStmt *statement)
{
	ListCell   *lc;

	if (statement->partbound == NULL)
		return;
	foreach(lc, statement->inhRelations)
		dja_guard_table(lfirst_node(RangeVar, lc), 0);
}

/*
 * Checks the user's rights for a utility command, before the server sees it.
 */
void
dja_guard_utility(Node *statement)
{
	ListCell   *lc;

	switch (nodeTag(statement))
	{
		case T_DropStmt:
			if (((DropStmt *) statement)->removeType != OBJECT_EXTENSION)
				break;
			foreach(lc, ((DropStmt *) statement)->objects)
			{
				if (strcmp(strVal(lfirst(lc)), "djactor") == 0)
					dja_catalog_check_owner();
			}
			break;
		case T_AlterObjectDependsStmt:
			if (strcmp(strVal(((AlterObjectDependsStmt *) statement)->extname), "djactor") == 0)
				dja_catalog_check_owner();
			dja_guard_table(((AlterObjectDependsStmt *) statement)->relation, 0);
			break;
		case T_CreateStmt:
			dja_guard_create_table((CreateStmt *) statement);
			break;
		case T_CreateForeignTableStmt:
			dja_guard_create_table(&((CreateForeignTableStmt *) statement)->base);
			break;
		case T_CreateTrigStmt:
			dja_guard_table(((CreateTrigStmt *) statement)->relation, ACL_TRIGGER);
			break;
		case T_RuleStmt:
			dja_guard_table(((RuleStmt *) statement)->relation, 0);
			break;
		case T_AlterTableStmt:
			dja_guard_alter_table((AlterTableStmt *) statement);
			break;
		default:
			break;
	}
}
