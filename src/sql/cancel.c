/*
 * cancel.c
 *
 * cancel(): takes back a message that nobody has handled yet.  An ask gets an
 * error as its answer, and a periodic timer goes on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "tables/message.h"
#include "turn/reply.h"
#include "turn/row_lock.h"
#include "turn/timer.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_cancel);

/*
 * Deletes the row of a message.  Returns false if it is not as it was read any
 * more.  A turn does not wait for another transaction that has the row; outside
 * of turns the function does.
 */
static bool
dja_take_message(DjaMessage *message, Snapshot snapshot)
{
	DjaWriter  *writer = dja_writer_get(DJA_MESSAGE_TABLE);
	TM_Result	result = TM_Ok;

	if (dja_turn.actor == NULL)
	{
		TupleTableSlot *slot = table_slot_create(writer->rel, NULL);

		if (!dja_lock_row(writer->rel, &message->tid, snapshot, slot, LockTupleExclusive))
			result = TM_Updated;
		ExecDropSingleTupleTableSlot(slot);
	}
	if (result == TM_Ok)
		result = dja_row_try_delete(writer, &message->tid);
	dja_writer_put(writer);
	if (result != TM_Ok && result != TM_Updated && result != TM_Deleted)
		dja_row_trouble(result);
	CommandCounterIncrement();
	return result == TM_Ok;
}

/*
 * cancel(message_id): was the message still there to be taken back?
 */
Datum
dja_cancel(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	DjaMessage *message;
	DjaMessage *mate = dja_batch_message(id);
	DjaType    *type = NULL;
	bool		taken = false;

	PreventCommandIfReadOnly("djactor.cancel()");
	dja_require_preload();
	dja_catalog_require();
	if (dja_turn.message != NULL && dja_turn.message->id == id)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a message that is being handled cannot be cancelled"),
				 errhint("Use djactor.reject().")));
	if (mate != NULL && mate->state != DJA_MESSAGE_OPEN && mate->state != DJA_MESSAGE_ASIDE)
		PG_RETURN_BOOL(false);
	do
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		message = dja_message_by_id(id, snapshot);
		if (message != NULL)
		{
			text	   *name = DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1]);

			type = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
			if (type != NULL)
				dja_check_can_act_for(type->owner);
			else if (!superuser())
				ereport(ERROR,
						(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						 errmsg("only a superuser may cancel mail of a type that does not exist")));
			taken = dja_take_message(message, snapshot);
		}
		UnregisterSnapshot(snapshot);
		/* if it was changed, and not handled, look once more */
	} while (message != NULL && !taken);
	if (message == NULL)
		PG_RETURN_BOOL(false);

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
	PG_RETURN_BOOL(true);
}
