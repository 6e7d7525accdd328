/*
 * tenants.c
 *
 * Tenants: finding and making them, and the mailboxes that wait in them; see tenants.h.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "shmem/mailboxes.h"
#include "shmem/room.h"
#include "shmem/run_queue.h"

#define DJA_TENANTS_IN_SET 16

void
dja_tenants_setup(void)
{
	StaticAssertStmt(DJA_MAX_TENANTS <= PG_INT16_MAX, "the index of a tenant fits into a mailbox");
	StaticAssertStmt(DJA_MAX_TENANTS % DJA_TENANTS_IN_SET == 0, "all sets are of one size");
}

static void
dja_tenant_make(int i, int type_queue, uint64 value)
{
	DjaTenant  *tenant = dja_tenant(i);

	memset(tenant, 0, sizeof(DjaTenant));
	tenant->in_use = true;
	tenant->value = value;
	tenant->type_queue = type_queue;
	dja_list_clear(&tenant->behind);
}

/*
 * Returns the tenant of a value.  If there is none, makes it, or returns DJA_NO_TENANT unless
 * asked to, or if there is no room.
 */
int
dja_tenant_find(int type_queue, uint64 value, bool create)
{
	int			first = (int) (hash_combine64(value, (uint64) type_queue) %
							   (DJA_MAX_TENANTS / DJA_TENANTS_IN_SET)) * DJA_TENANTS_IN_SET;
	int			place = DJA_NO_TENANT;
	int			shared = DJA_NO_TENANT;

	dja_assert_locked();
	Assert(value != 0);
	for (int i = first; i < first + DJA_TENANTS_IN_SET; i++)
	{
		DjaTenant  *tenant = dja_tenant(i);

		if (tenant->in_use && tenant->value == value && tenant->type_queue == type_queue)
			return i;
		if (tenant->in_use && tenant->mailboxes > 0)
		{
			if (tenant->type_queue == type_queue)
				shared = i;
		}
		else if (place < 0 ||
				 (dja_tenant(place)->in_use && (!tenant->in_use || tenant->used_at < dja_tenant(place)->used_at)))
			place = i;
	}
	if (!create)
		return DJA_NO_TENANT;
	if (place < 0)
		return shared;
	dja_tenant_make(place, type_queue, value);
	return place;
}

/*
 * Forgets the tenants of a type queue that have no mailboxes.  Rare, so a walk is good
 * enough.
 */
void
dja_tenants_forget(int type_queue)
{
	dja_assert_locked();
	for (int i = 0; i < DJA_MAX_TENANTS; i++)
		if (dja_tenant(i)->in_use && dja_tenant(i)->type_queue == type_queue && dja_tenant(i)->mailboxes == 0)
			dja_tenant(i)->in_use = false;
}

/*
 * Puts a mailbox that is in no list into the tenant of a value, and takes it out of the one
 * that it was in.
 */
void
dja_tenant_join(int i, uint64 value)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	int			tenant = dja_tenant_find(mailbox->type_queue, value, true);

	Assert(mailbox->state == DJA_MAILBOX_WAITING || mailbox->state == DJA_MAILBOX_RUNNING);
	if (tenant == mailbox->tenant)
		return;
	dja_tenant_leave(i);
	mailbox->tenant = (int16) tenant;
	if (tenant >= 0)
	{
		dja_tenant(tenant)->mailboxes++;
		dja_room_tenant_grew(tenant);
	}
}

void
dja_tenant_leave(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	dja_assert_locked();
	if (mailbox->tenant < 0)
		return;
	Assert(dja_tenant(mailbox->tenant)->mailboxes > 0);
	dja_tenant(mailbox->tenant)->mailboxes--;
	mailbox->tenant = DJA_NO_TENANT;
}

/*
 * A mailbox of a tenant is to be queued.  If another one of its tenant stands in the list,
 * puts it behind those that wait already, and returns true.  If not, the caller puts it
 * into the list.
 */
bool
dja_tenant_queues_behind(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTenant  *tenant = dja_tenant(mailbox->tenant);

	dja_assert_locked();
	Assert(tenant->ahead > 0 || tenant->behind.length == 0);
	if (tenant->ahead == 0)
	{
		tenant->ahead = 1;
		return false;
	}
	mailbox->state = DJA_MAILBOX_BEHIND;
	dja_list_append(&tenant->behind, i);
	dja_type_queue(mailbox->type_queue)->behind++;
	return true;
}

/*
 * Removes a mailbox from those that wait in its tenant.
 */
void
dja_tenant_unlink_behind(int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaTenant  *tenant = dja_tenant(mailbox->tenant);

	dja_assert_locked();
	Assert(mailbox->state == DJA_MAILBOX_BEHIND);
	dja_list_remove(&tenant->behind, i);
	dja_type_queue(mailbox->type_queue)->behind--;
}

/*
 * If no mailbox of a tenant stands in the type queue's list, the first of those that wait
 * goes to the end of it.
 */
void
dja_tenant_moves_up(int l)
{
	DjaTenant  *tenant = dja_tenant(l);
	int			i = tenant->behind.head;

	dja_assert_locked();
	Assert(tenant->ahead >= 0);
	if (tenant->ahead > 0 || tenant->behind.length == 0)
		return;
	dja_list_remove(&tenant->behind, i);
	dja_type_queue(tenant->type_queue)->behind--;
	tenant->ahead = 1;
	dja_mailbox_append(i);
}
