/*
 * failure.h
 *
 * What an error means: whose fault it is, and when the next attempt is due.
 */
#ifndef DJA_FAILURE_H
#define DJA_FAILURE_H

#include "actor_type.h"
#include "mailbox.h"

typedef enum DjaBlame
{
	DJA_BLAME_NOBODY,			/* try again, no attempt is used up (contract
								 * 12) */
	DJA_BLAME_ALONE,			/* batch-mates may have caused it: counts only
								 * when it repeats alone */
	DJA_BLAME_MESSAGE
} DjaBlame;

/* An error, copied out of the way of the abort. */
typedef struct DjaError
{
	int			sqlerrcode;
	char	   *message;		/* with detail and hint */
	char	   *context;
	bool		timed_out;
	bool		rejected;		/* by the handler: no retry */
	bool		notify_full;	/* the server cannot queue a NOTIFY */
} DjaError;

/* SQLSTATEs of djactor's own */
#define DJA_ERRCODE_TIMEOUT MAKE_SQLSTATE('J', 'A', '0', '0', '1')
#define DJA_ERRCODE_ASK_FAILED MAKE_SQLSTATE('J', 'A', '0', '0', '2')
#define DJA_ERRCODE_REJECTED MAKE_SQLSTATE('J', 'A', '0', '0', '3')

extern DjaError *dja_error_copy(ErrorData *edata, bool timed_out);
extern DjaBlame dja_error_blame(DjaError *error);
extern TimestampTz dja_retry_time(DjaType *type, int attempts, TimestampTz now);
extern TimestampTz dja_postpone_time(DjaError *error, TimestampTz now);

#endif							/* DJA_FAILURE_H */
