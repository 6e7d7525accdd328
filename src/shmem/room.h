/*
 * room.h
 *
 * Who may have how much of the run queue's room.
 *
 * As long as mailboxes are free, whoever needs one gets it.  When none is, these make way
 * for a new one: those that merely wait (for their message's retry), those of type queues
 * that are blocked, and those of a type queue that has more than twice as many as the one
 * that needs it.  Within a type queue a tenant (tenants.h) makes way for another one under
 * the same condition.  So mail that cannot be handled now, since its type's rate is used
 * up, nobody hosts it or its turns last, keeps no other mail out, however much there is.
 * The type queue of a mailbox that made way is swept, which finds its mail again.  A
 * mailbox that is running or announced stays.
 *
 * When a type queue can have no more mailboxes, one of it that was served makes room for
 * those that were not: it leaves the run queue, and a sweep brings it back after all the
 * others.  New mail then waits for the sweep, too.  The type queue is crowded until a
 * sweep has finished, no mailbox has left meanwhile, and there is room.  With tenants, each
 * tenant is crowded or not.
 *
 * A sweep waits where it stands until there is room.  Where there are tenants, it passes
 * over the mail of those that have none, and the next one begins when half of the mailboxes
 * have been served, or after ten times as long as this one has taken.  It begins where mail
 * was refused first, so that none is refused again and again for the same others, which may
 * be dead entries of the index.
 *
 * Every function needs dja_shared->lock and raises no error.
 */
#ifndef DJA_ROOM_H
#define DJA_ROOM_H

#include "shmem/run_queue.h"

extern int	dja_room(int type_queue, uint64 tenant_value);
extern bool dja_room_make(int type_queue, uint64 tenant_value);
extern void dja_room_type_queue_grew(int type_queue);
extern void dja_room_tenant_grew(int tenant);

/* mailboxes that are in no list */
extern bool dja_room_crowded(int type_queue, uint64 tenant_value);
extern bool dja_mailbox_crowded(int mailbox);

/* sweeps */
extern bool dja_sweep_goes_on(int type_queue, TimestampTz now);
extern int	dja_sweep_room(int type_queue, int max);
extern void dja_sweep_begin(int type_queue);
extern void dja_sweep_refused(int type_queue, DjaSweepPoint at);
extern void dja_sweep_ended(int type_queue, TimestampTz now);

#endif							/* DJA_ROOM_H */
