/*
 * timekeeper.c
 *
 * The resident's other duties; see timekeeper.h.  Each function does a piece
 * of work in a transaction of its own and returns; what is left is noted in
 * the lane, so that nothing here keeps the mail waiting for long.
 *
 * A sweep walks over the mailbox index from key to key, without looking at the
 * messages, and pushes the mailboxes that it comes to, a thousand at a time, in
 * the order of the lowest position that each has there.  A
 * delay or retry is watched for by lane.next_due: everything in the due index
 * before it has been seen to.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "batch.h"
#include "catalog.h"
#include "compat.h"
#include "mailbox.h"
#include "pending.h"
#include "reply.h"
#include "runqueue.h"
#include "slots.h"
#include "storage/lmgr.h"
#include "timekeeper.h"
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

/* A mailbox that the sweep has come to. */
typedef struct DjaSwept
{
	uint64		key_hash;
	int64		position;		/* the lowest in it */
} DjaSwept;

#define ST_SORT dja_sort_swept
#define ST_ELEMENT_TYPE DjaSwept
#define ST_COMPARE(a, b) ((a)->position < (b)->position ? -1 : (a)->position > (b)->position)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * Pushes what was found.  Nobody is thrown out for a sweep: what there is no
 * room for is left to the next one.  False if the lane is not the same any
 * more.
 */
static bool
dja_push_swept(DjaLaneWork *work, DjaSwept *swept, int n)
{
	bool		same = true;

	for (int i = 0; i < n && same; i += DJA_PUSH_CHUNK)
	{
		dja_lock();
		same = dja_same_lane(work);
		for (int j = i; same && j < Min(i + DJA_PUSH_CHUNK, n); j++)
		{
			if (dja_queue_room() > 0)
				dja_queue_push(work->lane, -2, swept[j].key_hash, swept[j].position, -1, -1);
			else
				dja_lane(work->lane)->sweep_wanted = true;
		}
		dja_unlock();
	}
	return same;
}

static void
dja_sweep_step(void *arg)
{
	DjaLaneWork *work = (DjaLaneWork *) arg;
	DjaSwept   *swept = palloc(sizeof(DjaSwept) * DJA_SWEEP_CHUNK);
	bool		more = true;
	int			max;
	int			n = 0;
	DjaScan		scan;

	dja_lock();
	max = Min(dja_queue_room(), DJA_SWEEP_CHUNK);
	dja_unlock();
	dja_mailbox_scan_begin(&scan, GetActiveSnapshot());
	while (n < max &&
		   (more = dja_mailbox_scan_skip(&scan, work->type_hash, work->first, work->after,
										 &swept[n].key_hash, &swept[n].position)))
	{
		work->first = false;
		work->after = swept[n++].key_hash;
	}
	dja_scan_end(&scan);

	/* who has waited longest goes first, and lies beside its like */
	dja_sort_swept(swept, n);
	if (!dja_push_swept(work, swept, n))
		return;
	dja_lock();
	if (dja_same_lane(work))
	{
		DjaLane    *lane = dja_lane(work->lane);

		if (n > 0)
		{
			lane->sweep_started = true;
			lane->sweep_after = work->after;
		}
		if (!more)
		{
			lane->sweeping = false;
			if (!lane->sweep_wanted && dja_queue_room() > 0)
				dja_shared->queue->crowded = false;
		}
	}
	dja_unlock();
}

/*
 * Goes on with the sweep of one lane that needs it; false when none does.
 */
bool
dja_sweep(int pool)
{
	static int	last = -1;
	bool		passed = false;
	DjaLaneWork work = {.lane = -1};

	dja_lock();
	/* the next one in turn: one that always needs it does not keep it */
	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0 && dja_queue_room() > 0; i = dja_lane(i)->next_in_pool)
	{
		DjaLane    *lane = dja_lane(i);

		if (!lane->blocked && (lane->sweeping || lane->sweep_wanted) && (work.lane < 0 || passed))
		{
			work.lane = i;
			if (passed)
				break;
		}
		passed |= i == last;
	}
	if (work.lane >= 0)
	{
		DjaLane    *lane = dja_lane(work.lane);

		if (!lane->sweeping)
		{
			lane->sweeping = true;
			lane->sweep_wanted = lane->sweep_started = false;
		}
		work.type_hash = lane->type_hash;
		work.first = !lane->sweep_started;
		work.after = lane->sweep_after;
		last = work.lane;
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
	bool		delayed;
	TimestampTz due = message->retry_at;

	delayed = !message->nulls[DJA_MSG_DELIVER_AT - 1] &&
		!DatumGetBool(message->values[DJA_MSG_RELEASED - 1]);
	if (message->nulls[DJA_MSG_RETRY_AT - 1])
		due = DatumGetTimestampTz(message->values[DJA_MSG_DELIVER_AT - 1]);

	/*
	 * The next pass starts at the moment where this one ends.  What was
	 * released has left the index by then; where nothing was, this one goes
	 * on to a later moment, so that the next one gets on.
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
 * Lets the due messages of one lane into their mailboxes, of the one that is
 * due the longest; false when nothing is due.
 */
bool
dja_release_due(int pool)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz longest = now;
	DjaLaneWork work = {.lane = -1};

	dja_lock();
	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0; i = dja_lane(i)->next_in_pool)
	{
		DjaLane    *lane = dja_lane(i);
		TimestampTz due = Max(lane->next_due, lane->due_not_before);

		if (lane->blocked || due > longest || (due == longest && work.lane >= 0))
			continue;
		longest = due;
		work.lane = i;
	}
	if (work.lane >= 0)
	{
		DjaLane    *lane = dja_lane(work.lane);

		work.type_hash = lane->type_hash;
		work.from = lane->next_due;
		lane->next_due = DJA_NEVER; /* whoever comes meanwhile lowers it again */
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
