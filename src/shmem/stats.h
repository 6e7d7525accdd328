/*
 * stats.h
 *
 * What djactor.stat shows: counters, rates and percentiles of each actor type.
 *
 * Always on.  A worker counts in its own memory what its transaction does, and
 * adds that to shared memory after the commit, so aborted work never counts.  So
 * does a transaction that ends turns of hosts.  In other processes these calls do
 * nothing.  So drain() counts nothing, since its transaction may be rolled back much
 * later.
 *
 * djactor.stat_history has the same by minutes.  Its writer takes what was counted
 * since it last did, and gives back what it could not write.
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

#define DJA_STAT_OCTAVES (DJA_STAT_BUCKETS / 2)

/* The same since counting began, in buckets that end at powers of two. */
typedef struct DjaStatTotals
{
	uint64		wait_usec;
	uint64		run_usec;
	uint64		wait[DJA_STAT_OCTAVES];
	uint64		run[DJA_STAT_OCTAVES];
} DjaStatTotals;

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

/* What the history does not have of a type yet. */
typedef struct DjaStatShare
{
	uint64		type_hash;
	TimestampTz at;				/* the minute in which counting it began */
	uint64		counters[DJA_STAT_NCOUNTERS];
	DjaStatTimes times;
} DjaStatShare;

#define DJA_STAT_SHARES 16		/* taken under one acquisition of the lock */

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
extern void dja_stats_read_totals(uint64 type_hash, DjaStatTotals *totals);
extern int64 dja_stat_percentile(const uint64 *buckets, double part);

/* for the history: when to take next, which needs the lock; and taking, which takes it */
extern TimestampTz dja_stats_due(int pool, TimestampTz now);
extern int	dja_stats_take(int pool, TimestampTz now, DjaStatShare *shares, int max);
extern void dja_stats_give_back(const DjaStatShare *shares, int n);

/*
 * The beginning of the minute, or of the hour, that a moment is in.
 */
static inline TimestampTz
dja_stat_begin(TimestampTz at, int64 usec)
{
	return at - ((at % usec) + usec) % usec;
}

#endif							/* DJA_STATS_H */
