/*
 * trouble.h
 *
 * Decides whether an error is the server's trouble or the message's own.
 *
 * An error of the server (no space, no memory, read-only, an I/O error) is blamed
 * on no message as long as any message might meet it.  If it repeats for one
 * message while others are served, it is that message's own.
 *
 * A DjaTrouble is kept under dja_shared->lock.  Nothing here raises an error.
 */
#ifndef DJA_TROUBLE_H
#define DJA_TROUBLE_H

#include "datatype/timestamp.h"

#define DJA_TROUBLED 8			/* so many messages at a time are the server's
								 * trouble */

typedef struct DjaTrouble
{
	TimestampTz served_at;		/* when a batch last committed */
	struct
	{
		int64		message_id; /* 0 = none */
		TimestampTz at;
	}			put_off[DJA_TROUBLED];	/* the latest, each message once */
} DjaTrouble;

extern void dja_trouble_over(DjaTrouble *trouble, TimestampTz now);
extern bool dja_trouble_is_its_own(DjaTrouble *trouble, int64 message_id, TimestampTz now);

#endif							/* DJA_TROUBLE_H */
