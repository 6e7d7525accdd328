/*
 * timekeeper.h
 *
 * The duties of a pool's resident besides mail: sweeps, delays, retries.
 * retention.c deletes old rows.
 */
#ifndef DJA_TIMEKEEPER_H
#define DJA_TIMEKEEPER_H

#include "datatype/timestamp.h"

extern bool dja_sweep(int pool);
extern bool dja_release_due(int pool);
extern bool dja_recheck_blocked(int pool);

#endif							/* DJA_TIMEKEEPER_H */
