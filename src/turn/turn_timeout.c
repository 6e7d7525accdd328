/*
 * turn_timeout.c
 *
 * The clock of turns.
 *
 * The time limit is a timeout of our own, since statement_timeout is never armed
 * in a background worker.  It cancels the turn as a user would.  If the handler
 * catches that, it is cancelled again each second.  A worker whose handler has
 * caught ten cancels ends.  No handler can catch that, and its message is charged
 * with a crash (crash.c).
 *
 * A turn that shares its transaction with earlier ones delays their commit for as
 * long as it lasts: their effects stay invisible, and their locks stay.  How long it
 * will last is not known beforehand.  So when it has lasted for some ten
 * milliseconds it is cancelled, too.  The others run again without it, and it runs
 * alone (remedy.c).  If its handler catches the cancel and goes on, it is cancelled
 * again.  If it waits for a lock, it is cancelled at the next tick, since the holder
 * of the lock may wait for a lock of the earlier turns.
 *
 * Turns last microseconds, and setting a timeout takes nearly one.  So the timer
 * ticks from the first turn of a batch to the end of the batch, and a turn only
 * notes when its time is over.  There are eight ticks in the shortest limit, and in
 * a worker at least a hundred in a second.  A turn may outlast its limit by the time
 * between two ticks.  A turn counts as long from the second tick on, since a process
 * that was kept from running gets only one.  A tick also looks for interrupts.
 * Python code does not look for them, so the tick interrupts it (python.c).
 *
 * A turn whose message is being cancelled is broken off like one that has exceeded its
 * limit (sql/cancel.c).  The tick finds that out in the worker's slot, where the message
 * is named, so that no other turn can be hit.
 *
 * The server looks for a deadlock once in a wait.  A worker that waits may become
 * part of one later.  Then another process would find it and be its victim.  So a
 * tick makes the worker look again.
 *
 * All of this runs in a signal handler, except the functions that a turn calls.
 * They write dja_running last, after all that the signal handler reads.
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
#define DJA_CANCELS 10			/* that a handler may ignore */

volatile DjaTurnTimeoutHit dja_turn_timeout_hit = DJA_TURN_TIMEOUT_NONE;
volatile bool dja_turn_timeout_long = false;

static TimeoutId dja_ticker;
static bool dja_ticker_registered = false;
static int	dja_tick;			/* ms, while the ticker is active */

static volatile bool dja_running = false;
static volatile bool dja_shared_turn;	/* other turns are in its transaction */
static volatile TimestampTz dja_started;
static volatile TimestampTz dja_deadline;
static volatile int dja_ticked; /* ticks in this turn */
static volatile int dja_cancels;
static volatile TimestampTz dja_help_at;	/* when another worker is called
											 * next */
static volatile TimestampTz dja_look_at;	/* when a deadlock is looked for
											 * next */
static volatile TimestampTz dja_break_at;	/* when a shared turn is cancelled
											 * next */

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
 * Cancels the turn if others share its transaction, unless that was done just now
 * or its time limit is over.
 */
static void
dja_break_off(DjaTurnTimeoutHit hit, TimestampTz now)
{
	if (!dja_shared_turn || now < dja_break_at || dja_turn_timeout_hit == DJA_TURN_TIMEOUT_EXCEEDED ||
		dja_turn_timeout_hit == DJA_TURN_TIMEOUT_CANCELLED)
		return;
	dja_break_at = now + DJA_AGAIN_USEC;
	dja_cancel_turn(dja_turn_timeout_hit == DJA_TURN_TIMEOUT_NONE ? hit : dja_turn_timeout_hit);
}

static bool
dja_is_cancelled(void)
{
	return dja_my_worker != NULL && dja_my_worker->cancel_id != 0 &&
		dja_my_worker->cancel_id == dja_my_worker->message_id;
}

static bool
dja_waits_for_lock(void)
{
	return (*(volatile uint32 *) my_wait_event_info & 0xFF000000U) == PG_WAIT_LOCK;
}

/*
 * Calls for another worker of the pool, since this one takes long and mail may wait.
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
		dja_python_nudge();		/* Python may not look for long */
	if (dja_waits_for_lock())
		dja_break_off(DJA_TURN_TIMEOUT_BLOCKED, now);
	if (dja_my_worker != NULL && dja_ticked++ > 0 && now >= dja_started + DJA_LONG_TURN_USEC)
		dja_long_turn(now);
	if (dja_turn_timeout_hit != DJA_TURN_TIMEOUT_CANCELLED && dja_is_cancelled())
		dja_deadline = now;
	if (now < dja_deadline)
		return;
	dja_deadline = TimestampTzPlusMilliseconds(now, DJA_CANCEL_AGAIN);
	if (dja_cancels++ >= DJA_CANCELS && dja_my_worker != NULL)
		ProcDiePending = true;
	dja_cancel_turn(dja_is_cancelled() ? DJA_TURN_TIMEOUT_CANCELLED : DJA_TURN_TIMEOUT_EXCEEDED);
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
 * Starts the ticks of a worker's transaction.  From now on another worker is called
 * if it takes long.  Needs a worker, outside of a turn.
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
 * Starts the clock of a turn, which is cancelled timeout ms from now (0 = never).
 * If it is shared, that is, other turns are in its transaction, it may be cancelled
 * sooner.  Only a worker's turns may be shared.
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
	dja_started = now;
	dja_deadline = timeout <= 0 ? DT_NOEND : TimestampTzPlusMilliseconds(now, timeout);
	pg_compiler_barrier();
	dja_running = true;
	dja_start_ticker(timeout <= 0 ? tick : Max(1, Min(timeout / DJA_TICKS, tick)));
}

/*
 * Stops the clock of a turn, if one runs.  Raises no error, even if the turn has
 * lasted too long.
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
		/* the handler has ended after all, but another process may ask, too */
		ProcDiePending = false;
		if (dja_crash_terminated())
			ProcDiePending = true;
	}
	dja_cancels = 0;
}

/*
 * Stops the clock of a turn that has come to its end.  Raises an error if it has
 * exceeded its time limit, even if the handler has caught the cancel, or if that
 * came too late to be served.  A turn that was cancelled for the sake of others, and
 * ended before it noticed, has come out well.
 */
void
dja_turn_timeout_end(void)
{
	bool		unnoticed;

	Assert(dja_running);
	dja_running = false;
	pg_compiler_barrier();
	unnoticed = QueryCancelPending && (dja_turn_timeout_hit == DJA_TURN_TIMEOUT_LONG ||
									   dja_turn_timeout_hit == DJA_TURN_TIMEOUT_BLOCKED);
	dja_turn_timeout_stop();
	if (unnoticed)
		dja_turn_timeout_hit = DJA_TURN_TIMEOUT_NONE;
	if (dja_turn_timeout_hit != DJA_TURN_TIMEOUT_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 dja_turn_timeout_hit == DJA_TURN_TIMEOUT_EXCEEDED ?
				 errmsg("canceling handler due to handler_timeout") :
				 dja_turn_timeout_hit == DJA_TURN_TIMEOUT_CANCELLED ?
				 errmsg("canceling handler due to djactor.cancel()") :
				 errmsg("canceling handler that keeps others waiting, to run it alone")));
}

/*
 * Stops the ticks, since no turn follows for now.
 */
void
dja_turn_timeout_rest(void)
{
	if (dja_ticker_registered)
		disable_timeout(dja_ticker, false);
}
