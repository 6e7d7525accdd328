/*
 * waiters.c
 *
 * There is one entry for each backend.  Its owner writes it, and sessions that
 * answer read it, both under the lock.  An entry left behind by a backend that
 * died costs a latch set in vain.  count is the number of entries in use: while
 * it is zero, answering looks no further.
 *
 * dja_wake_waiters() is called after a commit, with the lock held, and raises
 * nothing.
 */
#include "postgres.h"

#include "base/compat.h"
#include "shmem/slots.h"
#include "shmem/waiters.h"

typedef struct DjaWaiter
{
	Oid			database;
	int64		message_id;		/* 0 = does not wait */
} DjaWaiter;

struct DjaWaiters
{
	int			count;
	DjaWaiter	waiters[FLEXIBLE_ARRAY_MEMBER]; /* by index in the proc array */
};

static bool dja_waiting = false;

Size
dja_waiters_size(void)
{
	return add_size(offsetof(DjaWaiters, waiters), mul_size(sizeof(DjaWaiter), dja_proc_count()));
}

void
dja_waiters_setup(void *memory)
{
	DjaWaiters *waiters = memory;

	memset(waiters, 0, dja_waiters_size());
}

/*
 * Has this backend's latch set when the message is answered, until
 * dja_wait_over().  Both take the lock.
 */
void
dja_wait_for(int64 message_id)
{
	DjaWaiters *waiters = dja_shared->waiters;
	DjaWaiter  *mine = &waiters->waiters[dja_my_procno()];

	if (message_id == 0)
		return;					/* would mean that nobody waits */
	dja_lock();
	if (mine->message_id == 0)
		waiters->count++;
	mine->database = MyDatabaseId;
	mine->message_id = message_id;
	dja_unlock();
	dja_waiting = true;
}

/*
 * Ends dja_wait_for().
 */
void
dja_wait_over(void)
{
	DjaWaiters *waiters = dja_shared->waiters;
	DjaWaiter  *mine = &waiters->waiters[dja_my_procno()];

	if (!dja_waiting)
		return;
	dja_waiting = false;
	dja_lock();
	if (mine->message_id != 0)
		waiters->count--;
	Assert(waiters->count >= 0);
	mine->message_id = 0;
	dja_unlock();
}

static bool
dja_is_answered(int64 id, const DjaAnswer *answers, int n)
{
	for (int i = 0; i < n; i++)
		if (answers[i].message_id == id)
			return true;
	return false;
}

/*
 * Wakes the backends that wait for these answers.  Needs the
 * lock.
 */
void
dja_wake_waiters(const DjaAnswer *answers, int n)
{
	DjaWaiters *waiters = dja_shared->waiters;
	int			left = waiters->count;

	dja_assert_locked();
	for (int i = 0; i < dja_proc_count() && left > 0; i++)
	{
		DjaWaiter  *waiter = &waiters->waiters[i];

		if (waiter->message_id == 0)
			continue;
		left--;
		if (waiter->database == MyDatabaseId && dja_is_answered(waiter->message_id, answers, n))
			dja_wake(i);
	}
}
