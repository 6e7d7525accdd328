/*
 * stat_view.c
 *
 * Rows of the view djactor.stat: counters of actor types, rates, percentiles
 * and the limits that adapt to conflicts.  shmem/stats.c keeps them.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "shmem/stats.h"
#include "tables/actor_type.h"
#include "tables/catalog.h"

PG_FUNCTION_INFO_V1(dja_stat_list);

#define DJA_STAT_RATE (1 + DJA_STAT_COALESCED)	/* columns after name and most
												 * counters */
#define DJA_STAT_WAIT (DJA_STAT_RATE + 1)
#define DJA_STAT_RUN (DJA_STAT_WAIT + 3)
#define DJA_STAT_SINCE (DJA_STAT_RUN + 3)
#define DJA_STAT_CONFLICTS (DJA_STAT_SINCE + 1)
#define DJA_STAT_BATCH_LIMIT (DJA_STAT_CONFLICTS + 1)
#define DJA_STAT_WORKER_LIMIT (DJA_STAT_BATCH_LIMIT + 1)
#define DJA_STAT_MERGED (DJA_STAT_WORKER_LIMIT + 1)
#define DJA_STAT_NCOLUMNS (DJA_STAT_MERGED + 1)

static Datum
dja_stat_interval(const uint32 *buckets, double part)
{
	Interval   *interval = palloc0(sizeof(Interval));
	uint64		counts[DJA_STAT_BUCKETS];

	for (int i = 0; i < DJA_STAT_BUCKETS; i++)
		counts[i] = buckets[i];
	interval->time = dja_stat_percentile(counts, part);
	return IntervalPGetDatum(interval);
}

static void
dja_stat_row(DjaType *type, DjaStatSums *sums, TimestampTz now, Datum *values, bool *nulls)
{
	static const double parts[3] = {0.5, 0.95, 0.99};

	memset(nulls, 0, sizeof(bool) * DJA_STAT_NCOLUMNS);
	values[0] = CStringGetTextDatum(type->name);
	for (int i = 0; i < DJA_STAT_COALESCED; i++)
		values[1 + i] = Int64GetDatum((int64) sums->counters[i]);
	values[DJA_STAT_RATE] = Float8GetDatum((double) sums->turns * USECS_PER_SEC /
										   (double) Max(now - sums->times_since, USECS_PER_SEC));
	for (int i = 0; i < 3; i++)
	{
		nulls[DJA_STAT_WAIT + i] = nulls[DJA_STAT_RUN + i] = sums->turns == 0;
		if (sums->turns == 0)
			continue;
		values[DJA_STAT_WAIT + i] = dja_stat_interval(sums->times.wait, parts[i]);
		values[DJA_STAT_RUN + i] = dja_stat_interval(sums->times.run, parts[i]);
	}
	values[DJA_STAT_SINCE] = TimestampTzGetDatum(sums->since);
	values[DJA_STAT_CONFLICTS] = Int64GetDatum((int64) sums->pace.conflicts);
	nulls[DJA_STAT_BATCH_LIMIT] = sums->pace.turns == 0;
	values[DJA_STAT_BATCH_LIMIT] = Int32GetDatum(sums->pace.turns);
	nulls[DJA_STAT_WORKER_LIMIT] = sums->pace.workers == 0;
	values[DJA_STAT_WORKER_LIMIT] = Int32GetDatum(sums->pace.workers);
	values[DJA_STAT_MERGED] = Int64GetDatum((int64) sums->counters[DJA_STAT_COALESCED]);
}

/*
 * One row for each type of this database, counted or not.
 */
Datum
dja_stat_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	dja_require_installed();
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, dja_types_all())
	{
		DjaType    *type = lfirst(lc);
		DjaStatSums sums;
		Datum		values[DJA_STAT_NCOLUMNS];
		bool		nulls[DJA_STAT_NCOLUMNS];

		CHECK_FOR_INTERRUPTS();
		dja_stats_read(type->hash, now, &sums);
		dja_stat_row(type, &sums, now, values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
