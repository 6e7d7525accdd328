/*
 * utility_copy.c
 *
 * COPY into a table of djactor, as pg_dump writes it.
 *
 * It restores mail before the types of that mail, and types that nobody has
 * defined here.  A database that has received such rows is a copy
 * (copy_check.c).  dump_insert.c sees to the INSERTs of a dump.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/parsenodes.h"

#include "sql/utility_hook.h"
#include "tables/catalog.h"
#include "xact/copy_check.h"
#include "xact/pending.h"

/*
 * Does a COPY write a column?  No list of columns means all of them.
 */
static bool
dja_copies_column(CopyStmt *copy, const char *name)
{
	ListCell   *lc;

	foreach(lc, copy->attlist)
	{
		if (strcmp(strVal(lfirst(lc)), name) == 0)
			return true;
	}
	return copy->attlist == NIL;
}

/*
 * Only a superuser may load whole tables; senders have no right to write an id.
 */
void
dja_before_copy(DjaUtility *utility)
{
	CopyStmt   *copy = (CopyStmt *) utility->statement;
	RangeVar   *table = copy->relation;

	if (!copy->is_from || table == NULL || table->schemaname == NULL ||
		strcmp(table->schemaname, "djactor") != 0 || !superuser())
		return;
	if (strcmp(table->relname, "message") == 0)
		utility->restores_mail = utility->changes_types = dja_copies_column(copy, "id");
	else if (strcmp(table->relname, "timer") == 0 || strcmp(table->relname, "home") == 0)
		utility->restores_mail = true;
	else if (strcmp(table->relname, "actor_type") == 0)
		utility->changes_types = true;
	dja_restoring |= utility->restores_mail;
}

void
dja_failed_copy(DjaUtility *utility)
{
	if (utility->restores_mail)
		dja_restoring = false;
}

void
dja_after_copy(DjaUtility *utility)
{
	if (utility->restores_mail)
		dja_restoring = false;
	if (utility->restores_mail && utility->rows > 0)
		dja_home_restored();
	if (utility->changes_types)
	{
		dja_pending_scout(MyDatabaseId);
		dja_catalog_forget();
	}
}
