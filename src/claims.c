/*
 * claims.c
 *
 * The workers' side of the run queue: what there is to do, claiming mailboxes,
 * giving them back.  runqueue.h tells what it promises.
 *
 * A claim is a mailbox in state RUNNING.  Each backend keeps a list of its own
 * claims, and of the lanes that it occupies, so that it can give all of them
 * back however it ends.
 */
#include "postgres.h"

#include "compat.h"
#include "crash.h"
#include "runqueue.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define DJA_ROOM_MS 50			/* between two looks for room in the queue */

/* This backend's claims and the lanes it occupies; freed by nobody. */
static int *dja_claims = NULL;
static int	dja_nclaims = 0;
static int	dja_max_claims = 0;
static int *dja_occupied = NULL;
static int	dja_noccupied = 0;

static bool
dja_occupies(int lane)
{
	for (int i = 0; i < dja_noccupied; i++)
		if (dja_occupied[i] == lane)
			return true;
	return false;
}

/*
 * Does another backend run mailboxes of this lane?
 */
bool
dja_lane_busy(int i)
{
	return dja_lane(i)->workers > (dja_occupies(i) ? 1 : 0);
}

static bool
dja_lane_ready(DjaLane *lane, int i)
{
	return lane->queued > 0 && !lane->blocked &&
		!dja_crash_owed(lane->database, lane->type_hash, false) &&
		(lane->concurrency == 0 || lane->workers < lane->concurrency || dja_occupies(i));
}

/*
 * When the timekeeper has to look at a lane.
 */
static TimestampTz
dja_lane_due(DjaLane *lane)
{
	return lane->blocked ? lane->recheck_at : Max(lane->next_due, lane->due_not_before);
}

/*
 * Is there anything for a worker of this pool to do now?  Time and sweeps are the
 * resident's.
 */
bool
dja_queue_has_work(int pool, bool resident, TimestampTz now)
{
	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0; i = dja_lane(i)->next_in_pool)
	{
		DjaLane    *lane = dja_lane(i);

		if (dja_lane_ready(lane, i) || dja_crash_owed(lane->database, lane->type_hash, true))
			return true;
		if (!resident)
			continue;
		if (dja_lane_due(lane) <= now)
			return true;
		if (!lane->blocked && (lane->sweeping || lane->sweep_wanted) && dja_queue_room() > 0)
			return true;
	}
	return false;
}

/*
 * Earliest moment at which this pool has something to do that nobody
 * announces.
 */
TimestampTz
dja_queue_next_due(int pool, TimestampTz now)
{
	TimestampTz due = DJA_NEVER;

	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0; i = dja_lane(i)->next_in_pool)
	{
		DjaLane    *lane = dja_lane(i);

		due = Min(due, dja_lane_due(lane));
		/* a sweep that finds no room: who makes some tells nobody */
		if (!lane->blocked && (lane->sweeping || lane->sweep_wanted))
			due = Min(due, TimestampTzPlusMilliseconds(now, DJA_ROOM_MS));
	}
	return due;
}

/*
 * The pool's resident is gone: its successor sweeps from the start and, unless
 * this one came to the end of what it was about, looks after time.  (Were that
 * always so, idle pools would take each other's places for ever.)
 */
void
dja_queue_orphan(int pool, bool orderly)
{
	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0; i = dja_lane(i)->next_in_pool)
	{
		DjaLane    *lane = dja_lane(i);

		if (!orderly)
			lane->next_due = DT_NOBEGIN;
		if (lane->sweeping)
		{
			lane->sweeping = false;
			lane->sweep_wanted = true;
		}
	}
}

/*
 * Mailboxes that wait for a worker of this pool.
 */
int
dja_queue_length(int pool)
{
	int			n = 0;

	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0; i = dja_lane(i)->next_in_pool)
		if (dja_lane_ready(dja_lane(i), i))
			n += dja_lane(i)->queued;
	return n;
}

/*
 * Room in this backend's own lists, which must not be allocated under the
 * lock.
 */
static void
dja_reserve_claims(int n)
{
	if (dja_occupied == NULL)
		dja_occupied = MemoryContextAlloc(TopMemoryContext, sizeof(int) * DJA_MAX_LANES);
	if (dja_nclaims + n > dja_max_claims)
	{
		int			size = Max(256, 2 * (dja_nclaims + n));

		dja_claims = dja_claims == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(int) * size) :
			repalloc(dja_claims, sizeof(int) * size);
		dja_max_claims = size;
	}
}

static void
dja_claim(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	mailbox->state = DJA_MAILBOX_RUNNING;
	mailbox->more = false;
	mailbox->claimed_cursor = mailbox->cursor;
	if (mailbox->announced == 0)
		mailbox->cursor = DJA_CURSOR_END;
	mailbox->claimer = dja_my_procno();
	mailbox->claim_index = dja_nclaims;
	dja_claims[dja_nclaims++] = i;
	if (!dja_occupies(mailbox->lane))
	{
		dja_occupied[dja_noccupied++] = mailbox->lane;
		dja_lane(mailbox->lane)->workers++;
	}
}

/*
 * Claims up to want mailboxes for this worker, one of each lane in turn.  A
 * lane whose messages want transactions of their own gives one mailbox and
 * nothing beside it: only if alone is true, that is, when the batch is still
 * empty.  Takes the lock itself, since it may allocate.
 */
int
dja_queue_pop(int pool, int want, int *mailboxes, bool alone)
{
	DjaRunQueue *queue = dja_shared->queue;
	int			n = 0;
	int			i;
	int			dry = -1;		/* first lane of a round that gave nothing */

	dja_reserve_claims(want);
	dja_lock();
	i = queue->pool_rotor[pool];
	while (n < want && queue->pool_lanes[pool] >= 0)
	{
		DjaLane    *lane;

		if (i < 0)
			i = queue->pool_lanes[pool];
		lane = dja_lane(i);
		if (i == dry)
			break;				/* once around without a find */

		if (dja_lane_ready(lane, i) && (!lane->solo || alone))
		{
			int			mailbox = dja_mailbox_dequeue(lane);

			dja_claim(mailbox);
			mailboxes[n++] = mailbox;
			dry = -1;
			alone = false;
			if (lane->solo)
			{
				i = lane->next_in_pool;
				break;
			}
		}
		else if (dry < 0)
			dry = i;
		i = lane->next_in_pool;
	}
	queue->pool_rotor[pool] = i;
	dja_unlock();
	return n;
}

/*
 * Claims one certain mailbox, queued or not, for a backend that drains.
 * Returns -1 when somebody else runs it, -2 when there is no room: such claims
 * last, so half of the queue is kept for all others.  Takes the lock itself.
 */
int
dja_queue_claim(int lane_id, uint64 key_hash)
{
	DjaRunQueue *queue = dja_shared->queue;
	int			before = dja_nclaims;
	int			i;

	dja_reserve_claims(1);
	dja_lock();
	i = dja_mailbox_find(lane_id, key_hash);
	if (queue->drained >= queue->size / 2 &&
		(i < 0 || dja_mailbox(i)->state != DJA_MAILBOX_RUNNING))
		i = -2;
	else if (i < 0)
	{
		i = dja_mailbox_create(lane_id, key_hash, DJA_CURSOR_START);
		if (i < 0)
			i = -2;
		else
			dja_claim(i);
	}
	else if (dja_mailbox(i)->state == DJA_MAILBOX_RUNNING)
		i = dja_mailbox(i)->claimer == dja_my_procno() ? i : -1;
	else
	{
		DjaLane    *lane = dja_lane(lane_id);

		if (dja_mailbox(i)->state == DJA_MAILBOX_QUEUED)
		{
			/* rare, so a walk will do */
			int		   *link = &lane->head;
			int			last = -1;

			while (*link != i)
			{
				last = *link;
				link = &dja_mailbox(*link)->fifo_next;
			}
			*link = dja_mailbox(i)->fifo_next;
			if (lane->tail == i)
				lane->tail = last;
			lane->queued--;
		}
		dja_claim(i);
	}
	queue->drained += dja_nclaims - before;
	dja_unlock();
	return i;
}

/*
 * Where to start reading a claimed mailbox, under a snapshot taken since the
 * claim and before this call.
 */
int64
dja_queue_read_cursor(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	if (dja_lane_unbounded(dja_lane(mailbox->lane)))
		return DJA_CURSOR_START;
	return Min(mailbox->cursor, mailbox->claimed_cursor);
}

static bool
dja_in_other_pool(DjaLane *lane)
{
	return dja_my_worker == NULL || dja_my_worker->pool != lane->pool;
}

/*
 * Lets go of a claimed mailbox after the commit or the abort of what ran in
 * it. removed is the number of messages that left it and had counted against its limit.
 */
void
dja_queue_finish(int i, DjaRunEnd end, int64 cursor, int removed)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaLane    *lane = dja_lane(mailbox->lane);

	/* off the list of claims */
	dja_claims[mailbox->claim_index] = dja_claims[--dja_nclaims];
	dja_mailbox(dja_claims[mailbox->claim_index])->claim_index = mailbox->claim_index;
	mailbox->claimer = -1;
	if (dja_my_worker == NULL)
		dja_shared->queue->drained--;

	if (mailbox->depth >= 0)
		mailbox->depth = Max(0, mailbox->depth - removed);
	if (end != DJA_END_DRAINED && cursor < mailbox->cursor)
		mailbox->cursor = cursor;

	if (lane->in_use && end == DJA_END_DROPPED)
		lane->sweep_wanted = true;
	if (lane->in_use && (mailbox->more || end == DJA_END_REMAINING) && end != DJA_END_DROPPED)
		dja_mailbox_enqueue(i);
	else if (mailbox->announced > 0 || (lane->in_use && end == DJA_END_HELD))
		mailbox->state = DJA_MAILBOX_WAITING;
	else
		dja_mailbox_free(i);

	/*
	 * whoever leaves work to another pool than his own, or what only a
	 * resident does, has to ring there
	 */
	if (lane->in_use &&
		(dja_in_other_pool(lane) ? lane->queued > 0 || lane->sweep_wanted :
		 !dja_is_resident() && (lane->sweep_wanted || lane->blocked)))
		dja_wake_pool(lane->pool);
}

/*
 * The worker's batch is over: other workers may take its place in the lanes.
 */
void
dja_queue_leave_lanes(void)
{
	while (dja_noccupied > 0)
	{
		DjaLane    *lane = dja_lane(dja_occupied[--dja_noccupied]);

		lane->workers--;
		if (lane->in_use && lane->queued > 0 && dja_in_other_pool(lane))
			dja_wake_pool(lane->pool);
	}
}

/*
 * Gives back whatever this backend still has claimed: it is about to exit, or
 * its transaction is over.  What it ran is rolled back or unknown, so each
 * mailbox is looked at again from its start.  Takes the lock itself.
 */
void
dja_release_claims(void)
{
	if (dja_nclaims == 0 && dja_noccupied == 0)
		return;
	dja_lock();
	while (dja_nclaims > 0)
		dja_queue_finish(dja_claims[dja_nclaims - 1], DJA_END_REMAINING, DJA_CURSOR_START, 0);
	dja_queue_leave_lanes();
	dja_unlock();
}
