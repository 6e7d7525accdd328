/*
 * progress.c
 *
 * progress(): a turn says how far it is, and others see it at once, though nothing of
 * the turn is committed.  So the value lies in shared memory (shmem/progress.c), not in a
 * table, and a rollback to a savepoint does not take it back.
 *
 * It goes with the turn, however that ends.  A turn inside a transaction is left by the
 * process that runs it.  One that a host runs outside of transactions ends with its
 * claim, or when a later transaction completes it.
 *
 * A NOTIFY goes out with a commit.  So only the call for turns outside of transactions
 * notifies; who wants to see other turns has to look.
 */
#include "postgres.h"

#include "commands/async.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rls.h"

#include "base/compat.h"
#include "shmem/progress.h"
#include "turn/hosted.h"
#include "turn/progress.h"
#include "turn/turn.h"

PG_FUNCTION_INFO_V1(dja_progress);
PG_FUNCTION_INFO_V1(dja_progress_hosted);
PG_FUNCTION_INFO_V1(dja_progress_of);
PG_FUNCTION_INFO_V1(dja_progress_list);

#define DJA_PROGRESS_CHANNEL "djactor_progress"

static int64 dja_progress_mine = 0; /* the message of this session's turn, if
									 * it has said something */

/*
 * The text of a value.  Raises an error for one that is too long.
 */
static char *
dja_progress_text(FunctionCallInfo fcinfo, int arg, int *len)
{
	Jsonb	   *value;
	char	   *text;

	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("value must not be null")));
	value = PG_GETARG_JSONB_P(arg);
	text = JsonbToCString(NULL, &value->root, VARSIZE(value));

	*len = strlen(text);
	if (*len > DJA_PROGRESS_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("progress of a turn is limited to %d bytes", DJA_PROGRESS_BYTES),
				 errdetail("The value has %d bytes as text.", *len),
				 errhint("Say how far the turn is, and write what is long into a table.")));
	return text;
}

/*
 * The turn that runs in this session is over, or the session is.
 */
void
dja_progress_over(void)
{
	if (dja_progress_mine == 0)
		return;
	dja_lock();
	dja_progress_drop(MyDatabaseId, dja_progress_mine);
	dja_unlock();
	dja_progress_mine = 0;
}

static void
dja_progress_exit(int code, Datum arg)
{
	dja_progress_over();
}

/*
 * progress(value), inside a turn
 */
Datum
dja_progress(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	int64		id;
	char	   *text;
	int			len;

	dja_require_turn("progress()");
	text = dja_progress_text(fcinfo, 0, &len);

	if (!registered)
	{
		before_shmem_exit(dja_progress_exit, 0);
		registered = true;
	}
	id = dja_turn.message->id;
	dja_lock();
	dja_progress_put(MyDatabaseId, id, text, len);
	dja_unlock();
	dja_progress_mine = id;
	PG_RETURN_VOID();
}

/*
 * progress(token, message_id, value), for a turn that a host runs outside of
 * transactions; false if the turn is over
 */
Datum
dja_progress_hosted(PG_FUNCTION_ARGS)
{
	bool		current = false;
	DjaMessage *message;
	DjaType    *type;
	text	   *name;
	char	   *value;
	int			len;

	dja_require_installed();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("token and message_id must not be null")));
	value = dja_progress_text(fcinfo, 2, &len);
	message = dja_message_by_id(PG_GETARG_INT64(1), NULL);
	if (message == NULL)
		PG_RETURN_BOOL(false);
	name = DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1]);
	type = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	if (type != NULL)
		current = dja_hosted_progress(PG_GETARG_INT64(0), type->hash, dja_hash_text(message->key),
									  message->id, value, len);
	if (current)
	{
		char		payload[32];

		snprintf(payload, sizeof(payload), INT64_FORMAT, message->id);
		Async_Notify(DJA_PROGRESS_CHANNEL, payload);
	}
	PG_RETURN_BOOL(current);
}

/*
 * progress_of(message_id): what its turn has said last; NULL if none runs, or it has
 * said nothing.  It is for those who may read the message.
 */
Datum
dja_progress_of(PG_FUNCTION_ARGS)
{
	Oid			messages;
	DjaProgress progress;

	dja_require_installed();
	messages = dja_table_oid(DJA_MESSAGE_TABLE);
	if (pg_class_aclcheck(messages, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", "djactor.message"),
				 errhint("Grant SELECT on it to who may see the progress of turns.")));
	if (check_enable_rls(messages, InvalidOid, false) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security of table %s would have to be applied", "djactor.message"),
				 errhint("Use a role to which no policy applies.")));
	if (!dja_progress_find(PG_GETARG_INT64(0), &progress))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(progress.text, progress.len))));
}

/*
 * progress_list(): the turns of this database that have said something
 */
Datum
dja_progress_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DjaProgress progress;

	dja_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; dja_progress_copy(i, &progress); i++)
	{
		Datum		values[3];
		bool		nulls[3] = {0};

		CHECK_FOR_INTERRUPTS();
		if (progress.message_id == 0 || progress.database != MyDatabaseId)
			continue;
		values[0] = Int64GetDatum(progress.message_id);
		values[1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(progress.text, progress.len)));
		values[2] = TimestampTzGetDatum(progress.at);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
