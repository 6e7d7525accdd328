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
#include "base/rate.h"
#include "sql/type_options.h"
#include "tables/handler.h"
#include "tables/tenant_value.h"

static const char *const dja_arg_names[DJA_NARGS] = {
	"name", "handler", "initial_state", "state_version", "upgrade_handler", "max_attempts", "backoff", "backoff_max",
	"retry_order", "on_exhausted", "handler_timeout", "batch_size", "concurrency",
	"mailbox_limit", "on_full", "breaker_failures", "breaker_window", "journal", "owner", "settings", "hosted", "stateless",
	"idle_ttl", "rate", "rate_by", "fair_by", "wait_target"
};

/*
 * The columns stand in the order of the arguments, but for owner and what comes
 * after it.
 */
int
dja_argument_column(int arg)
{
	return arg == DJA_ARG_NAME ? DJA_TYPE_NAME : arg == DJA_ARG_HANDLER ? DJA_TYPE_HANDLER :
		arg == DJA_ARG_OWNER ? DJA_TYPE_OWNER : arg == DJA_ARG_SETTINGS ? DJA_TYPE_SETTINGS :
		arg == DJA_ARG_HOSTED ? DJA_TYPE_HOSTED : arg == DJA_ARG_STATELESS ? DJA_TYPE_STATELESS :
		arg == DJA_ARG_IDLE_TTL ? DJA_TYPE_IDLE_TTL :
		arg == DJA_ARG_RATE ? DJA_TYPE_RATE : arg == DJA_ARG_RATE_BY ? DJA_TYPE_RATE_BY :
		arg == DJA_ARG_FAIR_BY ? DJA_TYPE_FAIR_BY : arg == DJA_ARG_WAIT_TARGET ? DJA_TYPE_WAIT_TARGET :
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

/*
 * Every turn would miss a target of no time at all.
 */
static void
dja_check_wait_target(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(DJA_ARG_WAIT_TARGET))
		return;
	dja_check_interval(fcinfo, DJA_ARG_WAIT_TARGET);
	if (dja_interval_usec(PG_GETARG_INTERVAL_P(DJA_ARG_WAIT_TARGET)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("wait_target must be positive"),
				 errhint("Use NULL for types without a target.")));
}

/*
 * An actor that is idle for no time at all would stop after each turn.  One of a
 * stateless type has no row, and so nothing that could stop.
 */
static void
dja_check_idle_ttl(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(DJA_ARG_IDLE_TTL))
		return;
	dja_check_interval(fcinfo, DJA_ARG_IDLE_TTL);
	if (dja_interval_usec(PG_GETARG_INTERVAL_P(DJA_ARG_IDLE_TTL)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idle_ttl must be positive"),
				 errhint("Use NULL for actors that never stop by themselves.")));
	if (PG_GETARG_BOOL(DJA_ARG_STATELESS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a stateless actor type cannot have idle_ttl"),
				 errdetail("Its actors have no state that could be removed."),
				 errhint("Use NULL for idle_ttl.")));
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

static void
dja_check_rate(FunctionCallInfo fcinfo, int arg)
{
	DjaRate		rate;
	char	   *value;
	const char *problem;

	if (PG_ARGISNULL(arg))
		return;
	value = text_to_cstring(PG_GETARG_TEXT_PP(arg));

	problem = dja_rate_parse(value, &rate);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for %s: \"%s\"", dja_arg_names[arg], value),
				 errdetail("%s", problem),
				 errhint("Write a number of turns, a slash and a period in s, min, h or day, such as '100/min' or '10/30 s'.")));
}

static void
dja_check_by(FunctionCallInfo fcinfo, int arg)
{
	DjaBy		by;
	char	   *value;

	if (PG_ARGISNULL(arg))
		return;
	value = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	if (!dja_by_parse(value, &by))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for %s: \"%s\"", dja_arg_names[arg], value),
				 errhint("Use 'header:NAME' for the value of a header, or 'key:SEPARATOR' for the beginning of the key up to that separator.")));
}

/*
 * A mailbox waits in one tenant.
 */
static void
dja_check_tenants(FunctionCallInfo fcinfo)
{
	dja_check_by(fcinfo, DJA_ARG_RATE_BY);
	dja_check_by(fcinfo, DJA_ARG_FAIR_BY);
	if (PG_ARGISNULL(DJA_ARG_RATE_BY))
		return;
	if (PG_ARGISNULL(DJA_ARG_RATE))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("rate_by needs a rate"),
				 errhint("Name a rate, which counts for each value, or no rate_by.")));
	if (!PG_ARGISNULL(DJA_ARG_FAIR_BY) &&
		strcmp(text_to_cstring(PG_GETARG_TEXT_PP(DJA_ARG_RATE_BY)),
			   text_to_cstring(PG_GETARG_TEXT_PP(DJA_ARG_FAIR_BY))) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("rate_by and fair_by must be the same"),
				 errhint("With rate_by alone its values take turns, too.")));
}

bool
dja_may_be_null(int arg)
{
	return arg == DJA_ARG_HANDLER || arg == DJA_ARG_UPGRADE_HANDLER || arg == DJA_ARG_BATCH_SIZE || arg == DJA_ARG_CONCURRENCY ||
		arg == DJA_ARG_MAILBOX_LIMIT || arg == DJA_ARG_BREAKER_FAILURES || arg == DJA_ARG_JOURNAL ||
		arg == DJA_ARG_SETTINGS || arg == DJA_ARG_IDLE_TTL || arg == DJA_ARG_RATE || arg == DJA_ARG_RATE_BY ||
		arg == DJA_ARG_FAIR_BY || arg == DJA_ARG_WAIT_TARGET;
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
	dja_check_idle_ttl(fcinfo);
	dja_check_wait_target(fcinfo);
	dja_check_word(fcinfo, DJA_ARG_RETRY_ORDER, "hold", "skip");
	dja_check_word(fcinfo, DJA_ARG_ON_EXHAUSTED, "dead_letter", "suspend");
	dja_check_word(fcinfo, DJA_ARG_ON_FULL, "raise", "dead_letter");
	dja_check_rate(fcinfo, DJA_ARG_RATE);
	dja_check_tenants(fcinfo);
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
dja_check_handler(Datum *values, const bool *nulls, bool adopt)
{
	Oid			function;

	if (DatumGetBool(values[DJA_TYPE_HOSTED - 1]))
	{
		values[DJA_TYPE_HANDLER_OWNER - 1] = values[DJA_TYPE_OWNER - 1];
		return;
	}
	if (nulls[DJA_TYPE_HANDLER - 1])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("handler must not be null"),
				 errhint("Name a function, or define the type with hosted => true.")));
	function = dja_require_handler(TextDatumGetCString(values[DJA_TYPE_HANDLER - 1]), DJA_MESSAGE_HANDLER,
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
	if (DatumGetBool(values[DJA_TYPE_HOSTED - 1]))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a hosted actor type cannot have an upgrade handler"),
				 errhint("Its hosts upgrade the states that take() hands out with from_version.")));
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
