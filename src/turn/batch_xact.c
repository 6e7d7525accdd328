/*
 * batch_xact.c
 *
 * A transaction of a batch: its beginning, with all that its turns will need, and its
 * end; see visit.h.
 *
 * Handled messages are deleted and changed actors written only at the end, all at
 * once.  Failures under a savepoint are written immediately, in the same transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/grow.h"
#include "tables/publication.h"
#include "tables/type_settings.h"
#include "turn/turn.h"
#include "turn/visit.h"

#define DJA_KEPT_BYTES ((Size) 1024 * 1024) /* from batch to batch */

/*
 * A worker's memory for what its batches read.  It is kept from one batch to
 * the next, since a batch needs much for a moment, and each new page costs as
 * much as a turn.
 */
static MemoryContext dja_worker_memory = NULL;

DjaBatch *
dja_batch_create(bool own_transaction, DjaMode mode)
{
	MemoryContext context = AllocSetContextCreate(own_transaction ? TopMemoryContext : CurrentMemoryContext,
												  "djactor batch", ALLOCSET_DEFAULT_SIZES);
	DjaBatch   *batch = MemoryContextAllocZero(context, sizeof(DjaBatch));

	if (own_transaction && dja_worker_memory == NULL)
		dja_worker_memory = AllocSetContextCreate(TopMemoryContext, "djactor batch memory",
												  DJA_KEPT_BYTES, DJA_KEPT_BYTES,
												  ALLOCSET_DEFAULT_MAXSIZE);
	batch->context = context;
	batch->memory = own_transaction ? dja_worker_memory :
		AllocSetContextCreate(context, "djactor batch memory", ALLOCSET_DEFAULT_SIZES);
	batch->turn = AllocSetContextCreate(context, "djactor turn", ALLOCSET_DEFAULT_SIZES);
	batch->own_transaction = own_transaction;
	batch->mode = mode;
	return batch;
}

/*
 * Frees a batch whose claims have been given back.
 */
void
dja_batch_free(DjaBatch *batch)
{
	MemoryContextReset(batch->memory);
	MemoryContextDelete(batch->context);
}

/*
 * Takes a mailbox that this backend has claimed into the batch.  Returns the claim.
 */
DjaClaim *
dja_batch_add(DjaBatch *batch, int mailbox)
{
	DjaClaim   *claim = MemoryContextAllocZero(batch->context, sizeof(DjaClaim));

	Assert(batch->phase == DJA_PHASE_READING);
	Assert(dja_mailbox(mailbox)->state == DJA_MAILBOX_RUNNING);
	Assert(dja_mailbox(mailbox)->claimer == (batch->hosted ? DJA_HOSTED_PROC : dja_my_procno()));
	batch->claims = dja_grow(batch->context, batch->claims, sizeof(DjaClaim *), batch->nclaims,
							 &batch->max_claims);
	batch->claims[batch->nclaims++] = claim;

	/* a claimed mailbox stays where it is, so these need no lock */
	claim->mailbox = mailbox;
	claim->type_queue = dja_mailbox(mailbox)->type_queue;
	claim->key_hash = dja_mailbox(mailbox)->key_hash;
	claim->type_hash = dja_type_queue(claim->type_queue)->type_hash;
	claim->start = claim->cursor = DJA_CURSOR_START;
	claim->end = DJA_END_RETURNED;
	ItemPointerSetInvalid(&claim->first);
	return claim;
}

/*
 * Begins the batch's part of a transaction, or of another one after an abort.  Needs
 * a transaction, and the caller must have checked the extension.
 */
void
dja_batch_begin(DjaBatch *batch)
{
	MemoryContext old;

	Assert(IsTransactionState() && (batch->nclaims > 0 || batch->hosted));
	Assert(dja_turn.actor == NULL);
	MemoryContextReset(batch->memory);
	MemoryContextReset(batch->turn);
	for (int i = 0; i < batch->nclaims; i++)
	{
		batch->claims[i]->type = NULL;
		batch->claims[i]->actors = NULL;
		batch->claims[i]->messages = NULL;
		batch->claims[i]->nmessages = batch->claims[i]->max_messages = batch->claims[i]->next = 0;
		batch->claims[i]->removed = batch->claims[i]->freed = batch->claims[i]->rated = 0;
		ItemPointerSetInvalid(&batch->claims[i]->first);
	}
	batch->writing = batch->executed = batch->turns = 0;
	batch->claim = NULL;
	batch->message = NULL;
	batch->phase = DJA_PHASE_READING;
	batch->nhandled = batch->max_handled = 0;
	batch->handled = NULL;
	dja_turn_batch(batch);

	old = MemoryContextSwitchTo(batch->memory);
	dja_check_published();
	dja_writers_keep(batch->memory);
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
#define ST_COMPARE(a, b) ((a)->row < (b)->row ? -1 : (a)->row > (b)->row)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/*
 * Deletes the messages that were handled, and writes the actors that were changed.
 * Raises an error if any row is not as it was read.  Then all of it starts over.
 */
void
dja_batch_write(DjaBatch *batch)
{
	MemoryContext old = MemoryContextSwitchTo(batch->memory);

	Assert(batch->phase == DJA_PHASE_READING && dja_turn.actor == NULL);
	/* neighbours share pages */
	batch->phase = DJA_PHASE_WRITING;
	dja_check_published();
	dja_sort_handled(batch->handled, batch->nhandled);
	for (int i = 0; i < batch->nhandled; i++)
	{
		ItemPointerData tid;

		batch->claim = batch->handled[i].claim;
		dja_tid_decode(batch->handled[i].row, &tid);
		dja_row_delete(batch->messages, &tid);
	}
	batch->nhandled = 0;

	for (int r = 0; r < batch->nclaims; r++)
	{
		for (DjaActor *actor = batch->claims[r]->actors; actor != NULL; actor = actor->next)
		{
			if (!actor->dirty)
				continue;
			batch->claim = batch->claims[r];
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
