/*
 * claims.c
 *
 * The workers' side of the run queue: finding what there is to do, claiming
 * mailboxes, giving them back.  run_queue.h tells what it promises.
 *
 * A claim is a mailbox in state RUNNING.  Each backend lists its own claims, and
 * the type queues that it occupies, so that it can give all of them back however
 * it ends.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/grow.h"
#include "shmem/crash.h"
#include "shmem/mailboxes.h"
#include "shmem/rates.h"
#include "shmem/room.h"
#include "shmem/run_queue.h"

#define DJA_ROOM_MS 50			/* between two looks for room in the queue */
#define DJA_PUT_OFF_MS 20		/* the first times; then doubled, up to ... */
#define DJA_PUT_OFF_MAX_MS 320
#define DJA_PUT_OFFS_QUICK 3
#define DJA_ENDS_IN_FRONT 3		/* so many workers may end with a mailbox
								 * before others pass it */

/* A type queue that this backend occupies, and how the batch has gone for it. */
typedef struct DjaOccupied
{
	int			type_queue;
	DjaPaceEvent event;
} DjaOccupied;

/* This backend's claims, and the type queues that it occupies; never freed. */
static int *dja_claims = NULL;
static int	dja_nclaims = 0;
static int	dja_max_claims = 0;
static DjaOccupied dja_occupied[DJA_MAX_TYPE_QUEUES];
static int	dja_noccupied = 0;

/*
 * The first type queue that the present batch has passed over, since its messages
 * do not fit in.  The next batch begins there.
 */
static int	dja_passed_over = DJA_NO_TYPE_QUEUE;

static bool
dja_occupies(int type_queue)
{
	for (int i = 0; i < dja_noccupied; i++)
		if (dja_occupied[i].type_queue == type_queue)
			return true;
	return false;
}

/*
 * Does another backend run mailboxes of this type queue?
 */
bool
dja_type_queue_busy(int i)
{
	dja_assert_locked();
	return dja_type_queue(i)->workers > (dja_occupies(i) ? 1 : 0);
}

/*
 * May a type queue that has so many workers have one more?  Its pace does not
 * count workers in a long turn, which make nobody wait.
 */
static bool
dja_type_queue_has_room(DjaTypeQueue *type_queue, int workers)
{
	if (type_queue->concurrency > 0 && workers >= type_queue->concurrency)
		return false;
	return type_queue->pace.workers == 0 ||
		workers < type_queue->pace.workers + dja_long_turns(type_queue->pool);
}

/*
 * Returns how many turns may share a transaction with the next one of a type
 * queue.
 */
static int
dja_type_queue_turns(DjaTypeQueue *type_queue)
{
	int			turns = type_queue->batch_size > 0 ? type_queue->batch_size : PG_INT32_MAX;

	Assert(type_queue->queued.length > 0);
	if (dja_mailbox(type_queue->queued.head)->run_alone > 0)
		return 1;
	return type_queue->pace.turns > 0 ? Min(turns, type_queue->pace.turns) : turns;
}

static bool
dja_type_queue_waits(DjaTypeQueue *type_queue)
{
	return type_queue->queued.length > 0 && !type_queue->blocked && !type_queue->hosted && type_queue->spent_until == 0 &&
		!dja_crash_owed(type_queue->database, type_queue->type_hash, false);
}

static bool
dja_type_queue_ready(DjaTypeQueue *type_queue, int i)
{
	return dja_type_queue_waits(type_queue) && (dja_type_queue_has_room(type_queue, type_queue->workers) || dja_occupies(i));
}

/*
 * Returns when the timekeeper has to look at a type queue.
 */
static TimestampTz
dja_type_queue_due(DjaTypeQueue *type_queue)
{
	if (type_queue->blocked)
		return type_queue->recheck_at;
	return Min(Max(type_queue->next_due, type_queue->due_not_before), type_queue->idle_due);
}

/*
 * Is there anything to do now for a worker of this pool?  Delays and sweeps are
 * the resident's.
 */
bool
dja_queue_has_work(int pool, bool resident, TimestampTz now)
{
	dja_assert_locked();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);

		if (dja_type_queue_ready(type_queue, i) || dja_crash_owed(type_queue->database, type_queue->type_hash, true))
			return true;
		if (type_queue->put_off_due <= now && !type_queue->blocked)
			return true;
		if (type_queue->spent_until != 0 && type_queue->spent_until <= now && !type_queue->blocked)
			return true;
		if (!resident)
			continue;
		if (type_queue->ring_hosts)
			return true;
		if (dja_type_queue_due(type_queue) <= now)
			return true;
		if (dja_sweep_goes_on(i, now))
			return true;
	}
	return false;
}

/*
 * Returns the earliest moment at which this pool has something to do that no
 * sender announces.
 */
TimestampTz
dja_queue_next_due(int pool, TimestampTz now)
{
	TimestampTz due = DJA_NEVER;

	dja_assert_locked();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);

		due = Min(due, dja_type_queue_due(type_queue));
		if (!type_queue->blocked)
			due = Min(due, type_queue->put_off_due);
		if (!type_queue->blocked && type_queue->spent_until != 0)
			due = Min(due, type_queue->spent_until);

		/*
		 * a sweep that has found no room looks again, since no process tells
		 * it of room
		 */
		if (!type_queue->blocked && (type_queue->sweeping || type_queue->sweep_wanted))
			due = Min(due, TimestampTzPlusMilliseconds(now, DJA_ROOM_MS));
	}
	return due;
}

/*
 * Notes that the pool's resident is gone.  Its successor begins the sweep anew.
 * Unless orderly (the resident had finished its duties), the successor also looks
 * for delays and retries.  If it always did, idle pools would take each other's
 * places for ever.
 */
void
dja_queue_orphan(int pool, bool orderly)
{
	dja_assert_locked();
	Assert(dja_pool(pool)->resident < 0);
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);

		if (!orderly)
			type_queue->next_due = DT_NOBEGIN;
		if (type_queue->sweeping)
		{
			type_queue->sweeping = false;
			type_queue->sweep_wanted = true;
		}
	}
}

/*
 * Returns how many mailboxes wait for a worker of this pool.
 */
int
dja_queue_length(int pool)
{
	int			n = 0;

	dja_assert_locked();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
		if (dja_type_queue_ready(dja_type_queue(i), i))
			n += dja_type_queue(i)->queued.length;
	return n;
}

/*
 * Does any mailbox wait that another worker of this pool could claim while the
 * present one goes on?
 */
bool
dja_queue_wants_help(int pool)
{
	dja_assert_locked();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
		if (dja_type_queue_waits(dja_type_queue(i)) && dja_type_queue_has_room(dja_type_queue(i), dja_type_queue(i)->workers + 1))
			return true;
	return false;
}

/*
 * Is this mailbox claimed by this backend, and at its place in the list of claims?
 */
static inline bool
dja_is_claimed_here(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	return mailbox->state == DJA_MAILBOX_RUNNING && mailbox->claimer == dja_my_procno() &&
		mailbox->claim_index >= 0 && mailbox->claim_index < dja_nclaims &&
		dja_claims[mailbox->claim_index] == i;
}

/*
 * Makes the claim of a mailbox that is in no list.
 */
void
dja_mailbox_claim(int i, int claimer)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	dja_assert_locked();
	Assert(mailbox->state != DJA_MAILBOX_FREE && mailbox->state != DJA_MAILBOX_RUNNING);
	Assert(mailbox->claimer == DJA_NO_PROC);
	mailbox->state = DJA_MAILBOX_RUNNING;
	mailbox->more = false;
	mailbox->claimed_cursor = mailbox->cursor;
	if (mailbox->announced == 0)
		mailbox->cursor = DJA_CURSOR_END;
	mailbox->claimer = claimer;
}

/*
 * Claims a mailbox that is in no list.  Needs the lock, and room in dja_claims,
 * for which nothing may be allocated under it.
 */
static void
dja_claim(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	Assert(dja_nclaims < dja_max_claims);
	dja_mailbox_claim(i, dja_my_procno());
	mailbox->claim_index = dja_nclaims;
	dja_claims[dja_nclaims++] = i;
	if (!dja_occupies(mailbox->type_queue))
	{
		dja_occupied[dja_noccupied].type_queue = mailbox->type_queue;
		dja_occupied[dja_noccupied++].event = DJA_PACE_NOTHING;
		dja_type_queue(mailbox->type_queue)->workers++;
	}
	Assert(dja_is_claimed_here(i));
	dja_assert_type_queue_counts(dja_type_queue(mailbox->type_queue));
}

static bool
dja_is_of_pool(int type_queue, int pool)
{
	return type_queue >= 0 && dja_type_queue(type_queue)->in_use && dja_type_queue(type_queue)->pool == pool;
}

/*
 * Claims the next mailbox for a worker's batch that has had so many turns.
 * Returns DJA_NO_MAILBOX if there is none that fits in.  Type queues take
 * turns; one that does not fit into this batch comes first in the next one.
 *
 * *limit: how many turns the batch may have then.  If it is already in a type
 * queue whose next mailbox has to wait for the next batch, it may have no more
 * turns, since mailboxes behind that one must not overtake it.
 *
 * A worker that has been asked to end gets none, and its batch ends: what was sent
 * after ALTER ROLE ... SET is for a session that has seen it.  Who asks does so under
 * the lock, so no mailbox that was queued afterwards slips through.
 *
 * Takes the lock itself, since it may allocate.
 */
int
dja_queue_pop(int pool, int turns, TimestampTz now, int *limit)
{
	DjaRunQueue *queue = dja_shared->queue;
	int			mailbox = DJA_NO_MAILBOX;
	int			first;
	int			i;

	dja_assert_worker();
	Assert(dja_my_worker->pool == pool);
	*limit = PG_INT32_MAX;
	dja_claims = dja_grow(TopMemoryContext, dja_claims, sizeof(int), dja_nclaims, &dja_max_claims);
	dja_lock();
	if (dja_my_worker->stop)
	{
		dja_unlock();
		*limit = turns;
		return DJA_NO_MAILBOX;
	}
	if (turns == 0 && dja_is_of_pool(dja_passed_over, pool))
		queue->pool_rotor[pool] = dja_passed_over;
	if (turns == 0)
		dja_passed_over = DJA_NO_TYPE_QUEUE;
	if (queue->pool_rotor[pool] < 0)
		queue->pool_rotor[pool] = queue->pool_type_queues[pool];
	i = first = queue->pool_rotor[pool];
	while (i >= 0 && mailbox < 0)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);

		if (type_queue->put_off_due <= now)
			dja_mailboxes_come_back(type_queue, now);
		if (type_queue->spent_until != 0)
			dja_rate_recover(type_queue, now);
		if (dja_type_queue_ready(type_queue, i) &&
			(type_queue->rate.turns == 0 || dja_rate_allows(i, now)))
		{
			int			type_queue_limit = dja_type_queue_turns(type_queue);

			if (turns < type_queue_limit)
			{
				*limit = type_queue_limit;
				mailbox = dja_mailbox_dequeue(type_queue);
				queue->pool_rotor[pool] = type_queue->next_in_pool;
				if (dja_mailbox(mailbox)->run_alone > 0)
					dja_mailbox(mailbox)->run_alone--;
				dja_claim(mailbox);
			}
			else
			{
				if (dja_passed_over < 0)
					dja_passed_over = i;
				if (dja_occupies(i))
					*limit = turns;
			}
		}
		i = type_queue->next_in_pool >= 0 ? type_queue->next_in_pool : queue->pool_type_queues[pool];
		if (i == first)
			break;				/* once around */
	}
	dja_unlock();
	return mailbox;
}

/*
 * Claims a given mailbox, queued or not, for a backend that drains.  Returns
 * DJA_CLAIM_RUNNING if another backend runs it, DJA_CLAIM_NO_ROOM if there is
 * no room.  Such claims last long, so half of the queue is kept for all
 * others.  Takes the lock itself.
 */
int
dja_queue_claim(int type_queue_id, uint64 key_hash)
{
	DjaRunQueue *queue = dja_shared->queue;
	int			before = dja_nclaims;
	int			i;

	Assert(dja_my_worker == NULL);
	dja_claims = dja_grow(TopMemoryContext, dja_claims, sizeof(int), dja_nclaims, &dja_max_claims);
	dja_lock();
	i = dja_mailbox_find(type_queue_id, key_hash);
	if (queue->drained >= queue->size / 2 &&
		(i < 0 || dja_mailbox(i)->state != DJA_MAILBOX_RUNNING))
		i = DJA_CLAIM_NO_ROOM;
	else if (i < 0)
	{
		i = dja_mailbox_create(type_queue_id, key_hash, DJA_CURSOR_START, 0);
		if (i < 0)
			i = DJA_CLAIM_NO_ROOM;
		else
			dja_claim(i);
	}
	else if (dja_mailbox(i)->state == DJA_MAILBOX_RUNNING)
		i = dja_mailbox(i)->claimer == dja_my_procno() ? i : DJA_CLAIM_RUNNING;
	else
	{
		if (dja_mailbox(i)->state != DJA_MAILBOX_WAITING)
			dja_mailbox_unlink(i);
		dja_claim(i);
	}
	queue->drained += dja_nclaims - before;
	dja_unlock();
	return i;
}

/*
 * Returns where to start reading a claimed mailbox, under a snapshot taken since
 * the claim and before this call.
 */
int64
dja_queue_read_cursor(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	dja_assert_locked();
	Assert(dja_is_claimed_here(i) || mailbox->claimer == DJA_HOSTED_PROC);
	if (dja_type_queue_unbounded(dja_type_queue(mailbox->type_queue)))
		return DJA_CURSOR_START;
	return Min(mailbox->cursor, mailbox->claimed_cursor);
}

static bool
dja_in_other_pool(DjaTypeQueue *type_queue)
{
	return dja_my_worker == NULL || dja_my_worker->pool != type_queue->pool;
}

/*
 * Returns until when a mailbox waits that was put off so many times in a row.
 * The moments are rounded, so that many come back together.
 */
static TimestampTz
dja_put_off_until(int times)
{
	int64		step = DJA_PUT_OFF_MS * INT64CONST(1000);
	int			ms = DJA_PUT_OFF_MS << Min(Max(times - DJA_PUT_OFFS_QUICK, 0), 8);
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													Min(ms, DJA_PUT_OFF_MAX_MS));

	return until - until % step + step;
}

/*
 * Lets a mailbox with mail left wait for its next turn: in the queue, or for the
 * sweep if it is crowded there.
 */
static void
dja_mailbox_wait_again(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	if (!dja_mailbox_crowded(i) || mailbox->announced > 0 || mailbox->run_alone > 0)
		dja_mailbox_enqueue(i);
	else
	{
		dja_type_queue(mailbox->type_queue)->sweep_wanted = true;
		dja_mailbox_free(i);
	}
}

/*
 * Takes a mailbox off this backend's list of claims.
 */
static void
dja_unclaim(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	Assert(dja_is_claimed_here(i));
	dja_claims[mailbox->claim_index] = dja_claims[--dja_nclaims];
	dja_mailbox(dja_claims[mailbox->claim_index])->claim_index = mailbox->claim_index;
	mailbox->claimer = DJA_NO_PROC;
	if (dja_my_worker == NULL)
		dja_shared->queue->drained--;
	Assert(dja_shared->queue->drained >= 0);
}

/*
 * Gives back a mailbox whose claimer has left it.  cursor: where to read next.
 * removed: how many messages that counted against the mailbox limit have left it.
 * run_alone: how many of those left are run alone next.
 */
void
dja_mailbox_leave(int i, DjaClaimEnd end, int64 cursor, int removed, int run_alone)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);

	dja_assert_locked();
	Assert(removed >= 0 && run_alone >= 0);
	Assert(mailbox->state == DJA_MAILBOX_RUNNING && mailbox->claimer == DJA_NO_PROC);
	if (mailbox->depth >= 0)
		mailbox->depth = Max(0, mailbox->depth - removed);
	if (end != DJA_END_EMPTY && cursor < mailbox->cursor)
		mailbox->cursor = cursor;
	mailbox->run_alone = (uint16) Min(Max(mailbox->run_alone, run_alone), PG_UINT16_MAX);
	if (end == DJA_END_PUT_OFF)
		mailbox->put_offs += mailbox->put_offs < PG_UINT16_MAX;
	else if (end != DJA_END_RETURNED)
		mailbox->put_offs = 0;
	if (end != DJA_END_RETURNED)
		mailbox->ends = 0;

	if (type_queue->in_use && end == DJA_END_DROPPED)
		type_queue->sweep_wanted = true;
	if (type_queue->in_use && end == DJA_END_PUT_OFF)
		dja_mailbox_put_off(i, dja_put_off_until(mailbox->put_offs));
	else if (type_queue->in_use && end == DJA_END_RETURNED)
		dja_mailbox_return(i);
	else if (type_queue->in_use && (mailbox->more || end == DJA_END_REMAINING) && end != DJA_END_DROPPED)
		dja_mailbox_wait_again(i);
	else if (mailbox->announced > 0 || (type_queue->in_use && end == DJA_END_RETRY))
		mailbox->state = DJA_MAILBOX_WAITING;
	else
		dja_mailbox_free(i);
}

/*
 * Ends a claim of this backend after the commit or the abort of its batch; the
 * arguments are those of dja_mailbox_leave().
 */
void
dja_queue_finish(int i, DjaClaimEnd end, int64 cursor, int removed, int run_alone)
{
	DjaTypeQueue *type_queue = dja_type_queue(dja_mailbox(i)->type_queue);

	dja_assert_locked();
	dja_unclaim(i);
	dja_mailbox_leave(i, end, cursor, removed, run_alone);

	/*
	 * work that is left to another pool, or to the resident, has to ring
	 * there
	 */
	if (type_queue->in_use &&
		(dja_in_other_pool(type_queue) ? type_queue->queued.length > 0 || type_queue->sweep_wanted :
		 !dja_is_resident() && (type_queue->sweep_wanted || type_queue->blocked || type_queue->ring_hosts ||
								end == DJA_END_PUT_OFF)))
		dja_wake_pool(type_queue->pool);
}

/*
 * Notes how a batch has gone for a type queue that it was in; the worst counts.
 * Needs no lock.
 */
void
dja_queue_note(int type_queue, DjaPaceEvent event)
{
	for (int i = 0; i < dja_noccupied; i++)
		if (dja_occupied[i].type_queue == type_queue)
			dja_occupied[i].event = Max(dja_occupied[i].event, event);
}

/*
 * Leaves the type queues that this worker's batch was in, so that other workers
 * may have its room there.  The batch had so many turns and began at started.
 */
void
dja_queue_leave_type_queues(int turns, TimestampTz started, TimestampTz now)
{
	while (dja_noccupied > 0)
	{
		DjaOccupied *occupied = &dja_occupied[--dja_noccupied];
		DjaTypeQueue *type_queue = dja_type_queue(occupied->type_queue);

		dja_assert_locked();
		Assert(type_queue->workers > 0);
		dja_pace_note(&type_queue->pace, occupied->event, turns, type_queue->workers, started, now);
		type_queue->workers--;
		if (type_queue->in_use && type_queue->queued.length > 0 && dja_in_other_pool(type_queue))
			dja_wake_pool(type_queue->pool);
	}
}

/*
 * Gives back all claims of this backend, which is about to exit or whose
 * transaction is over.  What it ran is rolled back or unknown, so each mailbox is
 * read again from its start.  It returns to the front, before mailboxes that have
 * not waited as long: the end of a worker costs no actor its place.  But if one
 * worker after the other is ended, the reason may be their claim, such as a turn
 * that a user considers too long.  Then the mailbox goes to the end, and lets
 * others pass.
 *
 * Takes the lock itself.
 */
void
dja_release_claims(void)
{
	if (dja_nclaims == 0 && dja_noccupied == 0)
		return;
	dja_lock();
	while (dja_nclaims > 0)
	{
		int			i = dja_claims[dja_nclaims - 1];
		bool		again = dja_my_worker != NULL && ++dja_mailbox(i)->ends > DJA_ENDS_IN_FRONT;

		dja_queue_finish(i, again ? DJA_END_REMAINING : DJA_END_RETURNED, DJA_CURSOR_START, 0, 0);
	}
	dja_queue_leave_type_queues(0, 0, 0);
	dja_unlock();
}
