/*
 * run_queue.c
 *
 * The run queue's memory, and the senders' side of it: announcing mail before it
 * is visible, pushing it afterwards.  run_queue.h tells what it promises.
 *
 * Layout: an array of type queues, and an array of mailboxes, linked by index
 * into hash chains (lookup by type queue and key), a list for each type queue
 * (first in, first out) and a free list.  Nothing here is allocated after
 * startup.  type_queues.c and mailboxes.c work on the two arrays.
 *
 * One lock guards all of it.  A critical section takes some hundred nanoseconds
 * for a mailbox; callers with many mailboxes release the lock in between.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "storage/shmem.h"

#include "base/guc.h"
#include "shmem/mailboxes.h"
#include "shmem/room.h"
#include "shmem/run_queue.h"

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
		mailboxes[i].list_next = i + 1 < queue->size ? i + 1 : DJA_NO_MAILBOX;
	}
	queue->free_head = 0;
	queue->free_count = queue->size;
	dja_tenants_setup();
	for (int i = 0; i < DJA_MAX_POOLS; i++)
		queue->pool_type_queues[i] = queue->pool_rotor[i] = DJA_NO_TYPE_QUEUE;
}

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
 * Puts a mailbox into its tenant, unless it is in one.  If it is in a list by itself, it
 * stays there.
 */
static void
dja_mailbox_in_tenant(int i, uint64 tenant_value)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	if (mailbox->tenant < 0 &&
		(mailbox->state == DJA_MAILBOX_WAITING || mailbox->state == DJA_MAILBOX_RUNNING))
		dja_tenant_join(i, tenant_value);
}

/*
 * Announces mail: lowers the cursor and pins the mailbox, before the sender's
 * rows become visible.  Returns the mailbox, or DJA_OVERFLOW without room.  In
 * that case the type queue counts an overflow.  The result has to be passed on
 * to dja_queue_push().  tenant_value is the hash of the tenant's value, 0 = not known, or the
 * type has no tenants.
 */
int
dja_queue_announce(int type_queue, uint64 key_hash, int64 position, uint64 tenant_value)
{
	int			i = dja_mailbox_find(type_queue, key_hash);

	if (i < 0 && !dja_type_queue(type_queue)->blocked && !dja_room_crowded(type_queue, tenant_value))
		i = dja_mailbox_create(type_queue, key_hash, DJA_CURSOR_END, tenant_value);
	if (i < 0 || dja_mailbox(i)->announced == PG_UINT16_MAX)
	{
		dja_type_queue(type_queue)->overflows++;
		return DJA_OVERFLOW;
	}
	if (tenant_value != 0)
		dja_mailbox_in_tenant(i, tenant_value);
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
dja_queue_push(int type_queue_id, int i, uint64 key_hash, int64 position, int depth, int base_depth,
			   uint64 tenant_value)
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
			i = dja_mailbox_create(type_queue_id, key_hash, position, tenant_value);
		if (i < 0)
		{
			type_queue->sweep_wanted = true;
			return;
		}
	}
	mailbox = dja_mailbox(i);
	if (tenant_value != 0)
		dja_mailbox_in_tenant(i, tenant_value);
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
