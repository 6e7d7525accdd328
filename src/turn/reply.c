/*
 * reply.c
 *
 * Answers to asks, and the functions of a turn that give them.
 *
 * An ask from outside is answered with a row of djactor.reply, which is
 * announced on channel djactor_reply.  An actor's ask is answered with a message
 * in its mailbox.  An ask whose reply is deferred stays in djactor.message, set
 * aside, until its answer comes.  The transaction that deletes that row gives the
 * answer, so there cannot be two.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/json.h"
#include "shmem/slots.h"
#include "turn/coalesce.h"
#include "turn/idempotency.h"
#include "turn/reply.h"
#include "turn/system_message.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "xact/reply_notify.h"

PG_FUNCTION_INFO_V1(dja_reply);
PG_FUNCTION_INFO_V1(dja_reply_error);
PG_FUNCTION_INFO_V1(dja_defer_reply);

/*
 * Inserts a row into djactor.reply.  Either payload or error is 0.
 */
static void
dja_answer_outside(DjaMessage *ask, Datum payload, Datum error)
{
	Datum		values[DJA_REPLY_NATTS];
	bool		nulls[DJA_REPLY_NATTS] = {0};
	TimestampTz now = GetCurrentTransactionStartTimestamp();

	values[DJA_REPLY_MESSAGE_ID - 1] = Int64GetDatum(ask->id);
	dja_set_column(values, nulls, DJA_REPLY_PAYLOAD, payload, payload == 0);
	dja_set_column(values, nulls, DJA_REPLY_ERROR, error, error == 0);
	values[DJA_REPLY_CREATED_AT - 1] = TimestampTzGetDatum(now);
	/* from now on: the turn, or the batch before it, may have taken long */
	values[DJA_REPLY_EXPIRES_AT - 1] =
		TimestampTzGetDatum(GetCurrentTimestamp() + (int64) dja_reply_retention * USECS_PER_SEC);
	/* so that erase() finds it */
	values[DJA_REPLY_ACTOR_TYPE - 1] = ask->values[DJA_MSG_ACTOR_TYPE - 1];
	values[DJA_REPLY_ACTOR_KEY - 1] = ask->values[DJA_MSG_ACTOR_KEY - 1];
	nulls[DJA_REPLY_ACTOR_KEY - 1] = ask->nulls[DJA_MSG_ACTOR_KEY - 1];
	dja_table_insert(DJA_REPLY_TABLE, values, nulls);
	dja_reply_notify_note(ask->id);
}

/*
 * Sends a message to the actor that asked.
 */
static void
dja_answer_actor(DjaMessage *ask, const char *kind, Datum payload, Datum meta)
{
	DjaSystemMessage post = {
		.kind = kind,
		.actor_type = DatumGetTextPP(ask->values[DJA_MSG_SENDER_TYPE - 1]),
		.actor_key = DatumGetTextPP(ask->values[DJA_MSG_SENDER_KEY - 1]),
		.payload = payload,
		.meta = meta,
		.in_reply_to = ask->id,
		.sender_type = DatumGetTextPP(ask->values[DJA_MSG_ACTOR_TYPE - 1]),
		.sender_key = ask->key,
		.origin = ask,
	};

	(void) dja_send_system_message(&post);
}

static bool
dja_asked_by_actor(DjaMessage *ask)
{
	return !ask->nulls[DJA_MSG_SENDER_TYPE - 1];
}

/*
 * May a worker answer this message now?  Not while another transaction drops the
 * type of the actor that asked: then the message is put off.
 */
bool
dja_can_answer(DjaMessage *ask)
{
	return !ask->asks || !dja_asked_by_actor(ask) ||
		dja_type_try_lock(dja_hash_text(DatumGetTextPP(ask->values[DJA_MSG_SENDER_TYPE - 1])));
}

/*
 * Answers an ask with a reply, and with it those that were merged into messages of its
 * coalesce key.
 */
void
dja_answer(DjaMessage *ask, Datum payload)
{
	ListCell   *lc;

	foreach(lc, dja_coalesced_take(ask, false))
		dja_answer(lfirst(lc), payload);
	if (!ask->asks)
		return;
	if (dja_asked_by_actor(ask))
		dja_answer_actor(ask, "reply", payload, 0);
	else
		dja_answer_outside(ask, payload, 0);
}

/*
 * Answers an ask with an error.  meta is the column meta of the message to an actor.
 */
static void
dja_answer_with_error(DjaMessage *ask, Datum error, Datum meta)
{
	if (!ask->asks)
		return;
	if (dja_asked_by_actor(ask))
		dja_answer_actor(ask, "error", error, meta);
	else
		dja_answer_outside(ask, 0, error);
}

static Datum
dja_failure_json(const char *reason, int sqlerrcode, const char *error, Jsonb *json)
{
	DjaPair		pairs[] = {
		DJA_PAIR_STRING("reason", reason),
		DJA_PAIR_STRING("sqlstate", sqlerrcode ? pstrdup(unpack_sql_state(sqlerrcode)) : NULL),
		{"error", error, json, 0, false},
	};

	return dja_json_object(pairs, lengthof(pairs));
}

/*
 * Answers an ask with an error of djactor's: {reason, sqlstate, error}.
 */
void
dja_answer_failure(DjaMessage *ask, const char *reason, int sqlerrcode, const char *error)
{
	Datum		failure;
	ListCell   *lc;

	foreach(lc, dja_coalesced_take(ask, true))
		dja_answer_failure(lfirst(lc), reason, sqlerrcode, error);
	if (!ask->asks)
		return;
	failure = dja_failure_json(reason, sqlerrcode, error, NULL);
	dja_answer_with_error(ask, failure, failure);
}

/*
 * Answers an ask that has expired.  The answer tells how many attempts there were
 * and why the last one failed, since no row does from now on.
 */
void
dja_answer_expired(DjaMessage *ask, const char *error)
{
	DjaPair		pairs[] = {
		DJA_PAIR_STRING("reason", "expired"),
		DJA_PAIR_STRING("sqlstate", NULL),
		DJA_PAIR_STRING("error", error),
		DJA_PAIR_NUMBER("attempts", ask->attempts),
		DJA_PAIR_STRING("last_error", NULL),
	};
	Datum		failure;
	ListCell   *lc;

	foreach(lc, dja_coalesced_take(ask, true))
		dja_answer_failure(lfirst(lc), "expired", 0, error);
	if (ask->nulls[DJA_MSG_LAST_ERROR - 1])
	{
		dja_answer_failure(ask, "expired", 0, error);
		return;
	}
	if (!ask->asks)
		return;
	pairs[4].string = TextDatumGetCString(ask->values[DJA_MSG_LAST_ERROR - 1]);
	failure = dja_json_object(pairs, lengthof(pairs));
	dja_answer_with_error(ask, failure, failure);
}

/*
 * Answers an ask with an error that a handler has made.
 */
void
dja_answer_error(DjaMessage *ask, Datum error)
{
	ListCell   *lc;

	foreach(lc, dja_coalesced_take(ask, false))
		dja_answer_error(lfirst(lc), error);
	if (ask->asks)
		dja_answer_with_error(ask, error,
							  dja_failure_json("error", 0, NULL, DatumGetJsonbP(error)));
}

/* ---------- deferred answers ---------- */

/*
 * Ends an open ask with an error, and frees its idempotency key.  The caller has
 * deleted its row.
 */
void
dja_end_deferred(DjaMessage *ask, const char *reason, const char *error)
{
	dja_answer_failure(ask, reason, 0, error);
	if (!ask->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1])
		dja_idempotency_ended(ask, reason, error);
}

/*
 * Ends an open ask that has expired.  If it is a duplicate, the answer of the
 * first message may still come, and its key stays.
 */
TM_Result
dja_expire_deferred(DjaMessage *ask)
{
	static const char *const error = "no reply came before the ask expired";
	TM_Result	result;

	if (dja_my_worker != NULL && !dja_can_answer(ask))
		return TM_BeingModified;
	result = dja_table_try_delete(DJA_MESSAGE_TABLE, &ask->tid);
	if (result != TM_Ok)
		return result;
	if (dja_message_is_aside(ask, "deferred"))
		dja_end_deferred(ask, "expired", error);
	else
		dja_answer_failure(ask, "expired", 0, error);
	return TM_Ok;
}

/*
 * Takes an open ask of another turn, to answer it.  Returns NULL if there is none.
 */
static DjaMessage *
dja_take_deferred(int64 id)
{
	DjaMessage *ask = dja_message_by_id(id, NULL);
	DjaType    *type;
	TM_Result	result;

	if (ask == NULL || !dja_message_is_aside(ask, "deferred"))
		return NULL;
	type = dja_type_by_hash(dja_hash_text(DatumGetTextPP(ask->values[DJA_MSG_ACTOR_TYPE - 1])));
	if (type == NULL)
		return NULL;
	if (!has_privs_of_role(GetUserId(), type->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("message " INT64_FORMAT " can only be answered by actors of role \"%s\"",
						id, GetUserNameFromId(type->owner, false))));
	result = dja_table_try_delete(DJA_MESSAGE_TABLE, &ask->tid);
	if (result == TM_Deleted || result == TM_SelfModified || result == TM_Invisible)
		return NULL;			/* another session has answered it */
	if (result != TM_Ok)
		dja_row_trouble(result);
	return ask;
}

/*
 * reply() and reply_error(): either payload or error is 0.  The answer to a message
 * with an idempotency key is kept even if nobody asked, since a duplicate may.  That to
 * one with a coalesce key is meant for those that were merged, too.
 */
static void
dja_give_answer(FunctionCallInfo fcinfo, Datum payload, Datum error)
{
	DjaMessage *ask = dja_turn.message;
	bool		deferred = !PG_ARGISNULL(1) && PG_GETARG_INT64(1) != ask->id;
	bool		keyed;

	if (deferred)
		ask = dja_take_deferred(PG_GETARG_INT64(1));
	else if (dja_turn_asks(DJA_TURN_ANSWERED))
		return;
	if (ask == NULL)
		return;
	keyed = !ask->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1];
	if (!ask->asks && !keyed && ask->nulls[DJA_MSG_COALESCE_KEY - 1])
		return;

	if (payload != 0)
		dja_answer(ask, payload);
	else
		dja_answer_error(ask, error);
	if (keyed)
		dja_idempotency_complete(ask, true, payload, error);
	if (keyed && deferred)
		dja_idempotency_answer_duplicates(ask, payload, error, NULL, NULL);
	if (!deferred)
	{
		dja_turn.reply = payload != 0 ? dja_effects_keep(payload) : 0;
		dja_turn_ask(DJA_TURN_ANSWERED);
	}
}

/*
 * reply(payload, message_id)
 */
Datum
dja_reply(PG_FUNCTION_ARGS)
{
	dja_require_turn("reply()");
	dja_give_answer(fcinfo, PG_ARGISNULL(0) ? dja_json_null() : JsonbPGetDatum(PG_GETARG_JSONB_P(0)), 0);
	PG_RETURN_VOID();
}

/*
 * reply_error(error, message_id)
 */
Datum
dja_reply_error(PG_FUNCTION_ARGS)
{
	dja_require_turn("reply_error()");
	dja_give_answer(fcinfo, 0, PG_ARGISNULL(0) ? dja_json_null() : JsonbPGetDatum(PG_GETARG_JSONB_P(0)));
	PG_RETURN_VOID();
}

/*
 * defer_reply(): the answer comes later, to the id that is returned.
 */
Datum
dja_defer_reply(PG_FUNCTION_ARGS)
{
	dja_require_turn("defer_reply()");
	dja_turn_ask(DJA_TURN_DEFER);
	PG_RETURN_INT64(dja_turn.message->id);
}
