/*
 * attempt.c
 *
 * What stands in one transaction: its beginning, with all that its turns will
 * want, and its end; see run.h.
 *
 * Handled messages are deleted and touched actors written only at the end, in
 * one go.  Failures under a savepoint are written at once, in the same
 * transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "published.h"
#include "run.h"
#include "settings.h"
#include "storage/bufmgr.h"
#include "turn.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define DJA_KEPT_BYTES ((Size) 1024 * 1024) /* from batch to batch */

/*
 * A worker's memory for what its batches read: kept from one to the next, since a
 * batch wants much for a moment, and each new page of it costs as much as a turn.
 */
static MemoryContext dja_worker_attempt = NULL;

DjaBatch *
dja_batch_create(bool own_transaction, DjaMode mode)
{
	MemoryContext context = AllocSetContextCreate(own_transaction ? TopMemoryContext : CurrentMemoryContext,
												  "djactor batch", ALLOCSET_DEFAULT_SIZES);
	DjaBatch   *batch = MemoryContextAllocZero(context, sizeof(DjaBatch));

	if (own_transaction && dja_worker_attempt == NULL)
		dja_worker_attempt = AllocSetContextCreate(TopMemoryContext, "djactor attempt",
												   DJA_KEPT_BYTES, DJA_KEPT_BYTES,
												   ALLOCSET_DEFAULT_MAXSIZE);
	batch->context = context;
	batch->attempt = own_transaction ? dja_worker_attempt :
		AllocSetContextCreate(context, "djactor attempt", ALLOCSET_DEFAULT_SIZES);
	batch->turn = AllocSetContextCreate(context, "djactor turn", ALLOCSET_DEFAULT_SIZES);
	batch->own_transaction = own_transaction;
	batch->mode = mode;
	return batch;
}

/*
 * The batch is over, and its claims given back.
 */
void
dja_batch_free(DjaBatch *batch)
{
	MemoryContextReset(batch->attempt);
	MemoryContextDelete(batch->context);
}

/*
 * Takes a claimed mailbox into the batch.
 */
DjaRun *
dja_batch_add(DjaBatch *batch, int mailbox)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	DjaRun	   *run = palloc0(sizeof(DjaRun));

	if (batch->nruns == batch->max_runs)
	{
		batch->max_runs = Max(64, 2 * batch->max_runs);
		batch->runs = batch->runs == NULL ? palloc(sizeof(DjaRun *) * batch->max_runs) :
			repalloc(batch->runs, sizeof(DjaRun *) * batch->max_runs);
	}
	batch->runs[batch->nruns++] = run;

	/* a claimed mailbox stays where it is, so these need no lock */
	run->mailbox = mailbox;
	run->lane = dja_mailbox(mailbox)->lane;
	run->key_hash = dja_mailbox(mailbox)->key_hash;
	run->type_hash = dja_lane(run->lane)->type_hash;
	run->start = run->cursor = DJA_CURSOR_START;
	run->end = DJA_END_RETURNED;
	ItemPointerSetInvalid(&run->first);
	MemoryContextSwitchTo(old);
	return run;
}

/*
 * A transaction begins, or another one after an abort.  The caller has checked
 * the extension.
 */
void
dja_batch_begin(DjaBatch *batch)
{
	MemoryContext old;

	MemoryContextReset(batch->attempt);
	MemoryContextReset(batch->turn);
	for (int i = 0; i < batch->nruns; i++)
	{
		batch->runs[i]->type = NULL;
		batch->runs[i]->actors = NULL;
		batch->runs[i]->messages = NULL;
		batch->runs[i]->nmessages = batch->runs[i]->max_messages = batch->runs[i]->next = 0;
		batch->runs[i]->removed = batch->runs[i]->freed = 0;
		ItemPointerSetInvalid(&batch->runs[i]->first);
	}
	batch->writing = batch->executed = batch->turns = 0;
	batch->run = NULL;
	batch->message = NULL;
	batch->phase = DJA_PHASE_READING;
	batch->nhandled = batch->max_handled = 0;
	batch->handled = NULL;
	dja_turn_batch(batch);

	old = MemoryContextSwitchTo(batch->attempt);
	dja_check_published();
	dja_writers_keep(batch->attempt);
	batch->messages = dja_writer_get(DJA_MESSAGE_TABLE);
	batch->actors = dja_writer_get(DJA_ACTOR_TABLE);
	batch->identities = dja_writer_get(DJA_IDENTITY_TABLE);
	batch->message_slot = table_slot_create(batch->messages->rel, NULL);
	batch->actor_slot = table_slot_create(batch->actors->rel, NULL);
	batch->actor_blocks = RelationGetNumberOfBlocks(batch->actors->rel);
	MemoryContextSwitchTo(old);

	dja_settings_open();
	/* for what is read and written between the turns */
	PushActiveSnapshot(GetTransactionSnapshot());
}

/* ---------- writing ---------- */

#define ST_SORT dja_sort_handled
#define ST_ELEMENT_TYPE DjaHandled
#define ST_COMPARE(a, b) ((a)->place < (b)->place ? -1 : (a)->place > (b)->place)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * Deletes what was handled, writes the actors that were touched.  Any row that
 * is not as it was read makes this raise an error: then all of it starts over.
 */
void
dja_batch_write(DjaBatch *batch)
{
	MemoryContext old = MemoryContextSwitchTo(batch->attempt);

	/* neighbours share pages */
	batch->phase = DJA_PHASE_WRITING;
	dja_check_published();
	dja_sort_handled(batch->handled, batch->nhandled);
	for (int i = 0; i < batch->nhandled; i++)
	{
		ItemPointerData tid;

		batch->run = batch->handled[i].run;
		dja_place_tid(batch->handled[i].place, &tid);
		dja_row_delete(batch->messages, &tid);
	}
	batch->nhandled = 0;

	for (int r = 0; r < batch->nruns; r++)
	{
		for (DjaActor *actor = batch->runs[r]->actors; actor != NULL; actor = actor->next)
		{
			if (!actor->dirty)
				continue;
			batch->run = batch->runs[r];
			dja_actor_write(actor, batch->actors, batch->identities);
		}
	}
	PopActiveSnapshot();
	dja_settings_close();
	CommandCounterIncrement();

	ExecDropSingleTupleTableSlot(batch->message_slot);
	ExecDropSingleTupleTableSlot(batch->actor_slot);
	dja_writers_close();
	MemoryContextSwitchTo(old);
	dja_turn_batch(NULL);
}
