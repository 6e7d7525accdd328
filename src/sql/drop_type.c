/*
 * drop_type.c
 *
 * drop_actor_type(): drops an actor type.  To discard what it has, its turns are
 * waited for first, and no new ones start before the outcome is known.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "sql/type_change.h"
#include "tables/message.h"
#include "turn/reply.h"
#include "turn/turn.h"
#include "turn/watch.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_drop_actor_type);

/*
 * Begins a scan of the rows of a table that belong to a type.
 */
static TableScanDesc
dja_scan_rows_of_type(Relation rel, int column, DjaType *type, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, column, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, CStringGetTextDatum(type->name));
	return dja_table_beginscan(rel, snapshot, 1, &key);
}

static bool
dja_type_has_rows(DjaTable table, int column, DjaType *type, Snapshot snapshot)
{
	Relation	rel = table_open(dja_table_oid(table), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = dja_scan_rows_of_type(rel, column, type, snapshot);
	bool		found = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
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
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	TableScanDesc scan = dja_scan_rows_of_type(writer->rel, column, type, snapshot);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor dropped",
												  ALLOCSET_SMALL_SIZES);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		dja_row_delete(writer, &slot->tts_tid);
		if (table == DJA_MESSAGE_TABLE &&
			DatumGetBool(slot_getattr(slot, DJA_MSG_WANTS_REPLY, &isnull)))
			dja_answer_dropped(type, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	table_endscan(scan);
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
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
