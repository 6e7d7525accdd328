/*
 * deliver.c
 *
 * Hands over to the run queue what pending.c has collected, in the one
 * transaction callback.  src/README.md tells why the order below loses no wake-up
 * and no order.
 *
 *   PRE_COMMIT	announce the mailboxes; where the pool is asleep, queue the NOTIFY
 *   COMMIT		push the mailboxes, then ring each pool that was not rung yet
 *   ABORT		push what was announced: a false alarm that undoes the announcement
 *   PREPARE	write it down: COMMIT PREPARED, which may come at any time, hands it over
 *
 * The mailboxes that drain() has claimed are given back when the transaction has also
 * released its locks, which their next turns must not meet.
 *
 * An ERROR in COMMIT is a PANIC: nothing is allocated there, and no catalog is
 * read.  Everything that may fail (no type queue left, out of memory) fails in
 * PRE_COMMIT or before.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "common/string.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/resowner.h"

#include "shmem/copy_shmem.h"
#include "shmem/hosts.h"
#include "shmem/rates.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "tables/handler.h"
#include "xact/deliver.h"
#include "xact/pending.h"
#include "xact/prepared.h"
#include "xact/reply_notify.h"

#define DJA_PUSHES_PER_LOCK 64
#define DJA_NOTIFY_FULL 0.9		/* of the server's queue */

static bool dja_announced = false;
static bool dja_drained = false;	/* the transaction has ended, but for its
									 * locks */

/*
 * Reads what has become of the types that this transaction changes.  Called
 * before the commit.
 */
static void
dja_read_changes(void)
{
	bool		fresh = false;

	for (int i = 0; i < dja_pending.ntype_queues; i++)
	{
		DjaPendingTypeQueue *pending = &dja_pending.type_queues[i];
		DjaType    *type = NULL;

		if (!pending->changed && !pending->stopped)
			continue;

		/*
		 * the transaction may have dropped the extension, with all its types
		 */
		if (dja_catalog_check(false) == DJA_INSTALLED)
		{
			if (!fresh)
				dja_types_reload();
			fresh = true;
			type = dja_type_by_hash(pending->type_hash);
		}
		pending->changed = true;
		pending->dropped = type == NULL;
		if (type == NULL)
			continue;
		pending->owner = type->owner;
		pending->concurrency = type->concurrency;
		pending->batch_size = dja_handler_known_batch_size(type);
		pending->hosted = type->hosted;
		pending->stateless = type->stateless;
		pending->rate = type->rate;
	}
}

/*
 * Is there room for a NOTIFY?  A session that LISTENs to anything and does not
 * read lets the server's queue fill up.  Then each commit that notifies fails,
 * and a commit that sends should not.  When asked, the server also drops what all
 * sessions have read, which it otherwise does only when a session notifies.
 */
bool
dja_can_notify(void)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	return DatumGetFloat8(pg_notification_queue_usage(fcinfo)) < DJA_NOTIFY_FULL;
}

/*
 * Has the resident of a type queue's pool something to do after this commit?  Mail of
 * hosted types is none of its business, but delays and sweeps are.  Where a type has had
 * its turns, the resident sleeps until the next may begin.
 */
static bool
dja_needs_resident(DjaPendingTypeQueue *pending, DjaTypeQueue *type_queue)
{
	return (!type_queue->hosted && type_queue->spent_until == 0) || pending->changed || pending->sweep || type_queue->sweep_wanted ||
		type_queue->overflows > 0 || pending->next_due != DJA_NEVER;
}

/*
 * Has this transaction notify the hosts that wait for mail of a type, or of several types
 * if the hash is 0.  The payload names the type, so that no other host looks for mail.
 * A host whose encoding is not the database's may read a name that is not ASCII as
 * another one, so that is left out.
 */
void
dja_notify_hosts(uint64 type_hash)
{
	DjaType    *type = NULL;
	char		payload[sizeof(DJA_HOST_MAIL) + 1 + DJA_TYPE_NAME_MAX] = DJA_HOST_MAIL;

	/* the transaction may have dropped the extension, with all its types */
	if (type_hash != 0 && dja_catalog_check(false) == DJA_INSTALLED)
		type = dja_type_by_hash(type_hash);
	if (type != NULL && pg_is_ascii(type->name))
		snprintf(payload, sizeof(payload), DJA_HOST_MAIL " %s", type->name);
	Async_Notify(DJA_HOST_CHANNEL, payload);
}

/*
 * Notifies the hosts of the types that this transaction tells of, if there are any left.
 */
static void
dja_tell_hosts_of_pending(void)
{
	uint64		type_hash = 0;
	int			ntypes = 0;

	for (int i = 0; i < dja_pending.ntype_queues; i++)
	{
		if (!dja_pending.type_queues[i].hosts_notified)
			continue;
		type_hash = dja_pending.type_queues[i].type_hash;
		ntypes++;
	}
	if (ntypes > 0)
		dja_notify_hosts(ntypes == 1 ? type_hash : 0);
}

/*
 * Takes back that hosts are told by this transaction, since it cannot notify them.  So
 * others do not rely on it.
 */
static void
dja_tell_no_hosts(void)
{
	dja_lock();
	for (int i = 0; i < dja_pending.ntype_queues; i++)
	{
		DjaPendingTypeQueue *pending = &dja_pending.type_queues[i];

		if (!pending->hosts_notified)
			continue;
		pending->hosts_notified = false;
		dja_type_queue(pending->type_queue)->hosts_told = false;
		dja_hosts_may_take_again(pending->type_queue);
	}
	dja_unlock();
}

/*
 * Notes which types have mail that may be handled after the commit, and not only delays.
 */
static void
dja_note_mail(void)
{
	for (int i = 0; i < dja_pending.ntype_queues; i++)
		dja_pending.type_queues[i].mail = dja_pending.type_queues[i].sweep || dja_pending.type_queues[i].changed;
	for (int i = 0; i < dja_pending.nmailboxes; i++)
	{
		DjaPendingMailbox *mailbox = &dja_pending.mailboxes[i];

		if (mailbox->position != DJA_CURSOR_END)
			dja_pending.type_queues[mailbox->type_queue].mail = true;
	}
}

/*
 * Announces what was collected, before the commit.  Takes the lock.  Raises 53400
 * if there is no room for another type queue or pool.
 */
static void
dja_announce(void)
{
	bool		notify = false;
	bool		notify_hosts = false;
	bool		full = false;

	Assert(!dja_announced);
	dja_read_changes();
	dja_note_mail();
	dja_lock();
	for (int i = 0; i < dja_pending.ntype_queues && !full; i++)
	{
		DjaPendingTypeQueue *pending = &dja_pending.type_queues[i];
		DjaTypeQueue *type_queue;
		DjaPool    *pool;

		pending->type_queue = dja_ensure_type_queue(MyDatabaseId, pending->type_hash, pending->owner);
		if (pending->type_queue < 0)
		{
			full = true;
			break;
		}
		/* a new owner's pool has to be there before the commit */
		if (pending->changed && !pending->dropped &&
			dja_pool_find(MyDatabaseId, pending->owner, true) < 0)
			full = true;
		type_queue = dja_type_queue(pending->type_queue);
		pool = dja_pool(type_queue->pool);
		if (type_queue->blocked)
			continue;
		if (type_queue->hosted && pending->mail && !type_queue->hosts_told && dja_hosts_wait_for(type_queue))
			type_queue->hosts_told = pending->hosts_notified = notify_hosts = true;
		if (dja_needs_resident(pending, type_queue) && pool->state == DJA_POOL_ASLEEP && !pool->rung)
			pool->rung = pending->notified = notify = true;
	}
	if (!full)
	{
		dja_announced = true;
		for (int i = 0; i < dja_pending.ntype_queues; i++)
		{
			DjaPendingTypeQueue *pending = &dja_pending.type_queues[i];

			/* mail that a changed type releases is below all cursors */
			pending->overflow = pending->sweep || pending->changed;
			if (pending->overflow)
				dja_type_queue(pending->type_queue)->overflows++;
		}
		for (int i = 0; i < dja_pending.nmailboxes; i++)
		{
			DjaPendingMailbox *mailbox = &dja_pending.mailboxes[i];

			mailbox->mailbox = dja_queue_announce(dja_pending.type_queues[mailbox->type_queue].type_queue,
												  mailbox->key_hash, mailbox->position, mailbox->tenant_value);
			if ((i + 1) % DJA_PUSHES_PER_LOCK == 0)
			{
				dja_unlock();
				dja_lock();
			}
		}
	}
	dja_unlock();

	if (notify_hosts && (full || !dja_can_notify()))
		dja_tell_no_hosts();
	if (full)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many actor types or owners of actor types in this server"),
				 errdetail("There is room for %d actor types and %d pairs of database and owner.",
						   DJA_MAX_TYPE_QUEUES, DJA_MAX_POOLS)));
	if (!notify && !notify_hosts)
		return;
	if (dja_can_notify())
	{
		if (notify)
			Async_Notify("djactor", "");
		dja_tell_hosts_of_pending();
		return;
	}
	/* a latch is enough */
	for (int i = 0; i < dja_pending.ntype_queues; i++)
		dja_pending.type_queues[i].notified = false;
}

/*
 * Wakes the pool of a type queue, unless it is awake or our NOTIFY will wake it.
 * Needs the lock.
 */
static void
dja_ring(DjaPendingTypeQueue *pending)
{
	DjaTypeQueue *type_queue = dja_type_queue(pending->type_queue);

	dja_assert_locked();
	/* nothing is claimed from a blocked type queue */
	if (type_queue->pool < 0 || (type_queue->blocked && !pending->changed))
		return;
	if (!type_queue->ring_hosts && !dja_needs_resident(pending, type_queue))
		return;

	/*
	 * if it has fallen asleep anew it may have heard of our NOTIFY before the
	 * push
	 */
	if (dja_pool(type_queue->pool)->state == DJA_POOL_ASLEEP && pending->notified && dja_pool(type_queue->pool)->rung)
		return;
	dja_wake_pool(type_queue->pool);
}

/*
 * Unblocks type queues after an abort: those that the transaction has stopped,
 * and those that were blocked because of its changes, such as by a turn after a
 * pause() in the same transaction.
 */
static void
dja_start_type_queues(void)
{
	for (int i = 0; i < dja_pending.ntype_queues; i++)
	{
		DjaPendingTypeQueue *pending = &dja_pending.type_queues[i];

		if (!pending->stopped && !pending->changed)
			continue;
		dja_lock();
		pending->type_queue = dja_type_queue_find(MyDatabaseId, pending->type_hash);
		if (pending->type_queue >= 0)
		{
			dja_type_queue_unblock(pending->type_queue);
			dja_ring(pending);
		}
		dja_unlock();
	}
}

/*
 * Brings a type queue up to its type's new definition, after the commit.  Needs
 * the lock.
 */
static void
dja_apply_type_change(DjaPendingTypeQueue *pending)
{
	int			pool;

	dja_assert_locked();
	Assert(pending->changed);
	if (pending->dropped)
	{
		dja_type_queue_free(pending->type_queue);
		return;
	}
	dja_type_queue(pending->type_queue)->concurrency = pending->concurrency;
	dja_type_queue(pending->type_queue)->batch_size = pending->batch_size;
	dja_type_queue(pending->type_queue)->hosted = pending->hosted;
	dja_type_queue_order(pending->type_queue, pending->stateless);
	dja_type_queue_set_rate(pending->type_queue, pending->rate);

	/*
	 * it was made before the commit; if it is gone, a worker of the old pool
	 * moves the type queue
	 */
	pool = dja_pool_find(MyDatabaseId, pending->owner, true);
	if (pool >= 0)
		dja_type_queue_move(pending->type_queue, pool);
	dja_type_queue(pending->type_queue)->idle_due = DT_NOBEGIN;
	dja_type_queue_unblock(pending->type_queue);
	dja_type_queue_forgive(pending->type_queue);
}

/*
 * Pushes what was announced, after the commit, or after an abort that came
 * between announcing and committing.  Raises nothing.
 */
static void
dja_deliver(bool committed)
{
	Assert(dja_announced);
	dja_lock();
	for (int i = 0; i < dja_pending.ntype_queues; i++)
		if (dja_pending.type_queues[i].overflow)
			dja_queue_overflow_over(dja_pending.type_queues[i].type_queue);
	for (int i = 0; i < dja_pending.nmailboxes; i++)
	{
		DjaPendingMailbox *mailbox = &dja_pending.mailboxes[i];

		dja_queue_push(dja_pending.type_queues[mailbox->type_queue].type_queue, mailbox->mailbox, mailbox->key_hash,
					   mailbox->position,
					   !committed ? DJA_NOT_COUNTED : mailbox->recount ? DJA_DEPTH_UNKNOWN :
					   mailbox->base_depth >= 0 ? mailbox->count : DJA_NOT_COUNTED,
					   mailbox->base_depth, mailbox->tenant_value);
		if ((i + 1) % DJA_PUSHES_PER_LOCK == 0)
		{
			dja_unlock();
			dja_lock();
		}
	}
	for (int i = 0; i < dja_pending.ntype_queues; i++)
	{
		DjaPendingTypeQueue *pending = &dja_pending.type_queues[i];

		/*
		 * freed by another process meanwhile: if the type is defined, it
		 * needs a new one
		 */
		if (dja_type_queue(pending->type_queue)->type_hash != pending->type_hash ||
			dja_type_queue(pending->type_queue)->database != MyDatabaseId ||
			!dja_type_queue(pending->type_queue)->in_use)
		{
			pending->type_queue = committed && pending->changed && !pending->dropped ?
				dja_ensure_type_queue(MyDatabaseId, pending->type_hash, pending->owner) :
				DJA_NO_TYPE_QUEUE;
			if (pending->type_queue < 0)
				continue;
		}
		if (committed)
		{
			if (pending->changed)
				dja_apply_type_change(pending);
			if (pending->next_due < dja_type_queue(pending->type_queue)->next_due)
				dja_type_queue(pending->type_queue)->next_due = pending->next_due;
		}
		if (!committed && pending->hosts_notified)
		{
			/* nobody was told, and others may have relied on it */
			pending->hosts_notified = false;
			dja_type_queue(pending->type_queue)->hosts_told = false;
			dja_type_queue(pending->type_queue)->ring_hosts = dja_type_queue(pending->type_queue)->queued.length > 0;
		}
		dja_ring(pending);
	}
	dja_unlock();
}

static void
dja_pending_end_lockouts(void)
{
	if (!dja_pending.locks_out)
		return;
	dja_lock();
	dja_lockouts_end();
	dja_unlock();
	dja_ring_launcher();
}

static void
dja_deliver_reset(void)
{
	dja_pending_reset();
	dja_reply_notify_forget();
	dja_prepared_forget();
	dja_announced = false;
}

static void
dja_deliver_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (dja_pending.ntype_queues > 0)
				dja_announce();
			dja_reply_notify_announce();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			if (dja_announced)
				dja_deliver(event == XACT_EVENT_COMMIT);
			if (event == XACT_EVENT_ABORT)
				dja_start_type_queues();
			else
				dja_reply_notify_deliver();
			dja_drained = dja_pending.drained;
			if (OidIsValid(dja_pending.dropped) && event == XACT_EVENT_COMMIT)
			{
				dja_type_queues_forget(dja_pending.dropped);
				dja_copy_forget(dja_pending.dropped);
			}
			dja_pending_end_lockouts(); /* rings the launcher */
			if (dja_pending.scout && event == XACT_EVENT_COMMIT)
				dja_ring_scout(dja_pending.scout_database, dja_pending.scout_later);
			if (dja_pending.renew && event == XACT_EVENT_COMMIT)
			{
				dja_lock();
				(void) dja_stop_workers(dja_pending.renew_database, dja_pending.renew_role, NULL);
				dja_unlock();
			}
			dja_deliver_reset();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (dja_pending.drained)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has called djactor.drain()")));
			for (int i = 0; i < dja_pending.ntype_queues; i++)
				if (dja_pending.type_queues[i].changed)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("cannot PREPARE a transaction that has changed an actor type")));
			break;
		case XACT_EVENT_PREPARE:
			dja_prepared_write();
			dja_start_type_queues();
			dja_pending_end_lockouts();
			dja_deliver_reset();
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

static void
dja_deliver_release_callback(ResourceReleasePhase phase, bool committed, bool top_level, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !top_level || !dja_drained)
		return;
	dja_drained = false;
	dja_release_claims();
}

static void
dja_deliver_subxact_callback(SubXactEvent event, SubTransactionId subid,
							 SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		dja_pending_undone();
	dja_reply_notify_subxact(event, subid, parent);
}

void
dja_deliver_init(void)
{
	RegisterXactCallback(dja_deliver_xact_callback, NULL);
	RegisterResourceReleaseCallback(dja_deliver_release_callback, NULL);
	RegisterSubXactCallback(dja_deliver_subxact_callback, NULL);
}
