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

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/calendar.h"
#include "base/clock.h"
#include "base/compat.h"
#include "shmem/run_queue.h"
#include "sql/mailbox_limit.h"
#include "sql/send.h"
#include "tables/message.h"
#include "tables/place.h"
#include "xact/copy_check.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_message_sent);
PG_FUNCTION_INFO_V1(dja_send);

#define DJA_MAX_SPAN (INT64CONST(36525) * USECS_PER_DAY)	/* 100 years */

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
 * Is this column NULL?  Looks into the tuple itself, since to read a column in its
 * slot means to read all those before it.
 */
static inline bool
dja_sent_is_null(MinimalTuple tuple, int attnum)
{
	return (tuple->t_infomask & HEAP_HASNULL) != 0 && att_isnull(attnum - 1, tuple->t_bits);
}

/*
 * Checks the columns of a message that is to be merged with others.
 */
static void
dja_check_coalesce(TupleTableSlot *slot)
{
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;
	char	   *mode = NULL;
	bool		debounce;

	slot_getallattrs(slot);
	if (!nulls[DJA_MSG_COALESCE_MODE - 1])
		mode = TextDatumGetCString(values[DJA_MSG_COALESCE_MODE - 1]);
	debounce = mode != NULL && strcmp(mode, "debounce") == 0;
	if (nulls[DJA_MSG_COALESCE_KEY - 1])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s needs a coalesce key", mode ? "coalesce_mode" : "coalesce_until"),
				 errhint("Set coalesce_key: messages of an actor with the same key are merged.")));
	dja_check_key(DatumGetTextPP(values[DJA_MSG_COALESCE_KEY - 1]), "coalesce key");
	if (mode != NULL && !debounce && strcmp(mode, "keep") != 0 && strcmp(mode, "replace") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for coalesce_mode: \"%s\"", mode),
				 errhint("Use \"keep\", \"replace\" or \"debounce\".")));
	if (debounce && nulls[DJA_MSG_DELIVER_AT - 1])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("coalesce_mode \"debounce\" needs deliver_at"),
				 errdetail("The message is handled then, unless a later one of its key comes before."),
				 errhint("Set deliver_at, or use djactor.send(debounce => interval).")));
	if (!debounce && !nulls[DJA_MSG_COALESCE_UNTIL - 1])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("coalesce_until needs coalesce_mode \"debounce\""),
				 errdetail("Other messages are not put off by later ones.")));
	if (!nulls[DJA_MSG_IDEMPOTENCY_KEY - 1])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a message cannot have both an idempotency key and a coalesce key"),
				 errdetail("It could be merged into another one, and so not be handled under its idempotency key."),
				 errhint("Leave one of them out.")));
}

/*
 * Checks a row that is sent, in a minimal slot.  Returns its type, and keeps it in
 * last, which is that of the row before, or NULL: rows of one type often come
 * together.  Returns NULL while a dump is restored and the type is not there yet.
 */
DjaType *
dja_check_sent(TupleTableSlot *slot, DjaType **last)
{
	Datum	   *values = slot->tts_values;
	text	   *name;
	text	   *key;
	DjaType    *type = *last;
	MinimalTuple tuple = ExecFetchSlotMinimalTuple(slot, NULL); /* the slot's own */

	slot_getsomeattrs(slot, DJA_MSG_IDEMPOTENCY_KEY);
	name = DatumGetTextPP(values[DJA_MSG_ACTOR_TYPE - 1]);
	key = DatumGetTextPP(values[DJA_MSG_ACTOR_KEY - 1]);

	if (type == NULL || !dja_type_is_named(type, name))
	{
		dja_type_lock(dja_hash_text(name), AccessShareLock);
		type = *last = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
		if (type == NULL && dja_restoring)
			return NULL;		/* the scout finds it, once its type is there */
		if (type == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("actor type \"%s\" does not exist", text_to_cstring(name)),
					 errhint("Define it with djactor.define_actor_type().")));
	}
	dja_check_key(key, "actor key");
	if (!slot->tts_isnull[DJA_MSG_IDEMPOTENCY_KEY - 1])
		dja_check_key(DatumGetTextPP(values[DJA_MSG_IDEMPOTENCY_KEY - 1]), "idempotency key");
	if (!dja_sent_is_null(tuple, DJA_MSG_COALESCE_KEY) || !dja_sent_is_null(tuple, DJA_MSG_COALESCE_MODE) ||
		!dja_sent_is_null(tuple, DJA_MSG_COALESCE_UNTIL))
		dja_check_coalesce(slot);
	return type;
}

/*
 * Checks a row that was inserted by the command cid, and notes what it owes the
 * workers.  limited: the type's mailbox_limit applies.
 */
void
dja_note_sent(TupleTableSlot *slot, DjaType **last, CommandId cid, bool limited)
{
	DjaType    *type = dja_check_sent(slot, last);
	Datum	   *values = slot->tts_values;
	text	   *key = DatumGetTextPP(values[DJA_MSG_ACTOR_KEY - 1]);
	int64		id = DatumGetInt64(values[DJA_MSG_ID - 1]);

	dja_require_here(key);
	if (type == NULL || (limited && !dja_take_mailbox_room(type, key, id, cid)))
		return;
	if (slot->tts_isnull[DJA_MSG_DELIVER_AT - 1])
	{
		uint64		key_hash = dja_hash_text(key);

		dja_pending_mailbox(type, key_hash, dja_position(DatumGetInt16(values[DJA_MSG_PRIORITY - 1]), id), 1);
		dja_pending_tenant(type, key_hash, values, slot->tts_isnull);
	}
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
		dja_require_installed();
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
		dja_note_sent(slot, &last, cid, true);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

/* ---------- send() ---------- */

/*
 * Returns a span of time that was given to send(), in microseconds.
 */
static int64
dja_send_span(FunctionCallInfo fcinfo, int arg, const char *name)
{
	int64		usec = dja_interval_usec(PG_GETARG_INTERVAL_P(arg));

	if (DJA_INTERVAL_INFINITE(PG_GETARG_INTERVAL_P(arg)) || usec <= 0 || usec > DJA_MAX_SPAN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be positive and at most 100 years", name)));
	return usec;
}

/*
 * Computes deliver_at, coalesce_mode and coalesce_until from debounce and
 * debounce_limit, which stand at 11 and 12 in the call.
 */
static void
dja_read_debounce(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TimestampTz now = dja_clock();
	int64		debounce = 0;
	int64		limit = 0;

	if (PG_ARGISNULL(11) && PG_ARGISNULL(12))
		return;
	if (PG_ARGISNULL(11))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("debounce_limit needs debounce"),
				 errhint("Set debounce: the message is handled when none of its key has come for that long.")));
	debounce = dja_send_span(fcinfo, 11, "debounce");
	if (!nulls[4])
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("debounce and deliver_at exclude each other"),
				 errhint("debounce sets deliver_at.")));
	if (!nulls[10] && strcmp(TextDatumGetCString(values[10]), "debounce") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("debounce needs coalesce_mode \"debounce\""),
				 errhint("Leave coalesce_mode out.")));
	values[4] = TimestampTzGetDatum(now + debounce);
	values[10] = CStringGetTextDatum("debounce");
	nulls[4] = nulls[10] = false;
	if (PG_ARGISNULL(12))
		return;
	limit = dja_send_span(fcinfo, 12, "debounce_limit");
	if (limit < debounce)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("debounce_limit must not be less than debounce")));
	values[11] = TimestampTzGetDatum(now + limit);
	nulls[11] = false;
}

/*
 * Fills values and nulls, in the order of dja_message_send(), from the arguments
 * of send().
 */
static void
dja_read_send_arguments(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	/*
	 * headers stand before wants_reply in the call, and behind it in the
	 * INSERT
	 */
	static const int order[DJA_SEND_NARGS - 1] = {0, 1, 2, 3, 4, 5, 6, 8, 7, 9, 10};

	nulls[DJA_SEND_NARGS - 1] = true;
	for (int i = 0; i < DJA_SEND_NARGS - 1; i++)
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
	dja_read_debounce(fcinfo, values, nulls);
}

/*
 * send(actor_type, actor_key, payload, priority, deliver_at, expires_at,
 * idempotency_key, headers, wants_reply, coalesce_key, coalesce_mode, debounce,
 * debounce_limit)
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
