/*
 * mailboxes.c
 *
 * The mailboxes of the run queue: finding and making them, and the lists in which
 * they are.  run_queue.h draws their states.
 *
 * A mailbox is in the hash chain of its type queue and key, and in one list at
 * most: that of its type queue, of its tenant, or of those put off.  room.h says who may
 * have how many.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "shmem/hosts.h"
#include "shmem/mailboxes.h"
#include "shmem/room.h"
#include "shmem/run_queue.h"

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
	Assert(mailbox->state != DJA_MAILBOX_BEHIND && !mailbox->spent);
	if (mailbox->tenant >= 0)
		dja_tenant_leave(i);
	while (*link != i)
		link = &dja_mailbox(*link)->hash_next;
	*link = mailbox->hash_next;
	dja_type_queue(mailbox->type_queue)->mailboxes--;
	mailbox->state = DJA_MAILBOX_FREE;
	mailbox->list_next = queue->free_head;
	queue->free_head = i;
	queue->free_count++;
	Assert(queue->free_count <= queue->size);
}

/*
 * Notes that a waiting host is to be told of mail.  deliver.c or the pool's resident
 * tells it.
 */
void
dja_note_host_mail(DjaTypeQueue *type_queue)
{
	dja_assert_locked();
	if (!type_queue->hosted)
		return;
	type_queue->times_queued++;
	if (!type_queue->hosts_told && dja_shared->hosts->waiting > 0 && dja_hosts_may_take(type_queue))
		type_queue->ring_hosts = true;
}

/*
 * Puts a mailbox at the end of its type queue's list, or of its rank.
 */
void
dja_mailbox_append(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);

	mailbox->state = DJA_MAILBOX_QUEUED;
	if (type_queue->by_priority)
	{
		if (mailbox->cursor != DJA_CURSOR_START && mailbox->cursor != DJA_CURSOR_END)
			mailbox->priority = dja_position_priority(mailbox->cursor);
		dja_rank_insert(type_queue, i, false);
	}
	else
		dja_list_append(&type_queue->queued, i);
	dja_note_host_mail(type_queue);
	dja_assert_type_queue_counts(type_queue);
}

/*
 * Queues a mailbox that is in no list: at the end of its type queue, or behind others of
 * its tenant.
 */
void
dja_mailbox_enqueue(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	dja_assert_locked();
	Assert(dja_type_queue(mailbox->type_queue)->in_use);
	Assert(mailbox->state != DJA_MAILBOX_FREE && mailbox->state != DJA_MAILBOX_QUEUED &&
		   mailbox->state != DJA_MAILBOX_BEHIND);
	Assert(mailbox->claimer == DJA_NO_PROC);
	mailbox->more = false;
	if (mailbox->tenant >= 0 && dja_tenant_queues_behind(i))
		return;
	dja_mailbox_append(i);
}

/*
 * A mailbox of a tenant stands in the list no longer, nor is it put off for its tenant's rate.
 */
static void
dja_mailbox_left_tenant_list(DjaMailbox *mailbox)
{
	DjaTenant  *tenant = dja_tenant(mailbox->tenant);

	Assert(tenant->ahead > 0);
	mailbox->spent = false;
	if (--tenant->ahead == 0 && tenant->behind.length > 0)
		dja_tenant_moves_up(mailbox->tenant);
}

/*
 * Puts a claimed mailbox back at the front of its type queue, or of its rank.
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
	if (mailbox->tenant >= 0)
		dja_tenant(mailbox->tenant)->ahead++;
	if (type_queue->by_priority)
		dja_rank_insert(type_queue, i, true);
	else
		dja_list_insert(&type_queue->queued, i, DJA_NO_MAILBOX);
	dja_note_host_mail(type_queue);
}

/*
 * Removes a mailbox from its type queue's list.
 */
static void
dja_mailbox_leave_queue(DjaTypeQueue *type_queue, int i)
{
	dja_rank_remove(type_queue, i);
	dja_list_remove(&type_queue->queued, i);
	dja_assert_type_queue_counts(type_queue);
}

/*
 * Removes a mailbox from its type queue's list, from its tenant's, or from the list of those
 * put off.
 */
void
dja_mailbox_unlink(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);
	bool		queued = mailbox->state == DJA_MAILBOX_QUEUED;

	dja_assert_locked();
	if (mailbox->state == DJA_MAILBOX_BEHIND)
	{
		dja_tenant_unlink_behind(i);
		return;
	}
	Assert(queued || mailbox->state == DJA_MAILBOX_PUT_OFF);
	if (queued)
		dja_mailbox_leave_queue(type_queue, i);
	else
		dja_list_remove(&type_queue->put_off, i);
	if (mailbox->tenant >= 0 && (queued || mailbox->spent))
		dja_mailbox_left_tenant_list(mailbox);
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
	dja_list_insert(&type_queue->put_off, i, DJA_NO_MAILBOX);
	type_queue->put_off_due = Min(type_queue->put_off_due, until);
}

/*
 * Queues the mailboxes that were put off long enough.
 */
void
dja_mailboxes_come_back(DjaTypeQueue *type_queue, TimestampTz now)
{
	int			i = type_queue->put_off.head;

	dja_assert_locked();
	dja_list_clear(&type_queue->put_off);
	type_queue->put_off_due = DJA_NEVER;
	while (i >= 0)
	{
		int			next = dja_mailbox(i)->list_next;

		Assert(dja_mailbox(i)->state == DJA_MAILBOX_PUT_OFF);
		if (dja_mailbox(i)->not_before <= now && dja_mailbox(i)->spent)
		{
			/* it has been ahead of its tenant all the time */
			dja_mailbox(i)->spent = false;
			dja_mailbox_append(i);
		}
		else if (dja_mailbox(i)->not_before <= now)
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
	int			i = type_queue->queued.head;

	dja_assert_locked();
	Assert(type_queue->queued.length > 0);
	Assert(dja_mailbox(i)->state == DJA_MAILBOX_QUEUED);
	dja_mailbox_leave_queue(type_queue, i);
	if (dja_mailbox(i)->tenant >= 0)
		dja_mailbox_left_tenant_list(dja_mailbox(i));
	return i;
}

/*
 * Puts the first mailbox of a type queue off, since its tenant has had its turns.  It stays
 * ahead of its tenant.
 */
void
dja_mailbox_tenant_spent(int i, TimestampTz until)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);

	dja_assert_locked();
	Assert(type_queue->queued.length > 0 && type_queue->queued.head == i && mailbox->tenant >= 0);
	dja_mailbox_leave_queue(type_queue, i);
	mailbox->state = DJA_MAILBOX_PUT_OFF;
	mailbox->spent = true;
	dja_mailbox_put_off(i, until);
}

/*
 * Has the mailboxes of a tenant, or of all (DJA_NO_TENANT), come back that were put off for
 * their tenant's rate.
 */
void
dja_mailboxes_look_again(DjaTypeQueue *type_queue, int tenant)
{
	dja_assert_locked();
	for (int i = type_queue->put_off.head; i >= 0; i = dja_mailbox(i)->list_next)
	{
		if (!dja_mailbox(i)->spent || (tenant >= 0 && dja_mailbox(i)->tenant != tenant))
			continue;
		dja_mailbox(i)->not_before = DT_NOBEGIN;
		type_queue->put_off_due = DT_NOBEGIN;
	}
}

/*
 * Makes a mailbox that is not there yet, in state WAITING.  Returns DJA_NO_MAILBOX if there
 * is no room for it, or for one more of its tenant, unless tenant_value is 0.
 */
int
dja_mailbox_create(int type_queue, uint64 key_hash, int64 cursor, uint64 tenant_value)
{
	DjaRunQueue *queue = dja_shared->queue;
	int		   *bucket = dja_bucket(type_queue, key_hash);
	DjaMailbox *mailbox;
	int			i;

	Assert(dja_mailbox_find(type_queue, key_hash) < 0);
	Assert((queue->free_head < 0) == (queue->free_count == 0));
	if (!dja_room_make(type_queue, tenant_value))
		return DJA_NO_MAILBOX;
	i = queue->free_head;
	mailbox = dja_mailbox(i);
	Assert(mailbox->state == DJA_MAILBOX_FREE);
	queue->free_head = mailbox->list_next;
	queue->free_count--;

	mailbox->key_hash = key_hash;
	mailbox->cursor = cursor;
	mailbox->type_queue = type_queue;
	mailbox->hash_next = *bucket;
	mailbox->claimer = DJA_NO_PROC;
	mailbox->claim_index = 0;	/* means nothing until it is claimed */
	mailbox->depth = DJA_NOT_COUNTED;
	mailbox->announced = 0;
	mailbox->put_offs = mailbox->run_alone = 0;
	mailbox->priority = 0;
	mailbox->ends = 0;
	mailbox->died_with = -1;
	mailbox->tenant = DJA_NO_TENANT;
	mailbox->spent = false;
	mailbox->state = DJA_MAILBOX_WAITING;
	mailbox->more = false;
	*bucket = i;
	dja_type_queue(type_queue)->mailboxes++;
	dja_room_type_queue_grew(type_queue);
	return i;
}
