/*
 * drop_type.c
 *
 * drop_actor_type(): drops an actor type.  To discard what it has, its turns are
 * waited for first, and no new ones start before the outcome is known.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "sql/type_change.h"
#include "tables/message.h"
#include "turn/reply.h"
#include "turn/turn.h"
#include "turn/watch.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_drop_actor_type);

/*
 * Reads the next row, of a scan over all of a table, that belongs to a type.
 */
static bool
dja_find_row_of_type(DjaFind *find, int column, DjaType *type)
{
	while (dja_find_next(find))
		if (dja_type_is_named(type, DatumGetTextPP(find->slot->tts_values[column - 1])))
			return true;
	return false;
}

static bool
dja_type_has_rows(DjaTable table, int column, DjaType *type, Snapshot snapshot)
{
	DjaFind		find;
	bool		found;

	dja_find_begin(&find, table, DJA_NO_INDEX, 0, NULL, snapshot);
	found = dja_find_row_of_type(&find, column, type);
	dja_find_end(&find);
	return found;
}

/*
 * Raises 2BP01 if a type has mail, actors or timers.  One snapshot serves for
 * all: a first turn that commits meanwhile makes an actor out of a message.
 */
static void
dja_require_unused(DjaType *type)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		mail = dja_type_has_rows(DJA_MESSAGE_TABLE, DJA_MSG_ACTOR_TYPE, type, snapshot);
	bool		actors = !mail && dja_type_has_rows(DJA_ACTOR_TABLE, DJA_ACTOR_TYPE, type, snapshot);
	bool		timers = dja_type_has_rows(DJA_TIMER_TABLE, DJA_TIMER_TYPE, type, snapshot);

	UnregisterSnapshot(snapshot);
	if (mail || actors || timers)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("actor type \"%s\" still has %s", type->name, mail ? "mail" : actors ? "actors" : "timers"),
				 errhint("Use djactor.drop_actor_type('%s', discard => true) to delete its actors and mail too.", type->name)));
}

/*
 * Answers an ask to the type by an error (contract 18), unless an actor of that
 * type has asked: that one goes too.
 */
static void
dja_answer_dropped(DjaType *type, TupleTableSlot *slot)
{
	DjaMessage *message = dja_message_from_slot(slot);

	if (!message->nulls[DJA_MSG_SENDER_TYPE - 1] &&
		dja_type_is_named(type, DatumGetTextPP(message->values[DJA_MSG_SENDER_TYPE - 1])))
		return;
	message->nulls[DJA_MSG_COALESCE_KEY - 1] = true;	/* those of its key go
														 * themselves */
	dja_answer_failure(message, "dropped", 0, "the actor type was dropped");
}

/*
 * Deletes the rows of a table that belong to a type.  An open ask may get its
 * reply meanwhile, so it is answered only once its row is deleted.
 */
static void
dja_discard_rows(DjaTable table, int column, DjaType *type)
{
	DjaWriter  *writer = dja_writer_open(table, RowExclusiveLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor dropped",
												  ALLOCSET_SMALL_SIZES);
	DjaFind		find;

	dja_find_begin(&find, table, DJA_NO_INDEX, 0, NULL, NULL);
	while (dja_find_row_of_type(&find, column, type))
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		dja_row_delete(writer, &find.slot->tts_tid);
		if (table == DJA_MESSAGE_TABLE &&
			DatumGetBool(find.slot->tts_values[DJA_MSG_WANTS_REPLY - 1]))
			dja_answer_dropped(type, find.slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	dja_find_end(&find);
	MemoryContextDelete(context);
	dja_writer_close(writer);
}

/*
 * drop_actor_type(name, discard)
 */
Datum
dja_drop_actor_type(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);
	bool		discard = PG_GETARG_BOOL(1);
	DjaType    *type = dja_require_own_type(name, "djactor.drop_actor_type()");
	DjaWriter  *writer;

	if (discard)
	{
		if (dja_turn.actor != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("drop_actor_type() cannot discard mail inside a turn")));
		dja_pending_stop_type_queue(type);	/* before any lock that a turn may
											 * want */
	}
	dja_type_lock(type->hash, AccessExclusiveLock);
	writer = dja_begin_type_change();
	type = dja_require_own_type(name, "djactor.drop_actor_type()");

	if (discard)
	{
		dja_discard_rows(DJA_ACTOR_TABLE, DJA_ACTOR_TYPE, type);
		dja_discard_rows(DJA_MESSAGE_TABLE, DJA_MSG_ACTOR_TYPE, type);
	}
	else
		dja_require_unused(type);
	dja_discard_rows(DJA_IDENTITY_TABLE, DJA_IDENTITY_TYPE, type);
	dja_discard_rows(DJA_TIMER_TABLE, DJA_TIMER_TYPE, type);
	dja_watchers_tell_dropped(type);
	dja_discard_rows(DJA_ONCE_TABLE, DJA_ONCE_TYPE, type);

	dja_row_delete(writer, &type->tid);
	dja_end_type_change(writer, type->hash, type->owner);
	PG_RETURN_VOID();
}
