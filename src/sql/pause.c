/*
 * pause.c
 *
 * pause() and resume() of actor types and of actors; schedule.c has those of
 * timers, and copy_check.c has resume() of a database.  They are for roles that
 * may act for the owner of the type.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "shmem/run_queue.h"
#include "sql/type_change.h"
#include "tables/actor.h"
#include "tables/message.h"
#include "tables/place.h"
#include "turn/row_lock.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_pause_type);
PG_FUNCTION_INFO_V1(dja_resume_type);
PG_FUNCTION_INFO_V1(dja_pause_actor);
PG_FUNCTION_INFO_V1(dja_resume_actor);

/* ---------- types ---------- */

/*
 * Pauses a type or lets it go on.
 */
static void
dja_set_type_paused(text *name, bool paused)
{
	const char *function = paused ? "djactor.pause()" : "djactor.resume()";
	DjaType    *type;
	DjaWriter  *writer;
	Datum		values[DJA_TYPE_NATTS];
	bool		nulls[DJA_TYPE_NATTS];

	(void) dja_require_own_type(name, function);
	writer = dja_begin_type_change();
	type = dja_require_own_type(name, function);	/* it may be another one's
													 * by now */
	dja_type_read_row(type, values, nulls);
	values[DJA_TYPE_PAUSED - 1] = BoolGetDatum(paused);
	dja_set_text(values, nulls, DJA_TYPE_PAUSED_REASON, !paused ? NULL :
				 psprintf("paused by %s", GetUserNameFromId(GetUserId(), false)));
	dja_row_update(writer, &type->tid, values, nulls);
	dja_end_type_change(writer, type->hash, type->owner);
}

Datum
dja_pause_type(PG_FUNCTION_ARGS)
{
	dja_set_type_paused(PG_GETARG_TEXT_PP(0), true);
	PG_RETURN_VOID();
}

Datum
dja_resume_type(PG_FUNCTION_ARGS)
{
	dja_set_type_paused(PG_GETARG_TEXT_PP(0), false);
	PG_RETURN_VOID();
}

/* ---------- actors ---------- */

/*
 * Has a message been handled by the batch under way, whose row is still there?
 * The one that is being handled counts.
 */
static bool
dja_is_handled(DjaMessage *message)
{
	DjaMessage *mate = dja_batch_message(message->id);

	return mate != NULL && (mate == dja_turn.message || mate->state == DJA_MESSAGE_HANDLED);
}

/*
 * Returns the message of a mailbox that has failed, behind which the others wait;
 * NULL if there is none.  Messages that have come before it meanwhile have a
 * higher priority, so it is enough to look at the first of each priority.
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

		if (dja_is_handled(next))
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
 * Returns the same message with its row locked; NULL if there is none.
 */
static DjaMessage *
dja_lock_failed(DjaWriter *writer, uint64 type_hash, uint64 key_hash)
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
 * Makes the failed message of an actor due now, as if it had never failed.
 * Returns false if none has failed.
 */
static bool
dja_reset_attempts(DjaType *type, uint64 key_hash)
{
	DjaWriter  *writer = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	DjaMessage *message = dja_lock_failed(writer, type->hash, key_hash);

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

/*
 * Pauses an actor or lets it go on.
 */
static void
dja_set_actor_paused(text *name, text *key, bool paused)
{
	DjaType    *type;
	uint64		key_hash = dja_hash_text(key);
	DjaActor   *actor;
	bool		in_batch;
	bool		exists;

	type = dja_require_own_type(name, paused ? "djactor.pause()" : "djactor.resume()");
	dja_require_here(key);
	actor = dja_batch_actor(type, key);
	in_batch = actor != NULL;
	if (!in_batch)
		actor = dja_actor_locked(type, key, key_hash, LockTupleNoKeyExclusive);
	exists = actor->exists || actor->dirty || actor == dja_turn.actor;

	/* an actor that never had a turn may have mail that waits for its retry */
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
