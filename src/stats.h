/*
 * stats.h
 *
 * What djactor.stat shows: counters, rates and percentiles of each actor type.
 *
 * Always on.  A worker notes in its own memory what its transaction does, and
 * adds it to shared memory once that has committed: what was aborted never
 * counts.  Only workers count; in any other process these calls do nothing, so
 * drain() counts nothing, whose transaction may be rolled back long after.
 */
#ifndef DJA_STATS_H
#define DJA_STATS_H

#include "actor_type.h"
#include "shmem.h"

typedef enum DjaStatCounter
{
	DJA_STAT_HANDLED,			/* dja_stat_handled's */
	DJA_STAT_FAILED,			/* attempts used up */
	DJA_STAT_RETRIED,			/* attempts, used up or not, to be made again */
	DJA_STAT_DEAD,				/* messages given up */
	DJA_STAT_DUPLICATES,		/* messages discarded for their idempotency
								 * key */
	DJA_STAT_EXPIRED,			/* asks that came too late */
	DJA_STAT_NCOUNTERS
} DjaStatCounter;

extern Size dja_stats_size(void);
extern void dja_stats_setup(DjaStats *stats);
extern void dja_stats_init(void);

/* while the transaction lasts; may raise out of memory */
extern void dja_stat_handled(DjaType *type, int64 wait_usec, int64 run_usec);
extern void dja_stat_count(DjaType *type, DjaStatCounter counter);

/* after it has committed, and after it has aborted: these raise nothing */
extern void dja_stat_flush(void);
extern void dja_stat_forget(void);

#endif							/* DJA_STATS_H */
