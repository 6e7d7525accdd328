/*
 * timekeeper.c
 *
 * The resident's other duties; see timekeeper.h.  Each function does a piece
 * of work in a transaction of its own and returns; what is left is noted in
 * the lane, so that nothing here keeps the mail waiting for long.
 *
 * A sweep walks over the mailbox index from key to key, without looking at the
 * messages, and pushes each mailbox with the lowest position it has there.  A
 * delay or retry is watched for by lane.next_due: everything in the due index
 * before it has been seen to.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "batch.h"
#include "catalog.h"
#include "compat.h"
#include "guc.h"
#include "mailbox.h"
#include "pending.h"
#include "reply.h"
#include "runqueue.h"
#include "slots.h"
#include "storage/lmgr.h"
#include "timekeeper.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define DJA_SWEEP_CHUNK 1024	/* mailboxes in a transaction */
#define DJA_PUSH_CHUNK 64		/* mailboxes under the lock */
#define DJA_DUE_CHUNK 1000		/* messages in a transaction */
#define DJA_AGAIN_MS 1000		/* after a failure */

/*
 * A lane as somebody works on it, outside the lock.
 */
typedef struct DjaLaneWork
{
	int			lane;
	uint64		type_hash;
	bool		first;
	uint64		after;
	TimestampTz from;
	TimestampTz next;
	bool		again;			/* not all of it could be seen to */
	int			seen;			/* rows in this pass */
	int			released;
} DjaLaneWork;

static bool
dja_same_lane(DjaLaneWork *work)
{
	DjaLane    *lane = dja_lane(work->lane);

	return lane->in_use && lane->database == MyDatabaseId && lane->type_hash == work->type_hash;
}

/* ---------- sweeps ---------- */

static void
dja_sweep_step(void *arg)
{
	DjaLaneWork *work = (DjaLaneWork *) arg;
	uint64		keys[DJA_PUSH_CHUNK];
	int64		positions[DJA_PUSH_CHUNK];
	bool		more = true;
	DjaScan		scan;

	dja_mailbox_scan_begin(&scan, GetActiveSnapshot());
	for (int total = 0; more && total < DJA_SWEEP_CHUNK; total += DJA_PUSH_CHUNK)
	{
		int			n = 0;

		while (n < DJA_PUSH_CHUNK &&
			   (more = dja_mailbox_scan_skip(&scan, work->type_hash, work->first, work->after,
											 &keys[n], &positions[n])))
		{
			work->first = false;
			work->after = keys[n++];
		}

		dja_lock();
		if (!dja_same_lane(work))
			more = false;
		else
		{
			DjaLane    *lane = dja_lane(work->lane);

			for (int i = 0; i < n; i++)
			{
				/*
				 * no room, and nobody is thrown out for a sweep: go on from
				 * here later
				 */
				if (!dja_queue_has_room())
				{
					dja_unlock();
					dja_scan_end(&scan);
					return;
				}
				dja_queue_push(work->lane, -2, keys[i], positions[i], -1, -1);
				lane->sweep_started = true;
				lane->sweep_after = keys[i];
			}
			if (!more)
				lane->sweeping = false;
		}
		dja_unlock();
	}
	dja_scan_end(&scan);
}

/*
 * Goes on with the sweep of one lane that needs it; false when none does.
 */
bool
dja_sweep(int pool)
{
	DjaLaneWork work = {.lane = -1};

	dja_lock();
	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0; i = dja_lane(i)->next_in_pool)
	{
		DjaLane    *lane = dja_lane(i);

		if (lane->blocked || !(lane->sweeping || lane->sweep_wanted) || !dja_queue_has_room())
			continue;
		if (!lane->sweeping)
		{
			lane->sweeping = true;
			lane->sweep_wanted = lane->sweep_started = false;
		}
		work.lane = i;
		work.type_hash = lane->type_hash;
		work.first = !lane->sweep_started;
		work.after = lane->sweep_after;
		break;
	}
	dja_unlock();
	return work.lane >= 0 && dja_in_transaction(dja_sweep_step, &work);
}

/* ---------- delays and retries ---------- */

/*
 * One row of the due index.  False when the pass ends before it.
 */
static bool
dja_due_message(DjaLaneWork *work, DjaType *type, DjaWriter *writer, DjaMessage *message,
				TimestampTz now)
{
	bool		delayed = !message->nulls[DJA_MSG_DELIVER_AT - 1] &&
		!DatumGetBool(message->values[DJA_MSG_RELEASED - 1]);
	TimestampTz due = message->nulls[DJA_MSG_RETRY_AT - 1] ?
		DatumGetTimestampTz(message->values[DJA_MSG_DELIVER_AT - 1]) : message->retry_at;

	/*
	 * The next pass starts at the moment where this one ends.  What was
	 * released has left the index by then; where nothing was, this one goes on
	 * to a later moment, so that the next one gets on.
	 */
	if (due > now ||
		(work->seen >= DJA_DUE_CHUNK && (work->released > 0 || due > work->next)))
	{
		work->next = due;
		return false;
	}
	work->next = due;
	work->seen++;
	if (!message->nulls[DJA_MSG_ASIDE - 1])
	{
		/* an open ask whose time is over; what else is aside waits for others */
		if (dja_message_is_aside(message, "deferred") || dja_message_is_aside(message, "duplicate"))
		{
			TM_Result	result = dja_expire_deferred(message);

			work->again |= result == TM_BeingModified;
			work->released += result == TM_Ok;
		}
		return true;
	}
	if (delayed)
	{
		TM_Result	result = dja_message_release(writer, message);

		/* what somebody has locked comes later; what he changed is his */
		if (result == TM_BeingModified)
			work->again = true;
		if (result != TM_Ok)
			return true;
		work->released++;
	}
	dja_pending_mailbox(type, dja_hash_text(message->key), message->position, 1);
	return true;
}

static void
dja_due_step(void *arg)
{
	DjaLaneWork *work = (DjaLaneWork *) arg;
	TimestampTz now = GetCurrentTimestamp();
	DjaType    *type = dja_type_by_hash(work->type_hash);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor due",
												  ALLOCSET_SMALL_SIZES);
	DjaWriter  *writer;
	DjaScan		scan;
	bool		more = true;

	work->next = DJA_NEVER;
	work->again = false;
	work->seen = work->released = 0;
	if (type == NULL)
		return;
	writer = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	dja_due_scan_begin(&scan, work->type_hash, work->from, GetActiveSnapshot());
	while (more && dja_scan_next(&scan))
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		more = dja_due_message(work, type, writer, dja_scan_message(&scan), now);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	if (more)
		work->next = DJA_NEVER;
	dja_scan_end(&scan);
	dja_writer_close(writer);
}

/*
 * Lets the due messages of one lane into their mailboxes; false when nothing
 * is due.
 */
bool
dja_release_due(int pool)
{
	TimestampTz now = GetCurrentTimestamp();
	DjaLaneWork work = {.lane = -1};

	dja_lock();
	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0; i = dja_lane(i)->next_in_pool)
	{
		DjaLane    *lane = dja_lane(i);

		if (lane->blocked || Max(lane->next_due, lane->due_not_before) > now)
			continue;
		work.lane = i;
		work.type_hash = lane->type_hash;
		work.from = lane->next_due;
		lane->next_due = DJA_NEVER; /* whoever comes meanwhile lowers it again */
		break;
	}
	dja_unlock();
	if (work.lane < 0)
		return false;

	if (!dja_in_transaction(dja_due_step, &work))
		work.again = true;
	dja_lock();
	if (dja_same_lane(&work))
	{
		DjaLane    *lane = dja_lane(work.lane);

		lane->next_due = Min(lane->next_due, work.again ? work.from : work.next);
		lane->due_not_before = work.again ?
			TimestampTzPlusMilliseconds(now, DJA_AGAIN_MS) : DT_NOBEGIN;
	}
	dja_unlock();
	return true;
}

/*
 * Has lanes looked at again whose handler could not be called.
 */
bool
dja_recheck_blocked(int pool)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		any = false;

	dja_lock();
	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0; i = dja_lane(i)->next_in_pool)
	{
		if (dja_lane(i)->blocked && dja_lane(i)->recheck_at <= now)
		{
			dja_lane_unblock(i);
			any = true;
		}
	}
	dja_unlock();
	return any;
}

/* ---------- old dead letters ---------- */

static void
dja_purge_step(void *arg)
{
	bool	   *more = (bool *) arg;
	TimestampTz limit = GetCurrentTimestamp() - (int64) dja_dead_letter_retention * USECS_PER_SEC;
	DjaWriter  *writer = dja_writer_open(DJA_DEAD_LETTER_TABLE, RowExclusiveLock);
	Relation	index = index_open(dja_index_oid(DJA_DEAD_FAILED_AT_INDEX), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	IndexScanDesc scan = dja_index_beginscan(writer->rel, index, GetActiveSnapshot(), 1);
	ScanKeyData key;
	int			n = 0;

	ScanKeyInit(&key, 1, BTLessStrategyNumber, F_TIMESTAMP_LT, TimestampTzGetDatum(limit));
	index_rescan(scan, &key, 1, NULL, 0);
	while (n < DJA_DUE_CHUNK && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		/* somebody else may be deleting it as well */
		(void) dja_row_try_delete(writer, &slot->tts_tid);
		n++;
	}
	*more = n == DJA_DUE_CHUNK;
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	dja_writer_close(writer);
}

/*
 * Deletes dead letters past their retention; true when there are more.
 */
bool
dja_purge_dead_letters(void)
{
	bool		more = false;

	if (dja_dead_letter_retention < 0)
		return false;
	return dja_in_transaction(dja_purge_step, &more) && more;
}
