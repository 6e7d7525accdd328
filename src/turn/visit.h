/*
 * visit.h
 *
 * The steps of a batch: read a claimed mailbox, call its handler for one message
 * after the other, write the results.  Two files put them together: batch.c in a
 * worker's own transactions, drain.c inside its caller's.
 *
 * A batch takes one mailbox after the other, and visits each for a moment.  It
 * comes back to the mail that is left there when no other mailbox waits.
 *
 * Everything hangs on a DjaBatch.  batch->context lives until the claims are
 * given back.  batch->memory is emptied when a transaction has ended and another
 * one writes down a failure.  batch->turn is emptied after each turn.
 *
 * batch->phase says which steps may be called, and the steps assert it:
 *
 *   dja_batch_begin			begins with READING
 *   dja_claim_read, dja_batch_visit	in READING; TURN while a handler is called
 *   dja_batch_write			in READING; ends in WRITING
 *   (the worker's commit)		COMMITTING, then COMMITTED
 */
#ifndef DJA_VISIT_H
#define DJA_VISIT_H

#include "shmem/run_queue.h"
#include "tables/actor.h"
#include "tables/handler.h"
#include "tables/message.h"
#include "turn/failure.h"

#define DJA_VISIT_USEC 1000		/* then it is another mailbox's turn */

/*
 * How an attempt is made, the most careful last.  The mode says what the attempt
 * shares, and so which turns an error takes along and which may have caused it.
 */
typedef enum DjaMode
{
	DJA_MODE_FAST,				/* a transaction with others: an error takes
								 * all of them along */
	DJA_MODE_SAVEPOINTS,		/* likewise, a savepoint around each turn */
	DJA_MODE_ONE				/* a transaction of its own, its rows locked
								 * before the handler is called */
} DjaMode;

/* A claimed mailbox in a batch. */
typedef struct DjaClaim
{
	int			mailbox;
	int			type_queue;
	uint64		type_hash;
	uint64		key_hash;
	uint64		epoch;			/* of the type queue, before its type was
								 * looked at */
	int64		start;			/* where it was read from */
	int64		cursor;			/* where to read from, or to go on from */
	DjaClaimEnd end;
	int64		read_cursor;	/* the same when all that was read is dealt
								 * with */
	DjaClaimEnd read_end;
	int			removed;		/* messages that left the mailbox */
	int			freed;			/* those of them that count against its limit */
	int			turns;			/* handlers called in this transaction */
	int			rated;			/* those of them that count for its type's
								 * rate */
	int			run_alone;		/* so many of its messages are run alone next */
	char	   *waiting;		/* when put off: the actor, for people */
	TransactionId locker;		/* ... and who has the row, if known */
	bool		asker_dropped;	/* ... or the type of the asking actor is
								 * being dropped */
	DjaType    *type;
	uint32		generation;		/* of the type, when it was looked at */
	DjaActor   *actors;
	bool		was_read;
	ItemPointerData first;		/* row of the message at the cursor, if known:
								 * its older versions are passed by */
	int			quota;			/* messages to be read */
	DjaMessage **messages;		/* all that was read, in their order */
	int			nmessages;
	int			max_messages;
	int			next;			/* the first of them not yet dealt with */
	bool		closed;			/* this batch does not come back to it */
	bool		long_turn;		/* a turn has lasted long */
	bool		reread;			/* what was read is not what waits: read it
								 * anew */
} DjaClaim;

typedef enum DjaPhase
{
	DJA_PHASE_READING,
	DJA_PHASE_TURN,
	DJA_PHASE_WRITING,
	DJA_PHASE_COMMITTING,
	DJA_PHASE_COMMITTED
} DjaPhase;

/* A handled message: where its row is, and the claim that it was in. */
typedef struct DjaHandled
{
	uint64		row;
	DjaClaim   *claim;
} DjaHandled;

/* What stands in one transaction, or in one round of drain(). */
typedef struct DjaBatch
{
	MemoryContext context;		/* the batch and its claims */
	MemoryContext memory;		/* of the transaction: what was read */
	MemoryContext turn;			/* of one call of a handler */
	bool		own_transaction;	/* a worker's: deferred triggers fire in
									 * each turn */
	bool		hosted;			/* a host's: its turns run outside the server */
	DjaMode		mode;			/* of each turn, at least */
	DjaClaim  **claims;
	int			nclaims;
	int			max_claims;
	int			revisit;		/* where to look for what is left */
	int			budget;			/* turns that it may still have */
	TimestampTz started;
	TimestampTz deadline;
	TimestampTz clock;			/* end of the last turn, where the next one
								 * starts */
	int			writing;		/* subtransactions that wrote */

	/* where an error comes from, for the code that catches it */
	DjaPhase	phase;
	DjaClaim   *claim;			/* of the last turn; while writing, of the row
								 * written */
	DjaMessage *message;		/* of the last turn */
	int			executed;		/* handlers called in this transaction */
	int			turns;			/* those that came out well */
	bool		actor_read;		/* the last turn's actor */

	bool		waited_for;		/* another process waits for its locks */

	/* what the end of the transaction has to do */
	DjaHandled *handled;
	int			nhandled;
	int			max_handled;
	DjaWriter  *messages;
	DjaWriter  *actors;
	DjaWriter  *identities;
	TupleTableSlot *message_slot;
	TupleTableSlot *actor_slot;
	BlockNumber actor_blocks;	/* while it is locked it gets no shorter */
} DjaBatch;

/*
 * Counts a message that has left its mailbox.
 */
static inline void
dja_claim_remove(DjaClaim *claim, DjaMessage *message)
{
	claim->removed++;
	claim->freed += message->plain || dja_message_is_kind(message, "user");
}

/* Whether a message can have its turn. */
typedef enum DjaReady
{
	DJA_READY,					/* yes */
	DJA_READY_NO_MORE,			/* it has ended without a turn */
	DJA_READY_LATER				/* not now: the claim's end is set */
} DjaReady;

extern DjaBatch *dja_batch_create(bool own_transaction, DjaMode mode);
extern void dja_batch_free(DjaBatch *batch);
extern DjaClaim *dja_batch_add(DjaBatch *batch, int mailbox);
extern void dja_batch_begin(DjaBatch *batch);
extern bool dja_claim_in_fresh_session(DjaBatch *batch, DjaClaim *claim, DjaError *error);
extern bool dja_batch_visit(DjaBatch *batch, DjaClaim *claim);
extern DjaClaim *dja_batch_revisit(DjaBatch *batch);
extern void dja_batch_write(DjaBatch *batch);
extern DjaReady dja_turn_readiness(DjaBatch *batch, DjaClaim *claim, DjaMessage *message, DjaActor *actor,
								   DjaMode mode, TimestampTz now);
extern void dja_claim_handled(DjaBatch *batch, DjaClaim *claim, DjaMessage *message);
extern void dja_claim_leave(DjaClaim *claim, int from);
extern bool dja_is_dangerous(DjaMessage *message);
extern bool dja_claim_rated(DjaClaim *claim, DjaMessage *message);
extern void dja_claim_put_off(DjaBatch *batch, DjaClaim *claim, text *key, TransactionId locker);

/* read.c */
extern void dja_claim_read(DjaBatch *batch, DjaClaim *claim);
extern DjaActor *dja_claim_actor(DjaBatch *batch, DjaClaim *claim, text *key);
extern bool dja_claim_resolve(DjaBatch *batch, DjaClaim *claim);

#endif							/* DJA_VISIT_H */
