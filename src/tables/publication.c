/*
 * publication.c
 *
 * Refuses to write where a publication would keep changes from subscribers.
 *
 * A subscriber identifies an updated or deleted row by the columns of its replica
 * identity.  A publication's row filter may need other columns, and its column
 * list may lack some.  Then the executor refuses to update or delete, since no
 * subscriber could follow.  djactor writes without the executor, so it has to
 * check the same: otherwise each handled message would stay at the subscriber for
 * ever.
 *
 * The check is made when a table's writer first updates or deletes, and for all
 * tables before a batch reads mail.  An error then is blamed on no message, no
 * handler has run, and mail waits.  For the latter check, success is remembered
 * until the server reports a change of one of the tables or of its publications.
 */
#include "postgres.h"

#include "access/table.h"

#include "base/compat.h"
#include "tables/catalog.h"
#include "tables/publication.h"

/* djactor itself deletes from all of its tables, and updates these. */
static const bool dja_updates[DJA_NTABLES] = {
	[DJA_ACTOR_TYPE_TABLE] = true,
	[DJA_ACTOR_TABLE] = true,
	[DJA_MESSAGE_TABLE] = true,
	[DJA_TIMER_TABLE] = true,
	[DJA_ONCE_TABLE] = true,
	[DJA_HISTORY_TABLE] = true,
};

/*
 * dja_catalog_state, which begins with 1, when the check last succeeded.
 */
static uint64 dja_well_at = 0;

/*
 * Raises 42P10 if subscribers could not follow what this command does to the
 * table.
 */
void
dja_refuse_unheard(Relation rel, CmdType command)
{
	const char *what = command == CMD_UPDATE ? "updated" : "deleted";

	switch (dja_publication_fault(rel, command))
	{
		case DJA_PUBLICATION_FINE:
			return;
		case DJA_PUBLICATION_PARTIAL:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("a publication of table djactor.%s keeps djactor from writing there",
							RelationGetRelationName(rel)),
					 errdetail("Its row filter or list of columns does not go with the table's replica identity, so subscribers would not hear of %s rows.",
							   what),
					 errhint("Publish the table without them, or nothing but its inserts. See pg_publication_tables.")));
		case DJA_PUBLICATION_BLIND:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("a publication of table djactor.%s keeps djactor from writing there",
							RelationGetRelationName(rel)),
					 errdetail("The table has no replica identity, so subscribers would not hear of %s rows.",
							   what),
					 errhint("Use ALTER TABLE djactor.%s REPLICA IDENTITY %s.",
							 RelationGetRelationName(rel),
							 OidIsValid(rel->rd_pkindex) ? "DEFAULT" : "FULL")));
	}
}

/*
 * Likewise for all tables that mail needs, and for each command that djactor uses on
 * them.
 */
void
dja_check_published(void)
{
	uint64		state = dja_catalog_state;

	if (dja_well_at == state)
		return;
	for (DjaTable t = 0; t < DJA_NTABLES; t++)
	{
		Relation	rel;

		if (t == DJA_HISTORY_TABLE)
			continue;
		rel = table_open(dja_table_oid(t), AccessShareLock);
		if (dja_updates[t])
			dja_refuse_unheard(rel, CMD_UPDATE);
		dja_refuse_unheard(rel, CMD_DELETE);
		table_close(rel, AccessShareLock);
	}
	/* a change during the check is left to the next one */
	dja_well_at = state;
}
