/*
 * failure.h
 *
 * Whose fault an error is, and when the next attempt is due.
 */
#ifndef DJA_FAILURE_H
#define DJA_FAILURE_H

#include "tables/actor_type.h"
#include "tables/message.h"
#include "turn/turn_timeout.h"

typedef enum DjaBlame
{
	/*
	 * nobody's: another attempt may do, and at first uses none up (contract
	 * 12)
	 */
	DJA_BLAME_CONFLICT,			/* a lock or a change of another transaction */
	DJA_BLAME_SERVER,			/* the server is in trouble, or another one
								 * cannot be reached */
	DJA_BLAME_LONG,				/* it lasted too long to share a transaction */

	DJA_BLAME_MATES,			/* perhaps that of turns in its transaction:
								 * counts only if it repeats alone */
	DJA_BLAME_MESSAGE,
	DJA_NBLAMES
} DjaBlame;

#define dja_is_nobodys(blame) ((blame) < DJA_BLAME_MATES)

/*
 * A message whose error is nobody's fault is tried again soon, DJA_QUICK_TRIES
 * times.  From then on it is tried as seldom as one that has failed.  Its attempts may
 * then count as failed: at once if the server's trouble is the message's own
 * (trouble.h), after DJA_CONFLICT_TRIES if another transaction may just keep a lock.
 */
#define DJA_QUICK_TRIES 3
#define DJA_CONFLICT_TRIES 8

/* An error, copied before the abort. */
typedef struct DjaError
{
	int			sqlerrcode;
	char	   *message;		/* with detail and hint */
	char	   *context;
	DjaTurnTimeoutHit limit;	/* why the turn was cancelled, if it was */
	bool		rejected;		/* by the handler: no retry */
	bool		notify_full;	/* the server cannot queue a NOTIFY */
	bool		python_lost;	/* nothing may run in this session's Python
								 * any more */
} DjaError;

/* SQLSTATEs of djactor's own */
#define DJA_ERRCODE_TIMEOUT MAKE_SQLSTATE('J', 'A', '0', '0', '1')
#define DJA_ERRCODE_ASK_FAILED MAKE_SQLSTATE('J', 'A', '0', '0', '2')
#define DJA_ERRCODE_REJECTED MAKE_SQLSTATE('J', 'A', '0', '0', '3')

extern DjaError *dja_error_copy(ErrorData *edata, DjaTurnTimeoutHit limit);
extern bool dja_error_of_surroundings(DjaError *error);
extern bool dja_error_is_cancel(DjaError *error);
extern DjaBlame dja_error_blame(DjaError *error);
extern bool dja_error_of_session(DjaError *error);
extern TimestampTz dja_retry_time(DjaType *type, int attempts, TimestampTz now);
extern TimestampTz dja_put_off_time(DjaType *type, DjaBlame blame, int put_offs, TimestampTz now);

#endif							/* DJA_FAILURE_H */
