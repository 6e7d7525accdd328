/*
 * hosted_complete.c
 *
 * complete(), which ends many turns of hosted types that have no statements of their
 * own; fail() and release().  See hosted.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "turn/hosted.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "turn/turn_outcome.h"
#include "turn/turn_run.h"

PG_FUNCTION_INFO_V1(dja_complete);
PG_FUNCTION_INFO_V1(dja_fail);
PG_FUNCTION_INFO_V1(dja_release);

#define DJA_MAX_COMPLETED 100000	/* turns in one call */

/* The arguments of complete(), as arrays of the same length. */
typedef struct DjaCompletion
{
	int			n;
	Datum	   *tokens;
	Datum	   *message_ids;
	Datum	   *states;
	bool	   *no_state;
	Datum	   *replies;
	bool	   *no_reply;		/* NULL: there is no reply at all */
	Datum	   *usec;			/* NULL: not known */
	DjaHostedOutcome *outcomes; /* how they came out */
} DjaCompletion;

static int
dja_read_array(FunctionCallInfo fcinfo, int arg, const char *name, Oid type, Datum **values, bool **nulls)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(arg);
	int			n;
	bool		fixed = type == INT8OID;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must have one dimension", name)));
	if (nulls == NULL && array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not contain nulls", name)));
	deconstruct_array(array, type, fixed ? 8 : -1, fixed ? FLOAT8PASSBYVAL : false,
					  fixed ? TYPALIGN_DOUBLE : TYPALIGN_INT, values, nulls, &n);
	return n;
}

static void
dja_read_completion(FunctionCallInfo fcinfo, DjaCompletion *all)
{
	bool		matches;

	memset(all, 0, sizeof(DjaCompletion));
	for (int i = 0; i < 3; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("tokens, message_ids and states must not be null")));
	all->n = dja_read_array(fcinfo, 0, "tokens", INT8OID, &all->tokens, NULL);
	matches = dja_read_array(fcinfo, 1, "message_ids", INT8OID, &all->message_ids, NULL) == all->n;
	matches &= dja_read_array(fcinfo, 2, "states", JSONBOID, &all->states, &all->no_state) == all->n;
	if (!PG_ARGISNULL(3))
		matches &= dja_read_array(fcinfo, 3, "replies", JSONBOID, &all->replies, &all->no_reply) == all->n;
	if (!PG_ARGISNULL(4))
		matches &= dja_read_array(fcinfo, 4, "usec", INT8OID, &all->usec, NULL) == all->n;
	if (!matches || all->n > DJA_MAX_COMPLETED)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("all arrays must have the same length, %d at most", DJA_MAX_COMPLETED)));
}

/*
 * Ends one turn, in the batch's memory but for the row of a first turn's stash or reply.
 */
static DjaHostedOutcome
dja_complete_turn(DjaBatch *batch, DjaAttachedClaim *attached, DjaCompletion *all, int i, TimestampTz now)
{
	int64		usec = all->usec == NULL ? 0 : Max(0, DatumGetInt64(all->usec[i]));
	DjaResult	result = {0};
	DjaHostedOutcome outcome;
	DjaClaim   *claim = attached->claim_in_batch;
	bool		first = claim == NULL;
	DjaMessage *message;
	DjaActor   *actor;
	List	   *effects;

	if (first)
		claim = attached->claim_in_batch = dja_hosted_claim(batch, attached);
	message = dja_message_by_id(DatumGetInt64(all->message_ids[i]), NULL);
	outcome = dja_message_outcome(claim, message);
	if (outcome != DJA_TURN_DONE)
		return outcome;
	actor = dja_claim_actor(batch, claim, message->key);
	if (claim->turns == 0)
		outcome = dja_actor_outcome(attached, actor);
	if (outcome != DJA_TURN_DONE)
		return outcome;

	batch->claim = claim;
	batch->message = message;
	claim->turns++;
	dja_turn_enter(actor, message);
	result.has_state = !all->no_state[i];
	result.state = all->states[i];
	result.has_reply = all->no_reply != NULL && !all->no_reply[i];
	if (result.has_reply)
		result.reply = all->replies[i];
	effects = dja_turn_finish(batch, actor, message, &result, now - usec);
	dja_turn_leave();
	dja_effects_apply(effects);
	if (message->state == DJA_MESSAGE_HANDLED)
		dja_claim_handled(batch, claim, message);
	dja_hosted_count(claim->type, message, now - usec, now);
	dja_hosted_done(attached, attached->actor, dja_message_frees(message));
	return DJA_TURN_DONE;
}

/*
 * Ends all turns of one call.
 */
static void
dja_complete_step(DjaBatch *batch, void *arg)
{
	DjaCompletion *all = (DjaCompletion *) arg;
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < all->n; i++)
	{
		DjaAttachedClaim *attached = dja_attach_turn(DatumGetInt64(all->tokens[i]),
													 DatumGetInt64(all->message_ids[i]));

		CHECK_FOR_INTERRUPTS();
		all->outcomes[i] = attached == NULL ? DJA_TURN_STALE : dja_complete_turn(batch, attached, all, i, now);
		if (attached != NULL && all->outcomes[i] != DJA_TURN_DONE)
			dja_hosted_over_for(attached, all->outcomes[i]);
	}
}

/*
 * complete(tokens, message_ids, states, replies, usec)
 */
Datum
dja_complete(PG_FUNCTION_ARGS)
{
	DjaCompletion all;
	Datum	   *words;

	dja_require_hosting();
	dja_read_completion(fcinfo, &all);
	all.outcomes = palloc(sizeof(DjaHostedOutcome) * Max(all.n, 1));
	dja_hosted_in_batch(dja_complete_step, &all);
	words = palloc(sizeof(Datum) * Max(all.n, 1));
	for (int i = 0; i < all.n; i++)
		words[i] = CStringGetTextDatum(dja_outcome_names[all.outcomes[i]]);
	PG_RETURN_ARRAYTYPE_P(construct_array(words, all.n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* ---------- fail() and release() ---------- */

static char *
dja_text_argument(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

/*
 * Makes an error of what a host says.
 */
static DjaError *
dja_hosted_error(FunctionCallInfo fcinfo)
{
	DjaError   *error = palloc0(sizeof(DjaError));
	char	   *sqlstate = dja_text_argument(fcinfo, 2);

	if (sqlstate == NULL || strlen(sqlstate) != 5 ||
		strspn(sqlstate, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid SQLSTATE: \"%s\"", sqlstate ? sqlstate : ""),
				 errhint("Use 38000 for an exception of the handler, JA003 to reject the message.")));
	error->sqlerrcode = MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]);
	error->rejected = error->sqlerrcode == DJA_ERRCODE_REJECTED;
	error->limit = error->sqlerrcode == ERRCODE_QUERY_CANCELED ? DJA_TURN_TIMEOUT_EXCEEDED : DJA_TURN_TIMEOUT_NONE;
	error->message = dja_text_argument(fcinfo, 3);
	if (error->message == NULL)
		error->message = "unknown error";
	error->context = dja_text_argument(fcinfo, 4);
	return error;
}

/* A failed attempt, and the word for what follows. */
typedef struct DjaHostedFailure
{
	int64		token;
	int64		message_id;
	DjaError   *error;
	Datum		meta;			/* 0: what the message has */
	const char *what;
} DjaHostedFailure;

/*
 * Writes a failed attempt down.  Its claim ends.
 */
static void
dja_fail_step(DjaBatch *batch, void *arg)
{
	DjaHostedFailure *failure = (DjaHostedFailure *) arg;
	DjaAttachedClaim *attached = dja_attach_turn(failure->token, failure->message_id);
	DjaHostedOutcome outcome = DJA_TURN_STALE;
	DjaClaim   *claim;
	DjaMessage *message;
	DjaActor   *actor = NULL;
	int			attempts;

	if (attached != NULL)
	{
		claim = dja_hosted_claim(batch, attached);
		message = dja_message_by_id(failure->message_id, NULL);
		outcome = dja_message_outcome(claim, message);
		if (outcome == DJA_TURN_DONE && dja_host_claim(attached->claim)->cancelled == message->id)
			outcome = DJA_TURN_LOCKED;	/* who has cancelled it has not yet
										 * deleted it, or has given up */
		if (outcome == DJA_TURN_DONE || outcome == DJA_TURN_HALTED)
		{
			actor = dja_claim_actor(batch, claim, message->key);
			outcome = TransactionIdIsValid(actor->locker) ? DJA_TURN_LOCKED : DJA_TURN_DONE;
		}
		if (outcome != DJA_TURN_DONE)
			dja_hosted_over_for(attached, outcome);
	}
	failure->what = dja_outcome_names[outcome];
	if (outcome != DJA_TURN_DONE)
		return;

	attempts = message->attempts;
	if (failure->meta != 0 && dja_message_is_kind(message, "user"))
	{
		message->values[DJA_MSG_META - 1] = failure->meta;
		message->nulls[DJA_MSG_META - 1] = false;
	}
	if (dja_message_failed(batch, claim, actor, message, failure->error))
		claim->end = DJA_END_REMAINING;
	dja_hosted_remember(attached);
	dja_hosted_over(attached, claim->end,
					claim->end == DJA_END_RETRY ? claim->cursor : DJA_CURSOR_START, 0);
	attached->freed += claim->freed;
	failure->what = actor->suspended ? "suspended" : claim->removed > 0 ? "dead_letter" :
		message->attempts > attempts ? "retry" : "put_off";
}

/*
 * fail(token, message_id, sqlstate, error, context, meta)
 */
Datum
dja_fail(PG_FUNCTION_ARGS)
{
	DjaHostedFailure failure;

	dja_require_hosting();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("token and message_id must not be null")));
	failure.token = PG_GETARG_INT64(0);
	failure.message_id = PG_GETARG_INT64(1);
	failure.error = dja_hosted_error(fcinfo);
	failure.meta = PG_ARGISNULL(5) ? 0 : PG_GETARG_DATUM(5);
	if (failure.meta != 0 && !JB_ROOT_IS_OBJECT(DatumGetJsonbP(failure.meta)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("meta must be a JSON object")));
	dja_hosted_in_batch(dja_fail_step, &failure);
	PG_RETURN_TEXT_P(cstring_to_text(failure.what));
}

/*
 * release(tokens)
 */
Datum
dja_release(PG_FUNCTION_ARGS)
{
	Datum	   *tokens;
	int			n;
	int			released = 0;

	dja_require_installed();
	n = dja_read_array(fcinfo, 0, "tokens", INT8OID, &tokens, NULL);
	for (int i = 0; i < n; i++)
		released += dja_hosted_release(DatumGetInt64(tokens[i]));
	PG_RETURN_INT32(released);
}
