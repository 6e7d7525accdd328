/*
 * rows.c
 *
 * Writing rows, and finding them by an index; see rows.h.
 */
#include "postgres.h"

#include "access/multixact.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/reltrigger.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "shmem/shmem.h"
#include "tables/publication.h"
#include "tables/rows.h"

/* ---------- writing rows ---------- */

/*
 * Raises 55000 if a trigger on the table keeps us from writing.  Rows are written
 * without the executor, so no trigger fires.  djactor's own triggers allow for
 * that.  Any other relies on being called for each change (pg_repack's would
 * bring back messages that were handled meanwhile), so nothing is written as long
 * as there is one.
 *
 * Nor is anything written while the trigger of message that sees new rows is
 * disabled.  Rows of a dump may then arrive unnoticed (pg_restore
 * --disable-triggers).
 */
static void
dja_refuse_triggers(Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];
		bool		ours = get_func_namespace(trigger->tgfoid) == RelationGetNamespace(rel);

		if (ours && trigger->tgenabled == TRIGGER_DISABLED && strcmp(trigger->tgname, "sent") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the triggers of table djactor.%s are disabled", RelationGetRelationName(rel)),
					 errdetail("A restore with --disable-triggers is under way, or was cut off."),
					 errhint("Use ALTER TABLE djactor.%s ENABLE TRIGGER ALL.", RelationGetRelationName(rel))));
		if (trigger->tgisinternal || trigger->tgenabled == TRIGGER_DISABLED || ours)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("trigger \"%s\" on table djactor.%s keeps djactor from writing there",
						trigger->tgname, RelationGetRelationName(rel)),
				 errdetail("It would not fire: djactor writes rows without triggers."),
				 errhint("Drop or disable the trigger. To shrink the table use VACUUM FULL.")));
	}
}

/*
 * Opens a table for writing.  Raises 55000 if its triggers forbid that.
 */
DjaWriter *
dja_writer_open(DjaTable table, LOCKMODE lockmode)
{
	DjaWriter  *writer = palloc(sizeof(DjaWriter));

	dja_assert_unlocked();
	writer->rel = table_open(dja_table_oid(table), lockmode);
	dja_refuse_triggers(writer->rel);
	writer->estate = CreateExecutorState();
	writer->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->rri, writer->rel, 0, NULL, 0);	/* no range table */
	writer->context = CurrentMemoryContext;
	writer->owner = CurrentResourceOwner;
	writer->indexed = false;
	writer->slot = MakeSingleTupleTableSlot(RelationGetDescr(writer->rel), &TTSOpsVirtual);
	writer->may_update = writer->may_delete = false;
	return writer;
}

/*
 * Opens the indexes of a writer, for as long as its table is open: a subtransaction may
 * have begun meanwhile.
 */
static void
dja_writer_open_indexes(DjaWriter *writer)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = writer->owner;
	PG_TRY();
	{
		ExecOpenIndices(writer->rri, false);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	writer->indexed = true;
}

/*
 * Makes entries in the indexes for a row that was written; update says what for, as
 * dja_table_tuple_update() does.
 */
static void
dja_writer_index(DjaWriter *writer, DjaIndexUpdate update)
{
	if (update == DJA_INDEX_NONE)
		return;
	if (!writer->indexed)
		dja_writer_open_indexes(writer);
	dja_insert_index_tuples(writer->rri, writer->slot, writer->estate, update);
}

void
dja_writer_close(DjaWriter *writer)
{
	ExecDropSingleTupleTableSlot(writer->slot);
	if (writer->indexed)
		ExecCloseIndices(writer->rri);
	FreeExecutorState(writer->estate);
	table_close(writer->rel, NoLock);
	pfree(writer);
}

/* ---------- writers that are kept ---------- */

static DjaWriter *dja_kept[DJA_NTABLES];
static MemoryContext dja_kept_context = NULL;	/* NULL: none are kept */
static ResourceOwner dja_kept_owner;

/*
 * Keeps writers from now on, in context and for the present resource owner,
 * across subtransactions.
 */
void
dja_writers_keep(MemoryContext context)
{
	Assert(dja_kept_context == NULL && context != NULL);
	memset(dja_kept, 0, sizeof(dja_kept));
	dja_kept_context = context;
	dja_kept_owner = CurrentResourceOwner;
}

/*
 * Closes the kept writers.  Needs the resource owner for which they were opened.
 */
void
dja_writers_close(void)
{
	for (int i = 0; i < DJA_NTABLES; i++)
		if (dja_kept[i] != NULL)
			dja_writer_close(dja_kept[i]);
	dja_writers_forget();
}

/*
 * Forgets the kept writers after an abort, which has closed them.
 */
void
dja_writers_forget(void)
{
	memset(dja_kept, 0, sizeof(dja_kept));
	dja_kept_context = NULL;
}

/*
 * Returns the kept writer of a table, or a new one that dja_writer_put() closes.
 */
DjaWriter *
dja_writer_get(DjaTable table)
{
	MemoryContext old;
	ResourceOwner owner = CurrentResourceOwner;

	if (dja_kept_context == NULL)
		return dja_writer_open(table, RowExclusiveLock);
	if (dja_kept[table] != NULL)
		return dja_kept[table];
	old = MemoryContextSwitchTo(dja_kept_context);
	CurrentResourceOwner = dja_kept_owner;
	PG_TRY();
	{
		dja_kept[table] = dja_writer_open(table, RowExclusiveLock);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return dja_kept[table];
}

/*
 * Makes what was written visible to the commands that follow.  Closes the writer
 * unless it is kept.
 */
void
dja_writer_put(DjaWriter *writer)
{
	if (dja_kept_context == NULL)
		dja_writer_close(writer);
	CommandCounterIncrement();
}

/* ---------- writing ---------- */

static void
dja_writer_fill(DjaWriter *writer, const Datum *values, const bool *nulls)
{
	int			natts = RelationGetDescr(writer->rel)->natts;

	dja_assert_unlocked();
	ExecClearTuple(writer->slot);
	memcpy(writer->slot->tts_values, values, sizeof(Datum) * natts);
	memcpy(writer->slot->tts_isnull, nulls, sizeof(bool) * natts);
	ExecStoreVirtualTuple(writer->slot);
	writer->slot->tts_tableOid = RelationGetRelid(writer->rel);
}

void
dja_row_insert(DjaWriter *writer, const Datum *values, const bool *nulls)
{
	dja_writer_fill(writer, values, nulls);
	simple_table_tuple_insert(writer->rel, writer->slot);
	dja_writer_index(writer, DJA_INDEX_INSERTED);
	ResetPerTupleExprContext(writer->estate);
}

/*
 * Does another transaction have the row, which it locks, or changes?  One that has changed it
 * and has committed has done so after the snapshot that sees the row.
 */
static bool
dja_has_row(TransactionId xid, bool changes)
{
	return !TransactionIdIsCurrentTransactionId(xid) &&
		(TransactionIdIsInProgress(xid) || (changes && TransactionIdDidCommit(xid)));
}

/*
 * Returns the transaction, other than our own, that has locked a row version or is
 * changing it, or that has changed it since the snapshot that sees it;
 * InvalidTransactionId if there is none.  Locks of different strength, or of several
 * subtransactions, make a multixact even if all are ours.  shared_keys: ignores a key
 * share lock.  That is compatible with an update that leaves the key alone, as djactor's
 * do, but not with a delete.
 */
TransactionId
dja_tuple_locker(HeapTupleHeader tuple, bool shared_keys)
{
	TransactionId xmax = HeapTupleHeaderGetRawXmax(tuple);
	TransactionId locker = InvalidTransactionId;
	bool		only_locked = HEAP_XMAX_IS_LOCKED_ONLY(tuple->t_infomask);
	MultiXactMember *members;
	int			n;

	if ((tuple->t_infomask & HEAP_XMAX_INVALID) ||
		((tuple->t_infomask & HEAP_XMAX_COMMITTED) && only_locked))
		return InvalidTransactionId;
	if (!(tuple->t_infomask & HEAP_XMAX_IS_MULTI))
	{
		if ((shared_keys && only_locked && HEAP_XMAX_IS_KEYSHR_LOCKED(tuple->t_infomask)) ||
			!dja_has_row(xmax, !only_locked))
			return InvalidTransactionId;
		return xmax;
	}
	n = GetMultiXactIdMembers(xmax, &members, false, only_locked);
	for (int i = 0; i < n && !TransactionIdIsValid(locker); i++)
		if (!(shared_keys && members[i].status == MultiXactStatusForKeyShare) &&
			dja_has_row(members[i].xid, ISUPDATE_from_mxstatus(members[i].status)))
			locker = members[i].xid;
	if (n > 0)
		pfree(members);
	return locker;
}

/*
 * Has another transaction locked the version at tid, or is it changing it?  A
 * lock of our own transaction (by SELECT FOR UPDATE in a handler, say) does not
 * count.
 */
static bool
dja_row_is_locked(Relation rel, ItemPointer tid, CommandId cid, bool shared_keys)
{
	Buffer		buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(tid));
	bool		locked = false;
	ItemId		item;

	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	item = PageGetItemId(BufferGetPage(buffer), ItemPointerGetOffsetNumber(tid));
	if (ItemIdIsNormal(item))
	{
		HeapTupleData tuple;

		tuple.t_tableOid = RelationGetRelid(rel);
		tuple.t_data = (HeapTupleHeader) PageGetItem(BufferGetPage(buffer), item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_self = *tid;
		locked = HeapTupleSatisfiesUpdate(&tuple, cid, buffer) == TM_BeingModified &&
			TransactionIdIsValid(dja_tuple_locker(tuple.t_data, shared_keys));
	}
	UnlockReleaseBuffer(buffer);
	return locked;
}

/*
 * Locks the very version at tid until the end of the transaction, unless another
 * transaction has locked it.  slot is one of the table's, to work with.
 */
TM_Result
dja_row_lock(DjaWriter *writer, ItemPointer tid, LockTupleMode mode, TupleTableSlot *slot)
{
	TM_FailureData failure;
	TM_Result	result;

	dja_assert_unlocked();
	Assert(ItemPointerIsValid(tid));
	result = table_tuple_lock(writer->rel, tid, GetActiveSnapshot(), slot,
							  GetCurrentCommandId(true), mode, LockWaitSkip, 0, &failure);
	ExecClearTuple(slot);
	return result;
}

/*
 * Updates or deletes the very version at tid.  If another transaction has locked
 * it, returns TM_BeingModified instead of waiting.
 *
 * The server cannot update without waiting.  So the lock is looked for first; a
 * transaction that locks the row in the moment in between is waited for.
 */
TM_Result
dja_row_try_update(DjaWriter *writer, ItemPointer tid, const Datum *values, const bool *nulls)
{
	CommandId	cid = GetCurrentCommandId(true);
	TM_FailureData failure;
	DjaIndexUpdate update;
	TM_Result	result;

	Assert(ItemPointerIsValid(tid));
	if (!writer->may_update)
	{
		dja_refuse_unheard(writer->rel, CMD_UPDATE);
		writer->may_update = true;
	}
	if (dja_row_is_locked(writer->rel, tid, cid, true))
		return TM_BeingModified;
	dja_writer_fill(writer, values, nulls);
	result = dja_table_tuple_update(writer->rel, tid, writer->slot, cid, GetActiveSnapshot(), &failure,
									&update);
	if (result == TM_Ok)
		dja_writer_index(writer, update);
	ResetPerTupleExprContext(writer->estate);
	return result;
}

TM_Result
dja_row_try_delete(DjaWriter *writer, ItemPointer tid)
{
	CommandId	cid = GetCurrentCommandId(true);
	Snapshot	snapshot = GetActiveSnapshot();
	TM_FailureData failure;
	TM_Result	result;

	dja_assert_unlocked();
	Assert(ItemPointerIsValid(tid));
	if (!writer->may_delete)
	{
		dja_refuse_unheard(writer->rel, CMD_DELETE);
		writer->may_delete = true;
	}
	result = dja_table_tuple_delete(writer->rel, tid, cid, snapshot, false, &failure);
	/* the server ignores a lock of our own only if it may wait */
	if (result == TM_BeingModified && !dja_row_is_locked(writer->rel, tid, cid, false))
		result = dja_table_tuple_delete(writer->rel, tid, cid, snapshot, true, &failure);
	return result;
}

/*
 * Raises the error for a row that is not as it was read; the transaction starts
 * over.
 */
void
dja_row_trouble(TM_Result result)
{
	switch (result)
	{
		case TM_SelfModified:
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("the turn has changed a row of djactor that it runs on"),
					 errhint("Return the new state from the handler instead of updating djactor.actor.")));
		case TM_BeingModified:
		case TM_WouldBlock:
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("a row of djactor is locked by another transaction")));
		default:
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("a row of djactor was changed by another transaction")));
	}
}

/*
 * Makes room for a new version of a row beside the old one.  The server prunes a
 * page when a query or an index leads to it, and djactor needs neither to find an
 * actor again.  Without pruning the page fills up, and each further version costs
 * an entry in every index.
 */
void
dja_row_make_room(DjaWriter *writer, ItemPointer tid, Size size)
{
	Buffer		buffer = ReadBuffer(writer->rel, ItemPointerGetBlockNumber(tid));

	/* a hint, read without a lock as the server does */
	if (PageGetHeapFreeSpace(BufferGetPage(buffer)) < size)
		dja_page_prune(writer->rel, buffer);
	ReleaseBuffer(buffer);
}

/*
 * Like dja_row_try_update(), but raises an error unless that succeeds.
 */
void
dja_row_update(DjaWriter *writer, ItemPointer tid, const Datum *values, const bool *nulls)
{
	TM_Result	result = dja_row_try_update(writer, tid, values, nulls);

	if (result != TM_Ok)
		dja_row_trouble(result);
}

/*
 * Like dja_row_try_delete(), but raises an error unless that succeeds.
 */
void
dja_row_delete(DjaWriter *writer, ItemPointer tid)
{
	TM_Result	result = dja_row_try_delete(writer, tid);

	if (result != TM_Ok)
		dja_row_trouble(result);
}

/*
 * Sets a column of type text; NULL without a string.
 */
void
dja_set_text(Datum *values, bool *nulls, int attnum, const char *string)
{
	dja_set_column(values, nulls, attnum, string ? CStringGetTextDatum(string) : (Datum) 0,
				   string == NULL);
}

void
dja_table_insert(DjaTable table, const Datum *values, const bool *nulls)
{
	DjaWriter  *writer = dja_writer_get(table);

	dja_row_insert(writer, values, nulls);
	dja_writer_put(writer);
}

TM_Result
dja_table_try_delete(DjaTable table, ItemPointer tid)
{
	DjaWriter  *writer = dja_writer_get(table);
	TM_Result	result = dja_row_try_delete(writer, tid);

	dja_writer_put(writer);
	return result;
}

/* ---------- finding rows ---------- */

/*
 * Opens a scan with so many keys, which index_rescan() has to set.
 */
void
dja_find_open(DjaFind *find, DjaTable table, DjaIndex index, int nkeys, Snapshot snapshot)
{
	dja_assert_unlocked();
	find->snapshot = NULL;
	if (snapshot == NULL)
		snapshot = find->snapshot = RegisterSnapshot(GetLatestSnapshot());
	find->rel = table_open(dja_table_oid(table), AccessShareLock);
	find->slot = table_slot_create(find->rel, NULL);
	find->index = index == DJA_NO_INDEX ? NULL : index_open(dja_index_oid(index), AccessShareLock);
	if (find->index == NULL)
		find->table_scan = dja_table_beginscan(find->rel, snapshot, 0, NULL);
	else
		find->scan = dja_index_beginscan(find->rel, find->index, snapshot, nkeys);
}

/*
 * Begins a scan.  keys are values of the index's first nkeys columns, which are
 * of type text COLLATE "C" or bigint; without keys, or with DJA_NO_INDEX, all rows are
 * found.  snapshot is NULL for the latest one.  dja_find_end() has to follow.
 */
void
dja_find_begin(DjaFind *find, DjaTable table, DjaIndex index, int nkeys, const Datum *keys,
			   Snapshot snapshot)
{
	ScanKeyData scan_keys[DJA_FIND_MAX];

	Assert(nkeys >= 0 && nkeys <= DJA_FIND_MAX);
	dja_find_open(find, table, index, nkeys, snapshot);
	if (find->index == NULL)
		return;
	for (int i = 0; i < nkeys; i++)
	{
		bool		is_text = TupleDescAttr(RelationGetDescr(find->index), i)->atttypid == TEXTOID;

		Assert(is_text || TupleDescAttr(RelationGetDescr(find->index), i)->atttypid == INT8OID);
		ScanKeyEntryInitialize(&scan_keys[i], 0, (AttrNumber) (i + 1), BTEqualStrategyNumber,
							   InvalidOid, is_text ? C_COLLATION_OID : InvalidOid,
							   is_text ? F_TEXTEQ : F_INT8EQ, keys[i]);
	}
	index_rescan(find->scan, scan_keys, nkeys, NULL, 0);
}

/*
 * Returns the other transaction, still in progress, that is inserting or deleting
 * such a row; InvalidTransactionId if there is none.
 */
TransactionId
dja_find_writer(DjaTable table, DjaIndex index, int nkeys, const Datum *keys)
{
	TransactionId xid = InvalidTransactionId;
	SnapshotData dirty;
	DjaFind		find;

	InitDirtySnapshot(dirty);
	dja_find_begin(&find, table, index, nkeys, keys, &dirty);
	while (!TransactionIdIsValid(xid) && dja_find_next(&find))
		xid = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
	dja_find_end(&find);
	return xid;
}

/*
 * Reads the next row into find->slot, all columns deformed.  Returns false at the
 * end.
 */
bool
dja_find_next(DjaFind *find)
{
	CHECK_FOR_INTERRUPTS();
	if (find->index == NULL ?
		!table_scan_getnextslot(find->table_scan, ForwardScanDirection, find->slot) :
		!index_getnext_slot(find->scan, ForwardScanDirection, find->slot))
		return false;
	slot_getallattrs(find->slot);
	return true;
}

void
dja_find_end(DjaFind *find)
{
	if (find->index == NULL)
		table_endscan(find->table_scan);
	else
	{
		index_endscan(find->scan);
		index_close(find->index, AccessShareLock);
	}
	ExecDropSingleTupleTableSlot(find->slot);
	UnregisterSnapshot(find->snapshot);
	table_close(find->rel, AccessShareLock);
}
