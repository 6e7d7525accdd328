/*
 * hosts.h
 *
 * Hosts: client sessions that take the mail of hosted actor types, and the claims
 * that they hold while their own processes run the turns.
 *
 * A worker's claim ends with its batch.  A host's claim spans many statements and
 * may be completed in another session than the one that took it.  So it stands in
 * shared memory, in the list of its host:
 *
 *           dja_host_pop                dja_host_claim_attach
 *   (free) -------------> held by host ----------------------> and by a transaction
 *      ^                    |      ^                              |
 *      |   all done,        |      |    its end                   |
 *      +--------------------+      +------------------------------+
 *      |   released, the session or its lease has ended           |
 *      +----------------------------------------------------------+
 *                    the host has gone, or given it up, meanwhile
 *
 * What always holds:
 *   - The mailbox of a claim is RUNNING, with DJA_HOSTED_PROC as its claimer.
 *   - A claim to which a transaction is attached is ended by that transaction only.
 *     If its host goes meanwhile, or has another session call for the claim, the
 *     claim loses its host, and ends with the transaction.
 *   - Turns of a claim end in their order: the one with ordinal n after n - 1
 *     have been committed.
 *
 * A token names a turn: (generation of the claim, the last bits of the message's id,
 * index of the claim, ordinal of the turn).  Generations are counted from a random
 * number, which is drawn whenever shared memory is set up.  So a token is not valid
 * again after its claim has ended, nor after a crash of the server.  The bits of the id
 * tell a host that takes one message of its claim for another.
 *
 * Written by, always under the lock:
 *   host.*			its session; lease_until and draining also by other sessions of
 *					its role; the launcher, when the lease is over
 *   claim.*		the host's session; then the transaction that is attached to it,
 *				begun by that also without the lock; cancelled by who cancels a message
 *
 * A host's id is drawn at random, too.  The entry of a host whose process has died
 * is kept for a while, so that its supervisor can report which message was at fault.
 *
 * Every function needs dja_shared->lock, asserts it, and raises no error.
 */
#ifndef DJA_HOSTS_H
#define DJA_HOSTS_H

#include "shmem/run_queue.h"

#define DJA_HOST_CHANNEL "djactor_host" /* where hosts LISTEN */
#define DJA_HOST_MAIL "mail"	/* what they hear of mail; a number is the
								 * message that was cancelled */

#define DJA_MAX_HOSTS 256
#define DJA_MAX_HOST_TYPES 128	/* of one host */
#define DJA_MAX_HOST_CLAIMS 32768	/* of all hosts: 15 bits of a token */
#define DJA_MAX_HOST_MESSAGES 1000	/* of a claim; less than 10 bits hold */
#define DJA_HOST_KEPT_MS 60000	/* after the death of its process */
#define DJA_HOST_GRACE_MS 5000	/* from the time limit of a turn until its
								 * claim is taken back */
#define DJA_HOST_ATTACHED_MS 1000	/* until a claim is looked at again to
									 * which a transaction is attached */
#define DJA_HOST_CANCEL_MS 50	/* between two cancels of a turn whose message
								 * was cancelled */
#define DJA_DEATHS_SUSPECT 2	/* processes that died with a mailbox, in a
								 * row */

#define DJA_NO_HOST (-1)		/* instead of the index of a host */
#define DJA_NO_HOST_CLAIM (-1)	/* instead of the index of a claim */

typedef struct DjaHost
{
	int64		id;				/* 0 = free */
	Oid			database;
	Oid			role;
	int			pid;
	bool		gone;			/* its process died; kept for the report */
	bool		draining;		/* takes nothing more */
	bool		waiting;		/* its last take() has found nothing */
	bool		emptying;		/* takes nothing until it has no claims, and a
								 * suspected mailbox then */
	int			ntypes;
	uint64		types[DJA_MAX_HOST_TYPES];
	int			state_versions[DJA_MAX_HOST_TYPES]; /* when it was opened:
													 * what its code knows */
	int			rotor;			/* the type whose turn it is */
	int			lease_ms;
	TimestampTz since;
	TimestampTz lease_until;	/* when gone: how long it is kept */
	int64		charged_id;		/* message charged with its death */
	int			first_claim;	/* list of its claims, or DJA_NO_HOST_CLAIM */
	int			nclaims;
	char		name[NAMEDATALEN];
	char		version[NAMEDATALEN];
} DjaHost;

/* A version of an actor's row. */
typedef struct DjaVersion
{
	uint64		row;			/* encoded TID; 0 = it has no row */
	TransactionId xmin;
} DjaVersion;

typedef struct DjaHostClaim
{
	uint64		generation;		/* 0 = free */
	int			mailbox;
	int			host;			/* or DJA_NO_HOST */
	int			next;			/* in the host's list, or in the free list */
	int			previous;
	int			attached;		/* procno of the transaction that is attached
								 * to it, or DJA_NO_PROC */
	int			attached_entry; /* ... and where that has it in its own list */
	int			taken;			/* turns handed out */
	TimestampTz taken_at;		/* before that */
	uint64		tenant_value;	/* of the tenant whose rate they count for, or
								 * 0 */
	int			done;			/* ... and committed */
	bool		alone;			/* its mailbox is suspected */
	DjaClaimEnd end;			/* once all that were taken are done */
	int64		cursor;
	DjaVersion	actor;			/* that its next turn was handed, or has left */
	int			state_version;	/* of its type, which its host knows */
	int64		message_id;		/* that is running; 0 = the first that is not
								 * done */
	int64		last;			/* position of the last message handed out */
	volatile int64 begun;		/* the message between begin_turn() and
								 * end_turn() */
	int64		cancelled;		/* a message of it that was cancelled */
	int64		progress_id;	/* the message whose turn has said how far it
								 * is; 0 = none */
	int			progress_turn;	/* ... and the turn's ordinal */
	int			limit_ms;		/* of a turn; 0 = none */
	TimestampTz progress_at;	/* when a turn of it ended last */
} DjaHostClaim;

struct DjaHosts
{
	uint64		generation;		/* of the latest claim */
	uint64		host_ids;		/* the latest host's id is made of it */
	int			waiting;		/* hosts that wait */
	TimestampTz look_at;		/* when the launcher looks at them next */
	int			used;			/* entries of hosts[] that were ever used */
	int			free_claim;
	int			free_claims;
	DjaHost		hosts[DJA_MAX_HOSTS];
	DjaHostClaim claims[DJA_MAX_HOST_CLAIMS];
};

extern Size dja_hosts_size(void);
extern void dja_hosts_setup(void *memory);

/* hosts: hosts.c */
extern int	dja_host_open(Oid database, Oid role, const uint64 *types, const int *state_versions,
						  int ntypes, const char *name, const char *version, int lease_ms);
extern int	dja_host_find(int64 id);
extern void dja_host_end(int host, bool died);
extern void dja_host_renew(int host, TimestampTz now);
extern void dja_host_acquit(int host);
extern void dja_host_forget(int host);
extern void dja_host_wait(int host, bool waiting);
extern uint64 dja_host_queued(int host);
extern bool dja_host_go_idle(int host, int64 id, uint64 queued, bool at_last);
extern bool dja_hosts_wait_for(DjaTypeQueue *type_queue);
extern bool dja_hosts_may_take(DjaTypeQueue *type_queue);
extern void dja_hosts_may_take_again(int type_queue);
extern TimestampTz dja_hosts_reap(TimestampTz now, int *lost);
extern bool dja_host_serves(DjaHost *host, DjaTypeQueue *type_queue);

/* their claims: host_claims.c */
extern int	dja_host_pop(int host, int64 id, TimestampTz now);
extern int	dja_host_claim_mailbox(int type_queue, uint64 key_hash);
extern int	dja_host_claim_of(Oid database, uint64 type_hash, uint64 key_hash);
extern int	dja_host_claim_find(int64 token, int *ordinal);
extern bool dja_host_claim_limit(int claim, int limit_ms);
extern bool dja_host_claim_attach(int claim, int entry);
extern void dja_host_claim_abandon(int claim);
extern void dja_host_claim_unused(int claim);
extern void dja_host_claim_quiet(int claim);
extern bool dja_host_cancel(Oid database, uint64 type_hash, uint64 key_hash, int64 position, int64 message_id);
extern void dja_host_claim_unlink(int claim);
extern bool dja_host_claim_signal(DjaHostClaim *claim);
extern TimestampTz dja_host_claim_late_at(DjaHostClaim *claim);
extern void dja_host_claim_lost(int claim, bool died);
extern void dja_host_claim_end(int claim, DjaClaimEnd end, int64 cursor, int freed, int run_alone);

#define dja_host(i) (&dja_shared->hosts->hosts[i])
#define dja_host_claim(i) (&dja_shared->hosts->claims[i])

/* Parts of a token. */
#define DJA_TOKEN_ORDINAL_BITS 10
#define DJA_TOKEN_CLAIM_BITS 15
#define DJA_TOKEN_MESSAGE_BITS 10
#define DJA_TOKEN_MESSAGE_SHIFT (DJA_TOKEN_ORDINAL_BITS + DJA_TOKEN_CLAIM_BITS)
#define DJA_TOKEN_GENERATION_SHIFT (DJA_TOKEN_MESSAGE_SHIFT + DJA_TOKEN_MESSAGE_BITS)
#define DJA_TOKEN_GENERATION_MASK ((UINT64CONST(1) << (63 - DJA_TOKEN_GENERATION_SHIFT)) - 1)

static inline uint64
dja_token_message_bits(int64 message_id)
{
	return (uint64) message_id & ((1 << DJA_TOKEN_MESSAGE_BITS) - 1);
}

/*
 * Returns the token of a turn of a claim; ordinals begin with 1.  Ordinal and message 0
 * stand for the claim itself.
 */
static inline int64
dja_host_token(int claim, int ordinal, int64 message_id)
{
	return (int64) ((dja_host_claim(claim)->generation << DJA_TOKEN_GENERATION_SHIFT) |
					(dja_token_message_bits(message_id) << DJA_TOKEN_MESSAGE_SHIFT) |
					((uint64) claim << DJA_TOKEN_ORDINAL_BITS) | (uint64) ordinal);
}

/*
 * Can a token be that of a message?
 */
static inline bool
dja_token_fits(int64 token, int64 message_id)
{
	return dja_token_message_bits(token >> DJA_TOKEN_MESSAGE_SHIFT) == dja_token_message_bits(message_id);
}

static inline bool
dja_version_equal(DjaVersion a, DjaVersion b)
{
	return a.row == b.row && a.xmin == b.xmin;
}

#endif							/* DJA_HOSTS_H */
