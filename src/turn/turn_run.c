/*
 * turn_run.c
 *
 * One turn: the handler is called for one message; see turn_run.h.
 *
 * Each call has a snapshot of its own.  Deferred triggers fire at its end,
 * settings are put back, temporary tables dropped, cursors and connections
 * closed: the next turns of the batch must not meet what this one left behind.
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
#include "shmem/slots.h"
#include "tables/journal.h"
#include "turn/idempotency.h"
#include "turn/remote.h"
#include "turn/reply.h"
#include "turn/session.h"
#include "turn/timer.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "turn/turn_run.h"
#include "turn/turn_timeout.h"
#include "xact/pending.h"

static void
dja_turn_error_context(void *arg)
{
	DjaTurn    *turn = (DjaTurn *) arg;

	errcontext("actor %s \"%s\", message " INT64_FORMAT,
			   turn->actor->type->name, text_to_cstring(turn->actor->key), turn->message->id);
}

/*
 * Ends a turn for its message: stashes it; or answers it, completes its idempotency
 * key, and sees to its timer.
 */
static void
dja_turn_end_message(DjaBatch *batch, DjaActor *actor, DjaMessage *message, DjaResult *result,
					 TimestampTz start)
{
	bool		answered = dja_turn_asks(DJA_TURN_ANSWERED);
	bool		keyed;
	bool		kept;
	bool		recorded;
	Datum		reply;

	if (dja_turn_asks(DJA_TURN_STASH))
	{
		/* its next turn has nobody to answer any more */
		if (answered)
			message->values[DJA_MSG_WANTS_REPLY - 1] = BoolGetDatum(false);
		dja_message_set_aside(batch->messages, message, "stashed", DT_NOEND);
		actor->stashed++;
		return;
	}
	message->state = DJA_MESSAGE_HANDLED;
	if (message->plain && actor->type->journal < 0)
		return;

	keyed = !message->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1];
	kept = keyed || !message->nulls[DJA_MSG_COALESCE_KEY - 1];	/* others may get its
																 * answer */

	/*
	 * without a state the journal is the only place where a result can be
	 * seen
	 */
	recorded = actor->type->stateless && actor->type->journal >= 0 && result->has_reply;
	reply = result->has_reply ? result->reply : message->asks || kept ? dja_json_null() : 0;
	if (answered)
		reply = dja_turn.reply; /* reply() has given it */
	else if ((message->asks || kept) && dja_turn_asks(DJA_TURN_DEFER))
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
						  message->asks || recorded ? reply : 0);
}

/*
 * Gives an actor a new state, copied into the batch's memory.
 */
static void
dja_actor_set_state(DjaBatch *batch, DjaActor *actor, Datum state)
{
	MemoryContext old = MemoryContextSwitchTo(batch->memory);
	Datum		copy = PointerGetDatum(PG_DETOAST_DATUM_COPY(state));

	MemoryContextSwitchTo(old);
	if (actor->state_owned)
		pfree(DatumGetPointer(actor->state));
	actor->state = copy;
	actor->state_owned = true;
}

/*
 * Brings the state up to the version that the handler expects.
 */
static void
dja_turn_upgrade(DjaBatch *batch, DjaActor *actor)
{
	DjaType    *type = actor->type;

	if (actor->exists && actor->state_version < type->state_version && type->upgrade_handler != NULL)
		dja_actor_set_state(batch, actor,
							dja_handler_upgrade(type, actor->state, actor->state_version));
	actor->state_version = type->state_version;
}

/*
 * Fires deferred triggers, and closes all that the session would keep of a turn.
 */
static void
dja_turn_close_session(DjaBatch *batch)
{
	if (!batch->own_transaction)
	{
		dja_session_close_cursors();
		return;
	}
	/* a cursor WITH HOLD is read at the commit, that is now */
	do
		AfterTriggerFireDeferred();
	while (dja_session_touched && PreCommit_Portals(false));
	if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
		ResetTempTableNamespace();
	PortalHashTableDeleteAll();
	dja_remote_close();
}

/*
 * Calls the handler, under the clock of turns, and undoes the settings that it has
 * changed.
 */
static void
dja_turn_call(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message,
			  TimestampTz now, DjaResult *result)
{
	int			nest_level = NewGUCNestLevel();
	int			xact_level = GetCurrentTransactionNestLevel();

	dja_turn_timeout_begin(claim->type->handler_timeout,
						   batch->own_transaction ? now : GetCurrentTimestamp(),
						   batch->own_transaction && batch->executed > 1);
	if (actor->state_version != claim->type->state_version)
		dja_turn_upgrade(batch, actor);
	dja_handler_call(claim->type, actor->state, message->values[DJA_MSG_PAYLOAD - 1], result);
	if (GetCurrentTransactionNestLevel() != xact_level)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("handler %s left a subtransaction open", claim->type->handler)));
	dja_turn_close_session(batch);
	dja_turn_timeout_end();
	CHECK_FOR_INTERRUPTS();		/* a signal that it has sent itself is its own */
	AtEOXact_GUC(false, nest_level);	/* what follows is not the handler's */
}

/*
 * Ends the running turn with its result: in the actor, for its message, and with its
 * effects in the tables.  Needs an active snapshot.  Returns the effects that have
 * still to be applied in memory.
 */
List *
dja_turn_finish(DjaBatch *batch, DjaActor *actor, DjaMessage *message, DjaResult *result,
				TimestampTz started)
{
	MemoryContext old;

	Assert(dja_turn.actor == actor && dja_turn.message == message);
	if (actor->type->stateless)
		actor->dirty |= dja_turn_asks(DJA_TURN_STASH) || dja_turn_asks(DJA_TURN_UNSTASHED);
	else
	{
		if (result->has_state)
		{
			dja_actor_set_state(batch, actor, result->state);
			actor->state_version = actor->type->state_version;	/* a host has upgraded
																 * it */
		}
		actor->turns++;
		actor->dirty = true;
	}
	if (dja_turn_asks(DJA_TURN_UNSTASHED))
		actor->stashed = 0;
	old = MemoryContextSwitchTo(batch->memory);
	dja_turn_end_message(batch, actor, message, result, started);
	dja_effects_carry_out(actor, message);
	MemoryContextSwitchTo(old);
	return dja_effects_take();
}

/*
 * Makes one turn.  Raises its errors.  Returns the effects that have still to be
 * applied in memory.
 */
List *
dja_turn_run(DjaBatch *batch, DjaClaim *claim, DjaActor *actor, DjaMessage *message, TimestampTz now)
{
	List	   *effects;
	ErrorContextCallback callback;
	MemoryContext old;
	DjaResult	result;

	Assert(batch->phase == DJA_PHASE_TURN && message->state == DJA_MESSAGE_OPEN);
	Assert(!dja_effects_any());
	dja_turn_enter(actor, message);
	callback.callback = dja_turn_error_context;
	callback.arg = &dja_turn;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	old = MemoryContextSwitchTo(batch->turn);

	PushActiveSnapshot(GetTransactionSnapshot());
	dja_turn_call(batch, claim, actor, message, now, &result);
	effects = dja_turn_finish(batch, actor, message, &result, now);
	PopActiveSnapshot();
	CommandCounterIncrement();
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->turn);
	error_context_stack = callback.previous;
	dja_turn_leave();
	return effects;
}

/*
 * Makes one turn in a subtransaction.  Returns its error, NULL if it comes out well.
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
		dja_effects_apply(effects);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(batch->memory);
		edata = CopyErrorData();
		FlushErrorState();
		dja_turn_leave();
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
