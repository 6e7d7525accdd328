/*
 * bareloop.c
 *
 * The yardstick: what is left of an actor runtime when everything is taken
 * away that is not the work itself.  One backend, one procedure:
 *
 *	CALL bareloop(messages, actors, handler, initial_state, batch_size)
 *
 * reads the messages in the order of (actor_key, id), calls the handler with
 * the actor's state and the payload, deletes the message, writes each actor
 * that a batch has touched once, commits the batch durably, and returns when
 * no message is left.  What it does without: other processes, anybody to wake
 * it, failures (an error ends it), rights, limits, time limits, priorities,
 * delays, replies, what turns send, statistics, and senders whose messages
 * commit in another order than they were numbered.
 *
 * It is no straw man.  Rows are read and written through the access methods,
 * without SQL; tables and indexes are opened once a batch; a batch begins
 * where the last one has ended, so dead index entries are not walked over
 * again; the handler is looked up once.  And it does the job: the tables it
 * leaves behind are those that djactor leaves behind.
 *
 * Columns are those of djactor's tables (columns.h): both tables are made LIKE
 * them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/columns.h"
#include "base/compat.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bareloop);

/* What holds for the whole call. */
typedef struct Loop
{
	Oid			messages;
	Oid			messages_index; /* (actor_key, id) */
	Oid			actors;
	Oid			actors_index;	/* (actor_type, actor_key) */
	FmgrInfo	handler;
	bool		returns_state;
	Datum		initial_state;
	int			batch_size;
	MemoryContext call;			/* lives as long as the call */
	MemoryContext batch;		/* reset after each batch */
	MemoryContext turn;			/* reset after each message */

	/* the last message that was handled; the next batch begins behind it */
	text	   *last_key;		/* NULL: begins at the start */
	int64		last_id;
} Loop;

/* The actor whose messages are being handled. */
typedef struct Actor
{
	text	   *type;
	text	   *key;			/* NULL: none */
	bool		exists;
	ItemPointerData tid;
	Datum		values[DJA_ACTOR_NATTS];
	bool		nulls[DJA_ACTOR_NATTS];
	int64		turns;
} Actor;

/* What is open during a batch. */
typedef struct Tables
{
	Relation	messages;
	Relation	messages_index;
	TupleTableSlot *message;
	Relation	actors;
	Relation	actors_index;
	TupleTableSlot *found;
	IndexScanDesc actors_scan;
	TupleTableSlot *written;
	EState	   *estate;
	ResultRelInfo *rri;
	Snapshot	snapshot;
} Tables;

/*
 * The index of a table whose first columns these two are.
 */
static Oid
index_on(Oid table, AttrNumber first, AttrNumber second)
{
	Relation	rel = table_open(table, AccessShareLock);
	List	   *indexes = RelationGetIndexList(rel);
	Oid			found = InvalidOid;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indnatts == 2 &&
			index->rd_index->indkey.values[0] == first &&
			index->rd_index->indkey.values[1] == second)
			found = RelationGetRelid(index);
		index_close(index, AccessShareLock);
	}
	table_close(rel, AccessShareLock);
	if (!OidIsValid(found))
		elog(ERROR, "%s lacks an index", get_rel_name(table));
	return found;
}

static void
tables_open(Tables *tables, Loop *loop)
{
	tables->snapshot = GetActiveSnapshot();
	tables->messages = table_open(loop->messages, RowExclusiveLock);
	tables->messages_index = index_open(loop->messages_index, AccessShareLock);
	tables->message = table_slot_create(tables->messages, NULL);
	tables->actors = table_open(loop->actors, RowExclusiveLock);
	tables->actors_index = index_open(loop->actors_index, AccessShareLock);
	tables->found = table_slot_create(tables->actors, NULL);
	tables->actors_scan = dja_index_beginscan(tables->actors, tables->actors_index,
											  tables->snapshot, 2);
	tables->written = MakeSingleTupleTableSlot(RelationGetDescr(tables->actors),
											   &TTSOpsVirtual);
	tables->estate = CreateExecutorState();
	tables->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(tables->rri, tables->actors, 0, NULL, 0);
	ExecOpenIndices(tables->rri, false);
}

static void
tables_close(Tables *tables)
{
	ExecCloseIndices(tables->rri);
	FreeExecutorState(tables->estate);
	ExecDropSingleTupleTableSlot(tables->written);
	index_endscan(tables->actors_scan);
	ExecDropSingleTupleTableSlot(tables->found);
	index_close(tables->actors_index, NoLock);
	table_close(tables->actors, NoLock);
	ExecDropSingleTupleTableSlot(tables->message);
	index_close(tables->messages_index, NoLock);
	table_close(tables->messages, NoLock);
}

/*
 * Reads the row of an actor, or makes a new one.
 */
static void
actor_read(Actor *actor, Tables *tables, Loop *loop, text *type, text *key)
{
	ScanKeyData keys[2];
	TupleDesc	desc = RelationGetDescr(tables->actors);

	actor->type = type;
	actor->key = key;
	actor->turns = 0;
	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(type));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(key));
	index_rescan(tables->actors_scan, keys, 2, NULL, 0);
	actor->exists = index_getnext_slot(tables->actors_scan, ForwardScanDirection, tables->found);
	if (actor->exists)
	{
		slot_getallattrs(tables->found);
		actor->tid = tables->found->tts_tid;
		for (int i = 0; i < DJA_ACTOR_NATTS; i++)
		{
			Form_pg_attribute attribute = TupleDescAttr(desc, i);

			actor->nulls[i] = tables->found->tts_isnull[i];
			if (!actor->nulls[i])
				actor->values[i] = datumCopy(tables->found->tts_values[i],
											 attribute->attbyval, attribute->attlen);
		}
		actor->values[DJA_ACTOR_STATE - 1] =
			PointerGetDatum(PG_DETOAST_DATUM(actor->values[DJA_ACTOR_STATE - 1]));
		return;
	}
	memset(actor->nulls, false, sizeof(actor->nulls));
	actor->values[DJA_ACTOR_ID - 1] = Int64GetDatum(loop->last_id); /* any unique number */
	actor->values[DJA_ACTOR_TYPE - 1] = PointerGetDatum(type);
	actor->values[DJA_ACTOR_KEY - 1] = PointerGetDatum(key);
	actor->values[DJA_ACTOR_STATE - 1] = loop->initial_state;
	actor->values[DJA_ACTOR_STATE_VERSION - 1] = Int32GetDatum(1);
	actor->values[DJA_ACTOR_STATUS - 1] = CStringGetTextDatum("active");
	actor->values[DJA_ACTOR_PAUSED - 1] = BoolGetDatum(false);
	actor->values[DJA_ACTOR_STASHED - 1] = Int32GetDatum(0);
	actor->values[DJA_ACTOR_TURNS - 1] = Int64GetDatum(0);
	actor->values[DJA_ACTOR_FAILURES - 1] = Int64GetDatum(0);
	actor->nulls[DJA_ACTOR_LAST_ERROR - 1] = true;
	actor->values[DJA_ACTOR_CREATED_AT - 1] =
		TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
}

/*
 * Writes the actor back after its messages of this batch.
 */
static void
actor_write(Actor *actor, Tables *tables)
{
	TupleTableSlot *slot = tables->written;
	DjaIndexUpdate update;

	if (actor->key == NULL)
		return;
	actor->values[DJA_ACTOR_TURNS - 1] =
		Int64GetDatum(DatumGetInt64(actor->values[DJA_ACTOR_TURNS - 1]) + actor->turns);
	actor->values[DJA_ACTOR_UPDATED_AT - 1] =
		TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());

	ExecClearTuple(slot);
	memcpy(slot->tts_values, actor->values, sizeof(actor->values));
	memcpy(slot->tts_isnull, actor->nulls, sizeof(actor->nulls));
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(tables->actors);
	if (actor->exists)
	{
		TM_FailureData failure;

		if (dja_table_tuple_update(tables->actors, &actor->tid, slot, GetCurrentCommandId(true),
								   tables->snapshot, &failure, &update) != TM_Ok)
			elog(ERROR, "an actor was changed by somebody else");
	}
	else
	{
		simple_table_tuple_insert(tables->actors, slot);
		update = DJA_INDEX_INSERTED;
	}
	if (update != DJA_INDEX_NONE)
		dja_insert_index_tuples(tables->rri, slot, tables->estate, update);
	ResetPerTupleExprContext(tables->estate);
	actor->key = NULL;
}

/*
 * One message: the handler runs, the state is replaced, the row goes.
 */
static void
turn(Actor *actor, Tables *tables, Loop *loop)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum	   *state = &actor->values[DJA_ACTOR_STATE - 1];
	MemoryContext old = MemoryContextSwitchTo(loop->turn);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, &loop->handler, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = *state;
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = tables->message->tts_values[DJA_MSG_PAYLOAD - 1];
	fcinfo->args[1].isnull = false;
	result = FunctionCallInvoke(fcinfo);
	if (loop->returns_state)
	{
		if (fcinfo->isnull)
			elog(ERROR, "the handler returned NULL");
		MemoryContextSwitchTo(loop->batch);
		*state = datumCopy(result, false, -1);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(loop->turn);

	simple_table_tuple_delete(tables->messages, &tables->message->tts_tid, tables->snapshot);
	actor->turns++;
}

/*
 * A scan of the messages behind the last one: (actor_key, id) > (last_key, last_id).
 */
static IndexScanDesc
messages_scan(Tables *tables, Loop *loop, ScanKey row, ScanKey members)
{
	IndexScanDesc scan = dja_index_beginscan(tables->messages, tables->messages_index,
											 tables->snapshot, loop->last_key != NULL ? 1 : 0);

	if (loop->last_key != NULL)
	{
		ScanKeyEntryInitialize(&members[0], SK_ROW_MEMBER, 1, BTGreaterStrategyNumber,
							   InvalidOid, C_COLLATION_OID, F_BTTEXTCMP,
							   PointerGetDatum(loop->last_key));
		ScanKeyEntryInitialize(&members[1], SK_ROW_MEMBER | SK_ROW_END, 2,
							   BTGreaterStrategyNumber, InvalidOid, InvalidOid, F_BTINT8CMP,
							   Int64GetDatum(loop->last_id));
		MemSet(row, 0, sizeof(ScanKeyData));
		row->sk_flags = SK_ROW_HEADER;
		row->sk_attno = 1;
		row->sk_strategy = BTGreaterStrategyNumber;
		row->sk_argument = PointerGetDatum(members);
	}
	index_rescan(scan, row, loop->last_key != NULL ? 1 : 0, NULL, 0);
	return scan;
}

/*
 * One batch, in the current transaction.  Returns how many messages it handled.
 */
static int
handle_batch(Loop *loop)
{
	Tables		tables;
	Actor		actor = {0};
	ScanKeyData row;
	ScanKeyData members[2];
	IndexScanDesc scan;
	int			count = 0;

	tables_open(&tables, loop);
	scan = messages_scan(&tables, loop, &row, members);
	while (count < loop->batch_size &&
		   index_getnext_slot(scan, ForwardScanDirection, tables.message))
	{
		Datum	   *values = tables.message->tts_values;
		text	   *key;

		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(tables.message, DJA_MSG_PAYLOAD);
		key = DatumGetTextPP(values[DJA_MSG_ACTOR_KEY - 1]);
		loop->last_id = DatumGetInt64(values[DJA_MSG_ID - 1]);
		if (actor.key == NULL ||
			VARSIZE_ANY_EXHDR(key) != VARSIZE_ANY_EXHDR(actor.key) ||
			memcmp(VARDATA_ANY(key), VARDATA_ANY(actor.key), VARSIZE_ANY_EXHDR(key)) != 0)
		{
			actor_write(&actor, &tables);
			actor_read(&actor, &tables, loop,
					   DatumGetTextPCopy(values[DJA_MSG_ACTOR_TYPE - 1]),
					   DatumGetTextPCopy(values[DJA_MSG_ACTOR_KEY - 1]));
		}
		turn(&actor, &tables, loop);
		count++;
	}
	if (count > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(loop->call);

		if (loop->last_key != NULL)
			pfree(loop->last_key);
		loop->last_key = DatumGetTextPCopy(PointerGetDatum(actor.key));
		MemoryContextSwitchTo(old);
	}
	actor_write(&actor, &tables);
	index_endscan(scan);
	tables_close(&tables);
	return count;
}

Datum
bareloop(PG_FUNCTION_ARGS)
{
	Loop		loop = {0};
	Oid			handler = PG_GETARG_OID(2);
	int			count;

	loop.call = AllocSetContextCreate(PortalContext, "bareloop", ALLOCSET_DEFAULT_SIZES);
	loop.batch = AllocSetContextCreate(loop.call, "bareloop batch", ALLOCSET_DEFAULT_SIZES);
	loop.turn = AllocSetContextCreate(loop.call, "bareloop turn", ALLOCSET_DEFAULT_SIZES);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	MemoryContextSwitchTo(loop.call);
	loop.messages = PG_GETARG_OID(0);
	loop.messages_index = index_on(loop.messages, DJA_MSG_ACTOR_KEY, DJA_MSG_ID);
	loop.actors = PG_GETARG_OID(1);
	loop.actors_index = index_on(loop.actors, DJA_ACTOR_TYPE, DJA_ACTOR_KEY);
	fmgr_info_cxt(handler, &loop.handler, loop.call);
	loop.returns_state = get_func_rettype(handler) != VOIDOID;
	loop.initial_state = PointerGetDatum(PG_DETOAST_DATUM_COPY(PG_GETARG_DATUM(3)));
	loop.batch_size = PG_GETARG_INT32(4);

	do
	{
		MemoryContextSwitchTo(loop.batch);
		PushActiveSnapshot(GetTransactionSnapshot());
		count = handle_batch(&loop);
		PopActiveSnapshot();
		SPI_commit();
		MemoryContextReset(loop.batch);
		if (count == 0 && loop.last_key != NULL)
		{
			/* behind the last one is nothing; once more from the start */
			loop.last_key = NULL;
			count = 1;
		}
	} while (count > 0);

	SPI_finish();
	MemoryContextDelete(loop.call);
	PG_RETURN_VOID();
}
