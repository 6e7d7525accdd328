/*
 * idle.c
 *
 * The resident stops actors that have had no turn for their type's idle_ttl.
 *
 * The time of an actor's last turn is in its row.  No index has it, since each
 * turn would have to write that index.  So the resident walks over the actors of a
 * type in the order of their keys, a chunk in each transaction, with mail handled
 * in between.  Only types with idle_ttl are walked over.  A walk notes when the
 * next actor can be idle for long enough, and the next walk begins no earlier, and
 * only after a part of idle_ttl, since there is nearly always some actor whose time
 * is about to come.  Nor does it begin before twenty times the time that this one
 * has taken: however many actors there are, their walks take a twentieth of one
 * process.
 *
 * An idle actor goes on living if it has mail of any kind, a timer, or a row that
 * another transaction has locked, or if somebody has paused it.  Its row is locked
 * before its mail is looked for.  So a turn that commits before is seen, and a turn
 * that comes later finds the row gone, and runs again on a fresh actor.  Mail whose
 * sender commits after the look goes to that fresh actor, too.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "process/idle.h"
#include "process/worker_xact.h"
#include "shmem/copy_shmem.h"
#include "shmem/run_queue.h"
#include "tables/message.h"
#include "turn/stop.h"

#define DJA_IDLE_CHUNK 500		/* actors in a transaction */
#define DJA_IDLE_STOPS 50		/* ... stopped in one; below PGPROC's cache of
								 * 64 subtransactions */
#define DJA_IDLE_PARTS 8		/* of idle_ttl, one of them between two walks */
#define DJA_IDLE_SHARE 20		/* a walk takes this part of the time */
#define DJA_IDLE_MIN_USEC USECS_PER_SEC
#define DJA_IDLE_MAX_USEC USECS_PER_HOUR
#define DJA_IDLE_AGAIN_MS 10000 /* after a failure */

/* A copy of a walk's state, for work outside the lock. */
typedef struct DjaIdleWork
{
	int			type_queue;
	uint64		type_hash;
	uint64		epoch;			/* of the type queue */
	DjaIdleWalk walk;
	bool		done;			/* the walk has come to its end */
	TimestampTz next;			/* then: when the next one begins */
} DjaIdleWork;

/* An actor that has been idle for long enough. */
typedef struct DjaIdleActor
{
	text	   *key;
	ItemPointerData tid;
} DjaIdleActor;

/*
 * Has an actor anything to come, mail or a timer?  Another key with the same hash
 * counts as this one, which keeps it alive.
 */
static bool
dja_idle_has_mail(DjaType *type, text *key, uint64 key_hash)
{
	Datum		keys[2] = {CStringGetTextDatum(type->name), PointerGetDatum(key)};
	bool		found;
	DjaScan		scan;
	DjaFind		find;

	if (dja_message_count(type->hash, key_hash, PG_INT64_MIN, 1, GetCurrentCommandId(false), false) > 0)
		return true;
	dja_aside_scan_begin(&scan, type->hash, key_hash);
	found = dja_scan_next(&scan);
	dja_scan_end(&scan);
	if (found)
		return true;
	/* a paused timer has no message */
	dja_find_begin(&find, DJA_TIMER_TABLE, DJA_TIMER_PKEY, 2, keys, NULL);
	found = dja_find_next(&find);
	dja_find_end(&find);
	return found;
}

/*
 * Stops an actor, unless it has to go on living.  Returns whether it has stopped.
 */
static bool
dja_idle_try_stop(DjaType *type, DjaIdleActor *idle)
{
	DjaActor	actor = {.type = type,.key = idle->key,.exists = true,.tid = idle->tid};
	DjaWriter  *writer = dja_writer_open(DJA_ACTOR_TABLE, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	TM_Result	result = dja_row_lock(writer, &idle->tid, LockTupleExclusive, slot);

	ExecDropSingleTupleTableSlot(slot);
	dja_writer_close(writer);
	actor.key_hash = dja_hash_text(idle->key);
	if (result != TM_Ok || dja_idle_has_mail(type, idle->key, actor.key_hash))
		return false;
	dja_actor_end(NULL, &actor, NULL, false);
	return true;
}

/*
 * Likewise, in a subtransaction.  An actor for which another transaction is in the
 * way, since it locks a watcher's row, say, goes on living for now.
 */
static bool
dja_idle_stop(DjaType *type, DjaIdleActor *idle)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool stopped = false;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		stopped = dja_idle_try_stop(type, idle);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(old);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(old);
		CurrentResourceOwner = owner;
		if (edata->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			edata->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE)
			ReThrowError(edata);
		FreeErrorData(edata);
		stopped = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
	return stopped;
}

/*
 * Reads on in the actors of a type, and collects idle ones.  Returns how many.
 */
static int
dja_idle_read(DjaType *type, DjaIdleWork *work, DjaIdleActor *idle)
{
	DjaIdleWalk *walk = &work->walk;
	TimestampTz limit = GetCurrentTimestamp() - type->idle_ttl;
	int			nkeys = 1;
	int			seen = 0;
	int			n = 0;
	ScanKeyData keys[2];
	DjaFind		find;

	ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(type->name));
	if (walk->key_len > 0)
		ScanKeyEntryInitialize(&keys[nkeys++], 0, 2, BTGreaterStrategyNumber, InvalidOid, C_COLLATION_OID, F_TEXT_GT,
							   PointerGetDatum(cstring_to_text_with_len(walk->key, walk->key_len)));
	dja_find_open(&find, DJA_ACTOR_TABLE, DJA_ACTOR_KEY_INDEX, nkeys, GetActiveSnapshot());
	index_rescan(find.scan, keys, nkeys, NULL, 0);
	work->done = true;
	while (dja_find_next(&find))
	{
		Datum	   *values = find.slot->tts_values;
		TimestampTz last = DatumGetTimestampTz(values[DJA_ACTOR_UPDATED_AT - 1]);
		text	   *key = DatumGetTextPP(values[DJA_ACTOR_KEY - 1]);

		walk->key_len = (uint16) Min(VARSIZE_ANY_EXHDR(key), DJA_KEY_MAX);
		memcpy(walk->key, VARDATA_ANY(key), walk->key_len);
		if (last > limit)
			walk->oldest = Min(walk->oldest, last);
		else if (DatumGetBool(values[DJA_ACTOR_PAUSED - 1]) ||
				 strcmp(TextDatumGetCString(values[DJA_ACTOR_STATUS - 1]), "active") != 0)
			walk->kept = true;
		else
		{
			idle[n].key = (text *) PG_DETOAST_DATUM_COPY(PointerGetDatum(key));
			idle[n++].tid = find.slot->tts_tid;
		}
		if (++seen >= DJA_IDLE_CHUNK || n >= DJA_IDLE_STOPS)
		{
			work->done = false;
			break;
		}
	}
	dja_find_end(&find);
	return n;
}

static void
dja_idle_step(void *arg)
{
	DjaIdleWork *work = (DjaIdleWork *) arg;
	TimestampTz began = GetCurrentTimestamp();
	DjaType    *type;
	DjaIdleActor idle[DJA_IDLE_STOPS];
	int64		between;
	int			n;

	if (!dja_types_know(work->epoch))
		dja_types_reload();
	type = dja_type_by_hash(work->type_hash);

	/* a change of the type, and its resume(), have it looked at again */
	work->done = true;
	work->next = DJA_NEVER;
	if (type == NULL || type->idle_ttl == 0 || type->owner != GetUserId() ||
		(type->paused && dja_type_paused_now(type)))
		return;
	if (dja_copy_is_held(MyDatabaseId))
	{
		work->next = TimestampTzPlusMilliseconds(began, DJA_IDLE_AGAIN_MS);
		return;
	}
	if (work->walk.type_hash != type->hash)
	{
		work->walk.type_hash = type->hash;
		work->walk.began = began;
		work->walk.oldest = DT_NOEND;
		work->walk.usec = 0;
		work->walk.kept = false;
		work->walk.key_len = 0;
	}
	n = dja_idle_read(type, work, idle);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		work->walk.kept |= !dja_idle_stop(type, &idle[i]);
	}
	work->walk.usec += GetCurrentTimestamp() - began;

	between = Max(Min(Max(type->idle_ttl / DJA_IDLE_PARTS, DJA_IDLE_MIN_USEC), DJA_IDLE_MAX_USEC),
				  DJA_IDLE_SHARE * work->walk.usec);
	work->next = work->walk.began + between;
	if (!work->walk.kept)		/* an actor may have come meanwhile */
		work->next = Max(work->next, Min(work->walk.oldest, work->walk.began) + type->idle_ttl);
}

/*
 * Goes on with the walk over the actors of one type.  Returns false if no type of the
 * pool needs one now.
 */
bool
dja_stop_idle(int pool)
{
	DjaRunQueue *queue = dja_shared->queue;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz longest = now;
	DjaIdleWork work = {.type_queue = DJA_NO_TYPE_QUEUE};
	bool		ok;

	dja_lock();
	for (int i = queue->pool_type_queues[pool]; i >= 0; i = dja_type_queue(i)->next_in_pool)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);

		if (type_queue->blocked || type_queue->idle_due > longest)
			continue;
		longest = type_queue->idle_due;
		work.type_queue = i;
		work.type_hash = type_queue->type_hash;
		work.epoch = type_queue->epoch;
		/* a walk is finished before another one begins */
		if (type_queue->type_hash == queue->pool_idle_walks[pool].type_hash)
			break;
	}
	work.walk = queue->pool_idle_walks[pool];
	if (work.type_queue >= 0)
		dja_type_queue(work.type_queue)->idle_due = now;	/* a change comes later */
	dja_unlock();
	if (work.type_queue < 0)
		return false;

	ok = dja_in_transaction(dja_idle_step, &work);
	if (!ok)
		work.next = TimestampTzPlusMilliseconds(now, DJA_IDLE_AGAIN_MS);
	dja_lock();
	if (ok)
	{
		if (work.done)
			work.walk.type_hash = 0;
		queue->pool_idle_walks[pool] = work.walk;
	}
	if (dja_type_queue(work.type_queue)->in_use && dja_type_queue(work.type_queue)->database == MyDatabaseId &&
		dja_type_queue(work.type_queue)->type_hash == work.type_hash &&
		dja_type_queue(work.type_queue)->idle_due == now && (work.done || !ok))
		dja_type_queue(work.type_queue)->idle_due = work.next;
	dja_unlock();
	return true;
}
