/*
 * drain.c
 *
 * drain(): handles due messages in the caller's own transaction, for tests
 * that never commit.
 *
 * It takes the same claims as a worker and the same steps (visit.c).  It keeps
 * the claims until the transaction ends, since no other process may run these
 * actors before its outcome is known.  It runs handlers as the session's own role,
 * and so only types that this role owns.  Deferred triggers fire when the caller's
 * transaction fires them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "turn/reply.h"
#include "turn/session.h"
#include "turn/turn.h"
#include "turn/turn_timeout.h"
#include "turn/visit.h"
#include "xact/copy_check.h"
#include "xact/drain_agenda.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_drain);

#define DJA_CLAIM_WAIT_MS 10000

/* Has this round done anything that others may have to follow up?  When did it begin? */
static bool dja_drain_progress;
static TimestampTz dja_drain_round;

/*
 * Claims a mailbox, waiting for the worker that runs it.
 */
static int
dja_drain_claim(DjaType *type, uint64 key_hash)
{
	static uint32 wait_event = 0;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_CLAIM_WAIT_MS);
	int			mailbox;

	for (;;)
	{
		int			type_queue;

		dja_lock();
		type_queue = dja_ensure_type_queue(MyDatabaseId, type->hash, type->owner);
		dja_unlock();
		mailbox = type_queue < 0 ? DJA_CLAIM_NO_ROOM : dja_queue_claim(type_queue, key_hash);
		if (mailbox >= 0)
			return mailbox;
		if (mailbox == DJA_CLAIM_NO_ROOM)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("the run queue of djactor is full"),
					 errhint("Increase djactor.run_queue_size.")));
		if (GetCurrentTimestamp() >= until)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("an actor of type \"%s\" is being run by another process", type->name),
					 errhint("Pause the type, or let its workers finish, before you call djactor.drain().")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2,
						 DJA_WAIT_EVENT(wait_event, "DjactorDrainClaim"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Returns when a message of the due index is due.
 */
static TimestampTz
dja_drain_due_at(DjaMessage *message)
{
	return message->nulls[DJA_MSG_RETRY_AT - 1] ?
		DatumGetTimestampTz(message->values[DJA_MSG_DELIVER_AT - 1]) : message->retry_at;
}

/*
 * Lets delayed messages of a type that are due into their mailboxes.
 */
static void
dja_drain_due(DjaType *type)
{
	DjaAgendaType *agenda = dja_agenda_type(type->hash);
	TimestampTz now = dja_clock();
	TimestampTz from = agenda->from;
	TimestampTz left = now + 1;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	DjaWriter  *writer = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor due",
												  ALLOCSET_SMALL_SIZES);
	DjaScan		scan;

	agenda->from = DT_NOEND;	/* mail that comes meanwhile lowers it */
	dja_due_scan_begin(&scan, type->hash, from, snapshot);
	while (dja_scan_next(&scan))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		DjaMessage *message = dja_scan_message(&scan);
		TimestampTz due = dja_drain_due_at(message);
		TM_Result	result = TM_Ok;

		if (due > now)
		{
			MemoryContextSwitchTo(old);
			break;
		}
		if (!message->nulls[DJA_MSG_ASIDE - 1])
		{
			if (dja_message_is_aside(message, "deferred") || dja_message_is_aside(message, "duplicate"))
			{
				result = dja_expire_deferred(message);
				dja_drain_progress |= result == TM_Ok;
			}
		}
		else if (!message->nulls[DJA_MSG_DELIVER_AT - 1] &&
				 !DatumGetBool(message->values[DJA_MSG_RELEASED - 1]))
		{
			result = dja_message_release(writer, message);
			if (result == TM_Ok)
				dja_agenda_mail(type->hash, dja_hash_text(message->key), message->position);
		}
		if (result != TM_Ok)
			left = Min(left, due);	/* somebody has its row */
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	agenda = dja_agenda_type(type->hash);
	agenda->from = Min(agenda->from, left);
	MemoryContextDelete(context);
	dja_scan_end(&scan);
	dja_writer_close(writer);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
}

/*
 * Returns when the next delay, timer or retry of a type is due.  Those that came
 * due before this round began are left out, since the round has seen them.
 */
static TimestampTz
dja_drain_next_due(DjaType *type)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TimestampTz next = DT_NOEND;
	DjaScan		scan;

	dja_due_scan_begin(&scan, type->hash, dja_drain_round + 1, snapshot);
	if (dja_scan_next(&scan))
		next = dja_drain_due_at(dja_scan_message(&scan));
	dja_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	return next;
}

/*
 * Moves the clock to the next delay, timer or retry.  Returns false if that is
 * after until.
 */
static bool
dja_drain_advance(TimestampTz until)
{
	TimestampTz next = DT_NOEND;
	ListCell   *lc;

	foreach(lc, dja_types_all())
	{
		DjaType    *type = lfirst(lc);

		if (type->owner == GetUserId() && !type->paused)
			next = Min(next, dja_drain_next_due(type));
	}
	if (next > until)
		return false;
	if (next > dja_clock())
		dja_clock_move(next);
	return true;
}

/*
 * Handles the due messages of a mailbox, max of them at most, and returns how many
 * it has handled.
 */
static int64
dja_drain_mailbox(DjaType *type, DjaAgendaItem *item, int64 max, bool retry)
{
	uint64		key_hash = item->key.key_hash;
	DjaBatch   *batch = dja_batch_create(false, retry ? DJA_MODE_SAVEPOINTS : DJA_MODE_FAST);
	DjaClaim   *claim = dja_batch_add(batch, dja_drain_claim(type, key_hash));
	int64		handled;

	dja_batch_begin(batch);
	batch->budget = (int) Min(max, 1000);
	batch->deadline = DT_NOEND;
	claim->start = item->cursor;
	claim->first = item->tid;
	ItemPointerSetInvalid(&item->tid);
	dja_claim_read(batch, claim);
	(void) dja_batch_visit(batch, claim);
	handled = batch->turns;
	dja_drain_progress |= handled > 0 || claim->removed > 0 ||
		(batch->executed > 0 && claim->end == DJA_END_REMAINING);
	dja_batch_write(batch);
	if (claim->end == DJA_END_REMAINING || claim->end == DJA_END_RETRY)
		item->cursor = claim->cursor;
	if (claim->end == DJA_END_RETRY)
		item->tid = claim->first;
	if (claim->end != DJA_END_EMPTY)
		dja_agenda_keep(item);
	if (type->mailbox_limit > 0)
		dja_pending_recount(type, key_hash);
	dja_batch_free(batch);
	return handled;
}

/*
 * Puts all mailboxes of a type on the agenda.
 */
static void
dja_drain_sweep(DjaType *type)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint64		key_hash = 0;
	int64		position;
	bool		first = true;
	DjaScan		scan;

	dja_message_scan_begin(&scan, snapshot);
	while (dja_message_scan_skip(&scan, type->hash, first, key_hash, &key_hash, &position))
	{
		first = false;
		dja_agenda_mail(type->hash, key_hash, DJA_CURSOR_START);
	}
	dja_scan_end(&scan);
	UnregisterSnapshot(snapshot);
}

/*
 * Visits the mailboxes of a type once, and returns how many messages it has
 * handled.
 */
static int64
dja_drain_type(DjaType *type, int64 max, bool retry)
{
	int64		handled = 0;
	uint64	   *keys;
	int			n;

	dja_drain_due(type);
	if (!dja_agenda_type(type->hash)->swept)
	{
		dja_drain_sweep(type);
		dja_agenda_type(type->hash)->swept = true;
	}
	keys = dja_agenda_keys(type->hash, &n);
	for (int i = 0; i < n && handled < max; i++)
	{
		DjaAgendaItem item;

		if (!dja_agenda_take(type->hash, keys[i], &item))
			continue;

		/* the index may list dead rows: claim only a mailbox with mail */
		if (ItemPointerIsValid(&item.tid) ||
			dja_message_count(type->hash, keys[i], item.cursor, 1, GetCurrentCommandId(false), false) > 0)
			handled += dja_drain_mailbox(type, &item, max - handled, retry);
	}
	pfree(keys);
	return handled;
}

/*
 * drain(max, until, on_error)
 */
Datum
dja_drain(PG_FUNCTION_ARGS)
{
	volatile int64 max = PG_ARGISNULL(0) ? PG_INT64_MAX : PG_GETARG_INT32(0);
	char	   *on_error = PG_ARGISNULL(2) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(2));
	TimestampTz until = PG_ARGISNULL(1) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(1);
	bool		retry = strcmp(on_error, "retry") == 0;
	volatile int64 handled = 0;
	int64		round;

	PreventCommandIfReadOnly("djactor.drain()");
	dja_require_preload();
	dja_catalog_require();
	if (!retry && strcmp(on_error, "raise") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for on_error: \"%s\"", on_error),
				 errhint("Use \"raise\" or \"retry\".")));
	if (until == DT_NOEND)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("until must be finite")));
	if (max < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max must not be negative")));
	if (dja_turn.actor != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("drain() cannot be called inside a turn")));
	if (GetUserId() != GetSessionUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("drain() runs handlers as the role that is logged in"),
				 errhint("Call it without SET ROLE and outside functions with SECURITY DEFINER.")));

	dja_home_require();

	dja_pending_drains();
	dja_session_keep_cursors();
	dja_agenda_begin();
	PG_TRY();
	{
		do
		{
			ListCell   *lc;

			CHECK_FOR_INTERRUPTS();
			round = 0;
			dja_drain_progress = false;
			dja_drain_round = dja_clock();
			foreach(lc, dja_types_all())
			{
				DjaType    *type = lfirst(lc);

				if (type->owner == GetUserId() && !type->paused && handled + round < max)
					round += dja_drain_type(type, max - handled - round, retry);
			}
			handled += round;
		} while (handled < max && (dja_drain_progress || dja_drain_advance(until)));
	}
	PG_CATCH();
	{
		bool		timed_out = dja_turn_timeout_hit == DJA_TURN_TIMEOUT_EXCEEDED &&
		geterrcode() == ERRCODE_QUERY_CANCELED;

		dja_clock_reset();
		dja_agenda_end();
		dja_turn_over();
		dja_turn_timeout_stop();
		dja_turn_timeout_rest();
		if (timed_out)
			errmsg("canceling handler due to handler_timeout");
		PG_RE_THROW();
	}
	PG_END_TRY();
	dja_turn_timeout_rest();
	dja_clock_reset();
	dja_agenda_end();
	PG_RETURN_INT64(handled);
}
