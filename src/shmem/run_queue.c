/*
 * run_queue.c
 *
 * The queue of mailboxes with due mail; run_queue.h tells what it promises.
 *
 * Layout: an array of mailboxes, linked by index into hash chains (lookup by type
 * queue and key), a list for each type queue (first in, first out) and a free
 * list.  Nothing here is allocated after startup.  When no mailbox is free, room
 * is made first from type queues that are blocked, then from mailboxes that
 * merely wait.  In both cases the type queue is marked for a sweep, which finds
 * again what was dropped.  A mailbox that is running or announced is never
 * dropped.
 *
 * One lock guards all of it.  A critical section takes some hundred nanoseconds
 * for a mailbox; callers with many mailboxes release the lock in between.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/pg_bitutils.h"
#include "storage/shmem.h"

#include "base/compat.h"
#include "base/guc.h"
#include "shmem/run_queue.h"

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
dja_run_queue_bytes(void)
{
	Size		size = MAXALIGN(sizeof(DjaRunQueue));

	size = add_size(size, MAXALIGN(mul_size(sizeof(int), dja_bucket_count())));
	return add_size(size, mul_size(sizeof(DjaMailbox), dja_run_queue_size));
}

void
dja_run_queue_setup(void *memory)
{
	DjaRunQueue *queue = memory;
	int		   *buckets;
	DjaMailbox *mailboxes;

	memset(queue, 0, sizeof(DjaRunQueue));
	queue->size = dja_run_queue_size;
	queue->nbuckets = dja_bucket_count();
	buckets = dja_buckets(queue);
	mailboxes = dja_queue_mailboxes(queue);

	for (int i = 0; i < queue->nbuckets; i++)
		buckets[i] = DJA_NO_MAILBOX;
	for (int i = 0; i < queue->size; i++)
	{
		mailboxes[i].state = DJA_MAILBOX_FREE;
		mailboxes[i].fifo_next = i + 1 < queue->size ? i + 1 : DJA_NO_MAILBOX;
	}
	queue->free_head = 0;
	queue->free_count = queue->size;
	for (int i = 0; i < DJA_MAX_POOLS; i++)
		queue->pool_type_queues[i] = queue->pool_rotor[i] = DJA_NO_TYPE_QUEUE;
}

/* ---------- mailboxes: lookup, allocation, the type queue's list ---------- */

static inline int *
dja_bucket(int type_queue, uint64 key_hash)
{
	DjaRunQueue *queue = dja_shared->queue;
	uint64		mixed = hash_combine64(key_hash, (uint64) type_queue);

	return &dja_buckets(queue)[mixed & (uint64) (queue->nbuckets - 1)];
}

/*
 * Returns a mailbox, or DJA_NO_MAILBOX.
 */
int
dja_mailbox_find(int type_queue, uint64 key_hash)
{
	dja_assert_locked();
	for (int i = *dja_bucket(type_queue, key_hash); i >= 0; i = dja_mailbox(i)->hash_next)
	{
		DjaMailbox *mailbox = dja_mailbox(i);

		if (mailbox->key_hash == key_hash && mailbox->type_queue == type_queue)
			return i;
	}
	return DJA_NO_MAILBOX;
}

/*
 * Frees a mailbox that is in no list and is neither claimed nor announced.
 */
void
dja_mailbox_free(int i)
{
	DjaRunQueue *queue = dja_shared->queue;
	DjaMailbox *mailbox = dja_mailbox(i);
	int		   *link = dja_bucket(mailbox->type_queue, mailbox->key_hash);

	dja_assert_locked();
	Assert(mailbox->state != DJA_MAILBOX_FREE && mailbox->state != DJA_MAILBOX_PUT_OFF);
	Assert(mailbox->announced == 0 && mailbox->claimer == DJA_NO_PROC);
	Assert(dja_type_queue(mailbox->type_queue)->mailboxes > 0);
	while (*link != i)
		link = &dja_mailbox(*link)->hash_next;
	*link = mailbox->hash_next;
	dja_type_queue(mailbox->type_queue)->mailboxes--;
	mailbox->state = DJA_MAILBOX_FREE;
	mailbox->fifo_next = queue->free_head;
	queue->free_head = i;
	queue->free_count++;
	Assert(queue->free_count <= queue->size);
}

/*
 * Puts a mailbox that is in no list at the end of its type queue.
 */
void
dja_mailbox_enqueue(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);

	dja_assert_locked();
	Assert(type_queue->in_use);
	Assert(mailbox->state != DJA_MAILBOX_FREE && mailbox->state != DJA_MAILBOX_QUEUED);
	Assert(mailbox->claimer == DJA_NO_PROC);
	mailbox->state = DJA_MAILBOX_QUEUED;
	mailbox->more = false;
	mailbox->fifo_next = DJA_NO_MAILBOX;
	if (type_queue->queued++ == 0)
		type_queue->head = i;
	else
		dja_mailbox(type_queue->tail)->fifo_next = i;
	type_queue->tail = i;
	dja_assert_type_queue_counts(type_queue);
}

/*
 * Puts a claimed mailbox back at the front of its type queue.
 */
void
dja_mailbox_return(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);

	dja_assert_locked();
	Assert(type_queue->in_use);
	Assert(mailbox->state == DJA_MAILBOX_RUNNING && mailbox->claimer == DJA_NO_PROC);
	mailbox->state = DJA_MAILBOX_QUEUED;
	mailbox->more = false;
	mailbox->fifo_next = type_queue->head;
	if (type_queue->queued++ == 0)
	{
		mailbox->fifo_next = DJA_NO_MAILBOX;
		type_queue->tail = i;
	}
	type_queue->head = i;
}

/*
 * Removes a mailbox from its type queue's list, or from the list of those put
 * off.  Rare, so a walk is good enough.
 */
void
dja_mailbox_unlink(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);
	bool		queued = mailbox->state == DJA_MAILBOX_QUEUED;
	int		   *link = queued ? &type_queue->head : &type_queue->put_off;
	int			last = DJA_NO_MAILBOX;

	dja_assert_locked();
	Assert(queued || mailbox->state == DJA_MAILBOX_PUT_OFF);
	while (*link != i)
	{
		Assert(*link >= 0);
		last = *link;
		link = &dja_mailbox(*link)->fifo_next;
	}
	*link = mailbox->fifo_next;
	if (!queued)
		return;
	if (type_queue->tail == i)
		type_queue->tail = last;
	type_queue->queued--;
	dja_assert_type_queue_counts(type_queue);
}

/*
 * Lets a mailbox wait until a moment.
 */
void
dja_mailbox_put_off(int i, TimestampTz until)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);

	dja_assert_locked();
	Assert(mailbox->state == DJA_MAILBOX_RUNNING || mailbox->state == DJA_MAILBOX_PUT_OFF);
	Assert(mailbox->claimer == DJA_NO_PROC);
	mailbox->state = DJA_MAILBOX_PUT_OFF;
	mailbox->more = false;
	mailbox->not_before = until;
	mailbox->fifo_next = type_queue->put_off;
	type_queue->put_off = i;
	type_queue->put_off_due = Min(type_queue->put_off_due, until);
}

/*
 * Queues the mailboxes that were put off long enough.
 */
void
dja_mailboxes_come_back(DjaTypeQueue *type_queue, TimestampTz now)
{
	int			i = type_queue->put_off;

	dja_assert_locked();
	type_queue->put_off = DJA_NO_MAILBOX;
	type_queue->put_off_due = DJA_NEVER;
	while (i >= 0)
	{
		int			next = dja_mailbox(i)->fifo_next;

		Assert(dja_mailbox(i)->state == DJA_MAILBOX_PUT_OFF);
		if (dja_mailbox(i)->not_before <= now)
			dja_mailbox_enqueue(i);
		else
			dja_mailbox_put_off(i, dja_mailbox(i)->not_before);
		i = next;
	}
}

/*
 * Takes the first mailbox out of a type queue, which must not be empty.
 */
int
dja_mailbox_dequeue(DjaTypeQueue *type_queue)
{
	int			i = type_queue->head;

	dja_assert_locked();
	Assert(type_queue->queued > 0);
	Assert(dja_mailbox(i)->state == DJA_MAILBOX_QUEUED);
	type_queue->head = dja_mailbox(i)->fifo_next;
	type_queue->queued--;
	return i;
}

/*
 * Drops a mailbox that does not run, to make room.  The sweep finds its mail.
 * Returns false if none could be dropped.
 */
static bool
dja_make_room(void)
{
	DjaRunQueue *queue = dja_shared->queue;

	for (int probe = 0; probe < DJA_EVICTION_PROBES; probe++)
	{
		int			i = queue->clock;
		DjaMailbox *mailbox = dja_mailbox(i);
		DjaTypeQueue *type_queue;

		queue->clock = (i + 1) % queue->size;
		if (mailbox->state == DJA_MAILBOX_FREE)
			continue;
		type_queue = dja_type_queue(mailbox->type_queue);
		if (mailbox->state == DJA_MAILBOX_WAITING && mailbox->announced == 0)
		{
			type_queue->sweep_wanted = true;
			dja_mailbox_free(i);
			return true;
		}
		if (type_queue->blocked && type_queue->queued > 0 && dja_mailbox(type_queue->head)->announced == 0)
		{
			type_queue->sweep_wanted = true;
			dja_mailbox_free(dja_mailbox_dequeue(type_queue));
			return true;
		}
	}
	return false;
}

/*
 * Makes a mailbox that is not there yet, in state WAITING.  Returns
 * DJA_NO_MAILBOX if there is no room.
 */
int
dja_mailbox_create(int type_queue, uint64 key_hash, int64 cursor)
{
	DjaRunQueue *queue = dja_shared->queue;
	int		   *bucket = dja_bucket(type_queue, key_hash);
	DjaMailbox *mailbox;
	int			i;

	Assert(dja_mailbox_find(type_queue, key_hash) < 0);
	Assert((queue->free_head < 0) == (queue->free_count == 0));
	if (queue->free_head < 0 && !dja_make_room())
		return DJA_NO_MAILBOX;
	i = queue->free_head;
	mailbox = dja_mailbox(i);
	Assert(mailbox->state == DJA_MAILBOX_FREE);
	queue->free_head = mailbox->fifo_next;
	queue->free_count--;

	mailbox->key_hash = key_hash;
	mailbox->cursor = cursor;
	mailbox->type_queue = type_queue;
	mailbox->hash_next = *bucket;
	mailbox->fifo_next = DJA_NO_MAILBOX;
	mailbox->claimer = DJA_NO_PROC;
	mailbox->claim_index = 0;	/* means nothing until it is claimed */
	mailbox->depth = DJA_NOT_COUNTED;
	mailbox->announced = 0;
	mailbox->put_offs = mailbox->run_alone = 0;
	mailbox->ends = 0;
	mailbox->state = DJA_MAILBOX_WAITING;
	mailbox->more = false;
	*bucket = i;
	dja_type_queue(type_queue)->mailboxes++;
	return i;
}

/*
 * Returns how many mailboxes can still be made.
 */
int
dja_queue_room(void)
{
	dja_assert_locked();
	return dja_shared->queue->free_count;
}

/* ---------- type queues ---------- */

/*
 * Returns the index of the type queue of a type, also of one that was freed;
 * DJA_NO_TYPE_QUEUE if it never had one, or another type has taken its slot.
 */
int
dja_type_queue_slot(Oid database, uint64 type_hash)
{
	uint32		start = (uint32) (type_hash % DJA_MAX_TYPE_QUEUES);

	dja_assert_locked();

	/*
	 * open addressing without tombstones: a freed type queue keeps the key of
	 * its slot
	 */
	for (uint32 n = 0; n < DJA_MAX_TYPE_QUEUES; n++)
	{
		int			i = (int) ((start + n) % DJA_MAX_TYPE_QUEUES);
		DjaTypeQueue *type_queue = dja_type_queue(i);

		if (type_queue->type_hash == type_hash && type_queue->database == database)
			return i;
		if (!OidIsValid(type_queue->database))
			return DJA_NO_TYPE_QUEUE;
	}
	return DJA_NO_TYPE_QUEUE;
}

/*
 * Returns the type queue of a type, or DJA_NO_TYPE_QUEUE.  Callers may keep the
 * result, but look it up again with the same arguments before each use.
 */
int
dja_type_queue_find(Oid database, uint64 type_hash)
{
	int			i = dja_type_queue_slot(database, type_hash);

	return i >= 0 && dja_type_queue(i)->in_use ? i : DJA_NO_TYPE_QUEUE;
}

/*
 * Makes the type queue of a type and puts it in its pool.  The type must have
 * none.  Returns DJA_NO_TYPE_QUEUE if all type queues are taken.  It starts
 * with a sweep, since mail may have come before.
 */
int
dja_type_queue_create(Oid database, uint64 type_hash, int pool)
{
	uint32		start = (uint32) (type_hash % DJA_MAX_TYPE_QUEUES);
	int			i = DJA_NO_TYPE_QUEUE;
	DjaTypeQueue *type_queue;

	Assert(dja_type_queue_find(database, type_hash) < 0);

	/* the same slot if it ever had one, so that lookups stay right */
	for (uint32 n = 0; n < DJA_MAX_TYPE_QUEUES; n++)
	{
		int			at = (int) ((start + n) % DJA_MAX_TYPE_QUEUES);

		type_queue = dja_type_queue(at);
		if (type_queue->type_hash == type_hash && type_queue->database == database)
		{
			i = at;
			break;
		}
		if (i < 0 && !type_queue->in_use && type_queue->mailboxes == 0 &&
			type_queue->workers == 0 && type_queue->overflows == 0)
			i = at;
		if (!OidIsValid(type_queue->database))
			break;
	}
	if (i < 0)
		return DJA_NO_TYPE_QUEUE;

	/* counts that others keep from the slot's earlier life stay */
	type_queue = dja_type_queue(i);
	type_queue->in_use = true;
	type_queue->database = database;
	type_queue->type_hash = type_hash;
	type_queue->pool = DJA_NO_POOL;
	type_queue->concurrency = 0;
	type_queue->batch_size = 0;
	memset(&type_queue->pace, 0, sizeof(DjaPace));
	type_queue->head = type_queue->tail = type_queue->put_off = DJA_NO_MAILBOX;
	type_queue->put_off_due = DJA_NEVER;
	type_queue->queued = 0;
	type_queue->sweeping = type_queue->sweep_started = false;
	dja_type_queue_unblock(i);
	dja_type_queue_forgive(i);
	dja_type_queue_move(i, pool);
	return i;
}

static void
dja_type_queue_unlink(int i)
{
	DjaRunQueue *queue = dja_shared->queue;
	DjaTypeQueue *type_queue = dja_type_queue(i);
	int		   *link;

	if (type_queue->pool < 0)
		return;
	link = &queue->pool_type_queues[type_queue->pool];
	while (*link != i)
		link = &dja_type_queue(*link)->next_in_pool;
	*link = type_queue->next_in_pool;
	if (queue->pool_rotor[type_queue->pool] == i)
		queue->pool_rotor[type_queue->pool] = type_queue->next_in_pool;
	type_queue->pool = DJA_NO_POOL;
}

/*
 * Puts a type queue into the pool of its type's owner.
 */
void
dja_type_queue_move(int i, int pool)
{
	DjaRunQueue *queue = dja_shared->queue;
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	Assert(type_queue->in_use);
	Assert(dja_pool(pool)->in_use && dja_pool(pool)->database == type_queue->database);
	if (type_queue->pool == pool)
		return;
	dja_type_queue_unlink(i);
	type_queue->pool = pool;
	type_queue->next_in_pool = queue->pool_type_queues[pool];
	queue->pool_type_queues[pool] = i;
}

/*
 * Frees a type queue whose type, or database, was dropped.  Mailboxes that are
 * running are freed when their claims end.
 */
void
dja_type_queue_free(int i)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	Assert(type_queue->in_use);
	dja_type_queue_unlink(i);
	dja_mailboxes_come_back(type_queue, DT_NOEND);
	while (type_queue->queued > 0)
	{
		int			mailbox = dja_mailbox_dequeue(type_queue);

		if (dja_mailbox(mailbox)->announced > 0)
			dja_mailbox(mailbox)->state = DJA_MAILBOX_WAITING;
		else
			dja_mailbox_free(mailbox);
	}
	/* rare, so a walk is good enough */
	for (int m = 0; m < dja_shared->queue->size && type_queue->mailboxes > 0; m++)
		if (dja_mailbox(m)->type_queue == i && dja_mailbox(m)->state == DJA_MAILBOX_WAITING &&
			dja_mailbox(m)->announced == 0)
			dja_mailbox_free(m);
	type_queue->in_use = false;
	dja_assert_type_queue_counts(type_queue);
}

/*
 * Frees all type queues of a database.  The launcher frees its pools.  Takes the
 * lock.
 */
void
dja_type_queues_forget(Oid database)
{
	dja_lock();
	for (int i = 0; i < DJA_MAX_TYPE_QUEUES; i++)
		if (dja_type_queue(i)->in_use && dja_type_queue(i)->database == database)
			dja_type_queue_free(i);
	dja_unlock();
}

/*
 * Has all type queues of a database swept.  Takes the lock.
 */
void
dja_type_queues_sweep(Oid database)
{
	dja_lock();
	for (int i = 0; i < DJA_MAX_TYPE_QUEUES; i++)
		if (dja_type_queue(i)->in_use && dja_type_queue(i)->database == database)
			dja_type_queue(i)->sweep_wanted = true;
	dja_unlock();
}

/*
 * Blocks a type queue, unless its type has changed since the caller read epoch:
 * then the reason may be gone already.
 */
void
dja_type_queue_block(int i, uint64 epoch, TimestampTz recheck_at)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	if (type_queue->epoch != epoch)
		return;
	type_queue->blocked = true;
	type_queue->recheck_at = recheck_at;
	type_queue->sweep_wanted = true;
}

/*
 * Unblocks a type queue, and has it swept and its delays looked at.
 */
void
dja_type_queue_unblock(int i)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	Assert(type_queue->in_use);
	type_queue->epoch = ++dja_shared->queue->changes;
	type_queue->blocked = false;
	type_queue->sweep_wanted = true;
	type_queue->next_due = DT_NOBEGIN;
	type_queue->due_not_before = DT_NOBEGIN;
}

/*
 * Clears the failures counted for the type's breaker.
 */
void
dja_type_queue_forgive(int i)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	type_queue->failure_part = 0;
	memset(type_queue->failures, 0, sizeof(type_queue->failures));
}

/*
 * Returns how many changes of types there have been.  A later look at the table
 * cannot miss any of them.  Takes the lock.
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
 * Returns the number of type queues in a pool.
 */
int
dja_pool_type_queue_count(int pool)
{
	int			n = 0;

	dja_assert_locked();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
		n++;
	return n;
}

/*
 * Copies the mailboxes of a type queue that are put off, as far as there is room.
 * Returns how many there are; 0 if the type queue is of another database.
 */
int
dja_type_queue_put_off(int i, Oid database, uint64 *type_hash, DjaMailbox *mailboxes, int room)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);
	int			n = 0;

	dja_assert_locked();
	*type_hash = type_queue->type_hash;
	if (!type_queue->in_use || type_queue->database != database)
		return 0;
	for (int m = type_queue->put_off; m >= 0; m = dja_mailbox(m)->fifo_next)
	{
		if (n < room)
			mailboxes[n] = *dja_mailbox(m);
		n++;
	}
	return n;
}

/*
 * Do the cursors of this type queue read as DJA_CURSOR_START?
 */
bool
dja_type_queue_unbounded(DjaTypeQueue *type_queue)
{
	dja_assert_locked();
	return type_queue->sweep_wanted || type_queue->sweeping || type_queue->overflows > 0;
}

/* ---------- senders ---------- */

/*
 * The cursor of a mailbox falls to a position.  It rises only by a claim.
 */
static inline void
dja_mailbox_lower_cursor(DjaMailbox *mailbox, int64 position)
{
	if (position < mailbox->cursor)
		mailbox->cursor = position;
}

/*
 * Announces mail: lowers the cursor and pins the mailbox, before the sender's
 * rows become visible.  Returns the mailbox, or DJA_OVERFLOW without room.  In
 * that case the type queue counts an overflow.  The result has to be passed on
 * to dja_queue_push().
 */
int
dja_queue_announce(int type_queue, uint64 key_hash, int64 position)
{
	int			i = dja_mailbox_find(type_queue, key_hash);

	if (i < 0 && !dja_type_queue(type_queue)->blocked && !dja_shared->queue->crowded)
		i = dja_mailbox_create(type_queue, key_hash, DJA_CURSOR_END);
	if (i < 0 || dja_mailbox(i)->announced == PG_UINT16_MAX)
	{
		dja_type_queue(type_queue)->overflows++;
		return DJA_OVERFLOW;
	}
	dja_mailbox(i)->announced++;
	dja_mailbox_lower_cursor(dja_mailbox(i), position);
	return i;
}

/*
 * The overflow of an announcement is over: the sweep finds the mail.
 */
void
dja_queue_overflow_over(int type_queue_id)
{
	DjaTypeQueue *type_queue = dja_type_queue(type_queue_id);

	dja_assert_locked();
	Assert(type_queue->overflows > 0);
	type_queue->overflows--;
	type_queue->sweep_wanted = true;
}

/*
 * Pushes mail, after the sender's rows have become visible.  Also called after an
 * abort, where it undoes the announcement and is otherwise harmless.
 *
 * i is what dja_queue_announce() has returned, or DJA_NOT_ANNOUNCED for a push
 * without announcement (by a sweep, the timekeeper, an operator).  depth is the
 * number of messages that came, and base_depth what was counted before them.
 * Both are DJA_NOT_COUNTED unless the type has a mailbox limit;
 * DJA_DEPTH_UNKNOWN: they have to be counted anew.
 */
void
dja_queue_push(int type_queue_id, int i, uint64 key_hash, int64 position, int depth, int base_depth)
{
	DjaTypeQueue *type_queue = dja_type_queue(type_queue_id);
	DjaMailbox *mailbox;

	dja_assert_locked();
	if (i == DJA_OVERFLOW)
	{
		dja_queue_overflow_over(type_queue_id);
		return;
	}
	if (i >= 0)
	{
		Assert(dja_mailbox(i)->state != DJA_MAILBOX_FREE && dja_mailbox(i)->announced > 0);
		Assert(dja_mailbox(i)->type_queue == type_queue_id && dja_mailbox(i)->key_hash == key_hash);
		dja_mailbox(i)->announced--;
	}
	else
	{
		Assert(i == DJA_NOT_ANNOUNCED);
		i = dja_mailbox_find(type_queue_id, key_hash);
		if (i < 0 && !type_queue->blocked)
			i = dja_mailbox_create(type_queue_id, key_hash, position);
		if (i < 0)
		{
			type_queue->sweep_wanted = true;
			return;
		}
	}
	mailbox = dja_mailbox(i);
	dja_mailbox_lower_cursor(mailbox, position);
	if (depth == DJA_DEPTH_UNKNOWN)
		mailbox->depth = DJA_NOT_COUNTED;
	else if (depth >= 0)
	{
		if (mailbox->depth >= 0)
			mailbox->depth += depth;
		else if (base_depth >= 0)
			mailbox->depth = base_depth + depth;
	}

	if (!type_queue->in_use)
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
 * Returns how many messages wait in a mailbox, DJA_NOT_COUNTED if they were not
 * counted.
 */
int
dja_queue_depth(int type_queue, uint64 key_hash)
{
	int			i = dja_mailbox_find(type_queue, key_hash);

	return i < 0 ? DJA_NOT_COUNTED : dja_mailbox(i)->depth;
}
