/*
 * turn.c
 *
 * One turn: the handler is called for one message; see turn.h.
 *
 * Each call has a snapshot of its own.  Deferred triggers fire at its end,
 * settings are put back, temporary tables dropped: the next turns of the batch
 * must not meet what this one left behind.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "compat.h"
#include "crash.h"
#include "slots.h"
#include "turn.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* What a turn wants of an actor that the batch holds in memory. */
typedef struct DjaWish
{
	DjaActor   *actor;
	bool		paused;
	SubTransactionId subid;		/* with which it would be rolled back */
} DjaWish;

DjaTurn		dja_turn = {NULL, NULL};

static DjaBatch *dja_current_batch = NULL;
static List *dja_wishes = NIL;	/* in the batch's attempt */

/*
 * The batch whose turns come next, NULL for none.
 */
void
dja_turn_batch(DjaBatch *batch)
{
	dja_current_batch = batch;
	dja_wishes = NIL;
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
	for (int i = 0; i < dja_current_batch->nruns; i++)
		for (DjaActor *actor = dja_current_batch->runs[i]->actors; actor != NULL; actor = actor->next)
			if (actor->type == type && dja_text_equal(actor->key, key))
				return actor;
	return NULL;
}

/*
 * Pauses or resumes an actor that the batch holds in memory, from the end of
 * the running turn on.
 */
void
dja_batch_wish(DjaActor *actor, bool paused)
{
	MemoryContext old = MemoryContextSwitchTo(dja_current_batch->attempt);
	DjaWish    *wish = palloc(sizeof(DjaWish));

	wish->actor = actor;
	wish->paused = paused;
	wish->subid = GetCurrentSubTransactionId();
	dja_wishes = lappend(dja_wishes, wish);
	MemoryContextSwitchTo(old);
}

static void
dja_fulfil_wishes(void)
{
	ListCell   *lc;

	foreach(lc, dja_wishes)
	{
		DjaWish    *wish = lfirst(lc);

		wish->actor->paused = wish->paused;
		if (!wish->paused)
			wish->actor->suspended = false;
		wish->actor->dirty = true;
	}
	dja_wishes = NIL;
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
	if (dja_my_worker != NULL)
	{
		dja_my_worker->message_id = 0;
		dja_crash_unmark();
	}
}

/*
 * Wishes share the fate of the subtransaction in which they were made.
 */
static void
dja_wish_subxact_callback(SubXactEvent event, SubTransactionId subid,
						  SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	foreach(lc, dja_wishes)
	{
		DjaWish    *wish = lfirst(lc);

		if (wish->subid != subid)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			dja_wishes = foreach_delete_current(dja_wishes, lc);
		else if (event == SUBXACT_EVENT_COMMIT_SUB)
			wish->subid = parent;
	}
}

void
dja_turn_init(void)
{
	RegisterSubXactCallback(dja_wish_subxact_callback, NULL);
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
 * One turn, without regard to errors: they are thrown.
 */
void
dja_turn_execute(DjaBatch *batch, DjaRun *run, DjaActor *actor, DjaMessage *message, TimestampTz now)
{
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
	dja_handler_arm(run->type->handler_timeout, now);
	xact_level = GetCurrentTransactionNestLevel();
	dja_handler_call(run->type, actor->state, message->values[DJA_MSG_PAYLOAD - 1], &result);
	if (GetCurrentTransactionNestLevel() != xact_level)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("handler %s left a subtransaction open", run->type->handler)));
	if (batch->own_transaction)
	{
		AfterTriggerFireDeferred();
		if (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE)
			ResetTempTableNamespace();
	}
	dja_handler_disarm();
	PopActiveSnapshot();

	if (result.has_state)
	{
		Datum		state;

		MemoryContextSwitchTo(batch->attempt);
		state = PointerGetDatum(PG_DETOAST_DATUM_COPY(result.state));
		if (actor->state_owned)
			pfree(DatumGetPointer(actor->state));
		actor->state = state;
		actor->state_owned = true;
	}
	actor->turns++;
	actor->dirty = true;

	dja_fulfil_wishes();
	AtEOXact_GUC(false, nest_level);
	CommandCounterIncrement();
	MemoryContextSwitchTo(old);
	MemoryContextReset(batch->turn);
	error_context_stack = callback.previous;
	dja_turn.actor = NULL;
	dja_turn.message = NULL;
}

/*
 * One turn in a subtransaction.  The error, if it fails.
 */
DjaError *
dja_turn_in_savepoint(DjaBatch *batch, DjaRun *run, DjaActor *actor, DjaMessage *message,
					  TimestampTz now)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	DjaError   *volatile error = NULL;
	DjaActor	before = *actor;

	/* a turn replaces the state; a failed one must find the old one again */
	actor->state_owned = false;
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		dja_turn_execute(batch, run, actor, message, now);
		if (TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
			batch->writing++;
		ReleaseCurrentSubTransaction();
		if (before.state_owned && actor->state != before.state)
			pfree(DatumGetPointer(before.state));
		actor->state_owned |= before.state_owned;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(batch->attempt);
		edata = CopyErrorData();
		FlushErrorState();
		dja_turn.actor = NULL;
		dja_turn.message = NULL;
		error = dja_error_copy(edata, dja_handler_timed_out);
		dja_handler_stop();
		RollbackAndReleaseCurrentSubTransaction();
		dja_handlers_forget();
		*actor = before;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
	MemoryContextReset(batch->turn);
	return error;
}
