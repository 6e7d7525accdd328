/*
 * clock.h
 *
 * The time by which mail is due.  It is the server's clock, unless drain() has
 * moved it in this session to see what is due later.
 */
#ifndef DJA_CLOCK_H
#define DJA_CLOCK_H

#include "datatype/timestamp.h"

extern TimestampTz dja_clock(void);
extern void dja_clock_move(TimestampTz to);
extern void dja_clock_reset(void);

#endif							/* DJA_CLOCK_H */
