/*
 * type_options.c
 *
 * The options of an actor type.  They are checked here when a type is defined or
 * altered, so that whatever reads djactor.actor_type need not check them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_authid.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/calendar.h"
#include "base/compat.h"
#include "sql/type_options.h"
#include "tables/handler.h"

static const char *const dja_arg_names[DJA_NARGS] = {
	"name", "handler", "initial_state", "state_version", "upgrade_handler", "max_attempts", "backoff", "backoff_max",
	"retry_order", "on_exhausted", "handler_timeout", "batch_size", "concurrency",
	"mailbox_limit", "on_full", "breaker_failures", "breaker_window", "journal", "owner", "settings"
};

/*
 * The columns stand in the order of the arguments, but for owner and settings.
 */
int
dja_argument_column(int arg)
{
	return arg == DJA_ARG_NAME ? DJA_TYPE_NAME : arg == DJA_ARG_HANDLER ? DJA_TYPE_HANDLER :
		arg == DJA_ARG_OWNER ? DJA_TYPE_OWNER : arg == DJA_ARG_SETTINGS ? DJA_TYPE_SETTINGS :
		DJA_TYPE_INITIAL_STATE + arg - DJA_ARG_INITIAL_STATE;
}

static void
dja_check_positive(FunctionCallInfo fcinfo, int arg)
{
	if (!PG_ARGISNULL(arg) && PG_GETARG_INT32(arg) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least 1", dja_arg_names[arg])));
}

static void
dja_check_interval(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return;
	if (DJA_INTERVAL_INFINITE(PG_GETARG_INTERVAL_P(arg)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be finite", dja_arg_names[arg])));
	if (dja_interval_usec(PG_GETARG_INTERVAL_P(arg)) > DJA_MAX_YEARS * DJA_YEAR_USEC)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not exceed %d years", dja_arg_names[arg], DJA_MAX_YEARS)));
	if (dja_interval_usec(PG_GETARG_INTERVAL_P(arg)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", dja_arg_names[arg])));
}

static void
dja_check_word(FunctionCallInfo fcinfo, int arg, const char *one, const char *other)
{
	char	   *word = text_to_cstring(PG_GETARG_TEXT_PP(arg));

	if (strcmp(word, one) != 0 && strcmp(word, other) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for %s: \"%s\"", dja_arg_names[arg], word),
				 errhint("Use \"%s\" or \"%s\".", one, other)));
}

bool
dja_may_be_null(int arg)
{
	return arg == DJA_ARG_UPGRADE_HANDLER || arg == DJA_ARG_BATCH_SIZE || arg == DJA_ARG_CONCURRENCY ||
		arg == DJA_ARG_MAILBOX_LIMIT || arg == DJA_ARG_BREAKER_FAILURES || arg == DJA_ARG_JOURNAL ||
		arg == DJA_ARG_SETTINGS;
}

void
dja_check_options(FunctionCallInfo fcinfo)
{
	text	   *name;

	for (int i = 0; i < DJA_NARGS; i++)
		if (PG_ARGISNULL(i) && !dja_may_be_null(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", dja_arg_names[i])));

	name = PG_GETARG_TEXT_PP(DJA_ARG_NAME);
	if (VARSIZE_ANY_EXHDR(name) < 1 || VARSIZE_ANY_EXHDR(name) > DJA_TYPE_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of an actor type must have 1 to %d bytes", DJA_TYPE_NAME_MAX),
				 errhint("Use app_label.name.")));
	dja_check_positive(fcinfo, DJA_ARG_STATE_VERSION);
	dja_check_positive(fcinfo, DJA_ARG_MAX_ATTEMPTS);
	dja_check_positive(fcinfo, DJA_ARG_BATCH_SIZE);
	dja_check_positive(fcinfo, DJA_ARG_CONCURRENCY);
	dja_check_positive(fcinfo, DJA_ARG_MAILBOX_LIMIT);
	dja_check_positive(fcinfo, DJA_ARG_BREAKER_FAILURES);
	dja_check_interval(fcinfo, DJA_ARG_BACKOFF);
	dja_check_interval(fcinfo, DJA_ARG_BACKOFF_MAX);
	dja_check_interval(fcinfo, DJA_ARG_HANDLER_TIMEOUT);
	dja_check_interval(fcinfo, DJA_ARG_BREAKER_WINDOW);
	dja_check_interval(fcinfo, DJA_ARG_JOURNAL);
	dja_check_word(fcinfo, DJA_ARG_RETRY_ORDER, "hold", "skip");
	dja_check_word(fcinfo, DJA_ARG_ON_EXHAUSTED, "dead_letter", "suspend");
	dja_check_word(fcinfo, DJA_ARG_ON_FULL, "raise", "dead_letter");
}

/*
 * The owner's workers log in as the owner.
 */
void
dja_check_owner(Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(owner));
	Form_pg_authid role;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", owner)));
	role = (Form_pg_authid) GETSTRUCT(tuple);
	if (owner != BOOTSTRAP_SUPERUSERID && owner < FirstNormalObjectId)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("predefined role \"%s\" cannot own an actor type", NameStr(role->rolname)),
				 errhint("Use a role that can log in.")));
	if (!role->rolcanlogin)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("role \"%s\" cannot own an actor type: it may not log in", NameStr(role->rolname)),
				 errdetail("Handlers run in a session that is logged in as the owner of their type."),
				 errhint("Use ALTER ROLE ... LOGIN, or name another owner.")));
	if (!role->rolsuper && !dja_may_connect(MyDatabaseId, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("role \"%s\" cannot own an actor type: it may not connect to database \"%s\"",
						NameStr(role->rolname), get_database_name(MyDatabaseId)),
				 errhint("Use GRANT CONNECT ON DATABASE.")));
	ReleaseSysCache(tuple);
	dja_check_can_act_for(owner);
}

/*
 * Returns the function of a name, if it can be called as the owner.
 */
static Oid
dja_require_handler(const char *handler, DjaHandlerKind kind, Oid owner)
{
	Oid			function = dja_handler_parse(handler, kind);
	int			sqlerrcode;
	char	   *hint;
	char	   *problem = dja_handler_problem(function, kind, handler, owner, &sqlerrcode, &hint);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(sqlerrcode),
				 errmsg("%s", problem),
				 errhint("%s", hint)));
	return function;
}

void
dja_check_handler(Datum *values, bool adopt)
{
	Oid			function = dja_require_handler(TextDatumGetCString(values[DJA_TYPE_HANDLER - 1]), DJA_MESSAGE_HANDLER,
											   DatumGetObjectId(values[DJA_TYPE_OWNER - 1]));

	if (!adopt)
		return;
	values[DJA_TYPE_HANDLER - 1] = CStringGetTextDatum(dja_handler_signature(function, DJA_MESSAGE_HANDLER));
	values[DJA_TYPE_HANDLER_OWNER - 1] = ObjectIdGetDatum(dja_handler_owner(function));
}

/*
 * The owner of the handler has decided whose functions are called.  So the
 * upgrade handler may not be just anybody's.
 */
void
dja_check_upgrade_handler(Datum *values, const bool *nulls)
{
	Oid			owner = DatumGetObjectId(values[DJA_TYPE_OWNER - 1]);
	Oid			function;
	Oid			function_owner;
	char	   *signature;

	if (nulls[DJA_TYPE_UPGRADE_HANDLER - 1])
		return;
	function = dja_require_handler(TextDatumGetCString(values[DJA_TYPE_UPGRADE_HANDLER - 1]),
								   DJA_UPGRADE_HANDLER, owner);
	function_owner = dja_handler_owner(function);
	signature = dja_handler_signature(function, DJA_UPGRADE_HANDLER);
	if (function_owner != DatumGetObjectId(values[DJA_TYPE_HANDLER_OWNER - 1]) && function_owner != owner &&
		!superuser_arg(function_owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("upgrade handler %s belongs to another role than the handler", signature),
				 errhint("Both have to belong to the same role, or this one to the owner of the actor type or to a superuser.")));
	values[DJA_TYPE_UPGRADE_HANDLER - 1] = CStringGetTextDatum(signature);
}
