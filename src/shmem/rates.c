/*
 * rates.c
 *
 * The rates of actor types; rates.h says how they are enforced, windows.h how turns
 * are counted.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "shmem/mailboxes.h"
#include "shmem/rates.h"

/*
 * Has everything that waits for the type's rate looked at again.
 */
static void
dja_rate_look_again(DjaTypeQueue *type_queue)
{
	if (type_queue->spent_until != 0)
		type_queue->spent_until = DT_NOBEGIN;
	dja_mailboxes_look_again(type_queue, DJA_NO_TENANT);
}

/*
 * Sets the rate of a type queue's type.  A rate that stays keeps what it has counted.
 */
void
dja_type_queue_set_rate(int i, DjaRateOption option)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	if (type_queue->rate.turns == option.rate.turns && type_queue->rate.period == option.rate.period &&
		type_queue->rate_by == option.by)
		return;
	type_queue->rate = option.rate;
	type_queue->rate_by = option.by;
	dja_rate_look_again(type_queue);
}

/*
 * The pool's resident has to know until when mail waits.
 */
static void
dja_rate_tell_resident(DjaTypeQueue *type_queue)
{
	if (type_queue->pool >= 0 && !dja_is_resident())
		dja_wake_pool(type_queue->pool);
}

/*
 * Returns the window that counts the turns of a tenant, or of the whole type (DJA_NO_TENANT).
 */
static DjaWindow *
dja_rate_window(int type_queue, int tenant)
{
	return tenant >= 0 ? &dja_tenant(tenant)->window : &dja_shared->queue->windows[type_queue];
}

/*
 * May a turn of the first mailbox in a type queue with a rate begin now?  If not, the type
 * queue is spent.  Tenants that are spent make way for those that are not.
 */
bool
dja_rate_allows(int i, TimestampTz now)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);
	bool		any_spent = false;
	TimestampTz until;

	dja_assert_locked();
	Assert(type_queue->rate.turns > 0);
	if (!type_queue->rate_by)
	{
		if (dja_window_left(dja_rate_window(i, DJA_NO_TENANT), &type_queue->rate, now, &until) > 0)
			return true;
		type_queue->spent_until = until;
		dja_rate_tell_resident(type_queue);
		return false;
	}
	while (type_queue->queued.length > 0)
	{
		int			tenant = dja_mailbox(type_queue->queued.head)->tenant;

		/* in no tenant: whoever reads it finds out */
		if (tenant < 0 || dja_window_left(dja_rate_window(i, tenant), &type_queue->rate, now, &until) > 0)
			break;
		dja_tenant(tenant)->spent_until = until;
		dja_mailbox_tenant_spent(type_queue->queued.head, until);
		any_spent = true;
	}
	if (any_spent)
		dja_rate_tell_resident(type_queue);
	return type_queue->queued.length > 0;
}

/*
 * A type queue that was spent is so no longer, once its time has come.  Hosts that wait
 * are told.
 */
void
dja_rate_recover(DjaTypeQueue *type_queue, TimestampTz now)
{
	dja_assert_locked();
	if (type_queue->spent_until > now)
		return;
	type_queue->spent_until = 0;
	if (type_queue->queued.length > 0)
		dja_note_host_mail(type_queue);
}

/*
 * Returns how many turns of a claimed mailbox may begin now, as far as is known; 1 at
 * least.  Takes the lock.
 */
int
dja_rate_turns_left(int i, DjaRateOption option)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;
	int			tenant;
	int			left = PG_INT32_MAX;

	dja_lock();
	tenant = option.by ? dja_mailbox(i)->tenant : DJA_NO_TENANT;
	if (tenant >= 0 || !option.by)
		left = dja_window_left(dja_rate_window(dja_mailbox(i)->type_queue, tenant), &option.rate, now, &until);
	dja_unlock();
	return Max(left, 1);
}

/*
 * Begins a turn of a claimed mailbox, or returns false if none may begin now.  tenant_value
 * is that of the turn's message, if the rate counts for each tenant: its mailbox waits in
 * that tenant then.  The type queue may not know the rate yet, so the caller names it, and
 * the epoch in which the type had it.  Takes the lock.
 */
bool
dja_rate_begin_turn(int i, DjaRateOption option, uint64 tenant_value, uint64 epoch)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until;
	DjaTypeQueue *type_queue;
	DjaWindow  *window;
	int			t;
	int			tenant;
	bool		begins = true;

	dja_lock();
	t = dja_mailbox(i)->type_queue;
	type_queue = dja_type_queue(t);
	tenant = option.by ? dja_tenant_find(t, tenant_value, true) : DJA_NO_TENANT;
	if (tenant >= 0 || !option.by)	/* else there is no room to count */
	{
		window = dja_rate_window(t, tenant);
		begins = dja_window_left(window, &option.rate, now, &until) > 0;
		if (begins)
			dja_window_take(window, &option.rate, now);
	}
	if (tenant >= 0)
		dja_tenant(tenant)->used_at = now;
	if (!begins)
	{
		if (type_queue->epoch == epoch)
			dja_type_queue_set_rate(t, option);
		if (tenant >= 0)
			dja_tenant_join(i, tenant_value);
		else
		{
			type_queue->spent_until = until;
			dja_rate_tell_resident(type_queue);
		}
	}
	dja_unlock();
	return begins;
}

/*
 * Counts turns of a tenant (value 0: of the whole type) that began no earlier than since as
 * if they had not.
 */
void
dja_rate_give_back(int i, uint64 tenant_value, int turns, TimestampTz since)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);
	int			tenant = tenant_value != 0 ? dja_tenant_find(i, tenant_value, false) : DJA_NO_TENANT;

	dja_assert_locked();
	if (turns == 0 || (tenant_value != 0 && tenant < 0))
		return;
	for (int n = 0; n < turns; n++)
		dja_window_give_back(dja_rate_window(i, tenant), since);
	if (tenant >= 0)
	{
		dja_tenant(tenant)->spent_until = 0;
		dja_mailboxes_look_again(type_queue, tenant);
	}
	else if (type_queue->spent_until != 0)
		type_queue->spent_until = DT_NOBEGIN;
	if (type_queue->in_use && type_queue->pool >= 0)
		dja_wake_pool(type_queue->pool);
}
