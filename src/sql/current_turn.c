/*
 * current_turn.c
 *
 * The turn that this session runs, as SQL sees it: self(), message(), and the
 * defaults of those columns of djactor.message that say by whom and why a
 * message was sent.  Outside a turn all of them are NULL, except for the trace.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "turn/turn.h"
#include "xact/trace.h"

PG_FUNCTION_INFO_V1(dja_current_headers);
PG_FUNCTION_INFO_V1(dja_current_trace);
PG_FUNCTION_INFO_V1(dja_current_sender_type);
PG_FUNCTION_INFO_V1(dja_current_sender_key);
PG_FUNCTION_INFO_V1(dja_current_cause);
PG_FUNCTION_INFO_V1(dja_self);
PG_FUNCTION_INFO_V1(dja_message);

Datum
dja_current_headers(PG_FUNCTION_ARGS)
{
	if (dja_turn.message == NULL || dja_turn.message->nulls[DJA_MSG_HEADERS - 1])
		PG_RETURN_NULL();
	PG_RETURN_DATUM(dja_turn.message->values[DJA_MSG_HEADERS - 1]);
}

/*
 * current_trace(): the trace of the message that is being handled.  Outside a
 * turn each transaction has a trace of its own, since it is one request.
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
 * self(): the actor whose turn is running, as a row.
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
 * message(): the message that is being handled, as a row.
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
