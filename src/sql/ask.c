/*
 * ask.c
 *
 * wait_reply(), wait_replies() and CALL ask(): waiting, outside of actors, for the
 * answers to asks.
 *
 * The answer is a row of djactor.reply.  A session that waits enters itself in
 * shared memory (waiters.c) before it looks, and is woken after the commit that
 * answers; so it misses nothing.  Each look has a snapshot of its own.  Between
 * two looks the procedures hold nothing, and the function holds its caller's
 * snapshot (wait.c).
 *
 * Who waits for many answers waits for the first one that is missing, and then looks
 * for the next.  It has to wait for the last one anyway, and so each answer is looked
 * for a few times only, however many there are.
 *
 * A wait that cannot end is refused at once (contract 17): inside a turn, and
 * in the transaction that has sent the message, which no worker sees yet.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/calendar.h"
#include "base/compat.h"
#include "base/json.h"
#include "shmem/shmem.h"
#include "shmem/waiters.h"
#include "sql/wait.h"
#include "tables/message.h"
#include "tables/place.h"
#include "turn/failure.h"
#include "turn/turn.h"

PG_FUNCTION_INFO_V1(dja_wait_reply);
PG_FUNCTION_INFO_V1(dja_call_wait_reply);
PG_FUNCTION_INFO_V1(dja_wait_replies);
PG_FUNCTION_INFO_V1(dja_call_wait_replies);
PG_FUNCTION_INFO_V1(dja_ask);

#define DJA_LOOK_MS 1000		/* the net below the latch */

/* An ask, and its answer once that is there. */
typedef struct DjaAwaited
{
	int64		id;
	bool		found;
	Datum		payload;		/* 0 = an error */
	Datum		error;
} DjaAwaited;

static void
dja_refuse_wait(const char *function)
{
	if (dja_turn.actor != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s cannot be called inside a turn", function),
				 errdetail("No turn waits for another actor."),
				 errhint("Send with wants_reply: the answer comes as a message of kind reply or error.")));
}

static int64
dja_check_timeout(Interval *timeout)
{
	int64		usec = -1;

	if (timeout != NULL && !DJA_INTERVAL_INFINITE(timeout))
		usec = dja_interval_usec(timeout);
	if (usec < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be null, negative or infinite")));
	return usec;
}

/*
 * Does row security let the user see that answer?  A SELECT has to tell, since
 * the access methods know no policies.
 */
static bool
dja_may_see_reply(int64 id)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(id)};
	Snapshot	snapshot;
	SPIPlanPtr	plan;
	bool		seen;

	if (check_enable_rls(dja_table_oid(DJA_REPLY_TABLE), InvalidOid, false) != RLS_ENABLED)
		return true;
	SPI_connect();
	plan = SPI_prepare(psprintf("SELECT FROM %s WHERE message_id OPERATOR(pg_catalog.=) $1",
								dja_table_name(DJA_REPLY_TABLE)), 1, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare the SELECT of djactor.wait_reply()");
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (SPI_execute_snapshot(plan, values, NULL, snapshot, InvalidSnapshot, true, false, 1) < 0)
		elog(ERROR, "could not execute the SELECT of djactor.wait_reply()");
	seen = SPI_processed > 0;
	UnregisterSnapshot(snapshot);
	SPI_finish();
	return seen;
}

/*
 * Looks for an answer once, and copies it.
 */
static bool
dja_find_answer(DjaAwaited *answer)
{
	Datum		key = Int64GetDatum(answer->id);
	DjaFind		find;

	dja_find_begin(&find, DJA_REPLY_TABLE, DJA_REPLY_PKEY, 1, &key, NULL);
	answer->found = dja_find_next(&find);
	answer->payload = answer->error = 0;
	if (answer->found)
	{
		bool		failed = !find.slot->tts_isnull[DJA_REPLY_ERROR - 1];
		Datum		json = find.slot->tts_values[failed ? DJA_REPLY_ERROR - 1 : DJA_REPLY_PAYLOAD - 1];

		*(failed ? &answer->error : &answer->payload) = PointerGetDatum(PG_DETOAST_DATUM_COPY(json));
	}
	dja_find_end(&find);
	return answer->found;
}

/*
 * Looks for an answer once.  Returns true with its payload, false if there is
 * none yet; raises JA002 if it is an error.
 */
static bool
dja_look_for_reply(int64 id, Datum *payload)
{
	DjaAwaited	answer = {.id = id};

	if (dja_find_answer(&answer) && answer.error != 0)
	{
		Jsonb	   *json = DatumGetJsonbP(answer.error);

		ereport(ERROR,
				(errcode(DJA_ERRCODE_ASK_FAILED),
				 errmsg("message " INT64_FORMAT " was answered by an error", id),
				 errdetail_internal("%s", JsonbToCString(NULL, &json->root, VARSIZE(json)))));
	}
	*payload = answer.payload;
	return answer.found;
}

/*
 * Raises an error if no answer can come, as far as the message's row tells.
 */
static void
dja_check_ask(int64 id)
{
	Datum		key = Int64GetDatum(id);
	DjaFind		find;
	TransactionId xmin = InvalidTransactionId;
	bool		asks = true;

	dja_find_begin(&find, DJA_MESSAGE_TABLE, DJA_MESSAGE_PKEY, 1, &key, NULL);
	if (dja_find_next(&find))
	{
		bool		isnull;

		xmin = DatumGetTransactionId(slot_getsysattr(find.slot, MinTransactionIdAttributeNumber,
													 &isnull));
		asks = DatumGetBool(find.slot->tts_values[DJA_MSG_WANTS_REPLY - 1]);
	}
	else
		dja_refuse_ask_of_other_node(id);
	dja_find_end(&find);
	if (!asks)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message " INT64_FORMAT " wants no reply", id),
				 errhint("Send it with wants_reply.")));
	if (TransactionIdIsValid(xmin) && TransactionIdIsCurrentTransactionId(xmin))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for a reply in the transaction that has sent the message"),
				 errdetail("Workers see the message only after the commit."),
				 errhint("Commit first; in a test that never commits call djactor.drain() before.")));
}

/*
 * Waits for an answer, timeout microseconds at most, and returns its payload.
 * With commit it holds no snapshot meanwhile.  With asked, which is for ask(), row
 * security does not apply.
 */
static Datum
dja_await_reply(int64 id, int64 timeout, bool commit, bool asked)
{
	static uint32 wait_event = 0;
	TimestampTz until = GetCurrentTimestamp() + timeout;
	volatile Datum payload = 0;
	volatile bool found = false;

	PG_TRY();
	{
		for (;;)
		{
			TimestampTz now;
			Datum		answer = 0;

			dja_wait_for(id);
			found = (asked || dja_may_see_reply(id)) && dja_look_for_reply(id, &answer);
			payload = answer;
			if (found)
				break;
			dja_check_ask(id);
			now = GetCurrentTimestamp();
			if (now >= until)
				break;
			dja_nap(commit, Min(DJA_LOOK_MS, (long) ((until - now) / 1000 + 1)),
					DJA_WAIT_EVENT(wait_event, "DjactorWaitReply"));
		}
	}
	PG_FINALLY();
	{
		dja_wait_over();
	}
	PG_END_TRY();
	if (!found)
		ereport(ERROR,
				(errcode(DJA_ERRCODE_TIMEOUT),
				 errmsg("no reply to message " INT64_FORMAT " in time", id),
				 errdetail("The outcome is unknown: the message may still be handled."),
				 errhint("See djactor.outcome(), and djactor.wait_reply() for a late reply.")));
	return payload;
}

/*
 * Waits for many answers, timeout microseconds at most.  With commit it holds no
 * snapshot meanwhile.
 */
static void
dja_await_replies(DjaAwaited *answers, int n, int64 timeout, bool commit)
{
	static uint32 wait_event = 0;
	TimestampTz until = GetCurrentTimestamp() + timeout;

	/* what cannot be waited for is refused at once */
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!dja_may_see_reply(answers[i].id) || !dja_find_answer(&answers[i]))
			dja_check_ask(answers[i].id);
	}
	PG_TRY();
	{
		for (int i = 0; i < n; i++)
		{
			while (!answers[i].found)
			{
				TimestampTz now;

				CHECK_FOR_INTERRUPTS();
				dja_wait_for(answers[i].id);
				if (dja_may_see_reply(answers[i].id) && dja_find_answer(&answers[i]))
					break;
				now = GetCurrentTimestamp();
				if (now >= until)
					break;		/* a look at each of the others */
				dja_nap(commit, Min(DJA_LOOK_MS, (long) ((until - now) / 1000 + 1)),
						DJA_WAIT_EVENT(wait_event, "DjactorWaitReply"));
			}
		}
	}
	PG_FINALLY();
	{
		dja_wait_over();
	}
	PG_END_TRY();
}

/*
 * Checks the arguments of what waits for replies and returns the timeout.
 */
static int64
dja_check_wait_reply(FunctionCallInfo fcinfo, const char *function, const char *argument)
{
	int64		timeout;

	dja_require_installed();
	dja_refuse_wait(function);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", argument)));
	timeout = dja_check_timeout(PG_ARGISNULL(1) ? NULL : PG_GETARG_INTERVAL_P(1));
	if (pg_class_aclcheck(dja_table_oid(DJA_REPLY_TABLE), GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", "djactor.reply"),
				 errhint("Grant SELECT on it to who waits for replies.")));
	return timeout;
}

/*
 * wait_reply(message_id, timeout)
 */
Datum
dja_wait_reply(PG_FUNCTION_ARGS)
{
	int64		timeout = dja_check_wait_reply(fcinfo, "wait_reply()", "message_id");

	PG_RETURN_DATUM(dja_await_reply(PG_GETARG_INT64(0), timeout, false, false));
}

/*
 * CALL wait_reply(message_id, timeout, INOUT reply): commits, waits.
 */
Datum
dja_call_wait_reply(PG_FUNCTION_ARGS)
{
	int64		timeout = dja_check_wait_reply(fcinfo, "wait_reply()", "message_id");
	int64		id = PG_GETARG_INT64(0);
	TupleDesc	row;

	row = dja_call_begin(fcinfo, "CALL wait_reply()",
						 "It commits, so that it holds no snapshot while it waits.",
						 "Commit first, or use SELECT djactor.wait_reply(), which keeps the snapshot of its statement.");
	SPI_commit();
	return dja_call_end(row, dja_await_reply(id, timeout, true, false));
}

/*
 * Takes the ids from the arguments, into memory that outlives a commit.
 */
static DjaAwaited *
dja_asked_ids(FunctionCallInfo fcinfo, int *n)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	DjaAwaited *answers;
	Datum	   *ids;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("ids must have one dimension")));
	if (array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("ids must not contain nulls")));
	deconstruct_array(array, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, NULL, n);
	answers = palloc0(sizeof(DjaAwaited) * Max(1, *n));
	for (int i = 0; i < *n; i++)
		answers[i].id = DatumGetInt64(ids[i]);
	return answers;
}

/*
 * wait_replies(ids, timeout): a row for each ask that was answered in time, in the
 * order of the ids.
 */
Datum
dja_wait_replies(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		timeout = dja_check_wait_reply(fcinfo, "wait_replies()", "ids");
	DjaAwaited *answers;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	answers = dja_asked_ids(fcinfo, &n);
	dja_await_replies(answers, n, timeout, false);
	for (int i = 0; i < n; i++)
	{
		Datum		values[3] = {Int64GetDatum(answers[i].id), answers[i].payload, answers[i].error};
		bool		nulls[3] = {false, answers[i].payload == 0, answers[i].error == 0};

		if (answers[i].found)
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * CALL wait_replies(ids, timeout, INOUT replies): commits, waits.
 */
Datum
dja_call_wait_replies(PG_FUNCTION_ARGS)
{
	int64		timeout = dja_check_wait_reply(fcinfo, "wait_replies()", "ids");
	int			n;
	DjaAwaited *answers = dja_asked_ids(fcinfo, &n);
	TupleDesc	row;
	Datum	   *objects;
	int			found = 0;

	row = dja_call_begin(fcinfo, "CALL wait_replies()",
						 "It commits, so that it holds no snapshot while it waits.",
						 "Commit first, or use SELECT * FROM djactor.wait_replies(), which keeps the snapshot of its statement.");
	SPI_commit();
	dja_await_replies(answers, n, timeout, true);
	objects = palloc(sizeof(Datum) * Max(1, n));
	for (int i = 0; i < n; i++)
	{
		DjaPair		pairs[] = {
			DJA_PAIR_NUMBER("message_id", answers[i].id),
			{"reply", NULL, (Jsonb *) DatumGetPointer(answers[i].payload), 0, false},
			{"error", NULL, (Jsonb *) DatumGetPointer(answers[i].error), 0, false},
		};

		if (answers[i].found)
			objects[found++] = dja_json_object(pairs, lengthof(pairs));
	}
	return dja_call_end(row, dja_json_array(objects, found));
}

/*
 * CALL ask(actor_type, actor_key, payload, timeout, INOUT reply): sends,
 * commits, waits.
 */
Datum
dja_ask(PG_FUNCTION_ARGS)
{
	Datum		values[DJA_SEND_NARGS] = {0};
	bool		nulls[DJA_SEND_NARGS];
	TupleDesc	row;
	int64		timeout;
	int64		id;

	dja_require_installed();
	dja_refuse_wait("ask()");
	row = dja_call_begin(fcinfo, "ask()",
						 "It has to commit the message before it can wait for the reply.",
						 "Use djactor.send() with wants_reply, commit, then djactor.wait_reply().");
	timeout = dja_check_timeout(PG_ARGISNULL(3) ? NULL : PG_GETARG_INTERVAL_P(3));

	memset(nulls, true, sizeof(nulls));
	for (int i = 0; i < 3; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i);
	}
	values[3] = Int16GetDatum(0);
	values[5] = TimestampTzGetDatum(GetCurrentTimestamp() + timeout);
	values[7] = BoolGetDatum(true);
	nulls[3] = nulls[5] = nulls[7] = false;

	id = dja_message_send(values, nulls);
	SPI_commit();
	return dja_call_end(row, dja_await_reply(id, timeout, true, true));
}
