/*
 * stat_percentile.c
 *
 * The aggregate stat_percentile(counts, part): the time that a part of all turns did
 * not exceed, over the histograms of any rows of djactor.stat_history.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "tables/stat_history.h"

PG_FUNCTION_INFO_V1(dja_stat_percentile_add);
PG_FUNCTION_INFO_V1(dja_stat_percentile_end);

typedef struct DjaPercentile
{
	double		part;
	uint64		buckets[DJA_STAT_BUCKETS];
} DjaPercentile;

Datum
dja_stat_percentile_add(PG_FUNCTION_ARGS)
{
	DjaPercentile *sum = PG_ARGISNULL(0) ? NULL : (DjaPercentile *) PG_GETARG_POINTER(0);
	MemoryContext context;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "stat_percentile_add() was not called by an aggregate");
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
	{
		if (sum == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(sum);
	}
	if (sum == NULL)
		sum = MemoryContextAllocZero(context, sizeof(DjaPercentile));
	sum->part = PG_GETARG_FLOAT8(2);
	if (!(sum->part >= 0 && sum->part <= 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("part must be between 0 and 1"),
				 errhint("0.95 is the 95th percentile.")));
	dja_histogram_add(sum->buckets, PG_GETARG_ARRAYTYPE_P(1));
	PG_RETURN_POINTER(sum);
}

/*
 * Returns NULL if there were no turns.
 */
Datum
dja_stat_percentile_end(PG_FUNCTION_ARGS)
{
	DjaPercentile *sum = PG_ARGISNULL(0) ? NULL : (DjaPercentile *) PG_GETARG_POINTER(0);
	Interval   *interval;
	bool		any = false;

	for (int i = 0; sum != NULL && i < DJA_STAT_BUCKETS; i++)
		any |= sum->buckets[i] > 0;
	if (!any)
		PG_RETURN_NULL();
	interval = palloc0(sizeof(Interval));
	interval->time = dja_stat_percentile(sum->buckets, sum->part);
	PG_RETURN_INTERVAL_P(interval);
}
