/*
 * turn_outcome.h
 *
 * The ends of a message besides a good turn; see turn_outcome.c.
 */
#ifndef DJA_TURN_OUTCOME_H
#define DJA_TURN_OUTCOME_H

#include "turn/visit.h"

extern bool dja_message_failed(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message,
							   DjaError *error);
extern bool dja_claim_without_turn(DjaBatch *batch, DjaClaim *claim, DjaMessage *message, TimestampTz now);
extern void dja_log_newer(DjaActor *actor);

#endif							/* DJA_TURN_OUTCOME_H */
