/*
 * message.c
 *
 * Reading and changing djactor.message and djactor.dead_letter.  The only SQL
 * text of the C code is at the end: send() is an INSERT like everybody's, with
 * the caller's rights.
 *
 * Reads go through the mailbox index from a given cursor on, so that the dead
 * rows of what was handled before cost nothing, and through the due index from
 * a given moment on.  Writes act on the very row version that was read and
 * wait for nobody.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "shmem/run_queue.h"
#include "tables/message.h"

#define DJA_WALK_ENTRIES 8		/* before a mailbox is skipped */

static void
dja_scan_open(DjaScan *scan, DjaIndex index, ScanKey keys, int nkeys, Snapshot snapshot)
{
	scan->rel = table_open(dja_table_oid(DJA_MESSAGE_TABLE), AccessShareLock);
	scan->index = index_open(dja_index_oid(index), AccessShareLock);
	scan->slot = table_slot_create(scan->rel, NULL);
	scan->scan = dja_index_beginscan(scan->rel, scan->index, snapshot, nkeys);
	index_rescan(scan->scan, keys, nkeys, NULL, 0);
}

/*
 * Deliverable messages: begin opens what is needed, start then goes to a
 * mailbox, as often as one likes.
 */
void
dja_message_scan_begin(DjaScan *scan, Snapshot snapshot)
{
	scan->rel = table_open(dja_table_oid(DJA_MESSAGE_TABLE), AccessShareLock);
	scan->index = index_open(dja_index_oid(DJA_MAILBOX_INDEX), AccessShareLock);
	scan->slot = table_slot_create(scan->rel, NULL);
	scan->scan = dja_index_beginscan(scan->rel, scan->index, snapshot, 3);
	scan->walking = false;
}

/*
 * Messages of one mailbox in their order, from the cursor on.
 */
void
dja_message_scan_start(DjaScan *scan, uint64 type_hash, uint64 key_hash, int64 cursor)
{
	ScanKeyData keys[3];

	ScanKeyInit(&keys[0], DJA_MAILBOX_IX_TYPE, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum((int64) type_hash));
	ScanKeyInit(&keys[1], DJA_MAILBOX_IX_KEY, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum((int64) key_hash));
	ScanKeyInit(&keys[2], DJA_MAILBOX_IX_POSITION, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(cursor));
	scan->walking = false;
	index_rescan(scan->scan, keys, 3, NULL, 0);
}

/*
 * The mailboxes of a type, one after the other: all of them, or from a key on,
 * or those after it.
 */
void
dja_message_scan_type(DjaScan *scan, uint64 type_hash, DjaScanFrom from, uint64 key_hash)
{
	ScanKeyData keys[3];
	bool		after = from == DJA_SCAN_AFTER_KEY;

	ScanKeyInit(&keys[0], DJA_MAILBOX_IX_TYPE, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum((int64) type_hash));
	ScanKeyInit(&keys[1], DJA_MAILBOX_IX_KEY,
				after ? BTGreaterStrategyNumber : BTGreaterEqualStrategyNumber,
				after ? F_INT8GT : F_INT8GE,
				Int64GetDatum(from == DJA_SCAN_ALL_KEYS ? PG_INT64_MIN : (int64) key_hash));
	/* a scan has as many keys as it began with */
	ScanKeyInit(&keys[2], DJA_MAILBOX_IX_POSITION, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(DJA_CURSOR_START));
	scan->walking = false;
	index_rescan(scan->scan, keys, 3, NULL, 0);
}

static uint64
dja_entry_key(DjaScan *scan)
{
	bool		isnull;

	return (uint64) DatumGetInt64(index_getattr(scan->scan->xs_itup, DJA_MAILBOX_IX_KEY,
												scan->scan->xs_itupdesc, &isnull));
}

/*
 * The first mailbox of a type, or the next one after a key, and the lowest
 * position in it; false at the end.  Looks at the index alone: what it finds
 * may be dead or not yet committed, which a hint may be.
 *
 * Where mailboxes are short the next one is a few entries away; a long one is
 * not walked through but skipped, by a new descent.
 */
bool
dja_message_scan_skip(DjaScan *scan, uint64 type_hash, bool first, uint64 after,
					  uint64 *key_hash, int64 *position)
{
	bool		there = false;
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	if (scan->walking && !first && scan->walked_to == after)
	{
		for (int i = 0; i < DJA_WALK_ENTRIES && !there; i++)
		{
			if (index_getnext_tid(scan->scan, ForwardScanDirection) == NULL)
				return false;
			there = dja_entry_key(scan) != after;
		}
	}
	if (!there)
	{
		scan->scan->xs_want_itup = true;
		dja_message_scan_type(scan, type_hash, first ? DJA_SCAN_ALL_KEYS : DJA_SCAN_AFTER_KEY,
							  after);
		if (index_getnext_tid(scan->scan, ForwardScanDirection) == NULL)
			return false;
	}
	*key_hash = dja_entry_key(scan);
	*position = DatumGetInt64(index_getattr(scan->scan->xs_itup, DJA_MAILBOX_IX_POSITION,
											scan->scan->xs_itupdesc, &isnull));
	scan->walking = true;
	scan->walked_to = *key_hash;
	return true;
}

/*
 * Delays and retries of one type in the order of their time, from a moment on.
 */
void
dja_due_scan_begin(DjaScan *scan, uint64 type_hash, TimestampTz from, Snapshot snapshot)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], DJA_DUE_IX_TYPE, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum((int64) type_hash));
	ScanKeyInit(&keys[1], DJA_DUE_IX_AT, BTGreaterEqualStrategyNumber, F_TIMESTAMP_GE,
				TimestampTzGetDatum(from));
	dja_scan_open(scan, DJA_DUE_INDEX, keys, 2, snapshot);
}

/*
 * What is an actor's and not in its mailbox, since it is set aside or delayed, in the
 * mailbox's order.
 */
void
dja_aside_scan_begin(DjaScan *scan, uint64 type_hash, uint64 key_hash, Snapshot snapshot)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], DJA_MAILBOX_IX_TYPE, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum((int64) type_hash));
	ScanKeyInit(&keys[1], DJA_MAILBOX_IX_KEY, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum((int64) key_hash));
	dja_scan_open(scan, DJA_ASIDE_INDEX, keys, 2, snapshot);
}

bool
dja_scan_next(DjaScan *scan)
{
	CHECK_FOR_INTERRUPTS();
	return index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot);
}

/*
 * The last one of all that there are, as the first call after a start.
 */
bool
dja_scan_last(DjaScan *scan)
{
	return index_getnext_slot(scan->scan, BackwardScanDirection, scan->slot);
}

/*
 * The two halves of dja_scan_next(): the index first, rows later, in any order.
 * An entry's row need not be visible, and is dead if nobody sees it any more:
 * then it is dja_scan_next() that rids the index of the entry.
 */
bool
dja_scan_next_entry(DjaScan *scan, ItemPointer tid)
{
	ItemPointer next;

	CHECK_FOR_INTERRUPTS();
	next = index_getnext_tid(scan->scan, ForwardScanDirection);
	if (next != NULL)
		*tid = *next;
	return next != NULL;
}

bool
dja_scan_fetch(DjaScan *scan, ItemPointerData tid, bool *dead)
{
	bool		again = false;

	if (!table_index_fetch_tuple(scan->scan->xs_heapfetch, &tid, scan->scan->xs_snapshot,
								 scan->slot, &again, dead))
		return false;
	pgstat_count_heap_fetch(scan->index);
	return true;
}

void
dja_scan_end(DjaScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, AccessShareLock);
	table_close(scan->rel, AccessShareLock);
}

/*
 * The message in a slot, copied into the current memory context.
 */
DjaMessage *
dja_message_from_slot(TupleTableSlot *slot)
{
	DjaMessage *message = palloc(sizeof(DjaMessage));
	HeapTuple	tuple = ExecCopySlotHeapTuple(slot);

	heap_deform_tuple(tuple, slot->tts_tupleDescriptor, message->values, message->nulls);
	message->tid = slot->tts_tid;
	message->id = DatumGetInt64(message->values[DJA_MSG_ID - 1]);
	message->position = dja_position(DatumGetInt16(message->values[DJA_MSG_PRIORITY - 1]),
									 message->id);
	message->attempts = DatumGetInt32(message->values[DJA_MSG_ATTEMPTS - 1]);
	message->put_offs = DatumGetInt32(message->values[DJA_MSG_PUT_OFFS - 1]);
	message->locker = dja_tuple_locker(tuple->t_data, false);
	message->retry_at = message->nulls[DJA_MSG_RETRY_AT - 1] ? DT_NOBEGIN :
		DatumGetTimestampTz(message->values[DJA_MSG_RETRY_AT - 1]);
	message->expires_at = message->nulls[DJA_MSG_EXPIRES_AT - 1] ? DT_NOEND :
		DatumGetTimestampTz(message->values[DJA_MSG_EXPIRES_AT - 1]);
	message->key = DatumGetTextPP(message->values[DJA_MSG_ACTOR_KEY - 1]);
	message->asks = DatumGetBool(message->values[DJA_MSG_WANTS_REPLY - 1]);
	message->plain = !message->asks && message->nulls[DJA_MSG_DELIVER_AT - 1] &&
		message->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1] && dja_message_is_kind(message, "user");
	message->state = DJA_MESSAGE_OPEN;
	message->fired_meta = 0;
	return message;
}

/*
 * The message that the scan stands on, copied into the current memory context.
 */
DjaMessage *
dja_scan_message(DjaScan *scan)
{
	return dja_message_from_slot(scan->slot);
}

void
dja_message_scan_id(DjaScan *scan, int64 id, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	dja_scan_open(scan, DJA_MESSAGE_PKEY, &key, 1, snapshot);
}

/*
 * One message, NULL when the snapshot does not see it.
 */
DjaMessage *
dja_message_by_id(int64 id, Snapshot snapshot)
{
	DjaScan		scan;
	DjaMessage *message = NULL;

	dja_message_scan_id(&scan, id, snapshot);
	if (dja_scan_next(&scan))
		message = dja_scan_message(&scan);
	dja_scan_end(&scan);
	return message;
}

/*
 * Was this message sent by somebody, or is it one of djactor's own?
 */
static bool
dja_slot_is_sent(TupleTableSlot *slot)
{
	bool		isnull;

	return strcmp(TextDatumGetCString(slot_getattr(slot, DJA_MSG_KIND, &isnull)), "user") == 0;
}

/*
 * Counts the messages of a mailbox, from a cursor on and up to a limit, with sent only those that
 * somebody has sent and not djactor's own; of this transaction's own those that
 * were sent before command cid.
 */
int
dja_message_count(uint64 type_hash, uint64 key_hash, int64 from, int limit, CommandId cid, bool sent)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	DjaScan		scan;
	int			n = 0;

	snapshot->curcid = cid;		/* our copy: RegisterSnapshot made it */
	dja_message_scan_begin(&scan, snapshot);
	dja_message_scan_start(&scan, type_hash, key_hash, from);
	while (n < limit && dja_scan_next(&scan))
		n += !sent || dja_slot_is_sent(scan.slot);
	dja_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	return n;
}

static inline void
dja_set_text(Datum *values, bool *nulls, int attnum, const char *string)
{
	nulls[attnum - 1] = string == NULL;
	values[attnum - 1] = string ? CStringGetTextDatum(string) : (Datum) 0;
}

/*
 * Moves a message to djactor.dead_letter.
 */
void
dja_message_dead(DjaWriter *messages, DjaWriter *dead_letters,
				 DjaMessage *message, DjaFailure *failure)
{
	Datum		values[DJA_DEAD_NATTS];
	bool		nulls[DJA_DEAD_NATTS];

	memcpy(values, message->values, sizeof(Datum) * DJA_MSG_COMMON);
	memcpy(nulls, message->nulls, sizeof(bool) * DJA_MSG_COMMON);
	values[DJA_MSG_ATTEMPTS - 1] = Int32GetDatum(message->attempts);
	if (message->fired_meta != 0)
		values[DJA_MSG_META - 1] = message->fired_meta;
	nulls[DJA_MSG_RETRY_AT - 1] = true;
	if (failure->error != NULL)
		dja_set_text(values, nulls, DJA_MSG_LAST_ERROR, failure->error);
	dja_set_text(values, nulls, DJA_DEAD_REASON, failure->reason);
	dja_set_text(values, nulls, DJA_DEAD_SQLSTATE,
				 failure->sqlerrcode ? unpack_sql_state(failure->sqlerrcode) : NULL);
	dja_set_text(values, nulls, DJA_DEAD_ERROR, failure->error);
	dja_set_text(values, nulls, DJA_DEAD_CONTEXT, failure->context);
	nulls[DJA_DEAD_FAILED_AT - 1] = false;
	values[DJA_DEAD_FAILED_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());

	dja_row_delete(messages, &message->tid);
	dja_row_insert(dead_letters, values, nulls);
}

/*
 * Puts a message off until its next attempt, with its attempts and put_offs as
 * they are by now.  Under retry_order skip it is delayed anew, which takes it
 * out of its mailbox; else it stays and holds what sorts after it.
 */
void
dja_message_retry(DjaWriter *messages, DjaMessage *message, TimestampTz retry_at,
				  const char *error, bool skip)
{
	Datum	   *values = message->values;
	bool	   *nulls = message->nulls;

	message->retry_at = retry_at;
	values[DJA_MSG_ATTEMPTS - 1] = Int32GetDatum(message->attempts);
	values[DJA_MSG_PUT_OFFS - 1] = Int32GetDatum(message->put_offs);
	nulls[DJA_MSG_RETRY_AT - 1] = TIMESTAMP_IS_NOBEGIN(retry_at);
	values[DJA_MSG_RETRY_AT - 1] = TimestampTzGetDatum(retry_at);
	dja_set_text(values, nulls, DJA_MSG_LAST_ERROR, error);
	if (skip)
	{
		nulls[DJA_MSG_DELIVER_AT - 1] = false;
		values[DJA_MSG_DELIVER_AT - 1] = TimestampTzGetDatum(retry_at);
		values[DJA_MSG_RELEASED - 1] = BoolGetDatum(false);
	}
	dja_row_update(messages, &message->tid, values, nulls);
}

/*
 * A delayed message has become due: into its mailbox with it, unless somebody
 * else has its row.
 */
TM_Result
dja_message_release(DjaWriter *messages, DjaMessage *message)
{
	message->values[DJA_MSG_RELEASED - 1] = BoolGetDatum(true);
	message->nulls[DJA_MSG_RETRY_AT - 1] = true;
	return dja_row_try_update(messages, &message->tid, message->values, message->nulls);
}

/*
 * A message that came too early, since the clock was put back after it was
 * released: delayed again.
 */
void
dja_message_delay(DjaWriter *messages, DjaMessage *message)
{
	message->values[DJA_MSG_RELEASED - 1] = BoolGetDatum(false);
	dja_row_update(messages, &message->tid, message->values, message->nulls);
	message->state = DJA_MESSAGE_ASIDE;
}

/*
 * Takes a message out of its mailbox, or puts it back with aside = NULL; the
 * timekeeper looks at it again at until, unless that is infinite.
 */
void
dja_message_set_aside(DjaWriter *messages, DjaMessage *message, const char *aside,
					  TimestampTz until)
{
	dja_set_text(message->values, message->nulls, DJA_MSG_ASIDE, aside);
	message->nulls[DJA_MSG_RETRY_AT - 1] = until == DT_NOEND;
	message->values[DJA_MSG_RETRY_AT - 1] = TimestampTzGetDatum(until);
	message->values[DJA_MSG_RELEASED - 1] = BoolGetDatum(true);
	dja_row_update(messages, &message->tid, message->values, message->nulls);
	message->state = DJA_MESSAGE_ASIDE;
}

bool
dja_message_is_aside(DjaMessage *message, const char *aside)
{
	return !message->nulls[DJA_MSG_ASIDE - 1] &&
		strcmp(TextDatumGetCString(message->values[DJA_MSG_ASIDE - 1]), aside) == 0;
}

/*
 * send(): an INSERT as anybody would write it.  An option that is not given is
 * not named: the column gets its default, so the headers of a turn pass on, and
 * the sender needs no right to it.
 */
int64
dja_message_send(Datum *values, const bool *nulls)
{
	static SPIPlanPtr plans[1 << DJA_SEND_OPTIONS];
	static char *plans_table = NULL;	/* what they insert into */
	char	   *table = dja_table_name(DJA_MESSAGE_TABLE);
	static const char *const options[DJA_SEND_OPTIONS] = {"idempotency_key", "wants_reply", "headers"};
	Oid			types[DJA_SEND_NARGS] = {
		TEXTOID, TEXTOID, JSONBOID, INT2OID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, TEXTOID, BOOLOID, JSONBOID
	};
	char		flags[DJA_SEND_NARGS + 1] = {0};
	int			given = 0;
	bool		isnull;
	int64		id;

	for (int i = 0; i < DJA_SEND_NARGS; i++)
		flags[i] = nulls[i] ? 'n' : ' ';
	for (int i = 0; i < DJA_SEND_OPTIONS; i++)
		if (!nulls[DJA_SEND_NARGS - DJA_SEND_OPTIONS + i])
			given |= 1 << i;
	if (plans_table == NULL || strcmp(plans_table, table) != 0)
	{
		char	   *renamed = MemoryContextStrdup(TopMemoryContext, table);

		if (plans_table != NULL)
			pfree(plans_table);
		plans_table = renamed;
		for (size_t i = 0; i < lengthof(plans); i++)
		{
			if (plans[i] != NULL)
				SPI_freeplan(plans[i]);
			plans[i] = NULL;
		}
	}
	SPI_connect();
	if (plans[given] == NULL)
	{
		StringInfoData columns;
		StringInfoData parameters;
		SPIPlanPtr	plan;

		initStringInfo(&columns);
		initStringInfo(&parameters);
		for (int i = 0; i < DJA_SEND_OPTIONS; i++)
		{
			if (!(given & (1 << i)))
				continue;
			appendStringInfo(&columns, ", %s", options[i]);
			appendStringInfo(&parameters, ", $%d", DJA_SEND_NARGS - DJA_SEND_OPTIONS + i + 1);
		}
		plan = SPI_prepare(psprintf("INSERT INTO %s"
									" (actor_type, actor_key, payload, priority, deliver_at, expires_at%s)"
									" VALUES ($1, $2, $3, $4, $5, $6%s) RETURNING id",
									table, columns.data, parameters.data),
						   DJA_SEND_NARGS, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the INSERT of djactor.send()");
		plans[given] = plan;
	}

	/*
	 * no row limit: an INSERT that is stopped at its first row fires no
	 * statement trigger
	 */
	if (SPI_execute_plan(plans[given], values, flags, false, 0) != SPI_OK_INSERT_RETURNING ||
		SPI_processed != 1)
		elog(ERROR, "djactor.send() inserted no row");
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return id;
}
