/*
 * worker.c
 *
 * The worker's life: it logs in as the pool's role, runs batches while there is
 * mail, and waits.
 *
 *   STARTING -> IDLE <-> BUSY -> gone
 *
 * One worker of a pool is its resident.  How it waits is the pool's state:
 *
 *   BUSY		it looks at the queue again before it waits; senders need not ring
 *   LINGERING	it is idle for less than a second; senders set its latch
 *   ASLEEP		it LISTENs; a sender's NOTIFY djactor wakes it, or its latch
 *
 * It changes the state under the lock, after a look at the queue under the same
 * lock.  Senders push, and look at the state, under that lock too.  So either the
 * worker sees the push, or the sender sees that it has to ring.
 *
 * The launcher starts other workers of the pool when mail waits too long.  They
 * end after djactor.idle_timeout without work.  One of them becomes the resident
 * when there is none.  It also does when the resident is in a long turn and there
 * is something to do that only a resident does.
 */
#include "postgres.h"

#include <sys/resource.h>

#include "commands/async.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/notification.h"
#include "base/python.h"
#include "process/batch.h"
#include "process/crash_record.h"
#include "process/history.h"
#include "process/idle.h"
#include "process/retention.h"
#include "process/timekeeper.h"
#include "process/worker.h"
#include "process/worker_xact.h"
#include "shmem/copy_shmem.h"
#include "shmem/crash.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "turn/session.h"
#include "xact/copy_check.h"

#define DJA_LINGER_MS 1000
#define DJA_LISTEN_AGAIN_MS 10000
#define DJA_STALL_MS 1000
#define DJA_PURGE_MS 60000
#define DJA_SLICE_MS 200
#define DJA_SLICE_MAX_MS 1000
#define DJA_SLICE_STARTS 20		/* a slice of time, in starts of a worker */
#define DJA_CHEW_BATCHES 8		/* so many full batches, and the worker calls
								 * for help */

static int	dja_slot = DJA_NO_SLOT;
static int	dja_my_pool;
static bool dja_notified = false;	/* on our channel, since the last sweep */
static TimestampTz dja_swept_at = 0;
static volatile bool dja_has_started = false;	/* it has logged in, and may
												 * serve */
static bool dja_orderly = false;	/* it ends between two rounds, on request */

/* ---------- beginning and end ---------- */

/*
 * SIGINT cancels the turn; running Python code has to be interrupted for that.  It is
 * ignored where there are no turns: in a launcher or a scout, and in a worker that has
 * not started yet.  An error there would end the process, and be counted as a failure
 * to start.  But by this signal the server's timeouts end a statement, too.
 */
static void
dja_cancel(SIGNAL_ARGS)
{
	if (!dja_has_started && !get_timeout_indicator(LOCK_TIMEOUT, false) && !get_timeout_indicator(STATEMENT_TIMEOUT, false))
		return;
	StatementCancelHandler(DJA_SIGNAL_ARGS);
	dja_python_nudge();
}

/*
 * Sets up signals as the server's own processes do, but for SIGINT.  A worker has
 * crash.c take over SIGTERM.
 */
void
dja_process_signals(void)
{
	/* SIGUSR1 is the server's own; the rest as for a backend */
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, dja_cancel);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

static void
dja_worker_detach(int code, Datum arg)
{
	DjaPool    *pool;

	dja_assert_worker();
	dja_crash_end(dja_slot);	/* before anybody can claim its message */
	dja_release_claims();
	dja_lock();
	pool = dja_pool(dja_my_pool);
	if (pool->resident == dja_slot)
	{
		pool->resident = DJA_NO_SLOT;
		pool->state = DJA_POOL_ABSENT;
		dja_queue_orphan(dja_my_pool, dja_orderly);
	}
	if (!dja_has_started && (dja_crash_terminated() || dja_my_worker->stop))
	{
		/* it was asked to end, which is no failure to start */
		pool->failures = Max(0, pool->failures - 1);
		pool->not_before = 0;
	}
	pool->workers--;
	dja_assert_pool_counts(pool);
	dja_my_worker->state = DJA_WORKER_FREE;
	dja_my_worker->pid = 0;

	/* another worker has to take over its duties, and the mail that it leaves */
	for (int i = 0; i < dja_max_workers; i++)
		if (dja_worker(i)->pid != 0 && dja_worker(i)->pool == dja_my_pool)
			dja_wake(dja_worker(i)->procno);
	dja_unlock();
	dja_my_worker = NULL;
	dja_ring_launcher();
}

/*
 * LISTENs, again before each sleep, since a handler may have said UNLISTEN.  If that
 * fails, NOTIFY does not wake this process.
 */
static void
dja_listen_step(void *arg)
{
	Async_Listen("djactor");
}

/* ---------- waiting ---------- */

/*
 * Does a pool wait for a place?  Called after this worker has written down that
 * it is idle.  The launcher writes down that pools wait before it looks for idle
 * workers, so one of the two sees the other.
 */
static bool
dja_places_wanted(void)
{
	pg_memory_barrier();
	return dja_shared->slots->places_wanted;
}

/*
 * An idle worker rings the launcher if its place is wanted and it has been idle
 * for DJA_BREATH_MS.  Otherwise wake_at is lowered to when it will have been.
 */
static void
dja_offer_place(TimestampTz now, TimestampTz *wake_at)
{
	TimestampTz until = TimestampTzPlusMilliseconds(dja_my_worker->since, DJA_BREATH_MS);

	if (!dja_places_wanted())
		return;
	if (now < until)
		*wake_at = Min(*wake_at, until);
	else
		dja_ring_launcher();
}

static void
dja_show_state(DjaWorkerState state)
{
	dja_assert_worker();
	Assert(state == DJA_WORKER_IDLE || state == DJA_WORKER_BUSY);
	if (dja_my_worker->state == state)
		return;
	dja_my_worker->since = GetCurrentTimestamp();
	dja_my_worker->state = state;
	pgstat_report_activity(state == DJA_WORKER_BUSY ? STATE_RUNNING : STATE_IDLE,
						   state == DJA_WORKER_BUSY ? "djactor: handling mail" : NULL);
}

/*
 * Waits for the latch until wake_at; handles interrupts and notifications.
 */
static void
dja_wait(long timeout)
{
	static uint32 wait_event = 0;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout,
					 DJA_WAIT_EVENT(wait_event, "DjactorWorkerMain"));
	ResetLatch(MyLatch);
	dja_check_interrupts();
	dja_notified |= dja_read_notifications();
}

static long
dja_ms_until(TimestampTz when, long limit)
{
	TimestampTz now;

	if (when == DJA_NEVER)
		return limit;
	now = GetCurrentTimestamp();
	if (when <= now)
		return 0;
	return Min(limit, (long) ((when - now + 999) / 1000));
}

/*
 * Declares the pool's resident idle.  Returns false if there is something to do.
 */
static bool
dja_go_idle(DjaPoolState state, TimestampTz *next_due)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz history_due;
	bool		idle;

	dja_lock();
	history_due = dja_history_due(dja_my_pool, now);
	idle = !dja_queue_has_work(dja_my_pool, true, now) && history_due > now;
	if (idle)
	{
		DjaPool    *pool = dja_pool(dja_my_pool);

		Assert(dja_is_resident());
		if (state == DJA_POOL_ASLEEP && pool->state != DJA_POOL_ASLEEP)
			pool->rung = false;
		pool->state = state;
		*next_due = Min(dja_queue_next_due(dja_my_pool, now), history_due);
	}
	dja_unlock();
	return idle;
}

/*
 * The resident looks again before it waits: senders need not ring.
 */
static void
dja_go_busy(void)
{
	dja_lock();
	Assert(dja_is_resident());
	dja_pool(dja_my_pool)->state = DJA_POOL_BUSY;
	dja_unlock();
}

/*
 * Marks every type queue of the pool for a sweep.
 */
static void
dja_want_sweep(void)
{
	dja_notified = false;
	dja_swept_at = GetCurrentTimestamp();
	dja_lock();
	for (int i = dja_shared->queue->pool_type_queues[dja_my_pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
	{
		dja_type_queue(i)->sweep_wanted = true;
		dja_type_queue(i)->next_due = DT_NOBEGIN;
	}
	dja_unlock();
}

/*
 * The resident waits until there may be something to do.  A notification without
 * mail may have been sent by hand, to make the pool sweep.  It may be about the mail
 * of another pool as well, so the pool sweeps for it once a second at most.
 */
static void
dja_resident_wait(void)
{
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz poll_at = TimestampTzPlusMilliseconds(start, dja_poll_interval);
	TimestampTz asleep_at = TimestampTzPlusMilliseconds(start, DJA_LINGER_MS);
	bool		asleep = false;

	while (!dja_my_worker->stop && !ConfigReloadPending)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz wake_at;

		if (!asleep && now >= asleep_at)
		{
			/* if LISTEN failed it lingers on, and senders set its latch */
			asleep = dja_in_transaction(dja_listen_step, NULL);
			asleep_at = TimestampTzPlusMilliseconds(now, DJA_LISTEN_AGAIN_MS);
			pgstat_report_stat(true);
		}
		if (!dja_go_idle(asleep ? DJA_POOL_ASLEEP : DJA_POOL_LINGERING, &wake_at))
		{
			dja_notified = false;
			return;
		}
		if (now >= poll_at ||
			(dja_notified && now >= TimestampTzPlusMilliseconds(dja_swept_at, DJA_LINGER_MS)))
		{
			dja_want_sweep();
			return;
		}
		dja_show_state(DJA_WORKER_IDLE);
		wake_at = Min(wake_at, poll_at);
		if (!asleep)
			wake_at = Min(wake_at, asleep_at);
		if (dja_notified)
			wake_at = Min(wake_at, TimestampTzPlusMilliseconds(dja_swept_at, DJA_LINGER_MS));
		dja_offer_place(now, &wake_at);
		dja_wait(dja_ms_until(wake_at, dja_poll_interval));
	}
}

/*
 * May this worker become the resident?
 *
 * A resident in a long turn does neither sweeps nor delays.  It can be replaced:
 * after the batch it looks whether it still is the resident, before it does
 * anything that only a resident does.
 */
static bool
dja_may_be_resident(TimestampTz now)
{
	int			resident = dja_pool(dja_my_pool)->resident;

	dja_assert_locked();
	return !dja_my_worker->stop &&
		(resident < 0 ||
		 (resident != dja_slot && dja_worker(resident)->long_turn &&
		  dja_queue_has_work(dja_my_pool, true, now)));
}

/*
 * A worker that is not the resident waits.  Returns false when it has waited for
 * djactor.idle_timeout and has to end.
 */
static bool
dja_extra_wait(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), dja_idle_timeout);

	dja_show_state(DJA_WORKER_IDLE);
	pgstat_report_stat(true);
	while (!dja_my_worker->stop)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz wake_at = until;
		bool		work;

		dja_lock();
		work = dja_queue_has_work(dja_my_pool, false, now) || dja_may_be_resident(now);
		dja_unlock();
		if (work || ConfigReloadPending)
			return true;
		if (now >= until)
			return false;
		dja_offer_place(now, &wake_at);
		dja_wait(dja_ms_until(wake_at, dja_idle_timeout));
	}
	return true;
}

/* ---------- the loop ---------- */

/*
 * Is this worker the resident, or can it become so?
 */
static bool
dja_be_resident(void)
{
	DjaPool    *pool = dja_pool(dja_my_pool);
	TimestampTz now = GetCurrentTimestamp();
	bool		resident;

	dja_assert_worker();
	dja_lock();
	Assert(pool->in_use && dja_my_worker->pool == dja_my_pool);
	if (dja_may_be_resident(now))
	{
		pool->resident = dja_slot;
		pool->state = DJA_POOL_BUSY;
	}
	resident = pool->resident == dja_slot;
	dja_unlock();
	return resident;
}

/*
 * Calls for another worker, after many full batches in a row while mailboxes
 * still wait.
 */
static void
dja_call_for_help(bool worked)
{
	static int	batches = 0;
	bool		waiting;

	batches = worked ? batches + 1 : 0;
	if (batches < DJA_CHEW_BATCHES)
		return;
	batches = 0;
	dja_lock();
	waiting = dja_queue_wants_help(dja_my_pool);
	if (waiting)
		dja_pool(dja_my_pool)->wanted = true;
	dja_unlock();
	if (waiting)
		dja_ring_launcher();
}

/*
 * Waits while the server is in trouble (no space, read-only, a lock that another
 * session keeps).  Another pool may have the place meanwhile.
 */
static void
dja_stall(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_STALL_MS);

	dja_my_worker->stalled = true;
	if (dja_places_wanted())
		dja_ring_launcher();
	while (GetCurrentTimestamp() < until && !dja_my_worker->stop)
		dja_wait(dja_ms_until(until, DJA_STALL_MS));
	dja_my_worker->stalled = false;
	if (dja_my_worker->stop)
	{
		dja_lock();
		dja_pool(dja_my_pool)->not_before = until;
		dja_unlock();
	}
}

/*
 * Notes the end of the first batch.  From now on the worker may be asked to end,
 * if it is busy after a slice of time.  The slice is longer where a start costs
 * more: a login on a busy machine, or libraries that handlers load.
 */
static void
dja_begin_slice(int64 login_ms)
{
	struct rusage usage;
	int64		start_ms = login_ms;

	if (getrusage(RUSAGE_SELF, &usage) == 0)
		start_ms = Max(start_ms,
					   (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * (int64) 1000 +
					   (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000);
	dja_lock();
	dja_my_worker->slice_ms = Max(DJA_SLICE_MS, Min(DJA_SLICE_STARTS * start_ms, DJA_SLICE_MAX_MS));
	dja_my_worker->serves_since = GetCurrentTimestamp();
	dja_unlock();
	if (dja_places_wanted())
		dja_ring_launcher();
}

static void
dja_worker_loop(void)
{
	int64		login_ms = (GetCurrentTimestamp() - dja_my_worker->since) / 1000;
	TimestampTz purge_at = 0;

	while (!dja_my_worker->stop)
	{
		bool		resident = dja_be_resident();
		DjaBatchResult result;

		dja_check_interrupts();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		dja_notified |= dja_read_notifications();

		dja_show_state(DJA_WORKER_BUSY);
		if (resident)
			dja_go_busy();
		dja_record_crashes(dja_my_pool, dja_slot);
		if (resident)
			dja_tell_hosts(dja_my_pool);
		result = dja_batch_run(dja_my_pool);
		dja_call_for_help(result == DJA_BATCH_DONE);
		pgstat_report_stat(false);	/* for autovacuum */
		if (dja_my_worker->serves_since == 0)
			dja_begin_slice(login_ms);
		if (dja_my_worker->stop && result != DJA_BATCH_STALLED)
			break;				/* another worker is the resident now */
		if (dja_be_resident())
		{
			bool		busy = dja_recheck_blocked(dja_my_pool);

			busy |= dja_release_due(dja_my_pool);
			busy |= dja_sweep(dja_my_pool);
			busy |= dja_stop_idle(dja_my_pool);
			busy |= dja_history_write(dja_my_pool);
			if (GetCurrentTimestamp() >= purge_at)
			{
				if (dja_purge())
					busy = true;
				else
					purge_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_PURGE_MS);
			}
			if (result == DJA_BATCH_EMPTY && !busy)
				dja_resident_wait();
		}
		else if (result == DJA_BATCH_EMPTY && !dja_extra_wait())
			break;
		if (dja_had_trouble() || result == DJA_BATCH_STALLED)
			dja_stall();
	}
}

static void
dja_home_step(void *arg)
{
	*(bool *) arg = dja_home_check();
}

void
dja_worker_main(Datum arg)
{
	DjaPool    *pool;
	Oid			database;
	Oid			role;
	uint32		generation;
	bool		served = false;

	dja_slot = DatumGetInt32(arg);
	memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof(generation));
	dja_process_signals();
	dja_catch_sigterm();

	/* take the slot, if it is still meant for us */
	dja_lock();
	dja_my_worker = dja_worker(dja_slot);
	if (dja_my_worker->state != DJA_WORKER_STARTING ||
		dja_my_worker->generation != generation)
	{
		dja_unlock();
		dja_my_worker = NULL;
		proc_exit(0);
	}
	Assert(dja_my_worker->pid == 0);
	dja_my_worker->state = DJA_WORKER_IDLE;
	dja_my_worker->pid = MyProcPid;
	dja_my_worker->procno = dja_my_procno();
	dja_my_worker->since = GetCurrentTimestamp();
	dja_my_pool = dja_my_worker->pool;
	pool = dja_pool(dja_my_pool);
	database = pool->database;
	role = pool->role;
	dja_assert_pool_counts(pool);
	dja_unlock();
	before_shmem_exit(dja_worker_detach, (Datum) 0);
	if (dja_my_worker->stop)
		proc_exit(0);			/* it was asked to end already */

	BackgroundWorkerInitializeConnectionByOid(database, role, 0);
	dja_session_begin();
	dja_crash_begin(dja_slot);

	(void) dja_in_transaction(dja_home_step, &served);
	if (served || dja_copy_is_held(database))
	{
		dja_lock();
		pool->failures = 0;
		pool->not_before = 0;
		dja_unlock();
		dja_has_started = true;
	}
	if (!served)
		proc_exit(0);			/* no other is started before a scout has been
								 * here */
	dja_worker_loop();
	dja_orderly = true;
	proc_exit(0);
}
