/*
 * timer.h
 *
 * Named durable timers of actors.
 */
#ifndef DJA_TIMER_H
#define DJA_TIMER_H

#include "mailbox.h"

extern bool dja_timer_fires(DjaMessage *message, TimestampTz now);
extern void dja_timer_done(DjaMessage *message);
extern void dja_timer_cancelled(DjaMessage *message);
extern void dja_timers_drop(DjaType *type, text *key);

#endif							/* DJA_TIMER_H */
