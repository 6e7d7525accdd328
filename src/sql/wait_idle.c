/*
 * wait_idle.c
 *
 * wait_idle(): waits until no mail is left that could be handled.
 *
 * Only the tables tell whether all is done.  So wait_idle() looks there, each time
 * under a new snapshot: again after a few milliseconds, later every 50.  A look
 * ends at the first mailbox that has something to do, and the next look begins
 * there.
 *
 * Mail that is delayed, or whose actor is paused, suspended or newer than its
 * type, counts as done: workers leave it alone for now.  Mail that waits for its
 * retry does not.
 *
 * As a function it keeps its caller's snapshot while it waits, as a procedure
 * nothing (wait.c).
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/calendar.h"
#include "base/columns.h"
#include "base/compat.h"
#include "sql/wait.h"
#include "tables/actor.h"
#include "tables/actor_type.h"
#include "tables/message.h"
#include "turn/turn.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_wait_idle);
PG_FUNCTION_INFO_V1(dja_call_wait_idle);

#define DJA_LOOK_AGAIN_MS 5		/* first wait, doubled up to ... */
#define DJA_LOOK_AGAIN_MAX_MS 50

/*
 * Where wait_idle() has seen mail that waits.  The next look begins there;
 * otherwise it would walk each time over all mail that was handled meanwhile.
 */
typedef struct DjaSeen
{
	uint64		type_hash;		/* 0 = nowhere */
	uint64		key_hash;
} DjaSeen;

/*
 * Does the mailbox of a key wait to be run?  The function looks for its last
 * message: mail that was handled since the last look lies before that.
 */
static bool
dja_mailbox_waits(DjaType *type, Snapshot snapshot, uint64 key_hash)
{
	Relation	rel = table_open(dja_table_oid(DJA_ACTOR_TABLE), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	DjaScan		scan;
	bool		waits;

	dja_message_scan_begin(&scan, snapshot);
	dja_message_scan_start(&scan, type->hash, key_hash, DJA_CURSOR_START);
	waits = dja_scan_last(&scan) &&
		!dja_actor_halted(rel, slot, type, dja_scan_message(&scan)->key, snapshot);
	dja_scan_end(&scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return waits;
}

/*
 * Does a mailbox of a type wait to be run, from that of a key on?
 */
static bool
dja_mail_waits(DjaType *type, Snapshot snapshot, DjaScanFrom from, uint64 key_hash, DjaSeen *seen)
{
	Relation	rel = table_open(dja_table_oid(DJA_ACTOR_TABLE), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor mailbox",
												  ALLOCSET_SMALL_SIZES);
	bool		waits = false;
	DjaScan		scan;

	dja_message_scan_begin(&scan, snapshot);
	dja_message_scan_type(&scan, type->hash, from, key_hash);
	while (!waits && dja_scan_next(&scan))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		text	   *key = dja_scan_message(&scan)->key;

		key_hash = dja_hash_text(key);
		waits = !dja_actor_halted(rel, slot, type, key, snapshot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		if (!waits)
			dja_message_scan_type(&scan, type->hash, DJA_SCAN_AFTER_KEY, key_hash);
	}
	if (waits)
	{
		seen->type_hash = type->hash;
		seen->key_hash = key_hash;
	}
	dja_scan_end(&scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return waits;
}

/*
 * Is there nothing of a type that workers have to do now, or will have to do
 * after a retry's wait?
 */
static bool
dja_type_is_idle(DjaType *type, Snapshot snapshot, DjaSeen *seen)
{
	bool		idle = true;
	DjaScan		scan;

	if (type->paused)
		return true;
	if (dja_mail_waits(type, snapshot, DJA_SCAN_ALL_KEYS, 0, seen))
		return false;

	/*
	 * under retry_order skip, a message that waits for its retry is delayed,
	 * and not idle either
	 */
	if (type->skip)
	{
		dja_due_scan_begin(&scan, type->hash, DT_NOBEGIN, snapshot);
		while (idle && dja_scan_next(&scan))
		{
			DjaMessage *message = dja_scan_message(&scan);

			idle = message->nulls[DJA_MSG_RETRY_AT - 1] || !message->nulls[DJA_MSG_ASIDE - 1];
		}
		dja_scan_end(&scan);
	}
	return idle;
}

static bool
dja_is_idle(text *name, DjaSeen *seen)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor idle",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Snapshot	snapshot;
	List	   *types = name ? list_make1(dja_require_type(name)) : dja_types_all();
	DjaType    *last = seen->type_hash != 0 ? dja_type_by_hash(seen->type_hash) : NULL;
	bool		idle;
	ListCell   *lc;

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	idle = last == NULL || last->paused ||
		(!dja_mailbox_waits(last, snapshot, seen->key_hash) &&
		 !dja_mail_waits(last, snapshot, DJA_SCAN_FROM_KEY, seen->key_hash, seen));
	foreach(lc, types)
	{
		if (!idle)
			break;
		idle = dja_type_is_idle(lfirst(lc), snapshot, seen);
	}
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return idle;
}

/*
 * Checks the arguments of both forms, and returns when to give up.
 */
static TimestampTz
dja_idle_deadline(FunctionCallInfo fcinfo)
{
	dja_require_installed();
	if (PG_ARGISNULL(0) || dja_interval_usec(PG_GETARG_INTERVAL_P(0)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be null or negative")));
	if (dja_turn.actor != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("wait_idle() cannot be called inside a turn")));
	return GetCurrentTimestamp() + dja_interval_usec(PG_GETARG_INTERVAL_P(0));
}

static bool
dja_wait_until_idle(text *name, TimestampTz until, bool commit)
{
	static uint32 wait_event = 0;
	long		wait = DJA_LOOK_AGAIN_MS;
	DjaSeen		seen = {0};

	while (!dja_is_idle(name, &seen))
	{
		TimestampTz now = GetCurrentTimestamp();

		if (now >= until)
			return false;
		dja_nap(commit, Min(wait, (long) ((until - now) / 1000 + 1)),
				DJA_WAIT_EVENT(wait_event, "DjactorWaitIdle"));
		wait = Min(2 * wait, DJA_LOOK_AGAIN_MAX_MS);
	}
	return true;
}

/*
 * wait_idle(timeout, actor_type)
 */
Datum
dja_wait_idle(PG_FUNCTION_ARGS)
{
	TimestampTz until = dja_idle_deadline(fcinfo);

	if (dja_pending_any())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("wait_idle() cannot wait for messages that this transaction has sent"),
				 errdetail("Workers see them only after its commit."),
				 errhint("Commit first; in a test that never commits use djactor.drain().")));
	PG_RETURN_BOOL(dja_wait_until_idle(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1), until,
									   false));
}

/*
 * CALL wait_idle(timeout, actor_type, INOUT idle): commits, waits.
 */
Datum
dja_call_wait_idle(PG_FUNCTION_ARGS)
{
	TimestampTz until = dja_idle_deadline(fcinfo);
	text	   *name = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_P_COPY(1);
	TupleDesc	row;

	row = dja_call_begin(fcinfo, "CALL wait_idle()",
						 "It commits, so that it holds no snapshot while it waits.",
						 "Commit first, or use SELECT djactor.wait_idle(), which keeps the snapshot of its statement.");
	SPI_commit();
	return dja_call_end(row, BoolGetDatum(dja_wait_until_idle(name, until, true)));
}
