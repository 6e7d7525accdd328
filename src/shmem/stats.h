/*
 * stats.h
 *
 * What djactor.stat shows: counters, rates and percentiles of each actor type.
 *
 * Always on.  A worker counts in its own memory what its transaction does, and
 * adds that to shared memory after the commit, so aborted work never counts.  So
 * does a transaction that ends turns of hosts.  In other processes these calls do
 * nothing.  So drain() counts
 * nothing, since its transaction may be rolled back much later.
 */
#ifndef DJA_STATS_H
#define DJA_STATS_H

#include "datatype/timestamp.h"

#include "shmem/pace.h"
#include "shmem/shmem.h"

typedef enum DjaStatCounter
{
	DJA_STAT_HANDLED,			/* by dja_stat_handled() */
	DJA_STAT_FAILED,			/* attempts used up */
	DJA_STAT_RETRIED,			/* attempts, used up or not, that will be
								 * repeated */
	DJA_STAT_DEAD,				/* messages given up */
	DJA_STAT_DUPLICATES,		/* messages discarded for their idempotency
								 * key */
	DJA_STAT_EXPIRED,			/* asks whose time was over */
	DJA_STAT_COALESCED,			/* messages merged into others */
	DJA_STAT_NCOUNTERS
} DjaStatCounter;

#define DJA_STAT_BUCKETS 72		/* up to 19 hours; the last has all beyond */

/* How many turns took how long. */
typedef struct DjaStatTimes
{
	uint32		wait[DJA_STAT_BUCKETS];
	uint32		run[DJA_STAT_BUCKETS];
} DjaStatTimes;

/* Where a process counts for a type; lives as long as the process. */
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
	TimestampTz times_since;	/* begin of what follows: one to two minutes
								 * ago */
	uint64		turns;
	DjaStatTimes times;
	DjaPace		pace;
} DjaStatSums;

extern Size dja_stats_size(void);
extern void dja_stats_setup(void *memory);
extern void dja_stats_init(void);

/* does this process count, though it is no worker? */
extern void dja_stat_counts(bool counts);

/* while the transaction lasts; may raise out of memory */
extern void dja_stat_handled(DjaStatOfType *type, int64 wait_usec, int64 run_usec);
extern void dja_stat_count(DjaStatOfType *type, DjaStatCounter counter);

/* after it has committed, and after it has aborted: these raise nothing */
extern void dja_stat_flush(void);
extern void dja_stat_forget(void);

/* reading */
extern void dja_stats_read(uint64 type_hash, TimestampTz now, DjaStatSums *sums);
extern int64 dja_stat_percentile(const uint32 *buckets, uint64 n, double part);

#endif							/* DJA_STATS_H */
