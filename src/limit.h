/*
 * limit.h
 *
 * The clock of turns: the time limit of a turn (handler_timeout, deferred
 * triggers included), turns that last too long to share a transaction, and the
 * call for help of a worker that others may wait for.
 */
#ifndef DJA_LIMIT_H
#define DJA_LIMIT_H

#include "datatype/timestamp.h"

/* Why the running turn was cancelled. */
typedef enum DjaLimitHit
{
	DJA_LIMIT_NONE,
	DJA_LIMIT_EXCEEDED,			/* its handler_timeout is over */
	DJA_LIMIT_LONG,				/* it lasts, and the turns that share its
								 * transaction wait for their commit */
	DJA_LIMIT_BLOCKED			/* likewise, for a lock */
} DjaLimitHit;

extern volatile DjaLimitHit dja_limit_hit;
extern volatile bool dja_limit_long;	/* the last turn was a long one */

extern void dja_limit_arm(void);
extern void dja_limit_begin(int timeout, TimestampTz now, bool shared);
extern void dja_limit_end(void);
extern void dja_limit_stop(void);
extern void dja_limit_rest(void);

#endif							/* DJA_LIMIT_H */
