/*
 * turn.h
 *
 * The turn that is running in this session, if any: what self(), message() and
 * the defaults of djactor.message's columns answer from.  Set by the batch (or
 * by drain) around each call of a handler, read by everybody.
 */
#ifndef DJA_TURN_H
#define DJA_TURN_H

#include "actor.h"
#include "mailbox.h"

typedef struct DjaTurn
{
	DjaActor   *actor;			/* NULL outside a turn */
	DjaMessage *message;
} DjaTurn;

extern DjaTurn dja_turn;

#endif							/* DJA_TURN_H */
