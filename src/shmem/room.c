/*
 * room.c
 *
 * The room of the run queue: who may have how much of it; see room.h.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "shmem/mailboxes.h"
#include "shmem/room.h"

#define DJA_EVICTION_PROBES 256
#define DJA_SWEEP_PAUSES 10		/* between two sweeps that refuse mail, in
								 * times that one takes */

/*
 * Notes that a type queue has one mailbox more.
 *
 * The one with most mailboxes is known only if it has grown last.  If it shrinks, others
 * may have more; but then its places are free.
 */
void
dja_room_type_queue_grew(int i)
{
	DjaRunQueue *queue = dja_shared->queue;

	dja_assert_locked();
	if (dja_type_queue(i)->mailboxes > dja_type_queue(queue->largest)->mailboxes)
		queue->largest = i;
}

/*
 * Notes that a tenant has one mailbox more.
 */
void
dja_room_tenant_grew(int tenant)
{
	DjaTypeQueue *type_queue = dja_type_queue(dja_tenant(tenant)->type_queue);

	dja_assert_locked();
	if (type_queue->largest_tenant < 0 ||
		dja_tenant(tenant)->mailboxes > dja_tenant(type_queue->largest_tenant)->mailboxes)
		type_queue->largest_tenant = tenant;
}

/*
 * Returns how many mailboxes somebody who has so many may take from somebody else, one
 * after the other: as long as the other one has more than twice as many.
 */
static inline int
dja_excess(int others, int own)
{
	return Max(0, (others - 2 * own + 1) / 3);
}

/*
 * Returns how many mailboxes a tenant has; 0 if the value has no tenant.
 */
static int
dja_tenant_mailboxes(int i, uint64 tenant_value)
{
	int			tenant = dja_tenant_find(i, tenant_value, false);

	return tenant < 0 ? 0 : dja_tenant(tenant)->mailboxes;
}

/*
 * Returns how many more mailboxes a type queue may have, or a tenant of it, unless
 * tenant_value is 0.
 */
int
dja_room(int i, uint64 tenant_value)
{
	DjaRunQueue *queue = dja_shared->queue;
	DjaTypeQueue *type_queue = dja_type_queue(i);
	int			room;

	dja_assert_locked();
	if (queue->free_count > 0)
		return queue->free_count;
	room = dja_excess(dja_type_queue(queue->largest)->mailboxes, type_queue->mailboxes);
	if (room == 0 && tenant_value != 0 && type_queue->largest_tenant >= 0)
		room = dja_excess(dja_tenant(type_queue->largest_tenant)->mailboxes,
						  dja_tenant_mailboxes(i, tenant_value));
	return room;
}

/*
 * Must a mailbox make way for one of a type queue, or of a tenant of it, which has so
 * many?
 */
static bool
dja_makes_way(DjaMailbox *mailbox, int i, uint64 tenant_value, int tenant_mailboxes)
{
	if (mailbox->announced > 0 || mailbox->run_alone > 0 || mailbox->ends > 0)
		return false;
	switch ((DjaMailboxState) mailbox->state)
	{
		case DJA_MAILBOX_FREE:
		case DJA_MAILBOX_RUNNING:
			return false;
		case DJA_MAILBOX_WAITING:
			return true;
		case DJA_MAILBOX_QUEUED:
		case DJA_MAILBOX_PUT_OFF:
		case DJA_MAILBOX_BEHIND:
			break;
	}
	if (dja_type_queue(mailbox->type_queue)->blocked)
		return true;
	if (mailbox->type_queue != i)
		return dja_excess(dja_type_queue(mailbox->type_queue)->mailboxes, dja_type_queue(i)->mailboxes) > 0;
	return tenant_value != 0 && mailbox->tenant >= 0 &&
		dja_excess(dja_tenant(mailbox->tenant)->mailboxes, tenant_mailboxes) > 0;
}

/*
 * Makes room for one more mailbox of a type queue, or of a tenant of it, unless there is
 * some.  Returns false if it may have none.
 */
bool
dja_room_make(int i, uint64 tenant_value)
{
	DjaRunQueue *queue = dja_shared->queue;
	int			tenant_mailboxes = 0;

	dja_assert_locked();
	if (queue->free_count > 0)
		return true;
	if (tenant_value != 0)
		tenant_mailboxes = dja_tenant_mailboxes(i, tenant_value);
	for (int probe = 0; probe < DJA_EVICTION_PROBES; probe++)
	{
		int			m = queue->clock;
		DjaMailbox *mailbox = dja_mailbox(m);

		queue->clock = (m + 1) % queue->size;
		if (!dja_makes_way(mailbox, i, tenant_value, tenant_mailboxes))
			continue;
		if (mailbox->state != DJA_MAILBOX_WAITING)
			dja_mailbox_unlink(m);
		mailbox->state = DJA_MAILBOX_WAITING;
		dja_type_queue(mailbox->type_queue)->sweep_wanted = true;
		dja_mailbox_free(m);
		return true;
	}
	return false;
}

/*
 * Must new mail wait for the sweep?
 */
bool
dja_room_crowded(int i, uint64 tenant_value)
{
	int			tenant;

	dja_assert_locked();
	if (tenant_value == 0)
		return dja_type_queue(i)->crowded;
	tenant = dja_tenant_find(i, tenant_value, false);
	return tenant >= 0 && dja_tenant(tenant)->crowded;
}

/*
 * Must a mailbox that was served make room for others?
 */
bool
dja_mailbox_crowded(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTypeQueue *type_queue = dja_type_queue(mailbox->type_queue);
	DjaTenant  *tenant;

	dja_assert_locked();
	if (mailbox->tenant < 0)
	{
		type_queue->crowded |= dja_room(mailbox->type_queue, 0) == 0;
		return type_queue->crowded;
	}
	tenant = dja_tenant(mailbox->tenant);
	if (!tenant->crowded && dja_room(mailbox->type_queue, tenant->value) == 0)
	{
		tenant->crowded = true;
		type_queue->tenants_crowded = true;
	}
	return tenant->crowded;
}

/*
 * Must a type queue be swept now?
 */
bool
dja_sweep_goes_on(int i, TimestampTz now)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	if (type_queue->blocked || (!type_queue->sweeping && !type_queue->sweep_wanted))
		return false;
	if (type_queue->largest_tenant < 0)
		return dja_room(i, 0) > 0;
	return type_queue->sweeping || type_queue->sweep_pause_until <= now ||
		type_queue->mailboxes < type_queue->sweep_refill;
}

/*
 * Returns how many mailboxes a sweep may find now, max at most.
 */
int
dja_sweep_room(int i, int max)
{
	return dja_type_queue(i)->largest_tenant >= 0 ? max : Min(dja_room(i, 0), max);
}

/*
 * Begins a sweep, unless one is under way: where the last one has refused mail first.
 */
void
dja_sweep_begin(int i)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	if (type_queue->sweeping)
		return;
	memset(&type_queue->sweep_began, 0, sizeof(DjaSweepPoint));
	if (type_queue->sweep_refused)
		type_queue->sweep_began = type_queue->sweep_refused_at;
	type_queue->sweep_at = type_queue->sweep_began;
	type_queue->sweeping = true;
	type_queue->sweep_wanted = type_queue->sweep_refused = type_queue->sweep_wrapped = false;
	type_queue->sweep_usec = 0;
}

/*
 * Notes that a sweep has passed over mail for which there is no room, behind this point.
 */
void
dja_sweep_refused(int i, DjaSweepPoint at)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	type_queue->sweep_wanted = true;
	if (!type_queue->sweep_refused)
		type_queue->sweep_refused_at = at;
	type_queue->sweep_refused = true;
}

/*
 * Notes that a sweep has found no more keys.  It is over when it has come back to where it
 * began.
 */
void
dja_sweep_ended(int i, TimestampTz now)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	Assert(type_queue->sweeping);
	if (type_queue->sweep_began.behind && !type_queue->sweep_wrapped)
	{
		type_queue->sweep_wrapped = true;
		type_queue->sweep_at.behind = false;
		return;
	}
	type_queue->sweeping = false;
	type_queue->sweep_pause_until = 0;
	if (type_queue->sweep_refused && type_queue->largest_tenant >= 0)
	{
		type_queue->sweep_pause_until = now + type_queue->sweep_usec * DJA_SWEEP_PAUSES;
		type_queue->sweep_refill = type_queue->mailboxes / 2;
	}
	if (type_queue->sweep_wanted)
		return;
	if (dja_room(i, 0) > 0)
		type_queue->crowded = false;
	if (!type_queue->tenants_crowded)
		return;

	/* rare, so a walk is good enough */
	type_queue->tenants_crowded = false;
	for (int t = 0; t < DJA_MAX_TENANTS; t++)
		if (dja_tenant(t)->in_use && dja_tenant(t)->type_queue == i)
			dja_tenant(t)->crowded = false;
}
