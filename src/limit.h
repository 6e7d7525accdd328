/*
 * limit.h
 *
 * The time limit of a turn: handler_timeout, deferred triggers included.
 */
#ifndef DJA_LIMIT_H
#define DJA_LIMIT_H

#include "datatype/timestamp.h"

extern void dja_limit_begin(int timeout, TimestampTz now);
extern void dja_limit_end(void);
extern void dja_limit_stop(void);
extern void dja_limit_rest(void);
extern volatile bool dja_limit_exceeded;

#endif							/* DJA_LIMIT_H */
