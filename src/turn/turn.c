/*
 * turn.c
 *
 * One turn: the handler is called for one message; see turn.h.
 *
 * Each call has a snapshot of its own.  Deferred triggers fire at its end,
 * settings are put back, temporary tables dropped, cursors and connections closed: the
 * next turns of the batch must not meet what this one left behind.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/json.h"
#include "shmem/crash.h"
#include "shmem/slots.h"
#include "tables/journal.h"
#include "turn/idempotency.h"
#include "turn/remote.h"
#include "turn/reply.h"
#include "turn/session.h"
#include "turn/stop.h"
#include "turn/timer.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "turn/turn_timeout.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_reject);

DjaTurn		dja_turn = {NULL, NULL};

static DjaBatch *dja_current_batch = NULL;

/*
 * The batch whose turns come next, NULL for none.
 */
void
dja_turn_batch(DjaBatch *batch)
{
	dja_current_batch = batch;
	dja_effects_begin(batch != NULL ? batch->memory : NULL);
}

/* ---------- what a turn wants of its batch-mates ---------- */

/*
 * The actor, if the batch under way holds it in memory: what is to be changed
 * about it has to be changed there.
 */
DjaActor *
dja_batch_actor(DjaType *type, text *key)
{
	if (dja_turn.actor == NULL || dja_current_batch == NULL)
		return NULL;
	for (int i = 0; i < dja_current_batch->nclaims; i++)
		for (DjaActor *actor = dja_current_batch->claims[i]->actors; actor != NULL; actor = actor->next)
			if (actor->type == type && dja_text_equal(actor->key, key))
				return actor;
	return NULL;
}

/*
 * The message, if the batch under way has read it.
 */
DjaMessage *
dja_batch_message(int64 id)
{
	if (dja_turn.actor == NULL || dja_current_batch == NULL)
		return NULL;
	for (int i = 0; i < dja_current_batch->nclaims; i++)
		for (int m = 0; m < dja_current_batch->claims[i]->nmessages; m++)
			if (dja_current_batch->claims[i]->messages[m]->id == id)
				return dja_current_batch->claims[i]->messages[m];
	return NULL;
}

/*
 * The mailbox in the batch under way that an actor's mail would be in.
 */
DjaClaim *
dja_batch_mailbox(DjaType *type, uint64 key_hash)
{
	if (dja_turn.actor == NULL || dja_current_batch == NULL)
		return NULL;
	for (int i = 0; i < dja_current_batch->nclaims; i++)
		if (dja_current_batch->claims[i]->type_hash == type->hash &&
			dja_current_batch->claims[i]->key_hash == key_hash)
			return dja_current_batch->claims[i];
	return NULL;
}

static DjaClaim *
dja_claim_of_actor(DjaActor *actor)
{
	for (int i = 0; i < dja_current_batch->nclaims; i++)
		for (DjaActor *a = dja_current_batch->claims[i]->actors; a != NULL; a = a->next)
			if (a == actor)
				return dja_current_batch->claims[i];
	return NULL;
}

/*
 * Raises 55000 outside a turn.
 */
void
dja_require_turn(const char *function)
{
	if (dja_turn.actor == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s can only be called inside a turn", function),
				 errhint("It is meant for handlers of actors, while they handle a message.")));
}

/*
 * After an error that ended the transaction, or left drain(): nothing of what
 * stood in memory counts any more.
 */
void
dja_turn_over(void)
{
	dja_turn.actor = NULL;
	dja_turn.message = NULL;
	dja_turn_batch(NULL);
	dja_writers_forget();
	if (dja_my_worker != NULL)
	{
		dja_my_worker->message_id = 0;
		dja_crash_unmark();
	}
}

/*
 * reject(reason): the message is given up at once.
 */
Datum
dja_reject(PG_FUNCTION_ARGS)
{
	dja_require_turn("reject()");
	ereport(ERROR,
			(errcode(DJA_ERRCODE_REJECTED),
			 errmsg("%s", PG_ARGISNULL(0) ? "rejected" : text_to_cstring(PG_GETARG_TEXT_PP(0)))));
	PG_RETURN_VOID();			/* not reached */
}

/* ---------- the turn itself ---------- */

static void
dja_turn_error_context(void *arg)
{
	DjaTurn    *turn = (DjaTurn *) arg;

	errcontext("actor %s \"%s\", message " INT64_FORMAT,
			   turn->actor->type->name, text_to_cstring(turn->actor->key), turn->message->id);
}

/*
 * The end of a turn for its message: answered, its key noted, its timer seen
 * to; or stashed.
 */
static void
dja_turn_end_message(DjaBatch *batch, DjaActor *actor, DjaMessage *message, DjaResult *result,
					 TimestampTz start)
{
	DjaEffect  *answered;
	bool		keyed;
	Datum		reply;

	answered = dja_effect_requested(DJA_EFFECT_ANSWERED);
	if (dja_effect_requested(DJA_EFFECT_STASH))
	{
		/* its next turn has nobody to answer any more */
		if (answered != NULL)
			message->values[DJA_MSG_WANTS_REPLY - 1] = BoolGetDatum(false);
		dja_message_set_aside(batch->messages, message, "stashed", DT_NOEND);
		actor->stashed++;
		return;
	}
	message->state = DJA_MESSAGE_HANDLED;
	if (message->plain && actor->type->journal < 0)
		return;

	keyed = !message->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1];
	reply = !message->asks && !keyed ? 0 : result->has_reply ? result->reply : dja_json_null();
	if (answered != NULL)
		reply = answered->value;	/* reply() has given it */
	else if ((message->asks || keyed) && dja_effect_requested(DJA_EFFECT_DEFER))
	{
		dja_message_set_aside(batch->messages, message, "deferred", message->expires_at);
		if (message->expires_at != DT_NOEND)
			dja_pending_due(actor->type, message->expires_at);
		if (keyed)
			dja_idempotency_complete(message, false, 0, 0);
		reply = 0;
	}
	else
	{
		dja_answer(message, reply);
		if (keyed)
			dja_idempotency_complete(message, true, reply, 0);
	}
	if (dja_message_is_kind(message, "timer"))
		dja_timer_done(message, "handled");
	if (actor->type->journal >= 0)
		dja_journal_write(message, actor->turns, start, GetCurrentTimestamp(),
						  message->state == DJA_MESSAGE_ASIDE ? "deferred" : "handled",
						  message->asks ? reply : 0);
}

/*
 * The first request to stop an actor.  However many there are, it ends once; with
 * discard, if one of them says so.
 */
static DjaEffect *
dja_first_stop(List *effects, DjaActor *actor, bool *discard)
{
	DjaEffect  *first = NULL;
	ListCell   *lc;

	*discard = false;
	foreach(lc, effects)
	{
		DjaEffect  *effect = lfirst(lc);

		if (effect->actor != actor || (effect->kind != DJA_EFFECT_STOP && effect->kind != DJA_EFFECT_DISCARD))
			continue;
		if (first == NULL)
			first = effect;
		*discard |= effect->kind == DJA_EFFECT_DISCARD;
	}
	return first;
}

/*
 * Carries out in the tables what the turn has asked for, and returns it.
 */
static List *
dja_carry_out_effects(DjaActor *self, DjaMessage *message)
{
	List	   *effects = dja_effects_take();
	ListCell   *lc;

	foreach(lc, effects)
	{
		DjaEffect  *effect = lfirst(lc);
		bool		discard;

		if (effect->actor != NULL && effect == dja_first_stop(effects, effect->actor, &discard))
			dja_actor_end(dja_claim_of_actor(effect->actor), effect->actor,
						  effect->actor == self ? message : NULL, discard);
	}
	return effects;
}

/*
 * The same for what the batch holds in memory: once the turn cannot fail any
 * more, for no abort undoes this.
 */
static void
dja_take_effect(List *effects)
{
	ListCell   *lc;

	foreach(lc, effects)
	{
		DjaEffect  *effect = lfirst(lc);

		switch (effect->kind)
		{
			case DJA_EFFECT_PAUSE:
			case DJA_EFFECT_RESUME:
				effect->actor->paused = effect->kind == DJA_EFFECT_PAUSE;
				if (!effect->actor->paused)
					effect->actor->suspended = false;
				effect->actor->dirty = true;
				break;
			case DJA_EFFECT_STOP:
			case DJA_EFFECT_DISCARD:
				/* what was read of its mailbox is not what is there */
				dja_claim_of_actor(effect->actor)->reread = true;
				dja_actor_reset(effect->actor);
				break;
			case DJA_EFFECT_GONE:
				effect->message->state = DJA_MESSAGE_GONE;
				break;
			case DJA_EFFECT_UNSTASHED:
				dja_claim_of_actor(effect->actor)->reread = true;
				break;
			case DJA_EFFECT_REREAD:
				effect->claim->reread = true;
				break;
			case DJA_EFFECT_STASH:
			case DJA_EFFECT_DEFER:
			case DJA_EFFECT_ANSWERED:
				break;			/* done: dja_turn_end_message */
		}
	}
}

/*
 * Brings the state up to the version that the handler expects.
 */
static void
dja_turn_upgrade(DjaBatch *batch, DjaActor *actor)
{
	DjaType    *type = actor->type;

	if (actor->exists && actor->state_version < type->state_version && type->upgrade_handler != NULL)
	{
		Datum		state = dja_handler_upgrade(type, actor->state, actor->state_version);
		MemoryContext old = MemoryContextSwitchTo(batch->memory);

		state = PointerGetDatum(PG_DETOAST_DATUM_COPY(state));
		MemoryContextSwitchTo(old);
		if (actor->state_owned)
			pfree(DatumGetPointer(actor->state));
		actor->state = state;
		actor->state_owned = true;
	}
	actor->state_version = type->state_version;
}

/*
 * One turn, without regard to errors: they are thrown.  What it has asked for
 * has still to take effect in memory.
 */
static List *
dja_turn_run(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message, TimestampTz now)
{
	List	   *effects;
	ErrorContextCallback callback;
	MemoryContext old;
	DjaResult	result;
	int			nest_level;
	int			xact_level;

	dja_turn.actor = actor;
	dja_turn.message = message;
	callback.callback = dja_turn_error_context;
	callback.arg = &dja_turn;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	nest_level = NewGUCNestLevel();
	old = MemoryContextSwitchTo(batch->turn);

	PushActiveSnapshot(GetTransactionSnapshot());
	dja_turn_timeout_begin(claim->type->handler_timeout,
						   batch->own_transaction ? now : GetCurrentTimestamp(),
						   batch->own_transaction && batch->executed > 1);
	xact_level = GetCurrentTransactionNestLevel();
	if (actor->state_version != claim->type->state_version)
		dja_turn_upgrade(batch, actor);
	dja_handler_call(claim->type, actor->state, message->values[DJA_MSG_PAYLOAD - 1], &result);
	if (GetCurrentTransactionNestLevel() != xact_level)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("handler %s left a subtransaction open", claim->type->handler)));
	if (batch->own_transaction)
	{
		/* a cursor WITH HOLD is read at the commit, that is now */
		do
			AfterTriggerFireDeferred();
		while (dja_session_touched && PreCommit_Portals(false));
		if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
			ResetTempTableNamespace();
		PortalHashTableDeleteAll();
		dja_remote_close();
	}
	else
		dja_session_close_cursors();
	dja_turn_timeout_end();
	CHECK_FOR_INTERRUPTS();		/* a signal that it has sent itself is its own */
	AtEOXact_GUC(false, nest_level);	/* what follows is not the handler's */

	if (result.has_state)
	{
		Datum		state;

		MemoryContextSwitchTo(batch->memory);
		state = PointerGetDatum(PG_DETOAST_DATUM_COPY(result.state));
		if (actor->state_owned)
			pfree(DatumGetPointer(actor->state));
		actor->state = state;
		actor->state_owned = true;
	}
	actor->turns++;
	actor->dirty = true;
	if (dja_effect_requested(DJA_EFFECT_UNSTASHED))
		actor->stashed = 0;
	MemoryContextSwitchTo(batch->memory);
	dja_turn_end_message(batch, actor, message, &result, now);
	effects = dja_carry_out_effects(actor, message);
	MemoryContextSwitchTo(batch->turn);
	PopActiveSnapshot();
	CommandCounterIncrement();
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->turn);
	error_context_stack = callback.previous;
	dja_turn.actor = NULL;
	dja_turn.message = NULL;
	return effects;
}

/*
 * One turn; an error is thrown, and ends the transaction.
 */
void
dja_turn_execute(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message, TimestampTz now)
{
	dja_take_effect(dja_turn_run(batch, claim, actor, message, now));
}

/*
 * One turn in a subtransaction.  The error, if it fails.
 */
DjaError *
dja_turn_in_savepoint(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message,
					  TimestampTz now)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	DjaError   *volatile error = NULL;
	DjaActor	before = *actor;
	DjaMessage	message_before = *message;

	/* a turn replaces the state; a failed one must find the old one again */
	actor->state_owned = false;
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		List	   *effects = dja_turn_run(batch, claim, actor, message, now);

		if (TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
			batch->writing++;
		ReleaseCurrentSubTransaction();
		if (before.state_owned && actor->state != before.state)
			pfree(DatumGetPointer(before.state));
		actor->state_owned |= before.state_owned;
		dja_take_effect(effects);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(batch->memory);
		edata = CopyErrorData();
		FlushErrorState();
		dja_turn.actor = NULL;
		dja_turn.message = NULL;
		error = dja_error_copy(edata, dja_turn_timeout_hit);
		dja_turn_timeout_stop();
		RollbackAndReleaseCurrentSubTransaction();
		dja_handlers_forget();
		if (batch->own_transaction)
			dja_remote_close();
		if (error->python_lost && dja_my_worker != NULL)
		{
			dja_session_touched = true; /* no turn follows in this batch */
			dja_session_renew();
		}
		/* drain() is asked to stop, and not by the turn's time limit */
		if (!batch->own_transaction && edata->sqlerrcode == ERRCODE_QUERY_CANCELED &&
			dja_turn_timeout_hit == DJA_TURN_TIMEOUT_NONE)
		{
			MemoryContextSwitchTo(old);
			CurrentResourceOwner = owner;
			ReThrowError(edata);
		}
		dja_turn_timeout_hit = DJA_TURN_TIMEOUT_NONE;
		dja_effects_begin(batch->memory);
		*actor = before;
		*message = message_before;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
	MemoryContextReset(batch->turn);
	return error;
}
