/*
 * handler.c
 *
 * Resolving, checking and calling handlers; see handler.h.
 *
 * A handler is called through fmgr, which is quicker than SPI.  The caller then
 * has to do what the executor would have done: check the EXECUTE right, call the
 * object access hook, count for the function statistics.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "parser/parse_func.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "base/python.h"
#include "tables/catalog.h"
#include "shmem/shmem.h"
#include "tables/handler.h"

static uint32 dja_handlers_generation = 1;

static void
dja_proc_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	dja_handlers_generation++;
}

void
dja_handlers_init(void)
{
	CacheRegisterSyscacheCallback(PROCOID, dja_proc_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, dja_proc_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(LANGOID, dja_proc_callback, (Datum) 0);
}

/*
 * Forgets what calls have left in the functions' caches, since after an error
 * their state is unknown.
 */
void
dja_handlers_forget(void)
{
	dja_handlers_generation++;
}

static const struct
{
	Oid			types[2];
	const char *arguments;		/* as a signature is stored */
	const char *other;			/* as it may also be written */
	const char *hint;
}			dja_kinds[] = {
	[DJA_MESSAGE_HANDLER] = {{JSONBOID, JSONBOID}, "jsonb,jsonb", "jsonb,jsonb",
	"Create it as f(state jsonb, message jsonb), returning the new state as jsonb, void to leave the state unchanged, or djactor.result."},
	[DJA_UPGRADE_HANDLER] = {{JSONBOID, INT4OID}, "jsonb,integer", "jsonb,int",
	"Create it as f(state jsonb, from_version int), returning the new state as jsonb."},
};

/*
 * Returns the function for a name or signature, or InvalidOid.  Raises 42602 for
 * a malformed name.  It may be unqualified when a type is defined, and is stored
 * qualified.
 */
Oid
dja_handler_parse(const char *handler, DjaHandlerKind kind)
{
	char	   *name = pstrdup(handler);
	char	   *paren = strrchr(name, '(');
	List	   *parts;

	if (paren != NULL && paren > name)
	{
		char	   *args = psprintf("%s", paren + 1);
		char	   *p = args;

		/* the arguments, if given, can only be these */
		for (char *q = args; *q; q++)
			if (*q != ' ')
				*p++ = pg_tolower((unsigned char) *q);
		*p = '\0';
		if (p > args && p[-1] == ')')
			*--p = '\0';
		if (strcmp(args, dja_kinds[kind].arguments) != 0 && strcmp(args, dja_kinds[kind].other) != 0)
			return InvalidOid;
		*paren = '\0';
	}
	if (!SplitIdentifierString(pstrdup(name), '.', &parts) || parts == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of %s: \"%s\"",
						kind == DJA_MESSAGE_HANDLER ? "a handler" : "an upgrade handler", handler),
				 errhint("Name a function, with its schema or without: schema.function.")));
	return LookupFuncName(dja_string_to_names(name), 2, dja_kinds[kind].types, true);
}

/*
 * Returns the qualified signature, as djactor.actor_type stores it.
 */
char *
dja_handler_signature(Oid function, DjaHandlerKind kind)
{
	return psprintf("%s(%s)",
					quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
											   get_func_name(function)),
					dja_kinds[kind].arguments);
}

/*
 * Returns the owner of a function, or InvalidOid if it is gone.
 */
Oid
dja_handler_owner(Oid function)
{
	return GetSysCacheOid1(PROCOID, Anum_pg_proc_proowner, ObjectIdGetDatum(function));
}

/*
 * Returns why a function that has replaced the handler under its name is not
 * trusted, or NULL.  It is trusted if it belongs to the same owner, to the type's
 * owner, or to a superuser.  Otherwise a role that may create functions in that
 * schema could have the type's owner run them.
 */
static char *
dja_handler_taken_over(DjaType *type, const char *name, Oid function)
{
	Oid			owner = dja_handler_owner(function);

	if (owner == type->handler_owner || owner == type->owner || superuser_arg(owner))
		return NULL;
	return psprintf("handler %s now belongs to role \"%s\"", name, GetUserNameFromId(owner, false));
}

/*
 * Notes what the handler's language requires.  If its functions can reach outside
 * the database, each message gets a transaction of its own.
 */
static void
dja_handler_note_language(DjaHandler *handler, Oid function)
{
	Oid			id = GetSysCacheOid1(PROCOID, Anum_pg_proc_prolang, ObjectIdGetDatum(function));
	HeapTuple	language = SearchSysCache1(LANGOID, ObjectIdGetDatum(id));

	handler->solo = true;
	if (!HeapTupleIsValid(language))
		return;
	handler->solo = !((Form_pg_language) GETSTRUCT(language))->lanpltrusted;
	if (strcmp(NameStr(((Form_pg_language) GETSTRUCT(language))->lanname), "plpython3u") == 0)
		handler->python = id;
	ReleaseSysCache(language);
}

static bool
dja_may_return(Oid type, DjaHandlerKind kind)
{
	return type == JSONBOID ||
		(kind == DJA_MESSAGE_HANDLER && (type == VOIDOID || type == dja_result_type()));
}

/*
 * Returns what prevents a role from using a function as its handler, with
 * SQLSTATE and hint, or NULL.
 */
char *
dja_handler_problem(Oid function, DjaHandlerKind kind, const char *name, Oid role,
					int *sqlerrcode, char **hint)
{
	HeapTuple	tuple = NULL;
	char	   *problem = NULL;
	Form_pg_proc proc;

	*hint = (char *) dja_kinds[kind].hint;
	if (OidIsValid(function))
		tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
	{
		*sqlerrcode = ERRCODE_UNDEFINED_FUNCTION;
		return psprintf("handler function %s(%s) does not exist", name,
						kind == DJA_MESSAGE_HANDLER ? "jsonb, jsonb" : "jsonb, integer");
	}
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind != PROKIND_FUNCTION || proc->proretset ||
		!dja_may_return(proc->prorettype, kind))
	{
		*sqlerrcode = ERRCODE_INVALID_FUNCTION_DEFINITION;
		problem = psprintf("handler %s must be a function that returns %s",
						   dja_handler_signature(function, kind),
						   kind == DJA_MESSAGE_HANDLER ? "jsonb, void or djactor.result" : "jsonb");
	}
	else if (!dja_may_execute(function, role) || !dja_may_use_schema(proc->pronamespace, role))
	{
		*sqlerrcode = ERRCODE_INSUFFICIENT_PRIVILEGE;
		*hint = "Grant EXECUTE on the function and USAGE on its schema to the owner of the actor type.";
		problem = psprintf("role \"%s\" may not execute handler %s",
						   GetUserNameFromId(role, false), dja_handler_signature(function, kind));
	}
	ReleaseSysCache(tuple);
	return problem;
}

/*
 * Returns a function as it is now, with rights checked, or NULL and in *problem
 * the reason why the type's mail has to wait.  *cache is where the type keeps it.
 */
static DjaHandler *
dja_function_resolve(DjaType *type, DjaHandler **cache, const char *signature, DjaHandlerKind kind,
					 char **problem)
{
	DjaHandler *handler = *cache;
	uint32		generation = dja_handlers_generation;	/* before the lookup */
	MemoryContext context;
	List	   *names;
	char	   *name = pstrdup(signature);
	Oid			schema;
	Oid			function = InvalidOid;
	int			sqlerrcode;
	char	   *hint;

	if (handler != NULL && handler->generation == dja_handlers_generation &&
		strcmp(handler->name, signature) == 0 &&
		dja_may_execute(handler->function.fn_oid, type->owner))
		return handler;
	if (handler != NULL)
		MemoryContextDelete(handler->context);
	*cache = NULL;

	/* stored as schema.name(arguments); looked up without raising errors */
	*strrchr(name, '(') = '\0';
	names = dja_string_to_names(name);
	schema = get_namespace_oid(strVal(linitial(names)), true);
	if (OidIsValid(schema))
		function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
								   CStringGetDatum(strVal(lsecond(names))),
								   PointerGetDatum(buildoidvector(dja_kinds[kind].types, 2)),
								   ObjectIdGetDatum(schema));
	*problem = dja_handler_problem(function, kind, name, type->owner, &sqlerrcode, &hint);
	if (*problem == NULL)
		*problem = dja_handler_taken_over(type, signature, function);
	if (*problem != NULL)
		return NULL;

	context = AllocSetContextCreate(CacheMemoryContext, "djactor handler", ALLOCSET_SMALL_SIZES);
	handler = MemoryContextAllocZero(context, sizeof(DjaHandler));
	handler->context = context;
	handler->name = MemoryContextStrdup(context, signature);
	handler->generation = generation;
	handler->returns = get_func_rettype(function);
	dja_handler_note_language(handler, function);
	fmgr_info_cxt(function, &handler->function, context);
	*cache = handler;
	return handler;
}

/*
 * Returns the handler of a type, or NULL and in *problem the reason why its mail
 * has to wait.
 */
DjaHandler *
dja_handler_resolve(DjaType *type, char **problem)
{
	if (type->upgrade_handler != NULL &&
		dja_function_resolve(type, &type->upgrade, type->upgrade_handler, DJA_UPGRADE_HANDLER,
							 problem) == NULL)
		return NULL;
	return dja_function_resolve(type, &type->call, type->handler, DJA_MESSAGE_HANDLER, problem);
}

/*
 * Returns how many turns of a type may share a transaction, as far as that is known
 * without its handler; 0 = no limit.
 */
int
dja_handler_known_batch_size(DjaType *type)
{
	char	   *problem;

	return !type->hosted && dja_handler_resolve(type, &problem) != NULL ?
		dja_handler_batch_size(type) : type->batch_size;
}

/*
 * Calls a function of two arguments as the executor would.
 */
static Datum
dja_function_call(DjaHandler *handler, Datum first, Datum second, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 2);
	PgStat_FunctionCallUsage usage;
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, &handler->function, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = first;
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = second;
	fcinfo->args[1].isnull = false;

	if (OidIsValid(handler->python))
		dja_python_begin(handler->python);
	InvokeFunctionExecuteHook(handler->function.fn_oid);
	pgstat_init_function_usage(fcinfo, &usage);
	result = FunctionCallInvoke(fcinfo);
	dja_python_end();
	pgstat_end_function_usage(&usage, true);
	*isnull = fcinfo->isnull;
	return result;
}

/*
 * Calls the handler.  Its result is in the current memory context.  Raises what
 * it raises, and 22004 if it returns NULL for the state.
 */
void
dja_handler_call(DjaType *type, Datum state, Datum payload, DjaResult *result)
{
	Oid			returns = type->call->returns;
	bool		isnull;
	Datum		value;

	dja_assert_unlocked();
	memset(result, 0, sizeof(DjaResult));
	value = dja_function_call(type->call, state, payload, &isnull);
	if (returns == VOIDOID)
		return;
	if (isnull && returns == JSONBOID)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("handler %s returned NULL", type->handler),
				 errhint("Return the state, or declare the handler as RETURNS void.")));
	if (returns == JSONBOID)
	{
		result->has_state = true;
		result->state = value;
	}
	else if (!isnull)
	{
		HeapTupleHeader row = DatumGetHeapTupleHeader(value);

		result->state = GetAttributeByNum(row, 1, &isnull);
		result->has_state = !isnull;
		result->reply = GetAttributeByNum(row, 2, &isnull);
		result->has_reply = !isnull;
	}
}

/*
 * Upgrades a state to the version that the type expects, by the upgrade handler.
 */
Datum
dja_handler_upgrade(DjaType *type, Datum state, int from_version)
{
	bool		isnull;
	Datum		result = dja_function_call(type->upgrade, state, Int32GetDatum(from_version), &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("upgrade handler %s returned NULL", type->upgrade_handler),
				 errhint("Return the upgraded state.")));
	return result;
}
