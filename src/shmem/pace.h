/*
 * pace.h
 *
 * Limits how many turns of a type share a transaction, and how many workers run
 * the type at once, where turns conflict.
 *
 * A transaction keeps its locks until its commit.  So a batch of many turns makes
 * other writers of the same rows wait, and two such batches deadlock each other.
 * Conflicts make the numbers smaller at once; quiet makes them larger step by
 * step.  A DjaPace is part of its type queue, under dja_shared->lock.
 * Nothing here raises an error.
 */
#ifndef DJA_PACE_H
#define DJA_PACE_H

#include "datatype/timestamp.h"

typedef struct DjaPace
{
	int			turns;			/* in a transaction, 0 = no limit */
	int			threshold;		/* below it turns are doubled, 0 = always */
	int			workers;		/* at once, 0 = no limit */
	TimestampTz lowered_at;		/* when a conflict lowered either */
	TimestampTz worker_at;		/* when another worker may be tried */
	uint64		conflicts;		/* so far, for djactor.stat */
} DjaPace;

/* How a batch went for one of its types, the worst last. */
typedef enum DjaPaceEvent
{
	DJA_PACE_NOTHING,			/* nothing to be learnt */
	DJA_PACE_QUIET,				/* it committed, and made nobody wait */
	DJA_PACE_LONG_TURN,			/* a turn lasted too long to share a
								 * transaction */
	DJA_PACE_CONFLICT			/* another session waited for locks of several
								 * turns, or a turn waited for another session */
} DjaPaceEvent;

extern void dja_pace_note(DjaPace *pace, DjaPaceEvent event, int turns, int workers,
						  TimestampTz started, TimestampTz now);

#endif							/* DJA_PACE_H */
