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
 * nothing has to be aged.  When a minute's histogram is reused, its turns join
 * those of past minutes.  So past and both histograms have all turns since
 * counting began.
 *
 * What the history has not taken yet is what was counted less what was taken.  Of
 * times that is computed in 32 bits, which hold what an interval between two takes
 * can bring, though not what was counted since the server's start.
 * history_from of the type queue says whether anything is there to be taken.
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

typedef struct DjaStatPast
{
	uint64		wait[DJA_STAT_BUCKETS];
	uint64		run[DJA_STAT_BUCKETS];
} DjaStatPast;

typedef struct DjaStat
{
	Oid			database;		/* InvalidOid = never used */
	uint64		type_hash;
	TimestampTz since;
	uint64		counters[DJA_STAT_NCOUNTERS];
	DjaStatWindow windows[2];	/* even and odd minutes */
	DjaStatPast past;			/* minutes before those of the windows */
	uint64		wait_usec;		/* of all turns */
	uint64		run_usec;
	uint64		taken[DJA_STAT_NCOUNTERS];	/* by the history */
	DjaStatTimes taken_times;
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
	uint64		wait_usec;
	uint64		run_usec;
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
 * Returns the time that the given part of all turns did not exceed.  There must be
 * some.
 */
int64
dja_stat_percentile(const uint64 *buckets, double part)
{
	uint64		seen = 0;
	uint64		n = 0;
	int			i = 0;

	for (int bucket = 0; bucket < DJA_STAT_BUCKETS; bucket++)
		n += buckets[bucket];
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

/*
 * Adds the histogram of a minute that is over to those of past minutes.
 */
static void
dja_stat_pass(DjaStatPast *past, const DjaStatTimes *times)
{
	for (int i = 0; i < DJA_STAT_BUCKETS; i++)
	{
		past->wait[i] += times->wait[i];
		past->run[i] += times->run[i];
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
	part->wait_usec += Max(wait_usec, 0);
	part->run_usec += Max(run_usec, 0);
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
	part->wait_usec = part->run_usec = 0;
	memset(&part->times, 0, sizeof(part->times));
}

/*
 * Notes that the history lacks something of a type.  A resident that sleeps does
 * not know that it has to wake when the minute is over.
 */
static void
dja_stat_owe(DjaTypeQueue *type_queue, TimestampTz now)
{
	if (type_queue->history_from != DJA_NEVER)
		return;
	type_queue->history_from = dja_stat_begin(now, DJA_STAT_WINDOW);
	if (type_queue->pool >= 0 && dja_pool(type_queue->pool)->resident >= 0 &&
		dja_worker(dja_pool(type_queue->pool)->resident) != dja_my_worker)
		dja_wake(dja_worker(dja_pool(type_queue->pool)->resident)->procno);
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
	dja_stat_owe(dja_type_queue(at), now);
	if (part->counters[DJA_STAT_HANDLED] == 0)
		return;
	slot->wait_usec += part->wait_usec;
	slot->run_usec += part->run_usec;
	window = &slot->windows[minute & 1];
	if (window->minute != minute)
	{
		dja_stat_pass(&slot->past, &window->times);
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

/* ---------- for the history ---------- */

/*
 * Returns when the history of a pool's types is to be written next: when the
 * present minute is over, or at once if an earlier one, or a later one by a clock
 * that was set back, has left something.
 */
TimestampTz
dja_stats_due(int pool, TimestampTz now)
{
	TimestampTz minute = dja_stat_begin(now, DJA_STAT_WINDOW);
	TimestampTz due = DJA_NEVER;

	dja_assert_locked();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
		if (dja_type_queue(i)->history_from == minute)
			due = Min(due, minute + DJA_STAT_WINDOW);
		else if (dja_type_queue(i)->history_from != DJA_NEVER)
			return now;
	return due;
}

static bool
dja_stat_is_of(const DjaStat *slot, uint64 type_hash)
{
	return slot->type_hash == type_hash && slot->database == MyDatabaseId;
}

static void
dja_stat_take(DjaStat *slot, DjaStatShare *share)
{
	for (int i = 0; i < DJA_STAT_NCOUNTERS; i++)
	{
		share->counters[i] = slot->counters[i] - slot->taken[i];
		slot->taken[i] = slot->counters[i];
	}
	share->times = slot->windows[0].times;
	dja_stat_add_times(&share->times, &slot->windows[1].times);
	for (int i = 0; i < DJA_STAT_BUCKETS; i++)
	{
		share->times.wait[i] += (uint32) slot->past.wait[i] - slot->taken_times.wait[i];
		share->times.run[i] += (uint32) slot->past.run[i] - slot->taken_times.run[i];
	}
	dja_stat_add_times(&slot->taken_times, &share->times);
}

/*
 * Takes what minutes other than the present one have left of the types of a pool,
 * of at most max types, for the history.  Returns of how many.
 */
int
dja_stats_take(int pool, TimestampTz now, DjaStatShare *shares, int max)
{
	TimestampTz minute = dja_stat_begin(now, DJA_STAT_WINDOW);
	int			n = 0;

	dja_lock();
	for (int i = dja_shared->queue->pool_type_queues[pool]; i >= 0 && n < max; i = dja_type_queue(i)->next_in_pool)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);
		DjaStat    *slot = &dja_shared->stats->slots[i];
		TimestampTz from = type_queue->history_from;

		if (from == minute || from == DJA_NEVER)
			continue;
		type_queue->history_from = DJA_NEVER;
		if (!dja_stat_is_of(slot, type_queue->type_hash))
			continue;
		shares[n].type_hash = type_queue->type_hash;
		shares[n].at = Min(from, minute);
		dja_stat_take(slot, &shares[n++]);
	}
	dja_unlock();
	return n;
}

/*
 * Gives back what could not be written, to be taken again.
 */
void
dja_stats_give_back(const DjaStatShare *shares, int n)
{
	for (int given = 0; given < n; given++)
	{
		const DjaStatShare *share = &shares[given];
		int			at;

		dja_lock();
		at = dja_type_queue_slot(MyDatabaseId, share->type_hash);
		if (at >= 0 && dja_stat_is_of(&dja_shared->stats->slots[at], share->type_hash))
		{
			DjaStat    *slot = &dja_shared->stats->slots[at];

			for (int counter = 0; counter < DJA_STAT_NCOUNTERS; counter++)
				slot->taken[counter] -= share->counters[counter];
			for (int i = 0; i < DJA_STAT_BUCKETS; i++)
			{
				slot->taken_times.wait[i] -= share->times.wait[i];
				slot->taken_times.run[i] -= share->times.run[i];
			}
			dja_type_queue(at)->history_from = Min(dja_type_queue(at)->history_from, share->at);
		}
		dja_unlock();
	}
}

/*
 * Copies the times of all turns of a type of this database since counting began;
 * all zero if there were none.  Takes the lock.
 */
void
dja_stats_read_totals(uint64 type_hash, DjaStatTotals *totals)
{
	DjaStat		stat = {0};
	int			at;

	memset(totals, 0, sizeof(*totals));
	dja_lock();
	at = dja_type_queue_slot(MyDatabaseId, type_hash);
	if (at >= 0)
		stat = dja_shared->stats->slots[at];
	dja_unlock();
	if (stat.type_hash != type_hash || stat.database != MyDatabaseId)
		return;
	totals->wait_usec = stat.wait_usec;
	totals->run_usec = stat.run_usec;
	for (int i = 0; i < 2; i++)
		dja_stat_pass(&stat.past, &stat.windows[i].times);
	for (int i = 0; i < DJA_STAT_BUCKETS; i++)
	{
		totals->wait[i / 2] += stat.past.wait[i];
		totals->run[i / 2] += stat.past.run[i];
	}
}
