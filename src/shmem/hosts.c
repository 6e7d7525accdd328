/*
 * hosts.c
 *
 * Hosts in shared memory: client sessions that run turns.  hosts.h says what always holds,
 * host_claims.c has their claims.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "shmem/crash.h"
#include "shmem/hosts.h"
#include "shmem/mailboxes.h"

Size
dja_hosts_size(void)
{
	return MAXALIGN(sizeof(DjaHosts));
}

void
dja_hosts_setup(void *memory)
{
	DjaHosts   *hosts = memory;
	uint64		random[2];

	StaticAssertStmt(DJA_MAX_HOST_CLAIMS <= 1 << DJA_TOKEN_CLAIM_BITS, "claims fit into a token");
	StaticAssertStmt(DJA_MAX_HOST_MESSAGES < 1 << DJA_TOKEN_ORDINAL_BITS, "turns fit into a token");
	memset(hosts, 0, sizeof(DjaHosts));
	if (!pg_strong_random(random, sizeof(random)))
	{
		random[0] = (uint64) GetCurrentTimestamp();
		random[1] = random[0] ^ (uint64) MyProcPid;
	}
	hosts->generation = random[0] & DJA_TOKEN_GENERATION_MASK;
	hosts->host_ids = random[1] >> 2;
	hosts->look_at = DJA_NEVER;
	for (int i = 0; i < DJA_MAX_HOST_CLAIMS; i++)
		hosts->claims[i].next = i + 1 < DJA_MAX_HOST_CLAIMS ? i + 1 : DJA_NO_HOST_CLAIM;
	hosts->free_claim = 0;
	hosts->free_claims = DJA_MAX_HOST_CLAIMS;
}

/*
 * Registers a host.  Returns DJA_NO_HOST if there is no room.
 */
int
dja_host_open(Oid database, Oid role, const uint64 *types, const int *state_versions, int ntypes,
			  const char *name, const char *version, int lease_ms)
{
	DjaHosts   *hosts = dja_shared->hosts;
	TimestampTz now = GetCurrentTimestamp();
	int			free = DJA_NO_HOST;
	DjaHost    *host;

	dja_assert_locked();
	Assert(ntypes <= DJA_MAX_HOST_TYPES);
	for (int i = 0; i < DJA_MAX_HOSTS; i++)
	{
		if (dja_host(i)->id == 0 || (dja_host(i)->gone && dja_host(i)->lease_until < now))
		{
			free = i;
			break;
		}
	}
	if (free < 0)
		return DJA_NO_HOST;
	host = dja_host(free);
	memset(host, 0, sizeof(DjaHost));
	hosts->host_ids = (hosts->host_ids + 1) & PG_INT64_MAX;
	host->id = (int64) Max(hosts->host_ids, 1);
	host->database = database;
	host->role = role;
	host->pid = MyProcPid;
	host->ntypes = ntypes;
	memcpy(host->types, types, sizeof(uint64) * ntypes);
	memcpy(host->state_versions, state_versions, sizeof(int) * ntypes);
	host->lease_ms = lease_ms;
	host->since = now;
	host->first_claim = DJA_NO_HOST_CLAIM;
	strlcpy(host->name, name, NAMEDATALEN);
	strlcpy(host->version, version, NAMEDATALEN);
	hosts->used = Max(hosts->used, free + 1);
	dja_host_renew(free, now);
	return free;
}

/*
 * Returns the host with an id, also one that is gone, or DJA_NO_HOST.
 */
int
dja_host_find(int64 id)
{
	dja_assert_locked();
	for (int i = 0; i < dja_shared->hosts->used; i++)
		if (dja_host(i)->id == id && id != 0)
			return i;
	return DJA_NO_HOST;
}

void
dja_host_renew(int i, TimestampTz now)
{
	dja_assert_locked();
	Assert(dja_host(i)->id != 0 && !dja_host(i)->gone);
	dja_host(i)->lease_until = TimestampTzPlusMilliseconds(now, dja_host(i)->lease_ms);
}

/*
 * Notes whether a host waits to be notified.
 */
void
dja_host_wait(int i, bool waiting)
{
	DjaHost    *host = dja_host(i);

	dja_assert_locked();
	if (host->waiting == waiting)
		return;
	host->waiting = waiting;
	dja_shared->hosts->waiting += waiting ? 1 : -1;
	Assert(dja_shared->hosts->waiting >= 0);
}

/*
 * Returns how many mailboxes were queued for a host so far.
 */
uint64
dja_host_queued(int i)
{
	DjaHost    *host = dja_host(i);
	uint64		queued = 0;

	dja_assert_locked();
	for (int t = 0; t < host->ntypes; t++)
	{
		int			type_queue = dja_type_queue_find(host->database, host->types[t]);

		if (type_queue >= 0)
			queued += dja_type_queue(type_queue)->times_queued;
	}
	return queued;
}

/*
 * Has a host that has found nothing wait to be notified.  Returns false if a mailbox was
 * queued for it since it began to look, when queued was read: it has to look again, since
 * no sender has seen it wait.  at_last: it does not look again, and is told at once if
 * there is mail that it may have.
 */
bool
dja_host_go_idle(int i, int64 id, uint64 queued, bool at_last)
{
	DjaHost    *host = dja_host(i);

	dja_assert_locked();
	if (host->id != id || host->gone)
		return true;			/* its lease was over meanwhile */
	if (dja_host_queued(i) != queued && !at_last)
		return false;
	dja_host_wait(i, true);
	for (int t = 0; t < host->ntypes; t++)
	{
		int			type_queue = dja_type_queue_find(host->database, host->types[t]);

		if (type_queue < 0)
			continue;
		dja_type_queue(type_queue)->hosts_told = false;
		if (at_last)
			dja_hosts_may_take_again(type_queue);
	}
	return true;
}

/*
 * May a host take more of this type now, if there is some?
 */
bool
dja_hosts_may_take(DjaTypeQueue *type_queue)
{
	dja_assert_locked();
	return type_queue->hosted && !type_queue->blocked && type_queue->spent_until == 0 &&
		(type_queue->concurrency == 0 || type_queue->workers < type_queue->concurrency) &&
		!dja_crash_owed(type_queue->database, type_queue->type_hash, false);
}

bool
dja_host_serves(DjaHost *host, DjaTypeQueue *type_queue)
{
	if (host->id == 0 || host->gone || host->database != type_queue->database)
		return false;
	for (int i = 0; i < host->ntypes; i++)
		if (host->types[i] == type_queue->type_hash)
			return true;
	return false;
}

/*
 * Does a host of this type queue wait to be notified?
 */
bool
dja_hosts_wait_for(DjaTypeQueue *type_queue)
{
	dja_assert_locked();
	if (dja_shared->hosts->waiting == 0 || !dja_hosts_may_take(type_queue))
		return false;
	for (int i = 0; i < dja_shared->hosts->used; i++)
		if (dja_host(i)->waiting && !dja_host(i)->draining && dja_host_serves(dja_host(i), type_queue))
			return true;
	return false;
}

/*
 * Has waiting hosts told of the mail of a type queue that they could not take until now.
 */
void
dja_hosts_may_take_again(int i)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	if (!type_queue->in_use || !type_queue->hosted || type_queue->queued.length == 0)
		return;
	dja_note_host_mail(type_queue);
	if (type_queue->ring_hosts && type_queue->pool >= 0)
		dja_wake_pool(type_queue->pool);
}

/*
 * Ends a host: gives back its claims, except those that a transaction completes.
 * died: its process has, and has not closed the host.  Its entry is kept for a while
 * then.
 */
void
dja_host_end(int i, bool died)
{
	DjaHost    *host = dja_host(i);

	dja_assert_locked();
	Assert(host->id != 0 && !host->gone);
	dja_host_wait(i, false);
	host->gone = true;
	host->lease_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_HOST_KEPT_MS);
	while (host->first_claim >= 0)
	{
		int			claim = host->first_claim;

		if (!died)
			dja_host_claim_unused(claim);
		if (dja_host_claim(claim)->attached != DJA_NO_PROC)
			dja_host_claim_unlink(claim);
		else
			dja_host_claim_lost(claim, died);
	}
	if (!died)
		dja_host_forget(i);
}

/*
 * Clears the mailboxes that a host died with last of suspicion, since it is known which
 * of them was at fault.
 */
void
dja_host_acquit(int host)
{
	dja_assert_locked();
	for (int i = 0; i < dja_shared->queue->size; i++)
	{
		DjaMailbox *mailbox = dja_mailbox(i);

		if (mailbox->state == DJA_MAILBOX_FREE || mailbox->died_with != host)
			continue;
		mailbox->ends = 0;
		mailbox->died_with = -1;
	}
}

/*
 * Frees the entry of a host that is gone.
 */
void
dja_host_forget(int i)
{
	dja_assert_locked();
	Assert(dja_host(i)->gone && dja_host(i)->first_claim < 0);
	dja_host(i)->id = 0;
}

/*
 * Takes back the claims of hosts whose lease is over, and those whose turn has lasted
 * longer than it may.  Returns when to look again, and in *lost how many claims there
 * were.
 */
TimestampTz
dja_hosts_reap(TimestampTz now, int *lost)
{
	TimestampTz again = DJA_NEVER;

	dja_assert_locked();
	*lost = 0;
	for (int h = 0; h < dja_shared->hosts->used; h++)
	{
		DjaHost    *host = dja_host(h);
		int			next;

		if (host->id == 0 || host->gone)
			continue;
		if (host->lease_until <= now)
		{
			*lost += host->nclaims;
			dja_host_end(h, true);
			continue;
		}
		again = Min(again, host->lease_until);
		for (int i = host->first_claim; i >= 0; i = next)
		{
			DjaHostClaim *claim = dja_host_claim(i);
			TimestampTz until = dja_host_claim_late_at(claim);

			next = claim->next;
			if (claim->cancelled != 0 && dja_host_claim_signal(claim))
				again = Min(again, TimestampTzPlusMilliseconds(now, DJA_HOST_CANCEL_MS));
			if (claim->limit_ms == 0)
				continue;
			if (claim->attached != DJA_NO_PROC) /* it was just taken, or a
												 * turn of it ends */
				again = Min(again, Max(until, TimestampTzPlusMilliseconds(now, DJA_HOST_ATTACHED_MS)));
			else if (until <= now)
			{
				dja_host_claim_lost(i, true);
				*lost += 1;
			}
			else
				again = Min(again, until);
		}
	}
	dja_shared->hosts->look_at = again;
	return again;
}
