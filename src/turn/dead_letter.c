/*
 * dead_letter.c
 *
 * The ends of a message other than being handled; see dead_letter.h.
 *
 * Whatever ends a message answers who asked it, lets a periodic timer go on and
 * tells the actor's watchers, in the same transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/snapmgr.h"

#include "base/clock.h"
#include "base/compat.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "shmem/stats.h"
#include "tables/actor.h"
#include "turn/dead_letter.h"
#include "turn/reply.h"
#include "turn/row_lock.h"
#include "turn/timer.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "turn/watch.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_cancel);
PG_FUNCTION_INFO_V1(dja_redrive);
PG_FUNCTION_INFO_V1(dja_discard);

/*
 * Moves a message to djactor.dead_letter, with all that this means to others.
 * Watchers are told of what the actor failed at, not of mail that came too late
 * or was too much.
 */
void
dja_give_up(DjaType *type, DjaMessage *message, DjaFailure *failure)
{
	DjaWriter  *messages = dja_writer_get(DJA_MESSAGE_TABLE);
	DjaWriter  *dead_letters = dja_writer_get(DJA_DEAD_LETTER_TABLE);

	if (message->fired_meta == 0 && dja_message_is_kind(message, "timer"))
		(void) dja_timer_fires(message, dja_clock());
	dja_message_dead(messages, dead_letters, message, failure);
	message->state = DJA_MESSAGE_GONE;
	dja_writer_put(dead_letters);
	dja_writer_put(messages);
	CommandCounterIncrement();

	if (dja_my_worker != NULL)
		dja_stat_count(&type->stat, DJA_STAT_DEAD);
	dja_answer_failure(message, failure->reason, failure->sqlerrcode, failure->error);
	if (dja_message_is_kind(message, "timer"))
		dja_timer_done(message, "dead");
	if (strcmp(failure->reason, "failed") == 0 || strcmp(failure->reason, "rejected") == 0 ||
		strcmp(failure->reason, "crashed") == 0)
		dja_watchers_tell(type, message->key, failure->reason, false);
}

/* ---------- cancel() ---------- */

/*
 * Deletes the row of a message, as it was read.  A turn does not wait for who
 * has it; others do.
 */
static bool
dja_take_message(DjaMessage *message, Snapshot snapshot)
{
	DjaWriter  *writer = dja_writer_get(DJA_MESSAGE_TABLE);
	TM_Result	result = TM_Ok;

	if (dja_turn.actor == NULL)
	{
		TupleTableSlot *slot = table_slot_create(writer->rel, NULL);

		if (!dja_lock_row(writer->rel, &message->tid, snapshot, slot, LockTupleExclusive))
			result = TM_Updated;
		ExecDropSingleTupleTableSlot(slot);
	}
	if (result == TM_Ok)
		result = dja_row_try_delete(writer, &message->tid);
	dja_writer_put(writer);
	if (result != TM_Ok && result != TM_Updated && result != TM_Deleted)
		dja_row_trouble(result);
	CommandCounterIncrement();
	return result == TM_Ok;
}

/*
 * cancel(message_id): true if the message was still there to be taken back.
 */
Datum
dja_cancel(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	DjaMessage *message;
	DjaMessage *mate = dja_batch_message(id);
	DjaType    *type = NULL;
	bool		taken = false;

	PreventCommandIfReadOnly("djactor.cancel()");
	dja_require_preload();
	dja_catalog_require();
	if (dja_turn.message != NULL && dja_turn.message->id == id)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a message that is being handled cannot be cancelled"),
				 errhint("Use djactor.reject().")));
	if (mate != NULL && mate->state != DJA_MESSAGE_OPEN && mate->state != DJA_MESSAGE_ASIDE)
		PG_RETURN_BOOL(false);
	do
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

		message = dja_message_by_id(id, snapshot);
		if (message != NULL)
		{
			text	   *name = DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1]);

			type = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
			if (type != NULL)
				dja_check_can_act_for(type->owner);
			else if (!superuser())
				ereport(ERROR,
						(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						 errmsg("only a superuser may cancel mail of a type that does not exist")));
			taken = dja_take_message(message, snapshot);
		}
		UnregisterSnapshot(snapshot);
		/* it was changed, not handled: once more */
	} while (message != NULL && !taken);
	if (message == NULL)
		PG_RETURN_BOOL(false);

	/* what it may have held back is due now */
	if (type != NULL && message->nulls[DJA_MSG_ASIDE - 1])
	{
		uint64		key_hash = dja_hash_text(message->key);

		dja_pending_mailbox(type, key_hash, message->position, 0);
		dja_pending_recount(type, key_hash);
	}
	if (mate != NULL)
		dja_effect_request(DJA_EFFECT_GONE, NULL, mate);
	if (dja_message_is_aside(message, "deferred"))
		dja_end_deferred(message, "cancelled", "the ask was cancelled");
	else
		dja_answer_failure(message, "cancelled", 0, "the message was cancelled");
	if (dja_message_is_kind(message, "timer"))
		dja_timer_cancelled(message);
	PG_RETURN_BOOL(true);
}

/* ---------- dead letters ---------- */

/*
 * Who may deal with the dead letters of this type: those who may act for its
 * owner, and those who may delete from the table.
 */
static void
dja_check_dead_letter_rights(DjaType *type)
{
	if (dja_table_right(DJA_DEAD_LETTER_TABLE, ACL_DELETE))
		return;
	if (type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", "djactor.dead_letter")));
	dja_check_can_act_for(type->owner);
}

/*
 * Waits for who drops the type of a dead letter, if somebody does.  Only what is
 * read afterwards tells whether there is such a type, and whose it is.
 */
static void
dja_lock_dead_letter_type(int64 id)
{
	Datum		key = Int64GetDatum(id);
	DjaFind		find;

	dja_find_begin(&find, DJA_DEAD_LETTER_TABLE, DJA_DEAD_PKEY, 1, &key);
	if (dja_find_next(&find))
	{
		text	   *name = DatumGetTextPP(find.slot->tts_values[DJA_MSG_ACTOR_TYPE - 1]);

		/* who may not go on need not wait */
		dja_check_dead_letter_rights(dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)));
		dja_type_lock(dja_hash_text(name), AccessShareLock);
	}
	dja_find_end(&find);
}

/*
 * Finds a dead letter and deletes it; its columns, or NULL when there is none.
 * With need_type a type that is gone is an error.
 */
static Datum *
dja_take_dead_letter(int64 id, bool need_type, bool **nulls, DjaType **type)
{
	Datum		key = Int64GetDatum(id);
	Datum	   *values = NULL;
	DjaWriter  *writer;
	DjaFind		find;

	dja_find_begin(&find, DJA_DEAD_LETTER_TABLE, DJA_DEAD_PKEY, 1, &key);
	if (dja_find_next(&find))
	{
		text	   *name = DatumGetTextPP(find.slot->tts_values[DJA_MSG_ACTOR_TYPE - 1]);

		*type = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
		dja_check_dead_letter_rights(*type);
		if (*type == NULL && need_type)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("actor type \"%s\" of message " INT64_FORMAT " does not exist any more",
							text_to_cstring(name), id),
					 errdetail("The message stays in djactor.dead_letter."),
					 errhint("Define the type again, or use djactor.discard().")));
		values = palloc(sizeof(Datum) * DJA_DEAD_NATTS);
		*nulls = palloc(sizeof(bool) * DJA_DEAD_NATTS);
		for (int i = 0; i < DJA_DEAD_NATTS; i++)
		{
			Form_pg_attribute att = TupleDescAttr(find.slot->tts_tupleDescriptor, i);

			(*nulls)[i] = find.slot->tts_isnull[i];
			values[i] = (*nulls)[i] ? (Datum) 0 :
				datumCopy(find.slot->tts_values[i], att->attbyval, att->attlen);
			/* out of line it goes with the row that is deleted */
			if (!(*nulls)[i] && att->attlen == -1)
				values[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(values[i]));
		}
		writer = dja_writer_get(DJA_DEAD_LETTER_TABLE);
		dja_row_delete(writer, &find.slot->tts_tid);
		dja_writer_put(writer);
		CommandCounterIncrement();
	}
	dja_find_end(&find);
	return values;
}

static void
dja_no_dead_letter(int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no dead letter " INT64_FORMAT, id),
			 errhint("See the column id of djactor.dead_letter.")));
}

/*
 * redrive(id): back into its mailbox, under the same id, as if it had never
 * failed.  Who asked has been answered already; its time to expire is over.
 */
Datum
dja_redrive(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	Datum	   *dead;
	bool	   *dead_nulls;
	Datum		values[DJA_MSG_NATTS] = {0};
	bool		nulls[DJA_MSG_NATTS];
	DjaType    *type;
	DjaWriter  *writer;

	PreventCommandIfReadOnly("djactor.redrive()");
	dja_require_preload();
	dja_catalog_require();
	dja_lock_dead_letter_type(id);
	dead = dja_take_dead_letter(id, true, &dead_nulls, &type);
	if (dead == NULL)
		dja_no_dead_letter(id);

	memset(nulls, true, sizeof(nulls));
	memcpy(values, dead, sizeof(Datum) * DJA_MSG_COMMON);
	memcpy(nulls, dead_nulls, sizeof(bool) * DJA_MSG_COMMON);
	nulls[DJA_MSG_DELIVER_AT - 1] = nulls[DJA_MSG_EXPIRES_AT - 1] = nulls[DJA_MSG_RETRY_AT - 1] = true;
	values[DJA_MSG_WANTS_REPLY - 1] = BoolGetDatum(false);
	values[DJA_MSG_ATTEMPTS - 1] = Int32GetDatum(0);
	values[DJA_MSG_CRASHES - 1] = Int16GetDatum(0);
	values[DJA_MSG_REDRIVES - 1] =
		Int16GetDatum(Min(PG_INT16_MAX, DatumGetInt16(dead[DJA_MSG_REDRIVES - 1]) + 1));
	values[DJA_MSG_RELEASED - 1] = BoolGetDatum(false);
	values[DJA_MSG_PUT_OFFS - 1] = Int32GetDatum(0);
	nulls[DJA_MSG_RELEASED - 1] = nulls[DJA_MSG_PUT_OFFS - 1] = false;

	writer = dja_writer_get(DJA_MESSAGE_TABLE);
	dja_row_insert(writer, values, nulls);
	dja_writer_put(writer);
	dja_pending_mailbox(type, dja_hash_text(DatumGetTextPP(values[DJA_MSG_ACTOR_KEY - 1])),
						dja_position(DatumGetInt16(values[DJA_MSG_PRIORITY - 1]), id), 1);
	CommandCounterIncrement();
	PG_RETURN_INT64(id);
}

/*
 * discard(id)
 */
Datum
dja_discard(PG_FUNCTION_ARGS)
{
	bool	   *nulls;
	DjaType    *type;

	PreventCommandIfReadOnly("djactor.discard()");
	dja_require_preload();
	dja_catalog_require();
	if (dja_take_dead_letter(PG_GETARG_INT64(0), false, &nulls, &type) == NULL)
		dja_no_dead_letter(PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}
