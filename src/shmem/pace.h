/*
 * pace.h
 *
 * How many turns of a type share a transaction, and how many workers run the
 * type at once, where turns get into each other's way.
 *
 * What a transaction locks it keeps until its commit, so a batch of many turns
 * that write rows which others write too makes those wait, and two such batches
 * deadlock each other.  Conflicts make the numbers smaller at once, quiet makes
 * them larger step by step.  A DjaPace stands in its type's type queue, under
 * dja_shared->lock; nothing here raises an error.
 */
#ifndef DJA_PACE_H
#define DJA_PACE_H

#include "datatype/timestamp.h"

typedef struct DjaPace
{
	int			turns;			/* in a transaction, 0 = no limit */
	int			threshold;		/* below it turns are doubled, 0 = everywhere */
	int			workers;		/* at once, 0 = no limit */
	TimestampTz lowered_at;		/* either of them, by a conflict */
	TimestampTz worker_at;		/* when another worker may be tried */
	uint64		conflicts;		/* so far, for djactor.stat */
} DjaPace;

/* How a batch went, as far as one of its types is concerned; the worst last. */
typedef enum DjaPaceEvent
{
	DJA_PACE_NOTHING,			/* it tells nothing */
	DJA_PACE_QUIET,				/* committed, and was in nobody's way */
	DJA_PACE_LONG_TURN,			/* a turn lasted too long to share a
								 * transaction */
	DJA_PACE_CONFLICT			/* somebody waited for what several turns had
								 * locked, or one of them for somebody else */
} DjaPaceEvent;

extern void dja_pace_note(DjaPace *pace, DjaPaceEvent event, int turns, int workers,
						  TimestampTz started, TimestampTz now);

#endif							/* DJA_PACE_H */
