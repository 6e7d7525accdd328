/*
 * turn_run.h
 *
 * Making one turn.  All calls need a batch in phase TURN, and a message and an
 * actor of its claim.  After a turn that comes out well the message is HANDLED or
 * ASIDE, and the actor in memory is what the turn has made of it.
 *
 * dja_turn_finish() is the end of a turn whose handler has come to its end, here or
 * outside the server.
 */
#ifndef DJA_TURN_RUN_H
#define DJA_TURN_RUN_H

#include "turn/visit.h"

extern List *dja_turn_run(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message,
						  TimestampTz now);
extern List *dja_turn_finish(DjaBatch *batch, DjaActor *actor, DjaMessage *message, DjaResult *result,
							 TimestampTz started);
extern DjaError *dja_turn_in_savepoint(DjaBatch *batch, DjaClaim *claim, DjaActor *actor,
									   DjaMessage *message, TimestampTz now);

#endif							/* DJA_TURN_RUN_H */
