/*
 * turn.h
 *
 * The turn that is running in this session, if any: what self(), message() and
 * the defaults of djactor.message's columns answer from.  Set by the batch (or
 * by drain) around each call of a handler, read by everybody.
 */
#ifndef DJA_TURN_H
#define DJA_TURN_H

#include "tables/actor.h"
#include "tables/message.h"
#include "turn/visit.h"

typedef struct DjaTurn
{
	DjaActor   *actor;			/* NULL outside a turn */
	DjaMessage *message;
} DjaTurn;

extern DjaTurn dja_turn;

extern void dja_require_turn(const char *function);
extern void dja_turn_batch(DjaBatch *batch);
extern void dja_turn_execute(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message,
							 TimestampTz now);
extern DjaError *dja_turn_in_savepoint(DjaBatch *batch, DjaClaim *claim, DjaActor *actor,
									   DjaMessage *message, TimestampTz now);
extern void dja_turn_over(void);

/* inside a turn: what the batch holds in memory, else NULL */
extern DjaActor *dja_batch_actor(DjaType *type, text *key);
extern DjaMessage *dja_batch_message(int64 id);
extern DjaClaim *dja_batch_mailbox(DjaType *type, uint64 key_hash);

#endif							/* DJA_TURN_H */
