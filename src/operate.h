/*
 * operate.h
 *
 * What functions for operators share: the type or the actor that they are
 * about.
 */
#ifndef DJA_OPERATE_H
#define DJA_OPERATE_H

#include "actor.h"
#include "nodes/lockoptions.h"

extern DjaType *dja_require_type(text *name);
extern DjaActor *dja_actor_locked(DjaType *type, text *key, uint64 key_hash, LockTupleMode mode);
extern bool dja_lock_row(Relation rel, ItemPointer tid, Snapshot snapshot, TupleTableSlot *slot,
						 LockTupleMode mode);

#endif							/* DJA_OPERATE_H */
