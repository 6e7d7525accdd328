/*
 * turn_timeout.h
 *
 * The clock of turns.  It cancels a turn that exceeds its time limit
 * (handler_timeout, deferred triggers included), and one that lasts too long to
 * share a transaction.  It calls for another worker if this one takes long.
 */
#ifndef DJA_TURN_TIMEOUT_H
#define DJA_TURN_TIMEOUT_H

#include "datatype/timestamp.h"

/* Why the running turn was cancelled. */
typedef enum DjaTurnTimeoutHit
{
	DJA_TURN_TIMEOUT_NONE,
	DJA_TURN_TIMEOUT_EXCEEDED,	/* its handler_timeout is over */
	DJA_TURN_TIMEOUT_LONG,		/* it takes long, and the turns that share its
								 * transaction wait for their commit */
	DJA_TURN_TIMEOUT_BLOCKED,	/* likewise, but it waits for a lock */
	DJA_TURN_TIMEOUT_CANCELLED	/* its message is being cancelled */
} DjaTurnTimeoutHit;

extern volatile DjaTurnTimeoutHit dja_turn_timeout_hit;
extern volatile bool dja_turn_timeout_long; /* the last turn was a long one */

extern void dja_turn_timeout_arm(void);
extern void dja_turn_timeout_begin(int timeout, TimestampTz now, bool shared);
extern void dja_turn_timeout_end(void);
extern void dja_turn_timeout_stop(void);
extern void dja_turn_timeout_rest(void);

#endif							/* DJA_TURN_TIMEOUT_H */
