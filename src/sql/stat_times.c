/*
 * stat_times.c
 *
 * Rows of the view djactor.stat_times: how long the turns of each actor type have
 * waited and run since counting began, as histograms.  shmem/stats.c keeps them.
 *
 * They only ever grow, as long as the server runs, which is what monitoring
 * systems want of a histogram.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "shmem/stats.h"
#include "tables/actor_type.h"
#include "tables/catalog.h"

PG_FUNCTION_INFO_V1(dja_stat_times_list);

static Datum
dja_stat_span(uint64 usec)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = (int64) usec;
	return IntervalPGetDatum(interval);
}

/*
 * Where the buckets end: at 2 microseconds, 4, 8 and so on.  The last one has no
 * end.
 */
static Datum
dja_stat_bounds(void)
{
	Datum		bounds[DJA_STAT_OCTAVES - 1];

	for (int i = 0; i < DJA_STAT_OCTAVES - 1; i++)
		bounds[i] = dja_stat_span(UINT64CONST(2) << i);
	return PointerGetDatum(construct_array(bounds, DJA_STAT_OCTAVES - 1, INTERVALOID,
										   sizeof(Interval), false, TYPALIGN_DOUBLE));
}

static Datum
dja_stat_counts_of(const uint64 *buckets)
{
	Datum		counts[DJA_STAT_OCTAVES];

	for (int i = 0; i < DJA_STAT_OCTAVES; i++)
		counts[i] = Int64GetDatum((int64) buckets[i]);
	return PointerGetDatum(construct_array(counts, DJA_STAT_OCTAVES, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * One row for each type of this database, counted or not.
 */
Datum
dja_stat_times_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		bounds;
	ListCell   *lc;

	dja_require_installed();
	InitMaterializedSRF(fcinfo, 0);
	bounds = dja_stat_bounds();
	foreach(lc, dja_types_all())
	{
		DjaType    *type = lfirst(lc);
		DjaStatTotals totals;
		Datum		values[6];
		bool		nulls[6] = {0};

		CHECK_FOR_INTERRUPTS();
		dja_stats_read_totals(type->hash, &totals);
		values[0] = CStringGetTextDatum(type->name);
		values[1] = dja_stat_span(totals.wait_usec);
		values[2] = dja_stat_span(totals.run_usec);
		values[3] = bounds;
		values[4] = dja_stat_counts_of(totals.wait);
		values[5] = dja_stat_counts_of(totals.run);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
