/*
 * cluster.c
 *
 * What the extension djactor_cluster calls of the library: where an actor lives
 * (place.c), and the triggers of djactor_cluster.message.
 *
 * That table is partitioned by node.  Its partition for this node keeps nothing:
 * arrive() puts each row into djactor.message, and leave() removes it
 * from the partition.  The row has to be there in between, so that the INSERT counts
 * it and RETURNING has its id.  A partition for another node is either a foreign
 * table, of postgres_fdw or of cluster_citus.c, or an outbox: there post() numbers the
 * rows, and wakes the actor that forwards them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/json.h"
#include "sql/cluster.h"
#include "sql/send.h"
#include "tables/message.h"
#include "tables/place.h"
#include "tables/rows.h"
#include "turn/system_message.h"
#include "xact/copy_check.h"
#include "xact/reply_notify.h"

PG_FUNCTION_INFO_V1(dja_cluster_this_node);
PG_FUNCTION_INFO_V1(dja_cluster_node_of_key);
PG_FUNCTION_INFO_V1(dja_cluster_is_here);
PG_FUNCTION_INFO_V1(dja_cluster_partition_hash);
PG_FUNCTION_INFO_V1(dja_cluster_arrive);
PG_FUNCTION_INFO_V1(dja_cluster_leave);
PG_FUNCTION_INFO_V1(dja_cluster_post);
PG_FUNCTION_INFO_V1(dja_cluster_keep_answer);

/* ---------- where an actor lives ---------- */

/*
 * this_node(): NULL if the database is no node.
 */
Datum
dja_cluster_this_node(PG_FUNCTION_ARGS)
{
	int			node = dja_this_node();

	if (node == DJA_NO_NODE)
		PG_RETURN_NULL();
	PG_RETURN_INT32(node);
}

/*
 * node_of_key(key)
 */
Datum
dja_cluster_node_of_key(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(dja_node_of_key(PG_GETARG_TEXT_PP(0)));
}

/*
 * is_here(key): true for all keys if the database is no node.
 */
Datum
dja_cluster_is_here(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(dja_lives_here(PG_GETARG_TEXT_PP(0)));
}

/*
 * partition_hash(key, seed): what hash partitioning takes for the key's hash, so that
 * its remainder by 64 is the number of the node.  The server adds a constant to the
 * hash of the first column (hash_combine64), which is fixed, since tables on disk
 * depend on it.  The actors stay on that node until the transaction ends, since a row
 * may be about to go there.
 */
Datum
dja_cluster_partition_hash(PG_FUNCTION_ARGS)
{
	uint64		node = (uint64) dja_hold_node_of_key(PG_GETARG_TEXT_PP(0));

	PG_RETURN_UINT64(node - UINT64CONST(0x49a0f4dd15e5a8e3));
}

/* ---------- the triggers of djactor_cluster.message ---------- */

static TriggerData *
dja_cluster_trigger(FunctionCallInfo fcinfo, const char *function, bool before, int arguments)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(data->tg_event) ||
		before != (bool) TRIGGER_FIRED_BEFORE(data->tg_event) ||
		RelationGetDescr(data->tg_relation)->natts != DJA_CLUSTER_NATTS ||
		data->tg_trigger->tgnargs != arguments)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("djactor_cluster.%s() is a trigger of partitions of djactor_cluster.message", function)));
	dja_require_installed();
	return data;
}

/*
 * Makes a row of djactor.message of one of djactor_cluster.message, with an id of its own
 * unless it has one.
 */
static void
dja_cluster_message(TupleDesc columns, const Datum *row, const bool *row_nulls, Datum *values, bool *nulls)
{
	static const int behind[][2] = {
		{DJA_CLUSTER_SENT_AT, DJA_MSG_SENT_AT},
		{DJA_CLUSTER_COALESCE_KEY, DJA_MSG_COALESCE_KEY},
		{DJA_CLUSTER_COALESCE_MODE, DJA_MSG_COALESCE_MODE},
		{DJA_CLUSTER_COALESCE_UNTIL, DJA_MSG_COALESCE_UNTIL},
	};

	/* constraints are checked later, or elsewhere */
	static const int required[] = {
		DJA_MSG_ACTOR_TYPE, DJA_MSG_ACTOR_KEY, DJA_MSG_PAYLOAD, DJA_MSG_PRIORITY, DJA_MSG_WANTS_REPLY,
		DJA_MSG_TRACE_ID, DJA_MSG_KIND, DJA_CLUSTER_SENT_AT
	};

	for (size_t i = 0; i < lengthof(required); i++)
		if (row_nulls[required[i] - 1])
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("column \"%s\" of djactor_cluster.message must not be null",
							NameStr(TupleDescAttr(columns, required[i] - 1)->attname))));
	memset(values, 0, sizeof(Datum) * DJA_MSG_NATTS);
	memset(nulls, true, sizeof(bool) * DJA_MSG_NATTS);
	memcpy(values, row, sizeof(Datum) * DJA_MSG_CAUSE_ID);
	memcpy(nulls, row_nulls, sizeof(bool) * DJA_MSG_CAUSE_ID);
	for (size_t i = 0; i < lengthof(behind); i++)
		dja_set_column(values, nulls, behind[i][1], row[behind[i][0] - 1], row_nulls[behind[i][0] - 1]);
	dja_set_column(values, nulls, DJA_MSG_ATTEMPTS, Int32GetDatum(0), false);
	dja_set_column(values, nulls, DJA_MSG_CRASHES, Int16GetDatum(0), false);
	dja_set_column(values, nulls, DJA_MSG_REDRIVES, Int16GetDatum(0), false);
	dja_set_column(values, nulls, DJA_MSG_RELEASED, BoolGetDatum(false), false);
	dja_set_column(values, nulls, DJA_MSG_PUT_OFFS, Int32GetDatum(0), false);
	if (nulls[DJA_MSG_ID - 1])
		dja_set_column(values, nulls, DJA_MSG_ID,
					   Int64GetDatum(nextval_internal(dja_identity_sequence(DJA_MESSAGE_TABLE), false)), false);
}

/*
 * The row that goes into the partition, with the id of the message.
 */
static Datum
dja_cluster_row(TriggerData *data, Datum id)
{
	int			column = DJA_MSG_ID;
	bool		isnull = false;

	return PointerGetDatum(heap_modify_tuple_by_cols(data->tg_trigtuple, RelationGetDescr(data->tg_relation),
													 1, &column, &id, &isnull));
}

static bool
dja_cluster_is_user(const Datum *values)
{
	text	   *kind = DatumGetTextPP(values[DJA_MSG_KIND - 1]);

	return VARSIZE_ANY_EXHDR(kind) == 4 && memcmp(VARDATA_ANY(kind), "user", 4) == 0;
}

/*
 * What arrive() works with.  To open it takes longer than all the rest, so it is kept
 * until as many rows have left as have arrived, which is the end of the statement, or
 * else until the end of the transaction.  It belongs to the transaction, not to a
 * savepoint.
 */
static struct
{
	DjaWriter  *writer;			/* NULL: it is not open */
	TupleTableSlot *slot;		/* minimal */
	int64		rows;			/* that have not left */
}			dja_arrivals;

static void
dja_arrivals_open(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = TopTransactionResourceOwner;
	PG_TRY();
	{
		dja_arrivals.writer = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
		dja_arrivals.slot = MakeSingleTupleTableSlot(RelationGetDescr(dja_arrivals.writer->rel), &TTSOpsMinimalTuple);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	dja_arrivals.rows = 0;
	MemoryContextSwitchTo(old);
}

static void
dja_arrivals_close(void)
{
	ResourceOwner owner = CurrentResourceOwner;
	DjaWriter  *writer = dja_arrivals.writer;

	if (writer == NULL)
		return;
	dja_arrivals.writer = NULL;
	CurrentResourceOwner = TopTransactionResourceOwner;
	ExecDropSingleTupleTableSlot(dja_arrivals.slot);
	dja_writer_close(writer);
	CurrentResourceOwner = owner;
}

static void
dja_arrivals_xact(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		dja_arrivals_close();
	else if (event == XACT_EVENT_ABORT)
		dja_arrivals.writer = NULL; /* the abort has closed it */
}

static void
dja_arrivals_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		dja_arrivals_close();
}

/*
 * arrive(): puts a message into djactor.message.
 */
Datum
dja_cluster_arrive(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	TriggerData *data = dja_cluster_trigger(fcinfo, "arrive", true, 0);
	TupleDesc	columns = RelationGetDescr(data->tg_relation);
	Datum		row[DJA_CLUSTER_NATTS];
	bool		row_nulls[DJA_CLUSTER_NATTS];
	Datum		values[DJA_MSG_NATTS];
	bool		nulls[DJA_MSG_NATTS];
	DjaType    *type = NULL;
	CommandId	cid = GetCurrentCommandId(true);

	if (!registered)
	{
		RegisterXactCallback(dja_arrivals_xact, NULL);
		RegisterSubXactCallback(dja_arrivals_subxact, NULL);
		registered = true;
	}
	heap_deform_tuple(data->tg_trigtuple, columns, row, row_nulls);
	dja_cluster_message(columns, row, row_nulls, values, nulls);
	dja_home_sending();
	if (dja_arrivals.writer == NULL)
		dja_arrivals_open();
	dja_row_insert(dja_arrivals.writer, values, nulls);
	CommandCounterIncrement();
	ExecCopySlot(dja_arrivals.slot, dja_arrivals.writer->slot);
	/* answers come from djactor itself, which no mailbox limit stops */
	dja_note_sent(dja_arrivals.slot, &type, cid, dja_cluster_is_user(values));
	ExecClearTuple(dja_arrivals.slot);
	ExecClearTuple(dja_arrivals.writer->slot);
	dja_arrivals.rows++;
	return dja_cluster_row(data, values[DJA_MSG_ID - 1]);
}

/*
 * leave(): removes the row, after it has arrived.
 */
Datum
dja_cluster_leave(PG_FUNCTION_ARGS)
{
	TriggerData *data = dja_cluster_trigger(fcinfo, "leave", false, 0);
	TM_FailureData failure;
	TM_Result	result;

	CommandCounterIncrement();
	result = dja_table_tuple_delete(data->tg_relation, &data->tg_trigtuple->t_self, GetCurrentCommandId(true),
									GetActiveSnapshot(), true, &failure);
	if (result != TM_Ok)
		elog(ERROR, "could not remove a row of djactor_cluster.message: %d", (int) result);
	if (--dja_arrivals.rows <= 0)
		dja_arrivals_close();
	return PointerGetDatum(NULL);
}

/*
 * The node that a trigger names.
 */
static int
dja_cluster_node_argument(TriggerData *data)
{
	return (int) (strtoul(data->tg_trigger->tgargs[0], NULL, 10) % DJA_NODES);
}

/*
 * Sends the actor that forwards mail to a node a message, unless this
 * (sub)transaction has done so.
 */
static void
dja_cluster_wake(int node)
{
	static LocalTransactionId xact = InvalidLocalTransactionId;
	static SubTransactionId subxact;
	static uint64 told;
	uint64		bit = UINT64CONST(1) << node;
	DjaSystemMessage wake = {
		.kind = "user",
		.actor_type = cstring_to_text("djactor_cluster.forward"),
	};

	if (xact != dja_my_xact() || subxact != GetCurrentSubTransactionId())
	{
		xact = dja_my_xact();
		subxact = GetCurrentSubTransactionId();
		told = 0;
	}
	if (told & bit)
		return;
	wake.actor_key = cstring_to_text(psprintf("@%d/%d", dja_this_node(), node));
	wake.payload = dja_json_object(NULL, 0);
	if (dja_send_system_message(&wake) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("actor type \"%s\" does not exist", "djactor_cluster.forward"),
				 errhint("Call djactor_cluster.set_up().")));
	told |= bit;
}

int64
dja_cluster_check(TupleDesc columns, const Datum *row, const bool *row_nulls)
{
	Datum		values[DJA_MSG_NATTS];
	bool		nulls[DJA_MSG_NATTS];
	Relation	messages = table_open(dja_table_oid(DJA_MESSAGE_TABLE), AccessShareLock);
	TupleTableSlot *whole = MakeSingleTupleTableSlot(RelationGetDescr(messages), &TTSOpsVirtual);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(messages), &TTSOpsMinimalTuple);
	DjaType    *type = NULL;

	dja_cluster_message(columns, row, row_nulls, values, nulls);
	memcpy(whole->tts_values, values, sizeof(values));
	memcpy(whole->tts_isnull, nulls, sizeof(nulls));
	ExecStoreVirtualTuple(whole);
	ExecCopySlot(slot, whole);
	(void) dja_check_sent(slot, &type);
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(whole);
	table_close(messages, NoLock);
	return DatumGetInt64(values[DJA_MSG_ID - 1]);
}

/*
 * post(node): the row stays here until it is forwarded.
 */
Datum
dja_cluster_post(PG_FUNCTION_ARGS)
{
	TriggerData *data = dja_cluster_trigger(fcinfo, "post", true, 1);
	TupleDesc	columns = RelationGetDescr(data->tg_relation);
	Datum		row[DJA_CLUSTER_NATTS];
	bool		row_nulls[DJA_CLUSTER_NATTS];
	int64		id;

	heap_deform_tuple(data->tg_trigtuple, columns, row, row_nulls);
	id = dja_cluster_check(columns, row, row_nulls);
	dja_cluster_wake(dja_cluster_node_argument(data));
	return dja_cluster_row(data, Int64GetDatum(id));
}

/* ---------- answers ---------- */

/*
 * keep_answer(id, payload, error): the answer to an ask from outside of actors that
 * has gone to another node, for wait_reply().
 */
Datum
dja_cluster_keep_answer(PG_FUNCTION_ARGS)
{
	Datum		values[DJA_REPLY_NATTS] = {0};
	bool		nulls[DJA_REPLY_NATTS] = {0};

	dja_require_installed();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) == PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keep_answer() takes an id, and either a payload or an error")));
	values[DJA_REPLY_MESSAGE_ID - 1] = PG_GETARG_DATUM(0);
	dja_set_column(values, nulls, DJA_REPLY_PAYLOAD, PG_GETARG_DATUM(1), PG_ARGISNULL(1));
	dja_set_column(values, nulls, DJA_REPLY_ERROR, PG_GETARG_DATUM(2), PG_ARGISNULL(2));
	values[DJA_REPLY_CREATED_AT - 1] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[DJA_REPLY_EXPIRES_AT - 1] =
		TimestampTzGetDatum(GetCurrentTimestamp() + (int64) dja_reply_retention * USECS_PER_SEC);
	nulls[DJA_REPLY_ACTOR_TYPE - 1] = nulls[DJA_REPLY_ACTOR_KEY - 1] = true;
	dja_table_insert(DJA_REPLY_TABLE, values, nulls);
	dja_reply_notify_note(PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}
