/*
 * deliver.c
 *
 * From a sender's transaction to the run queue: the one transaction callback,
 * which pays what pending.c has collected.  For why the order below loses no wake-up
 * and no order, see README.md in this folder.
 *
 *   PRE_COMMIT	announce the mailboxes; where the pool is asleep, queue the NOTIFY
 *   COMMIT		push the mailboxes, then ring where nobody has rung yet
 *   ABORT		push what was announced: a false alarm that undoes the announcement
 *   PREPARE	forget: COMMIT PREPARED has every lane of the database swept
 *
 * An ERROR in COMMIT is a PANIC: nothing is allocated there, no catalog is
 * read. Everything that may fail (no lane left, out of memory) fails in
 * PRE_COMMIT or before.
 */
#include "postgres.h"

#include "access/xact.h"
#include "answers.h"
#include "commands/async.h"
#include "deliver.h"
#include "handler.h"
#include "held.h"
#include "miscadmin.h"
#include "pending.h"
#include "runqueue.h"
#include "slots.h"
#include "utils/builtins.h"

#define DJA_PUSHES_PER_LOCK 64
#define DJA_NOTIFY_FULL 0.9		/* of the server's queue */

static bool dja_announced = false;

/*
 * What has become of the types that this transaction was about to change?
 */
static void
dja_read_changes(void)
{
	bool		fresh = false;

	for (int i = 0; i < dja_pending.nlanes; i++)
	{
		DjaPendingLane *pending = &dja_pending.lanes[i];
		DjaType    *type = NULL;
		char	   *problem;

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
		pending->batch_size = dja_handler_resolve(type, &problem) != NULL ?
			dja_handler_batch_size(type) : type->batch_size;
	}
}

/*
 * Is there room for a NOTIFY?  A session that LISTENs to anything and does not
 * read lets the server's queue fill up; then each commit that notifies fails, and
 * sending should not.  Being asked, the server forgets what all have read, which
 * it otherwise does only when somebody notifies.
 */
bool
dja_can_notify(void)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	return DatumGetFloat8(pg_notification_queue_usage(fcinfo)) < DJA_NOTIFY_FULL;
}

static void
dja_announce(void)
{
	bool		notify = false;
	bool		full = false;

	dja_read_changes();
	dja_lock();
	for (int i = 0; i < dja_pending.nlanes && !full; i++)
	{
		DjaPendingLane *pending = &dja_pending.lanes[i];
		DjaPool    *pool;

		pending->lane = dja_ensure_lane(MyDatabaseId, pending->type_hash, pending->owner);
		if (pending->lane < 0)
		{
			full = true;
			break;
		}
		/* a new owner's pool has to be there before the commit */
		if (pending->changed && !pending->dropped &&
			dja_pool_find(MyDatabaseId, pending->owner, true) < 0)
			full = true;
		pool = dja_pool(dja_lane(pending->lane)->pool);
		if (pool->state == DJA_POOL_ASLEEP && !pool->rung &&
			!dja_lane(pending->lane)->blocked)
			pool->rung = pending->notified = notify = true;
	}
	if (!full)
	{
		dja_announced = true;
		for (int i = 0; i < dja_pending.nlanes; i++)
		{
			DjaPendingLane *pending = &dja_pending.lanes[i];

			/* what a changed type lets go is below all cursors */
			pending->flood = pending->sweep || pending->changed;
			if (pending->flood)
				dja_lane(pending->lane)->floods++;
		}
		for (int i = 0; i < dja_pending.nmailboxes; i++)
		{
			DjaPendingMailbox *mailbox = &dja_pending.mailboxes[i];

			mailbox->mailbox = dja_queue_announce(dja_pending.lanes[mailbox->lane].lane,
												  mailbox->key_hash, mailbox->position);
			if ((i + 1) % DJA_PUSHES_PER_LOCK == 0)
			{
				dja_unlock();
				dja_lock();
			}
		}
	}
	dja_unlock();

	if (full)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many actor types or owners of actor types in this server"),
				 errdetail("There is room for %d actor types and %d pairs of database and owner.",
						   DJA_MAX_LANES, DJA_MAX_POOLS)));
	if (!notify)
		return;
	if (dja_can_notify())
		Async_Notify("djactor", "");
	else
		for (int i = 0; i < dja_pending.nlanes; i++)
			dja_pending.lanes[i].notified = false;	/* a latch will do */
}

/*
 * Wakes the worker of a lane, unless it is awake or our NOTIFY will.
 */
static void
dja_ring(DjaPendingLane *pending)
{
	DjaLane    *lane = dja_lane(pending->lane);

	/* nobody pops from a lane that is blocked */
	if (lane->pool < 0 || (lane->blocked && !pending->changed))
		return;
	if (dja_pool(lane->pool)->state == DJA_POOL_ASLEEP && pending->notified)
		return;
	dja_wake_pool(lane->pool);
}

/*
 * The transaction came to nothing: lanes that it had stopped start again, and
 * so do those that somebody blocked on the word of its changes, such as a turn
 * after a pause() in the same transaction.
 */
static void
dja_start_lanes(void)
{
	for (int i = 0; i < dja_pending.nlanes; i++)
	{
		DjaPendingLane *pending = &dja_pending.lanes[i];

		if (!pending->stopped && !pending->changed)
			continue;
		dja_lock();
		pending->lane = dja_lane_find(MyDatabaseId, pending->type_hash);
		if (pending->lane >= 0)
		{
			dja_lane_unblock(pending->lane);
			dja_ring(pending);
		}
		dja_unlock();
	}
}

static void
dja_apply_type_change(DjaPendingLane *pending)
{
	int			pool;

	if (pending->dropped)
	{
		dja_lane_free(pending->lane);
		return;
	}
	dja_lane(pending->lane)->concurrency = pending->concurrency;
	dja_lane(pending->lane)->batch_size = pending->batch_size;

	/*
	 * made before the commit; should it be gone, the old pool's worker moves
	 * the lane
	 */
	pool = dja_pool_find(MyDatabaseId, pending->owner, true);
	if (pool >= 0)
		dja_lane_move(pending->lane, pool);
	dja_lane_unblock(pending->lane);
	dja_lane_forgive(pending->lane);
}

/*
 * After the commit, or after an abort that came between announcing and
 * committing.
 */
static void
dja_deliver(bool committed)
{
	dja_lock();
	for (int i = 0; i < dja_pending.nlanes; i++)
		if (dja_pending.lanes[i].flood)
			dja_queue_push(dja_pending.lanes[i].lane, -1, 0, 0, -1, -1);
	for (int i = 0; i < dja_pending.nmailboxes; i++)
	{
		DjaPendingMailbox *mailbox = &dja_pending.mailboxes[i];

		dja_queue_push(dja_pending.lanes[mailbox->lane].lane, mailbox->mailbox, mailbox->key_hash,
					   mailbox->position,
					   !committed ? -1 : mailbox->recount ? DJA_DEPTH_UNKNOWN :
					   mailbox->base_depth >= 0 ? mailbox->count : -1,
					   mailbox->base_depth);
		if ((i + 1) % DJA_PUSHES_PER_LOCK == 0)
		{
			dja_unlock();
			dja_lock();
		}
	}
	for (int i = 0; i < dja_pending.nlanes; i++)
	{
		DjaPendingLane *pending = &dja_pending.lanes[i];

		/*
		 * freed by somebody else meanwhile: then what was defined needs it
		 * anew
		 */
		if (dja_lane(pending->lane)->type_hash != pending->type_hash ||
			!dja_lane(pending->lane)->in_use)
		{
			pending->lane = committed && pending->changed && !pending->dropped ?
				dja_ensure_lane(MyDatabaseId, pending->type_hash, pending->owner) : -1;
			if (pending->lane < 0)
				continue;
		}
		if (committed)
		{
			if (pending->changed)
				dja_apply_type_change(pending);
			if (pending->next_due < dja_lane(pending->lane)->next_due)
				dja_lane(pending->lane)->next_due = pending->next_due;
		}
		dja_ring(pending);
	}
	dja_unlock();
}

static void
dja_end_holds(void)
{
	if (!dja_pending.holding)
		return;
	dja_lock();
	dja_release_holds();
	dja_unlock();
	dja_ring_launcher();
}

static void
dja_deliver_reset(void)
{
	dja_pending_reset();
	dja_answers_forget();
	dja_announced = false;
}

static void
dja_deliver_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (dja_pending.nlanes > 0)
				dja_announce();
			dja_answers_announce();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			if (dja_announced)
				dja_deliver(event == XACT_EVENT_COMMIT);
			if (event == XACT_EVENT_ABORT)
				dja_start_lanes();
			else
				dja_answers_deliver();
			if (dja_pending.drained)
				dja_release_claims();
			if (OidIsValid(dja_pending.dropped) && event == XACT_EVENT_COMMIT)
			{
				dja_lanes_forget(dja_pending.dropped);
				dja_held_forget(dja_pending.dropped);
			}
			dja_end_holds();	/* rings the launcher */
			if (dja_pending.scout && event == XACT_EVENT_COMMIT)
			{
				if (dja_pending.scout_later)
					dja_ring_scout_later(dja_pending.scout_database);
				else
					dja_ring_scout(dja_pending.scout_database);
			}
			if (dja_pending.renew && event == XACT_EVENT_COMMIT)
				dja_renew_workers(dja_pending.renew_database, dja_pending.renew_role);
			dja_deliver_reset();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (dja_pending.drained)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has called djactor.drain()")));
			for (int i = 0; i < dja_pending.nlanes; i++)
				if (dja_pending.lanes[i].changed)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("cannot PREPARE a transaction that has changed an actor type")));
			break;
		case XACT_EVENT_PREPARE:
			dja_start_lanes();
			dja_end_holds();
			dja_deliver_reset();
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

static void
dja_deliver_subxact_callback(SubXactEvent event, SubTransactionId subid,
							 SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		dja_pending_undone();
}

void
dja_deliver_init(void)
{
	RegisterXactCallback(dja_deliver_xact_callback, NULL);
	RegisterSubXactCallback(dja_deliver_subxact_callback, NULL);
	dja_answers_init();
}
