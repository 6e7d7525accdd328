/*
 * retention.c
 *
 * The resident deletes rows that are past their retention.
 *
 * A pass makes a list of index ranges to purge, each up to a moment that is fixed
 * when the pass begins.  It deletes them in chunks, each in a transaction of its
 * own, and mail is handled in between.  A chunk begins where the last one ended, so
 * that no dead row is walked over twice.
 *
 * Several residents may purge the same rows of a database.  None waits for a row
 * that another has locked; the next pass finds what is left.  The workers of a
 * type's owner purge its journal.  Rows of a type that keeps no journal any more
 * stay until they are deleted by hand.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/columns.h"
#include "base/compat.h"
#include "base/guc.h"
#include "process/retention.h"
#include "process/worker_xact.h"
#include "tables/actor_type.h"
#include "tables/rows.h"

#define DJA_PURGE_CHUNK 1000	/* rows in a transaction */

typedef struct DjaPurge
{
	DjaTable	table;
	DjaIndex	index;			/* on (at), or on (actor_type, at) */
	AttrNumber	at;				/* column that tells a row's age */
	TimestampTz limit;			/* older rows are deleted */
	TimestampTz from;			/* where to go on */
	DjaType    *type;			/* NULL: the index has no type */
} DjaPurge;

/* The present pass. */
static DjaPurge *dja_purges = NULL; /* in TopMemoryContext */
static int	dja_npurges;
static int	dja_purge_next;

static void
dja_purge_add(DjaTable table, DjaIndex index, AttrNumber at, TimestampTz limit, DjaType *type)
{
	DjaPurge	purge = {table, index, at, limit, DT_NOBEGIN, type};

	dja_purges[dja_npurges++] = purge;
}

static void
dja_purge_plan(void)
{
	TimestampTz now = GetCurrentTimestamp();
	List	   *types = dja_types_all();
	ListCell   *lc;

	dja_npurges = dja_purge_next = 0;
	dja_purges = MemoryContextAlloc(TopMemoryContext, sizeof(DjaPurge) * (3 + list_length(types)));
	if (dja_dead_letter_retention >= 0)
		dja_purge_add(DJA_DEAD_LETTER_TABLE, DJA_DEAD_FAILED_AT_INDEX, DJA_DEAD_FAILED_AT,
					  now - dja_dead_letter_retention * USECS_PER_SEC, NULL);
	dja_purge_add(DJA_REPLY_TABLE, DJA_REPLY_EXPIRES_AT_INDEX, DJA_REPLY_EXPIRES_AT, now, NULL);
	dja_purge_add(DJA_ONCE_TABLE, DJA_ONCE_COMPLETED_AT_INDEX, DJA_ONCE_COMPLETED_AT,
				  now - dja_idempotency_retention * USECS_PER_SEC, NULL);
	foreach(lc, types)
	{
		DjaType    *type = lfirst(lc);

		if (type->journal >= 0 && type->owner == GetUserId())
			dja_purge_add(DJA_JOURNAL_TABLE, DJA_JOURNAL_FINISHED_AT_INDEX,
						  DJA_JOURNAL_FINISHED_AT, now - type->journal, type);
	}
}

/*
 * Deletes old rows of one table, after reading at most max.  Returns how many it
 * has read.  Sets *done if nothing is left that it could delete.
 */
static int
dja_purge_rows(DjaPurge *purge, int max, bool *done)
{
	DjaWriter  *writer = dja_writer_open(purge->table, RowExclusiveLock);
	Relation	index = index_open(dja_index_oid(purge->index), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	AttrNumber	at = purge->type == NULL ? 1 : 2;
	ScanKeyData keys[3];
	IndexScanDesc scan;
	int			nkeys = 0;
	int			seen = 0;
	int			deleted = 0;

	if (purge->type != NULL)
		ScanKeyEntryInitialize(&keys[nkeys++], 0, 1, BTEqualStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXTEQ,
							   CStringGetTextDatum(purge->type->name));
	ScanKeyInit(&keys[nkeys++], at, BTGreaterEqualStrategyNumber, F_TIMESTAMP_GE,
				TimestampTzGetDatum(purge->from));
	ScanKeyInit(&keys[nkeys++], at, BTLessStrategyNumber, F_TIMESTAMP_LT,
				TimestampTzGetDatum(purge->limit));
	scan = dja_index_beginscan(writer->rel, index, GetActiveSnapshot(), nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (seen < max && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		seen++;
		purge->from = DatumGetTimestampTz(slot_getattr(slot, purge->at, &isnull));
		/* somebody else may be deleting it as well */
		if (dja_row_try_delete(writer, &slot->tts_tid) == TM_Ok)
			deleted++;
	}
	*done = seen < max || deleted == 0;
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	dja_writer_close(writer);
	return seen;
}

static void
dja_purge_step(void *arg)
{
	int			left = DJA_PURGE_CHUNK;
	bool		done = true;

	if (dja_purges == NULL)
		dja_purge_plan();
	while (dja_purge_next < dja_npurges && left > 0 && done)
	{
		left -= dja_purge_rows(&dja_purges[dja_purge_next], left, &done);
		if (done)
			dja_purge_next++;
	}
}

/*
 * Begins a pass, or goes on with it.  Returns true if there is more to do.
 */
bool
dja_purge(void)
{
	bool		more = dja_in_transaction(dja_purge_step, NULL) && dja_purge_next < dja_npurges;

	if (!more && dja_purges != NULL)
	{
		pfree(dja_purges);
		dja_purges = NULL;
	}
	return more;
}
