/*
 * mailbox_limit.h
 *
 * mailbox_limit of an actor type; see mailbox_limit.c.
 */
#ifndef DJA_MAILBOX_LIMIT_H
#define DJA_MAILBOX_LIMIT_H

#include "tables/actor_type.h"

/*
 * Finds room in its mailbox for a message that the command cid has inserted.
 * Returns false if there was none and the message is a dead letter now; raises
 * 53400 if the type does not want that.
 */
extern bool dja_take_mailbox_room(DjaType *type, text *key, int64 id, CommandId cid);

#endif							/* DJA_MAILBOX_LIMIT_H */
