/*
 * message_scan.c
 *
 * Reading djactor.message by its indexes; see message.h.
 *
 * Mailboxes are read by the mailbox index from a given cursor on, so that the
 * dead rows of messages that were handled before cost nothing.  Delays and
 * retries are read by the due index from a given moment on.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relscan.h"
#include "catalog/pg_collation.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "shmem/run_queue.h"
#include "tables/message.h"

#define DJA_WALK_ENTRIES 8		/* before a mailbox is skipped */

static void
dja_scan_key(ScanKey key, AttrNumber column, uint64 hash)
{
	ScanKeyInit(key, column, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) hash));
}

/*
 * Begins a scan of deliverable messages, to be ended by dja_scan_end().
 * dja_message_scan_start() goes to a mailbox, as often as one likes.
 */
void
dja_message_scan_begin(DjaScan *scan, Snapshot snapshot)
{
	dja_find_open(&scan->find, DJA_MESSAGE_TABLE, DJA_MAILBOX_INDEX, 3, snapshot);
	scan->walking = false;
}

/*
 * Goes to one mailbox, to read its messages in their order from the cursor on.
 */
void
dja_message_scan_start(DjaScan *scan, uint64 type_hash, uint64 key_hash, int64 cursor)
{
	ScanKeyData keys[3];

	dja_scan_key(&keys[0], DJA_MAILBOX_IX_TYPE, type_hash);
	dja_scan_key(&keys[1], DJA_MAILBOX_IX_KEY, key_hash);
	ScanKeyInit(&keys[2], DJA_MAILBOX_IX_POSITION, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(cursor));
	scan->walking = false;
	index_rescan(scan->find.scan, keys, 3, NULL, 0);
}

/*
 * Goes to the mailboxes of a type, to read one after the other: all of them,
 * those from a key on, or those after a key.
 */
void
dja_message_scan_type(DjaScan *scan, uint64 type_hash, DjaScanFrom from, uint64 key_hash)
{
	ScanKeyData keys[3];
	bool		after = from == DJA_SCAN_AFTER_KEY;

	dja_scan_key(&keys[0], DJA_MAILBOX_IX_TYPE, type_hash);
	ScanKeyInit(&keys[1], DJA_MAILBOX_IX_KEY,
				after ? BTGreaterStrategyNumber : BTGreaterEqualStrategyNumber,
				after ? F_INT8GT : F_INT8GE,
				Int64GetDatum(from == DJA_SCAN_ALL_KEYS ? PG_INT64_MIN : (int64) key_hash));
	/* a scan has as many keys as it began with */
	ScanKeyInit(&keys[2], DJA_MAILBOX_IX_POSITION, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(DJA_CURSOR_START));
	scan->walking = false;
	index_rescan(scan->find.scan, keys, 3, NULL, 0);
}

static uint64
dja_entry_key(DjaScan *scan)
{
	bool		isnull;

	Assert(scan->find.scan->xs_itup != NULL);
	return (uint64) DatumGetInt64(index_getattr(scan->find.scan->xs_itup, DJA_MAILBOX_IX_KEY,
												scan->find.scan->xs_itupdesc, &isnull));
}

/*
 * Finds the first mailbox of a type, or the next one after a key, and the lowest
 * position in it.  Returns false at the end.  Reads the index alone, so the messages
 * may be dead or not yet committed, which is good enough for a hint.
 *
 * Where mailboxes are short, the next one is a few entries away.  A long one is not
 * walked through but skipped, by a new descent.
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
			if (index_getnext_tid(scan->find.scan, ForwardScanDirection) == NULL)
				return false;
			there = dja_entry_key(scan) != after;
		}
	}
	if (!there)
	{
		scan->find.scan->xs_want_itup = true;
		dja_message_scan_type(scan, type_hash, first ? DJA_SCAN_ALL_KEYS : DJA_SCAN_AFTER_KEY,
							  after);
		if (index_getnext_tid(scan->find.scan, ForwardScanDirection) == NULL)
			return false;
	}
	*key_hash = dja_entry_key(scan);
	*position = DatumGetInt64(index_getattr(scan->find.scan->xs_itup, DJA_MAILBOX_IX_POSITION,
											scan->find.scan->xs_itupdesc, &isnull));
	scan->walking = true;
	scan->walked_to = *key_hash;
	return true;
}

/*
 * Begins a scan of delays and retries of one type, in the order of their time, from a
 * moment on.
 */
void
dja_due_scan_begin(DjaScan *scan, uint64 type_hash, TimestampTz from, Snapshot snapshot)
{
	ScanKeyData keys[2];

	dja_scan_key(&keys[0], DJA_DUE_IX_TYPE, type_hash);
	ScanKeyInit(&keys[1], DJA_DUE_IX_AT, BTGreaterEqualStrategyNumber, F_TIMESTAMP_GE,
				TimestampTzGetDatum(from));
	dja_find_open(&scan->find, DJA_MESSAGE_TABLE, DJA_DUE_INDEX, 2, snapshot);
	index_rescan(scan->find.scan, keys, 2, NULL, 0);
}

/*
 * Begins a scan of an actor's messages that are not in its mailbox, since they
 * are set aside or delayed, as the latest snapshot sees them.  Messages with a
 * coalesce key are among them, also those in the mailbox.
 */
void
dja_aside_scan_begin(DjaScan *scan, uint64 type_hash, uint64 key_hash)
{
	Datum		keys[2] = {Int64GetDatum((int64) type_hash), Int64GetDatum((int64) key_hash)};

	dja_find_begin(&scan->find, DJA_MESSAGE_TABLE, DJA_ASIDE_INDEX, 2, keys, NULL);
}

/*
 * Begins a scan of the messages to a message's actor that have its coalesce key, in
 * the order of their ids, from one on, as the latest snapshot sees them.  Actors may
 * have the same hashes.
 */
void
dja_coalesce_scan_begin(DjaScan *scan, uint64 type_hash, DjaMessage *message, int64 from)
{
	ScanKeyData keys[4];

	dja_scan_key(&keys[0], DJA_ASIDE_IX_TYPE, type_hash);
	dja_scan_key(&keys[1], DJA_ASIDE_IX_KEY, dja_hash_text(message->key));
	ScanKeyEntryInitialize(&keys[2], 0, DJA_ASIDE_IX_COALESCE_KEY, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, message->values[DJA_MSG_COALESCE_KEY - 1]);
	ScanKeyInit(&keys[3], DJA_ASIDE_IX_ID, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(from));
	dja_find_open(&scan->find, DJA_MESSAGE_TABLE, DJA_ASIDE_INDEX, 4, NULL);
	index_rescan(scan->find.scan, keys, 4, NULL, 0);
}

bool
dja_scan_next(DjaScan *scan)
{
	CHECK_FOR_INTERRUPTS();
	return index_getnext_slot(scan->find.scan, ForwardScanDirection, scan->find.slot);
}

/*
 * Goes to the last message instead of the first; right after a start only.
 */
bool
dja_scan_last(DjaScan *scan)
{
	return index_getnext_slot(scan->find.scan, BackwardScanDirection, scan->find.slot);
}

/*
 * The two halves of dja_scan_next(): the index first, rows later, in any
 * order.  An entry's row need not be visible.  It is dead if no process can see
 * it any more.  Only dja_scan_next() removes such entries from the index.
 */
bool
dja_scan_next_entry(DjaScan *scan, ItemPointer tid)
{
	ItemPointer next;

	CHECK_FOR_INTERRUPTS();
	next = index_getnext_tid(scan->find.scan, ForwardScanDirection);
	if (next != NULL)
		*tid = *next;
	return next != NULL;
}

bool
dja_scan_fetch(DjaScan *scan, ItemPointerData tid, bool *dead)
{
	bool		again = false;

	if (!table_index_fetch_tuple(scan->find.scan->xs_heapfetch, &tid, scan->find.scan->xs_snapshot,
								 scan->find.slot, &again, dead))
		return false;
	pgstat_count_heap_fetch(scan->find.index);
	return true;
}

void
dja_scan_end(DjaScan *scan)
{
	dja_find_end(&scan->find);
}

/*
 * Returns the message in a slot, copied into the current memory context.
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
		message->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1] && message->nulls[DJA_MSG_COALESCE_KEY - 1] &&
		dja_message_is_kind(message, "user");
	message->state = DJA_MESSAGE_OPEN;
	message->fired_meta = 0;
	message->rated = 0;
	return message;
}

/*
 * Returns the message that the scan stands on, copied into the current memory
 * context.
 */
DjaMessage *
dja_scan_message(DjaScan *scan)
{
	return dja_message_from_slot(scan->find.slot);
}

/*
 * Returns a message, NULL if the snapshot (NULL: the latest) does not see it.
 */
DjaMessage *
dja_message_by_id(int64 id, Snapshot snapshot)
{
	Datum		key = Int64GetDatum(id);
	DjaScan		scan;
	DjaMessage *message = NULL;

	dja_find_begin(&scan.find, DJA_MESSAGE_TABLE, DJA_MESSAGE_PKEY, 1, &key, snapshot);
	if (dja_scan_next(&scan))
		message = dja_scan_message(&scan);
	dja_scan_end(&scan);
	return message;
}

/*
 * Was this message sent by a user, and not by djactor itself?
 */
static bool
dja_slot_is_sent(TupleTableSlot *slot)
{
	bool		isnull;

	return strcmp(TextDatumGetCString(slot_getattr(slot, DJA_MSG_KIND, &isnull)), "user") == 0;
}

/*
 * Counts the messages of a mailbox, from a cursor on and up to a limit.  With sent it
 * counts only those that users have sent.  Of those of this transaction it counts the
 * ones that were sent before command cid.
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
		n += !sent || dja_slot_is_sent(scan.find.slot);
	dja_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	return n;
}
