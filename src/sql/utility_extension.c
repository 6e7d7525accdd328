/*
 * utility_extension.c
 *
 * CREATE, ALTER and DROP EXTENSION djactor.
 *
 * Afterwards a scout looks at the database, and sessions forget what they know
 * of the extension's tables.  ALTER waits for running batches; DROP does so by
 * itself.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"

#include "shmem/shmem.h"
#include "sql/utility_hook.h"
#include "tables/catalog.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_check_preload);

/*
 * Dropping another extension counts too, since CASCADE may drop djactor with it.
 */
void
dja_before_extension(DjaUtility *utility)
{
	Node	   *statement = utility->statement;

	if (IsA(statement, DropStmt))
		utility->changes_types = ((DropStmt *) statement)->removeType == OBJECT_EXTENSION;
	else if (IsA(statement, CreateExtensionStmt))
		utility->changes_types = strcmp(((CreateExtensionStmt *) statement)->extname, "djactor") == 0;
	else if (strcmp(((AlterExtensionStmt *) statement)->extname, "djactor") == 0)
	{
		utility->changes_types = true;
		dja_catalog_lock();
	}
}

void
dja_after_extension(DjaUtility *utility)
{
	if (!utility->changes_types)
		return;
	dja_pending_scout(MyDatabaseId);
	dja_catalog_forget();
}

/*
 * check_preload(): warns at CREATE EXTENSION that without the preload nothing
 * would ever run.
 */
Datum
dja_check_preload(PG_FUNCTION_ARGS)
{
	if (dja_shared == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("djactor is not loaded by the server: sending will raise an error"),
				 errhint("Add djactor to shared_preload_libraries and restart the server.")));
	PG_RETURN_VOID();
}
