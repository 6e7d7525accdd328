/*
 * row_lock.h
 *
 * Locks on single rows of djactor, for the functions that change an actor, a
 * timer or a dead letter.  They last until the end of the transaction, and are
 * waited for as an UPDATE would; but no turn waits for another actor (contract
 * 17): there 55P03 is raised, and the turn is run again.
 */
#ifndef DJA_ROW_LOCK_H
#define DJA_ROW_LOCK_H

#include "nodes/lockoptions.h"

#include "tables/actor.h"

extern bool dja_lock_row(Relation rel, ItemPointer tid, Snapshot snapshot, TupleTableSlot *slot,
						 LockTupleMode mode);
extern DjaActor *dja_actor_locked(DjaType *type, text *key, uint64 key_hash, LockTupleMode mode);

#endif							/* DJA_ROW_LOCK_H */
