/*
 * reply_notify.c
 *
 * Remembers which asks from outside this transaction has answered.  Before the
 * commit they are announced on channel djactor_reply; after it, waiting backends
 * are woken.
 *
 * Asks by actors need none of this: their answer is a message.
 */
#include "postgres.h"

#include "commands/async.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"

#include "base/grow.h"
#include "shmem/waiters.h"
#include "xact/deliver.h"
#include "xact/reply_notify.h"

#define DJA_NOTIFY_BYTES 7900	/* below NOTIFY_PAYLOAD_MAX_LENGTH, with room
								 * for one more id */

static DjaAnswer *dja_answers = NULL;
static int	dja_nanswers = 0;
static int	dja_max_answers = 0;

/*
 * Notes that an ask from outside was answered.
 */
void
dja_reply_notify_note(int64 message_id)
{
	dja_answers = dja_grow(TopMemoryContext, dja_answers, sizeof(DjaAnswer), dja_nanswers,
						   &dja_max_answers);
	dja_answers[dja_nanswers].message_id = message_id;
	dja_answers[dja_nanswers++].subid = GetCurrentSubTransactionId();
}

/*
 * Answers share the fate of the subtransaction that gave them; those of the
 * latest one are last.
 */
void
dja_reply_notify_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (dja_nanswers > 0 && dja_answers[dja_nanswers - 1].subid == subid)
			dja_nanswers--;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = dja_nanswers - 1; i >= 0 && dja_answers[i].subid == subid; i--)
			dja_answers[i].subid = parent;
}

/*
 * Announces the answered asks on channel djactor_reply, many ids in one
 * notification.  If the server has no room for that, the commit goes on without
 * it: waiting backends have a latch, and listeners look now and then.
 */
void
dja_reply_notify_announce(void)
{
	StringInfoData ids;

	if (dja_nanswers == 0 || !dja_can_notify())
		return;
	initStringInfo(&ids);
	for (int i = 0; i < dja_nanswers; i++)
	{
		appendStringInfo(&ids, "%s" INT64_FORMAT, ids.len > 0 ? "," : "", dja_answers[i].message_id);
		if (ids.len > DJA_NOTIFY_BYTES || i == dja_nanswers - 1)
		{
			Async_Notify("djactor_reply", ids.data);
			resetStringInfo(&ids);
		}
	}
	pfree(ids.data);
}

/*
 * Wakes the backends that wait for these answers.  Called after the commit, takes
 * the lock and raises nothing.
 */
void
dja_reply_notify_deliver(void)
{
	if (dja_nanswers == 0)
		return;
	dja_lock();
	dja_wake_waiters(dja_answers, dja_nanswers);
	dja_unlock();
}

/*
 * Called at the end of the transaction.
 */
void
dja_reply_notify_forget(void)
{
	dja_nanswers = 0;
}
