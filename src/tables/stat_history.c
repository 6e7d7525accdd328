/*
 * stat_history.c
 *
 * Rows of djactor.stat_history; see stat_history.h.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "base/columns.h"
#include "tables/stat_history.h"

void
dja_histogram_add(uint64 *buckets, ArrayType *counts)
{
	int			n = ArrayGetNItems(ARR_NDIM(counts), ARR_DIMS(counts));
	const int32 *count = (const int32 *) ARR_DATA_PTR(counts);
	bool		valid = ARR_NDIM(counts) <= 1 && n <= DJA_STAT_BUCKETS && !array_contains_nulls(counts);

	Assert(ARR_ELEMTYPE(counts) == INT4OID);
	for (int i = 0; valid && i < n; i++)
		valid = count[i] >= 0;
	if (!valid)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the array is no histogram of djactor.stat_history"),
				 errdetail("A histogram has at most %d counts, none of them null or negative.", DJA_STAT_BUCKETS)));
	for (int i = 0; i < n; i++)
		buckets[i] += (uint64) count[i];
}

static Datum
dja_histogram_array(const uint64 *buckets)
{
	Datum		counts[DJA_STAT_BUCKETS];
	int			n = 0;

	for (int i = 0; i < DJA_STAT_BUCKETS; i++)
	{
		counts[i] = Int32GetDatum((int32) Min(buckets[i], PG_INT32_MAX));
		if (buckets[i] > 0)
			n = i + 1;
	}
	return PointerGetDatum(construct_array(counts, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

void
dja_history_sum(DjaHistoryRow *sum, const Datum *values)
{
	for (int i = 0; i < DJA_STAT_NCOUNTERS; i++)
		sum->counters[i] += (uint64) DatumGetInt64(values[DJA_HISTORY_HANDLED - 1 + i]);
	dja_histogram_add(sum->wait, DatumGetArrayTypeP(values[DJA_HISTORY_WAIT - 1]));
	dja_histogram_add(sum->run, DatumGetArrayTypeP(values[DJA_HISTORY_RUN - 1]));
}

/*
 * Opens a scan by the primary key: its first columns are those of the scan.
 */
static void
dja_history_find(DjaFind *find, int16 minutes, StrategyNumber strategy, RegProcedure compare,
				 TimestampTz at, const char *type)
{
	ScanKeyData keys[3];
	int			nkeys = 0;

	ScanKeyInit(&keys[nkeys++], 1, BTEqualStrategyNumber, F_INT2EQ, Int16GetDatum(minutes));
	ScanKeyInit(&keys[nkeys++], 2, strategy, compare, TimestampTzGetDatum(at));
	if (type != NULL)
		ScanKeyEntryInitialize(&keys[nkeys++], 0, 3, BTEqualStrategyNumber, InvalidOid,
							   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(type));
	dja_find_open(find, DJA_HISTORY_TABLE, DJA_HISTORY_PKEY, nkeys, NULL);
	index_rescan(find->scan, keys, nkeys, NULL, 0);
}

void
dja_history_find_old(DjaFind *find, int16 minutes, TimestampTz limit)
{
	dja_history_find(find, minutes, BTLessStrategyNumber, F_TIMESTAMP_LT, limit, NULL);
}

void
dja_history_add(DjaWriter *writer, const char *type, TimestampTz at, int16 minutes,
				const DjaHistoryRow *row)
{
	Datum		values[DJA_HISTORY_NATTS];
	bool		nulls[DJA_HISTORY_NATTS] = {false};
	DjaHistoryRow sum = *row;
	ItemPointerData tid;
	DjaFind		find;
	bool		found;

	dja_history_find(&find, minutes, BTEqualStrategyNumber, F_TIMESTAMP_EQ, at, type);
	found = dja_find_next(&find);
	if (found)
	{
		dja_history_sum(&sum, find.slot->tts_values);
		tid = find.slot->tts_tid;
	}
	dja_find_end(&find);

	values[DJA_HISTORY_TYPE - 1] = CStringGetTextDatum(type);
	values[DJA_HISTORY_AT - 1] = TimestampTzGetDatum(at);
	values[DJA_HISTORY_MINUTES - 1] = Int16GetDatum(minutes);
	for (int i = 0; i < DJA_STAT_NCOUNTERS; i++)
		values[DJA_HISTORY_HANDLED - 1 + i] = Int64GetDatum((int64) sum.counters[i]);
	values[DJA_HISTORY_WAIT - 1] = dja_histogram_array(sum.wait);
	values[DJA_HISTORY_RUN - 1] = dja_histogram_array(sum.run);
	if (found)
		dja_row_update(writer, &tid, values, nulls);
	else
		dja_row_insert(writer, values, nulls);
}
