/*
 * turn.c
 *
 * The running turn and the batch that it is in; see turn.h.
 *
 * A batch holds actors and messages in memory, and writes them to the tables at its
 * end.  So a function that changes an actor or a message looks here first.  If it
 * finds that one, it leaves the change to an effect (turn_effects.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"

#include "shmem/crash.h"
#include "shmem/slots.h"
#include "turn/coalesce.h"
#include "turn/progress.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "xact/two_phase.h"

PG_FUNCTION_INFO_V1(dja_reject);

DjaTurn		dja_turn = {NULL};

static DjaBatch *dja_current_batch = NULL;

/*
 * Sets the batch whose turns come next, NULL for none.
 */
void
dja_turn_batch(DjaBatch *batch)
{
	dja_current_batch = batch;
	if (batch != NULL)
		dja_commit_together();
	dja_effects_begin(batch != NULL ? batch->memory : NULL);
}

/*
 * Begins a turn of the batch, if none is running.
 */
void
dja_turn_enter(DjaActor *actor, DjaMessage *message)
{
	Assert(dja_turn.actor == NULL && dja_current_batch != NULL);
	memset(&dja_turn, 0, sizeof(DjaTurn));
	dja_turn.actor = actor;
	dja_turn.message = message;
}

/*
 * Ends the running turn, if there is one.
 */
void
dja_turn_leave(void)
{
	dja_progress_over();
	memset(&dja_turn, 0, sizeof(DjaTurn));
}

/*
 * Forgets turn and batch after an error that ended the transaction, or left drain().
 */
void
dja_turn_over(void)
{
	dja_turn_leave();
	dja_turn_batch(NULL);
	dja_writers_forget();
	dja_coalesce_forget();
	if (dja_my_worker != NULL)
	{
		dja_my_worker->message_id = 0;
		dja_crash_unmark();
	}
}

/* ---------- what the turn asks for about itself ---------- */

/*
 * Sets a flag of the running turn.  To set it again changes nothing.
 */
void
dja_turn_ask(DjaTurnFlag flag)
{
	Assert(dja_turn.actor != NULL);
	if (!dja_turn_asks(flag))
		dja_turn.asked_in[flag] = GetCurrentSubTransactionId();
}

/*
 * Takes back the flags that a subtransaction has set, after its abort; after its
 * commit they are its parent's.
 */
void
dja_turn_subxact_ended(bool committed, SubTransactionId subid, SubTransactionId parent)
{
	for (int flag = 0; flag < DJA_TURN_NFLAGS; flag++)
		if (dja_turn.asked_in[flag] == subid)
			dja_turn.asked_in[flag] = committed ? parent : InvalidSubTransactionId;
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

/* ---------- what its batch holds in memory ---------- */

/*
 * Returns the actor if the batch under way holds it in memory, else NULL.  Changes to
 * it have to be made there.
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
 * Returns the message if the batch under way has read it, else NULL.
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
 * Returns the mailbox of the batch under way that an actor's mail is in, or NULL.
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

/*
 * Returns the mailbox in which the batch holds an actor.
 */
DjaClaim *
dja_batch_claim_of(DjaActor *actor)
{
	for (int i = 0; i < dja_current_batch->nclaims; i++)
		for (DjaActor *a = dja_current_batch->claims[i]->actors; a != NULL; a = a->next)
			if (a == actor)
				return dja_current_batch->claims[i];
	return NULL;
}
