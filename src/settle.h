/*
 * settle.h
 *
 * The ends of a message besides a good turn; see settle.c.
 */
#ifndef DJA_SETTLE_H
#define DJA_SETTLE_H

#include "run.h"

extern bool dja_message_failed(DjaBatch *batch, DjaRun *run, DjaActor *actor, DjaMessage *message,
							   DjaError *error);
extern bool dja_run_without_turn(DjaBatch *batch, DjaRun *run, DjaMessage *message, TimestampTz now);
extern void dja_log_newer(DjaActor *actor);

#endif							/* DJA_SETTLE_H */
