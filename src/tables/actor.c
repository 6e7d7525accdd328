/*
 * actor.c
 *
 * Actor rows; see actor.h.
 *
 * The session remembers the TID of an actor's row from turn to turn.  A lookup in
 * the index would walk over every version that an old snapshot keeps alive, and
 * each batch adds one.  A remembered TID may turn out wrong (another worker's
 * turn, a manual update, VACUUM).  That costs the walk and nothing else, since
 * the row itself says which actor's it is.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "base/columns.h"
#include "base/compat.h"
#include "tables/actor.h"

#define DJA_MAX_KNOWN_ROWS 200000	/* when so many are remembered, all are
									 * forgotten */
#define DJA_ROW_BYTES 256		/* size of a row without its state, roughly */

typedef struct DjaKnownRow
{
	struct
	{
		uint64		type_hash;
		uint64		key_hash;
	}			key;
	ItemPointerData tid;
} DjaKnownRow;

static HTAB *dja_known_rows = NULL;

static DjaKnownRow *
dja_known_row(DjaType *type, uint64 key_hash, HASHACTION action)
{
	DjaKnownRow key = {.key = {type->hash, key_hash}};

	if (dja_known_rows != NULL && action == HASH_ENTER &&
		hash_get_num_entries(dja_known_rows) >= DJA_MAX_KNOWN_ROWS)
	{
		hash_destroy(dja_known_rows);
		dja_known_rows = NULL;
	}
	if (dja_known_rows == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(key.key);
		ctl.entrysize = sizeof(DjaKnownRow);
		dja_known_rows = hash_create("djactor rows of actors", 1024, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	return hash_search(dja_known_rows, &key.key, action, NULL);
}

static bool
dja_actor_is_in_slot(TupleTableSlot *slot, DjaType *type, text *key)
{
	slot_getallattrs(slot);
	return dja_type_is_named(type, DatumGetTextPP(slot->tts_values[DJA_ACTOR_TYPE - 1])) &&
		dja_text_equal(DatumGetTextPP(slot->tts_values[DJA_ACTOR_KEY - 1]), key);
}

static bool
dja_actor_find(Relation rel, DjaType *type, text *key, Snapshot snapshot, TupleTableSlot *slot)
{
	Relation	index = index_open(dja_index_oid(DJA_ACTOR_KEY_INDEX), AccessShareLock);
	ScanKeyData keys[2];
	IndexScanDesc scan;
	bool		found;

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ,
						   PointerGetDatum(cstring_to_text_with_len(type->name, type->name_len)));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(key));
	scan = dja_index_beginscan(rel, index, snapshot, 2);
	index_rescan(scan, keys, 2, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	if (found)
		slot_getallattrs(slot);
	/* the slot keeps its own pin on the row's page */
	index_endscan(scan);
	index_close(index, AccessShareLock);
	return found;
}

static bool
dja_status_is_suspended(Datum status)
{
	return strcmp(TextDatumGetCString(status), "suspended") == 0;
}

/*
 * Returns an actor as the snapshot sees it, in the current memory context; a
 * fresh one if it has no row yet.  rel is djactor.actor, and slot a slot of its
 * to work with.  nblocks is the table's length, or 0 to use no remembered TID.
 */
DjaActor *
dja_actor_read(Relation rel, BlockNumber nblocks, TupleTableSlot *slot,
			   DjaType *type, text *key, uint64 key_hash, Snapshot snapshot)
{
	DjaActor   *actor = palloc0(sizeof(DjaActor));
	DjaKnownRow *known = dja_known_row(type, key_hash, HASH_FIND);
	bool		found = false;

	Assert(type->exists);
	actor->type = type;
	actor->key = key;
	actor->key_hash = key_hash;

	/* the table may have been truncated since */
	if (known != NULL && ItemPointerGetBlockNumber(&known->tid) < nblocks)
		found = table_tuple_fetch_row_version(rel, &known->tid, snapshot, slot) &&
			dja_actor_is_in_slot(slot, type, key);
	if (!found)
		found = dja_actor_find(rel, type, key, snapshot, slot);

	if (found)
	{
		Datum	   *values = slot->tts_values;
		bool	   *nulls = slot->tts_isnull;

		actor->exists = true;
		actor->tid = slot->tts_tid;
		actor->xmin = HeapTupleHeaderGetRawXmin(ExecFetchSlotHeapTuple(slot, false, NULL)->t_data);
		actor->locker = dja_tuple_locker(ExecFetchSlotHeapTuple(slot, false, NULL)->t_data, true);
		actor->id = DatumGetInt64(values[DJA_ACTOR_ID - 1]);
		actor->state = PointerGetDatum(PG_DETOAST_DATUM_COPY(values[DJA_ACTOR_STATE - 1]));
		actor->state_owned = true;
		actor->state_version = DatumGetInt32(values[DJA_ACTOR_STATE_VERSION - 1]);
		actor->stashed = DatumGetInt32(values[DJA_ACTOR_STASHED - 1]);
		actor->suspended = dja_status_is_suspended(values[DJA_ACTOR_STATUS - 1]);
		actor->paused = DatumGetBool(values[DJA_ACTOR_PAUSED - 1]);
		actor->turns = DatumGetInt64(values[DJA_ACTOR_TURNS - 1]);
		actor->failures = DatumGetInt64(values[DJA_ACTOR_FAILURES - 1]);
		actor->last_error = nulls[DJA_ACTOR_LAST_ERROR - 1] ? NULL :
			TextDatumGetCString(values[DJA_ACTOR_LAST_ERROR - 1]);
		actor->created_at = DatumGetTimestampTz(values[DJA_ACTOR_CREATED_AT - 1]);
	}
	else
	{
		actor->state = datumCopy(type->initial_state, false, -1);
		actor->state_owned = true;
		actor->state_version = type->state_version;
		actor->created_at = GetCurrentTransactionStartTimestamp();
	}
	ExecClearTuple(slot);
	return actor;
}

/*
 * Makes an actor a fresh one without a row, in memory, after it was stopped.
 */
void
dja_actor_reset(DjaActor *actor)
{
	actor->exists = actor->dirty = actor->suspended = actor->paused = false;
	actor->turns = actor->failures = 0;
	actor->stashed = 0;
	actor->last_error = NULL;
	actor->state = actor->type->initial_state;
	actor->state_owned = false;
	actor->state_version = actor->type->state_version;
	actor->created_at = GetCurrentTransactionStartTimestamp();
}

/*
 * Is this actor paused, suspended, or newer than its type?  Does not read its
 * state.
 */
bool
dja_actor_halted(Relation rel, TupleTableSlot *slot, DjaType *type, text *key,
				 Snapshot snapshot)
{
	bool		halted;

	halted = dja_actor_find(rel, type, key, snapshot, slot) &&
		(DatumGetBool(slot->tts_values[DJA_ACTOR_PAUSED - 1]) ||
		 DatumGetInt32(slot->tts_values[DJA_ACTOR_STATE_VERSION - 1]) > type->state_version ||
		 dja_status_is_suspended(slot->tts_values[DJA_ACTOR_STATUS - 1]));

	ExecClearTuple(slot);
	return halted;
}

/*
 * Writes an actor back.  Raises an error if its row has changed since it was
 * read.  If the transaction aborts, the remembered TID leads to a row that no
 * snapshot sees.
 */
void
dja_actor_write(DjaActor *actor, DjaWriter *actors, DjaWriter *identities)
{
	Datum		values[DJA_ACTOR_NATTS] = {0};
	bool		nulls[DJA_ACTOR_NATTS] = {0};
	text	   *name = cstring_to_text_with_len(actor->type->name, actor->type->name_len);

	Assert(actor->exists || identities != NULL);
	if (!actor->exists)
	{
		Datum		identity[DJA_IDENTITY_NATTS];
		bool		no_nulls[DJA_IDENTITY_NATTS] = {0};

		actor->id = nextval_internal(dja_identity_sequence(DJA_IDENTITY_TABLE), false);
		identity[DJA_IDENTITY_ID - 1] = Int64GetDatum(actor->id);
		identity[DJA_IDENTITY_TYPE - 1] = PointerGetDatum(name);
		identity[DJA_IDENTITY_KEY - 1] = PointerGetDatum(actor->key);
		dja_row_insert(identities, identity, no_nulls);
	}
	values[DJA_ACTOR_ID - 1] = Int64GetDatum(actor->id);
	values[DJA_ACTOR_TYPE - 1] = PointerGetDatum(name);
	values[DJA_ACTOR_KEY - 1] = PointerGetDatum(actor->key);
	values[DJA_ACTOR_STATE - 1] = actor->state;
	values[DJA_ACTOR_STATE_VERSION - 1] = Int32GetDatum(actor->state_version);
	values[DJA_ACTOR_STASHED - 1] = Int32GetDatum(actor->stashed);
	values[DJA_ACTOR_STATUS - 1] = CStringGetTextDatum(actor->suspended ? "suspended" : "active");
	values[DJA_ACTOR_PAUSED - 1] = BoolGetDatum(actor->paused);
	values[DJA_ACTOR_TURNS - 1] = Int64GetDatum(actor->turns);
	values[DJA_ACTOR_FAILURES - 1] = Int64GetDatum(actor->failures);
	dja_set_text(values, nulls, DJA_ACTOR_LAST_ERROR, actor->last_error);
	values[DJA_ACTOR_CREATED_AT - 1] = TimestampTzGetDatum(actor->created_at);
	values[DJA_ACTOR_UPDATED_AT - 1] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());

	if (actor->exists)
	{
		dja_row_make_room(actors, &actor->tid,
						  VARSIZE_ANY(DatumGetPointer(actor->state)) + DJA_ROW_BYTES);
		dja_row_update(actors, &actor->tid, values, nulls);
	}
	else
		dja_row_insert(actors, values, nulls);
	actor->tid = actors->slot->tts_tid;
	actor->xmin = GetCurrentTransactionId();
	actor->exists = true;
	actor->dirty = false;
	dja_known_row(actor->type, actor->key_hash, HASH_ENTER)->tid = actor->tid;
}
