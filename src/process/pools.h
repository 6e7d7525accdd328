/*
 * pools.h
 *
 * Which workers run; called by the launcher alone.
 */
#ifndef DJA_POOLS_H
#define DJA_POOLS_H

#include "utils/timestamp.h"

/* returns when to look again at the latest */
extern TimestampTz dja_see_to_pools(TimestampTz now);

#endif							/* DJA_POOLS_H */
