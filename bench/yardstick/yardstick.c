/*
 * yardstick.c
 *
 * The bare loop that djactor is measured against: what a mailbox in a table
 * costs if one session does nothing but its work.  It reads messages in the
 * order of an index, calls the handler for each, deletes the message, writes
 * the actor's state and commits each thousand, durably.
 *
 * What it leaves out is what djactor is: it schedules nothing (it takes the
 * keys as the index has them), knows one handler, has no failures, retries,
 * delays, limits, rights, wishes, statistics or wake-ups, and would be wrong as
 * soon as a sender or a second session came along.  What it does not leave out
 * is the job: the handler sees what earlier turns have done, each under a fresh
 * snapshot, and the tables are in the end what djactor would leave.
 *
 * The tables are made by throughput.py: message has the columns of
 * djactor.message and one index on (actor_key, id), actor has one on the key
 * and the same free space on its pages as djactor.actor.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(yardstick_run);

/* columns, by number */
enum
{
	MESSAGE_KEY = 3,
	MESSAGE_PAYLOAD = 4
};
enum
{
	ACTOR_KEY = 1,
	ACTOR_STATE,
	ACTOR_TURNS,
	ACTOR_NATTS = ACTOR_TURNS
};

typedef struct Loop
{
	FmgrInfo	handler;
	bool		keeps_state;	/* the handler returns void */
	MemoryContext batch;
	MemoryContext turn;
	Relation	messages;
	Relation	message_index;
	Relation	actors;
	Relation	actor_index;
	TupleTableSlot *message_slot;
	TupleTableSlot *actor_slot;
	Snapshot	snapshot;
	text	   *key;			/* of the actor in hand, NULL = none */
	ItemPointerData actor_tid;
	Datum		state;
	int64		turns;
	text	   *last_key;		/* where the next batch goes on; outlives batches */
} Loop;

static Relation
open_relation(const char *name, bool index, LOCKMODE lock)
{
	Oid			oid = RangeVarGetRelid(makeRangeVar(NULL, pstrdup(name), -1), lock, false);

	return index ? index_open(oid, NoLock) : table_open(oid, NoLock);
}

static IndexScanDesc
scan_from(Relation table, Relation index, Snapshot snapshot, StrategyNumber strategy,
		  RegProcedure compare, text *key)
{
	ScanKeyData scan_key;
	IndexScanDesc scan;

#if PG_VERSION_NUM >= 180000
	scan = index_beginscan(table, index, snapshot, NULL, key ? 1 : 0, 0);
#else
	scan = index_beginscan(table, index, snapshot, key ? 1 : 0, 0);
#endif
	if (key != NULL)
		ScanKeyEntryInitialize(&scan_key, 0, 1, strategy, InvalidOid, C_COLLATION_OID, compare,
							   PointerGetDatum(key));
	index_rescan(scan, &scan_key, key ? 1 : 0, NULL, 0);
	return scan;
}

static void
take_actor(Loop *loop, text *key)
{
	IndexScanDesc scan = scan_from(loop->actors, loop->actor_index, loop->snapshot,
								   BTEqualStrategyNumber, F_TEXTEQ, key);
	bool		isnull;

	if (!index_getnext_slot(scan, ForwardScanDirection, loop->actor_slot))
		elog(ERROR, "actor %s does not exist", text_to_cstring(key));
	loop->key = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(key));
	loop->actor_tid = loop->actor_slot->tts_tid;
	loop->state = PointerGetDatum(PG_DETOAST_DATUM_COPY(slot_getattr(loop->actor_slot, ACTOR_STATE,
																	 &isnull)));
	loop->turns = DatumGetInt64(slot_getattr(loop->actor_slot, ACTOR_TURNS, &isnull));
	ExecClearTuple(loop->actor_slot);
	index_endscan(scan);
}

static void
write_actor(Loop *loop)
{
	Datum		values[ACTOR_NATTS];
	bool		nulls[ACTOR_NATTS] = {0};
	HeapTuple	tuple;
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes update;
#endif

	if (loop->key == NULL)
		return;
	values[ACTOR_KEY - 1] = PointerGetDatum(loop->key);
	values[ACTOR_STATE - 1] = loop->state;
	values[ACTOR_TURNS - 1] = Int64GetDatum(loop->turns);
	tuple = heap_form_tuple(RelationGetDescr(loop->actors), values, nulls);
#if PG_VERSION_NUM >= 160000
	simple_heap_update(loop->actors, &loop->actor_tid, tuple, &update);
#else
	simple_heap_update(loop->actors, &loop->actor_tid, tuple);
#endif
	if (!HeapTupleIsHeapOnly(tuple))
		index_insert(loop->actor_index, values, nulls, &tuple->t_self, loop->actors,
					 UNIQUE_CHECK_NO, false, BuildIndexInfo(loop->actor_index));
	loop->key = NULL;
}

static void
do_turn(Loop *loop)
{
	bool		isnull;
	Datum		payload = slot_getattr(loop->message_slot, MESSAGE_PAYLOAD, &isnull);
	MemoryContext old = MemoryContextSwitchTo(loop->turn);
	Datum		result;

	PushActiveSnapshot(GetTransactionSnapshot());
	result = FunctionCall2(&loop->handler, loop->state, payload);
	PopActiveSnapshot();
	CommandCounterIncrement();
	if (!loop->keeps_state)
	{
		MemoryContextSwitchTo(loop->batch);
		pfree(DatumGetPointer(loop->state));
		loop->state = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
	}
	loop->turns++;
	MemoryContextSwitchTo(old);
	MemoryContextReset(loop->turn);
	simple_heap_delete(loop->messages, &loop->message_slot->tts_tid);
}

/*
 * Up to so many messages, in the transaction that is open; returns how many
 * there were.
 */
static int
do_batch(Loop *loop, int size)
{
	MemoryContext old = MemoryContextSwitchTo(loop->batch);
	IndexScanDesc scan;
	int			n = 0;

	loop->messages = open_relation("yardstick_message", false, RowExclusiveLock);
	loop->message_index = open_relation("yardstick_message_key", true, RowExclusiveLock);
	loop->actors = open_relation("yardstick_actor", false, RowExclusiveLock);
	loop->actor_index = open_relation("yardstick_actor_key", true, RowExclusiveLock);
	loop->message_slot = table_slot_create(loop->messages, NULL);
	loop->actor_slot = table_slot_create(loop->actors, NULL);
	loop->snapshot = RegisterSnapshot(GetLatestSnapshot());

	scan = scan_from(loop->messages, loop->message_index, loop->snapshot,
					 BTGreaterEqualStrategyNumber, F_TEXT_GE, loop->last_key);
	while (n < size && index_getnext_slot(scan, ForwardScanDirection, loop->message_slot))
	{
		bool		isnull;
		text	   *key = DatumGetTextPP(slot_getattr(loop->message_slot, MESSAGE_KEY, &isnull));

		CHECK_FOR_INTERRUPTS();
		if (loop->key == NULL ||
			VARSIZE_ANY_EXHDR(key) != VARSIZE_ANY_EXHDR(loop->key) ||
			memcmp(VARDATA_ANY(key), VARDATA_ANY(loop->key), VARSIZE_ANY_EXHDR(key)) != 0)
		{
			write_actor(loop);
			take_actor(loop, key);
		}
		do_turn(loop);
		n++;
	}
	if (loop->key != NULL)
	{
		if (loop->last_key != NULL)
			pfree(loop->last_key);
		loop->last_key = MemoryContextAlloc(TopMemoryContext, VARSIZE_ANY(loop->key));
		memcpy(loop->last_key, loop->key, VARSIZE_ANY(loop->key));
		write_actor(loop);
	}
	index_endscan(scan);
	UnregisterSnapshot(loop->snapshot);
	ExecDropSingleTupleTableSlot(loop->message_slot);
	ExecDropSingleTupleTableSlot(loop->actor_slot);
	index_close(loop->actor_index, NoLock);
	table_close(loop->actors, NoLock);
	index_close(loop->message_index, NoLock);
	table_close(loop->messages, NoLock);
	MemoryContextSwitchTo(old);
	MemoryContextReset(loop->batch);
	return n;
}

/*
 * yardstick_run(handler regprocedure, batch int, keeps_state bool): handles
 * all that is in yardstick_message, and commits after each batch.
 */
Datum
yardstick_run(PG_FUNCTION_ARGS)
{
	Loop		loop = {0};
	int			size = PG_GETARG_INT32(1);
	int			n;

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	fmgr_info_cxt(PG_GETARG_OID(0), &loop.handler, TopMemoryContext);
	loop.keeps_state = PG_GETARG_BOOL(2);
	loop.batch = AllocSetContextCreate(TopMemoryContext, "yardstick batch", ALLOCSET_DEFAULT_SIZES);
	loop.turn = AllocSetContextCreate(TopMemoryContext, "yardstick turn", ALLOCSET_DEFAULT_SIZES);
	do
	{
		n = do_batch(&loop, size);
		SPI_commit();
	} while (n == size);
	MemoryContextDelete(loop.turn);
	MemoryContextDelete(loop.batch);
	SPI_finish();
	PG_RETURN_VOID();
}
