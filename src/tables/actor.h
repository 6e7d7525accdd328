/*
 * actor.h
 *
 * Actors: a row is read once, and written once after all turns of a batch.
 *
 * A DjaActor lives as long as the batch that read it.  Its state is handed from
 * turn to turn in memory.  dja_actor_write() writes it over the very row version
 * that was read, or fails.  So it never overwrites a state that was updated by
 * hand meanwhile.
 */
#ifndef DJA_ACTOR_H
#define DJA_ACTOR_H

#include "utils/snapshot.h"

#include "tables/actor_type.h"

typedef struct DjaActor
{
	DjaType    *type;
	uint64		key_hash;
	text	   *key;
	bool		exists;			/* has a row */
	bool		suspended;
	bool		paused;
	int			state_version;
	int			stashed;
	bool		dirty;			/* to be written */
	ItemPointerData tid;
	TransactionId xmin;			/* of that row version */
	TransactionId locker;		/* another transaction that has locked the row */
	int64		id;
	Datum		state;
	bool		state_owned;	/* state was returned by a turn of this batch */
	int64		turns;
	int64		failures;
	char	   *last_error;		/* NULL = none */
	TimestampTz created_at;
	struct DjaActor *next;		/* with the same key hash */
} DjaActor;

extern DjaActor *dja_actor_read(Relation rel, BlockNumber nblocks, TupleTableSlot *slot,
								DjaType *type, text *key, uint64 key_hash, Snapshot snapshot);
extern void dja_actor_reset(DjaActor *actor);
extern bool dja_actor_halted(Relation rel, TupleTableSlot *slot, DjaType *type, text *key,
							 Snapshot snapshot);
extern void dja_actor_write(DjaActor *actor, DjaWriter *actors, DjaWriter *identities);

#endif							/* DJA_ACTOR_H */
