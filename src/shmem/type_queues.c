/*
 * type_queues.c
 *
 * The type queues of the run queue: finding, making, moving and freeing them,
 * blocking and sweeping them.
 *
 * They are an open hash table, in which a freed type queue keeps the key of its
 * slot.  The type queues of a pool are a list.
 */
#include "postgres.h"

#include "shmem/mailboxes.h"
#include "shmem/run_queue.h"

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
	if (type_queue->type_hash != type_hash || type_queue->database != database)
		type_queue->history_from = DJA_NEVER;
	type_queue->in_use = true;
	type_queue->database = database;
	type_queue->type_hash = type_hash;
	type_queue->pool = DJA_NO_POOL;
	type_queue->concurrency = 0;
	type_queue->batch_size = 0;
	type_queue->hosted = type_queue->ring_hosts = type_queue->hosts_told = false;
	type_queue->times_queued = 0;
	type_queue->by_priority = false;
	type_queue->nranks = 0;
	memset(&type_queue->pace, 0, sizeof(DjaPace));
	memset(&type_queue->rate, 0, sizeof(DjaRate));
	type_queue->rate_by = false;
	type_queue->spent_until = 0;
	memset(&dja_shared->queue->windows[i], 0, sizeof(DjaWindow));
	dja_tenants_forget(i);
	dja_list_clear(&type_queue->queued);
	dja_list_clear(&type_queue->put_off);
	type_queue->put_off_due = DJA_NEVER;
	type_queue->behind = 0;
	type_queue->idle_due = DT_NOBEGIN;
	type_queue->sweeping = type_queue->sweep_refused = false;
	type_queue->crowded = type_queue->tenants_crowded = false;
	type_queue->largest_tenant = DJA_NO_TENANT;
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
	while (type_queue->queued.length > 0)
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
	type_queue->sweep_pause_until = 0;
	type_queue->next_due = DT_NOBEGIN;
	type_queue->due_not_before = DT_NOBEGIN;
	/* what was queued meanwhile was nothing to tell hosts of */
	if (type_queue->queued.length > 0)
		dja_note_host_mail(type_queue);
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
	for (int m = type_queue->put_off.head; m >= 0; m = dja_mailbox(m)->list_next)
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
