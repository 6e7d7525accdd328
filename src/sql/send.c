/*
 * send.c
 *
 * Sending: the trigger behind INSERT INTO djactor.message, and send().
 *
 * The trigger is called once for a statement, with the rows that it inserted.
 * It checks each row and notes its mailbox for the end of the transaction
 * (pending.c).  It creates no actor, locks no row and does not wait.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "shmem/run_queue.h"
#include "sql/mailbox_limit.h"
#include "sql/send.h"
#include "tables/message.h"
#include "xact/copy_check.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_message_sent);
PG_FUNCTION_INFO_V1(dja_send);

/* ---------- the trigger ---------- */

void
dja_check_key(text *key, const char *what)
{
	int			len = VARSIZE_ANY_EXHDR(key);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	if (len > DJA_KEY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", what),
				 errdetail("It has %d bytes, the limit is %d.", len, DJA_KEY_MAX),
				 errhint("Use a hash of the key instead.")));
}

/*
 * Checks a row that was inserted, and notes what it owes the workers.  last is
 * the type of the row before, or NULL: rows of one type often come together.
 */
static void
dja_note_sent(TupleTableSlot *slot, DjaType **last, CommandId cid)
{
	Datum	   *values = slot->tts_values;
	text	   *name;
	text	   *key;
	DjaType    *type = *last;
	int64		id;

	slot_getsomeattrs(slot, DJA_MSG_IDEMPOTENCY_KEY);
	name = DatumGetTextPP(values[DJA_MSG_ACTOR_TYPE - 1]);
	key = DatumGetTextPP(values[DJA_MSG_ACTOR_KEY - 1]);
	id = DatumGetInt64(values[DJA_MSG_ID - 1]);

	if (type == NULL || !dja_type_is_named(type, name))
	{
		dja_type_lock(dja_hash_text(name), AccessShareLock);
		type = *last = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
		if (type == NULL && dja_restoring)
			return;				/* the scout finds it, once its type is there */
		if (type == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("actor type \"%s\" does not exist", text_to_cstring(name)),
					 errhint("Define it with djactor.define_actor_type().")));
	}
	dja_check_key(key, "actor key");
	if (!slot->tts_isnull[DJA_MSG_IDEMPOTENCY_KEY - 1])
		dja_check_key(DatumGetTextPP(values[DJA_MSG_IDEMPOTENCY_KEY - 1]), "idempotency key");
	if (!dja_take_mailbox_room(type, key, id, cid))
		return;
	if (slot->tts_isnull[DJA_MSG_DELIVER_AT - 1])
		dja_pending_mailbox(type, dja_hash_text(key),
							dja_position(DatumGetInt16(values[DJA_MSG_PRIORITY - 1]), id), 1);
	else
		dja_pending_due(type, DatumGetTimestampTz(values[DJA_MSG_DELIVER_AT - 1]));
}

/*
 * message_sent(): the trigger.
 */
Datum
dja_message_sent(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	bool		ours = CALLED_AS_TRIGGER(fcinfo) && data->tg_newtable != NULL;
	TupleTableSlot *slot;
	DjaType    *last = NULL;
	CommandId	cid = GetCurrentCommandId(false);
	MemoryContext context;
	MemoryContext old;

	if (ours)
	{
		dja_require_preload();
		dja_catalog_require();
		ours = RelationGetRelid(data->tg_relation) == dja_table_oid(DJA_MESSAGE_TABLE);
	}
	if (!ours)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("djactor.message_sent() is the trigger of djactor.message")));
	dja_home_sending();

	context = AllocSetContextCreate(CurrentMemoryContext, "djactor sending", ALLOCSET_SMALL_SIZES);
	slot = MakeSingleTupleTableSlot(RelationGetDescr(data->tg_relation), &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(data->tg_newtable, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(context);
		dja_note_sent(slot, &last, cid);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

/* ---------- send() ---------- */

/*
 * Fills values and nulls, in the order of dja_message_send(), from the arguments
 * of send().
 */
static void
dja_read_send_arguments(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	/* headers stand before wants_reply in the call, and last in the INSERT */
	static const int order[DJA_SEND_NARGS] = {0, 1, 2, 3, 4, 5, 6, 8, 7};

	for (int i = 0; i < DJA_SEND_NARGS; i++)
	{
		values[i] = PG_GETARG_DATUM(order[i]);
		nulls[i] = PG_ARGISNULL(order[i]);
	}
	if (nulls[3])
		values[3] = Int16GetDatum(0);
	else
	{
		int32		priority = DatumGetInt32(values[3]);

		if (priority < PG_INT16_MIN || priority > PG_INT16_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("priority %d is out of range", priority),
					 errhint("Use a value between %d and %d.", PG_INT16_MIN, PG_INT16_MAX)));
		values[3] = Int16GetDatum((int16) priority);
	}
	nulls[3] = false;
	nulls[7] |= !DatumGetBool(values[7]);	/* the default */
}

/*
 * send(actor_type, actor_key, payload, priority, deliver_at, expires_at,
 * idempotency_key, headers, wants_reply)
 */
Datum
dja_send(PG_FUNCTION_ARGS)
{
	Datum		values[DJA_SEND_NARGS];
	bool		nulls[DJA_SEND_NARGS];

	dja_require_preload();
	dja_read_send_arguments(fcinfo, values, nulls);
	PG_RETURN_INT64(dja_message_send(values, nulls));
}
