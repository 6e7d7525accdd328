/*
 * runqueue.c
 *
 * The queue of mailboxes with due mail; runqueue.h tells what it promises.
 *
 * Layout: an array of mailboxes, threaded by index into hash chains (lookup by
 * lane and key), a list for each lane (first in, first out) and a free list.
 * Nothing here is allocated after startup.  When no mailbox is free, room is
 * made first from lanes that are blocked, then from mailboxes that merely
 * wait; either way the lane is marked for a sweep, which finds again what was
 * dropped.  A mailbox that is running or announced is never dropped: that is
 * what a claim is.
 *
 * All of it stands under one lock.  Its critical sections are some hundred
 * nanoseconds for a mailbox; callers with many mailboxes let go in between.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "compat.h"
#include "guc.h"
#include "port/pg_bitutils.h"
#include "runqueue.h"
#include "storage/shmem.h"

#define DJA_EVICTION_PROBES 256

static inline int *
dja_buckets(DjaRunQueue *queue)
{
	return (int *) ((char *) queue + MAXALIGN(sizeof(DjaRunQueue)));
}

static int
dja_bucket_count(void)
{
	return (int) pg_nextpower2_32((uint32) dja_run_queue_size);
}

Size
dja_runqueue_size(void)
{
	Size		size = MAXALIGN(sizeof(DjaRunQueue));

	size = add_size(size, MAXALIGN(mul_size(sizeof(int), dja_bucket_count())));
	return add_size(size, mul_size(sizeof(DjaMailbox), dja_run_queue_size));
}

void
dja_runqueue_setup(DjaRunQueue *queue)
{
	int		   *buckets;
	DjaMailbox *mailboxes;

	memset(queue, 0, sizeof(DjaRunQueue));
	queue->size = dja_run_queue_size;
	queue->nbuckets = dja_bucket_count();
	buckets = dja_buckets(queue);
	mailboxes = dja_queue_mailboxes(queue);

	for (int i = 0; i < queue->nbuckets; i++)
		buckets[i] = -1;
	for (int i = 0; i < queue->size; i++)
	{
		mailboxes[i].state = DJA_MAILBOX_FREE;
		mailboxes[i].fifo_next = i + 1 < queue->size ? i + 1 : -1;
	}
	queue->free_head = 0;
	queue->free_count = queue->size;
	for (int i = 0; i < DJA_MAX_POOLS; i++)
		queue->pool_lanes[i] = queue->pool_rotor[i] = -1;
}

/* ---------- mailboxes: lookup, allocation, the lane's list ---------- */

static inline int *
dja_bucket(int lane, uint64 key_hash)
{
	DjaRunQueue *queue = dja_shared->queue;
	uint64		mixed = hash_combine64(key_hash, (uint64) lane);

	return &dja_buckets(queue)[mixed & (uint64) (queue->nbuckets - 1)];
}

int
dja_mailbox_find(int lane, uint64 key_hash)
{
	for (int i = *dja_bucket(lane, key_hash); i >= 0; i = dja_mailbox(i)->hash_next)
	{
		DjaMailbox *mailbox = dja_mailbox(i);

		if (mailbox->key_hash == key_hash && mailbox->lane == lane)
			return i;
	}
	return -1;
}

void
dja_mailbox_free(int i)
{
	DjaRunQueue *queue = dja_shared->queue;
	DjaMailbox *mailbox = dja_mailbox(i);
	int		   *link = dja_bucket(mailbox->lane, mailbox->key_hash);

	while (*link != i)
		link = &dja_mailbox(*link)->hash_next;
	*link = mailbox->hash_next;
	dja_lane(mailbox->lane)->mailboxes--;
	mailbox->state = DJA_MAILBOX_FREE;
	mailbox->fifo_next = queue->free_head;
	queue->free_head = i;
	queue->free_count++;
}

void
dja_mailbox_enqueue(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaLane    *lane = dja_lane(mailbox->lane);

	mailbox->state = DJA_MAILBOX_QUEUED;
	mailbox->more = false;
	mailbox->fifo_next = -1;
	if (lane->queued++ == 0)
		lane->head = i;
	else
		dja_mailbox(lane->tail)->fifo_next = i;
	lane->tail = i;
}

/*
 * Back to where it was claimed from.
 */
void
dja_mailbox_return(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaLane    *lane = dja_lane(mailbox->lane);

	mailbox->state = DJA_MAILBOX_QUEUED;
	mailbox->more = false;
	mailbox->fifo_next = lane->head;
	if (lane->queued++ == 0)
	{
		mailbox->fifo_next = -1;
		lane->tail = i;
	}
	lane->head = i;
}

/*
 * Out of its lane's list, or of the list of those that are put off.  Rare, so
 * a walk will do.
 */
void
dja_mailbox_unlink(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaLane    *lane = dja_lane(mailbox->lane);
	bool		queued = mailbox->state == DJA_MAILBOX_QUEUED;
	int		   *link = queued ? &lane->head : &lane->put_off;
	int			last = -1;

	while (*link != i)
	{
		last = *link;
		link = &dja_mailbox(*link)->fifo_next;
	}
	*link = mailbox->fifo_next;
	if (!queued)
		return;
	if (lane->tail == i)
		lane->tail = last;
	lane->queued--;
}

void
dja_mailbox_put_off(int i, TimestampTz until)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaLane    *lane = dja_lane(mailbox->lane);

	mailbox->state = DJA_MAILBOX_PUT_OFF;
	mailbox->more = false;
	mailbox->not_before = until;
	mailbox->fifo_next = lane->put_off;
	lane->put_off = i;
	lane->put_off_due = Min(lane->put_off_due, until);
}

/*
 * Queues what was put off long enough.
 */
void
dja_mailboxes_come_back(DjaLane *lane, TimestampTz now)
{
	int			i = lane->put_off;

	lane->put_off = -1;
	lane->put_off_due = DJA_NEVER;
	while (i >= 0)
	{
		int			next = dja_mailbox(i)->fifo_next;

		if (dja_mailbox(i)->not_before <= now)
			dja_mailbox_enqueue(i);
		else
			dja_mailbox_put_off(i, dja_mailbox(i)->not_before);
		i = next;
	}
}

int
dja_mailbox_dequeue(DjaLane *lane)
{
	int			i = lane->head;

	lane->head = dja_mailbox(i)->fifo_next;
	lane->queued--;
	return i;
}

/*
 * Gives up a mailbox that does not run, for its room.  What waits there is
 * found by the sweep.
 */
static bool
dja_make_room(void)
{
	DjaRunQueue *queue = dja_shared->queue;

	for (int probe = 0; probe < DJA_EVICTION_PROBES; probe++)
	{
		int			i = queue->clock;
		DjaMailbox *mailbox = dja_mailbox(i);
		DjaLane    *lane;

		queue->clock = (i + 1) % queue->size;
		if (mailbox->state == DJA_MAILBOX_FREE)
			continue;
		lane = dja_lane(mailbox->lane);
		if (mailbox->state == DJA_MAILBOX_WAITING && mailbox->announced == 0)
		{
			lane->sweep_wanted = true;
			dja_mailbox_free(i);
			return true;
		}
		if (lane->blocked && lane->queued > 0 && dja_mailbox(lane->head)->announced == 0)
		{
			lane->sweep_wanted = true;
			dja_mailbox_free(dja_mailbox_dequeue(lane));
			return true;
		}
	}
	return false;
}

int
dja_mailbox_create(int lane, uint64 key_hash, int64 cursor)
{
	DjaRunQueue *queue = dja_shared->queue;
	int		   *bucket = dja_bucket(lane, key_hash);
	DjaMailbox *mailbox;
	int			i;

	if (queue->free_head < 0 && !dja_make_room())
		return -1;
	i = queue->free_head;
	mailbox = dja_mailbox(i);
	queue->free_head = mailbox->fifo_next;
	queue->free_count--;

	mailbox->key_hash = key_hash;
	mailbox->cursor = cursor;
	mailbox->lane = lane;
	mailbox->hash_next = *bucket;
	mailbox->fifo_next = -1;
	mailbox->claimer = -1;
	mailbox->claim_index = -1;
	mailbox->depth = -1;
	mailbox->announced = 0;
	mailbox->put_offs = mailbox->alone = 0;
	mailbox->ends = 0;
	mailbox->state = DJA_MAILBOX_WAITING;
	mailbox->more = false;
	*bucket = i;
	dja_lane(lane)->mailboxes++;
	return i;
}

/*
 * So many mailboxes can still be made.
 */
int
dja_queue_room(void)
{
	return dja_shared->queue->free_count;
}

/* ---------- lanes ---------- */

/*
 * Where a type's lane is, or was last; -1 when it never had one, or when
 * another type has the place.
 */
int
dja_lane_place(Oid database, uint64 type_hash)
{
	uint32		start = (uint32) (type_hash % DJA_MAX_LANES);

	/*
	 * open addressing without tombstones: a freed lane keeps its place's key
	 */
	for (uint32 n = 0; n < DJA_MAX_LANES; n++)
	{
		int			i = (int) ((start + n) % DJA_MAX_LANES);
		DjaLane    *lane = dja_lane(i);

		if (lane->type_hash == type_hash && lane->database == database)
			return i;
		if (!OidIsValid(lane->database))
			return -1;
	}
	return -1;
}

/*
 * The lane of a type, -1 when there is none.  Callers keep what they find and
 * check it with the same arguments before each use.
 */
int
dja_lane_find(Oid database, uint64 type_hash)
{
	int			i = dja_lane_place(database, type_hash);

	return i >= 0 && dja_lane(i)->in_use ? i : -1;
}

/*
 * Makes the lane of a type and puts it in its pool; -1 when all lanes are
 * taken.  It starts with a sweep: mail may have come before the lane.
 */
int
dja_lane_create(Oid database, uint64 type_hash, int pool)
{
	uint32		start = (uint32) (type_hash % DJA_MAX_LANES);
	int			i = -1;
	DjaLane    *lane;

	/* the very same place if it ever had one, so that lookups stay right */
	for (uint32 n = 0; n < DJA_MAX_LANES; n++)
	{
		int			at = (int) ((start + n) % DJA_MAX_LANES);

		lane = dja_lane(at);
		if (lane->type_hash == type_hash && lane->database == database)
		{
			i = at;
			break;
		}
		if (i < 0 && !lane->in_use && lane->mailboxes == 0 &&
			lane->workers == 0 && lane->floods == 0)
			i = at;
		if (!OidIsValid(lane->database))
			break;
	}
	if (i < 0)
		return -1;

	/* what others still count on in the same lane's earlier life stays */
	lane = dja_lane(i);
	lane->in_use = true;
	lane->database = database;
	lane->type_hash = type_hash;
	lane->pool = -1;
	lane->concurrency = 0;
	lane->batch_size = 0;
	memset(&lane->pace, 0, sizeof(DjaPace));
	lane->head = lane->tail = lane->put_off = -1;
	lane->put_off_due = DJA_NEVER;
	lane->queued = 0;
	lane->sweeping = lane->sweep_started = false;
	dja_lane_unblock(i);
	dja_lane_forgive(i);
	dja_lane_move(i, pool);
	return i;
}

static void
dja_lane_unlink(int i)
{
	DjaRunQueue *queue = dja_shared->queue;
	DjaLane    *lane = dja_lane(i);
	int		   *link;

	if (lane->pool < 0)
		return;
	link = &queue->pool_lanes[lane->pool];
	while (*link != i)
		link = &dja_lane(*link)->next_in_pool;
	*link = lane->next_in_pool;
	if (queue->pool_rotor[lane->pool] == i)
		queue->pool_rotor[lane->pool] = lane->next_in_pool;
	lane->pool = -1;
}

/*
 * Puts a lane into the pool of its type's owner.
 */
void
dja_lane_move(int i, int pool)
{
	DjaRunQueue *queue = dja_shared->queue;
	DjaLane    *lane = dja_lane(i);

	if (lane->pool == pool)
		return;
	dja_lane_unlink(i);
	lane->pool = pool;
	lane->next_in_pool = queue->pool_lanes[pool];
	queue->pool_lanes[pool] = i;
}

/*
 * Forgets a lane: its type was dropped, or its database.  Mailboxes that are
 * running go when their worker lets go of them.
 */
void
dja_lane_free(int i)
{
	DjaLane    *lane = dja_lane(i);

	dja_lane_unlink(i);
	dja_mailboxes_come_back(lane, DT_NOEND);
	while (lane->queued > 0)
	{
		int			mailbox = dja_mailbox_dequeue(lane);

		if (dja_mailbox(mailbox)->announced > 0)
			dja_mailbox(mailbox)->state = DJA_MAILBOX_WAITING;
		else
			dja_mailbox_free(mailbox);
	}
	/* rare, so a walk will do */
	for (int m = 0; m < dja_shared->queue->size && lane->mailboxes > 0; m++)
		if (dja_mailbox(m)->lane == i && dja_mailbox(m)->state == DJA_MAILBOX_WAITING &&
			dja_mailbox(m)->announced == 0)
			dja_mailbox_free(m);
	lane->in_use = false;
}

/*
 * Forgets what was known of a database's types, and what its pools had queued.
 * The launcher frees the pools.  Takes the lock.
 */
void
dja_lanes_forget(Oid database)
{
	dja_lock();
	for (int i = 0; i < DJA_MAX_LANES; i++)
		if (dja_lane(i)->in_use && dja_lane(i)->database == database)
			dja_lane_free(i);
	dja_unlock();
}

/*
 * Has all that waits in a database looked for.  Takes the lock.
 */
void
dja_lanes_sweep(Oid database)
{
	dja_lock();
	for (int i = 0; i < DJA_MAX_LANES; i++)
		if (dja_lane(i)->in_use && dja_lane(i)->database == database)
			dja_lane(i)->sweep_wanted = true;
	dja_unlock();
}

/*
 * Stops popping from a lane, unless its type has changed since the caller read
 * epoch: then what made the caller stop may be mended already.
 */
void
dja_lane_block(int i, uint64 epoch, TimestampTz recheck_at)
{
	DjaLane    *lane = dja_lane(i);

	if (lane->epoch != epoch)
		return;
	lane->blocked = true;
	lane->recheck_at = recheck_at;
	lane->sweep_wanted = true;
}

void
dja_lane_unblock(int i)
{
	DjaLane    *lane = dja_lane(i);

	lane->epoch = ++dja_shared->queue->changes;
	lane->blocked = false;
	lane->sweep_wanted = true;
	lane->next_due = DT_NOBEGIN;
	lane->due_not_before = DT_NOBEGIN;
}

/*
 * What has failed so far counts no more for the type's breaker.
 */
void
dja_lane_forgive(int i)
{
	DjaLane    *lane = dja_lane(i);

	lane->failure_part = 0;
	memset(lane->failures, 0, sizeof(lane->failures));
}

/*
 * How many changes of types there have been: those that a look at the table
 * from now on cannot miss.  Takes the lock.
 */
uint64
dja_queue_changes(void)
{
	uint64		changes;

	dja_lock();
	changes = dja_shared->queue->changes;
	dja_unlock();
	return changes;
}

/*
 * Lanes in a pool.
 */
int
dja_pool_lane_count(int pool)
{
	int			n = 0;

	for (int i = dja_shared->queue->pool_lanes[pool]; i >= 0; i = dja_lane(i)->next_in_pool)
		n++;
	return n;
}

/*
 * Copies the mailboxes of a lane that are put off, as far as there is room, if it
 * is of this database; returns how many there are.
 */
int
dja_lane_put_off(int i, Oid database, uint64 *type_hash, DjaMailbox *mailboxes, int room)
{
	DjaLane    *lane = dja_lane(i);
	int			n = 0;

	*type_hash = lane->type_hash;
	if (!lane->in_use || lane->database != database)
		return 0;
	for (int m = lane->put_off; m >= 0; m = dja_mailbox(m)->fifo_next)
	{
		if (n < room)
			mailboxes[n] = *dja_mailbox(m);
		n++;
	}
	return n;
}

bool
dja_lane_unbounded(DjaLane *lane)
{
	return lane->sweep_wanted || lane->sweeping || lane->floods > 0;
}

/* ---------- senders ---------- */

/*
 * Before the sender's rows become visible: lowers the cursor and pins the
 * mailbox.  Returns the mailbox for the push, or -1 without room: then the
 * lane counts a flood, and the push has to be told so by passing that -1 on.
 */
int
dja_queue_announce(int lane, uint64 key_hash, int64 position)
{
	int			i = dja_mailbox_find(lane, key_hash);

	if (i < 0 && !dja_lane(lane)->blocked && !dja_shared->queue->crowded)
		i = dja_mailbox_create(lane, key_hash, DJA_CURSOR_END);
	if (i < 0 || dja_mailbox(i)->announced == PG_UINT16_MAX)
	{
		dja_lane(lane)->floods++;
		return -1;
	}
	dja_mailbox(i)->announced++;
	if (position < dja_mailbox(i)->cursor)
		dja_mailbox(i)->cursor = position;
	return i;
}

/*
 * After the sender's rows have become visible, or after its abort, which is
 * harmless and undoes the announcement.  mailbox is what dja_queue_announce
 * gave, or -2 for a push that nobody announced (the sweep's, the timekeeper's,
 * an operator's).  depth is the number of messages that came, and base_depth
 * what was counted before them, both only for types with a mailbox limit (-1
 * otherwise); DJA_DEPTH_UNKNOWN where it has to be counted anew.
 */
void
dja_queue_push(int lane_id, int i, uint64 key_hash, int64 position, int depth, int base_depth)
{
	DjaLane    *lane = dja_lane(lane_id);
	DjaMailbox *mailbox;

	if (i == -1)
	{
		lane->floods--;
		lane->sweep_wanted = true;
		return;
	}
	if (i >= 0)
		dja_mailbox(i)->announced--;
	else
	{
		i = dja_mailbox_find(lane_id, key_hash);
		if (i < 0 && !lane->blocked)
			i = dja_mailbox_create(lane_id, key_hash, position);
		if (i < 0)
		{
			lane->sweep_wanted = true;
			return;
		}
	}
	mailbox = dja_mailbox(i);
	if (position < mailbox->cursor)
		mailbox->cursor = position;
	if (depth == DJA_DEPTH_UNKNOWN)
		mailbox->depth = -1;
	else if (depth >= 0)
	{
		if (mailbox->depth >= 0)
			mailbox->depth += depth;
		else if (base_depth >= 0)
			mailbox->depth = base_depth + depth;
	}

	if (!lane->in_use)
	{
		/* dropped meanwhile */
		if (mailbox->state == DJA_MAILBOX_WAITING && mailbox->announced == 0)
			dja_mailbox_free(i);
	}
	else if (mailbox->state == DJA_MAILBOX_RUNNING)
		mailbox->more = true;
	else if (mailbox->state == DJA_MAILBOX_WAITING)
		dja_mailbox_enqueue(i);
}

/*
 * Messages that wait in a mailbox, -1 when nobody has counted them.
 */
int
dja_queue_depth(int lane, uint64 key_hash)
{
	int			i = dja_mailbox_find(lane, key_hash);

	return i < 0 ? -1 : dja_mailbox(i)->depth;
}
