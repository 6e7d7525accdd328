/*
 * turn.h
 *
 * The turn that is running in this session, if any.  self(), message() and the
 * defaults of djactor.message's columns answer from it.  turn_run.c sets it around
 * each call of a handler.
 */
#ifndef DJA_TURN_H
#define DJA_TURN_H

#include "tables/actor.h"
#include "tables/message.h"
#include "turn/visit.h"

/* Requests of a turn about itself, which are met at its end. */
typedef enum DjaTurnFlag
{
	DJA_TURN_STASH,				/* its message */
	DJA_TURN_UNSTASHED,			/* its actor's stash was emptied */
	DJA_TURN_DEFER,				/* its answer */
	DJA_TURN_ANSWERED			/* it has its answer */
} DjaTurnFlag;

#define DJA_TURN_NFLAGS (DJA_TURN_ANSWERED + 1)

typedef struct DjaTurn
{
	DjaActor   *actor;			/* NULL outside a turn, as is all below */
	DjaMessage *message;
	SubTransactionId asked_in[DJA_TURN_NFLAGS]; /* with which each flag would
												 * be rolled back;
												 * InvalidSubTransactionId =
												 * not asked for */
	Datum		reply;			/* the answer that was given, 0 = an error */
} DjaTurn;

extern DjaTurn dja_turn;

extern void dja_require_turn(const char *function);
extern void dja_turn_batch(DjaBatch *batch);
extern void dja_turn_enter(DjaActor *actor, DjaMessage *message);
extern void dja_turn_leave(void);
extern void dja_turn_over(void);

/* inside a turn: its requests, as long as no savepoint takes them back */
extern void dja_turn_ask(DjaTurnFlag flag);
extern void dja_turn_subxact_ended(bool committed, SubTransactionId subid, SubTransactionId parent);
#define dja_turn_asks(flag) (dja_turn.asked_in[flag] != InvalidSubTransactionId)

/* inside a turn: things that the batch holds in memory, else NULL */
extern DjaActor *dja_batch_actor(DjaType *type, text *key);
extern DjaMessage *dja_batch_message(int64 id);
extern DjaClaim *dja_batch_mailbox(DjaType *type, uint64 key_hash);
extern DjaClaim *dja_batch_claim_of(DjaActor *actor);

#endif							/* DJA_TURN_H */
