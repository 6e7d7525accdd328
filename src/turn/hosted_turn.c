/*
 * hosted_turn.c
 *
 * begin_turn() and end_turn(), with the client's own statements between them, and
 * next_turn(), which is both.  waited_for() says whether the transaction is better
 * committed before another turn.  See hosted.h.
 *
 * The turn is remembered meanwhile, with its batch of one message, but no relation is
 * kept open and no snapshot: the client runs statements of its own.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "storage/bufmgr.h"
#include "tcop/pquery.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "shmem/crash.h"
#include "turn/hosted.h"
#include "turn/session.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "turn/turn_run.h"

PG_FUNCTION_INFO_V1(dja_begin_turn);
PG_FUNCTION_INFO_V1(dja_end_turn);
PG_FUNCTION_INFO_V1(dja_next_turn);
PG_FUNCTION_INFO_V1(dja_waited_for);

/* The turn between begin_turn() and end_turn(), in this transaction; batch = NULL: none. */
typedef struct DjaHostedTurn
{
	DjaBatch   *batch;
	int			attached;		/* its claim, by index */
	SubTransactionId subid;
	TimestampTz started;
	bool		ending;			/* end_turn() fires deferred triggers */
} DjaHostedTurn;

static DjaHostedTurn dja_hosted_turn = {NULL};

bool
dja_hosted_turn_is_open(void)
{
	return dja_hosted_turn.batch != NULL;
}

/*
 * The claim of the turn under way, in shared memory.
 */
static DjaHostClaim *
dja_hosted_turn_claim(void)
{
	return dja_host_claim(dja_hosted_at(dja_hosted_turn.attached)->claim);
}

/*
 * Forgets the turn under way, whose memory goes with the transaction.
 */
void
dja_hosted_turn_forget(void)
{
	if (dja_hosted_turn.batch == NULL)
		return;
	dja_hosted_turn_claim()->begun = 0;
	dja_hosted_turn.batch = NULL;
	dja_crash_unmark();
	dja_turn_over();
}

void
dja_hosted_turn_subxact_ended(bool committed, SubTransactionId subid, SubTransactionId parent)
{
	if (dja_hosted_turn.batch == NULL || dja_hosted_turn.subid != subid)
		return;
	if (committed)
		dja_hosted_turn.subid = parent;
	else
		dja_hosted_turn_forget();
}

static const char *const dja_outcome_details[] = {
	[DJA_TURN_DONE] = "It is done.",
	[DJA_TURN_STALE] = "The claim has ended, or this is not its next turn, or another transaction ends turns of it.",
	[DJA_TURN_CHANGED] = "The state of the actor was changed meanwhile.",
	[DJA_TURN_GONE] = "The message is not there any more.",
	[DJA_TURN_HALTED] = "The actor or its type was paused, suspended or redefined.",
	[DJA_TURN_LOCKED] = "Another transaction has locked the actor's row or the message's.",
};

/*
 * Raises an error for a turn that cannot be begun.
 */
static void
dja_turn_refused(DjaHostedOutcome outcome, int64 message_id)
{
	ereport(ERROR,
			(errcode(outcome == DJA_TURN_LOCKED ? ERRCODE_LOCK_NOT_AVAILABLE :
					 ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("cannot run message " INT64_FORMAT ": %s", message_id, dja_outcome_names[outcome]),
			 errdetail("%s", dja_outcome_details[outcome]),
			 errhint("Drop all that take() has handed out with it. What is still to be done is handed out again.")));
}

/*
 * Reads the message and the actor of a turn into a batch of their own, which lives as
 * long as the transaction.
 */
static DjaHostedOutcome
dja_hosted_read(DjaBatch *batch, DjaAttachedClaim *attached, int64 message_id)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	DjaClaim   *claim = dja_hosted_claim(batch, attached);
	DjaMessage *message = dja_message_by_id(message_id, snapshot);
	DjaHostedOutcome outcome = dja_message_outcome(claim, message);

	if (outcome == DJA_TURN_DONE && message->expires_at <= dja_clock())
		outcome = DJA_TURN_GONE;	/* the next take() settles it */
	if (outcome == DJA_TURN_DONE)
	{
		Relation	actors = table_open(dja_table_oid(DJA_ACTOR_TABLE), AccessShareLock);
		TupleTableSlot *slot = table_slot_create(actors, NULL);

		claim->messages = palloc(sizeof(DjaMessage *));
		claim->messages[0] = message;
		claim->nmessages = claim->max_messages = 1;
		claim->actors = dja_actor_read(actors, RelationGetNumberOfBlocks(actors), slot, claim->type,
									   message->key, claim->key_hash, snapshot);
		outcome = dja_actor_outcome(attached, claim->actors);
		ExecDropSingleTupleTableSlot(slot);
		table_close(actors, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return outcome;
}

/*
 * Begins a turn.
 */
static void
dja_hosted_begin(int64 token, int64 message_id)
{
	MemoryContext old;
	DjaHostedOutcome outcome;
	DjaAttachedClaim *attached;
	DjaBatch   *batch;
	DjaMessage *message;

	dja_require_hosting();
	if (!IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
				 errmsg("begin_turn() can only be used in transaction blocks")));
	attached = dja_attach_turn(token, message_id);
	if (attached == NULL)
		dja_turn_refused(DJA_TURN_STALE, message_id);

	old = MemoryContextSwitchTo(TopTransactionContext);
	batch = dja_batch_create(false, DJA_MODE_FAST);
	batch->hosted = true;
	MemoryContextSwitchTo(batch->memory);
	outcome = dja_hosted_read(batch, attached, message_id);
	MemoryContextSwitchTo(old);
	if (outcome != DJA_TURN_DONE)
	{
		dja_hosted_over_for(attached, outcome);
		dja_turn_refused(outcome, message_id);
	}

	dja_hosted_begun(attached, message_id);
	message = batch->claims[0]->messages[0];
	dja_crash_begin_client();
	dja_crash_mark(batch->claims[0]->type_hash, message_id, dja_is_dangerous(message));
	dja_turn_batch(batch);
	dja_turn_enter(batch->claims[0]->actors, message);
	dja_hosted_turn.batch = batch;
	dja_hosted_turn.attached = dja_hosted_index(attached);
	dja_hosted_turn.subid = GetCurrentSubTransactionId();
	dja_hosted_turn.started = GetCurrentTimestamp();
	dja_hosted_turn.ending = false;
	dja_hosted_turn_claim()->begun = message_id;
}

/*
 * begin_turn(token, message_id)
 */
Datum
dja_begin_turn(PG_FUNCTION_ARGS)
{
	dja_hosted_begin(PG_GETARG_INT64(0), PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

/*
 * Is this call of end_turn() the client's own CALL, so that no query is under way?
 */
static bool
dja_called_by_client(FunctionCallInfo fcinfo)
{
	PlannedStmt *statement;

	if (ActivePortal == NULL || list_length(ActivePortal->stmts) != 1)
		return false;

	/*
	 * functions that run queries add their own context to that of the
	 * client's parameters
	 */
	if (error_context_stack != NULL && error_context_stack->previous != NULL)
		return false;
	statement = linitial_node(PlannedStmt, ActivePortal->stmts);
	return statement->utilityStmt != NULL && IsA(statement->utilityStmt, CallStmt) &&
		castNode(CallStmt, statement->utilityStmt)->funcexpr->funcid == fcinfo->flinfo->fn_oid;
}

/*
 * Is a query under way that may queue triggers?  Deferred ones cannot be fired within
 * it.  Only trigger.c knows, and says so by raising an error, before it does anything.
 */
static bool
dja_query_is_under_way(void)
{
	MemoryContext old = CurrentMemoryContext;
	TriggerDesc triggers = {0};
	volatile bool under_way = true;

	triggers.trig_insert_new_table = true;
	PG_TRY();
	{
		(void) MakeTransitionCaptureState(&triggers, InvalidOid, CMD_INSERT);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		FlushErrorState();
		under_way = false;
	}
	PG_END_TRY();
	return under_way;
}

/*
 * Raises an error if the turn cannot be ended here.
 */
static void
dja_require_ending(FunctionCallInfo fcinfo)
{
	if (dja_hosted_turn.batch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no turn is under way in this transaction"),
				 errhint("Call djactor.begin_turn() first.")));
	if (dja_hosted_turn.ending)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a turn cannot be ended by a trigger that its end fires")));
	if (!dja_called_by_client(fcinfo) && dja_query_is_under_way())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a turn cannot be ended within a query that writes"),
				 errdetail("Deferred constraints and triggers of the turn cannot fire there."),
				 errhint("Call it by a statement of its own.")));
	if (dja_hosted_turn.subid != GetCurrentSubTransactionId())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a turn must be ended at the level of savepoints at which it was begun")));
}

/*
 * Writes what the turn has made of its message and its actor.
 */
static void
dja_hosted_write(DjaBatch *batch, DjaActor *actor, DjaMessage *message)
{
	if (message->state == DJA_MESSAGE_HANDLED)
		dja_row_delete(batch->messages, &message->tid);
	if (actor->dirty)
		dja_actor_write(actor, batch->actors,
						actor->exists ? NULL : dja_writer_get(DJA_IDENTITY_TABLE));
}

/*
 * Ends the turn under way with the state and the reply that stand in the arguments from
 * one on.
 */
static void
dja_hosted_end(FunctionCallInfo fcinfo, int arg)
{
	DjaBatch   *batch = dja_hosted_turn.batch;
	TimestampTz now = GetCurrentTimestamp();
	DjaResult	result = {0};
	DjaAttachedClaim *attached;
	DjaClaim   *claim;
	DjaActor   *actor;
	DjaMessage *message;
	MemoryContext old;
	List	   *effects;

	dja_require_ending(fcinfo);
	claim = batch->claims[0];
	actor = claim->actors;
	message = claim->messages[0];
	if (dja_hosted_turn_claim()->cancelled == message->id)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("cannot end the turn: message " INT64_FORMAT " was cancelled", message->id),
				 errhint("Roll back. If who has cancelled it does so, too, the message is handed out again.")));

	/* what the next turn of this transaction must not repair */
	dja_hosted_turn.ending = true;
	AfterTriggerFireDeferred();

	old = MemoryContextSwitchTo(batch->memory);
	dja_writers_keep(batch->memory);
	batch->messages = dja_writer_get(DJA_MESSAGE_TABLE);
	batch->actors = dja_writer_get(DJA_ACTOR_TABLE);
	PushActiveSnapshot(GetTransactionSnapshot());

	result.has_state = !PG_ARGISNULL(arg);
	if (result.has_state)
		result.state = PG_GETARG_DATUM(arg);
	result.has_reply = !PG_ARGISNULL(arg + 1);
	if (result.has_reply)
		result.reply = PG_GETARG_DATUM(arg + 1);
	effects = dja_turn_finish(batch, actor, message, &result, dja_hosted_turn.started);
	dja_turn_leave();
	dja_effects_apply(effects);
	dja_hosted_write(batch, actor, message);
	dja_hosted_count(claim->type, message, dja_hosted_turn.started, now);

	PopActiveSnapshot();
	CommandCounterIncrement();
	dja_writers_close();
	dja_turn_batch(NULL);
	MemoryContextSwitchTo(old);

	attached = dja_hosted_at(dja_hosted_turn.attached);
	dja_hosted_done(attached, dja_actor_version(actor), dja_message_frees(message));
	if (claim->reread || actor->paused || actor->suspended)
		dja_hosted_over(attached, DJA_END_REMAINING, DJA_CURSOR_START, 0);
	dja_hosted_turn_claim()->begun = 0;
	dja_hosted_turn.batch = NULL;
	dja_crash_unmark();
	MemoryContextDelete(batch->context);
}

/*
 * end_turn(state, reply)
 */
Datum
dja_end_turn(PG_FUNCTION_ARGS)
{
	dja_hosted_end(fcinfo, 0);
	PG_RETURN_VOID();
}

/*
 * next_turn(token, message_id, state, reply): what end_turn() and begin_turn() do, by one
 * statement
 */
Datum
dja_next_turn(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("token and message_id must not be null")));
	dja_hosted_end(fcinfo, 2);
	dja_hosted_begin(PG_GETARG_INT64(0), PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}

/*
 * waited_for()
 */
Datum
dja_waited_for(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(dja_locks_waited_for());
}
