/*
 * trouble.h
 *
 * Is the server in trouble, or is it this message?
 *
 * An error of the server (no space, no memory, read-only, an I/O error) is
 * nobody's fault as long as it may be everybody's.  When it repeats for one
 * message while others are served, it is that message's own.
 *
 * A DjaTrouble stands under dja_shared->lock; nothing here raises an error.
 */
#ifndef DJA_TROUBLE_H
#define DJA_TROUBLE_H

#include "datatype/timestamp.h"

#define DJA_TROUBLED 8			/* so many messages at a time are a server's
								 * trouble */

typedef struct DjaTrouble
{
	TimestampTz served_at;		/* when a batch has come out well last */
	struct
	{
		int64		message_id; /* 0 = none */
		TimestampTz at;
	}			put_off[DJA_TROUBLED];	/* the latest, each message once */
} DjaTrouble;

extern void dja_trouble_over(DjaTrouble *trouble, TimestampTz now);
extern bool dja_trouble_is_its_own(DjaTrouble *trouble, int64 message_id, TimestampTz now);

#endif							/* DJA_TROUBLE_H */
