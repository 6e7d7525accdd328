/*
 * watch.c
 *
 * Watching: a message of kind down tells each watcher once that an actor has
 * stopped, or at once that there is none.  Such a message also comes each time that
 * a message of the actor was given up or the actor was suspended; then the watch
 * goes on.
 *
 * The race to avoid is write skew: the watcher sees an actor that is just being
 * stopped, and the session that stops it does not see the watcher.  So watch()
 * locks the actor's row in key share mode, which does not disturb its turns, and
 * stopping an actor looks for watchers after deleting that row, under a new
 * snapshot.  A turn does not wait for that lock: it fails and is run again.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/json.h"
#include "tables/place.h"
#include "turn/row_lock.h"
#include "turn/system_message.h"
#include "turn/turn.h"
#include "turn/watch.h"

PG_FUNCTION_INFO_V1(dja_watch);
PG_FUNCTION_INFO_V1(dja_unwatch);

/*
 * Sends one notice.
 */
static void
dja_tell_down(text *watcher_type, text *watcher_key, text *actor_type, text *actor_key,
			  const char *reason)
{
	DjaPair		pairs[] = {
		DJA_PAIR_STRING("actor_type", text_to_cstring(actor_type)),
		DJA_PAIR_STRING("actor_key", text_to_cstring(actor_key)),
		DJA_PAIR_STRING("reason", reason),
	};
	DjaSystemMessage post = {
		.kind = "down",
		.actor_type = watcher_type,
		.actor_key = watcher_key,
		.payload = dja_json_object(NULL, 0),
		.meta = dja_json_object(pairs, lengthof(pairs)),
		.sender_type = actor_type,
		.sender_key = actor_key,
	};

	(void) dja_send_system_message(&post);
}

/*
 * Tells all watchers of an actor.  If over, their watches end.
 */
void
dja_watchers_tell(DjaType *type, text *key, const char *reason, bool over)
{
	text	   *name = cstring_to_text_with_len(type->name, type->name_len);
	Datum		keys[2] = {PointerGetDatum(name), PointerGetDatum(key)};
	DjaWriter  *writer = dja_writer_get(DJA_WATCH_TABLE);
	DjaFind		find;

	dja_find_begin(&find, DJA_WATCH_TABLE, DJA_WATCH_ACTOR_INDEX, 2, keys, NULL);
	while (dja_find_next(&find))
	{
		Datum	   *values = find.slot->tts_values;

		if (over)
		{
			TM_Result	result = dja_row_try_delete(writer, &find.slot->tts_tid);

			if (result == TM_Deleted)
				continue;		/* unwatched meanwhile */
			if (result != TM_Ok)
				dja_row_trouble(result);
		}
		dja_tell_down(DatumGetTextPP(values[DJA_WATCH_WATCHER_TYPE - 1]),
					  DatumGetTextPP(values[DJA_WATCH_WATCHER_KEY - 1]), name, key, reason);
	}
	dja_find_end(&find);
	dja_writer_put(writer);
}

/*
 * Ends the watches of an actor that stops.
 */
void
dja_watches_drop(DjaType *type, text *key)
{
	Datum		keys[2] = {CStringGetTextDatum(type->name), PointerGetDatum(key)};
	DjaWriter  *writer = dja_writer_get(DJA_WATCH_TABLE);
	DjaFind		find;

	dja_find_begin(&find, DJA_WATCH_TABLE, DJA_WATCH_PKEY, 2, keys, NULL);
	while (dja_find_next(&find))
	{
		TM_Result	result = dja_row_try_delete(writer, &find.slot->tts_tid);

		/* the watched actor may be stopping, too, and has told us then */
		if (result != TM_Ok && result != TM_Deleted && result != TM_SelfModified)
			dja_row_trouble(result);
	}
	dja_find_end(&find);
	dja_writer_put(writer);
}

/*
 * Tells the watchers of all actors of a type that is dropped.
 */
void
dja_watchers_tell_dropped(DjaType *type)
{
	DjaWriter  *writer = dja_writer_get(DJA_WATCH_TABLE);
	DjaFind		find;

	dja_find_begin(&find, DJA_WATCH_TABLE, DJA_NO_INDEX, 0, NULL, NULL);
	while (dja_find_next(&find))
	{
		Datum	   *values = find.slot->tts_values;
		bool		watches = dja_type_is_named(type, DatumGetTextPP(values[DJA_WATCH_WATCHER_TYPE - 1]));
		bool		is_watched = dja_type_is_named(type, DatumGetTextPP(values[DJA_WATCH_TYPE - 1]));

		if (watches || is_watched)
			dja_row_delete(writer, &find.slot->tts_tid);
		if (is_watched && !watches)
			dja_tell_down(DatumGetTextPP(values[DJA_WATCH_WATCHER_TYPE - 1]),
						  DatumGetTextPP(values[DJA_WATCH_WATCHER_KEY - 1]),
						  DatumGetTextPP(values[DJA_WATCH_TYPE - 1]),
						  DatumGetTextPP(values[DJA_WATCH_KEY - 1]), "dropped");
	}
	dja_find_end(&find);
	dja_writer_put(writer);
}

/* ---------- in a turn ---------- */

/*
 * Is there such an actor, and will it still be there when we commit?
 */
static bool
dja_actor_stays(DjaType *type, text *key)
{
	DjaActor   *actor = dja_batch_actor(type, key);

	if (actor == NULL)
		return dja_actor_locked(type, key, dja_hash_text(key), LockTupleKeyShare)->exists;
	/* the batch writes its row then, and finds out if somebody stops it */
	actor->dirty |= actor->exists;
	return actor->dirty;
}

static void
dja_watch_keys(FunctionCallInfo fcinfo, Datum *keys)
{
	keys[DJA_WATCH_WATCHER_TYPE - 1] = CStringGetTextDatum(dja_turn.actor->type->name);
	keys[DJA_WATCH_WATCHER_KEY - 1] = PointerGetDatum(dja_turn.actor->key);
	keys[DJA_WATCH_TYPE - 1] = PG_GETARG_DATUM(0);
	keys[DJA_WATCH_KEY - 1] = PG_GETARG_DATUM(1);
}

/*
 * Raises 42501 unless the role may read djactor.actor, or may act for the type's
 * owner: others must not learn whether an actor exists.
 */
static void
dja_check_may_watch(DjaType *type)
{
	if (!dja_can_act_for(type->owner) &&
		!dja_table_right(DJA_ACTOR_TABLE, ACL_SELECT))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to watch actors of type \"%s\"", type->name),
				 errhint("Grant SELECT on djactor.actor to who watches.")));
}

/*
 * watch(type, key)
 */
Datum
dja_watch(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);
	text	   *key = PG_GETARG_TEXT_PP(1);
	Datum		values[DJA_WATCH_NATTS];
	bool		nulls[DJA_WATCH_NATTS] = {0};
	DjaType    *type;
	DjaFind		find;
	bool		found;

	dja_require_turn("watch()");
	type = dja_require_type(name);
	if (type == dja_turn.actor->type && dja_text_equal(key, dja_turn.actor->key))
		PG_RETURN_VOID();		/* an actor is not told of itself */
	dja_check_may_watch(type);
	dja_require_here(key);
	if (!dja_actor_stays(type, key))
	{
		dja_tell_down(cstring_to_text(dja_turn.actor->type->name), dja_turn.actor->key, name, key,
					  "absent");
		PG_RETURN_VOID();
	}
	dja_watch_keys(fcinfo, values);
	dja_find_begin(&find, DJA_WATCH_TABLE, DJA_WATCH_PKEY, DJA_WATCH_NATTS, values, NULL);
	found = dja_find_next(&find);
	dja_find_end(&find);
	if (!found)
		dja_table_insert(DJA_WATCH_TABLE, values, nulls);
	PG_RETURN_VOID();
}

/*
 * unwatch(type, key)
 */
Datum
dja_unwatch(PG_FUNCTION_ARGS)
{
	Datum		keys[DJA_WATCH_NATTS];
	DjaFind		find;

	dja_require_turn("unwatch()");
	dja_watch_keys(fcinfo, keys);
	dja_find_begin(&find, DJA_WATCH_TABLE, DJA_WATCH_PKEY, DJA_WATCH_NATTS, keys, NULL);
	if (dja_find_next(&find))
	{
		TM_Result	result = dja_table_try_delete(DJA_WATCH_TABLE, &find.slot->tts_tid);

		if (result != TM_Ok && result != TM_Deleted)
			dja_row_trouble(result);
	}
	dja_find_end(&find);
	PG_RETURN_VOID();
}
