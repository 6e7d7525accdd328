/*
 * run.h
 *
 * The steps of a batch turn: read claimed mailboxes, call the handlers one
 * after the other, write what came of it.  Two put them together: batch.c in a
 * worker's own transactions, drain.c inside its caller's.
 *
 * Everything hangs on a DjaBatch.  batch->context lives until the claims are
 * given back; batch->attempt is emptied whenever the transaction has to start
 * over.
 */
#ifndef DJA_RUN_H
#define DJA_RUN_H

#include "actor.h"
#include "failure.h"
#include "handler.h"
#include "mailbox.h"
#include "runqueue.h"

/* A claimed mailbox in a batch. */
typedef struct DjaRun
{
	int			mailbox;
	int			lane;
	uint64		type_hash;
	uint64		key_hash;
	uint64		epoch;			/* of the lane, before its type was looked at */
	int64		start;			/* where it was read from */
	int64		cursor;			/* where to read from, or to go on from */
	DjaRunEnd	end;
	int			removed;		/* messages that left the mailbox */
	int			freed;			/* those of them that count against its limit */
	bool		alone;			/* its first message is to be run alone next */
	bool		suspended;		/* after an abort: its actor has been
								 * suspended */
	DjaType    *type;
	uint32		generation;		/* of the type, when it was looked at */
	DjaActor   *actors;
	int			quota;			/* messages to be read; 0 = its type cannot be
								 * run */
	int			first_entry;	/* while it is read: its entries in the index */
	int			nentries;
	DjaMessage **messages;		/* read, in their order */
	int			nmessages;
	bool		reread;			/* what was read is not what waits: read it
								 * anew */
} DjaRun;

typedef enum DjaSavepoints
{
	DJA_SAVEPOINT_NEVER,		/* an error aborts the whole transaction */
	DJA_SAVEPOINT_CAREFUL,		/* one around each message of a careful type */
	DJA_SAVEPOINT_ALWAYS
} DjaSavepoints;

typedef enum DjaPhase
{
	DJA_PHASE_READING,
	DJA_PHASE_TURN,
	DJA_PHASE_WRITING,
	DJA_PHASE_COMMITTING,
	DJA_PHASE_COMMITTED
} DjaPhase;

/* What stands in one transaction, or in one round of drain(). */
typedef struct DjaBatch
{
	MemoryContext context;		/* the batch and its runs */
	MemoryContext attempt;		/* what was read and is to be written */
	MemoryContext turn;			/* what one handler leaves */
	bool		own_transaction;	/* a worker's: deferred triggers fire in
									 * each turn */
	DjaSavepoints savepoints;
	DjaRun	  **runs;
	int			nruns;
	int			max_runs;
	int			budget;			/* messages still to be handled */
	TimestampTz deadline;
	TimestampTz clock;			/* end of the last turn, where the next one
								 * starts */
	int			writing;		/* subtransactions that wrote */

	/* where an error comes from, for who has to catch it */
	DjaPhase	phase;
	DjaRun	   *run;			/* of the last turn; while writing, of the row
								 * written */
	DjaMessage *message;		/* of the last turn */
	int			executed;		/* handlers called in this transaction */
	int			turns;			/* those that came out well */
	bool		actor_read;		/* the last turn's actor */

	/* what the end of the transaction has to do */
	uint64	   *handled;		/* places of their rows */
	int			nhandled;
	int			max_handled;
	DjaWriter  *messages;
	DjaWriter  *actors;
	DjaWriter  *identities;
	TupleTableSlot *actor_slot;
	BlockNumber actor_blocks;	/* while it is locked it gets no shorter */
} DjaBatch;

/*
 * A message has left its mailbox.
 */
static inline void
dja_run_remove(DjaRun *run, DjaMessage *message)
{
	run->removed++;
	run->freed += message->plain || dja_message_is_kind(message, "user");
}

extern DjaBatch *dja_batch_create(bool own_transaction, DjaSavepoints savepoints);
extern void dja_batch_add(DjaBatch *batch, int mailbox);
extern void dja_batch_begin(DjaBatch *batch);
extern void dja_batch_read(DjaBatch *batch, int first, int quota);
extern bool dja_batch_execute(DjaBatch *batch, int first);
extern void dja_batch_write(DjaBatch *batch);
extern DjaActor *dja_run_actor(DjaBatch *batch, DjaRun *run, text *key);
extern bool dja_run_resolve(DjaBatch *batch, DjaRun *run);

#endif							/* DJA_RUN_H */
