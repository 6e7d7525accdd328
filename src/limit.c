/*
 * limit.c
 *
 * The time limit of a turn; see limit.h.
 *
 * It is a timeout of our own, since statement_timeout is never armed in a
 * background worker.  It cancels as a user would, and again each second for a
 * handler that catches the first.  A worker whose handler catches ten of them
 * ends: no handler can catch that, and its message is charged with a crash
 * (crash.c).
 *
 * Turns last microseconds, and setting a timeout takes nearly one: so the timer
 * ticks from the first turn of a batch to the end of the batch, and a turn only
 * notes when its time is over.  The ticks come eight times in the shortest
 * limit and at least every tenth of a second, so by that much a turn may last
 * longer than its limit.  A tick also sees whether the server waits for this
 * process, and if it runs Python code, which does not look, tells it.
 */
#include "postgres.h"

#include "crash.h"
#include "limit.h"
#include "miscadmin.h"
#include "python.h"
#include "slots.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define DJA_TICKS 8				/* in the shortest limit */
#define DJA_TICK_MAX 100		/* ms */
#define DJA_CANCEL_AGAIN 1000	/* ms */
#define DJA_CANCELS 10			/* a handler may ignore */

volatile bool dja_limit_exceeded = false;

static TimeoutId dja_ticker;
static bool dja_ticker_registered = false;
static int	dja_tick;			/* ms, while the ticker is active */

/* written by the turn, read by the signal handler, deadline before running */
static volatile bool dja_running = false;
static volatile TimestampTz dja_deadline;
static volatile int dja_cancels;

/*
 * Runs in a signal handler.
 */
static void
dja_tick_handler(void)
{
	TimestampTz now;

	if (!dja_running)
		return;
	if (InterruptPending)
		dja_python_nudge();		/* it may be long before it looks */
	now = GetCurrentTimestamp();
	if (now < dja_deadline)
		return;
	dja_deadline = TimestampTzPlusMilliseconds(now, DJA_CANCEL_AGAIN);
	dja_limit_exceeded = true;
	if (dja_cancels++ >= DJA_CANCELS && dja_my_worker != NULL)
		ProcDiePending = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
	dja_python_nudge();
}

/*
 * A turn begins: what runs is cancelled timeout ms from now (0 = never).
 */
void
dja_limit_begin(int timeout, TimestampTz now)
{
	int			tick = timeout <= 0 ? DJA_TICK_MAX : Max(1, Min(timeout / DJA_TICKS, DJA_TICK_MAX));

	dja_limit_exceeded = false;
	dja_cancels = 0;
	if (!dja_ticker_registered)
	{
		dja_ticker = RegisterTimeout(USER_TIMEOUT, dja_tick_handler);
		dja_ticker_registered = true;
	}
	dja_deadline = timeout <= 0 ? DT_NOEND : TimestampTzPlusMilliseconds(now, timeout);
	pg_compiler_barrier();
	dja_running = true;
	if (tick < dja_tick || !get_timeout_active(dja_ticker))
	{
		dja_tick = tick;
		enable_timeout_every(dja_ticker, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), tick),
							 tick);
	}
}

/*
 * The turn is over, without regard to whether that came in time.
 */
void
dja_limit_stop(void)
{
	dja_running = false;
	dja_python_end();
	if (dja_limit_exceeded)
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
 * The turn is over.  A cancel that came too late to be served is dropped, and
 * one that was caught by the handler counts all the same.
 */
void
dja_limit_end(void)
{
	dja_limit_stop();
	if (dja_limit_exceeded)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling handler due to handler_timeout")));
}

/*
 * No turn follows for now: nothing ticks.
 */
void
dja_limit_rest(void)
{
	if (dja_ticker_registered)
		disable_timeout(dja_ticker, false);
}
