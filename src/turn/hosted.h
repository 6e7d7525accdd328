/*
 * hosted.h
 *
 * Turns of hosted types: handed to a host, run in its processes, and ended here.
 *
 * hosted_claims.c keeps the claims that a transaction is attached to.  hosted_take.c
 * hands messages out.  hosted_turn.c ends turns one by one, hosted_complete.c many at
 * once, and hosted_check.c says which can be ended.
 *
 * Attaching is for a transaction.  While it lasts, no other process ends the claim.
 * At its end the claim learns which of its turns have been committed, or ends.
 */
#ifndef DJA_HOSTED_H
#define DJA_HOSTED_H

#include "nodes/execnodes.h"

#include "shmem/hosts.h"
#include "turn/visit.h"

/* How the end of a turn came out.  All but DONE end its claim. */
typedef enum DjaHostedOutcome
{
	DJA_TURN_DONE,
	DJA_TURN_STALE,				/* its claim has ended before, or it is not
								 * the next turn */
	DJA_TURN_CHANGED,			/* the state was changed by hand meanwhile */
	DJA_TURN_GONE,				/* the message was cancelled */
	DJA_TURN_HALTED,			/* actor or type were paused, suspended, or
								 * redefined */
	DJA_TURN_LOCKED				/* another transaction has locked a row */
} DjaHostedOutcome;

/* A claim that this transaction is attached to. */
typedef struct DjaAttachedClaim
{
	int			claim;
	int			mailbox;
	int			taken;			/* turns that were handed out */
	int			done;			/* ... those done, of this transaction
								 * included */
	int			freed;			/* messages of this transaction that have left
								 * it */
	DjaVersion	actor;			/* as the next turn has to find it */
	int			state_version;	/* likewise its type */
	bool		over;			/* ends with the transaction */
	bool		over_anyway;	/* ... even if that aborts */
	DjaClaimEnd end;			/* ... like this */
	int64		cursor;
	int			run_alone;
	bool		released;		/* ... since its host gives it back */
	bool		fresh;			/* taken by this transaction: ends if that
								 * aborts */
	SubTransactionId fresh_in;	/* ... or this part of it */
	DjaClaim   *claim_in_batch; /* used by complete() while it runs */
} DjaAttachedClaim;

/* hosted_claims.c */
extern void dja_hosted_init(void);
extern DjaAttachedClaim *dja_hosted_attach(int64 token);
extern int	dja_hosted_index(DjaAttachedClaim *attached);
extern DjaAttachedClaim *dja_hosted_at(int index);
extern DjaAttachedClaim *dja_hosted_attach_fresh(int claim);
extern DjaAttachedClaim *dja_hosted_attach_again(int claim);
extern void dja_hosted_remember(DjaAttachedClaim *attached);
extern void dja_hosted_begun(DjaAttachedClaim *attached, int64 message_id);
extern void dja_hosted_done(DjaAttachedClaim *attached, DjaVersion actor, int freed);
extern void dja_hosted_over(DjaAttachedClaim *attached, DjaClaimEnd end, int64 cursor, int run_alone);
extern void dja_hosted_over_anyway(DjaAttachedClaim *attached, DjaClaimEnd end);
extern void dja_hosted_in_batch(void (*step) (DjaBatch *batch, void *arg), void *arg);
extern bool dja_hosted_release(int64 token);
extern bool dja_hosted_progress(int64 token, uint64 type_hash, uint64 key_hash, int64 message_id,
								const char *text, int len);
extern void dja_hosted_over_for(DjaAttachedClaim *attached, DjaHostedOutcome outcome);

/* hosted_take.c */
extern int	dja_take_drained(int claim, ReturnSetInfo *rsinfo, bool *handed_out);

/* hosted_check.c */
extern const char *const dja_outcome_names[];
extern void dja_require_hosting(void);
extern DjaAttachedClaim *dja_attach_turn(int64 token, int64 message_id);
extern DjaClaim *dja_hosted_claim(DjaBatch *batch, DjaAttachedClaim *attached);
extern DjaHostedOutcome dja_message_outcome(DjaClaim *claim, DjaMessage *message);
extern DjaHostedOutcome dja_actor_outcome(DjaAttachedClaim *attached, DjaActor *actor);
extern void dja_hosted_count(DjaType *type, DjaMessage *message, TimestampTz started, TimestampTz now);
extern int	dja_message_frees(DjaMessage *message);

/* hosted_turn.c: the turn that is under way in the transaction */
extern bool dja_hosted_turn_is_open(void);
extern void dja_hosted_turn_forget(void);
extern void dja_hosted_turn_subxact_ended(bool committed, SubTransactionId subid,
										  SubTransactionId parent);

static inline DjaVersion
dja_actor_version(const DjaActor *actor)
{
	DjaVersion	version = {0, InvalidTransactionId};

	if (actor->exists)
	{
		version.row = dja_tid_encode(&actor->tid);
		version.xmin = actor->xmin;
	}
	return version;
}

#endif							/* DJA_HOSTED_H */
