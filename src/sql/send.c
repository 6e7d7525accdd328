/*
 * send.c
 *
 * Sending: the trigger behind INSERT INTO djactor.message, send(), and what
 * the columns' defaults answer while a turn runs.
 *
 * The trigger is called once a statement with what the statement inserted: it
 * checks each row and notes its mailbox for the end of the transaction
 * (pending.c).  It creates no actor, locks no row and waits for nobody.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/pg_prng.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "shmem/run_queue.h"
#include "sql/send.h"
#include "tables/message.h"
#include "turn/dead_letter.h"
#include "turn/turn.h"
#include "xact/copy_check.h"
#include "xact/pending.h"
#include "xact/trace.h"

PG_FUNCTION_INFO_V1(dja_name_hash);
PG_FUNCTION_INFO_V1(dja_mailbox_position);
PG_FUNCTION_INFO_V1(dja_current_headers);
PG_FUNCTION_INFO_V1(dja_current_trace);
PG_FUNCTION_INFO_V1(dja_current_sender_type);
PG_FUNCTION_INFO_V1(dja_current_sender_key);
PG_FUNCTION_INFO_V1(dja_current_cause);
PG_FUNCTION_INFO_V1(dja_self);
PG_FUNCTION_INFO_V1(dja_message);
PG_FUNCTION_INFO_V1(dja_message_sent);
PG_FUNCTION_INFO_V1(dja_refuse_write);
PG_FUNCTION_INFO_V1(dja_send);

/* ---------- the mailbox index ---------- */

Datum
dja_name_hash(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) dja_hash_text(PG_GETARG_TEXT_PP(0)));
}

Datum
dja_mailbox_position(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(dja_position(PG_GETARG_INT16(0), PG_GETARG_INT64(1)));
}

/* ---------- the turn that is running ---------- */

Datum
dja_current_headers(PG_FUNCTION_ARGS)
{
	if (dja_turn.message == NULL || dja_turn.message->nulls[DJA_MSG_HEADERS - 1])
		PG_RETURN_NULL();
	PG_RETURN_DATUM(dja_turn.message->values[DJA_MSG_HEADERS - 1]);
}

/*
 * The trace of the message being handled.  Whoever sends from outside starts a
 * new trace with each transaction: that is one request.
 */
Datum
dja_current_trace(PG_FUNCTION_ARGS)
{
	if (dja_turn.message != NULL)
		PG_RETURN_DATUM(dja_turn.message->values[DJA_MSG_TRACE_ID - 1]);
	PG_RETURN_DATUM(dja_trace_of_transaction());
}

Datum
dja_current_sender_type(PG_FUNCTION_ARGS)
{
	if (dja_turn.message == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(dja_turn.actor->type->name));
}

Datum
dja_current_sender_key(PG_FUNCTION_ARGS)
{
	if (dja_turn.message == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(dja_turn.actor->key);
}

Datum
dja_current_cause(PG_FUNCTION_ARGS)
{
	if (dja_turn.message == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(dja_turn.message->id);
}

/*
 * self(): the actor whose turn is running.
 */
Datum
dja_self(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {0};

	if (dja_turn.actor == NULL)
		PG_RETURN_NULL();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "djactor.self() must return a row");
	values[0] = CStringGetTextDatum(dja_turn.actor->type->name);
	values[1] = PointerGetDatum(dja_turn.actor->key);
	values[2] = Int64GetDatum(dja_turn.actor->turns);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * message(): the message being handled.
 */
Datum
dja_message(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	HeapTuple	tuple;
	Relation	rel;
	Datum		values[DJA_MSG_NATTS];

	if (dja_turn.message == NULL)
		PG_RETURN_NULL();
	memcpy(values, dja_turn.message->values, sizeof(values));
	if (dja_turn.message->fired_meta != 0)
		values[DJA_MSG_META - 1] = dja_turn.message->fired_meta;
	rel = table_open(dja_table_oid(DJA_MESSAGE_TABLE), AccessShareLock);
	desc = RelationGetDescr(rel);
	tuple = heap_form_tuple(desc, values, dja_turn.message->nulls);
	table_close(rel, AccessShareLock);
	/* heap_copy_tuple_as_datum also fetches what is stored out of line */
	PG_RETURN_DATUM(heap_copy_tuple_as_datum(tuple, desc));
}

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
 * Messages of a mailbox that the batch under way has handled, the present one
 * included: their rows are still there, but they wait no more.
 */
static int
dja_mailbox_in_hand(DjaType *type, uint64 key_hash)
{
	DjaClaim   *run = dja_batch_mailbox(type, key_hash);

	if (run == NULL)
		return 0;
	return run->freed + (dja_turn.actor->type == type && dja_turn.actor->key_hash == key_hash &&
						 dja_message_is_kind(dja_turn.message, "user"));
}

/*
 * Is there room in the mailbox for one more?  What waits is known from the run queue,
 * more or less; before anything is refused it is counted.
 */
static bool
dja_mailbox_has_room(DjaType *type, uint64 key_hash, CommandId cid)
{
	int			limit = type->mailbox_limit + dja_mailbox_in_hand(type, key_hash);
	int			base;
	bool		recount;
	int			mine = dja_pending_count(type, key_hash, &base, &recount);
	bool		known;
	int			type_queue;
	int			depth = -1;

	dja_pending_command(type, key_hash, cid);
	if (!recount)
	{
		dja_lock();
		type_queue = dja_type_queue_find(MyDatabaseId, type->hash);
		if (type_queue >= 0)
			depth = dja_queue_depth(type_queue, key_hash);
		dja_unlock();
	}
	known = depth >= 0 || base >= 0 || mine > 0;
	if (depth < 0)
		depth = base;
	if (depth < 0 || depth + mine >= limit)
	{
		depth = dja_message_count(type->hash, key_hash, DJA_CURSOR_START, limit + 1, cid, true);
		if (known)
		{
			mine = dja_pending_counted(type, key_hash, depth);
			return depth + mine < limit;
		}
	}
	dja_pending_set_base_depth(type, key_hash, depth);
	return depth + mine < limit;
}

/*
 * A message for a mailbox that is full, where the type says dead_letter.
 */
static void
dja_reject_full(DjaType *type, int64 id)
{
	DjaFailure	failure = {"mailbox_full", ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, NULL, NULL};
	DjaMessage *message;
	Snapshot	snapshot;

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	message = dja_message_by_id(id, snapshot);
	if (message != NULL)
	{
		failure.error = psprintf("the mailbox holds %d messages, the limit of actor type \"%s\"",
								 type->mailbox_limit, type->name);
		dja_give_up(type, message, &failure);
	}
	UnregisterSnapshot(snapshot);
}

/*
 * One row that was sent.
 */
static void
dja_note_sent(TupleTableSlot *slot, DjaType **last, CommandId cid)
{
	Datum	   *values = slot->tts_values;
	text	   *name;
	text	   *key;
	DjaType    *type = *last;
	uint64		key_hash;
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
	key_hash = dja_hash_text(key);

	if (type->mailbox_limit > 0 && !dja_mailbox_has_room(type, key_hash, cid))
	{
		if (!type->full_dead_letter)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("mailbox of actor %s \"%s\" is full", type->name, text_to_cstring(key)),
					 errdetail("The mailbox limit of the actor type is %d messages.", type->mailbox_limit),
					 errhint("Send again later, or define the actor type with a higher mailbox_limit."),
					 err_generic_string(PG_DIAG_SCHEMA_NAME, "djactor"),
					 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "mailbox_limit")));
		dja_reject_full(type, id);
		return;
	}

	if (slot->tts_isnull[DJA_MSG_DELIVER_AT - 1])
		dja_pending_mailbox(type, key_hash,
							dja_position(DatumGetInt16(values[DJA_MSG_PRIORITY - 1]), id), 1);
	else
		dja_pending_due(type, DatumGetTimestampTz(values[DJA_MSG_DELIVER_AT - 1]));
}

Datum
dja_message_sent(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	TupleTableSlot *slot;
	DjaType    *last = NULL;
	CommandId	cid = GetCurrentCommandId(false);
	MemoryContext context;
	MemoryContext old;

	if (!CALLED_AS_TRIGGER(fcinfo) || data->tg_newtable == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("djactor.message_sent() is the trigger of djactor.message")));
	dja_require_preload();
	dja_catalog_require();
	if (RelationGetRelid(data->tg_relation) != dja_table_oid(DJA_MESSAGE_TABLE))
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

/*
 * Trigger of the tables that nobody writes by hand.
 */
Datum
dja_refuse_write(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	const char *table;
	const char *hint;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("djactor.refuse_write() is a trigger")));
	table = RelationGetRelationName(data->tg_relation);
	if (strcmp(table, "message") == 0)
		hint = "A message is sent with INSERT and cannot be changed; djactor.cancel() takes one back, djactor.drop_actor_type(name, true) discards all mail of a type.";
	else if (strcmp(table, "actor_type") == 0)
		hint = "Use djactor.define_actor_type(), drop_actor_type(), pause() and resume().";
	else if (strcmp(table, "dead_letter") == 0)
		hint = "A dead letter can be deleted, not changed; see djactor.redrive() and discard().";
	else if (strcmp(table, "reply") == 0 || strcmp(table, "journal") == 0)
		hint = "Its rows can be deleted, not changed.";
	else if (strcmp(table, "timer") == 0)
		hint = "Use djactor.schedule() and unschedule(), or in a turn set_timer() and cancel_timer(); djactor.cancel() takes a firing back.";
	else if (strcmp(table, "watch") == 0)
		hint = "An actor watches with djactor.watch() and unwatch().";
	else if (strcmp(table, "idempotency") == 0 || strcmp(table, "home") == 0)
		hint = "It is djactor's own bookkeeping.";
	else
		hint = "Only the column state of djactor.actor may be updated; see djactor.pause() and resume().";
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("table djactor.%s cannot be changed this way", table),
			 errhint("%s", hint)));
	return PointerGetDatum(NULL);	/* not reached */
}

/* ---------- send() ---------- */

/*
 * What send() inserts from its arguments, in the order of dja_message_send().
 */
static void
dja_send_arguments(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
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
	dja_send_arguments(fcinfo, values, nulls);
	PG_RETURN_INT64(dja_message_send(values, nulls));
}
