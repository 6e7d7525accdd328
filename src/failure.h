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
	DJA_BLAME_NOBODY,			/* try again, no attempt is used up (contract 12) */
	DJA_BLAME_ALONE,			/* batch-mates may have caused it: counts only when it repeats alone */
	DJA_BLAME_MESSAGE
} DjaBlame;

/* An error, copied out of the way of the abort. */
typedef struct DjaError
{
	int			sqlerrcode;
	char	   *message;		/* with detail and hint */
	char	   *context;
	bool		timed_out;
} DjaError;

extern DjaError *dja_error_copy(ErrorData *edata, bool timed_out);
extern DjaBlame dja_error_blame(DjaError *error);
extern TimestampTz dja_retry_time(DjaType *type, int attempts, TimestampTz now);
extern TimestampTz dja_postpone_time(DjaError *error, TimestampTz now);

#endif							/* DJA_FAILURE_H */
