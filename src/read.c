/*
 * read.c
 *
 * Reads claimed mailboxes for a batch, under a snapshot taken after the
 * claims, and finds out whether their type can be run at all.
 */
#include "postgres.h"

#include "clock.h"
#include "compat.h"
#include "run.h"
#include "slots.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define DJA_READ_BYTES (16 * 1024 * 1024)	/* of one mailbox at a time */
#define DJA_RECHECK_MS 1000		/* a handler that cannot be called */

/*
 * Nothing of this lane can run now: let nobody pop from it until its type
 * changes, or until recheck_at.
 */
static void
dja_run_block(DjaRun *run, TimestampTz recheck_at)
{
	run->end = DJA_END_DROPPED;
	dja_lock();
	dja_lane_block(run->lane, run->epoch, recheck_at);
	dja_unlock();
}

/*
 * The type belongs to somebody else, be it that its owner has changed or that
 * a sender did not know yet: its lane goes to that role's workers.
 */
static void
dja_run_move(DjaRun *run)
{
	int			pool;

	dja_lock();
	pool = dja_pool_find(MyDatabaseId, run->type->owner, true);
	if (dja_lane(run->lane)->in_use && dja_lane(run->lane)->epoch == run->epoch)
	{
		if (pool < 0)
			dja_lane_free(run->lane);	/* no room; the next sender tries again */
		else
			dja_lane_move(run->lane, pool);
	}
	run->end = DJA_END_REMAINING;	/* whoever gives it back rings there */
	dja_unlock();
}

/*
 * Can this run's type be run now?
 */
bool
dja_run_resolve(DjaBatch *batch, DjaRun *run)
{
	char	   *problem = NULL;

	run->type = dja_type_by_hash(run->type_hash);
	if (run->type == NULL || run->type->lane_epoch != run->epoch)
	{
		/* the lane hears of a change a moment before the invalidation comes */
		dja_types_reload();
		run->type = dja_type_by_hash(run->type_hash);
		if (run->type != NULL)
			run->type->lane_epoch = run->epoch;
	}
	run->generation = run->type ? run->type->generation : 0;
	if (run->type == NULL)
	{
		/*
		 * never committed, or dropped: whoever defines it makes the lane anew
		 */
		run->end = DJA_END_DROPPED;
		dja_lock();
		if (dja_lane(run->lane)->in_use && dja_lane(run->lane)->epoch == run->epoch)
			dja_lane_free(run->lane);
		dja_unlock();
		return false;
	}
	if (run->type->owner != GetUserId())
	{
		run->end = DJA_END_DROPPED;
		if (batch->own_transaction)
			dja_run_move(run);
		return false;
	}
	if (run->type->paused && dja_type_paused_now(run->type))
	{
		dja_run_block(run, DJA_NEVER);
		return false;
	}
	if (dja_handler_resolve(run->type, &problem) == NULL)
	{
		if (!batch->own_transaction)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("mail of actor type \"%s\" cannot be handled", run->type->name),
					 errdetail_internal("%s", problem)));
		if (run->type->problem == NULL || strcmp(run->type->problem, problem) != 0)
		{
			ereport(WARNING,
					(errmsg("mail of actor type \"%s\" waits: %s", run->type->name, problem),
					 errhint("It is handled as soon as the handler can be called again.")));
			dja_type_set_problem(run->type, problem);
		}
		dja_run_block(run, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_RECHECK_MS));
		return false;
	}
	if (run->type->problem != NULL && batch->own_transaction)
		dja_type_set_problem(run->type, NULL);
	return true;
}

/*
 * Reads the messages of one run, and says how the run ends once they are
 * handled.
 */
static void
dja_run_read(DjaRun *run, DjaScan *scan, int quota, TimestampTz now)
{
	int			size = 16;
	Size		bytes = 0;

	run->messages = palloc(sizeof(DjaMessage *) * size);
	run->nmessages = 0;
	dja_mailbox_scan_start(scan, run->type_hash, run->key_hash, run->cursor);
	for (;;)
	{
		DjaMessage *message;

		if (run->nmessages >= quota || bytes > DJA_READ_BYTES)
		{
			run->end = DJA_END_REMAINING;
			break;
		}
		if (!dja_scan_next(scan))
		{
			run->end = DJA_END_DRAINED;
			break;
		}
		message = dja_scan_message(scan);
		run->cursor = message->position;
		if (!dja_type_is_named(run->type,
							   DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1])))
			continue;			/* same hash, other type */
		if (message->retry_at > now)
		{
			run->end = DJA_END_HELD;
			break;
		}
		if (run->nmessages == size)
		{
			size *= 2;
			run->messages = repalloc(run->messages, sizeof(DjaMessage *) * size);
		}
		run->messages[run->nmessages++] = message;
		bytes += sizeof(DjaMessage) +
			VARSIZE_ANY(DatumGetPointer(message->values[DJA_MSG_PAYLOAD - 1]));
		run->cursor++;
	}
}

/*
 * As many messages as a type may have in one transaction.
 */
static int
dja_type_quota(DjaBatch *batch, DjaType *type)
{
	if (!batch->own_transaction)
		return PG_INT32_MAX;
	if (type->call->solo)
		return 1;
	return type->batch_size > 0 ? type->batch_size : PG_INT32_MAX;
}

/*
 * Reads the runs from first on, up to quota messages each.
 */
void
dja_batch_read(DjaBatch *batch, int first, int quota)
{
	MemoryContext old = MemoryContextSwitchTo(batch->attempt);
	TimestampTz now = dja_clock();
	Snapshot	snapshot;
	DjaScan		scan;

	/* the snapshot comes after the claims and before the cursors */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	dja_lock();
	for (int i = first; i < batch->nruns; i++)
	{
		batch->runs[i]->epoch = dja_lane(batch->runs[i]->lane)->epoch;
		/* what the caller's own transaction has sent is in no cursor */
		batch->runs[i]->cursor = batch->own_transaction ?
			dja_queue_read_cursor(batch->runs[i]->mailbox) : DJA_CURSOR_START;
	}
	dja_unlock();

	dja_mailbox_scan_begin(&scan, snapshot);
	for (int i = first; i < batch->nruns; i++)
		if (dja_run_resolve(batch, batch->runs[i]))
			dja_run_read(batch->runs[i], &scan,
						 Min(quota, dja_type_quota(batch, batch->runs[i]->type)), now);
	dja_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
}

/*
 * The actor of a message, read when its first message comes up.
 */
DjaActor *
dja_run_actor(DjaBatch *batch, DjaRun *run, text *key)
{
	MemoryContext old;
	Snapshot	snapshot;
	DjaActor   *actor;

	for (actor = run->actors; actor != NULL; actor = actor->next)
		if (dja_text_equal(actor->key, key))
			return actor;

	old = MemoryContextSwitchTo(batch->attempt);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	actor = dja_actor_read(batch->actors->rel, batch->actor_blocks, batch->actor_slot,
						   run->type, key, run->key_hash, snapshot);
	UnregisterSnapshot(snapshot);
	actor->next = run->actors;
	run->actors = actor;
	MemoryContextSwitchTo(old);
	return actor;
}
