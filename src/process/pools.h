/*
 * pools.h
 *
 * Decides which workers run.  Called by the launcher alone.
 */
#ifndef DJA_POOLS_H
#define DJA_POOLS_H

#include "utils/timestamp.h"

/* Starts and stops workers.  Returns when to look again at the latest. */
extern TimestampTz dja_see_to_pools(TimestampTz now);

#endif							/* DJA_POOLS_H */
