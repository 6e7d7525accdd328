/*
 * erase.c
 *
 * erase(): deletes all that is kept about an actor, in the caller's transaction.
 *
 * The order is what makes it complete.  The actor's row comes first, so that the
 * turn that runs is waited for, and the next one waits.  Then its mail.  An actor
 * without a row may be in its first turn, which has locked its message at its end
 * at the latest; so whoever has dealt with all mail finds the row that this turn has
 * left, and begins again.  All other tables come last: what the last turn has
 * written there is visible by then.
 *
 * Each row is locked before it is deleted, and the lock is waited for: retention,
 * a turn of a watcher or an operator may be deleting it, too.
 *
 * Asks that nobody will handle any more are answered (contract 18), and watchers are
 * told (contract 23).  The answers to outside name no actor, or they would have to be
 * erased.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "tables/place.h"
#include "turn/reply.h"
#include "turn/row_lock.h"
#include "turn/turn.h"
#include "turn/watch.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_erase);

typedef struct DjaErasure
{
	DjaType    *type;
	text	   *name;			/* of the type */
	text	   *key;
	int64		deleted[DJA_NTABLES];
} DjaErasure;

/*
 * Locks a row, and deletes it.  False if it is not as it was read any more.
 */
static bool
dja_erase_row(DjaWriter *writer, ItemPointer tid, Snapshot snapshot)
{
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	bool		locked = dja_lock_row(writer->rel, tid, snapshot, slot, LockTupleExclusive);

	ExecDropSingleTupleTableSlot(slot);
	if (locked)
		dja_row_delete(writer, tid);
	return locked;
}

/*
 * Deletes the rows that an index has for type and key.  With key_column the index
 * has the type alone, and that column tells the key.
 */
static void
dja_erase_found(DjaErasure *erasure, DjaTable table, DjaIndex index, int key_column)
{
	Datum		keys[2] = {PointerGetDatum(erasure->name), PointerGetDatum(erasure->key)};
	DjaWriter  *writer = dja_writer_get(table);
	bool		again;

	do
	{
		DjaFind		find;

		again = false;
		dja_find_begin(&find, table, index, key_column == 0 ? 2 : 1, keys, NULL);
		while (dja_find_next(&find))
		{
			CHECK_FOR_INTERRUPTS();
			if (key_column != 0 &&
				!dja_text_equal(DatumGetTextPP(find.slot->tts_values[key_column - 1]), erasure->key))
				continue;
			if (dja_erase_row(writer, &find.slot->tts_tid, find.snapshot))
				erasure->deleted[table]++;
			else
				again = true;
		}
		dja_find_end(&find);
		CommandCounterIncrement();
	} while (again);
	dja_writer_put(writer);
}

/*
 * Deletes the answers to what was sent to the actor.  No index has them by actor,
 * since each would cost all asks something.
 */
static void
dja_erase_replies(DjaErasure *erasure)
{
	DjaWriter  *writer = dja_writer_get(DJA_REPLY_TABLE);
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	ScanKeyData keys[2];
	bool		again;

	ScanKeyEntryInitialize(&keys[0], 0, DJA_REPLY_ACTOR_TYPE, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(erasure->name));
	ScanKeyEntryInitialize(&keys[1], 0, DJA_REPLY_ACTOR_KEY, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(erasure->key));
	do
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		TableScanDesc scan = dja_table_beginscan(writer->rel, snapshot, 2, keys);

		again = false;
		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			CHECK_FOR_INTERRUPTS();
			if (dja_erase_row(writer, &slot->tts_tid, snapshot))
				erasure->deleted[DJA_REPLY_TABLE]++;
			else
				again = true;
		}
		table_endscan(scan);
		UnregisterSnapshot(snapshot);
		CommandCounterIncrement();
	} while (again);
	ExecDropSingleTupleTableSlot(slot);
	dja_writer_put(writer);
}

/*
 * Ends the watches of the actor, and those on it: its watchers are told.
 */
static void
dja_erase_watches(DjaErasure *erasure)
{
	Datum		keys[2] = {PointerGetDatum(erasure->name), PointerGetDatum(erasure->key)};
	DjaWriter  *writer;
	TupleTableSlot *slot;
	bool		again;
	int			watchers;

	dja_erase_found(erasure, DJA_WATCH_TABLE, DJA_WATCH_PKEY, 0);
	writer = dja_writer_get(DJA_WATCH_TABLE);
	slot = table_slot_create(writer->rel, NULL);
	do
	{
		DjaFind		find;

		again = false;
		watchers = 0;
		dja_find_begin(&find, DJA_WATCH_TABLE, DJA_WATCH_ACTOR_INDEX, 2, keys, NULL);
		while (dja_find_next(&find))
		{
			watchers++;
			/* the delete that follows waits for nobody */
			if (!dja_lock_row(writer->rel, &find.slot->tts_tid, find.snapshot, slot,
							  LockTupleExclusive))
				again = true;
		}
		dja_find_end(&find);
	} while (again);
	ExecDropSingleTupleTableSlot(slot);
	dja_writer_put(writer);
	dja_watchers_tell(erasure->type, erasure->key, "stopped", true);
	erasure->deleted[DJA_WATCH_TABLE] += watchers;
	CommandCounterIncrement();
}

static bool
dja_is_actors(DjaErasure *erasure, Datum type, text *key)
{
	return dja_type_is_named(erasure->type, DatumGetTextPP(type)) &&
		dja_text_equal(key, erasure->key);
}

/*
 * Answers an ask that was erased, unless the actor itself has asked.
 */
static void
dja_answer_erased(DjaErasure *erasure, DjaMessage *ask)
{
	if (!ask->asks)
		return;
	if (!ask->nulls[DJA_MSG_SENDER_TYPE - 1] &&
		dja_is_actors(erasure, ask->values[DJA_MSG_SENDER_TYPE - 1],
					  DatumGetTextPP(ask->values[DJA_MSG_SENDER_KEY - 1])))
		return;
	ask->nulls[DJA_MSG_ACTOR_KEY - 1] = true;	/* see the top */
	dja_answer_failure(ask, "stopped", 0, "the actor was erased");
}

/*
 * Deletes the actor's messages that a scan finds.  Returns false if some have
 * changed meanwhile.
 */
static bool
dja_erase_scanned(DjaErasure *erasure, DjaWriter *writer, DjaScan *scan)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor erase",
												  ALLOCSET_DEFAULT_SIZES);
	bool		complete = true;

	while (dja_scan_next(scan))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		DjaMessage *message = dja_scan_message(scan);

		if (!dja_is_actors(erasure, message->values[DJA_MSG_ACTOR_TYPE - 1], message->key))
			 /* the hashes are equal, no more */ ;
		else if (dja_erase_row(writer, &message->tid, scan->find.snapshot))
		{
			erasure->deleted[DJA_MESSAGE_TABLE]++;
			dja_answer_erased(erasure, message);
		}
		else
			complete = false;
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	dja_scan_end(scan);
	MemoryContextDelete(context);
	CommandCounterIncrement();
	return complete;
}

/*
 * Deletes all mail of the actor: what waits, what is delayed, and what is aside.
 */
static void
dja_erase_messages(DjaErasure *erasure)
{
	DjaWriter  *writer = dja_writer_get(DJA_MESSAGE_TABLE);
	uint64		key_hash = dja_hash_text(erasure->key);
	bool		complete;

	do
	{
		DjaScan		scan;

		dja_aside_scan_begin(&scan, erasure->type->hash, key_hash);
		complete = dja_erase_scanned(erasure, writer, &scan);
		/* later, so that what becomes due meanwhile is not missed */
		dja_message_scan_begin(&scan, NULL);
		dja_message_scan_start(&scan, erasure->type->hash, key_hash, PG_INT64_MIN);
		complete &= dja_erase_scanned(erasure, writer, &scan);
	} while (!complete);
	dja_writer_put(writer);
}

/*
 * Is there such an actor now?
 */
static bool
dja_actor_is_there(DjaErasure *erasure)
{
	Datum		keys[2] = {PointerGetDatum(erasure->name), PointerGetDatum(erasure->key)};
	DjaFind		find;
	bool		found;

	dja_find_begin(&find, DJA_ACTOR_TABLE, DJA_ACTOR_KEY_INDEX, 2, keys, NULL);
	found = dja_find_next(&find);
	dja_find_end(&find);
	return found;
}

/*
 * erase(type, key): a row for each table with what was deleted there.
 */
Datum
dja_erase(PG_FUNCTION_ARGS)
{
	static const struct
	{
		DjaTable	table;
		const char *name;
	}			report[] = {
		{DJA_ACTOR_TABLE, "actor"},
		{DJA_IDENTITY_TABLE, "actor_identity"},
		{DJA_MESSAGE_TABLE, "message"},
		{DJA_TIMER_TABLE, "timer"},
		{DJA_WATCH_TABLE, "watch"},
		{DJA_DEAD_LETTER_TABLE, "dead_letter"},
		{DJA_REPLY_TABLE, "reply"},
		{DJA_ONCE_TABLE, "idempotency"},
		{DJA_JOURNAL_TABLE, "journal"},
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DjaErasure	erasure = {0};
	uint64		key_hash;

	PreventCommandIfReadOnly("djactor.erase()");
	erasure.name = PG_GETARG_TEXT_PP(0);
	erasure.key = PG_GETARG_TEXT_PP(1);
	erasure.type = dja_require_type(erasure.name);
	dja_check_can_act_for(erasure.type->owner);
	dja_require_here(erasure.key);
	if (dja_turn.actor != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("erase() cannot be called inside a turn"),
				 errdetail("It waits for the actor's turns."),
				 errhint("Use djactor.stop() or djactor.stop_actor(), and call erase() after the turn.")));
	InitMaterializedSRF(fcinfo, 0);
	key_hash = dja_hash_text(erasure.key);

	do
	{
		dja_erase_found(&erasure, DJA_ACTOR_TABLE, DJA_ACTOR_KEY_INDEX, 0);
		dja_erase_found(&erasure, DJA_IDENTITY_TABLE, DJA_IDENTITY_PKEY, 0);
		dja_erase_messages(&erasure);
	} while (dja_actor_is_there(&erasure));
	dja_erase_found(&erasure, DJA_TIMER_TABLE, DJA_TIMER_PKEY, 0);
	dja_erase_watches(&erasure);
	dja_erase_found(&erasure, DJA_DEAD_LETTER_TABLE, DJA_DEAD_ACTOR_INDEX, 0);
	dja_erase_replies(&erasure);
	dja_erase_found(&erasure, DJA_ONCE_TABLE, DJA_ONCE_PKEY, 0);
	dja_erase_found(&erasure, DJA_JOURNAL_TABLE, DJA_JOURNAL_FINISHED_AT_INDEX, DJA_MSG_ACTOR_KEY);
	/* mail that was sent meanwhile is a fresh actor's */
	dja_pending_mailbox(erasure.type, key_hash, PG_INT64_MIN, 0);
	dja_pending_recount(erasure.type, key_hash);

	for (size_t i = 0; i < lengthof(report); i++)
	{
		Datum		values[2] = {CStringGetTextDatum(report[i].name),
		Int64GetDatum(erasure.deleted[report[i].table])};
		bool		nulls[2] = {0};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
