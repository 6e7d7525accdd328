/*
 * cluster_move.c
 *
 * What move_slots() of djactor_cluster needs of the library; djactor_cluster.sql has the
 * protocol.  Who moves actors is a superuser.  He takes their rows away by DELETE, and
 * puts them down on the other node with put().
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "shmem/run_queue.h"
#include "tables/message.h"
#include "tables/place.h"
#include "tables/rows.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_cluster_slot_of_key);
PG_FUNCTION_INFO_V1(dja_cluster_lock_slot);
PG_FUNCTION_INFO_V1(dja_cluster_outdate);
PG_FUNCTION_INFO_V1(dja_cluster_finds_now);
PG_FUNCTION_INFO_V1(dja_cluster_put);
PG_FUNCTION_INFO_V1(dja_cluster_require_no_transaction);

/*
 * slot_of_key(key): NULL if the key names its node.
 */
Datum
dja_cluster_slot_of_key(PG_FUNCTION_ARGS)
{
	int			slot = dja_slot_of_key(PG_GETARG_TEXT_PP(0));

	if (slot == DJA_NO_SLOT)
		PG_RETURN_NULL();
	PG_RETURN_INT32(slot);
}

/*
 * lock_slot(slot): waits for lock_timeout at most.
 */
Datum
dja_cluster_lock_slot(PG_FUNCTION_ARGS)
{
	int			slot = PG_GETARG_INT32(0);

	if (slot < 0 || slot >= DJA_SLOTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("slot must be between 0 and %d", DJA_SLOTS - 1)));
	dja_slot_lock(slot);
	PG_RETURN_VOID();
}

/*
 * outdate(table): has all sessions look again where keys live, or plan their queries
 * about the table again.
 */
Datum
dja_cluster_outdate(PG_FUNCTION_ARGS)
{
	CacheInvalidateRelcacheByRelid(PG_GETARG_OID(0));
	PG_RETURN_VOID();
}

/*
 * finds_now(query): does the query find any row as of now?  A transaction that came by
 * postgres_fdw sees what was there when it began.
 */
Datum
dja_cluster_finds_now(PG_FUNCTION_ARGS)
{
	SPIPlanPtr	plan;
	bool		found;

	SPI_connect();
	plan = SPI_prepare(text_to_cstring(PG_GETARG_TEXT_PP(0)), 0, NULL);
	if (plan == NULL ||
		SPI_execute_snapshot(plan, NULL, NULL, GetLatestSnapshot(), InvalidSnapshot, true, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "finds_now() takes a SELECT");
	found = SPI_processed > 0;
	SPI_finish();
	PG_RETURN_BOOL(found);
}

/*
 * Wakes who handles a message that was put down.
 */
static void
dja_put_wakes(const Datum *values, const bool *nulls)
{
	text	   *name = DatumGetTextPP(values[DJA_MSG_ACTOR_TYPE - 1]);
	text	   *key = DatumGetTextPP(values[DJA_MSG_ACTOR_KEY - 1]);
	uint64		key_hash = dja_hash_text(key);
	bool		delayed = !nulls[DJA_MSG_DELIVER_AT - 1] && !DatumGetBool(values[DJA_MSG_RELEASED - 1]);
	DjaType    *type;

	dja_type_lock(dja_hash_text(name), AccessShareLock);
	type = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	if (type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("actor type \"%s\" does not exist", text_to_cstring(name)),
				 errhint("Define it with djactor.define_actor_type().")));
	if (!nulls[DJA_MSG_RETRY_AT - 1])
		dja_pending_due(type, DatumGetTimestampTz(values[DJA_MSG_RETRY_AT - 1]));
	else if (delayed)
		dja_pending_due(type, DatumGetTimestampTz(values[DJA_MSG_DELIVER_AT - 1]));
	if (!delayed && nulls[DJA_MSG_ASIDE - 1])
	{
		int64		position = dja_position(DatumGetInt16(values[DJA_MSG_PRIORITY - 1]),
											DatumGetInt64(values[DJA_MSG_ID - 1]));

		dja_pending_mailbox(type, key_hash, position, 0);
		dja_pending_tenant(type, key_hash, values, nulls);
	}
}

/*
 * put(row): inserts a row of one of djactor's tables as it is.
 */
Datum
dja_cluster_put(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	Oid			relid = get_typ_typrelid(HeapTupleHeaderGetTypeId(header));
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header),.t_data = header};
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);
	DjaTable	table = 0;

	dja_require_installed();
	while (table < DJA_NTABLES && dja_table_oid(table) != relid)
		table++;
	if (table == DJA_NTABLES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("put() takes rows of djactor's tables")));
	heap_deform_tuple(&tuple, desc, values, nulls);
	ReleaseTupleDesc(desc);
	dja_table_insert(table, values, nulls);
	if (table == DJA_MESSAGE_TABLE)
		dja_put_wakes(values, nulls);
	PG_RETURN_VOID();
}

/*
 * require_no_transaction(): who moves actors commits.
 */
Datum
dja_cluster_require_no_transaction(PG_FUNCTION_ARGS)
{
	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("actors cannot be moved in a transaction block")));
	PG_RETURN_VOID();
}
