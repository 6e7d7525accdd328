/*
 * timekeeper.h
 *
 * What a pool's resident does besides handling mail: sweeps, delays, retries.
 * What is old goes by retention.c.
 */
#ifndef DJA_TIMEKEEPER_H
#define DJA_TIMEKEEPER_H

#include "datatype/timestamp.h"

extern bool dja_sweep(int pool);
extern bool dja_release_due(int pool);
extern bool dja_recheck_blocked(int pool);

#endif							/* DJA_TIMEKEEPER_H */
