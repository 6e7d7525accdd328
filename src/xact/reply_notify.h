/*
 * reply_notify.h
 *
 * Tells of asks from outside that the transaction has answered; see
 * reply_notify.c.  deliver.c calls all but the first.
 */
#ifndef DJA_REPLY_NOTIFY_H
#define DJA_REPLY_NOTIFY_H

#include "access/xact.h"

extern void dja_reply_notify_note(int64 message_id);
extern void dja_reply_notify_announce(void);
extern void dja_reply_notify_deliver(void);
extern void dja_reply_notify_forget(void);
extern void dja_reply_notify_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent);

#endif							/* DJA_REPLY_NOTIFY_H */
