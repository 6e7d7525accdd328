/*
 * turn_timeout.c
 *
 * The clock of turns; see turn_timeout.h.
 *
 * The time limit is a timeout of our own, since statement_timeout is never armed
 * in a background worker.  It cancels as a user would, and again each second for a
 * handler that catches the first.  A worker whose handler catches ten of them
 * ends: no handler can catch that, and its message is charged with a crash
 * (crash.c).
 *
 * A turn that shares its transaction with earlier ones keeps their effects from
 * everybody, and their locks, for as long as it lasts.  Nobody knows beforehand
 * how long that is.  So when it has lasted for some ten milliseconds it is
 * cancelled, too: the others run again without it, and it runs alone (batch.c).
 * One that catches the cancel and goes on is cancelled again.  If it waits for a
 * lock, which somebody may keep who waits for what the others have locked, it need
 * not even last so long.
 *
 * Turns last microseconds, and setting a timeout takes nearly one: so the timer
 * ticks from the first turn of a batch to the end of the batch, and a turn only
 * notes when its time is over.  The ticks come eight times in the shortest limit,
 * and in a worker at least every hundredth of a second; by that much a turn may last
 * longer than its limit.  A turn counts as long from the second tick on, since a
 * process that was kept from running gets only one.  A tick also sees whether
 * the server waits for this process, and if it runs Python code, which does
 * not look, tells it.
 *
 * The server looks for a deadlock once in a wait.  A worker that waits may come to
 * be part of one later, found by somebody else, who would be its victim; so a
 * tick has it look again.
 *
 * All of it runs in a signal handler but what the turn calls, which writes first
 * what the handler reads and then dja_running.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/python.h"
#include "shmem/crash.h"
#include "shmem/slots.h"
#include "turn/turn_timeout.h"

#define DJA_TICKS 8				/* in the shortest limit */
#define DJA_TICK_MAX 100		/* ms */
#define DJA_WORKER_TICK 10		/* ms */
#define DJA_LONG_TURN_USEC 10000
#define DJA_AGAIN_USEC 100000	/* between two calls for help, and two looks
								 * for a deadlock */
#define DJA_CANCEL_AGAIN 1000	/* ms */
#define DJA_CANCELS 10			/* a handler may ignore */

volatile DjaTurnTimeoutHit dja_turn_timeout_hit = DJA_TURN_TIMEOUT_NONE;
volatile bool dja_turn_timeout_long = false;

static TimeoutId dja_ticker;
static bool dja_ticker_registered = false;
static int	dja_tick;			/* ms, while the ticker is active */

static volatile bool dja_running = false;
static volatile bool dja_shared_turn;	/* others are in its transaction */
static volatile TimestampTz dja_started;
static volatile TimestampTz dja_deadline;
static volatile int dja_ticked; /* so often in this turn */
static volatile int dja_cancels;
static volatile TimestampTz dja_help_at;	/* when others are called next */
static volatile TimestampTz dja_look_at;	/* when a deadlock is looked for
											 * next */
static volatile TimestampTz dja_break_at;	/* when a shared turn is cancelled
											 * next */
static volatile bool dja_noticed;	/* it has caught such a cancel */

static void
dja_cancel_turn(DjaTurnTimeoutHit hit)
{
	dja_turn_timeout_hit = hit;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
	dja_python_nudge();
}

/*
 * The turn keeps those waiting that share its transaction.
 */
static void
dja_break_off(DjaTurnTimeoutHit hit, TimestampTz now)
{
	if (!dja_shared_turn || now < dja_break_at || dja_turn_timeout_hit == DJA_TURN_TIMEOUT_EXCEEDED)
		return;
	dja_break_at = now + DJA_AGAIN_USEC;
	dja_noticed |= dja_turn_timeout_hit != DJA_TURN_TIMEOUT_NONE && !QueryCancelPending;
	dja_cancel_turn(dja_turn_timeout_hit == DJA_TURN_TIMEOUT_NONE ? hit : dja_turn_timeout_hit);
}

static bool
dja_waits_for_lock(void)
{
	return (*(volatile uint32 *) my_wait_event_info & 0xFF000000U) == PG_WAIT_LOCK;
}

/*
 * This worker takes long, and others may wait: somebody else is wanted.
 */
static void
dja_call_others(TimestampTz now)
{
	dja_help_at = now + DJA_AGAIN_USEC;
	dja_pool(dja_my_worker->pool)->wanted = true;
	dja_ring_launcher();
}

static void
dja_long_turn(TimestampTz now)
{
	if (!dja_my_worker->long_turn)
		dja_call_others(now);
	dja_my_worker->long_turn = dja_turn_timeout_long = true;
	if (now >= dja_look_at && dja_waits_for_lock())
	{
		dja_look_at = now + DJA_AGAIN_USEC;
		CheckDeadLockAlert();
	}
	dja_break_off(DJA_TURN_TIMEOUT_LONG, now);
}

static void
dja_tick_handler(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (dja_my_worker != NULL && now >= dja_help_at)
		dja_call_others(now);
	if (!dja_running)
		return;
	if (InterruptPending)
		dja_python_nudge();		/* it may be long before it looks */
	if (dja_waits_for_lock())
		dja_break_off(DJA_TURN_TIMEOUT_BLOCKED, now);
	if (dja_my_worker != NULL && dja_ticked++ > 0 && now >= dja_started + DJA_LONG_TURN_USEC)
		dja_long_turn(now);
	if (now < dja_deadline)
		return;
	dja_deadline = TimestampTzPlusMilliseconds(now, DJA_CANCEL_AGAIN);
	if (dja_cancels++ >= DJA_CANCELS && dja_my_worker != NULL)
		ProcDiePending = true;
	dja_cancel_turn(DJA_TURN_TIMEOUT_EXCEEDED);
}

static void
dja_start_ticker(int tick)
{
	if (!dja_ticker_registered)
	{
		dja_ticker = RegisterTimeout(USER_TIMEOUT, dja_tick_handler);
		dja_ticker_registered = true;
	}
	if (tick < dja_tick || !get_timeout_active(dja_ticker))
	{
		dja_tick = tick;
		enable_timeout_every(dja_ticker, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), tick),
							 tick);
	}
}

/*
 * A worker's transaction begins: from now on others are called when it takes
 * long.
 */
void
dja_turn_timeout_arm(void)
{
	dja_assert_worker();
	Assert(!dja_running);
	dja_help_at = GetCurrentTimestamp() + DJA_AGAIN_USEC;
	dja_start_ticker(DJA_WORKER_TICK);
}

/*
 * A turn begins: what runs is cancelled timeout ms from now (0 = never), and
 * sooner if it is shared, that is, others are in its transaction.
 */
void
dja_turn_timeout_begin(int timeout, TimestampTz now, bool shared)
{
	int			tick = dja_my_worker != NULL ? DJA_WORKER_TICK : DJA_TICK_MAX;

	Assert(!dja_running);
	Assert(!shared || dja_my_worker != NULL);
	dja_turn_timeout_hit = DJA_TURN_TIMEOUT_NONE;
	dja_turn_timeout_long = false;
	dja_cancels = 0;
	dja_ticked = 0;
	dja_shared_turn = shared;
	dja_break_at = now;
	dja_noticed = false;
	dja_started = now;
	dja_deadline = timeout <= 0 ? DT_NOEND : TimestampTzPlusMilliseconds(now, timeout);
	pg_compiler_barrier();
	dja_running = true;
	dja_start_ticker(timeout <= 0 ? tick : Max(1, Min(timeout / DJA_TICKS, tick)));
}

/*
 * The turn is over, without regard to whether that came in time.
 */
void
dja_turn_timeout_stop(void)
{
	dja_running = false;
	dja_python_end();
	if (dja_turn_timeout_hit != DJA_TURN_TIMEOUT_NONE)
		QueryCancelPending = false;
	if (dja_cancels > DJA_CANCELS && dja_my_worker != NULL)
	{
		/* it has ended after all; and who else wants the process to end? */
		ProcDiePending = false;
		if (dja_crash_terminated())
			ProcDiePending = true;
	}
	dja_cancels = 0;
}

/*
 * The turn is over.  That it has lasted too long counts even if the handler
 * has caught the cancel, or if that came too late to be served.  A turn that
 * was long, and ended before it noticed, has come out well.
 */
void
dja_turn_timeout_end(void)
{
	bool		unnoticed;

	Assert(dja_running);
	dja_running = false;
	pg_compiler_barrier();
	unnoticed = QueryCancelPending && dja_turn_timeout_hit != DJA_TURN_TIMEOUT_EXCEEDED;
	dja_turn_timeout_stop();
	if (unnoticed)
		dja_turn_timeout_hit = DJA_TURN_TIMEOUT_NONE;
	if (dja_turn_timeout_hit != DJA_TURN_TIMEOUT_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 dja_turn_timeout_hit == DJA_TURN_TIMEOUT_EXCEEDED ?
				 errmsg("canceling handler due to handler_timeout") :
				 errmsg("canceling handler that keeps others waiting, to run it alone")));
}

/*
 * No turn follows for now: nothing ticks.
 */
void
dja_turn_timeout_rest(void)
{
	if (dja_ticker_registered)
		disable_timeout(dja_ticker, false);
}
