/*
 * remedy.c
 *
 * What follows when a worker's batch was aborted by an error.
 *
 * The remedy depends on when the error came, whose fault it is (failure.c) and
 * whether turns shared the transaction.  The table dja_remedies has one for each
 * case, dja_apply_remedy() does it.
 *
 * The failure of a turn that was alone cannot be written down in the transaction that
 * it aborted.  That takes a second one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/snapmgr.h"

#include "process/remedy.h"
#include "process/worker_xact.h"
#include "shmem/rates.h"
#include "tables/type_settings.h"
#include "turn/turn_outcome.h"
#include "turn/visit.h"

#define DJA_SAVEPOINT_TURNS 10000	/* of a type after one of its turns has
									 * failed */

/* The remedies for an error. */
typedef enum DjaRemedy
{
	DJA_RECORD,					/* write down that this message has failed */
	DJA_ALONE,					/* run this message alone, the others again */
	DJA_SAVEPOINTS,				/* run all of it again, with savepoints around
								 * the turns of this type */
	DJA_EACH_ALONE,				/* run every message of the batch alone */
	DJA_PUT_OFF,				/* somebody has a row of this mailbox: it
								 * waits */
	DJA_CANCELLED,				/* somebody cancels this message: it waits for
								 * that, the others run again */
	DJA_STALL,					/* wait, unless it was only cancelled; then
								 * run every message alone, so that one that
								 * always brings this about does not keep the
								 * others waiting */
	DJA_END						/* end the worker */
} DjaRemedy;

/*
 * The remedies, for an error that turns which share a transaction have met, and
 * for one that a single turn has met.
 */
#define DJA_ANY(remedy) {(remedy), (remedy), (remedy), (remedy), (remedy)}

static const DjaRemedy dja_remedies[2][DJA_PHASE_COMMITTED + 1][DJA_NBLAMES] = {
	{
		/* shared: conflict, server, long, mates, message */
		[DJA_PHASE_READING] = {DJA_EACH_ALONE, DJA_STALL, DJA_STALL, DJA_STALL, DJA_STALL},
		[DJA_PHASE_TURN] = {DJA_ALONE, DJA_ALONE, DJA_ALONE, DJA_SAVEPOINTS, DJA_SAVEPOINTS},
		[DJA_PHASE_WRITING] = {DJA_PUT_OFF, DJA_STALL, DJA_STALL, DJA_EACH_ALONE, DJA_EACH_ALONE},
		[DJA_PHASE_COMMITTING] = {DJA_EACH_ALONE, DJA_STALL, DJA_STALL, DJA_EACH_ALONE, DJA_EACH_ALONE},
		[DJA_PHASE_COMMITTED] = DJA_ANY(DJA_END),
	},
	{
		/* single */
		/* what is read is another mailbox than the one that had the turn */
		[DJA_PHASE_READING] = {DJA_EACH_ALONE, DJA_STALL, DJA_STALL, DJA_STALL, DJA_STALL},
		[DJA_PHASE_TURN] = DJA_ANY(DJA_RECORD),
		[DJA_PHASE_WRITING] = {DJA_PUT_OFF, DJA_STALL, DJA_STALL, DJA_RECORD, DJA_RECORD},
		[DJA_PHASE_COMMITTING] = DJA_ANY(DJA_RECORD),
		[DJA_PHASE_COMMITTED] = DJA_ANY(DJA_END),
	}
};

/*
 * The second transaction: writes down the failure of the message that took its
 * transaction along.  Returns DJA_RECORD if it could, DJA_PUT_OFF if another
 * transaction has locked the message's row or its actor's, else DJA_STALL.
 */
static DjaRemedy
dja_write_failure(DjaBatch *batch, DjaClaim *failed, int64 id, DjaError *error, bool with_actor)
{
	volatile DjaRemedy result = DJA_RECORD;

	PG_TRY();
	{
		DjaMessage *message;

		dja_transaction_start(batch);
		failed->end = DJA_END_REMAINING;
		failed->type = dja_type_by_hash(failed->type_hash);
		message = dja_message_by_id(id, GetActiveSnapshot());
		if (failed->type != NULL && message != NULL)
		{
			DjaActor   *actor;

			dja_settings_see(failed->type, LOG);
			actor = with_actor ? dja_claim_actor(batch, failed, message->key) : NULL;

			(void) dja_message_failed(batch, failed, actor, message, error);
		}
		dja_transaction_commit(batch);
	}
	PG_CATCH();
	{
		DjaError   *second = dja_recover(batch->context);

		result = dja_error_blame(second) == DJA_BLAME_CONFLICT ? DJA_PUT_OFF : DJA_STALL;
		failed->freed = 0;
		if (result == DJA_STALL)
			ereport(LOG,
					(errmsg("could not record the failure of message " INT64_FORMAT ": %s",
							id, second->message)));
	}
	PG_END_TRY();
	return result;
}

/*
 * Records a failure as well as possible: without its actor, if that cannot be read or
 * its row stays locked.  If the message's own row is locked, it is put off.
 */
static DjaOutcome
dja_record_failure(DjaBatch *batch, DjaClaim *failed, DjaError *error)
{
	int64		id = batch->message->id;
	text	   *key = batch->message->key;
	DjaRemedy	result = DJA_PUT_OFF;
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	key = DatumGetTextPCopy(PointerGetDatum(key));	/* the batch's memory is
													 * emptied */
	MemoryContextSwitchTo(old);
	if (batch->actor_read)
		result = dja_write_failure(batch, failed, id, error, true);
	if (result == DJA_PUT_OFF)
		result = dja_write_failure(batch, failed, id, error, false);
	if (result == DJA_PUT_OFF)
		dja_claim_put_off(batch, failed, key, InvalidTransactionId);
	else if (failed->end == DJA_END_RETRY)
		failed->end = DJA_END_REMAINING;	/* its next reader sees how long */
	failed->cursor = DJA_CURSOR_START;
	return result == DJA_STALL ? DJA_STALLED : DJA_ABORTED;
}

/*
 * Returns the remedy for an error.
 */
static DjaRemedy
dja_choose_remedy(DjaBatch *batch, DjaError *error)
{
	DjaRemedy	remedy;
	DjaBlame	blame;

	/* what heap_update says of a row that its own transaction has changed */
	if (batch->phase == DJA_PHASE_WRITING &&
		error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
	{
		error->sqlerrcode = ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION;
		error->message = "the turn has changed a row of djactor that it runs on\n"
			"HINT:  Return the new state from the handler instead of updating djactor.actor.";
	}
	blame = dja_error_blame(error);
	if (batch->executed == 0 && batch->phase != DJA_PHASE_COMMITTED)
		return DJA_STALL;		/* our own bookkeeping */
	if (error->limit == DJA_TURN_TIMEOUT_CANCELLED && batch->phase == DJA_PHASE_TURN)
		return DJA_CANCELLED;

	/*
	 * While the rows are written, only what the turn itself has brought about
	 * is its fault: a state that is too large, a row that it has changed.
	 */
	if (batch->phase == DJA_PHASE_WRITING && !dja_is_nobodys(blame) &&
		error->sqlerrcode != ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		return DJA_STALL;

	remedy = dja_remedies[batch->executed == 1][batch->phase][blame];
	/* outside its savepoint: its actor cannot be read, say */
	if (remedy == DJA_SAVEPOINTS && batch->claim->type->savepoints > 0)
		return DJA_ALONE;
	return remedy;
}

/*
 * As many messages of each mailbox are run alone as it has had turns.
 */
static void
dja_run_each_alone(DjaBatch *batch)
{
	for (int i = 0; i < batch->nclaims; i++)
		batch->claims[i]->run_alone = Max(1, batch->claims[i]->turns);
}

/*
 * Does what the remedy says, after all claims have returned to where they stood.
 * The claim is that of the last turn, NULL if there was none.
 */
static DjaOutcome
dja_apply_remedy(DjaRemedy remedy, DjaBatch *batch, DjaClaim *claim, DjaError *error)
{
	switch (remedy)
	{
		case DJA_RECORD:
			if (batch->phase != DJA_PHASE_TURN || !dja_claim_in_fresh_session(batch, claim, error))
				return dja_record_failure(batch, claim, error);
			break;
		case DJA_ALONE:
			claim->long_turn = dja_error_blame(error) == DJA_BLAME_LONG;
			claim->run_alone = 1;
			break;
		case DJA_SAVEPOINTS:
			claim->type->savepoints = DJA_SAVEPOINT_TURNS;
			break;
		case DJA_EACH_ALONE:
			dja_run_each_alone(batch);
			break;
		case DJA_PUT_OFF:

			/*
			 * Where a row was changed under us there is nothing to wait for:
			 * it is just read again.
			 */
			batch->waited_for = false;
			if (error->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE)
				dja_claim_put_off(batch, claim, claim->messages[0]->key, InvalidTransactionId);
			break;
		case DJA_CANCELLED:
			/* who cancels it has locked its row, or does so meanwhile */
			batch->waited_for = false;
			dja_claim_put_off(batch, claim, batch->message->key, InvalidTransactionId);
			break;
		case DJA_STALL:
			ereport(LOG,
					(errcode(error->sqlerrcode),
					 errmsg("a batch of djactor is tried again: %s", error->message),
					 error->context ? errcontext("%s", error->context) : 0));
			if (batch->nclaims > 1 || batch->executed > 1)
				dja_run_each_alone(batch);
			return dja_error_is_cancel(error) ? DJA_ABORTED : DJA_STALLED;
		case DJA_END:
			ereport(FATAL,
					(errcode(error->sqlerrcode),
					 errmsg("could not clean a worker's session: %s", error->message)));
	}
	return DJA_ABORTED;
}

/*
 * The turns that were undone begin again, so they do not count for their types' rates.
 */
static void
dja_give_rates_back(DjaBatch *batch)
{
	for (int i = 0; i < batch->nclaims; i++)
	{
		DjaClaim   *claim = batch->claims[i];

		if (claim->rated == 0)
			continue;
		dja_lock();
		if (!claim->type->rate.by)
			dja_rate_give_back(claim->type_queue, 0, claim->rated, batch->started);
		else
			for (int m = 0; m < claim->nmessages; m++)
				if (claim->messages[m]->rated != 0)
					dja_rate_give_back(claim->type_queue, claim->messages[m]->rated, 1, batch->started);
		dja_unlock();
	}
}

/*
 * Decides after an error, which has aborted the transaction, how each claim ends.
 */
DjaOutcome
dja_batch_failed(DjaBatch *batch, DjaError *error)
{
	DjaRemedy	remedy = dja_choose_remedy(batch, error);

	Assert(!IsTransactionState());
	for (int i = 0; i < batch->nclaims; i++)
	{
		batch->claims[i]->end = DJA_END_RETURNED;
		batch->claims[i]->cursor = DJA_CURSOR_START;
		batch->claims[i]->freed = 0;
		batch->claims[i]->long_turn = false;
	}
	batch->waited_for = batch->executed > 1 && dja_error_blame(error) == DJA_BLAME_CONFLICT;
	if (remedy != DJA_RECORD)
		dja_give_rates_back(batch);
	return dja_apply_remedy(remedy, batch, batch->claim, error);
}
