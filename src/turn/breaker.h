/*
 * breaker.h
 *
 * Pauses a type that fails too often.
 */
#ifndef DJA_BREAKER_H
#define DJA_BREAKER_H

#include "tables/actor_type.h"

extern void dja_breaker_count(int type_queue, DjaType *type);

#endif							/* DJA_BREAKER_H */
