/*
 * stats.c
 *
 * Counters, rates and percentiles of actor types; see stats.h.
 *
 * Shared memory has one slot for each type queue, with the same index, which
 * names its type.  A worker that finds another type's name there begins anew.  So
 * a type keeps its counters while its type queue comes and goes, until another
 * type takes the slot.  Counters run from the start of the server.
 *
 * Times go into histograms with two buckets for each power of two, which is exact
 * to a quarter.  There is one histogram for the present minute by the clock and
 * one for the last.  So reading both covers the last one to two minutes, and
 * nothing has to be aged.
 *
 * A worker's own part belongs to its DjaStatOfType.  Parts that are not empty are
 * listed, so that a flush touches no other.
 *
 * All slots are under dja_shared->lock.  Only workers write them, in
 * dja_stat_flush().  The limits that adapt to conflicts are shown beside them,
 * but kept in the type queues (pace.h).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/grow.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "shmem/stats.h"

#define DJA_STAT_WINDOW (60 * USECS_PER_SEC)
#define DJA_STAT_CHUNK 16		/* types flushed under one acquisition of the
								 * lock */

typedef struct DjaStatWindow
{
	int64		minute;			/* which minute */
	DjaStatTimes times;
} DjaStatWindow;

typedef struct DjaStat
{
	Oid			database;		/* InvalidOid = never used */
	uint64		type_hash;
	TimestampTz since;
	uint64		counters[DJA_STAT_NCOUNTERS];
	DjaStatWindow windows[2];	/* even and odd minutes */
} DjaStat;

struct DjaStats
{
	TimestampTz started;
	DjaStat		slots[DJA_MAX_TYPE_QUEUES];
};

/* What this process has counted of a type since the last flush. */
struct DjaStatPart
{
	struct DjaStatPart *next;	/* in the list of parts that are not empty */
	bool		listed;
	uint64		type_hash;
	uint32		counters[DJA_STAT_NCOUNTERS];
	DjaStatTimes times;
};

static DjaStatPart *dja_stat_parts = NULL;

/* Counts made in subtransactions; those of the latest are last. */
typedef struct DjaStatNested
{
	DjaStatPart *part;
	DjaStatCounter counter;
	SubTransactionId subid;
} DjaStatNested;

static DjaStatNested *dja_stat_nested = NULL;
static int	dja_nnested = 0;
static int	dja_max_nested = 0;

Size
dja_stats_size(void)
{
	return MAXALIGN(sizeof(DjaStats));
}

void
dja_stats_setup(void *memory)
{
	DjaStats   *stats = memory;

	memset(stats, 0, sizeof(DjaStats));
	stats->started = GetCurrentTimestamp();
}

/* ---------- histograms ---------- */

/*
 * Buckets of microseconds: [1, 1.5), [1.5, 2), [2, 3), [3, 4), [4, 6), ...
 */
static inline int
dja_stat_bucket(int64 usec)
{
	int			octave;

	if (usec <= 1)
		return 0;
	octave = pg_leftmost_one_pos64((uint64) usec);
	return Min(2 * octave + (int) ((usec >> (octave - 1)) & 1), DJA_STAT_BUCKETS - 1);
}

/*
 * Returns the middle of a bucket.
 */
static int64
dja_stat_usec(int bucket)
{
	int			octave = bucket / 2;

	/* in quarters: [4, 6) has its middle at 5, [6, 8) at 7 */
	return octave == 0 ? 1 : (INT64CONST(1) << octave) * (bucket % 2 ? 7 : 5) / 4;
}

/*
 * Returns the time that the given part of all turns did not exceed.  n is their
 * number, not 0.
 */
int64
dja_stat_percentile(const uint32 *buckets, uint64 n, double part)
{
	uint64		seen = 0;
	int			i = 0;

	while (i < DJA_STAT_BUCKETS - 1 && (double) (seen += buckets[i]) < part * (double) n)
		i++;
	return dja_stat_usec(i);
}

/*
 * Adds two histograms at once, in a loop that compilers can vectorize.
 */
static inline void
dja_stat_add_times(DjaStatTimes *sum, const DjaStatTimes *times)
{
	for (int i = 0; i < DJA_STAT_BUCKETS; i++)
	{
		sum->wait[i] += times->wait[i];
		sum->run[i] += times->run[i];
	}
}

/* ---------- counting ---------- */

static DjaStatPart *
dja_stat_part(DjaStatOfType *type)
{
	DjaStatPart *part = type->part;

	if (part == NULL)
	{
		part = MemoryContextAllocZero(TopMemoryContext, sizeof(DjaStatPart));
		part->type_hash = type->type_hash;
		type->part = part;
	}
	if (!part->listed)
	{
		part->listed = true;
		part->next = dja_stat_parts;
		dja_stat_parts = part;
	}
	return part;
}

static bool dja_stat_elsewhere = false; /* this process counts, though it is
										 * no worker */

static bool
dja_stat_is_counted(void)
{
	return dja_my_worker != NULL || dja_stat_elsewhere;
}

/*
 * Has a process that is no worker count, until it is told otherwise.
 */
void
dja_stat_counts(bool counts)
{
	Assert(counts || dja_stat_parts == NULL);
	dja_stat_elsewhere = counts;
}

/*
 * Counts a successful turn: how long its message had waited since it was sent or
 * due, and how long it ran.
 */
void
dja_stat_handled(DjaStatOfType *type, int64 wait_usec, int64 run_usec)
{
	DjaStatPart *part;

	if (!dja_stat_is_counted())
		return;
	part = dja_stat_part(type);
	part->counters[DJA_STAT_HANDLED]++;
	part->times.wait[dja_stat_bucket(wait_usec)]++;
	part->times.run[dja_stat_bucket(run_usec)]++;
}

/*
 * Counts an event of a type.  If it happens in a subtransaction that aborts, the
 * count is taken back.
 */
void
dja_stat_count(DjaStatOfType *type, DjaStatCounter counter)
{
	DjaStatPart *part;

	if (!dja_stat_is_counted())
		return;
	part = dja_stat_part(type);
	if (GetCurrentTransactionNestLevel() > 1)
	{
		dja_stat_nested = dja_grow(TopMemoryContext, dja_stat_nested, sizeof(DjaStatNested),
								   dja_nnested, &dja_max_nested);
		dja_stat_nested[dja_nnested].part = part;
		dja_stat_nested[dja_nnested].counter = counter;
		dja_stat_nested[dja_nnested++].subid = GetCurrentSubTransactionId();
	}
	part->counters[counter]++;
}

/*
 * Counts of a subtransaction share its fate.
 */
static void
dja_stat_subxact_callback(SubXactEvent event, SubTransactionId subid,
						  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		for (; dja_nnested > 0 && dja_stat_nested[dja_nnested - 1].subid == subid; dja_nnested--)
		{
			DjaStatNested *nested = &dja_stat_nested[dja_nnested - 1];

			Assert(nested->part->counters[nested->counter] > 0);
			nested->part->counters[nested->counter]--;
		}
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = dja_nnested - 1; i >= 0 && dja_stat_nested[i].subid == subid; i--)
			dja_stat_nested[i].subid = parent;
}

void
dja_stats_init(void)
{
	RegisterSubXactCallback(dja_stat_subxact_callback, NULL);
}

static void
dja_stat_clear(DjaStatPart *part)
{
	part->listed = false;
	memset(part->counters, 0, sizeof(part->counters));
	memset(&part->times, 0, sizeof(part->times));
}

/*
 * Adds what this process has counted of one type.  Needs the lock.
 */
static void
dja_stat_add(DjaStatPart *part, TimestampTz now)
{
	int			at = dja_type_queue_slot(MyDatabaseId, part->type_hash);
	int64		minute = now / DJA_STAT_WINDOW;
	DjaStatWindow *window;
	DjaStat    *slot;

	dja_assert_locked();
	if (at < 0)
		return;					/* dropped, and another type has the slot
								 * already */
	slot = &dja_shared->stats->slots[at];
	if (slot->type_hash != part->type_hash || slot->database != MyDatabaseId)
	{
		bool		used = OidIsValid(slot->database);

		memset(slot, 0, sizeof(DjaStat));
		slot->database = MyDatabaseId;
		slot->type_hash = part->type_hash;
		slot->since = used ? now : dja_shared->stats->started;
	}
	for (int i = 0; i < DJA_STAT_NCOUNTERS; i++)
		slot->counters[i] += part->counters[i];
	if (part->counters[DJA_STAT_HANDLED] == 0)
		return;
	window = &slot->windows[minute & 1];
	if (window->minute != minute)
	{
		memset(window, 0, sizeof(DjaStatWindow));
		window->minute = minute;
	}
	dja_stat_add_times(&window->times, &part->times);
}

/*
 * Adds all counts to shared memory, after the commit.
 */
void
dja_stat_flush(void)
{
	TimestampTz now;

	Assert(dja_stat_parts == NULL || dja_stat_is_counted());
	dja_nnested = 0;
	if (dja_stat_parts == NULL)
		return;
	now = GetCurrentTimestamp();
	while (dja_stat_parts != NULL)
	{
		dja_lock();
		for (int i = 0; i < DJA_STAT_CHUNK && dja_stat_parts != NULL; i++)
		{
			DjaStatPart *part = dja_stat_parts;

			dja_stat_parts = part->next;
			dja_stat_add(part, now);
			dja_stat_clear(part);
		}
		dja_unlock();
	}
}

/*
 * Forgets all counts, after an abort.
 */
void
dja_stat_forget(void)
{
	Assert(dja_stat_parts == NULL || dja_stat_is_counted());
	dja_nnested = 0;
	for (; dja_stat_parts != NULL; dja_stat_parts = dja_stat_parts->next)
		dja_stat_clear(dja_stat_parts);
}

/* ---------- reading ---------- */

/*
 * Copies what is known of a type of this database; all zero if nothing was
 * counted.  Takes the lock.
 */
void
dja_stats_read(uint64 type_hash, TimestampTz now, DjaStatSums *sums)
{
	int64		minute = now / DJA_STAT_WINDOW;
	DjaStat		stat = {0};
	int			at;

	memset(sums, 0, sizeof(*sums));
	dja_lock();
	at = dja_type_queue_slot(MyDatabaseId, type_hash);
	if (at >= 0)
	{
		stat = dja_shared->stats->slots[at];
		sums->pace = dja_type_queue(at)->pace;
	}
	dja_unlock();
	if (stat.type_hash != type_hash || stat.database != MyDatabaseId)
	{
		memset(&stat, 0, sizeof(stat));
		stat.since = dja_shared->stats->started;
	}
	sums->since = stat.since;
	memcpy(sums->counters, stat.counters, sizeof(sums->counters));
	sums->times_since = Max((minute - 1) * DJA_STAT_WINDOW, stat.since);
	for (int i = 0; i < 2; i++)
		if (stat.windows[i].minute == minute || stat.windows[i].minute == minute - 1)
			dja_stat_add_times(&sums->times, &stat.windows[i].times);
	for (int i = 0; i < DJA_STAT_BUCKETS; i++)
		sums->turns += sums->times.run[i];
}
