/*
 * cancel.c
 *
 * cancel(): takes a message back.  An ask gets an error as its answer, and a periodic
 * timer goes on.
 *
 * What decides is who deletes the message's row: the turn that has handled it, or
 * cancel().  cancel(id) takes what nobody has handled yet, and waits for a turn that has
 * locked the row.  cancel(id, running => true) does not wait for that turn but breaks it
 * off: a worker's by its slot, which the worker looks at every 10 ms, a host's by its claim.
 * A turn that has locked no row before its end is doomed as soon as the row is locked
 * here, so it is broken off only to save time, and so that its asker need not wait for it.
 */
#include "postgres.h"

#include "commands/async.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "shmem/hosts.h"
#include "shmem/slots.h"
#include "tables/message.h"
#include "tables/place.h"
#include "turn/reply.h"
#include "turn/row_lock.h"
#include "turn/timer.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_cancel);
PG_FUNCTION_INFO_V1(dja_cancel_running);

#define DJA_BREAK_MS 2			/* between two looks at a turn that is broken
								 * off */

/* Where a message is. */
typedef enum DjaWhere
{
	DJA_GONE,
	DJA_WAITING,
	DJA_RUNNING,				/* in a worker */
	DJA_HOSTED					/* in the hands of a host */
} DjaWhere;

/*
 * Deletes the row of a message.  Returns TM_Ok, TM_WouldBlock if another transaction has
 * the row, which is only waited for with wait, or something else if it is not as it was
 * read any more.  A turn does not wait for another transaction: it fails.
 */
static TM_Result
dja_take_message(DjaMessage *message, Snapshot snapshot, bool wait)
{
	DjaWriter  *writer = dja_writer_get(DJA_MESSAGE_TABLE);
	TM_Result	result = TM_Ok;

	if (dja_turn.actor == NULL)
	{
		TupleTableSlot *slot = table_slot_create(writer->rel, NULL);

		if (!wait)
			result = dja_row_lock(writer, &message->tid, LockTupleExclusive, slot);
		else if (!dja_lock_row(writer->rel, &message->tid, snapshot, slot, LockTupleExclusive))
			result = TM_Updated;
		ExecDropSingleTupleTableSlot(slot);
	}
	if (result == TM_Ok)
		result = dja_row_try_delete(writer, &message->tid);
	dja_writer_put(writer);
	if (result != TM_Ok && result != TM_Updated && result != TM_Deleted && result != TM_WouldBlock)
		dja_row_trouble(result);
	return result;
}

/*
 * Looks up the type of a message, NULL if it is gone, and raises 42501 unless the user
 * may cancel it.
 */
static DjaType *
dja_check_may_cancel(DjaMessage *message)
{
	text	   *name = DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1]);
	DjaType    *type = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));

	if (type != NULL)
		dja_check_can_act_for(type->owner);
	else if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a superuser may cancel mail of a type that does not exist")));
	return type;
}

/*
 * Has a running turn of the message broken off.  Returns where it runs, if it does.
 */
static DjaWhere
dja_break_turn(DjaType *type, DjaMessage *message)
{
	DjaWhere	where = DJA_WAITING;

	dja_lock();
	if (dja_worker_cancel(MyDatabaseId, message->id))
		where = DJA_RUNNING;
	else if (type != NULL &&
			 dja_host_cancel(MyDatabaseId, type->hash, dja_hash_text(message->key), message->position,
							 message->id))
		where = DJA_HOSTED;
	dja_unlock();
	return where;
}

/*
 * Sleeps for a moment, while the turn that has the row is broken off.
 */
static void
dja_await_break(void)
{
	static uint32 wait_event = 0;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, DJA_BREAK_MS,
					 DJA_WAIT_EVENT(wait_event, "DjactorCancel"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Deletes the row of a message, wherever the message is, and returns that.  *message and
 * *type are what it was.
 */
static DjaWhere
dja_take_back(int64 id, bool running, DjaMessage **message, DjaType **type)
{
	DjaWhere	was = DJA_WAITING;

	for (;;)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		DjaWhere	now = DJA_WAITING;
		TM_Result	result = TM_Updated;

		CHECK_FOR_INTERRUPTS();
		*message = dja_message_by_id(id, snapshot);
		if (*message != NULL)
		{
			*type = dja_check_may_cancel(*message);
			if (running)
				now = dja_break_turn(*type, *message);
			/* what is not broken off is waited for */
			result = dja_take_message(*message, snapshot, now == DJA_WAITING);
		}
		UnregisterSnapshot(snapshot);
		if (now != DJA_WAITING)
			was = now;
		if (*message == NULL)
			return DJA_GONE;
		if (result == TM_Ok)
		{
			/* its turn may have begun since */
			now = running && was == DJA_WAITING ? dja_break_turn(*type, *message) : was;
			return now;
		}
		/* if it was changed, and not handled, look once more */
		if (result == TM_WouldBlock)
			dja_await_break();
	}
}

static DjaWhere
dja_cancel_message(int64 id, bool running)
{
	DjaMessage *message;
	DjaMessage *mate = dja_batch_message(id);
	DjaType    *type = NULL;
	DjaWhere	where;

	dja_require_installed();
	if (dja_turn.message != NULL && dja_turn.message->id == id)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a message that is being handled cannot be cancelled"),
				 errhint("Use djactor.reject().")));
	if (mate != NULL && mate->state != DJA_MESSAGE_OPEN && mate->state != DJA_MESSAGE_ASIDE)
		return DJA_GONE;
	where = dja_take_back(id, running, &message, &type);
	if (where == DJA_GONE)
	{
		dja_refuse_id_of_other_node(id);
		return DJA_GONE;
	}
	if (where == DJA_HOSTED)
	{
		char		payload[32];

		/* hosts hear of it with the commit */
		snprintf(payload, sizeof(payload), INT64_FORMAT, id);
		Async_Notify(DJA_HOST_CHANNEL, payload);
	}

	/* the messages behind it may be due now */
	if (type != NULL && message->nulls[DJA_MSG_ASIDE - 1])
	{
		uint64		key_hash = dja_hash_text(message->key);

		dja_pending_mailbox(type, key_hash, message->position, 0);
		dja_pending_recount(type, key_hash);
	}
	if (mate != NULL)
		dja_effect_request(DJA_EFFECT_GONE, NULL, mate);
	if (dja_message_is_aside(message, "deferred"))
		dja_end_deferred(message, "cancelled", "the ask was cancelled");
	else
		dja_answer_failure(message, "cancelled", 0, "the message was cancelled");
	if (dja_message_is_kind(message, "timer"))
		dja_timer_cancelled(message);
	return where;
}

/*
 * cancel(message_id): was the message still there to be taken back?
 */
Datum
dja_cancel(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("djactor.cancel()");
	PG_RETURN_BOOL(dja_cancel_message(PG_GETARG_INT64(0), false) != DJA_GONE);
}

/*
 * cancel(message_id, running): where was it?
 */
Datum
dja_cancel_running(PG_FUNCTION_ARGS)
{
	bool		running = PG_GETARG_BOOL(1);
	DjaWhere	where;

	PreventCommandIfReadOnly("djactor.cancel()");
	if (running && dja_turn.actor != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cancel() cannot break off a turn inside a turn"),
				 errdetail("No turn waits for another actor."),
				 errhint("Use djactor.cancel(id), which takes back what is not being handled.")));
	where = dja_cancel_message(PG_GETARG_INT64(0), running);
	PG_RETURN_TEXT_P(cstring_to_text(where == DJA_GONE ? "gone" : where == DJA_WAITING ? "waiting" : "running"));
}
