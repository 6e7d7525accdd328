/*
 * tenants.h
 *
 * The tenants of a type queue: what the type's rate_by or fair_by tells apart.  Tenants
 * take turns, and each has its own rate.
 *
 * Of each tenant one mailbox at a time stands in the type queue's list; the others are
 * BEHIND it, in the order in which they came.  When it is claimed, the next of its tenant
 * goes to the end of the list.  So the list, which serves the longest waiting first,
 * serves the tenants in turns, however many mailboxes each has.
 *
 * Where a rate counts for each tenant, a tenant that has had its turns has its one mailbox
 * put off until the next may begin.  All others stay behind it.
 *
 * A tenant is known by the hash of its value, which the sender's commit, or a sweep, finds
 * in the message.  A mailbox pushed by somebody who does not know it is in no tenant, and
 * stands in the list by itself.  A worker that reads the message finds its tenant out, if a
 * rate counts for that.
 *
 * There are DJA_MAX_TENANTS for the whole server, in a table of sets.  A tenant without
 * mailboxes is kept for what its window remembers, until another one needs the place: of
 * those in its set the one goes whose last turn is the longest ago.  If all tenants of a set
 * have mailboxes, a new value shares one of its type's: a rate is never exceeded for that.
 *
 * Every function needs dja_shared->lock and raises no error.
 */
#ifndef DJA_TENANTS_H
#define DJA_TENANTS_H

#include "shmem/windows.h"

#define DJA_MAX_TENANTS 8192
#define DJA_NO_TENANT (-1)		/* instead of the index of a tenant */

/* A list of mailboxes; mailbox_list.h. */
typedef struct DjaMailboxList
{
	int			head;
	int			tail;
	int			length;
} DjaMailboxList;

typedef struct DjaTenant
{
	bool		in_use;
	uint64		value;			/* hash; never 0 */
	int			type_queue;
	bool		crowded;		/* there are, or may be, more of its mailboxes
								 * with due mail than room */
	int			mailboxes;		/* that are in it, in any state */
	int			ahead;			/* those in the type queue's list, or put off
								 * for the tenant's rate */
	DjaMailboxList behind;		/* those that wait for them, first in first
								 * out */
	TimestampTz used_at;		/* when a turn of it began last */
	TimestampTz spent_until;	/* until then it has had its turns */
	DjaWindow	window;
} DjaTenant;

extern void dja_tenants_setup(void);
extern int	dja_tenant_find(int type_queue, uint64 value, bool create);
extern void dja_tenants_forget(int type_queue);

/* mailboxes that are in no list */
extern void dja_tenant_join(int mailbox, uint64 value);
extern void dja_tenant_leave(int mailbox);

/* for mailboxes.c: the tenant of a mailbox that enters a list, or leaves one */
extern bool dja_tenant_queues_behind(int mailbox);
extern void dja_tenant_unlink_behind(int mailbox);
extern void dja_tenant_moves_up(int tenant);

#define dja_tenant(i) (&dja_shared->queue->tenants[i])

#endif							/* DJA_TENANTS_H */
