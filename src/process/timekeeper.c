/*
 * timekeeper.c
 *
 * The resident's other duties; see timekeeper.h.  Each function does a piece of
 * work in a transaction of its own and returns, so that mail never waits for long.
 * The type queue notes what is left.
 *
 * A sweep walks over the mailbox index from key to key, without reading messages.
 * It pushes a thousand mailboxes at a time, in the order of their lowest positions.
 *
 * type_queue.next_due says when the next delay or retry ends.  Everything in the
 * due index before that moment has been handled.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "process/timekeeper.h"
#include "process/worker_xact.h"
#include "shmem/hosts.h"
#include "shmem/room.h"
#include "shmem/run_queue.h"
#include "tables/catalog.h"
#include "tables/message.h"
#include "turn/reply.h"
#include "xact/deliver.h"
#include "xact/pending.h"

#define DJA_SWEEP_CHUNK 1024	/* mailboxes in a transaction */
#define DJA_PUSH_CHUNK 64		/* mailboxes under the lock */
#define DJA_DUE_CHUNK 1000		/* messages in a transaction */
#define DJA_AGAIN_MS 1000		/* after a failure */

/*
 * A copy of a type queue's state, for work outside the lock.
 */
typedef struct DjaTypeQueueWork
{
	int			type_queue;
	uint64		type_hash;
	bool		begins;			/* the sweep */
	DjaSweepPoint sweep_at;
	bool		sweep_wrapped;
	uint64		sweep_until;	/* if so: the last key hash */
	TimestampTz from;
	TimestampTz next;
	bool		again;			/* some of it has to be tried again */
	int			seen;			/* rows in this pass */
	int			released;
} DjaTypeQueueWork;

static bool
dja_same_type_queue(DjaTypeQueueWork *work)
{
	DjaTypeQueue *type_queue = dja_type_queue(work->type_queue);

	dja_assert_locked();
	return type_queue->in_use && type_queue->database == MyDatabaseId && type_queue->type_hash == work->type_hash;
}

/* ---------- sweeps ---------- */

/* A mailbox that the sweep has found. */
typedef struct DjaSwept
{
	uint64		key_hash;
	int64		position;		/* the lowest in it */
	uint64		tenant_value;	/* 0 = not known */
} DjaSwept;

#define ST_SORT dja_sort_swept
#define ST_ELEMENT_TYPE DjaSwept
#define ST_COMPARE(a, b) ((a)->position < (b)->position ? -1 : (a)->position > (b)->position)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * Pushes the mailboxes that a sweep has found, the longest waiting first.  If there is not
 * room for all, the others are left to the next sweep; then they go in the order of keys, and
 * the next sweep knows where to go on.  Returns false if the type queue is another one by
 * now.
 */
static bool
dja_push_swept(DjaTypeQueueWork *work, DjaSwept *swept, int n)
{
	DjaSweepPoint at = work->sweep_at;
	bool		same = true;
	bool		all_fit;

	dja_lock();
	all_fit = dja_room(work->type_queue, 0) >= n;
	dja_unlock();
	if (all_fit)
		dja_sort_swept(swept, n);
	for (int i = 0; i < n && same; i += DJA_PUSH_CHUNK)
	{
		dja_lock();
		same = dja_same_type_queue(work);
		for (int j = i; same && j < Min(i + DJA_PUSH_CHUNK, n); j++)
		{
			if (dja_room(work->type_queue, swept[j].tenant_value) > 0)
				dja_queue_push(work->type_queue, DJA_NOT_ANNOUNCED, swept[j].key_hash,
							   swept[j].position, DJA_NOT_COUNTED, DJA_NOT_COUNTED, swept[j].tenant_value);
			else
				dja_sweep_refused(work->type_queue, at);
			if (!all_fit)
			{
				at.behind = true;
				at.key_hash = swept[j].key_hash;
			}
		}
		dja_unlock();
	}
	return same;
}

/*
 * Returns the tenant value of the message that the sweep stands at, 0 if its row is not
 * visible.
 */
static uint64
dja_swept_tenant(DjaScan *scan, DjaType *type, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	uint64		value = 0;
	bool		dead;

	if (dja_scan_fetch(scan, scan->find.scan->xs_heaptid, &dead))
	{
		DjaMessage *message = dja_scan_message(scan);

		value = dja_tenant_value(&type->by, message->values, message->nulls);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
	return value;
}

static void
dja_sweep_step(void *arg)
{
	DjaTypeQueueWork *work = (DjaTypeQueueWork *) arg;
	DjaSwept   *swept = palloc(sizeof(DjaSwept) * DJA_SWEEP_CHUNK);
	bool		more = true;
	TimestampTz began = GetCurrentTimestamp();
	int			max;
	int			n = 0;
	DjaType    *type = dja_type_by_hash(work->type_hash);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor sweep",
												  ALLOCSET_SMALL_SIZES);
	DjaScan		scan;
	DjaSweepPoint at = work->sweep_at;

	if (work->begins)
		ereport(DEBUG2, (errmsg_internal("djactor begins a sweep of actor type %s", type ? type->name : "?")));
	dja_lock();
	max = dja_sweep_room(work->type_queue, DJA_SWEEP_CHUNK);
	dja_unlock();
	dja_message_scan_begin(&scan, GetActiveSnapshot());
	while (n < max &&
		   (more = dja_message_scan_skip(&scan, work->type_hash, !at.behind, at.key_hash,
										 &swept[n].key_hash, &swept[n].position)))
	{
		if (work->sweep_wrapped && (int64) swept[n].key_hash > (int64) work->sweep_until)
		{
			more = false;
			break;
		}
		at.behind = true;
		at.key_hash = swept[n].key_hash;
		swept[n].tenant_value = type == NULL || type->by.kind == DJA_BY_NOTHING ? 0 :
			dja_swept_tenant(&scan, type, context);
		n++;
	}
	MemoryContextDelete(context);
	dja_scan_end(&scan);

	if (!dja_push_swept(work, swept, n))
		return;
	dja_lock();
	if (dja_same_type_queue(work))
	{
		DjaTypeQueue *type_queue = dja_type_queue(work->type_queue);

		type_queue->sweep_at = at;
		type_queue->sweep_usec += GetCurrentTimestamp() - began;
		if (!more)
			dja_sweep_ended(work->type_queue, GetCurrentTimestamp());
	}
	dja_unlock();
}

/*
 * Goes on with the sweep of one type queue.  Returns false if none needs one.
 */
bool
dja_sweep(int pool)
{
	static int	last = DJA_NO_TYPE_QUEUE;
	bool		passed = false;
	TimestampTz now = GetCurrentTimestamp();
	DjaTypeQueueWork work = {.type_queue = DJA_NO_TYPE_QUEUE};

	dja_lock();
	/* in turns, so that one which always needs a sweep delays no other */
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
	{
		if (dja_sweep_goes_on(i, now) && (work.type_queue < 0 || passed))
		{
			work.type_queue = i;
			if (passed)
				break;
		}
		passed |= i == last;
	}
	if (work.type_queue >= 0)
	{
		DjaTypeQueue *type_queue = dja_type_queue(work.type_queue);

		work.begins = !type_queue->sweeping;
		dja_sweep_begin(work.type_queue);
		work.type_hash = type_queue->type_hash;
		work.sweep_at = type_queue->sweep_at;
		work.sweep_wrapped = type_queue->sweep_wrapped;
		work.sweep_until = type_queue->sweep_began.key_hash;
		last = work.type_queue;
	}
	dja_unlock();
	return work.type_queue >= 0 && dja_in_transaction(dja_sweep_step, &work);
}

/* ---------- delays and retries ---------- */

/*
 * Handles one row of the due index.  Returns false if the pass ends before it.
 */
static bool
dja_due_message(DjaTypeQueueWork *work, DjaType *type, DjaWriter *writer, DjaMessage *message,
				TimestampTz now)
{
	TimestampTz due = dja_message_due_at(message);
	uint64		key_hash;

	/*
	 * The next pass starts at the moment where this one ends.  Messages that
	 * were released have left the index by then.  If none was, this pass goes
	 * on to a later moment, or the next one would come no further.
	 */
	if (due > now ||
		(work->seen >= DJA_DUE_CHUNK && (work->released > 0 || due > work->next)))
	{
		work->next = due;
		return false;
	}
	work->next = due;
	work->seen++;
	if (!message->nulls[DJA_MSG_ASIDE - 1])
	{
		/* an open ask whose time is over; nothing else aside waits for time */
		if (dja_message_is_aside(message, "deferred") || dja_message_is_aside(message, "duplicate") ||
			dja_message_is_aside(message, "coalesced"))
		{
			TM_Result	result = dja_expire_deferred(message);

			work->again |= result == TM_BeingModified;
			work->released += result == TM_Ok;
		}
		return true;
	}
	if (dja_message_is_delayed(message))
	{
		TM_Result	result = dja_message_release(writer, message);

		/* a locked row is tried again; a changed one is another session's */
		if (result == TM_BeingModified)
			work->again = true;
		if (result != TM_Ok)
			return true;
		work->released++;
	}
	key_hash = dja_hash_text(message->key);
	dja_pending_mailbox(type, key_hash, message->position, 1);
	dja_pending_tenant(type, key_hash, message->values, message->nulls);
	return true;
}

static void
dja_due_step(void *arg)
{
	DjaTypeQueueWork *work = (DjaTypeQueueWork *) arg;
	TimestampTz now = GetCurrentTimestamp();
	DjaType    *type = dja_type_by_hash(work->type_hash);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor due",
												  ALLOCSET_SMALL_SIZES);
	DjaWriter  *writer;
	DjaScan		scan;
	bool		more = true;

	work->next = DJA_NEVER;
	work->again = false;
	work->seen = work->released = 0;
	if (type == NULL)
		return;
	writer = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	dja_due_scan_begin(&scan, work->type_hash, work->from, GetActiveSnapshot());
	while (more && dja_scan_next(&scan))
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		more = dja_due_message(work, type, writer, dja_scan_message(&scan), now);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	if (more)
		work->next = DJA_NEVER;
	dja_scan_end(&scan);
	dja_writer_close(writer);
}

/*
 * Puts the due messages of one type into their mailboxes: of the type that is due
 * the longest.  Returns false if nothing is due.
 */
bool
dja_release_due(int pool)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz longest = now;
	DjaTypeQueueWork work = {.type_queue = DJA_NO_TYPE_QUEUE};

	dja_lock();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);
		TimestampTz due = Max(type_queue->next_due, type_queue->due_not_before);

		if (type_queue->blocked || due > longest || (due == longest && work.type_queue >= 0))
			continue;
		longest = due;
		work.type_queue = i;
	}
	if (work.type_queue >= 0)
	{
		DjaTypeQueue *type_queue = dja_type_queue(work.type_queue);

		work.type_hash = type_queue->type_hash;
		work.from = type_queue->next_due;
		type_queue->next_due = DJA_NEVER;	/* whoever comes meanwhile lowers
											 * it again */
	}
	dja_unlock();
	if (work.type_queue < 0)
		return false;

	if (!dja_in_transaction(dja_due_step, &work))
		work.again = true;
	dja_lock();
	if (dja_same_type_queue(&work))
	{
		DjaTypeQueue *type_queue = dja_type_queue(work.type_queue);

		type_queue->next_due = Min(type_queue->next_due, work.again ? work.from : work.next);
		type_queue->due_not_before = work.again ?
			TimestampTzPlusMilliseconds(now, DJA_AGAIN_MS) : DT_NOBEGIN;
	}
	dja_unlock();
	return true;
}

/* ---------- hosts ---------- */

typedef struct DjaHostsToTell
{
	uint64		type_hash;		/* of the only type; 0 = of several */
	bool		told;
} DjaHostsToTell;

static void
dja_tell_hosts_step(void *arg)
{
	DjaHostsToTell *hosts = (DjaHostsToTell *) arg;

	hosts->told = dja_can_notify();
	if (hosts->told)
		dja_notify_hosts(hosts->type_hash);
}

/*
 * Notifies waiting hosts of mail that no sender could tell them of.
 */
void
dja_tell_hosts(int pool)
{
	DjaHostsToTell hosts = {0};
	int			ntypes = 0;

	dja_lock();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);

		if (type_queue->ring_hosts && !type_queue->hosts_told && type_queue->queued.length > 0 &&
			dja_hosts_wait_for(type_queue))
			hosts.type_hash = ++ntypes == 1 ? type_queue->type_hash : 0;
		type_queue->ring_hosts = false;
	}
	dja_unlock();
	if (ntypes > 0 && !(dja_in_transaction(dja_tell_hosts_step, &hosts) && hosts.told))
		ereport(LOG,
				(errmsg("could not notify the hosts of djactor"),
				 errdetail("They take their mail when they call take() the next time.")));
}

/*
 * Unblocks type queues whose handler could not be called, to try again.
 */
bool
dja_recheck_blocked(int pool)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		any = false;

	dja_lock();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
	{
		if (dja_type_queue(i)->blocked && dja_type_queue(i)->recheck_at <= now)
		{
			dja_type_queue_unblock(i);
			any = true;
		}
	}
	dja_unlock();
	return any;
}
