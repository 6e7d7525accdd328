/*
 * read.c
 *
 * Reads a claimed mailbox for a batch, under a snapshot taken after the claim, and
 * finds out whether its type can be run at all.
 *
 * A message whose row somebody else has locked, or is deleting, ends what is read: the
 * mailbox is put off before any handler is called for it.
 */
#include "postgres.h"

#include "clock.h"
#include "compat.h"
#include "guc.h"
#include "pending.h"
#include "run.h"
#include "slots.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define DJA_READ_BYTES ((Size) 16 * 1024 * 1024)	/* of one mailbox at a
													 * time */
#define DJA_READ_ENTRIES 4096	/* index entries at a time */
#define DJA_VISIT_MESSAGES 64	/* while other mailboxes wait */
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

/* A mailbox that is being read. */
typedef struct DjaReading
{
	DjaScan		scan;
	DjaEntry   *entries;
	int			nentries;
	DjaMessage **messages;		/* one for each entry, NULL if its row is not
								 * visible */
	bool	   *dead;			/* to everybody, so is the entry */
} DjaReading;

/*
 * Takes a message into a run; false if the run ends before it.
 */
static bool
dja_run_take(DjaBatch *batch, DjaRun *run, DjaMessage *message, TimestampTz now)
{
	run->cursor = message->position;
	if (!dja_type_is_named(run->type, DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1])))
		return true;			/* same hash, other type */
	if (message->retry_at > now)
	{
		run->end = DJA_END_HELD;
		run->first = message->tid;
		return false;
	}
	if (batch->own_transaction && TransactionIdIsValid(message->locker))
	{
		dja_run_put_off(batch, run, message->key, message->locker);
		return false;
	}
	if (run->nmessages == run->max_messages)
	{
		run->max_messages = Max(run->quota, 2 * run->max_messages);
		run->messages = run->messages == NULL ?
			palloc(sizeof(DjaMessage *) * run->max_messages) :
			repalloc(run->messages, sizeof(DjaMessage *) * run->max_messages);
	}
	run->messages[run->nmessages++] = message;
	run->cursor++;
	return true;
}

/*
 * Reads row by row: past any number of entries whose rows are not to be seen,
 * getting rid of those that are dead.
 */
static void
dja_read_rows(DjaBatch *batch, DjaReading *reading, DjaRun *run, TimestampTz now)
{
	Size		bytes = 0;
	int			full = run->nmessages + run->quota;

	run->end = DJA_END_REMAINING;
	dja_mailbox_scan_start(&reading->scan, run->type_hash, run->key_hash, run->cursor);
	while (run->nmessages < full && bytes <= DJA_READ_BYTES)
	{
		DjaMessage *message;

		if (!dja_scan_next(&reading->scan))
		{
			run->end = DJA_END_DRAINED;
			break;
		}
		message = dja_scan_message(&reading->scan);
		if (!dja_run_take(batch, run, message, now))
			break;
		bytes += sizeof(DjaMessage) +
			VARSIZE_ANY(DatumGetPointer(message->values[DJA_MSG_PAYLOAD - 1]));
	}
}

/*
 * Notes what the index says, and fetches the rows page by page.
 */
static void
dja_read_entries(DjaReading *reading, DjaRun *run)
{
	ItemPointerData tid;

	reading->entries = palloc(sizeof(DjaEntry) * run->quota);
	reading->nentries = 0;
	dja_mailbox_scan_start(&reading->scan, run->type_hash, run->key_hash, run->cursor);
	while (reading->nentries < run->quota && dja_scan_next_entry(&reading->scan, &tid))
	{
		reading->entries[reading->nentries].place = dja_place_of(&tid);
		reading->entries[reading->nentries].nth = reading->nentries;
		reading->nentries++;
	}

	reading->messages = palloc0(sizeof(DjaMessage *) * Max(reading->nentries, 1));
	reading->dead = palloc0(sizeof(bool) * Max(reading->nentries, 1));
	dja_sort_entries(reading->entries, reading->nentries);
	for (int i = 0; i < reading->nentries; i++)
	{
		DjaEntry   *entry = &reading->entries[i];

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
dja_run_receive(DjaBatch *batch, DjaReading *reading, DjaRun *run, TimestampTz now)
{
	bool		full = reading->nentries >= run->quota;

	for (int i = 0; i < reading->nentries; i++)
		if (reading->messages[i] == NULL && (full || reading->dead[i]))
			return false;
	run->end = full ? DJA_END_REMAINING : DJA_END_DRAINED;
	for (int i = 0; i < reading->nentries; i++)
		if (reading->messages[i] != NULL && !dja_run_take(batch, run, reading->messages[i], now))
			break;
	return true;
}

/*
 * Where to read a mailbox from, under a snapshot that was taken since its claim.
 * What the transaction has sent itself is in no cursor.  Tells also whether other
 * mailboxes of the type wait.
 */
static int64
dja_run_lowest(DjaBatch *batch, DjaRun *run, bool *others_wait)
{
	int64		lowest;

	dja_lock();
	run->epoch = dja_lane(run->lane)->epoch;
	*others_wait = dja_lane(run->lane)->queued > 0;
	lowest = dja_queue_read_cursor(run->mailbox);
	dja_unlock();
	if (!batch->own_transaction)
		return run->start;		/* drain() knows */
	return Min(lowest, dja_pending_position(run->type_hash, run->key_hash));
}

/*
 * Takes the message at the cursor, if its row is known; false if the run ends
 * before it.
 */
static bool
dja_read_first(DjaBatch *batch, DjaReading *reading, DjaRun *run, TimestampTz now)
{
	DjaMessage *message;
	bool		dead;

	if (!ItemPointerIsValid(&run->first) || !dja_scan_fetch(&reading->scan, run->first, &dead))
		return true;
	message = dja_scan_message(&reading->scan);
	if (message->position != run->cursor || !message->nulls[DJA_MSG_ASIDE - 1] ||
		dja_hash_text(message->key) != run->key_hash)
		return true;
	return dja_run_take(batch, run, message, now);
}

/*
 * Reads the messages of a run whose cursor says from where on.
 */
static void
dja_run_fetch(DjaBatch *batch, DjaRun *run, Snapshot snapshot)
{
	TimestampTz now = dja_clock();
	DjaReading	reading;

	dja_mailbox_scan_begin(&reading.scan, snapshot);
	if (dja_read_first(batch, &reading, run, now))
	{
		dja_read_entries(&reading, run);
		if (!dja_run_receive(batch, &reading, run, now))
			dja_read_rows(batch, &reading, run, now);
	}
	run->read_end = run->end;
	run->read_cursor = run->cursor;
	dja_scan_end(&reading.scan);
}

/*
 * As many messages as are worth reading: what the batch may still have, and no more
 * than there is time for, which is a moment where other mailboxes wait.
 */
static int
dja_run_quota(DjaBatch *batch, DjaRun *run, bool others_wait)
{
	int			quota = batch->budget;
	int64		usec = others_wait ? DJA_VISIT_USEC : (int64) dja_batch_time * 1000;

	if (batch->own_transaction && others_wait)
		quota = Min(quota, DJA_VISIT_MESSAGES);
	if (batch->own_transaction && run->type->turn_usec > 0)
		quota = (int) Min(quota, usec / run->type->turn_usec + 1);
	return Max(1, Min(quota, DJA_READ_ENTRIES));
}

/*
 * Reads a mailbox that has just been claimed.
 */
void
dja_run_read(DjaBatch *batch, DjaRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(batch->attempt);
	Snapshot	snapshot;
	bool		others_wait;

	/* the snapshot comes after the claim and before the cursor */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	run->start = run->cursor = dja_run_lowest(batch, run, &others_wait);
	run->was_read = true;
	if (dja_run_resolve(batch, run))
	{
		run->quota = dja_run_quota(batch, run, others_wait);
		dja_run_fetch(batch, run, snapshot);
	}
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
	run->reread |= batch->own_transaction && dja_run_passed_over(run);
	MemoryContextSwitchTo(old);
	return actor;
}
