/*
 * coalesce.c
 *
 * Messages with a coalesce key.
 *
 * Senders insert them like any others.  They neither look for each other nor wait.
 * When one of them has its turn, those of its actor and key that wait are merged, in
 * the order of their ids: a later message either gives way to the one before (keep) or
 * takes its place (replace, debounce).  The message that is left, the carrier, is
 * handled where it stands in its mailbox, so no order is broken.
 *
 * While senders go on, a message would always find a later one that takes its place.
 * So a carrier that has taken the place of others is due: its coalesce_until is set to
 * -infinity, and messages that come after that begin a new group.  Under debounce a
 * carrier waits for its deliver_at, or for the earliest coalesce_until of those that it
 * has replaced.  So the row of a carrier is written once for each look, and those of
 * the others are not written but deleted.
 *
 * A merged message is gone, unless it is an ask.  An ask stays in djactor.message, set
 * aside, and gets the answer of the next message of its key that is handled, or, if
 * there is none left to be handled, the failure of the last one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "shmem/slots.h"
#include "shmem/stats.h"
#include "tables/journal.h"
#include "turn/coalesce.h"
#include "turn/turn.h"
#include "xact/pending.h"

#define DJA_MERGES_MAX 1000		/* at once */
#define DJA_LOWS 256			/* keys that a worker remembers */

/*
 * The lowest id that has still been there when a worker has merged the messages of a
 * key, so that it need not walk over the dead rows of those before it.  A message with
 * a lower id that is committed later begins at its own id.
 */
typedef struct DjaLow
{
	uint64		type_hash;
	uint64		key_hash;
	uint64		coalesce_hash;
	int64		id;				/* 0 = an empty entry */
} DjaLow;

static DjaLow dja_lows[DJA_LOWS];

/* The messages of a key that are being merged. */
typedef struct DjaMerging
{
	DjaBatch   *batch;
	DjaClaim   *claim;
	DjaMessage *message;		/* whose turn it is */
	TimestampTz now;
	DjaMessage *carrier;		/* of those that were read so far */
	TimestampTz until;			/* when it is due at the latest; DT_NOBEGIN =
								 * it is, whatever comes */
	int64		low;			/* lowest id of a row that stays */
	int			merged;
	bool		merged_self;	/* message is one of them */
	bool		all;			/* no others are left */
} DjaMerging;

static inline bool
dja_mode_is(DjaMessage *message, const char *mode)
{
	const text *value;

	if (message->nulls[DJA_MSG_COALESCE_MODE - 1])
		return strcmp(mode, "replace") == 0;
	value = DatumGetTextPP(message->values[DJA_MSG_COALESCE_MODE - 1]);
	return VARSIZE_ANY_EXHDR(value) == strlen(mode) && memcmp(VARDATA_ANY(value), mode, strlen(mode)) == 0;
}

static inline TimestampTz
dja_coalesce_until(DjaMessage *message)
{
	return message->nulls[DJA_MSG_COALESCE_UNTIL - 1] ? DT_NOEND :
		DatumGetTimestampTz(message->values[DJA_MSG_COALESCE_UNTIL - 1]);
}

static bool
dja_same_coalesce_key(DjaMessage *a, DjaMessage *b)
{
	return dja_text_equal(a->key, b->key) &&
		dja_text_equal(DatumGetTextPP(a->values[DJA_MSG_ACTOR_TYPE - 1]),
					   DatumGetTextPP(b->values[DJA_MSG_ACTOR_TYPE - 1])) &&
		dja_text_equal(DatumGetTextPP(a->values[DJA_MSG_COALESCE_KEY - 1]),
					   DatumGetTextPP(b->values[DJA_MSG_COALESCE_KEY - 1]));
}

/*
 * Returns what a worker remembers of the key of a message, to be read or changed; NULL
 * in other processes, whose transactions may be rolled back without notice here.
 */
static DjaLow *
dja_low_of(uint64 type_hash, DjaMessage *message, bool enter)
{
	uint64		key_hash = dja_hash_text(message->key);
	uint64		coalesce_hash = dja_hash_text(DatumGetTextPP(message->values[DJA_MSG_COALESCE_KEY - 1]));
	DjaLow	   *low = &dja_lows[(key_hash ^ coalesce_hash) % DJA_LOWS];

	if (dja_my_worker == NULL)
		return NULL;
	if (low->type_hash == type_hash && low->key_hash == key_hash && low->coalesce_hash == coalesce_hash)
		return low;
	if (!enter)
		return NULL;
	low->type_hash = type_hash;
	low->key_hash = key_hash;
	low->coalesce_hash = coalesce_hash;
	return low;
}

static void
dja_key_scan_begin(DjaScan *scan, uint64 type_hash, DjaMessage *message)
{
	DjaLow	   *low = dja_low_of(type_hash, message, false);

	dja_coalesce_scan_begin(scan, type_hash, message, low != NULL ? Min(low->id, message->id) : 0);
}

/*
 * Forgets what is remembered of keys, since the transaction has been rolled back.
 */
void
dja_coalesce_forget(void)
{
	memset(dja_lows, 0, sizeof(dja_lows));
}

/*
 * Returns the claim's own copy of a message, NULL if it has read none.
 */
static DjaMessage *
dja_claim_copy(DjaClaim *claim, int64 id)
{
	for (int i = claim->next; i < claim->nmessages; i++)
		if (claim->messages[i]->id == id)
			return claim->messages[i];
	return NULL;
}

/*
 * Does this message wait, so that it can be merged?  One that is delayed does not,
 * unless it is debounce that delays it.  An expired one ends by itself, and so does one
 * that somebody is cancelling.
 */
static bool
dja_takes_part(DjaMerging *merging, DjaMessage *message)
{
	DjaMessage *copy;

	if (message->id == merging->message->id)
		return true;
	if (!dja_same_coalesce_key(message, merging->message) || !message->nulls[DJA_MSG_ASIDE - 1] ||
		!dja_message_is_kind(message, "user") || message->expires_at <= merging->now ||
		TransactionIdIsValid(message->locker))
		return false;
	if (dja_message_is_delayed(message) && !dja_mode_is(message, "debounce"))
		return false;
	/* the batch has handled it, and deletes its row later */
	for (int i = 0; i < merging->claim->nmessages; i++)
		if ((copy = merging->claim->messages[i])->id == message->id)
			return copy->state == DJA_MESSAGE_OPEN;
	return true;
}

/*
 * Merges a message into another one.
 */
static void
dja_merge(DjaMerging *merging, DjaMessage *message)
{
	DjaBatch   *batch = merging->batch;
	DjaType    *type = merging->claim->type;
	DjaMessage *copy = dja_claim_copy(merging->claim, message->id);
	bool		in_mailbox = !dja_message_is_delayed(message);

	if (message->asks)
	{
		dja_message_set_aside(batch->messages, message, "coalesced", message->expires_at);
		merging->low = Min(merging->low, message->id);
		if (message->expires_at != DT_NOEND)
			dja_pending_due(type, message->expires_at);
	}
	else
	{
		dja_row_delete(batch->messages, &message->tid);
		message->state = DJA_MESSAGE_GONE;
	}
	if (copy != NULL)
		copy->state = message->state;
	if (message->id == merging->message->id)
		merging->merged_self = true;	/* the caller counts it */
	else if (in_mailbox)
		dja_claim_remove(merging->claim, message);
	if (type->journal >= 0)
		dja_journal_write(message, DJA_NO_TURN, merging->now, merging->now, "coalesced", 0);
	dja_stat_count(&type->stat, DJA_STAT_COALESCED);
	merging->merged++;
}

/*
 * Takes the next message of the key into account.  Returns false if it, and all after
 * it, are none of this group's.
 */
static bool
dja_merge_next(DjaMerging *merging, DjaMessage *next)
{
	TimestampTz until = dja_coalesce_until(next);

	if (merging->carrier == NULL)
	{
		merging->carrier = next;
		merging->until = until;
	}
	else if (dja_mode_is(next, "keep"))
		dja_merge(merging, next);
	else
	{
		/* a carrier that is due gives way to nobody who comes after its turn */
		if (merging->until == DT_NOBEGIN && next->id > merging->message->id)
			return false;
		dja_merge(merging, merging->carrier);
		merging->carrier = next;
		merging->until = Min(merging->until, until);
	}
	return true;
}

/*
 * Reads the messages of the key and merges them, as many as may be at once.
 */
static void
dja_merge_all(DjaMerging *merging)
{
	MemoryContext contexts[2];
	bool		which = false;
	DjaScan		scan;

	/* a carrier outlives the messages that it replaces */
	for (int i = 0; i < 2; i++)
		contexts[i] = AllocSetContextCreate(CurrentMemoryContext, "djactor merging", ALLOCSET_SMALL_SIZES);
	dja_key_scan_begin(&scan, merging->claim->type_hash, merging->message);
	merging->all = true;
	while (merging->all && dja_scan_next(&scan))
	{
		MemoryContext old = MemoryContextSwitchTo(contexts[which]);
		DjaMessage *next = dja_scan_message(&scan);

		if (next->id == merging->message->id)
			next = merging->message;
		if (dja_takes_part(merging, next))
		{
			if (!dja_merge_next(merging, next))
			{
				MemoryContextSwitchTo(old);
				break;
			}
			merging->all = merging->merged < DJA_MERGES_MAX;
		}
		else
			merging->low = Min(merging->low, next->id);
		MemoryContextSwitchTo(old);
		if (merging->carrier == next)
			which = !which;
		MemoryContextReset(contexts[which]);
	}
	dja_scan_end(&scan);
	if (merging->carrier != NULL && dja_my_worker != NULL)
		dja_low_of(merging->claim->type_hash, merging->message, true)->id = Min(merging->low, merging->carrier->id);
}

/*
 * Writes into the carrier's row when it is due: now if it has taken the place of the
 * message that has had its turn, or at its own time under debounce.
 */
static void
dja_carry_on(DjaMerging *merging)
{
	DjaMessage *carrier = merging->carrier;
	DjaMessage *copy = dja_claim_copy(merging->claim, carrier->id);
	DjaType    *type = merging->claim->type;
	bool		delayed = dja_message_is_delayed(carrier);
	bool		due = !delayed || merging->until <= merging->now;

	if (due && merging->all)
		merging->until = DT_NOBEGIN;
	if (delayed && (due || merging->until < DatumGetTimestampTz(carrier->values[DJA_MSG_DELIVER_AT - 1])))
	{
		carrier->values[DJA_MSG_DELIVER_AT - 1] = TimestampTzGetDatum(due ? merging->now : merging->until);
		carrier->values[DJA_MSG_RELEASED - 1] = BoolGetDatum(due);
	}
	else if (merging->until == dja_coalesce_until(carrier))
		return;
	carrier->nulls[DJA_MSG_COALESCE_UNTIL - 1] = false;
	carrier->values[DJA_MSG_COALESCE_UNTIL - 1] = TimestampTzGetDatum(merging->until);
	dja_row_update(merging->batch->messages, &carrier->tid, carrier->values, carrier->nulls);
	if (copy != NULL)
	{
		copy->tid = merging->batch->messages->slot->tts_tid;
		copy->nulls[DJA_MSG_COALESCE_UNTIL - 1] = false;
		copy->values[DJA_MSG_COALESCE_UNTIL - 1] = TimestampTzGetDatum(merging->until);
	}
	if (delayed && due)
	{
		uint64		key_hash = dja_hash_text(carrier->key);

		dja_pending_mailbox(type, key_hash, carrier->position, 1);
		dja_pending_tenant(type, key_hash, carrier->values, carrier->nulls);
	}
	else if (delayed)
		dja_pending_due(type, DatumGetTimestampTz(carrier->values[DJA_MSG_DELIVER_AT - 1]));
}

/*
 * Merges the messages of a message's coalesce key, when it is the message's turn.
 * Returns whether it can have it.  It cannot if it was merged itself, or if there are
 * so many that the rest is left for another transaction; then the claim's end is set.
 */
DjaReady
dja_coalesce(DjaBatch *batch, DjaClaim *claim, DjaMessage *message, TimestampTz now)
{
	DjaMerging	merging = {.batch = batch,.claim = claim,.message = message,.now = now,.low = PG_INT64_MAX};
	MemoryContext context;
	MemoryContext old;

	Assert(message->state == DJA_MESSAGE_OPEN);
	if (message->nulls[DJA_MSG_COALESCE_KEY - 1])
		return DJA_READY;
	context = AllocSetContextCreate(CurrentMemoryContext, "djactor coalescing", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	dja_merge_all(&merging);
	if (merging.merged_self && merging.carrier != message)
		dja_carry_on(&merging);
	if (merging.merged > 0)
	{
		CommandCounterIncrement();
		if (batch->own_transaction)
			batch->clock = GetCurrentTimestamp();	/* the visit is limited in
													 * time */
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	if (merging.merged_self)
		return DJA_READY_NO_MORE;
	if (merging.all)
		return DJA_READY;
	dja_claim_leave(claim, claim->next);
	return DJA_READY_LATER;
}

/*
 * Would this message be merged with one of the claim that stands before it and is not
 * done yet?
 */
bool
dja_coalesces_with_earlier(DjaClaim *claim, DjaMessage *message)
{
	if (message->nulls[DJA_MSG_COALESCE_KEY - 1])
		return false;
	for (int i = 0; i < claim->next; i++)
		if (claim->messages[i]->state == DJA_MESSAGE_OPEN && !claim->messages[i]->nulls[DJA_MSG_COALESCE_KEY - 1] &&
			dja_same_coalesce_key(claim->messages[i], message))
			return true;
	return false;
}

/*
 * Takes the asks that were merged into messages of this message's coalesce key, to be
 * answered as it is.  If it has failed they wait on as long as another message of the
 * key can answer them.  The caller answers all of them.
 */
List *
dja_coalesced_take(DjaMessage *carrier, bool failed)
{
	List	   *asks = NIL;
	bool		others = false;
	MemoryContext context;
	DjaWriter  *writer;
	ListCell   *lc;
	DjaScan		scan;

	if (carrier->nulls[DJA_MSG_COALESCE_KEY - 1] || dja_message_is_aside(carrier, "coalesced"))
		return NIL;
	dja_key_scan_begin(&scan, dja_hash_text(DatumGetTextPP(carrier->values[DJA_MSG_ACTOR_TYPE - 1])), carrier);
	context = AllocSetContextCreate(CurrentMemoryContext, "djactor coalesced", ALLOCSET_SMALL_SIZES);
	while (!(failed && others) && dja_scan_next(&scan))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		DjaMessage *message = dja_scan_message(&scan);
		bool		same = dja_same_coalesce_key(message, carrier) && message->id != carrier->id;
		bool		coalesced = same && dja_message_is_aside(message, "coalesced");
		DjaMessage *mate = same && !coalesced ? dja_batch_message(message->id) : NULL;

		others |= same && !coalesced &&
			(mate == NULL || mate->state == DJA_MESSAGE_OPEN || mate->state == DJA_MESSAGE_ASIDE);
		MemoryContextSwitchTo(old);
		if (coalesced)
			asks = lappend(asks, dja_scan_message(&scan));
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	dja_scan_end(&scan);
	if (asks == NIL || (failed && others))
		return NIL;

	writer = dja_writer_get(DJA_MESSAGE_TABLE);
	foreach(lc, asks)
	{
		DjaMessage *ask = lfirst(lc);
		TM_Result	result = dja_row_try_delete(writer, &ask->tid);

		/* whoever has cancelled it has answered it */
		if (result == TM_Deleted || result == TM_SelfModified || result == TM_Invisible)
			asks = foreach_delete_current(asks, lc);
		else if (result != TM_Ok)
			dja_row_trouble(result);
	}
	dja_writer_put(writer);
	return asks;
}
