/*
 * batch.c
 *
 * A worker's batch; visit.c has the steps.
 *
 * A batch is one transaction over as many turns as there is time for, in the
 * mailboxes that have waited longest.  It is optimistic: there are no savepoints, and
 * an error aborts all of it; remedy.c decides what follows.  Mailboxes in which
 * nothing was done go back to where they were claimed from, so the order of service
 * is as if the batch had not been.  The claims are kept until the outcome is durable.
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/latch.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "process/batch.h"
#include "process/remedy.h"
#include "process/worker.h"
#include "process/worker_xact.h"
#include "shmem/slots.h"
#include "turn/turn_timeout.h"
#include "turn/visit.h"

#define DJA_GIVE_WAY_MS 1
#define DJA_PUT_OFFS_TOLD 8		/* so often a mailbox is put off until it is
								 * said */

/*
 * Logs, once, that a mailbox waits for another transaction's lock.  That transaction
 * may have locked very many rows.  Then the first of them stands for all.
 */
static void
dja_tell_put_off(DjaClaim *claim)
{
	static TransactionId told = InvalidTransactionId;
	int			pid = TransactionIdIsValid(claim->locker) ? BackendXidGetPid(claim->locker) : 0;

	if (TransactionIdIsValid(claim->locker) && claim->locker == told)
		return;
	told = claim->locker;
	ereport(LOG,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 claim->asker_dropped ?
			 errmsg("mail of actor %s waits: another transaction drops the actor type that has asked it",
					claim->waiting) :
			 errmsg("mail of actor %s waits: another transaction has locked the actor's row, or a message's",
					claim->waiting),
			 pid != 0 ? errdetail("Process %d has.", pid) : 0,
			 errhint("It goes on when that transaction ends. See djactor.mailbox and pg_stat_activity.")));
}

/*
 * Gives the mailboxes back: first those that return to where they came from, the last
 * of them first, then the others.  served: turns have been committed.
 */
static void
dja_batch_give_back(DjaBatch *batch, bool served)
{
	TimestampTz now = GetCurrentTimestamp();
	int			n = batch->nclaims;

	batch->nclaims = 0;
	dja_lock();
	for (int i = 0; i < 2 * n; i++)
	{
		bool		returning = i < n;
		DjaClaim   *claim = batch->claims[returning ? n - 1 - i : i - n];

		if ((claim->end == DJA_END_RETURNED) != returning)
			continue;
		if (claim->end == DJA_END_PUT_OFF && dja_mailbox(claim->mailbox)->put_offs != DJA_PUT_OFFS_TOLD - 1)
			claim->waiting = NULL;
		dja_queue_finish(claim->mailbox, claim->end, claim->cursor, claim->freed, claim->run_alone);
		if ((i + 1) % 64 == 0)
		{
			dja_unlock();
			dja_lock();
		}
	}
	if (served)
		dja_trouble_over(&dja_shared->queue->trouble, now);
	dja_queue_leave_type_queues(batch->executed, batch->started, now);
	dja_unlock();
	for (int i = 0; i < n; i++)
		if (batch->claims[i]->end == DJA_END_PUT_OFF && batch->claims[i]->waiting != NULL)
			dja_tell_put_off(batch->claims[i]);
}

/*
 * Claims the next mailbox that fits in.  Returns NULL if there is none.
 */
static DjaClaim *
dja_batch_claim(DjaBatch *batch, int pool)
{
	int			limit;
	int			mailbox = dja_queue_pop(pool, batch->executed, batch->clock, &limit);

	Assert(batch->phase == DJA_PHASE_READING);
	batch->budget = Min(batch->budget, limit - batch->executed);
	return mailbox < 0 ? NULL : dja_batch_add(batch, mailbox);
}

/*
 * Handles mail, beginning with the given claim: one mailbox after the other and, when
 * no other waits, the mail that is left in them.
 *
 * A mailbox in which there was nothing to do is given back at once, as long as the
 * transaction has done nothing at all.  Otherwise mail that comes to it would wait for
 * the first turn, which is not broken off, however long it lasts.
 */
static void
dja_batch_work(DjaBatch *batch, DjaClaim *claim, int pool)
{
	while (claim != NULL)
	{
		bool		go_on;

		if (!claim->was_read)
			dja_claim_read(batch, claim);
		go_on = dja_batch_visit(batch, claim);
		if (batch->executed == 0 && !TransactionIdIsValid(GetTopTransactionIdIfAny()))
		{
			dja_batch_give_back(batch, false);
			batch->budget = dja_batch_size;
		}
		if (!go_on || batch->budget <= 0 || batch->clock >= batch->deadline)
			return;
		CHECK_FOR_INTERRUPTS();
		claim = dja_batch_claim(batch, pool);
		if (claim == NULL && batch->budget > 0)
			claim = dja_batch_revisit(batch);
	}
}

/*
 * Makes one transaction over the mailbox that is claimed, and others.  Returns how it
 * ended; each claim knows how it ends.
 */
static DjaOutcome
dja_batch_attempt(DjaBatch *batch, int pool)
{
	volatile DjaOutcome outcome = DJA_COMMITTED;

	dja_turn_timeout_arm();
	PG_TRY();
	{
		dja_transaction_start(batch);
		dja_batch_work(batch, batch->claims[0], pool);
		dja_transaction_commit(batch);
	}
	PG_CATCH();
	{
		DjaError   *error = dja_recover(batch->context);

		outcome = dja_batch_failed(batch, error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(batch->context);
	return outcome;
}

/*
 * Notes for the pace of its types how the batch has gone.
 */
static void
dja_batch_note(DjaBatch *batch, DjaOutcome outcome)
{
	for (int i = 0; i < batch->nclaims; i++)
	{
		DjaClaim   *claim = batch->claims[i];
		DjaPaceEvent event = DJA_PACE_NOTHING;

		if (batch->waited_for)
			event = batch->executed > 1 ? DJA_PACE_CONFLICT : DJA_PACE_NOTHING;
		else if (claim->long_turn)
			event = DJA_PACE_LONG_TURN;
		else if (outcome == DJA_COMMITTED && claim->turns > 0)
			event = DJA_PACE_QUIET;
		dja_queue_note(claim->type_queue, event);
	}
}

/*
 * Gives the mailboxes back after the transaction.
 */
static void
dja_batch_release(DjaBatch *batch, DjaOutcome outcome)
{
	Assert(!IsTransactionState());
	Assert(outcome != DJA_COMMITTED || batch->phase == DJA_PHASE_COMMITTED);
	dja_batch_note(batch, outcome);
	dja_batch_give_back(batch, outcome == DJA_COMMITTED && batch->turns > 0);
}

/*
 * Pauses for a moment, since a process has waited for one of the batch's locks.  It
 * has to be scheduled before it can take the lock, and the next batch may need the
 * same one.
 */
static void
dja_give_way(void)
{
	static uint32 wait_event = 0;

	(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, DJA_GIVE_WAY_MS,
					 DJA_WAIT_EVENT(wait_event, "DjactorGiveWay"));
	dja_check_interrupts();
}

/*
 * Runs one batch: claims mailboxes of the pool and handles their mail.  Needs a
 * worker of that pool, outside a transaction.
 */
DjaBatchResult
dja_batch_run(int pool)
{
	DjaBatch   *batch = dja_batch_create(true, DJA_MODE_FAST);
	DjaOutcome	outcome = DJA_COMMITTED;
	bool		any;
	bool		waited_for;

	dja_assert_worker();
	Assert(!IsTransactionState());
	batch->started = batch->clock = GetCurrentTimestamp();
	batch->deadline = TimestampTzPlusMilliseconds(batch->started, dja_batch_time);
	batch->budget = dja_batch_size;
	any = dja_batch_claim(batch, pool) != NULL;
	if (any)
	{
		outcome = dja_batch_attempt(batch, pool);
		dja_batch_release(batch, outcome);
		dja_turn_timeout_rest();
		dja_my_worker->long_turn = false;
	}
	waited_for = batch->waited_for;
	MemoryContextSwitchTo(TopMemoryContext);
	dja_batch_free(batch);
	if (waited_for)
		dja_give_way();
	return !any ? DJA_BATCH_EMPTY : outcome == DJA_STALLED ? DJA_BATCH_STALLED : DJA_BATCH_DONE;
}
