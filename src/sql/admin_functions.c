/*
 * admin_functions.c
 *
 * What an operator calls: pause(), resume(), reload(), and the list of
 * workers.
 *
 * Who may: for a type, and its actors, whoever may act for the type's owner.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/columns.h"
#include "base/compat.h"
#include "base/guc.h"
#include "process/batch.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "tables/actor.h"
#include "tables/actor_type.h"
#include "tables/message.h"
#include "turn/row_lock.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "turn/visit.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_pause_type);
PG_FUNCTION_INFO_V1(dja_resume_type);
PG_FUNCTION_INFO_V1(dja_pause_actor);
PG_FUNCTION_INFO_V1(dja_resume_actor);
PG_FUNCTION_INFO_V1(dja_worker_list);
PG_FUNCTION_INFO_V1(dja_put_off_list);
PG_FUNCTION_INFO_V1(dja_reload);

/* ---------- types ---------- */

static void
dja_set_paused(text *name, bool paused)
{
	DjaType    *type;
	DjaWriter  *writer;
	Datum		values[DJA_TYPE_NATTS];
	bool		nulls[DJA_TYPE_NATTS];

	PreventCommandIfReadOnly(paused ? "djactor.pause()" : "djactor.resume()");
	type = dja_require_type(name);
	dja_check_can_act_for(type->owner);
	writer = dja_writer_open(DJA_ACTOR_TYPE_TABLE, ShareRowExclusiveLock);
	(void) dja_types_all();		/* as of now, under the lock */
	type = dja_require_type(name);
	dja_check_can_act_for(type->owner); /* it may be another one's by now */
	dja_type_read_row(type, values, nulls);
	values[DJA_TYPE_PAUSED - 1] = BoolGetDatum(paused);
	nulls[DJA_TYPE_PAUSED_REASON - 1] = !paused;
	if (paused)
		values[DJA_TYPE_PAUSED_REASON - 1] =
			CStringGetTextDatum(psprintf("paused by %s", GetUserNameFromId(GetUserId(), false)));
	dja_row_update(writer, &type->tid, values, nulls);
	dja_writer_close(writer);
	dja_type_changed();
	dja_pending_type(type->hash, type->owner);
	CommandCounterIncrement();
}

Datum
dja_pause_type(PG_FUNCTION_ARGS)
{
	dja_set_paused(PG_GETARG_TEXT_PP(0), true);
	PG_RETURN_VOID();
}

Datum
dja_resume_type(PG_FUNCTION_ARGS)
{
	dja_set_paused(PG_GETARG_TEXT_PP(0), false);
	PG_RETURN_VOID();
}

/* ---------- actors ---------- */

/*
 * The message that is being handled, or one that the batch has handled, whose
 * row is still there?
 */
static bool
dja_is_done(DjaMessage *message)
{
	DjaMessage *mate = dja_batch_message(message->id);

	return mate != NULL && (mate == dja_turn.message || mate->state == DJA_MESSAGE_HANDLED);
}

/*
 * The message of a mailbox that has failed and holds what sorts after it.  What
 * has come before it meanwhile is of higher priority, and the first of each
 * priority tells.
 */
static DjaMessage *
dja_find_failed(Snapshot snapshot, uint64 type_hash, uint64 key_hash)
{
	DjaMessage *message = NULL;
	DjaScan		scan;

	dja_message_scan_begin(&scan, snapshot);
	dja_message_scan_start(&scan, type_hash, key_hash, DJA_CURSOR_START);
	while (dja_scan_next(&scan))
	{
		DjaMessage *next = dja_scan_message(&scan);

		if (dja_is_done(next))
			continue;
		if (next->attempts > 0 || !TIMESTAMP_IS_NOBEGIN(next->retry_at))
		{
			message = next;
			break;
		}
		dja_message_scan_start(&scan, type_hash, key_hash, dja_position_below(next->position));
	}
	dja_scan_end(&scan);
	return message;
}

/*
 * The same, its row locked; NULL when there is none.
 */
static DjaMessage *
dja_failed_head(DjaWriter *writer, uint64 type_hash, uint64 key_hash)
{
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	DjaMessage *message;
	bool		done;

	do
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		message = dja_find_failed(snapshot, type_hash, key_hash);
		done = message == NULL || dja_lock_row(writer->rel, &message->tid, snapshot, slot,
											   LockTupleNoKeyExclusive);
		UnregisterSnapshot(snapshot);
	} while (!done);
	ExecDropSingleTupleTableSlot(slot);
	return message;
}

/*
 * The first message of an actor is due now, as if it had never failed.  False
 * if none has failed.
 */
static bool
dja_reset_attempts(DjaType *type, uint64 key_hash)
{
	DjaWriter  *writer = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	DjaMessage *message = dja_failed_head(writer, type->hash, key_hash);

	if (message != NULL)
	{
		message->attempts = message->put_offs = 0;
		dja_message_retry(writer, message, DT_NOBEGIN,
						  message->nulls[DJA_MSG_LAST_ERROR - 1] ? NULL :
						  TextDatumGetCString(message->values[DJA_MSG_LAST_ERROR - 1]), false);
	}
	dja_writer_close(writer);
	return message != NULL;
}

static void
dja_set_actor_paused(text *name, text *key, bool paused)
{
	DjaType    *type;
	uint64		key_hash = dja_hash_text(key);
	DjaActor   *actor;
	bool		in_batch;
	bool		exists;

	PreventCommandIfReadOnly(paused ? "djactor.pause()" : "djactor.resume()");
	type = dja_require_type(name);
	dja_check_can_act_for(type->owner);
	actor = dja_batch_actor(type, key);
	in_batch = actor != NULL;
	if (!in_batch)
		actor = dja_actor_locked(type, key, key_hash, LockTupleNoKeyExclusive);
	exists = actor->exists || actor->dirty || actor == dja_turn.actor;

	/* one that never had a turn may have mail that waits for its retry */
	if (!paused && (dja_reset_attempts(type, key_hash) || exists))
		dja_pending_mailbox(type, key_hash, DJA_CURSOR_START, 0);
	else if (!exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("actor %s \"%s\" does not exist", type->name, text_to_cstring(key)),
				 paused ?
				 errhint("An actor exists from its first committed turn; djactor.pause(type) pauses all of a kind.") :
				 errhint("An actor exists from its first committed turn, and no message to this one waits for its retry.")));

	if (!exists)
		return;
	if (in_batch)
		dja_effect_request(paused ? DJA_EFFECT_PAUSE : DJA_EFFECT_RESUME, actor, NULL);
	else
	{
		DjaWriter  *actors = dja_writer_open(DJA_ACTOR_TABLE, RowExclusiveLock);

		actor->paused = paused;
		actor->suspended &= paused;
		dja_actor_write(actor, actors, NULL);
		dja_writer_close(actors);
		CommandCounterIncrement();
	}
}

Datum
dja_pause_actor(PG_FUNCTION_ARGS)
{
	dja_set_actor_paused(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1), true);
	PG_RETURN_VOID();
}

Datum
dja_resume_actor(PG_FUNCTION_ARGS)
{
	dja_set_actor_paused(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1), false);
	PG_RETURN_VOID();
}

/* ---------- looking at workers ---------- */

Datum
dja_worker_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	dja_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < dja_max_workers; i++)
	{
		Datum		values[7] = {0};
		bool		nulls[7] = {0};
		DjaWorker	worker;
		DjaPool		pool;

		dja_lock();
		worker = *dja_worker(i);
		pool = *dja_pool(worker.pool);
		dja_unlock();
		if (worker.state == DJA_WORKER_FREE || pool.database != MyDatabaseId)
			continue;

		values[0] = Int32GetDatum(worker.pid);
		nulls[0] = worker.pid == 0;
		values[1] = ObjectIdGetDatum(pool.role);
		values[2] = CStringGetTextDatum(worker.state == DJA_WORKER_STARTING ? "starting" :
										worker.state == DJA_WORKER_BUSY ? "busy" : "idle");
		values[3] = BoolGetDatum(pool.resident == i);
		nulls[4] = nulls[5] = worker.message_id == 0;
		if (worker.message_id != 0)
			values[4] = CStringGetTextDatum(worker.actor_type);
		values[5] = Int64GetDatum(worker.message_id);
		values[6] = TimestampTzGetDatum(worker.since);
		nulls[6] = worker.since == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * Mailboxes that are put off, type queue by type queue: which cannot be many, but nothing
 * is allocated under the lock.
 */
Datum
dja_put_off_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DjaMailbox *found = NULL;
	int			room = 0;

	InitMaterializedSRF(fcinfo, 0);
	/* without the preload there is no such thing, and the view still counts */
	for (int i = 0; dja_shared != NULL && i < DJA_MAX_TYPE_QUEUES; i++)
	{
		uint64		type_hash;
		int			n;

		CHECK_FOR_INTERRUPTS();
		/* a glance without the lock: nearly all have none */
		if (!dja_type_queue(i)->in_use || dja_type_queue(i)->put_off < 0)
			continue;
		for (;;)
		{
			dja_lock();
			n = dja_type_queue_put_off(i, MyDatabaseId, &type_hash, found, room);
			dja_unlock();
			if (n <= room)
				break;
			room = 2 * n;
			found = palloc(sizeof(DjaMailbox) * room);
		}
		for (int m = 0; m < n; m++)
		{
			Datum		values[4];
			bool		nulls[4] = {0};

			values[0] = Int64GetDatum((int64) type_hash);
			values[1] = Int64GetDatum((int64) found[m].key_hash);
			values[2] = Int32GetDatum(found[m].put_offs);
			values[3] = TimestampTzGetDatum(found[m].not_before);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}

/* ---------- fresh sessions ---------- */

/*
 * reload(): asks the workers of this database to end after their batch, as far
 * as the caller may act for their roles, and returns how many there are.  The
 * launcher hears of each end and starts a resident anew.  A worker that is
 * still starting is fresh already.
 *
 * Rights are looked up without the lock; a slot that has changed hands
 * meanwhile is known by its generation.
 */
Datum
dja_reload(PG_FUNCTION_ARGS)
{
	int			stopped = 0;

	dja_require_preload();
	for (int i = 0; i < dja_max_workers; i++)
	{
		DjaWorker  *worker = dja_worker(i);
		uint32		generation;
		bool		ours;
		Oid			role;

		dja_lock();
		generation = worker->generation;
		ours = worker->state != DJA_WORKER_FREE &&
			dja_pool(worker->pool)->database == MyDatabaseId;
		role = dja_pool(worker->pool)->role;
		dja_unlock();
		if (!ours || !dja_can_act_for(role))
			continue;

		dja_lock();
		if (worker->pid != 0 && worker->generation == generation && !worker->stop)
		{
			worker->stop = true;
			SetLatch(&ProcGlobal->allProcs[worker->procno].procLatch);
			stopped++;
		}
		dja_unlock();
	}
	PG_RETURN_INT32(stopped);
}
