/*
 * history.c
 *
 * The resident keeps djactor.stat_history: for each of its pool's types a row for
 * each minute in which something was counted.
 *
 * Once a minute, after it has begun, the resident takes from shared memory what was
 * counted since it last did (stats.h), and writes it, in the row of the minute in
 * which counting it began.  Whoever counts does nothing for it.  When nothing was
 * counted there is nothing to do, and no transaction.
 *
 * In the same go minutes become hours when they are older than a day, and hours are
 * deleted after thirty days, of all types of the database, also of dropped ones.
 * One resident does so at a time.  So a type has 25 hours of minutes at most, and 30
 * days of hours.  A database in which nothing is counted keeps what it has.
 *
 * It is only statistics: nothing here may keep mail waiting, or end the worker.  No
 * lock is waited for longer than DJA_HISTORY_LOCK_TIMEOUT.  What cannot be written is
 * given back, and tried again with the next minute.  A pool without a worker gets none
 * for this; what it has counted waits in shared memory.  What is lost at the end of
 * the server, or of a worker that is just writing, are the latest minutes.
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/columns.h"
#include "process/history.h"
#include "process/worker_xact.h"
#include "tables/actor_type.h"
#include "tables/stat_history.h"

#define DJA_HISTORY_LOCK_TIMEOUT "100ms"
#define DJA_HISTORY_CHUNK 64	/* types in a transaction */
#define DJA_HISTORY_OLD_CHUNK 1000	/* old rows in a transaction */
#define DJA_KEEP_MINUTES USECS_PER_DAY
#define DJA_KEEP_HOURS (30 * USECS_PER_DAY)

/* The minute and the hour in which this process has last done its work. */
static TimestampTz dja_written_in = 0;
static TimestampTz dja_summed_up_in = 0;

/* What one transaction writes. */
typedef struct DjaHistoryWork
{
	int			n;
	DjaStatShare shares[DJA_HISTORY_CHUNK];
} DjaHistoryWork;

/* The sum of minutes that become an hour. */
typedef struct DjaHistoryHour
{
	struct
	{
		TimestampTz at;
		uint64		type_hash;
	}			key;
	char		type[DJA_TYPE_NAME_MAX + 1];
	DjaHistoryRow row;
} DjaHistoryHour;

static DjaWriter *
dja_history_open(void)
{
	/* until the end of the transaction */
	(void) set_config_option("lock_timeout", DJA_HISTORY_LOCK_TIMEOUT, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	return dja_writer_open(DJA_HISTORY_TABLE, RowExclusiveLock);
}

/* ---------- minutes ---------- */

static void
dja_history_write_step(void *arg)
{
	DjaHistoryWork *work = (DjaHistoryWork *) arg;
	DjaWriter  *writer = dja_history_open();

	for (int i = 0; i < work->n; i++)
	{
		const DjaStatShare *share = &work->shares[i];
		DjaType    *type = dja_type_by_hash(share->type_hash);
		DjaHistoryRow row;

		if (type == NULL)
			continue;			/* dropped */
		memcpy(row.counters, share->counters, sizeof(row.counters));
		for (int bucket = 0; bucket < DJA_STAT_BUCKETS; bucket++)
		{
			row.wait[bucket] = share->times.wait[bucket];
			row.run[bucket] = share->times.run[bucket];
		}
		dja_history_add(writer, type->name, share->at, DJA_MINUTE, &row);
	}
	dja_writer_close(writer);
}

/*
 * Writes a chunk of the minutes that are over.  Returns false if there was nothing to
 * write.  Sets *more if there is more.
 */
static bool
dja_history_write_minutes(int pool, TimestampTz now, bool *more)
{
	DjaHistoryWork *work = MemoryContextAlloc(TopMemoryContext, sizeof(DjaHistoryWork));
	int			taken = 0;
	bool		any;

	work->n = 0;
	do
	{
		taken = dja_stats_take(pool, now, work->shares + work->n,
							   Min(DJA_STAT_SHARES, DJA_HISTORY_CHUNK - work->n));
		work->n += taken;
	} while (taken > 0 && work->n < DJA_HISTORY_CHUNK);
	any = work->n > 0;
	*more = work->n == DJA_HISTORY_CHUNK;
	if (any && !dja_try_in_transaction(dja_history_write_step, work))
	{
		dja_stats_give_back(work->shares, work->n);
		*more = false;
		ereport(LOG,
				(errmsg("could not write djactor.stat_history"),
				 errdetail("The line before says why."),
				 errhint("Nothing is lost; it is tried again in a minute.")));
	}
	pfree(work);
	return any;
}

/* ---------- what is old ---------- */

/*
 * Deletes old rows, after reading at most max.  Adds what minutes have to the hours
 * that they become; hours are NULL for rows that are forgotten.  A row that somebody
 * has locked is left for later.  Returns how many it has deleted.
 */
static int
dja_history_delete(DjaWriter *writer, int16 minutes, TimestampTz limit, int max, HTAB *hours)
{
	int			deleted = 0;
	DjaFind		find;

	dja_history_find_old(&find, minutes, limit);
	for (int seen = 0; seen < max && dja_find_next(&find); seen++)
	{
		Datum	   *values = find.slot->tts_values;
		text	   *name = DatumGetTextPP(values[DJA_HISTORY_TYPE - 1]);
		DjaHistoryHour *hour;
		DjaHistoryHour key;
		bool		known;

		if (dja_row_try_delete(writer, &find.slot->tts_tid) != TM_Ok)
			continue;
		deleted++;
		if (hours == NULL)
			continue;
		memset(&key.key, 0, sizeof(key.key));
		key.key.at = dja_stat_begin(DatumGetTimestampTz(values[DJA_HISTORY_AT - 1]), USECS_PER_HOUR);
		key.key.type_hash = dja_hash_text(name);
		hour = hash_search(hours, &key.key, HASH_ENTER, &known);
		if (!known)
		{
			memset(&hour->row, 0, sizeof(hour->row));
			text_to_cstring_buffer(name, hour->type, sizeof(hour->type));
		}
		dja_history_sum(&hour->row, values);
	}
	dja_find_end(&find);
	return deleted;
}

static void
dja_history_sum_up_step(void *arg)
{
	bool	   *more = arg;
	TimestampTz now = GetCurrentTimestamp();
	HASHCTL		control = {.keysize = sizeof(((DjaHistoryHour *) NULL)->key),
	.entrysize = sizeof(DjaHistoryHour),.hcxt = CurrentMemoryContext};
	HTAB	   *hours;
	HASH_SEQ_STATUS status;
	DjaHistoryHour *hour;
	DjaWriter  *writer;
	int			deleted;

	*more = false;
	/* one at a time; autovacuum has the same lock, which need not give way */
	if (!ConditionalLockRelationOid(dja_table_oid(DJA_HISTORY_TABLE), ShareUpdateExclusiveLock))
		return;
	writer = dja_history_open();
	hours = hash_create("djactor hours", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	deleted = dja_history_delete(writer, DJA_MINUTE, dja_stat_begin(now - DJA_KEEP_MINUTES, USECS_PER_HOUR),
								 DJA_HISTORY_OLD_CHUNK, hours);
	hash_seq_init(&status, hours);
	while ((hour = hash_seq_search(&status)) != NULL)
		dja_history_add(writer, hour->type, hour->key.at, DJA_HOUR, &hour->row);
	hash_destroy(hours);
	CommandCounterIncrement();	/* some of these may be too old as well */
	deleted += dja_history_delete(writer, DJA_HOUR, dja_stat_begin(now - DJA_KEEP_HOURS, USECS_PER_HOUR),
								  DJA_HISTORY_OLD_CHUNK - deleted, NULL);
	dja_writer_close(writer);
	*more = deleted >= DJA_HISTORY_OLD_CHUNK;
}

/* ---------- the duty ---------- */

TimestampTz
dja_history_due(int pool, TimestampTz now)
{
	TimestampTz due = dja_stats_due(pool, now);

	/* a failure is tried again in the next minute */
	if (due <= now && dja_stat_begin(now, USECS_PER_MINUTE) == dja_written_in)
		due = dja_written_in + USECS_PER_MINUTE;
	return due;
}

bool
dja_history_write(int pool)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz minute = dja_stat_begin(now, USECS_PER_MINUTE);
	TimestampTz hour = dja_stat_begin(now, USECS_PER_HOUR);
	static bool sums_up = false;
	bool		more = false;

	if (minute != dja_written_in)
	{
		if (dja_history_write_minutes(pool, now, &more) && hour != dja_summed_up_in)
			sums_up = true;
		if (!more)
			dja_written_in = minute;
	}
	else if (sums_up)
	{
		(void) dja_try_in_transaction(dja_history_sum_up_step, &more);
		sums_up = more;
		dja_summed_up_in = hour;
	}
	return more || sums_up;
}
