/*
 * stat_history.h
 *
 * Rows of djactor.stat_history: what was counted of a type in a minute, or in an
 * hour.  process/history.c writes them.
 *
 * Times are histograms, with the buckets of stats.h: arrays of counts, without the
 * zeros at their ends.
 */
#ifndef DJA_STAT_HISTORY_H
#define DJA_STAT_HISTORY_H

#include "utils/array.h"

#include "shmem/stats.h"
#include "tables/rows.h"

#define DJA_MINUTE 1			/* minutes that a row stands for */
#define DJA_HOUR 60

/* A row, or a sum of rows. */
typedef struct DjaHistoryRow
{
	uint64		counters[DJA_STAT_NCOUNTERS];
	uint64		wait[DJA_STAT_BUCKETS];
	uint64		run[DJA_STAT_BUCKETS];
} DjaHistoryRow;

/* adds to a histogram; raises 22023 if the array is none */
extern void dja_histogram_add(uint64 *buckets, ArrayType *counts);

/* adds what a row has, given its columns */
extern void dja_history_sum(DjaHistoryRow *sum, const Datum *values);

/*
 * Adds to the row of a type and a span, which it makes if there is none.  Rows that
 * the same command has added are not seen.
 */
extern void dja_history_add(DjaWriter *writer, const char *type, TimestampTz at, int16 minutes,
							const DjaHistoryRow *row);

/* a scan over the rows of such spans that begin before limit, the oldest first */
extern void dja_history_find_old(DjaFind *find, int16 minutes, TimestampTz limit);

#endif							/* DJA_STAT_HISTORY_H */
