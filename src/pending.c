/*
 * pending.c
 *
 * From a sender's transaction to the run queue; see pending.h and, for why the
 * order below loses no wake-up and no order, README.md in this folder.
 *
 *   PRE_COMMIT	announce the mailboxes; where the pool is asleep, queue the NOTIFY
 *   COMMIT		push the mailboxes, then ring where nobody has rung yet
 *   ABORT		push what was announced: a false alarm that undoes the announcement
 *   PREPARE	forget: COMMIT PREPARED has every lane of the database swept
 *
 * An ERROR in COMMIT is a PANIC: nothing is allocated there, no catalog is
 * read. Everything that may fail (no lane left, out of memory) fails in
 * PRE_COMMIT or before.
 *
 * A transaction that sends to more than DJA_MAX_PENDING mailboxes is a flood:
 * its lanes are marked for a sweep instead.
 */
#include "postgres.h"

#include "access/xact.h"
#include "answers.h"
#include "commands/async.h"
#include "compat.h"
#include "handler.h"
#include "miscadmin.h"
#include "pending.h"
#include "runqueue.h"
#include "slots.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define DJA_MAX_PENDING 1024
#define DJA_PENDING_BUCKETS 2048
#define DJA_PUSHES_PER_LOCK 64
#define DJA_STOP_WAIT_MS 10000

typedef struct DjaPendingLane
{
	uint64		type_hash;
	Oid			owner;
	int			lane;			/* valid once announced */
	bool		sweep;			/* a flood */
	bool		notified;		/* our NOTIFY wakes its pool */
	bool		changed;		/* the type was defined, dropped, paused, resumed */
	bool		dropped;
	bool		stopped;		/* by us, until the end of the transaction */
	int			concurrency;	/* of a type that is changed */
	bool		solo;
	TimestampTz next_due;
} DjaPendingLane;

typedef struct DjaPendingMailbox
{
	uint64		key_hash;
	int64		position;		/* lowest */
	int			lane;			/* in dja_lanes */
	int			mailbox;		/* as announced */
	int			count;
	int			base_depth;		/* -1 = not counted */
	int			bucket;
} DjaPendingMailbox;

static DjaPendingLane *dja_lanes = NULL;
static int	dja_nlanes = 0;
static int	dja_max_lanes = 0;
static DjaPendingMailbox *dja_mailboxes = NULL;
static int	dja_nmailboxes = 0;
static int16 *dja_pending_buckets = NULL;	/* index into dja_mailboxes, -1 = none */
static bool dja_announced = false;
static bool dja_drained = false;
static bool dja_scout = false;
static Oid	dja_scout_database;
static bool dja_holding = false;

static void dja_ring(DjaPendingLane *pending);

static void
dja_pending_reset(void)
{
	for (int i = 0; i < dja_nmailboxes; i++)
		dja_pending_buckets[dja_mailboxes[i].bucket] = -1;
	dja_nmailboxes = 0;
	dja_nlanes = 0;
	dja_answers_forget();
	dja_announced = false;
	dja_drained = false;
	dja_scout = dja_holding = false;
}

static int
dja_pending_lane(uint64 type_hash, Oid owner)
{
	DjaPendingLane *lane;

	for (int i = dja_nlanes - 1; i >= 0; i--)
		if (dja_lanes[i].type_hash == type_hash)
			return i;

	if (dja_nlanes == dja_max_lanes)
	{
		int			size = Max(16, 2 * dja_max_lanes);

		dja_lanes = dja_lanes == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(DjaPendingLane) * size) :
			repalloc(dja_lanes, sizeof(DjaPendingLane) * size);
		dja_max_lanes = size;
	}
	lane = &dja_lanes[dja_nlanes];
	memset(lane, 0, sizeof(DjaPendingLane));
	lane->type_hash = type_hash;
	lane->owner = owner;
	lane->lane = -1;
	lane->next_due = DJA_NEVER;
	return dja_nlanes++;
}

static DjaPendingLane *
dja_lane_entry(uint64 type_hash, Oid owner)
{
	int			i = dja_pending_lane(type_hash, owner);	/* may move the array */

	return &dja_lanes[i];
}

/*
 * The entry of a mailbox, made if there is room; NULL without.
 */
static DjaPendingMailbox *
dja_pending_find(DjaType *type, uint64 key_hash, bool create)
{
	int			lane = dja_pending_lane(type->hash, type->owner);
	int			bucket = (int) ((key_hash ^ (uint64) lane) % DJA_PENDING_BUCKETS);
	DjaPendingMailbox *mailbox;

	if (dja_pending_buckets == NULL)
	{
		dja_mailboxes = MemoryContextAlloc(TopMemoryContext,
										   sizeof(DjaPendingMailbox) * DJA_MAX_PENDING);
		dja_pending_buckets = MemoryContextAlloc(TopMemoryContext,
												 sizeof(int16) * DJA_PENDING_BUCKETS);
		memset(dja_pending_buckets, -1, sizeof(int16) * DJA_PENDING_BUCKETS);
	}
	for (; dja_pending_buckets[bucket] >= 0; bucket = (bucket + 1) % DJA_PENDING_BUCKETS)
	{
		mailbox = &dja_mailboxes[dja_pending_buckets[bucket]];
		if (mailbox->key_hash == key_hash && mailbox->lane == lane)
			return mailbox;
	}
	if (!create || dja_nmailboxes == DJA_MAX_PENDING)
		return NULL;

	mailbox = &dja_mailboxes[dja_nmailboxes];
	mailbox->key_hash = key_hash;
	mailbox->position = DJA_CURSOR_END;
	mailbox->lane = lane;
	mailbox->mailbox = -1;
	mailbox->count = 0;
	mailbox->base_depth = -1;
	mailbox->bucket = bucket;
	dja_pending_buckets[bucket] = (int16) dja_nmailboxes++;
	return mailbox;
}

/*
 * Has the whole lane swept.
 */
static void
dja_pending_sweep(DjaType *type)
{
	dja_lane_entry(type->hash, type->owner)->sweep = true;
}

/*
 * Notes messages for a mailbox; position is the lowest of them.
 */
void
dja_pending_mailbox(DjaType *type, uint64 key_hash, int64 position, int count)
{
	DjaPendingMailbox *mailbox = dja_pending_find(type, key_hash, true);

	if (mailbox == NULL)
	{
		dja_pending_sweep(type);
		return;
	}
	mailbox->count += count;
	if (position < mailbox->position)
		mailbox->position = position;
}

/*
 * Notes a delayed message.
 */
void
dja_pending_due(DjaType *type, TimestampTz due)
{
	DjaPendingLane *lane = dja_lane_entry(type->hash, type->owner);

	lane->next_due = Min(lane->next_due, due);
}

/*
 * Notes that a type was defined, changed or dropped.  What became of it is
 * read from the table before the commit: savepoints may undo some of it.
 */
void
dja_pending_type(uint64 type_hash, Oid owner)
{
	dja_lane_entry(type_hash, owner)->changed = true;
}

/*
 * How many messages of this transaction are on their way to a mailbox, and
 * what was counted there before them (-1 = not yet).
 */
int
dja_pending_count(DjaType *type, uint64 key_hash, int *base_depth)
{
	DjaPendingMailbox *mailbox = dja_pending_find(type, key_hash, false);

	*base_depth = mailbox ? mailbox->base_depth : -1;
	return mailbox ? mailbox->count : 0;
}

void
dja_pending_set_base_depth(DjaType *type, uint64 key_hash, int base_depth)
{
	DjaPendingMailbox *mailbox = dja_pending_find(type, key_hash, true);

	if (mailbox != NULL)
		mailbox->base_depth = base_depth;
}

/*
 * Has this transaction sent anything yet?
 */
bool
dja_pending_any(void)
{
	return dja_nlanes > 0;
}

/*
 * This transaction holds claims of its own, which end with it.
 */
void
dja_pending_drained(void)
{
	dja_drained = true;
}

/*
 * The launcher is to send a scout to a database, or to all of them
 * (InvalidOid), once this has committed.
 */
void
dja_pending_scout(Oid database)
{
	if (dja_scout && dja_scout_database != database)
		database = InvalidOid;	/* more than one: to all */
	dja_scout = true;
	dja_scout_database = database;
}

/*
 * Keeps workers out of a lane until this transaction ends, and waits for those
 * that are in it: for the end of their batch, or of a handler, or of the
 * caller's patience.
 */
void
dja_pending_stop_lane(DjaType *type)
{
	static uint32 wait_event = 0;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_STOP_WAIT_MS);
	int			i = dja_pending_lane(type->hash, type->owner);

	for (;;)
	{
		bool		busy = false;

		dja_lock();
		dja_lanes[i].lane = dja_ensure_lane(MyDatabaseId, type->hash, type->owner);
		if (dja_lanes[i].lane >= 0)
		{
			DjaLane    *lane = dja_lane(dja_lanes[i].lane);

			dja_lanes[i].stopped = lane->blocked = true;
			lane->recheck_at = DJA_NEVER;
			lane->sweep_wanted = true;
			busy = dja_lane_busy(dja_lanes[i].lane);
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
						 DJA_WAIT_EVENT(wait_event, "DjactorStopLane"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * The transaction came to nothing: lanes that it had stopped start again, and
 * so do those that somebody blocked on the word of its changes, such as a turn
 * after a pause() in the same transaction.
 */
static void
dja_start_lanes(void)
{
	for (int i = 0; i < dja_nlanes; i++)
	{
		DjaPendingLane *pending = &dja_lanes[i];

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

/*
 * This transaction holds databases, until it ends.
 */
void
dja_pending_hold(void)
{
	dja_holding = true;
}

int
dja_ensure_lane(Oid database, uint64 type_hash, Oid owner)
{
	int			lane = dja_lane_find(database, type_hash);
	int			pool;

	if (lane >= 0)
		return lane;
	pool = dja_pool_find(database, owner, true);
	return pool < 0 ? -1 : dja_lane_create(database, type_hash, pool);
}

/* ---------- at the end of the transaction ---------- */

/*
 * What has become of the types that this transaction was about to change?
 */
static void
dja_read_changes(void)
{
	bool		fresh = false;

	for (int i = 0; i < dja_nlanes; i++)
	{
		DjaPendingLane *pending = &dja_lanes[i];
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
		pending->solo = type->batch_size == 1 ||
			(dja_handler_resolve(type, &problem) != NULL && type->call->solo);
	}
}

static void
dja_announce(void)
{
	bool		notify = false;
	bool		full = false;

	dja_read_changes();
	dja_lock();
	for (int i = 0; i < dja_nlanes && !full; i++)
	{
		DjaPendingLane *pending = &dja_lanes[i];
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
		for (int i = 0; i < dja_nlanes; i++)
			if (dja_lanes[i].sweep)
				dja_lane(dja_lanes[i].lane)->floods++;
		for (int i = 0; i < dja_nmailboxes; i++)
		{
			DjaPendingMailbox *mailbox = &dja_mailboxes[i];

			mailbox->mailbox = dja_queue_announce(dja_lanes[mailbox->lane].lane,
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
	if (notify)
		Async_Notify("djactor", "");
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
	dja_lane(pending->lane)->solo = pending->solo;
	/*
	 * made before the commit; should it be gone, the old pool's worker moves
	 * the lane
	 */
	pool = dja_pool_find(MyDatabaseId, pending->owner, true);
	if (pool >= 0)
		dja_lane_move(pending->lane, pool);
	dja_lane_unblock(pending->lane);
}

/*
 * After the commit, or after an abort that came between announcing and
 * committing.
 */
static void
dja_deliver(bool committed)
{
	dja_lock();
	for (int i = 0; i < dja_nlanes; i++)
		if (dja_lanes[i].sweep)
			dja_queue_push(dja_lanes[i].lane, -1, 0, 0, -1, -1);
	for (int i = 0; i < dja_nmailboxes; i++)
	{
		DjaPendingMailbox *mailbox = &dja_mailboxes[i];

		dja_queue_push(dja_lanes[mailbox->lane].lane, mailbox->mailbox, mailbox->key_hash,
					   mailbox->position,
					   committed && mailbox->base_depth >= 0 ? mailbox->count : -1,
					   mailbox->base_depth);
		if ((i + 1) % DJA_PUSHES_PER_LOCK == 0)
		{
			dja_unlock();
			dja_lock();
		}
	}
	for (int i = 0; i < dja_nlanes; i++)
	{
		DjaPendingLane *pending = &dja_lanes[i];

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
	if (!dja_holding)
		return;
	dja_lock();
	dja_release_holds();
	dja_unlock();
	dja_ring_launcher();
}

static void
dja_pending_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (dja_nlanes > 0)
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
			if (dja_drained)
				dja_release_claims();
			dja_end_holds();
			if (dja_scout && event == XACT_EVENT_COMMIT)
				dja_ring_scout(dja_scout_database);
			dja_pending_reset();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (dja_drained)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has called djactor.drain()")));
			for (int i = 0; i < dja_nlanes; i++)
				if (dja_lanes[i].changed)
					ereport(ERROR,
							(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							 errmsg("cannot PREPARE a transaction that has changed an actor type")));
			break;
		case XACT_EVENT_PREPARE:
			dja_start_lanes();
			dja_end_holds();
			dja_pending_reset();
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

void
dja_pending_init(void)
{
	RegisterXactCallback(dja_pending_xact_callback, NULL);
	dja_answers_init();
}
