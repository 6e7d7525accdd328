/*
 * system_message.h
 *
 * Messages that djactor itself sends: answers, notices, timers.
 */
#ifndef DJA_SYSTEM_MESSAGE_H
#define DJA_SYSTEM_MESSAGE_H

#include "tables/message.h"

typedef struct DjaSystemMessage
{
	const char *kind;
	text	   *actor_type;
	text	   *actor_key;
	Datum		payload;
	Datum		meta;			/* 0 = none */
	int64		in_reply_to;	/* 0 = none */
	TimestampTz deliver_at;		/* 0 = now */
	text	   *sender_type;	/* NULL: the actor whose turn runs, if any */
	text	   *sender_key;
	DjaMessage *origin;			/* headers and trace pass on from it; NULL:
								 * from the message of the running turn */
} DjaSystemMessage;

extern int64 dja_send_system_message(const DjaSystemMessage *post);

#endif							/* DJA_SYSTEM_MESSAGE_H */
