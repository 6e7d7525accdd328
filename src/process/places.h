/*
 * places.h
 *
 * The places of workers, djactor.max_workers of them: who has one, who gets
 * one, who has to go; the launcher's.
 */
#ifndef DJA_PLACES_H
#define DJA_PLACES_H

#include "utils/timestamp.h"

extern void dja_places_init(MemoryContext context);

/* True while a worker is starting. */
extern bool dja_places_reap(void);

/* Has a worker left whose process is still there? */
extern bool dja_places_leaving(void);

extern bool dja_place_free(void);
extern bool dja_place_take(int pool);

/*
 * Asks workers to end for pools that wait: so many that have nobody, and so
 * many whose workers are all in long turns, which get idle workers' places only.
 * Returns when to look again at the latest.
 */
extern TimestampTz dja_places_clear(int pools, int reliefs, const bool *waits, TimestampTz now);

#endif							/* DJA_PLACES_H */
