/*
 * crash_record.c
 *
 * Acts on the verdicts of crash.c.  Before a worker claims mail it writes the
 * crashes that its pool's messages are charged with into their rows.  Until then
 * nothing is claimed from the type queue (claims.c), so that no message runs before
 * its crash is counted.
 *
 * Each entry takes a transaction of its own.  Its file is removed just before the
 * commit: if the server crashes in between, the charge is forgotten rather than
 * counted twice.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "process/crash_record.h"
#include "process/worker_xact.h"
#include "shmem/crash.h"
#include "shmem/hosts.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "tables/message.h"
#include "tables/rows.h"
#include "turn/dead_letter.h"

#define DJA_REVIEW_MS 60000

/* An entry that this worker has claimed. */
typedef struct DjaCharge
{
	int			entry;
	DjaCrash	crash;
	bool		settled;
} DjaCharge;

/*
 * Gives up a message that has crashed too often.
 */
static void
dja_crash_record_give_up(DjaType *type, DjaMessage *message, int crashes)
{
	DjaFailure	failure = {"crashed", ERRCODE_CRASH_SHUTDOWN, NULL, NULL};

	failure.error = psprintf("the process that ran its handler died %d %s",
							 crashes, crashes == 1 ? "time" : "times");
	dja_give_up(type, message, &failure);
}

static void
dja_crash_record_message(DjaType *type, DjaMessage *message)
{
	DjaWriter  *messages = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	int			crashes = DatumGetInt16(message->values[DJA_MSG_CRASHES - 1]) + 1;
	bool		over = crashes >= dja_max_crashes;

	message->values[DJA_MSG_CRASHES - 1] = Int16GetDatum(crashes);
	if (over)
		dja_crash_record_give_up(type, message, crashes);
	else
		dja_row_update(messages, &message->tid, message->values, message->nulls);
	dja_writer_close(messages);
	ereport(LOG,
			(errcode(ERRCODE_CRASH_SHUTDOWN),
			 errmsg("actor %s \"%s\", message " INT64_FORMAT " crashed the process that ran its handler (%d of %d)",
					type->name, text_to_cstring(message->key), message->id, crashes, dja_max_crashes),
			 over ? errhint("The message is in djactor.dead_letter.") :
			 errhint("It is run again, in a transaction of its own.")));
}

static void
dja_crash_record_step(void *arg)
{
	DjaCharge  *charge = arg;
	DjaMessage *message = dja_message_by_id(charge->crash.message_id, GetActiveSnapshot());
	DjaType    *type = dja_type_by_hash(charge->crash.type_hash);
	bool		exists;

	exists = type != NULL && message != NULL &&
		dja_type_is_named(type, DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1]));

	if (exists && charge->crash.verdict == DJA_CHARGED)
		dja_crash_record_message(type, message);

	/* a suspect whose row exists has yet to run */
	charge->settled = !exists || charge->crash.verdict == DJA_CHARGED;
	if (charge->settled)
		dja_crash_remove_file(charge->entry);
}

/*
 * Claims an entry of this pool that has something to be done and that no other
 * worker has claimed.
 */
static bool
dja_crash_record_claim(int i, int pool, int slot, bool review, DjaCharge *charge)
{
	DjaCrash   *crash = dja_crash(i);
	int			type_queue;
	bool		mine;

	dja_assert_worker();
	Assert(dja_my_worker == dja_worker(slot) && dja_my_worker->pool == pool);
	dja_lock();
	mine = (crash->verdict == DJA_CHARGED || (review && crash->verdict == DJA_SUSPECT)) &&
		crash->database == MyDatabaseId && crash->writer < 0;
	if (mine)
	{
		type_queue = dja_type_queue_find(MyDatabaseId, crash->type_hash);
		mine = type_queue >= 0 && dja_type_queue(type_queue)->pool == pool;
	}
	if (mine)
	{
		crash->writer = slot;
		charge->entry = i;
		charge->crash = *crash;
		charge->settled = false;
	}
	dja_unlock();
	return mine;
}

/*
 * Frees an entry that was written down: its type's mail goes on.
 */
static void
dja_crash_record_done(int i)
{
	int			type_queue = dja_type_queue_find(MyDatabaseId, dja_crash(i)->type_hash);

	dja_crash_free(i);
	if (type_queue >= 0)
		dja_hosts_may_take_again(type_queue);
}

/*
 * Writes down all entries of a pool, outside a transaction.  A failure is logged,
 * and the next call tries again.  Suspects are looked at now and then.
 */
void
dja_record_crashes(int pool, int slot)
{
	static TimestampTz review_at = 0;
	DjaCrashes *crashes = dja_shared->crashes;
	bool		review = false;
	bool		ok = true;

	Assert(!IsTransactionState());
	if (crashes->charges == 0 && crashes->suspects == 0)
		return;
	if (crashes->suspects > 0 && GetCurrentTimestamp() >= review_at)
	{
		review = true;
		review_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DJA_REVIEW_MS);
	}
	for (int i = 0; i < dja_crash_room() && ok; i++)
	{
		DjaCharge	charge;

		if (!dja_crash_record_claim(i, pool, slot, review, &charge))
			continue;
		ok = dja_in_transaction(dja_crash_record_step, &charge);
		dja_lock();
		if (dja_crash(i)->verdict != DJA_NO_VERDICT && dja_crash(i)->writer == slot)
		{
			if (ok && charge.settled)
				dja_crash_record_done(i);
			else
				dja_crash(i)->writer = DJA_NO_SLOT;
		}
		dja_unlock();
	}
}
