/*
 * stop.h
 *
 * The end of an actor.
 */
#ifndef DJA_STOP_H
#define DJA_STOP_H

#include "turn/visit.h"

extern void dja_actor_end(DjaClaim *claim, DjaActor *actor, DjaMessage *current, bool discard);

#endif							/* DJA_STOP_H */
