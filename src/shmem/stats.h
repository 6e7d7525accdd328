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

#include "datatype/timestamp.h"

#include "shmem/pace.h"
#include "shmem/shmem.h"

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

#define DJA_STAT_BUCKETS 72		/* up to 19 hours; the last has all beyond */

/* How many turns took how long. */
typedef struct DjaStatTimes
{
	uint32		wait[DJA_STAT_BUCKETS];
	uint32		run[DJA_STAT_BUCKETS];
} DjaStatTimes;

/* Where a process notes what it counts of a type; it lives as long as the process. */
typedef struct DjaStatPart DjaStatPart;

typedef struct DjaStatOfType
{
	uint64		type_hash;
	DjaStatPart *part;			/* NULL: nothing so far */
} DjaStatOfType;

/* What is known of a type. */
typedef struct DjaStatSums
{
	TimestampTz since;			/* of the counters */
	uint64		counters[DJA_STAT_NCOUNTERS];
	TimestampTz times_since;	/* of what follows: one to two minutes ago */
	uint64		turns;
	DjaStatTimes times;
	DjaPace		pace;
} DjaStatSums;

extern Size dja_stats_size(void);
extern void dja_stats_setup(void *memory);
extern void dja_stats_init(void);

/* while the transaction lasts; may raise out of memory */
extern void dja_stat_handled(DjaStatOfType *type, int64 wait_usec, int64 run_usec);
extern void dja_stat_count(DjaStatOfType *type, DjaStatCounter counter);

/* after it has committed, and after it has aborted: these raise nothing */
extern void dja_stat_flush(void);
extern void dja_stat_forget(void);

/* for those who look */
extern void dja_stats_read(uint64 type_hash, TimestampTz now, DjaStatSums *sums);
extern int64 dja_stat_percentile(const uint32 *buckets, uint64 n, double part);

#endif							/* DJA_STATS_H */
