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
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "sql/drain.h"
#include "sql/wait.h"
#include "turn/reply.h"
#include "turn/session.h"
#include "turn/turn.h"
#include "turn/turn_timeout.h"
#include "turn/visit.h"
#include "xact/copy_check.h"
#include "xact/deliver.h"
#include "xact/drain_agenda.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_drain);

#define DJA_CLAIM_WAIT_MS 10000

/* The one type, and the one mailbox of it, that this call handles. */
static struct
{
	bool		by_type;
	bool		by_key;
	uint64		type_hash;
	uint64		key_hash;
}			dja_drain_only;

/* Has this round done anything that others may have to follow up?  When did it begin? */
bool		dja_drain_progress;
TimestampTz dja_drain_round;

/*
 * Claims a mailbox by claim(type_queue, key_hash), waiting for the process that runs
 * it.  Raises 55P03 after ten seconds, 53400 without room.
 */
int
dja_drain_claim(DjaType *type, uint64 key_hash, int (*claim) (int type_queue, uint64 key_hash))
{
	static uint32 wait_event = 0;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_CLAIM_WAIT_MS);
	int			claimed;

	for (;;)
	{
		int			type_queue;

		dja_lock();
		type_queue = dja_ensure_type_queue(MyDatabaseId, type->hash, type->owner);
		dja_unlock();
		claimed = type_queue < 0 ? DJA_CLAIM_NO_ROOM : claim(type_queue, key_hash);
		if (claimed >= 0)
			return claimed;
		if (claimed == DJA_CLAIM_NO_ROOM)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("the run queue of djactor is full"),
					 errhint("Increase djactor.run_queue_size.")));
		if (GetCurrentTimestamp() >= until)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("an actor of type \"%s\" is being run by another process", type->name),
					 errhint("Pause the type, or let its workers finish, before you call djactor.drain().")));
		dja_nap(false, 2, DJA_WAIT_EVENT(wait_event, "DjactorDrainClaim"));
	}
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
	DjaWriter  *writer = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor due",
												  ALLOCSET_SMALL_SIZES);
	DjaScan		scan;

	agenda->from = DT_NOEND;	/* mail that comes meanwhile lowers it */
	dja_due_scan_begin(&scan, type->hash, from, NULL);
	while (dja_scan_next(&scan))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		DjaMessage *message = dja_scan_message(&scan);
		TimestampTz due = dja_message_due_at(message);
		TM_Result	result = TM_Ok;

		if (due > now)
		{
			MemoryContextSwitchTo(old);
			break;
		}
		if (!message->nulls[DJA_MSG_ASIDE - 1])
		{
			if (dja_message_is_aside(message, "deferred") || dja_message_is_aside(message, "duplicate") ||
				dja_message_is_aside(message, "coalesced"))
			{
				result = dja_expire_deferred(message);
				dja_drain_progress |= result == TM_Ok;
			}
		}
		else if (dja_message_is_delayed(message))
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
	CommandCounterIncrement();
}

/*
 * Returns when the next delay, timer or retry of a type is due.  Those that came
 * due before this round began are left out, since the round has seen them.
 */
static TimestampTz
dja_drain_next_due(DjaType *type)
{
	TimestampTz next = DT_NOEND;
	DjaScan		scan;

	dja_due_scan_begin(&scan, type->hash, dja_drain_round + 1, NULL);
	if (dja_scan_next(&scan))
		next = dja_message_due_at(dja_scan_message(&scan));
	dja_scan_end(&scan);
	return next;
}

/*
 * Has this call handle one type or one mailbox; NULL: all.  Raises 42704 for a type
 * that is not defined, 22023 for a key without a type.
 */
void
dja_drain_limit(text *type, text *key)
{
	if (key != NULL && type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only_key needs only_type")));
	dja_drain_only.by_type = type != NULL;
	dja_drain_only.by_key = key != NULL;
	if (type != NULL)
		dja_drain_only.type_hash = dja_require_type(type)->hash;
	if (key != NULL)
		dja_drain_only.key_hash = dja_hash_text(key);
}

/*
 * Does this call handle the mail of a type?
 */
bool
dja_drain_serves(DjaType *type, bool hosted)
{
	return type->owner == GetUserId() && type->hosted == hosted && !type->paused &&
		(!dja_drain_only.by_type || type->hash == dja_drain_only.type_hash);
}

/*
 * Moves the clock to the next delay, timer or retry.  Returns false if that is
 * after until.
 */
bool
dja_drain_advance(TimestampTz until, bool hosted)
{
	TimestampTz next = DT_NOEND;
	ListCell   *lc;

	foreach(lc, dja_types_all())
	{
		DjaType    *type = lfirst(lc);

		if (dja_drain_serves(type, hosted))
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
	DjaClaim   *claim = dja_batch_add(batch, dja_drain_claim(type, key_hash, dja_queue_claim));
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
	uint64		key_hash = 0;
	int64		position;
	bool		first = true;
	DjaScan		scan;

	dja_message_scan_begin(&scan, NULL);
	while (dja_message_scan_skip(&scan, type->hash, first, key_hash, &key_hash, &position))
	{
		first = false;
		dja_agenda_mail(type->hash, key_hash, DJA_CURSOR_START);
	}
	dja_scan_end(&scan);
}

/*
 * Returns the mailboxes of a type that may have mail, and their number in *n.
 */
uint64 *
dja_drain_keys(DjaType *type, int *n)
{
	dja_drain_due(type);
	if (!dja_agenda_type(type->hash)->swept)
	{
		dja_drain_sweep(type);
		dja_agenda_type(type->hash)->swept = true;
	}
	return dja_agenda_keys(type->hash, n);
}

/*
 * Takes a mailbox off the agenda.  Returns false if it has no mail, or is not for
 * this call: the index may list dead rows, and only a mailbox with mail is worth a
 * claim.
 */
bool
dja_drain_take_item(DjaType *type, uint64 key_hash, DjaAgendaItem *item)
{
	if (dja_drain_only.by_key && key_hash != dja_drain_only.key_hash)
		return false;
	return dja_agenda_take(type->hash, key_hash, item) &&
		(ItemPointerIsValid(&item->tid) ||
		 dja_message_count(type->hash, key_hash, item->cursor, 1, GetCurrentCommandId(false), false) > 0);
}

/*
 * Visits the mailboxes of a type once, and returns how many messages it has
 * handled.
 */
static int64
dja_drain_type(DjaType *type, int64 max, bool retry)
{
	int64		handled = 0;
	int			n;
	uint64	   *keys = dja_drain_keys(type, &n);

	for (int i = 0; i < n && handled < max; i++)
	{
		DjaAgendaItem item;

		if (dja_drain_take_item(type, keys[i], &item))
			handled += dja_drain_mailbox(type, &item, max - handled, retry);
	}
	pfree(keys);
	return handled;
}

/*
 * Visits the mailboxes of all types once, and returns how many messages it has
 * handled.
 */
static int64
dja_drain_types(int64 max, bool retry)
{
	int64		handled = 0;
	ListCell   *lc;

	CHECK_FOR_INTERRUPTS();
	dja_drain_progress = false;
	dja_drain_round = dja_clock();
	foreach(lc, dja_types_all())
	{
		DjaType    *type = lfirst(lc);

		if (dja_drain_serves(type, false) && handled < max)
			handled += dja_drain_type(type, max - handled, retry);
	}
	return handled;
}

/*
 * Raises an error if the arguments are wrong, or if drain() may not run here.
 */
void
dja_drain_check(int64 max, TimestampTz until, const char *on_error)
{
	PreventCommandIfReadOnly("djactor.drain()");
	dja_require_installed();
	if (strcmp(on_error, "retry") != 0 && strcmp(on_error, "raise") != 0)
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
}

void
dja_drain_begin(void)
{
	dja_pending.drained = true;
	dja_session_keep_cursors();
	dja_agenda_begin();
}

void
dja_drain_end(void)
{
	dja_turn_timeout_rest();
	dja_clock_reset();
	dja_agenda_end();
}

/*
 * Cleans up after an error, and gives it the text that a worker would have given it.
 */
void
dja_drain_failed(void)
{
	bool		timed_out = dja_turn_timeout_hit == DJA_TURN_TIMEOUT_EXCEEDED &&
	geterrcode() == ERRCODE_QUERY_CANCELED;

	dja_turn_over();
	dja_turn_timeout_stop();
	dja_drain_end();
	if (timed_out)
		errmsg("canceling handler due to handler_timeout");
}

/*
 * drain(max, until, on_error, only_type, only_key): returns how many messages it has
 * handled.
 */
Datum
dja_drain(PG_FUNCTION_ARGS)
{
	volatile int64 max = PG_ARGISNULL(0) ? PG_INT64_MAX : PG_GETARG_INT32(0);
	TimestampTz until = PG_ARGISNULL(1) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(1);
	char	   *on_error = PG_ARGISNULL(2) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(2));
	bool		retry = strcmp(on_error, "retry") == 0;
	volatile int64 handled = 0;

	dja_drain_check(max, until, on_error);
	dja_drain_limit(PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3), PG_ARGISNULL(4) ? NULL : PG_GETARG_TEXT_PP(4));
	dja_drain_begin();
	PG_TRY();
	{
		do
			handled += dja_drain_types(max - handled, retry);
		while (handled < max && (dja_drain_progress || dja_drain_advance(until, false)));
	}
	PG_CATCH();
	{
		dja_drain_failed();
		PG_RE_THROW();
	}
	PG_END_TRY();
	dja_drain_end();
	PG_RETURN_INT64(handled);
}
