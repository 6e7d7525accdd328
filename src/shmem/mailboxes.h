/*
 * mailboxes.h
 *
 * Mailboxes of the run queue, for run_queue.c, room.c, type_queues.c, ranks.c and claims.c only.
 * Every function needs dja_shared->lock, asserts it, and raises no error.
 */
#ifndef DJA_MAILBOXES_H
#define DJA_MAILBOXES_H

#include "shmem/mailbox_list.h"

extern int	dja_mailbox_find(int type_queue, uint64 key_hash);
extern int	dja_mailbox_create(int type_queue, uint64 key_hash, int64 cursor, uint64 tenant_value);
extern void dja_mailbox_free(int mailbox);
extern void dja_mailbox_enqueue(int mailbox);
extern void dja_mailbox_append(int mailbox);
extern void dja_mailbox_tenant_spent(int mailbox, TimestampTz until);
extern void dja_mailboxes_look_again(DjaTypeQueue *type_queue, int tenant);
extern void dja_mailbox_return(int mailbox);
extern int	dja_mailbox_dequeue(DjaTypeQueue *type_queue);
extern void dja_mailbox_put_off(int mailbox, TimestampTz until);
extern void dja_mailboxes_come_back(DjaTypeQueue *type_queue, TimestampTz now);
extern void dja_mailbox_unlink(int mailbox);
extern void dja_note_host_mail(DjaTypeQueue *type_queue);

/* ranks.c: the list of a type queue that goes by priority */
extern void dja_rank_insert(DjaTypeQueue *type_queue, int mailbox, bool at_front);
extern void dja_rank_remove(DjaTypeQueue *type_queue, int mailbox);

/* claims.c: the beginning and the end of any claim */
extern void dja_mailbox_claim(int mailbox, int claimer);
extern void dja_mailbox_leave(int mailbox, DjaClaimEnd end, int64 cursor, int removed, int run_alone);

/*
 * Returns the heads of the hash chains.
 */
static inline int *
dja_buckets(DjaRunQueue *queue)
{
	return (int *) ((char *) queue + MAXALIGN(sizeof(DjaRunQueue)));
}

#endif							/* DJA_MAILBOXES_H */
