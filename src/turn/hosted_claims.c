/*
 * hosted_claims.c
 *
 * The claims of hosts that this transaction is attached to; see hosted.h.
 *
 * What the transaction does to them is noted here, and written to shared memory when
 * it has ended and released its locks: the actor's next turn, wherever it runs, must
 * not meet those.  A subtransaction that is rolled back takes its turns along.  But a
 * claim that a turn has found useless (its message is gone, say) ends even if the
 * transaction aborts, as it does when that is raised as an error.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/grow.h"
#include "shmem/progress.h"
#include "shmem/stats.h"
#include "turn/hosted.h"
#include "turn/turn.h"

#define DJA_ENDS_PER_LOCK 64
#define DJA_KEPT_ELEMENTS 4096	/* of each list, from transaction to
								 * transaction */

/* A claim before this transaction has ended a turn of it, for the case that a part of it is undone. */
typedef struct DjaTurnDone
{
	int			attached;
	SubTransactionId subid;
	DjaAttachedClaim before;
} DjaTurnDone;

/* kept from transaction to transaction, unless they are large */
static DjaAttachedClaim *dja_attached = NULL;
static int	dja_nattached = 0;
static int	dja_max_attached = 0;
static DjaTurnDone *dja_done = NULL;
static int	dja_ndone = 0;
static int	dja_max_done = 0;
static bool dja_ended = false;	/* the transaction has, but for its locks */

/*
 * Makes room for one more claim, so that those in the list may move.
 */
static void
dja_hosted_reserve(void)
{
	dja_attached = dja_grow(TopMemoryContext, dja_attached, sizeof(DjaAttachedClaim),
							dja_nattached, &dja_max_attached);
}

static DjaAttachedClaim *
dja_hosted_add(int i)
{
	DjaHostClaim *claim = dja_host_claim(i);
	DjaAttachedClaim *attached = &dja_attached[dja_nattached++];

	memset(attached, 0, sizeof(DjaAttachedClaim));
	dja_stat_counts(true);
	attached->claim = i;
	attached->mailbox = claim->mailbox;
	attached->taken = claim->taken;
	attached->done = claim->done;
	attached->actor = claim->actor;
	attached->state_version = claim->state_version;
	return attached;
}

/*
 * Does the claim belong to a host of this database and role?
 */
static bool
dja_hosted_is_ours(DjaHostClaim *claim)
{
	DjaTypeQueue *type_queue = dja_type_queue(dja_mailbox(claim->mailbox)->type_queue);

	if (claim->host >= 0)
		return dja_host(claim->host)->database == MyDatabaseId && dja_host(claim->host)->role == GetUserId();
	return type_queue->database == MyDatabaseId;
}

/*
 * Attaches the transaction to the claim of a token.  Returns NULL if the claim has
 * ended, or ends: because the turn of the token is not the next one, or because another
 * transaction is attached to it.  The host does not know then what has been done, and
 * what has not is handed out again.  The result may move when another claim is attached.
 */
DjaAttachedClaim *
dja_hosted_attach(int64 token)
{
	TimestampTz now = GetCurrentTimestamp();
	DjaAttachedClaim *attached = NULL;
	int			ordinal;
	int			i;

	dja_hosted_reserve();
	dja_lock();
	i = dja_host_claim_find(token, &ordinal);
	if (i >= 0 && dja_hosted_is_ours(dja_host_claim(i)))
	{
		DjaHostClaim *claim = dja_host_claim(i);

		if (claim->attached == dja_my_procno())
			attached = &dja_attached[claim->attached_entry];
		else if (dja_host_claim_attach(i, dja_nattached))
			attached = dja_hosted_add(i);
		if (claim->host >= 0)
			dja_host_renew(claim->host, now);
		if (attached == NULL)
			dja_host_claim_abandon(i);
	}
	dja_unlock();
	if (attached == NULL || attached->over)
		return NULL;
	if (ordinal == attached->done + 1)
		return attached;
	dja_hosted_over_anyway(attached, DJA_END_REMAINING);
	return NULL;
}

/*
 * Where a claim stands in this transaction's list, and which one stands there.
 */
int
dja_hosted_index(DjaAttachedClaim *attached)
{
	return (int) (attached - dja_attached);
}

DjaAttachedClaim *
dja_hosted_at(int index)
{
	Assert(index >= 0 && index < dja_nattached);
	return &dja_attached[index];
}

/*
 * Attaches the transaction to a claim that it has just made.
 */
DjaAttachedClaim *
dja_hosted_attach_fresh(int i)
{
	DjaAttachedClaim *attached;

	dja_hosted_reserve();
	dja_lock();
	if (!dja_host_claim_attach(i, dja_nattached))
		Assert(false);
	attached = dja_hosted_add(i);
	attached->fresh = true;
	attached->fresh_in = GetCurrentSubTransactionId();
	dja_unlock();
	return attached;
}

/*
 * Attaches the transaction to a claim that it reads again, as it does while it drains, or
 * that it has just made.  All of the claim's turns were ended, or its tokens are
 * forgotten.
 */
DjaAttachedClaim *
dja_hosted_attach_again(int i)
{
	DjaAttachedClaim *attached;

	if (dja_host_claim(i)->attached != dja_my_procno())
		return dja_hosted_attach_fresh(i);
	attached = &dja_attached[dja_host_claim(i)->attached_entry];
	attached->done = 0;
	attached->over = attached->over_anyway = false;
	return attached;
}

/*
 * Notes what is known of the claim, for the case that the present part of the
 * transaction is undone.
 */
void
dja_hosted_remember(DjaAttachedClaim *attached)
{
	DjaTurnDone *done;

	dja_done = dja_grow(TopMemoryContext, dja_done, sizeof(DjaTurnDone), dja_ndone, &dja_max_done);
	done = &dja_done[dja_ndone++];
	done->attached = dja_hosted_index(attached);
	done->subid = GetCurrentSubTransactionId();
	done->before = *attached;
	done->before.claim_in_batch = NULL; /* the batch is over when it is undone */
}

/*
 * Tells others which message of the claim is running.
 */
void
dja_hosted_begun(DjaAttachedClaim *attached, int64 message_id)
{
	dja_lock();
	dja_host_claim(attached->claim)->message_id = message_id;
	dja_unlock();
}

/*
 * Notes that a turn of the claim is done, and what it has left of its actor.
 */
void
dja_hosted_done(DjaAttachedClaim *attached, DjaVersion actor, int freed)
{
	dja_hosted_remember(attached);
	attached->done++;
	attached->freed += freed;
	attached->actor = actor;
}

/*
 * Has the claim end with this transaction, if that commits.
 */
void
dja_hosted_over(DjaAttachedClaim *attached, DjaClaimEnd end, int64 cursor, int run_alone)
{
	attached->over = true;
	attached->end = end;
	attached->cursor = cursor;
	attached->run_alone = run_alone;
}

/*
 * Has the claim end with this transaction, however that ends.
 */
void
dja_hosted_over_anyway(DjaAttachedClaim *attached, DjaClaimEnd end)
{
	dja_hosted_over(attached, end, DJA_CURSOR_START, 0);
	attached->over_anyway = true;
}

/*
 * Has the claim end for the outcome on one of its turns.
 */
void
dja_hosted_over_for(DjaAttachedClaim *attached, DjaHostedOutcome outcome)
{
	Assert(outcome != DJA_TURN_DONE && outcome != DJA_TURN_STALE);
	dja_hosted_over_anyway(attached, outcome == DJA_TURN_LOCKED ? DJA_END_PUT_OFF : DJA_END_REMAINING);
}

/*
 * Notes the versions of the actors that a batch has written, and forgets the batch.
 */
static void
dja_hosted_written(void)
{
	for (int i = 0; i < dja_nattached; i++)
	{
		DjaClaim   *claim = dja_attached[i].claim_in_batch;

		if (claim != NULL && claim->turns > 0)
			dja_attached[i].actor = dja_actor_version(claim->actors);
		dja_attached[i].claim_in_batch = NULL;
	}
}

/*
 * Runs step(batch, arg) with a batch within the caller's transaction, and writes what
 * that leaves.
 */
void
dja_hosted_in_batch(void (*step) (DjaBatch *batch, void *arg), void *arg)
{
	DjaBatch   *batch = dja_batch_create(false, DJA_MODE_FAST);

	batch->hosted = true;
	batch->own_transaction = true;	/* it does what a worker's does */
	PG_TRY();
	{
		MemoryContext old;

		dja_batch_begin(batch);
		old = MemoryContextSwitchTo(batch->memory);
		step(batch, arg);
		MemoryContextSwitchTo(old);
		dja_batch_write(batch);
		dja_hosted_written();
	}
	PG_CATCH();
	{
		for (int i = 0; i < dja_nattached; i++)
			dja_attached[i].claim_in_batch = NULL;
		dja_turn_over();
		PG_RE_THROW();
	}
	PG_END_TRY();
	dja_batch_free(batch);
}

/*
 * Gives the claim of a token back, whichever of its turns that is of: with the end of
 * the transaction that is attached to it, if there is one.  Returns false if the claim
 * has ended, or that is another transaction than this one.
 */
bool
dja_hosted_release(int64 token)
{
	bool		released = false;
	int			ordinal;
	int			i;

	dja_lock();
	i = dja_host_claim_find(token, &ordinal);
	if (i >= 0 && dja_host_claim(i)->attached == dja_my_procno())
	{
		dja_hosted_over(&dja_attached[dja_host_claim(i)->attached_entry], DJA_END_REMAINING,
						DJA_CURSOR_START, 0);
		dja_attached[dja_host_claim(i)->attached_entry].released = true;
		released = true;
	}
	else if (i >= 0 && dja_hosted_is_ours(dja_host_claim(i)) && dja_host_claim(i)->attached == DJA_NO_PROC)
	{
		dja_host_claim_unused(i);
		dja_host_claim_end(i, dja_host_claim(i)->done == 0 ? DJA_END_RETURNED : DJA_END_REMAINING,
						   DJA_CURSOR_START, 0, 0);
		released = true;
	}
	else if (i >= 0 && dja_hosted_is_ours(dja_host_claim(i)))
		dja_host_claim_abandon(i);
	dja_unlock();
	return released;
}

/*
 * Notes what the turn of a token says.  Returns false if that turn is done, its claim has
 * ended, or the message is of another actor.
 */
bool
dja_hosted_progress(int64 token, uint64 type_hash, uint64 key_hash, int64 message_id, const char *text,
					int len)
{
	bool		current = false;
	int			ordinal;
	int			i;

	dja_lock();
	i = dja_host_claim_find(token, &ordinal);
	if (i >= 0 && dja_hosted_is_ours(dja_host_claim(i)) && ordinal > dja_host_claim(i)->done)
	{
		DjaHostClaim *claim = dja_host_claim(i);
		DjaMailbox *mailbox = dja_mailbox(claim->mailbox);

		current = mailbox->key_hash == key_hash && dja_type_queue(mailbox->type_queue)->type_hash == type_hash;
		if (current && claim->progress_id != message_id)
			dja_host_claim_quiet(i);
		if (current)
		{
			claim->progress_id = message_id;
			claim->progress_turn = ordinal;
			dja_progress_put(MyDatabaseId, message_id, text, len);
		}
	}
	dja_unlock();
	return current;
}

/* ---------- the end of the transaction ---------- */

/*
 * Writes to shared memory what has become of a claim.
 */
static void
dja_hosted_settle(DjaAttachedClaim *attached, bool committed, TimestampTz now)
{
	DjaHostClaim *claim = dja_host_claim(attached->claim);
	bool		over = attached->over_anyway || (committed ? attached->over : attached->fresh);

	dja_assert_locked();
	if (committed && attached->done > claim->done)
	{
		dja_trouble_over(&dja_shared->queue->trouble, now);
		claim->done = attached->done;
		claim->message_id = 0;	/* the next one, whichever that is */
		claim->actor = attached->actor;
		claim->progress_at = now;
		dja_mailbox(attached->mailbox)->ends = 0;
		if (claim->progress_turn <= claim->done)
			dja_host_claim_quiet(attached->claim);
	}
	if (!committed && attached->fresh && !attached->over_anyway)
	{
		dja_host_claim_unused(attached->claim);
		dja_hosted_over(attached, DJA_END_RETURNED, DJA_CURSOR_START, 0);
	}
	else if (committed && !over && claim->taken > 0 && claim->done == claim->taken)
	{
		dja_hosted_over(attached, claim->end, claim->cursor, 0);
		over = true;
	}
	if (committed && attached->released)
		dja_host_claim_unused(attached->claim);
	claim->attached = DJA_NO_PROC;
	if (over)
		dja_host_claim_end(attached->claim, attached->end, attached->cursor, committed ? attached->freed : 0,
						   attached->run_alone);
	else if (claim->host < 0)
		dja_host_claim_end(attached->claim, DJA_END_REMAINING, DJA_CURSOR_START,
						   committed ? attached->freed : 0, 0);
	else if (committed && dja_mailbox(attached->mailbox)->depth > 0)
		dja_mailbox(attached->mailbox)->depth -= Min(attached->freed, dja_mailbox(attached->mailbox)->depth);
}

/*
 * Gives back the memory that one large transaction has taken.
 */
static void
dja_hosted_forget_large(void)
{
	if (dja_max_attached > DJA_KEPT_ELEMENTS)
	{
		pfree(dja_attached);
		dja_attached = NULL;
		dja_max_attached = 0;
	}
	if (dja_max_done > DJA_KEPT_ELEMENTS)
	{
		pfree(dja_done);
		dja_done = NULL;
		dja_max_done = 0;
	}
}

static void
dja_hosted_ended(bool committed)
{
	TimestampTz now = GetCurrentTimestamp();

	dja_lock();

	/* the first to be taken is the first in the queue again */
	for (int i = dja_nattached - 1; i >= 0; i--)
	{
		dja_hosted_settle(&dja_attached[i], committed, now);
		if (i % DJA_ENDS_PER_LOCK == 0)
		{
			dja_unlock();
			dja_lock();
		}
	}
	dja_unlock();
	dja_nattached = dja_ndone = 0;
	dja_hosted_forget_large();
	if (committed)
		dja_stat_flush();
	else
		dja_stat_forget();
	dja_stat_counts(false);
}

static void
dja_hosted_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (dja_hosted_turn_is_open())
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
						 errmsg("cannot commit while a turn is under way"),
						 errhint("Call djactor.end_turn() first.")));
			if (event == XACT_EVENT_PRE_PREPARE && dja_nattached > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has taken or ended turns of actors")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			dja_hosted_turn_forget();
			dja_clock_reset();	/* drain_take() may have moved it */
			dja_ended = dja_nattached > 0;
			break;
		default:
			break;
	}
}

static void
dja_hosted_release_callback(ResourceReleasePhase phase, bool committed, bool top_level, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !top_level || !dja_ended)
		return;
	dja_ended = false;
	dja_hosted_ended(committed);
}

static void
dja_hosted_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent,
							void *arg)
{
	bool		committed = event == SUBXACT_EVENT_COMMIT_SUB;

	if (!committed && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	dja_hosted_turn_subxact_ended(committed, subid, parent);
	for (int i = dja_ndone - 1; i >= 0 && dja_done[i].subid == subid; i--)
	{
		DjaAttachedClaim *attached = &dja_attached[dja_done[i].attached];

		if (committed)
		{
			dja_done[i].subid = parent;
			continue;
		}
		if (!attached->over_anyway)
			*attached = dja_done[i].before;
		else
		{
			attached->done = dja_done[i].before.done;
			attached->freed = dja_done[i].before.freed;
			attached->actor = dja_done[i].before.actor;
		}
		dja_ndone--;
	}
	for (int i = 0; i < dja_nattached; i++)
	{
		if (!dja_attached[i].fresh || dja_attached[i].fresh_in != subid)
			continue;
		if (committed)
			dja_attached[i].fresh_in = parent;
		else if (!dja_attached[i].over_anyway)
			dja_hosted_over_anyway(&dja_attached[i], DJA_END_RETURNED);
	}
}

void
dja_hosted_init(void)
{
	RegisterXactCallback(dja_hosted_xact_callback, NULL);
	RegisterResourceReleaseCallback(dja_hosted_release_callback, NULL);
	RegisterSubXactCallback(dja_hosted_subxact_callback, NULL);
}
