/*
 * stop.c
 *
 * Stopping actors (contract 23).  The row is deleted, with state, timers, watches
 * and open asks; its watchers are told.  Mail that waits goes to a fresh actor,
 * stashed messages first, or to djactor.dead_letter.
 *
 * This happens at the end of the turn that asked for it, within its savepoint.
 * Then the actor in memory becomes a fresh one (turn_effects.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "tables/place.h"
#include "turn/dead_letter.h"
#include "turn/reply.h"
#include "turn/row_lock.h"
#include "turn/stop.h"
#include "turn/timer.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "turn/watch.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_stop);
PG_FUNCTION_INFO_V1(dja_stop_actor);

/*
 * Deletes the rows of an actor.
 */
static void
dja_actor_delete(DjaActor *actor)
{
	Datum		keys[2] = {CStringGetTextDatum(actor->type->name), PointerGetDatum(actor->key)};
	DjaWriter  *actors = dja_writer_get(DJA_ACTOR_TABLE);
	DjaWriter  *identities = dja_writer_get(DJA_IDENTITY_TABLE);
	DjaFind		find;

	dja_row_delete(actors, &actor->tid);
	dja_find_begin(&find, DJA_IDENTITY_TABLE, DJA_IDENTITY_PKEY, 2, keys, NULL);
	if (dja_find_next(&find))
		dja_row_delete(identities, &find.slot->tts_tid);
	dja_find_end(&find);
	dja_writer_put(identities);
	dja_writer_put(actors);
}

/*
 * Has the batch handled this message, though its row is still there?
 */
static bool
dja_is_handled(DjaClaim *claim, int64 id)
{
	for (int i = 0; claim != NULL && i < claim->nmessages; i++)
		if (claim->messages[i]->id == id)
			return claim->messages[i]->state == DJA_MESSAGE_HANDLED;
	return false;
}

static void
dja_stop_message(DjaClaim *claim, DjaActor *actor, DjaMessage *message, bool discard)
{
	DjaWriter  *writer = dja_writer_get(DJA_MESSAGE_TABLE);
	DjaFailure	failure = {"stopped", 0, "the actor was stopped", NULL};

	if (dja_message_is_aside(message, "deferred"))
	{
		dja_row_delete(writer, &message->tid);
		CommandCounterIncrement();
		dja_end_deferred(message, "stopped", "the actor was stopped before it replied");
	}
	else if (dja_message_is_aside(message, "stashed") && !discard)
	{
		dja_message_set_aside(writer, message, NULL, DT_NOEND);
		dja_pending_mailbox(actor->type, actor->key_hash, message->position, 0);
	}
	else if (discard && (message->nulls[DJA_MSG_ASIDE - 1] || dja_message_is_aside(message, "stashed")) &&
			 !dja_is_handled(claim, message->id))
		dja_give_up(actor->type, message, &failure);
	dja_writer_put(writer);
}

/*
 * Gives up, or puts back, all messages of a scan that are this actor's.  The message
 * of the present turn is left out, unless it was put aside.
 */
static void
dja_stop_messages(DjaScan *scan, DjaClaim *claim, DjaActor *actor, DjaMessage *current, bool discard)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor stop",
												  ALLOCSET_DEFAULT_SIZES);

	while (dja_scan_next(scan))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		DjaMessage *message = dja_scan_message(scan);

		if (dja_text_equal(message->key, actor->key) &&
			dja_type_is_named(actor->type, DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1])) &&
			!(current != NULL && message->id == current->id && current->state == DJA_MESSAGE_HANDLED))
			dja_stop_message(claim, actor, message, discard);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}

/*
 * Ends an actor.  claim is its mailbox in the batch, or NULL; current is the message
 * that is being handled in the actor's own turn, or NULL.
 */
void
dja_actor_end(DjaClaim *claim, DjaActor *actor, DjaMessage *current, bool discard)
{
	DjaType    *type = actor->type;
	DjaScan		scan;

	/* the row comes first: its lock keeps new watchers away; see watch.c */
	if (actor->exists)
		dja_actor_delete(actor);
	dja_watchers_tell(type, actor->key, "stopped", true);
	dja_watches_drop(type, actor->key);
	dja_timers_drop(type, actor->key);

	dja_aside_scan_begin(&scan, type->hash, actor->key_hash);
	dja_stop_messages(&scan, claim, actor, current, discard);
	dja_scan_end(&scan);
	if (discard)
	{
		/* later, so that what becomes due meanwhile is not missed */
		dja_message_scan_begin(&scan, NULL);
		dja_message_scan_start(&scan, type->hash, actor->key_hash, PG_INT64_MIN);
		dja_stop_messages(&scan, claim, actor, current, true);
		dja_scan_end(&scan);
	}
}

/*
 * stop(discard): stops the running actor at the end of its turn.
 */
Datum
dja_stop(PG_FUNCTION_ARGS)
{
	dja_require_turn("stop()");
	dja_effect_request(!PG_ARGISNULL(0) && PG_GETARG_BOOL(0) ? DJA_EFFECT_DISCARD : DJA_EFFECT_STOP,
					   dja_turn.actor, NULL);
	PG_RETURN_VOID();
}

/*
 * stop_actor(type, key): returns whether there was one.
 */
Datum
dja_stop_actor(PG_FUNCTION_ARGS)
{
	text	   *key = PG_GETARG_TEXT_PP(1);
	DjaType    *type;
	DjaActor   *actor;
	DjaClaim   *mailbox;

	PreventCommandIfReadOnly("djactor.stop_actor()");
	type = dja_require_type(PG_GETARG_TEXT_PP(0));
	dja_check_can_act_for(type->owner);
	dja_require_here(key);
	actor = dja_batch_actor(type, key);
	if (actor != NULL)
	{
		if (!actor->exists && !actor->dirty && actor != dja_turn.actor)
			PG_RETURN_BOOL(false);
		dja_effect_request(DJA_EFFECT_STOP, actor, NULL);
		PG_RETURN_BOOL(true);
	}
	actor = dja_actor_locked(type, key, dja_hash_text(key), LockTupleExclusive);
	if (!actor->exists)
		PG_RETURN_BOOL(false);
	dja_actor_end(NULL, actor, NULL, false);
	mailbox = dja_batch_mailbox(type, actor->key_hash);
	if (mailbox != NULL)
		dja_effect_request(DJA_EFFECT_REREAD, NULL, NULL)->claim = mailbox;
	dja_pending_mailbox(type, actor->key_hash, PG_INT64_MIN, 0);
	PG_RETURN_BOOL(true);
}
