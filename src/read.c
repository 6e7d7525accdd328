/*
 * read.c
 *
 * Reads claimed mailboxes for a batch, under a snapshot taken after the
 * claims, and finds out whether their type can be run at all.
 *
 * The mailboxes are looked up in the index one after the other, and then the
 * rows of all of them fetched in the order of their pages: what was sent at the
 * same time to many actors lies side by side in the table.
 */
#include "postgres.h"

#include "clock.h"
#include "compat.h"
#include "pending.h"
#include "run.h"
#include "slots.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define DJA_READ_BYTES ((Size) 16 * 1024 * 1024)	/* of one mailbox at a
													 * time */
#define DJA_READ_ENTRIES 4096	/* index entries at a time */
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
			dja_lane_free(run->lane);	/* no room; the next sender tries
										 * again */
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
	if (run->type == NULL || !dja_types_know(run->epoch))
	{
		dja_types_reload();
		run->type = dja_type_by_hash(run->type_hash);
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

/* An index entry: where its row is, and which one it was. */
typedef struct DjaEntry
{
	uint64		place;
	int			nth;
} DjaEntry;

#define ST_SORT dja_sort_entries
#define ST_ELEMENT_TYPE DjaEntry
#define ST_COMPARE(a, b) ((a)->place < (b)->place ? -1 : (a)->place > (b)->place)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* The runs that are read together. */
typedef struct DjaReading
{
	DjaScan		scan;
	DjaEntry   *entries;		/* of all runs, in their order */
	int			nentries;
	int			size;
	DjaMessage **messages;		/* one for each entry, NULL if its row is not
								 * visible */
	bool	   *dead;			/* to everybody, so is the entry */
} DjaReading;

/*
 * Takes a message into a run; false if the run ends before it.
 */
static bool
dja_run_take(DjaRun *run, DjaMessage *message, TimestampTz now)
{
	run->cursor = message->position;
	if (!dja_type_is_named(run->type, DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1])))
		return true;			/* same hash, other type */
	if (message->retry_at > now)
	{
		run->end = DJA_END_HELD;
		return false;
	}
	run->messages[run->nmessages++] = message;
	run->cursor++;
	return true;
}

/*
 * Reads a run row by row: past any number of entries whose rows are not to be
 * seen, getting rid of those that are dead.
 */
static void
dja_run_read(DjaReading *reading, DjaRun *run, TimestampTz now)
{
	int			size = 16;
	Size		bytes = 0;
	DjaMessage *message;

	run->messages = palloc(sizeof(DjaMessage *) * size);
	run->end = DJA_END_REMAINING;
	dja_mailbox_scan_start(&reading->scan, run->type_hash, run->key_hash, run->cursor);
	while (run->nmessages < run->quota && bytes <= DJA_READ_BYTES)
	{
		if (!dja_scan_next(&reading->scan))
		{
			run->end = DJA_END_DRAINED;
			break;
		}
		if (run->nmessages == size)
		{
			size *= 2;
			run->messages = repalloc(run->messages, sizeof(DjaMessage *) * size);
		}
		message = dja_scan_message(&reading->scan);
		if (!dja_run_take(run, message, now))
			break;
		bytes += sizeof(DjaMessage) +
			VARSIZE_ANY(DatumGetPointer(message->values[DJA_MSG_PAYLOAD - 1]));
	}
}

/*
 * Notes what the index says of a run.
 */
static void
dja_run_look_up(DjaReading *reading, DjaRun *run)
{
	ItemPointerData tid;

	run->first_entry = reading->nentries;
	dja_mailbox_scan_start(&reading->scan, run->type_hash, run->key_hash, run->cursor);
	while (reading->nentries - run->first_entry < run->quota &&
		   dja_scan_next_entry(&reading->scan, &tid))
	{
		DjaEntry   *entry;

		if (reading->nentries == reading->size)
		{
			reading->size *= 2;
			reading->entries = repalloc(reading->entries, sizeof(DjaEntry) * reading->size);
		}
		entry = &reading->entries[reading->nentries];
		entry->place = dja_place_of(&tid);
		entry->nth = reading->nentries++;
	}
	run->nentries = reading->nentries - run->first_entry;
}

/*
 * Fetches the rows of all entries, page by page.
 */
static void
dja_fetch_entries(DjaReading *reading)
{
	reading->messages = palloc0(sizeof(DjaMessage *) * Max(reading->nentries, 1));
	reading->dead = palloc0(sizeof(bool) * Max(reading->nentries, 1));
	dja_sort_entries(reading->entries, reading->nentries);
	for (int i = 0; i < reading->nentries; i++)
	{
		DjaEntry   *entry = &reading->entries[i];
		ItemPointerData tid;

		CHECK_FOR_INTERRUPTS();
		dja_place_tid(entry->place, &tid);
		if (dja_scan_fetch(&reading->scan, tid, &reading->dead[entry->nth]))
			reading->messages[entry->nth] = dja_scan_message(&reading->scan);
	}
}

/*
 * Hands a run its messages; false if it has to be read row by row.
 */
static bool
dja_run_receive(DjaReading *reading, DjaRun *run, TimestampTz now)
{
	DjaMessage **found = &reading->messages[run->first_entry];
	bool		full = run->nentries >= run->quota;

	for (int i = 0; i < run->nentries; i++)
		if (found[i] == NULL && (full || reading->dead[run->first_entry + i]))
			return false;
	run->end = full ? DJA_END_REMAINING : DJA_END_DRAINED;
	run->messages = found;		/* none is overtaken by what is put in its
								 * place */
	for (int i = 0; i < run->nentries; i++)
		if (found[i] != NULL && !dja_run_take(run, found[i], now))
			break;
	return true;
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
	DjaReading	reading = {.size = 1024};

	/* the snapshot comes after the claims and before the cursors */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	dja_lock();
	for (int i = first; i < batch->nruns; i++)
	{
		DjaRun	   *run = batch->runs[i];

		run->epoch = dja_lane(run->lane)->epoch;
		/* what the transaction has sent itself is in no cursor */
		run->start = !batch->own_transaction ? DJA_CURSOR_START :
			Min(dja_queue_read_cursor(run->mailbox),
				dja_pending_position(run->type_hash, run->key_hash));
		run->cursor = run->start;
	}
	dja_unlock();

	reading.entries = palloc(sizeof(DjaEntry) * reading.size);
	quota = Min(quota, Max(1, DJA_READ_ENTRIES / Max(1, batch->nruns - first)));
	dja_mailbox_scan_begin(&reading.scan, snapshot);
	for (int i = first; i < batch->nruns; i++)
	{
		DjaRun	   *run = batch->runs[i];

		run->quota = dja_run_resolve(batch, run) ? Min(quota, dja_type_quota(batch, run->type)) : 0;
		if (run->quota > 0)
			dja_run_look_up(&reading, run);
	}
	dja_fetch_entries(&reading);
	for (int i = first; i < batch->nruns; i++)
	{
		DjaRun	   *run = batch->runs[i];

		if (run->quota > 0 && !dja_run_receive(&reading, run, now))
			dja_run_read(&reading, run, now);
	}
	dja_scan_end(&reading.scan);
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
}

/*
 * Is there mail below where this run was read from that its actor did not take
 * then, and may take now?  Whoever lets an actor go has its mailbox, or the
 * lane, read from the start: the present transaction, which says so only at its
 * end, or another, which has said so before a snapshot could see it.
 */
static bool
dja_run_passed_over(DjaRun *run)
{
	bool		passed_over;

	if (run->start == DJA_CURSOR_START)
		return false;
	if (dja_pending_position(run->type_hash, run->key_hash) == DJA_CURSOR_START)
		return true;
	dja_lock();
	passed_over = dja_queue_read_cursor(run->mailbox) == DJA_CURSOR_START;
	dja_unlock();
	return passed_over;
}

/*
 * The actor of a message, read when its first message comes up: under a later
 * snapshot than the mailbox, so that a batch that takes long does not fail for
 * states that were changed by hand meanwhile.  If the actor may have waited
 * when the mailbox was read, that is to be read anew.
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
	run->reread |= dja_run_passed_over(run);
	MemoryContextSwitchTo(old);
	return actor;
}
