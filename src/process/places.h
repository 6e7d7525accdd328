/*
 * places.h
 *
 * The places of workers, djactor.max_workers of them: which pool has one, which
 * gets one, and which worker has to end.  Called by the launcher alone.
 */
#ifndef DJA_PLACES_H
#define DJA_PLACES_H

#include "utils/timestamp.h"

extern void dja_places_init(void);

/* True while a worker is starting. */
extern bool dja_places_reap(void);

/* Has a worker left whose process is still there? */
extern bool dja_places_leaving(void);

extern bool dja_place_free(void);
extern bool dja_place_take(int pool);

/*
 * Asks workers to end in favour of pools that wait.  pools of them have no worker.
 * reliefs have all their workers in long turns, and get places of idle workers
 * only.  waits tells, by pool, which pools these are.  Returns when to look again
 * at the latest.
 */
extern TimestampTz dja_places_clear(int pools, int reliefs, const bool *waits, TimestampTz now);

#endif							/* DJA_PLACES_H */
