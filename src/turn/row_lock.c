/*
 * row_lock.c
 *
 * Locking rows of djactor for a function that somebody calls, in a turn or not;
 * see row_lock.h.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "tables/catalog.h"
#include "turn/row_lock.h"
#include "turn/turn.h"

/*
 * Locks a row until the end of the transaction, waiting as an UPDATE would; but
 * no turn waits for another actor (contract 17): it fails, and is run again.
 * False if the row is not as it was read: read it again, then.  A lock that lets
 * others update the row holds for what they are making of it.
 */
bool
dja_lock_row(Relation rel, ItemPointer tid, Snapshot snapshot, TupleTableSlot *slot,
			 LockTupleMode mode)
{
	TM_FailureData failure;

	CHECK_FOR_INTERRUPTS();
	return table_tuple_lock(rel, tid, snapshot, slot, GetCurrentCommandId(false),
							mode,
							dja_turn.actor == NULL ? LockWaitBlock : LockWaitError,
							TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS, &failure) == TM_Ok;
}

/*
 * The actor as it is now, its row locked until the end of the transaction: the
 * turn that runs is waited for, and the next one waits.
 */
DjaActor *
dja_actor_locked(DjaType *type, text *key, uint64 key_hash, LockTupleMode mode)
{
	Relation	rel = table_open(dja_table_oid(DJA_ACTOR_TABLE), RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	DjaActor   *actor;
	bool		done;

	do
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		actor = dja_actor_read(rel, 0, slot, type, key, key_hash, snapshot);
		done = !actor->exists || dja_lock_row(rel, &actor->tid, snapshot, slot, mode);
		UnregisterSnapshot(snapshot);
	} while (!done);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return actor;
}
