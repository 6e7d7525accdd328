/*
 * cluster_citus.c
 *
 * Messages that Citus carries to another node: the foreign data wrapper djactor_citus.  Its
 * foreign tables are partitions of djactor_cluster.message, each for one other node.
 *
 * An INSERT has each row checked, gives it an id, and keeps it in memory.  At the end
 * of the statement its rows go into djactor_cluster.routed_N, a distributed table whose only
 * shard is on node N and has the triggers of message_here.  A single row goes by VALUES,
 * which Citus sends on as it is; many go by INSERT ... SELECT, which Citus makes a COPY.
 *
 * What always holds:
 *
 * - The tables are empty, and the planner is told so.
 * - A row takes no transaction id here, since it is not written.  So two_phase.c can tell
 *   whether the transaction has written anything else.
 * - What Citus writes ends with the transaction.  It would commit a single row of a statement by
 *   itself on the other node at once, hence dja_write_by_citus().
 * - What is kept belongs to the statement.  If that fails, or a savepoint takes it back, it is
 *   forgotten with the statement's memory.
 *
 * Rows are written as the role as which the nodes connect, as a foreign key's trigger acts as
 * another role.  Only a superuser can give routed_N triggers.
 */
#include "postgres.h"

#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "optimizer/paths.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "sql/cluster.h"
#include "tables/catalog.h"
#include "tables/place.h"
#include "xact/two_phase.h"

#define DJA_CARRIED_ROWS 1000
#define DJA_CARRIED_BYTES ((Size) 1024 * 1024)

PG_FUNCTION_INFO_V1(dja_cluster_carry);

/* What a statement has for a node. */
typedef struct DjaCarried
{
	MemoryContext context;		/* of the rows */
	int			node;
	int			nrows;
	Size		size;
	HeapTuple	rows[DJA_CARRIED_ROWS];
} DjaCarried;

/* The INSERTs into routed_N, kept for the session. */
static struct
{
	Oid			rowtype;		/* of the foreign table for which they were
								 * made */
	SPIPlanPtr	one;
	SPIPlanPtr	many;
}			dja_carry_plans[DJA_NODES];

/* ---------- handing over ---------- */

/*
 * The other node gives the message an id of its own, and knows this one as ask_id.
 */
static const char *
dja_carried_column(TupleDesc columns, int attnum)
{
	return attnum == DJA_CLUSTER_ASK_ID ? "id" : quote_identifier(NameStr(TupleDescAttr(columns, attnum - 1)->attname));
}

static SPIPlanPtr
dja_carry_prepare(TupleDesc columns, int node, bool many)
{
	StringInfoData names;
	StringInfoData values;
	Oid			types[DJA_CLUSTER_NATTS];
	SPIPlanPtr	plan;
	char	   *command;

	initStringInfo(&names);
	initStringInfo(&values);
	for (int attnum = 1; attnum <= DJA_CLUSTER_NATTS; attnum++)
		types[attnum - 1] = TupleDescAttr(columns, attnum - 1)->atttypid;
	for (int attnum = DJA_MSG_ID + 1; attnum <= DJA_CLUSTER_NATTS; attnum++)
	{
		const char *separator = attnum == DJA_CLUSTER_NATTS ? "" : ", ";

		appendStringInfo(&names, "%s%s", quote_identifier(NameStr(TupleDescAttr(columns, attnum - 1)->attname)), separator);
		if (many)
			appendStringInfo(&values, "%s%s", dja_carried_column(columns, attnum), separator);
		else
			appendStringInfo(&values, "$%d%s", attnum == DJA_CLUSTER_ASK_ID ? DJA_MSG_ID : attnum, separator);
	}
	if (many)
	{
		types[0] = get_array_type(columns->tdtypeid);
		command = psprintf("INSERT INTO djactor_cluster.routed_%d (%s) SELECT %s FROM pg_catalog.unnest($1)",
						   node, names.data, values.data);
	}
	else
		command = psprintf("INSERT INTO djactor_cluster.routed_%d (%s) VALUES (%s)", node, names.data, values.data);
	plan = SPI_prepare(command, many ? 1 : DJA_CLUSTER_NATTS, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare: %s", command);
	return plan;
}

static SPIPlanPtr
dja_carry_plan(TupleDesc columns, int node, bool many)
{
	SPIPlanPtr *plan = many ? &dja_carry_plans[node].many : &dja_carry_plans[node].one;

	if (dja_carry_plans[node].rowtype != columns->tdtypeid)
	{
		/* the extension was created anew */
		if (dja_carry_plans[node].one != NULL)
			SPI_freeplan(dja_carry_plans[node].one);
		if (dja_carry_plans[node].many != NULL)
			SPI_freeplan(dja_carry_plans[node].many);
		dja_carry_plans[node].one = dja_carry_plans[node].many = NULL;
		dja_carry_plans[node].rowtype = columns->tdtypeid;
	}
	if (*plan == NULL)
		*plan = dja_carry_prepare(columns, node, many);
	return *plan;
}

static Datum
dja_carried_array(DjaCarried *carried, TupleDesc columns)
{
	Datum	   *rows = palloc(sizeof(Datum) * carried->nrows);

	for (int i = 0; i < carried->nrows; i++)
		rows[i] = heap_copy_tuple_as_datum(carried->rows[i], columns);
	return PointerGetDatum(construct_array(rows, carried->nrows, columns->tdtypeid, -1, false, TYPALIGN_DOUBLE));
}

/*
 * Puts the rows into djactor_cluster.routed_N, and forgets them.
 */
static void
dja_carry(DjaCarried *carried, TupleDesc columns)
{
	bool		many = carried->nrows > 1;
	Datum		values[DJA_CLUSTER_NATTS];
	bool		isnull[DJA_CLUSTER_NATTS] = {false};
	char		nulls[DJA_CLUSTER_NATTS];
	Oid			user;
	int			context;
	int			result;

	if (carried->nrows == 0)
		return;
	dja_write_by_citus();
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(dja_cluster_role(), context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (many)
		values[0] = dja_carried_array(carried, columns);
	else
		heap_deform_tuple(carried->rows[0], columns, values, isnull);
	for (int i = 0; i < DJA_CLUSTER_NATTS; i++)
		nulls[i] = isnull[i] ? 'n' : ' ';
	result = SPI_execute_plan(dja_carry_plan(columns, carried->node, many), values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not hand messages over to Citus: %s", SPI_result_code_string(result));
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	MemoryContextReset(carried->context);
	carried->nrows = 0;
	carried->size = 0;
}

/* ---------- the foreign data wrapper ---------- */

static int
dja_carried_node(Oid table)
{
	ListCell   *cell;

	foreach(cell, GetForeignTable(table)->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "node") == 0)
			return pg_strtoint32(defGetString(option));
	}
	return DJA_NO_NODE;
}

static DjaCarried *
dja_carried(EState *estate, ResultRelInfo *rri)
{
	Relation	rel = rri->ri_RelationDesc;
	DjaCarried *carried = rri->ri_FdwState;
	int			node;

	if (carried != NULL)
		return carried;
	dja_require_installed();
	node = dja_carried_node(RelationGetRelid(rel));
	if (RelationGetDescr(rel)->natts != DJA_CLUSTER_NATTS || node < 0 || node >= DJA_NODES)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a partition of djactor_cluster.message for a node of Citus",
						RelationGetRelationName(rel)),
				 errhint("Such partitions are made by djactor_cluster.set_up_citus().")));
	carried = MemoryContextAlloc(estate->es_query_cxt, sizeof(DjaCarried));
	carried->context = AllocSetContextCreate(estate->es_query_cxt, "djactor messages for Citus", ALLOCSET_DEFAULT_SIZES);
	carried->node = node;
	carried->nrows = 0;
	carried->size = 0;
	rri->ri_FdwState = carried;
	return carried;
}

/*
 * Returns the row with its id.
 */
static TupleTableSlot *
dja_carry_insert(EState *estate, ResultRelInfo *rri, TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	TupleDesc	columns = RelationGetDescr(rri->ri_RelationDesc);
	DjaCarried *carried = dja_carried(estate, rri);
	MemoryContext old;
	HeapTuple	row;
	int64		id;

	if (carried->nrows == DJA_CARRIED_ROWS || carried->size >= DJA_CARRIED_BYTES)
		dja_carry(carried, columns);
	slot_getallattrs(slot);
	old = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	id = dja_cluster_check(columns, slot->tts_values, slot->tts_isnull);
	slot->tts_values[DJA_MSG_ID - 1] = Int64GetDatum(id);
	slot->tts_isnull[DJA_MSG_ID - 1] = false;
	MemoryContextSwitchTo(carried->context);
	row = heap_form_tuple(columns, slot->tts_values, slot->tts_isnull);
	if (HeapTupleHasExternal(row))
		row = toast_flatten_tuple(row, columns);	/* whose size is known */
	MemoryContextSwitchTo(old);
	carried->rows[carried->nrows++] = row;
	carried->size += row->t_len;
	/* it stays until the next one comes */
	ExecForceStoreHeapTuple(row, slot, false);
	return slot;
}

/*
 * The statement has ended.
 */
static void
dja_carry_end(EState *estate, ResultRelInfo *rri)
{
	if (rri->ri_FdwState != NULL)
		dja_carry(rri->ri_FdwState, RelationGetDescr(rri->ri_RelationDesc));
}

static void
dja_carry_size(PlannerInfo *root, RelOptInfo *rel, Oid table)
{
	mark_dummy_rel(rel);
}

/*
 * The handler.  Since the tables are known to be empty, nothing is ever scanned.
 */
Datum
dja_cluster_carry(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = dja_carry_size;
	routine->ExecForeignInsert = dja_carry_insert;
	routine->EndForeignModify = dja_carry_end;	/* of an INSERT into the
												 * partition */
	routine->EndForeignInsert = dja_carry_end;	/* of one into
												 * djactor_cluster.message */
	PG_RETURN_POINTER(routine);
}
