/*
 * read.c
 *
 * Reads a claimed mailbox for a batch, under a snapshot taken after the claim, and
 * finds out whether its type can be run at all.
 *
 * Reading ends at a message whose row another transaction has locked or is deleting.
 * So its mailbox is put off before any handler is called for it.
 */
#include "postgres.h"

#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/grow.h"
#include "base/guc.h"
#include "shmem/rates.h"
#include "shmem/slots.h"
#include "turn/visit.h"
#include "xact/pending.h"

#define DJA_READ_BYTES ((Size) 16 * 1024 * 1024)	/* of one mailbox at a
													 * time */
#define DJA_READ_ENTRIES 4096	/* index entries at a time */
#define DJA_VISIT_MESSAGES 64	/* while other mailboxes wait */
#define DJA_RECHECK_MS 1000		/* a handler that cannot be called */

/*
 * Blocks a type queue of which nothing can run now, until its type changes or until
 * recheck_at.  Ends the claim.
 */
static void
dja_claim_block(DjaClaim *claim, TimestampTz recheck_at)
{
	claim->end = DJA_END_DROPPED;
	dja_lock();
	dja_type_queue_block(claim->type_queue, claim->epoch, recheck_at);
	dja_unlock();
}

/*
 * Moves a type queue to the pool of another role, which owns the type: the owner has
 * changed, or a sender did not know it yet.  Ends the claim.
 */
static void
dja_claim_move(DjaClaim *claim)
{
	int			pool;

	dja_lock();
	pool = dja_pool_find(MyDatabaseId, claim->type->owner, true);
	if (dja_type_queue(claim->type_queue)->in_use && dja_type_queue(claim->type_queue)->epoch == claim->epoch)
	{
		if (pool < 0)
			dja_type_queue_free(claim->type_queue); /* no room; the next
													 * sender tries again */
		else
			dja_type_queue_move(claim->type_queue, pool);
	}
	claim->end = DJA_END_REMAINING; /* whoever gives it back rings there */
	dja_unlock();
}

/*
 * Leaves a type queue to hosts, or to workers: its type was redefined, or a sender
 * did not know it yet.  Ends the claim.
 */
static void
dja_claim_hand_over(DjaClaim *claim)
{
	claim->end = DJA_END_RETURNED;
	dja_lock();
	if (dja_type_queue(claim->type_queue)->in_use && dja_type_queue(claim->type_queue)->epoch == claim->epoch)
		dja_type_queue(claim->type_queue)->hosted = claim->type->hosted;
	dja_unlock();
}

/*
 * Looks the type of a claim up, with its handler.  Can it be run now?  If not, sets
 * the claim's end.
 */
bool
dja_claim_resolve(DjaBatch *batch, DjaClaim *claim)
{
	char	   *problem = NULL;

	claim->type = dja_type_by_hash(claim->type_hash);
	if (claim->type == NULL || !dja_types_know(claim->epoch))
	{
		dja_types_reload();
		claim->type = dja_type_by_hash(claim->type_hash);
	}
	claim->generation = claim->type ? claim->type->generation : 0;
	if (claim->type == NULL)
	{
		/*
		 * never committed, or dropped: to define it makes the type queue anew
		 */
		claim->end = DJA_END_DROPPED;
		dja_lock();
		if (dja_type_queue(claim->type_queue)->in_use && dja_type_queue(claim->type_queue)->epoch == claim->epoch)
			dja_type_queue_free(claim->type_queue);
		dja_unlock();
		return false;
	}
	if (claim->type->owner != GetUserId())
	{
		claim->end = DJA_END_DROPPED;
		if (batch->own_transaction)
			dja_claim_move(claim);
		return false;
	}
	if (claim->type->paused && dja_type_paused_now(claim->type))
	{
		dja_claim_block(claim, DJA_NEVER);
		return false;
	}
	if (claim->type->hosted != batch->hosted)
	{
		dja_claim_hand_over(claim);
		return false;
	}
	if (!claim->type->hosted && dja_handler_resolve(claim->type, &problem) == NULL)
	{
		if (!batch->own_transaction)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("mail of actor type \"%s\" cannot be handled", claim->type->name),
					 errdetail_internal("%s", problem)));
		if (claim->type->problem == NULL || strcmp(claim->type->problem, problem) != 0)
		{
			ereport(WARNING,
					(errmsg("mail of actor type \"%s\" waits: %s", claim->type->name, problem),
					 errhint("It is handled as soon as the handler can be called again.")));
			dja_type_set_problem(claim->type, problem);
		}
		dja_claim_block(claim, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_RECHECK_MS));
		return false;
	}
	if (claim->type->problem != NULL && batch->own_transaction)
		dja_type_set_problem(claim->type, NULL);
	return true;
}

/* An index entry: where its row is, and which one it was. */
typedef struct DjaEntry
{
	uint64		row;
	int			nth;
} DjaEntry;

#define ST_SORT dja_sort_entries
#define ST_ELEMENT_TYPE DjaEntry
#define ST_COMPARE(a, b) ((a)->row < (b)->row ? -1 : (a)->row > (b)->row)
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
 * Takes a message into a claim.  Returns false if the claim ends before it.
 */
static bool
dja_claim_take(DjaBatch *batch, DjaClaim *claim, DjaMessage *message, TimestampTz now)
{
	claim->cursor = message->position;
	if (!dja_type_is_named(claim->type, DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1])))
		return true;			/* same hash, other type */
	if (message->retry_at > now)
	{
		claim->end = DJA_END_RETRY;
		claim->first = message->tid;
		return false;
	}
	if (batch->own_transaction && TransactionIdIsValid(message->locker))
	{
		dja_claim_put_off(batch, claim, message->key, message->locker);
		return false;
	}
	claim->messages = dja_grow(batch->memory, claim->messages, sizeof(DjaMessage *),
							   claim->nmessages, &claim->max_messages);
	claim->messages[claim->nmessages++] = message;
	claim->cursor++;
	return true;
}

/*
 * Reads row by row, past any number of entries whose rows are not visible.  Removes
 * those that are dead to everybody.
 */
static void
dja_read_rows(DjaBatch *batch, DjaReading *reading, DjaClaim *claim, TimestampTz now)
{
	Size		bytes = 0;
	int			full = claim->nmessages + claim->quota;

	claim->end = DJA_END_REMAINING;
	dja_message_scan_start(&reading->scan, claim->type_hash, claim->key_hash, claim->cursor);
	while (claim->nmessages < full && bytes <= DJA_READ_BYTES)
	{
		DjaMessage *message;

		if (!dja_scan_next(&reading->scan))
		{
			claim->end = DJA_END_EMPTY;
			break;
		}
		message = dja_scan_message(&reading->scan);
		if (!dja_claim_take(batch, claim, message, now))
			break;
		bytes += sizeof(DjaMessage) +
			VARSIZE_ANY(DatumGetPointer(message->values[DJA_MSG_PAYLOAD - 1]));
	}
}

/*
 * Collects entries of the index, and fetches their rows page by page.
 */
static void
dja_read_entries(DjaReading *reading, DjaClaim *claim)
{
	ItemPointerData tid;

	reading->entries = palloc(sizeof(DjaEntry) * claim->quota);
	reading->nentries = 0;
	dja_message_scan_start(&reading->scan, claim->type_hash, claim->key_hash, claim->cursor);
	while (reading->nentries < claim->quota && dja_scan_next_entry(&reading->scan, &tid))
	{
		reading->entries[reading->nentries].row = dja_tid_encode(&tid);
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
		dja_tid_decode(entry->row, &tid);
		if (dja_scan_fetch(&reading->scan, tid, &reading->dead[entry->nth]))
			reading->messages[entry->nth] = dja_scan_message(&reading->scan);
	}
}

/*
 * Hands a claim the messages that were fetched.  Returns false if it has to be read
 * row by row.
 */
static bool
dja_claim_receive(DjaBatch *batch, DjaReading *reading, DjaClaim *claim, TimestampTz now)
{
	bool		full = reading->nentries >= claim->quota;

	for (int i = 0; i < reading->nentries; i++)
		if (reading->messages[i] == NULL && (full || reading->dead[i]))
			return false;
	claim->end = full ? DJA_END_REMAINING : DJA_END_EMPTY;
	for (int i = 0; i < reading->nentries; i++)
		if (reading->messages[i] != NULL && !dja_claim_take(batch, claim, reading->messages[i], now))
			break;
	return true;
}

/*
 * Returns where to read a mailbox from, under a snapshot that was taken after its
 * claim.  Messages that the transaction has sent itself are in no cursor.
 * *others_wait: do other mailboxes of the type wait?
 */
static int64
dja_claim_lowest(DjaBatch *batch, DjaClaim *claim, bool *others_wait)
{
	int64		lowest;

	dja_lock();
	claim->epoch = dja_type_queue(claim->type_queue)->epoch;
	*others_wait = dja_type_queue(claim->type_queue)->queued.length > 0;
	lowest = dja_queue_read_cursor(claim->mailbox);
	dja_unlock();
	if (!batch->own_transaction)
		return claim->start;	/* drain() knows */
	return Min(lowest, dja_pending_position(claim->type_hash, claim->key_hash));
}

/*
 * Takes the message at the cursor, if its row is known.  Returns false if the claim
 * ends before it.
 */
static bool
dja_read_first(DjaBatch *batch, DjaReading *reading, DjaClaim *claim, TimestampTz now)
{
	DjaMessage *message;
	bool		dead;

	if (!ItemPointerIsValid(&claim->first) || !dja_scan_fetch(&reading->scan, claim->first, &dead))
		return true;
	message = dja_scan_message(&reading->scan);
	if (message->position != claim->cursor || !message->nulls[DJA_MSG_ASIDE - 1] ||
		dja_hash_text(message->key) != claim->key_hash)
		return true;
	return dja_claim_take(batch, claim, message, now);
}

/*
 * Reads the messages of a claim, from its cursor on.
 */
static void
dja_claim_fetch(DjaBatch *batch, DjaClaim *claim, Snapshot snapshot)
{
	TimestampTz now = dja_clock();
	DjaReading	reading;

	dja_message_scan_begin(&reading.scan, snapshot);
	if (dja_read_first(batch, &reading, claim, now))
	{
		dja_read_entries(&reading, claim);
		if (!dja_claim_receive(batch, &reading, claim, now))
			dja_read_rows(batch, &reading, claim, now);
	}
	claim->read_end = claim->end;
	claim->read_cursor = claim->cursor;
	dja_scan_end(&reading.scan);
}

/*
 * Returns how many messages are worth reading: as many turns as the batch may
 * still have, and no more than there is time for, which is a moment if other
 * mailboxes wait.
 */
static int
dja_claim_quota(DjaBatch *batch, DjaClaim *claim, bool others_wait)
{
	int			quota = batch->budget;
	int64		usec = others_wait ? DJA_VISIT_USEC : (int64) dja_batch_time * 1000;

	if (batch->own_transaction && others_wait)
		quota = Min(quota, DJA_VISIT_MESSAGES);
	if (batch->own_transaction && claim->type->turn_usec > 0)
		quota = (int) Min(quota, usec / claim->type->turn_usec + 1);
	if (batch->own_transaction && claim->type->rate.rate.turns > 0)
		quota = Min(quota, dja_rate_turns_left(claim->mailbox, claim->type->rate));
	return Max(1, Min(quota, DJA_READ_ENTRIES));
}

/*
 * Reads a mailbox that has just been claimed.  If its type cannot be run now,
 * sets the claim's end and reads nothing.
 */
void
dja_claim_read(DjaBatch *batch, DjaClaim *claim)
{
	MemoryContext old = MemoryContextSwitchTo(batch->memory);
	Snapshot	snapshot;
	bool		others_wait;

	Assert(batch->phase == DJA_PHASE_READING && !claim->was_read);
	/* the snapshot comes after the claim and before the cursor */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	claim->start = claim->cursor = dja_claim_lowest(batch, claim, &others_wait);
	claim->was_read = true;
	if (dja_claim_resolve(batch, claim))
	{
		claim->quota = dja_claim_quota(batch, claim, others_wait);
		dja_claim_fetch(batch, claim, snapshot);
	}
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
}

/*
 * Is there mail below the start of this claim that its actor did not take then,
 * and may take now?  A transaction that lets an actor go has its mailbox, or
 * the type queue, read from the start.  The present transaction announces that
 * only at its end; any other has announced it before a snapshot could see it.
 */
static bool
dja_claim_passed_over(DjaClaim *claim)
{
	bool		passed_over;

	if (claim->start == DJA_CURSOR_START)
		return false;
	if (dja_pending_position(claim->type_hash, claim->key_hash) == DJA_CURSOR_START)
		return true;
	dja_lock();
	passed_over = dja_queue_read_cursor(claim->mailbox) == DJA_CURSOR_START;
	dja_unlock();
	return passed_over;
}

/*
 * Returns the actor of a message.  It is read when its first message comes up,
 * under a later snapshot than the mailbox, so that a batch that takes long does
 * not fail for states that were changed by hand meanwhile.  If the actor may
 * have waited when the mailbox was read, has the mailbox read anew.
 */
DjaActor *
dja_claim_actor(DjaBatch *batch, DjaClaim *claim, text *key)
{
	MemoryContext old;
	Snapshot	snapshot;
	DjaActor   *actor;

	Assert(claim->type != NULL);
	for (actor = claim->actors; actor != NULL; actor = actor->next)
		if (dja_text_equal(actor->key, key))
			return actor;

	old = MemoryContextSwitchTo(batch->memory);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	actor = dja_actor_read(batch->actors->rel, batch->actor_blocks, batch->actor_slot,
						   claim->type, key, claim->key_hash, snapshot);
	UnregisterSnapshot(snapshot);
	actor->next = claim->actors;
	claim->actors = actor;
	claim->reread |= batch->own_transaction && dja_claim_passed_over(claim);
	MemoryContextSwitchTo(old);
	return actor;
}
