/*
 * turn_run.h
 *
 * Making one turn.  Both calls need a batch in phase TURN, and a message and an
 * actor of its claim.  After a turn that comes out well the message is HANDLED or
 * ASIDE, and the actor in memory is what the turn has made of it.
 */
#ifndef DJA_TURN_RUN_H
#define DJA_TURN_RUN_H

#include "turn/visit.h"

extern void dja_turn_execute(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message,
							 TimestampTz now);
extern DjaError *dja_turn_in_savepoint(DjaBatch *batch, DjaClaim *claim, DjaActor *actor,
									   DjaMessage *message, TimestampTz now);

#endif							/* DJA_TURN_RUN_H */
