/*
 * post.h
 *
 * Messages that djactor itself sends: answers, notices, timers.
 */
#ifndef DJA_POST_H
#define DJA_POST_H

#include "mailbox.h"

typedef struct DjaPost
{
	const char *kind;
	text	   *actor_type;
	text	   *actor_key;
	Datum		payload;
	Datum		meta;			/* 0 = none */
	int64		in_reply_to;	/* 0 = none */
	TimestampTz deliver_at;		/* 0 = now */
	text	   *sender_type;	/* NULL: whose turn is running, if any */
	text	   *sender_key;
	DjaMessage *origin;			/* whose headers and trace pass on; NULL: of
								 * the running turn's */
} DjaPost;

extern int64 dja_post(const DjaPost *post);

#endif							/* DJA_POST_H */
