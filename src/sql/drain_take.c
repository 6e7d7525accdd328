/*
 * drain_take.c
 *
 * drain_take(): drain() for hosted types, whose turns the caller runs itself.  It hands
 * out one message at a time.
 *
 * Each call looks at everything anew, since the caller's own statements come in between.
 * The clock stays where a call has moved it until a call finds nothing, or the
 * transaction ends: the turn in between happens then.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "sql/drain.h"
#include "turn/hosted.h"

PG_FUNCTION_INFO_V1(dja_drain_take);

static int
dja_drain_claim_hosted(int type_queue, uint64 key_hash)
{
	int			claim;

	dja_lock();
	claim = dja_host_claim_mailbox(type_queue, key_hash);
	dja_unlock();
	return claim;
}

/*
 * Hands out the next due message of a type.  Returns false if it has none.
 */
static bool
dja_drain_take_type(DjaType *type, ReturnSetInfo *rsinfo)
{
	bool		handed_out = false;
	int			n;
	uint64	   *keys = dja_drain_keys(type, &n);

	for (int i = 0; i < n && !handed_out; i++)
	{
		DjaAgendaItem item;

		CHECK_FOR_INTERRUPTS();
		if (!dja_drain_take_item(type, keys[i], &item))
			continue;
		if (dja_take_drained(dja_drain_claim(type, keys[i], dja_drain_claim_hosted), rsinfo, &handed_out) > 0)
			dja_drain_progress = true;
		dja_agenda_keep(&item); /* its mail may be due later */
	}
	return handed_out;
}

/*
 * Hands out the next due message of any type.  Returns false if there is none.
 */
static bool
dja_drain_take_types(ReturnSetInfo *rsinfo)
{
	bool		handed_out = false;
	ListCell   *lc;

	dja_drain_progress = false;
	dja_drain_round = dja_clock();
	foreach(lc, dja_types_all())
	{
		DjaType    *type = lfirst(lc);

		if (!handed_out && dja_drain_serves(type, true))
			handed_out = dja_drain_take_type(type, rsinfo);
	}
	return handed_out;
}

/*
 * drain_take(until, only_type, only_key)
 */
Datum
dja_drain_take(PG_FUNCTION_ARGS)
{
	TimestampTz until = PG_ARGISNULL(0) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(0);
	volatile bool handed_out = false;
	TimestampTz clock;

	dja_drain_check(0, until, "raise");
	dja_drain_limit(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1), PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2));
	InitMaterializedSRF(fcinfo, 0);
	if (until == DT_NOBEGIN)
		dja_clock_reset();
	dja_drain_begin();
	PG_TRY();
	{
		do
			handed_out = dja_drain_take_types((ReturnSetInfo *) fcinfo->resultinfo);
		while (!handed_out && (dja_drain_progress || dja_drain_advance(until, true)));
	}
	PG_CATCH();
	{
		dja_drain_failed();
		PG_RE_THROW();
	}
	PG_END_TRY();
	clock = dja_clock();
	dja_drain_end();
	if (handed_out && clock > GetCurrentTimestamp())
		dja_clock_move(clock);
	return (Datum) 0;
}
