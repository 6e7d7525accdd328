/*
 * host_claims.c
 *
 * The claims of hosts on mailboxes, in shared memory; hosts.h says what always holds.
 *
 * A mailbox whose process has died goes back to the front of its queue, and counts
 * the death.  After DJA_DEATHS_SUSPECT of them in a row it is suspected: it is handed
 * out only to a host that holds nothing else.  If that dies, too, its message is
 * charged with a crash.
 */
#include "postgres.h"

#include <signal.h>

#include "storage/proc.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "shmem/crash.h"
#include "shmem/hosts.h"
#include "shmem/mailboxes.h"
#include "shmem/progress.h"
#include "shmem/rates.h"

#define DJA_SUSPECTS_PASSED 64	/* suspected mailboxes that are passed over to
								 * find another one */

static void
dja_host_claim_link(int host, int i)
{
	DjaHostClaim *claim = dja_host_claim(i);

	claim->host = host;
	claim->previous = DJA_NO_HOST_CLAIM;
	claim->next = dja_host(host)->first_claim;
	if (claim->next >= 0)
		dja_host_claim(claim->next)->previous = i;
	dja_host(host)->first_claim = i;
	dja_host(host)->nclaims++;
}

void
dja_host_claim_unlink(int i)
{
	DjaHostClaim *claim = dja_host_claim(i);
	DjaHost    *host;

	if (claim->host < 0)
		return;
	host = dja_host(claim->host);
	if (claim->previous >= 0)
		dja_host_claim(claim->previous)->next = claim->next;
	else
		host->first_claim = claim->next;
	if (claim->next >= 0)
		dja_host_claim(claim->next)->previous = claim->previous;
	host->nclaims--;
	Assert(host->nclaims >= 0 && (host->nclaims == 0) == (host->first_claim < 0));
	if (claim->alone)
		host->emptying = false;
	claim->host = DJA_NO_HOST;
}

/*
 * Is this mailbox handed out only to a host that holds nothing else?
 */
static bool
dja_mailbox_is_suspected(DjaMailbox *mailbox)
{
	return mailbox->ends >= DJA_DEATHS_SUSPECT || mailbox->run_alone > 0;
}

/*
 * Takes the next mailbox of a type queue for a host out of its list.  Returns
 * DJA_NO_MAILBOX if there is none for this host now.
 */
static int
dja_host_dequeue(DjaHost *host, DjaTypeQueue *type_queue)
{
	int			i = type_queue->queued.head;

	if (host->nclaims == 0 || !dja_mailbox_is_suspected(dja_mailbox(i)))
		return dja_mailbox_dequeue(type_queue);

	/* one host at a time gets ready for it, the others pass it over */
	host->emptying = true;
	for (int h = 0; h < dja_shared->hosts->used; h++)
		if (dja_host(h) != host && dja_host(h)->emptying && dja_host_serves(dja_host(h), type_queue))
			host->emptying = false;
	for (int n = 0; n < DJA_SUSPECTS_PASSED && i >= 0 && !host->emptying; n++)
	{
		if (!dja_mailbox_is_suspected(dja_mailbox(i)))
		{
			dja_mailbox_unlink(i);
			return i;
		}
		i = dja_mailbox(i)->list_next;
	}
	return DJA_NO_MAILBOX;
}

/*
 * Returns the generation of another claim.
 */
static uint64
dja_next_generation(void)
{
	DjaHosts   *hosts = dja_shared->hosts;

	hosts->generation = (hosts->generation + 1) & DJA_TOKEN_GENERATION_MASK;
	if (hosts->generation == 0)
		hosts->generation = 1;
	return hosts->generation;
}

/*
 * Makes the claim of a mailbox that is in no list.  There must be a free claim.
 */
static int
dja_host_claim_make(int mailbox, TimestampTz now)
{
	DjaHosts   *hosts = dja_shared->hosts;
	int			i = hosts->free_claim;
	DjaHostClaim *claim = dja_host_claim(i);

	Assert(claim->generation == 0);
	hosts->free_claim = claim->next;
	hosts->free_claims--;
	memset(claim, 0, sizeof(DjaHostClaim));
	claim->generation = dja_next_generation();
	claim->mailbox = mailbox;
	claim->host = DJA_NO_HOST;
	claim->attached = DJA_NO_PROC;
	claim->progress_at = claim->taken_at = now;
	dja_mailbox_claim(mailbox, DJA_HOSTED_PROC);
	dja_mailbox(mailbox)->claim_index = i;
	dja_type_queue(dja_mailbox(mailbox)->type_queue)->workers++;
	return i;
}

/*
 * Claims a given mailbox, queued or not, for a transaction that drains and is no host.
 * If that transaction has it already, its turns get new tokens.  Returns the claim, or
 * DJA_CLAIM_RUNNING or DJA_CLAIM_NO_ROOM.
 */
int
dja_host_claim_mailbox(int type_queue, uint64 key_hash)
{
	int			mailbox = dja_mailbox_find(type_queue, key_hash);
	int			i;

	dja_assert_locked();
	if (mailbox >= 0 && dja_mailbox(mailbox)->state == DJA_MAILBOX_RUNNING)
	{
		i = dja_mailbox(mailbox)->claim_index;
		if (dja_mailbox(mailbox)->claimer != DJA_HOSTED_PROC ||
			dja_host_claim(i)->attached != dja_my_procno() || dja_host_claim(i)->host >= 0)
			return DJA_CLAIM_RUNNING;
		dja_host_claim(i)->generation = dja_next_generation();
		return i;
	}
	if (dja_shared->hosts->free_claim < 0)
		return DJA_CLAIM_NO_ROOM;
	if (mailbox < 0)
		mailbox = dja_mailbox_create(type_queue, key_hash, DJA_CURSOR_START, 0);
	else if (dja_mailbox(mailbox)->state != DJA_MAILBOX_WAITING)
		dja_mailbox_unlink(mailbox);
	return mailbox < 0 ? DJA_CLAIM_NO_ROOM : dja_host_claim_make(mailbox, GetCurrentTimestamp());
}

/*
 * Claims the next mailbox for a host; its types take turns.  Returns the claim, or
 * DJA_NO_HOST_CLAIM if there is none that the host may have now.
 */
int
dja_host_pop(int h, int64 id, TimestampTz now)
{
	DjaHosts   *hosts = dja_shared->hosts;
	DjaHost    *host = dja_host(h);

	dja_assert_locked();
	if (host->id != id || host->gone)
		return DJA_NO_HOST_CLAIM;	/* its lease was over meanwhile */
	if (host->nclaims == 0)
		host->emptying = false;
	if (host->draining || hosts->free_claim < 0 ||
		(host->emptying && host->nclaims > 0))
		return DJA_NO_HOST_CLAIM;
	for (int n = 0; n < host->ntypes && !(host->emptying && host->nclaims > 0); n++)
	{
		int			t = dja_type_queue_find(host->database, host->types[host->rotor]);
		DjaTypeQueue *type_queue;
		DjaHostClaim *claim;
		int			state_version = host->state_versions[host->rotor];
		int			mailbox;
		int			i;

		host->rotor = (host->rotor + 1) % host->ntypes;
		if (t < 0)
			continue;
		type_queue = dja_type_queue(t);
		if (type_queue->put_off_due <= now)
			dja_mailboxes_come_back(type_queue, now);
		if (type_queue->spent_until != 0)
			dja_rate_recover(type_queue, now);
		if (type_queue->queued.length == 0 || !dja_hosts_may_take(type_queue))
			continue;
		if (type_queue->rate.turns > 0 && !dja_rate_allows(t, now))
			continue;
		mailbox = dja_host_dequeue(host, type_queue);
		if (mailbox < 0)
			continue;

		i = dja_host_claim_make(mailbox, now);
		claim = dja_host_claim(i);
		claim->state_version = state_version;
		claim->alone = dja_mailbox_is_suspected(dja_mailbox(mailbox));
		if (claim->alone)
			host->emptying = true;
		if (dja_mailbox(mailbox)->run_alone > 0)
			dja_mailbox(mailbox)->run_alone--;
		dja_host_claim_link(h, i);
		return i;
	}
	return DJA_NO_HOST_CLAIM;
}

/*
 * Returns the claim of a host on a mailbox, or DJA_NO_HOST_CLAIM.
 */
int
dja_host_claim_of(Oid database, uint64 type_hash, uint64 key_hash)
{
	int			type_queue = dja_type_queue_find(database, type_hash);
	int			i = type_queue < 0 ? DJA_NO_MAILBOX : dja_mailbox_find(type_queue, key_hash);

	dja_assert_locked();
	if (i < 0 || dja_mailbox(i)->state != DJA_MAILBOX_RUNNING || dja_mailbox(i)->claimer != DJA_HOSTED_PROC)
		return DJA_NO_HOST_CLAIM;
	i = dja_mailbox(i)->claim_index;
	return dja_host_claim(i)->host >= 0 ? i : DJA_NO_HOST_CLAIM;
}

/*
 * Returns the claim of a token and in *ordinal which of its turns is meant, or
 * DJA_NO_HOST_CLAIM if the claim has ended.
 */
int
dja_host_claim_find(int64 token, int *ordinal)
{
	uint64		bits = (uint64) token;
	int			i = (int) ((bits >> DJA_TOKEN_ORDINAL_BITS) & (DJA_MAX_HOST_CLAIMS - 1));

	dja_assert_locked();
	*ordinal = (int) (bits & ((1 << DJA_TOKEN_ORDINAL_BITS) - 1));
	if (token <= 0 || dja_host_claim(i)->generation == 0 ||
		dja_host_claim(i)->generation != bits >> DJA_TOKEN_GENERATION_SHIFT)
		return DJA_NO_HOST_CLAIM;
	return i;
}

/*
 * Forgets what a turn of a claim has said, since it is over.
 */
void
dja_host_claim_quiet(int i)
{
	DjaHostClaim *claim = dja_host_claim(i);

	dja_assert_locked();
	if (claim->progress_id != 0)
		dja_progress_drop(dja_type_queue(dja_mailbox(claim->mailbox)->type_queue)->database, claim->progress_id);
	claim->progress_id = 0;
}

/*
 * Cancels the statement that a session executes in a turn whose message was cancelled.
 * Returns whether there is such a session: it may be between two statements, so the
 * launcher comes back to it.
 *
 * A transaction needs the lock to part from its claim.  So the signal comes while it is
 * still in that turn; or at its very end, where the server ignores it.
 */
bool
dja_host_claim_signal(DjaHostClaim *claim)
{
	int			pid;

	dja_assert_locked();
	if (claim->attached == DJA_NO_PROC || claim->attached == dja_my_procno() ||
		claim->cancelled == 0 || claim->begun != claim->cancelled)
		return false;
	pid = ProcGlobal->allProcs[claim->attached].pid;
	if (pid != 0)
		(void) kill(pid, SIGINT);
	return pid != 0;
}

/*
 * Marks a message as cancelled that a host has in hand, or is about to get, and breaks its
 * turn off, if that has begun.  Returns whether a host has it.
 */
bool
dja_host_cancel(Oid database, uint64 type_hash, uint64 key_hash, int64 position, int64 message_id)
{
	int			type_queue = dja_type_queue_find(database, type_hash);
	int			mailbox = type_queue < 0 ? DJA_NO_MAILBOX : dja_mailbox_find(type_queue, key_hash);
	DjaHostClaim *claim;

	dja_assert_locked();
	if (mailbox < 0 || dja_mailbox(mailbox)->state != DJA_MAILBOX_RUNNING ||
		dja_mailbox(mailbox)->claimer != DJA_HOSTED_PROC)
		return false;
	claim = dja_host_claim(dja_mailbox(mailbox)->claim_index);

	/*
	 * while it is being taken nobody knows yet how far: the host may get the
	 * message
	 */
	if (claim->host < 0 || (claim->taken > 0 && position > claim->last))
		return false;
	claim->cancelled = message_id;
	if (dja_host_claim_signal(claim))
		dja_ring_launcher();
	return true;
}

/*
 * Returns when a claim is taken back, unless it makes progress.
 */
TimestampTz
dja_host_claim_late_at(DjaHostClaim *claim)
{
	return TimestampTzPlusMilliseconds(claim->progress_at, (int64) claim->limit_ms + DJA_HOST_GRACE_MS);
}

/*
 * Limits how long a turn of a claim may last; 0 = no limit.  Returns true if the
 * launcher has to be rung, since it would look too late.
 */
bool
dja_host_claim_limit(int i, int limit_ms)
{
	DjaHostClaim *claim = dja_host_claim(i);

	dja_assert_locked();
	claim->limit_ms = limit_ms;
	return limit_ms > 0 && claim->host >= 0 && dja_host_claim_late_at(claim) < dja_shared->hosts->look_at;
}

/*
 * Attaches this backend's transaction to a claim.  Returns false if another one is
 * attached.
 */
bool
dja_host_claim_attach(int i, int entry)
{
	DjaHostClaim *claim = dja_host_claim(i);

	dja_assert_locked();
	Assert(claim->generation != 0);
	if (claim->attached != DJA_NO_PROC)
		return false;
	claim->attached = dja_my_procno();
	claim->attached_entry = entry;
	return true;
}

/*
 * Has a claim end with the transaction that is attached to it, whatever that does.
 */
void
dja_host_claim_abandon(int i)
{
	dja_assert_locked();
	Assert(dja_host_claim(i)->attached != DJA_NO_PROC);
	dja_host_claim_unlink(i);
}

/*
 * The turns of a claim that are not done will not be: its host, or the transaction that
 * took them, gives them back.  They do not count for the type's rate.
 */
void
dja_host_claim_unused(int i)
{
	DjaHostClaim *claim = dja_host_claim(i);
	int			type_queue = dja_mailbox(claim->mailbox)->type_queue;

	dja_assert_locked();
	if (claim->host >= 0 && dja_type_queue(type_queue)->rate.turns > 0)
		dja_rate_give_back(type_queue, claim->tenant_value, claim->taken - claim->done, claim->taken_at);
}

/*
 * Ends a claim: gives its mailbox back, and wakes a process that goes on with it.
 */
void
dja_host_claim_end(int i, DjaClaimEnd end, int64 cursor, int freed, int run_alone)
{
	DjaHosts   *hosts = dja_shared->hosts;
	DjaHostClaim *claim = dja_host_claim(i);
	DjaMailbox *mailbox = dja_mailbox(claim->mailbox);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);
	int			pool = type_queue->pool;

	dja_assert_locked();
	Assert(claim->generation != 0 && claim->attached == DJA_NO_PROC);
	Assert(mailbox->state == DJA_MAILBOX_RUNNING && mailbox->claimer == DJA_HOSTED_PROC);
	Assert(type_queue->workers > 0);
	dja_host_claim_quiet(i);
	dja_host_claim_unlink(i);
	mailbox->claimer = DJA_NO_PROC;
	type_queue->workers--;
	claim->generation = 0;
	claim->next = hosts->free_claim;
	hosts->free_claim = i;
	hosts->free_claims++;
	dja_mailbox_leave(claim->mailbox, end, cursor, freed, run_alone);
	if (type_queue->in_use && type_queue->queued.length > 0)
		dja_note_host_mail(type_queue);

	/* the resident tells waiting hosts, looks at what was put off, and sweeps */
	if (type_queue->in_use && pool >= 0 &&
		(type_queue->ring_hosts || end == DJA_END_PUT_OFF || type_queue->sweep_wanted || !type_queue->hosted))
		dja_wake_pool(pool);
}

/*
 * Gives a claim back whose process has died, or has not come to an end with it.
 */
void
dja_host_claim_lost(int i, bool died)
{
	DjaHostClaim *claim = dja_host_claim(i);
	int			mailbox = claim->mailbox;
	int			host = claim->host;
	int			ends = dja_mailbox(mailbox)->ends;
	bool		untouched = claim->done == 0;

	Assert(host >= 0);
	if (died && claim->alone && claim->done < claim->taken)
	{
		DjaTypeQueue *type_queue = dja_type_queue(dja_mailbox(mailbox)->type_queue);

		dja_crash_charge(type_queue->database, type_queue->type_hash, claim->message_id);
		dja_host(host)->charged_id = claim->message_id;
		if (type_queue->in_use && type_queue->pool >= 0)
			dja_wake_pool(type_queue->pool);
	}
	dja_host_claim_end(i, untouched ? DJA_END_RETURNED : DJA_END_REMAINING, DJA_CURSOR_START, 0, 0);
	if (died && (dja_mailbox(mailbox)->state == DJA_MAILBOX_QUEUED ||
				 dja_mailbox(mailbox)->state == DJA_MAILBOX_BEHIND))
	{
		dja_mailbox(mailbox)->ends = Min(untouched ? ends + 1 : 1, DJA_ENDS_MAX);
		dja_mailbox(mailbox)->died_with = host;
	}
}
