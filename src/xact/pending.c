/*
 * pending.c
 *
 * Collects what a transaction will owe the workers; see pending.h.  deliver.c
 * delivers it at the transaction's end, and then calls dja_pending_reset().
 *
 * No entry is removed before the end, so a rollback to a savepoint leaves a false
 * alarm at worst.  The lists stay allocated for the life of the session.  Their
 * size is bounded by the number of types and by DJA_MAX_PENDING mailboxes.  A
 * transaction that sends to more mailboxes is an overflow: its type queues are
 * marked for a sweep instead.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/grow.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "xact/deliver.h"
#include "xact/drain_agenda.h"
#include "xact/pending.h"

#define DJA_MAX_PENDING 1024
#define DJA_PENDING_BUCKETS 2048
#define DJA_STOP_WAIT_MS 10000

DjaPending	dja_pending;

static int	dja_max_type_queues = 0;
static int16 *dja_pending_buckets = NULL;	/* index into the mailboxes, or
											 * DJA_NO_MAILBOX */

/*
 * Forgets everything that was collected.
 */
void
dja_pending_reset(void)
{
	for (int i = 0; i < dja_pending.nmailboxes; i++)
		dja_pending_buckets[dja_pending.mailboxes[i].bucket] = DJA_NO_MAILBOX;
	dja_pending.nmailboxes = 0;
	dja_pending.ntype_queues = 0;
	dja_pending.drained = false;
	dja_pending.scout = dja_pending.renew = dja_pending.locks_out = false;
	dja_pending.dropped = InvalidOid;
}

static int
dja_pending_find_type_queue(uint64 type_hash)
{
	for (int i = dja_pending.ntype_queues - 1; i >= 0; i--)
		if (dja_pending.type_queues[i].type_hash == type_hash)
			return i;
	return DJA_NO_TYPE_QUEUE;
}

static int
dja_pending_type_queue(uint64 type_hash, Oid owner)
{
	int			i = dja_pending_find_type_queue(type_hash);
	DjaPendingTypeQueue *type_queue;

	dja_assert_unlocked();
	if (i >= 0)
		return i;
	dja_pending.type_queues = dja_grow(TopMemoryContext, dja_pending.type_queues,
									   sizeof(DjaPendingTypeQueue), dja_pending.ntype_queues,
									   &dja_max_type_queues);
	type_queue = &dja_pending.type_queues[dja_pending.ntype_queues];
	memset(type_queue, 0, sizeof(DjaPendingTypeQueue));
	type_queue->type_hash = type_hash;
	type_queue->owner = owner;
	type_queue->type_queue = DJA_NO_TYPE_QUEUE;
	type_queue->next_due = DJA_NEVER;
	return dja_pending.ntype_queues++;
}

static DjaPendingTypeQueue *
dja_type_queue_entry(uint64 type_hash, Oid owner)
{
	int			i = dja_pending_type_queue(type_hash, owner);	/* may move the array */

	return &dja_pending.type_queues[i];
}

/*
 * Returns the entry of a mailbox, or NULL.  create: makes it, if there is room.
 * type_queue is an index into the list of type queues.
 */
static DjaPendingMailbox *
dja_pending_find(int type_queue, uint64 key_hash, bool create)
{
	int			bucket = (int) ((key_hash ^ (uint64) type_queue) % DJA_PENDING_BUCKETS);
	DjaPendingMailbox *mailbox;

	if (dja_pending_buckets == NULL)
	{
		dja_pending.mailboxes = MemoryContextAlloc(TopMemoryContext,
												   sizeof(DjaPendingMailbox) * DJA_MAX_PENDING);
		dja_pending_buckets = MemoryContextAlloc(TopMemoryContext,
												 sizeof(int16) * DJA_PENDING_BUCKETS);
		memset(dja_pending_buckets, -1, sizeof(int16) * DJA_PENDING_BUCKETS);
	}
	for (; dja_pending_buckets[bucket] >= 0; bucket = (bucket + 1) % DJA_PENDING_BUCKETS)
	{
		mailbox = &dja_pending.mailboxes[dja_pending_buckets[bucket]];
		if (mailbox->key_hash == key_hash && mailbox->type_queue == type_queue)
			return mailbox;
	}
	Assert(type_queue < dja_pending.ntype_queues);
	if (!create || dja_pending.nmailboxes == DJA_MAX_PENDING)
		return NULL;

	mailbox = &dja_pending.mailboxes[dja_pending.nmailboxes];
	mailbox->key_hash = key_hash;
	mailbox->position = DJA_CURSOR_END;
	mailbox->tenant_value = 0;
	mailbox->type_queue = type_queue;
	mailbox->mailbox = DJA_NO_MAILBOX;
	mailbox->count = mailbox->before = 0;
	mailbox->command = InvalidCommandId;
	mailbox->base_depth = DJA_NOT_COUNTED;
	mailbox->recount = false;
	mailbox->bucket = bucket;
	dja_pending_buckets[bucket] = (int16) dja_pending.nmailboxes++;
	return mailbox;
}

/*
 * Returns the entry of a mailbox of a type, which is made if need be; NULL without
 * room.
 */
static DjaPendingMailbox *
dja_pending_entry(DjaType *type, uint64 key_hash)
{
	return dja_pending_find(dja_pending_type_queue(type->hash, type->owner), key_hash, true);
}

/*
 * Notes messages for a mailbox; position is the lowest of them.
 */
void
dja_pending_mailbox(DjaType *type, uint64 key_hash, int64 position, int count)
{
	DjaPendingMailbox *mailbox = dja_pending_entry(type, key_hash);

	dja_agenda_mail(type->hash, key_hash, position);
	Assert(count >= 0);
	if (mailbox == NULL)
	{
		/* no room: the whole type queue is swept */
		dja_type_queue_entry(type->hash, type->owner)->sweep = true;
		return;
	}
	mailbox->count += count;
	if (position < mailbox->position)
		mailbox->position = position;
}

/*
 * Notes the tenant of a mailbox for which messages were noted; values and nulls are the row
 * of one of them.
 */
void
dja_pending_tenant(DjaType *type, uint64 key_hash, const Datum *values, const bool *nulls)
{
	DjaPendingMailbox *mailbox;

	if (type->by.kind == DJA_BY_NOTHING)
		return;
	mailbox = dja_pending_entry(type, key_hash);
	if (mailbox != NULL)
		mailbox->tenant_value = dja_tenant_value(&type->by, values, nulls);
}

/*
 * Notes a delayed message.
 */
void
dja_pending_due(DjaType *type, TimestampTz due)
{
	DjaPendingTypeQueue *type_queue = dja_type_queue_entry(type->hash, type->owner);

	type_queue->next_due = Min(type_queue->next_due, due);
	dja_agenda_due(type->hash, due);
}

/*
 * Notes that a type was defined, changed or dropped.  Its new state is read from
 * the table before the commit, since savepoints may undo some of it.
 */
void
dja_pending_type(uint64 type_hash, Oid owner)
{
	dja_type_queue_entry(type_hash, owner)->changed = true;
	dja_agenda_afresh();
}

/*
 * Returns how many messages this transaction has sent to a mailbox.  *base_depth:
 * how many were counted there before them (or DJA_NOT_COUNTED).  *recount: that count
 * includes messages that this transaction had sent before.
 */
int
dja_pending_count(DjaType *type, uint64 key_hash, int *base_depth, bool *recount)
{
	int			type_queue = dja_pending_find_type_queue(type->hash);
	DjaPendingMailbox *mailbox = type_queue < 0 ? NULL : dja_pending_find(type_queue, key_hash, false);

	*base_depth = mailbox ? mailbox->base_depth : DJA_NOT_COUNTED;
	*recount = mailbox != NULL && mailbox->recount;
	return mailbox ? mailbox->count : 0;
}

/*
 * Notes how many messages a mailbox held before this transaction sent there.
 */
void
dja_pending_set_base_depth(DjaType *type, uint64 key_hash, int base_depth)
{
	DjaPendingMailbox *mailbox = dja_pending_entry(type, key_hash);

	if (mailbox != NULL)
		mailbox->base_depth = base_depth;
}

static void
dja_recount(DjaPendingMailbox *mailbox)
{
	mailbox->recount = true;
	mailbox->base_depth = DJA_NOT_COUNTED;
	mailbox->count = mailbox->before = 0;
}

/*
 * Notes that this transaction has removed messages from a mailbox, or put some
 * back: its depth has to be counted anew.
 */
void
dja_pending_recount(DjaType *type, uint64 key_hash)
{
	DjaPendingMailbox *mailbox = dja_pending_entry(type, key_hash);

	if (mailbox != NULL)
		dja_recount(mailbox);
}

/*
 * Notes that a command is about to send to a mailbox.
 */
void
dja_pending_command(DjaType *type, uint64 key_hash, CommandId command)
{
	DjaPendingMailbox *mailbox = dja_pending_entry(type, key_hash);

	if (mailbox == NULL || mailbox->command == command)
		return;
	mailbox->command = command;
	mailbox->before = mailbox->count;
}

/*
 * Notes that a mailbox holds depth messages, which includes those that this
 * transaction sent before its present command.  Returns how many this command has
 * sent.
 */
int
dja_pending_counted(DjaType *type, uint64 key_hash, int depth)
{
	DjaPendingMailbox *mailbox = dja_pending_entry(type, key_hash);
	int			mine;

	if (mailbox == NULL)
		return 0;
	Assert(depth >= 0 && mailbox->count >= mailbox->before);
	mine = mailbox->count - mailbox->before;
	dja_recount(mailbox);
	mailbox->base_depth = depth;
	mailbox->count = mine;
	return mine;
}

/*
 * Forgets all counts, after the rollback of a subtransaction that may have been
 * counted.
 */
void
dja_pending_undone(void)
{
	for (int i = 0; i < dja_pending.nmailboxes; i++)
		if (dja_pending.mailboxes[i].base_depth >= 0)
			dja_recount(&dja_pending.mailboxes[i]);
}

/*
 * Returns the position to which this transaction will lower the cursor of a
 * mailbox, or DJA_CURSOR_END if it has sent nothing there.  Allocates nothing;
 * the lock may be held.
 */
int64
dja_pending_position(uint64 type_hash, uint64 key_hash)
{
	int			type_queue = dja_pending_find_type_queue(type_hash);
	DjaPendingMailbox *mailbox;

	if (type_queue < 0)
		return DJA_CURSOR_END;
	if (dja_pending.type_queues[type_queue].changed || dja_pending.type_queues[type_queue].sweep)
		return DJA_CURSOR_START;
	if (dja_pending.nmailboxes == 0)
		return DJA_CURSOR_END;
	mailbox = dja_pending_find(type_queue, key_hash, false);
	return mailbox ? mailbox->position : DJA_CURSOR_END;
}

/*
 * Has this transaction sent anything yet?
 */
bool
dja_pending_any(void)
{
	return dja_pending.ntype_queues > 0;
}

/*
 * Has the launcher send a scout to a database, or to all of them (InvalidOid),
 * once this transaction has committed.
 */
void
dja_pending_scout(Oid database)
{
	if (dja_pending.scout && dja_pending.scout_database != database)
		database = InvalidOid;	/* more than one: to all */
	dja_pending.scout = true;
	dja_pending.scout_later = false;
	dja_pending.scout_database = database;
}

/*
 * Likewise for a database that was just created, but after a while: many are
 * dropped at once, and a copy's mail must not be handled anyway.
 */
void
dja_pending_created(Oid database)
{
	bool		first = !dja_pending.scout;

	dja_pending_scout(database);
	dja_pending.scout_later = first;
}

/*
 * Has fresh sessions replace those of workers once this transaction has
 * committed, since settings of a database or a role were changed.  InvalidOid: of
 * all.
 */
void
dja_pending_renew(Oid database, Oid role)
{
	if (dja_pending.renew && dja_pending.renew_database != database)
		database = InvalidOid;
	if (dja_pending.renew && dja_pending.renew_role != role)
		role = InvalidOid;
	dja_pending.renew = true;
	dja_pending.renew_database = database;
	dja_pending.renew_role = role;
}

/*
 * Blocks a type queue until this transaction ends, and waits until no other
 * process has claims there: for the end of their batches or handlers.  Raises
 * 55P03 after ten seconds.
 */
void
dja_pending_stop_type_queue(DjaType *type)
{
	static uint32 wait_event = 0;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_STOP_WAIT_MS);
	int			i = dja_pending_type_queue(type->hash, type->owner);

	for (;;)
	{
		bool		busy = false;

		dja_lock();
		dja_pending.type_queues[i].type_queue = dja_ensure_type_queue(MyDatabaseId, type->hash, type->owner);
		if (dja_pending.type_queues[i].type_queue >= 0)
		{
			DjaTypeQueue *type_queue = dja_type_queue(dja_pending.type_queues[i].type_queue);

			dja_pending.type_queues[i].stopped = type_queue->blocked = true;
			type_queue->recheck_at = DJA_NEVER;
			type_queue->sweep_wanted = true;
			busy = dja_type_queue_busy(dja_pending.type_queues[i].type_queue);
		}
		dja_unlock();
		if (!busy)
			break;
		if (GetCurrentTimestamp() >= until)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("turns of actor type \"%s\" do not come to an end", type->name),
					 errhint("Pause the type, and try again when its handlers have finished.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2,
						 DJA_WAIT_EVENT(wait_event, "DjactorStopType"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

int
dja_ensure_type_queue(Oid database, uint64 type_hash, Oid owner)
{
	int			type_queue = dja_type_queue_find(database, type_hash);
	int			pool;

	dja_assert_locked();
	if (type_queue >= 0)
		return type_queue;
	pool = dja_pool_find(database, owner, true);
	return pool < 0 ? DJA_NO_TYPE_QUEUE : dja_type_queue_create(database, type_hash, pool);
}
