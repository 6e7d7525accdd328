/*
 * redrive.c
 *
 * redrive() and discard(): dead letters are sent again, or thrown away.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "shmem/run_queue.h"
#include "tables/message.h"
#include "tables/place.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_redrive);
PG_FUNCTION_INFO_V1(dja_redrive_changed);
PG_FUNCTION_INFO_V1(dja_discard);

/*
 * Raises 42501 unless the user may act for the owner of the dead letter's type,
 * or delete from the table.  To change what a dead letter says is to speak for
 * its sender, so changes need the former.  type is NULL if the type is gone.
 */
static void
dja_check_dead_letter_rights(DjaType *type, bool changes)
{
	if ((type == NULL || !changes) && dja_table_right(DJA_DEAD_LETTER_TABLE, ACL_DELETE))
		return;
	if (type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", "djactor.dead_letter")));
	dja_check_can_act_for(type->owner);
}

/*
 * Waits for a transaction that drops the type of a dead letter.  Only a look
 * afterwards tells whether the type is there, and whose it is.
 */
static void
dja_lock_dead_letter_type(int64 id, bool changes)
{
	Datum		key = Int64GetDatum(id);
	DjaFind		find;

	dja_find_begin(&find, DJA_DEAD_LETTER_TABLE, DJA_DEAD_PKEY, 1, &key, NULL);
	if (dja_find_next(&find))
	{
		text	   *name = DatumGetTextPP(find.slot->tts_values[DJA_MSG_ACTOR_TYPE - 1]);

		/* a user without the right need not wait */
		dja_check_dead_letter_rights(dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)), changes);
		dja_type_lock(dja_hash_text(name), AccessShareLock);
	}
	dja_find_end(&find);
}

/*
 * Deletes a dead letter and returns its type, NULL if that is gone; with need_type
 * this is an error.  Fills values and nulls with its row, DJA_DEAD_NATTS columns.
 */
static DjaType *
dja_take_dead_letter(int64 id, bool need_type, bool changes, Datum *values, bool *nulls)
{
	Datum		key = Int64GetDatum(id);
	DjaWriter  *writer;
	DjaType    *type;
	DjaFind		find;
	text	   *name;

	dja_find_begin(&find, DJA_DEAD_LETTER_TABLE, DJA_DEAD_PKEY, 1, &key, NULL);
	if (!dja_find_next(&find))
	{
		dja_refuse_id_of_other_node(id);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no dead letter " INT64_FORMAT, id),
				 errhint("See the column id of djactor.dead_letter.")));
	}
	name = DatumGetTextPP(find.slot->tts_values[DJA_MSG_ACTOR_TYPE - 1]);
	type = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	dja_check_dead_letter_rights(type, changes);
	if (type == NULL && need_type)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("actor type \"%s\" of message " INT64_FORMAT " does not exist any more",
						text_to_cstring(name), id),
				 errdetail("The message stays in djactor.dead_letter."),
				 errhint("Define the type again, or use djactor.discard().")));
	heap_deform_tuple(ExecCopySlotHeapTuple(find.slot), find.slot->tts_tupleDescriptor, values, nulls);
	if (need_type)
		dja_require_here(DatumGetTextPP(values[DJA_MSG_ACTOR_KEY - 1]));
	writer = dja_writer_get(DJA_DEAD_LETTER_TABLE);
	dja_row_delete(writer, &find.slot->tts_tid);
	dja_writer_put(writer);
	dja_find_end(&find);
	return type;
}

/*
 * Puts a dead letter back into its mailbox, under the same id, as if it had never
 * failed, with another payload unless that is NULL.  Its ask has been answered
 * already, and its time to expire is over.
 */
static void
dja_send_again(int64 id, Jsonb *payload)
{
	Datum		values[Max(DJA_DEAD_NATTS, DJA_MSG_NATTS)];
	bool		nulls[Max(DJA_DEAD_NATTS, DJA_MSG_NATTS)];
	DjaType    *type;
	uint64		key_hash;

	PreventCommandIfReadOnly("djactor.redrive()");
	dja_require_installed();
	dja_lock_dead_letter_type(id, payload != NULL);
	type = dja_take_dead_letter(id, true, payload != NULL, values, nulls);
	if (payload != NULL)
		values[DJA_MSG_PAYLOAD - 1] = JsonbPGetDatum(payload);
	nulls[DJA_MSG_DELIVER_AT - 1] = nulls[DJA_MSG_EXPIRES_AT - 1] = nulls[DJA_MSG_RETRY_AT - 1] = true;
	values[DJA_MSG_WANTS_REPLY - 1] = BoolGetDatum(false);
	values[DJA_MSG_ATTEMPTS - 1] = Int32GetDatum(0);
	values[DJA_MSG_CRASHES - 1] = Int16GetDatum(0);
	values[DJA_MSG_REDRIVES - 1] =
		Int16GetDatum(Min(PG_INT16_MAX, DatumGetInt16(values[DJA_MSG_REDRIVES - 1]) + 1));
	values[DJA_MSG_RELEASED - 1] = BoolGetDatum(false);
	values[DJA_MSG_PUT_OFFS - 1] = Int32GetDatum(0);
	memset(nulls + DJA_MSG_COMMON, true, sizeof(bool) * (DJA_MSG_NATTS - DJA_MSG_COMMON));
	nulls[DJA_MSG_RELEASED - 1] = nulls[DJA_MSG_PUT_OFFS - 1] = false;

	dja_table_insert(DJA_MESSAGE_TABLE, values, nulls);
	key_hash = dja_hash_text(DatumGetTextPP(values[DJA_MSG_ACTOR_KEY - 1]));
	dja_pending_mailbox(type, key_hash, dja_position(DatumGetInt16(values[DJA_MSG_PRIORITY - 1]), id), 1);
	dja_pending_tenant(type, key_hash, values, nulls);
}

/*
 * redrive(id)
 */
Datum
dja_redrive(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);

	dja_send_again(id, NULL);
	PG_RETURN_INT64(id);
}

/*
 * redrive(id, payload)
 */
Datum
dja_redrive_changed(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);

	dja_send_again(id, PG_GETARG_JSONB_P(1));
	PG_RETURN_INT64(id);
}

/*
 * discard(id): deletes a dead letter.
 */
Datum
dja_discard(PG_FUNCTION_ARGS)
{
	Datum		values[DJA_DEAD_NATTS];
	bool		nulls[DJA_DEAD_NATTS];

	PreventCommandIfReadOnly("djactor.discard()");
	dja_require_installed();
	(void) dja_take_dead_letter(PG_GETARG_INT64(0), false, false, values, nulls);
	PG_RETURN_VOID();
}
