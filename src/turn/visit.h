/*
 * visit.h
 *
 * The steps of a batch turn: read a claimed mailbox, call its handler for one
 * message after the other, write what came of it.  Two put them together:
 * batch.c in a worker's own transactions, drain.c inside its caller's.
 *
 * A batch takes one mailbox after the other, and visits each for a moment:
 * what is left of it is visited again when no other waits.
 *
 * Everything hangs on a DjaBatch.  batch->context lives until the claims are
 * given back; batch->memory is emptied when the transaction has ended and another
 * one writes down what became of it.
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
 * How an attempt is made, the most careful last: what it shares, and so what an
 * error takes along and who may have caused it.
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
	int			run_alone;		/* so many of its messages are to be run alone
								 * next */
	char	   *waiting;		/* when put off: the actor, for people */
	TransactionId locker;		/* ... and who has the row, if known */
	bool		asker_dropped;	/* ... or it is the type of who has asked that
								 * somebody drops */
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

/* A handled message: where its row is, and whose it was. */
typedef struct DjaHandled
{
	uint64		row;
	DjaClaim   *claim;
} DjaHandled;

/* What stands in one transaction, or in one round of drain(). */
typedef struct DjaBatch
{
	MemoryContext context;		/* the batch and its claims */
	MemoryContext memory;		/* what was read and is to be written */
	MemoryContext turn;			/* what one handler leaves */
	bool		own_transaction;	/* a worker's: deferred triggers fire in
									 * each turn */
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

	/* where an error comes from, for who has to catch it */
	DjaPhase	phase;
	DjaClaim   *claim;			/* of the last turn; while writing, of the row
								 * written */
	DjaMessage *message;		/* of the last turn */
	int			executed;		/* handlers called in this transaction */
	int			turns;			/* those that came out well */
	bool		actor_read;		/* the last turn's actor */

	bool		waited_for;		/* somebody waits for what it has locked */

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
 * A message has left its mailbox.
 */
static inline void
dja_claim_remove(DjaClaim *claim, DjaMessage *message)
{
	claim->removed++;
	claim->freed += message->plain || dja_message_is_kind(message, "user");
}

extern DjaBatch *dja_batch_create(bool own_transaction, DjaMode mode);
extern void dja_batch_free(DjaBatch *batch);
extern DjaClaim *dja_batch_add(DjaBatch *batch, int mailbox);
extern void dja_batch_begin(DjaBatch *batch);
extern bool dja_claim_in_fresh_session(DjaBatch *batch, DjaClaim *claim, DjaError *error);
extern bool dja_batch_visit(DjaBatch *batch, DjaClaim *claim);
extern DjaClaim *dja_batch_revisit(DjaBatch *batch);
extern void dja_batch_write(DjaBatch *batch);
extern void dja_claim_put_off(DjaBatch *batch, DjaClaim *claim, text *key, TransactionId locker);

/* read.c */
extern void dja_claim_read(DjaBatch *batch, DjaClaim *claim);
extern DjaActor *dja_claim_actor(DjaBatch *batch, DjaClaim *claim, text *key);
extern bool dja_claim_resolve(DjaBatch *batch, DjaClaim *claim);

#endif							/* DJA_VISIT_H */
