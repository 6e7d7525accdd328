/*
 * alter_type.c
 *
 * alter_actor_type(): changes those options of a type that the call names, as if
 * the type were defined again with all others as they are.
 *
 * A handler that is not named is not looked at.  So a handler that is gone keeps
 * nobody from changing something else, and a function that took its place is not
 * taken over.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "base/calendar.h"
#include "base/compat.h"
#include "sql/type_change.h"
#include "sql/type_options.h"
#include "tables/type_settings.h"

PG_FUNCTION_INFO_V1(dja_alter_actor_type);

/*
 * Has alter_actor_type() been given a value for an option?  Where NULL is a
 * value, the argument's default is a value that the option cannot have.
 */
static bool
dja_has_argument(FunctionCallInfo fcinfo, int arg)
{
	if (!dja_may_be_null(arg) || arg == DJA_ARG_SETTINGS || arg == DJA_ARG_HANDLER)
		return !PG_ARGISNULL(arg);
	if (PG_ARGISNULL(arg))
		return true;
	switch (arg)
	{
		case DJA_ARG_UPGRADE_HANDLER:
		case DJA_ARG_RATE:
		case DJA_ARG_RATE_BY:
		case DJA_ARG_FAIR_BY:
			return VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(arg)) > 0;
		case DJA_ARG_JOURNAL:
		case DJA_ARG_IDLE_TTL:
		case DJA_ARG_WAIT_TARGET:
			return DJA_INTERVAL_INFINITE(PG_GETARG_INTERVAL_P(arg)) ||
				dja_interval_usec(PG_GETARG_INTERVAL_P(arg)) != -USECS_PER_SEC;
		default:
			return PG_GETARG_INT32(arg) != -1;
	}
}

Datum
dja_alter_actor_type(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(all, DJA_NARGS);	/* the arguments of a definition */
	Datum		values[DJA_TYPE_NATTS];
	bool		nulls[DJA_TYPE_NATTS];
	bool		named[DJA_NARGS] = {false};
	bool		adopt;			/* the handler, as it stands now */
	text	   *name;
	Oid			owner;
	DjaWriter  *writer;
	DjaType    *type;

	if (PG_ARGISNULL(DJA_ARG_NAME))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name must not be null")));
	name = PG_GETARG_TEXT_PP(DJA_ARG_NAME);
	(void) dja_require_own_type(name, "djactor.alter_actor_type()");
	writer = dja_begin_type_change();
	type = dja_require_own_type(name, "djactor.alter_actor_type()");
	dja_type_read_row(type, values, nulls);

	for (int i = 0; i < DJA_NARGS; i++)
	{
		int			column = dja_argument_column(i) - 1;

		named[i] = i != DJA_ARG_NAME && dja_has_argument(fcinfo, i);
		if (named[i] && i != DJA_ARG_SETTINGS)
		{
			values[column] = PG_GETARG_DATUM(i);
			nulls[column] = PG_ARGISNULL(i);
		}
		all->args[i].value = values[column];
		all->args[i].isnull = nulls[column];
	}
	dja_check_options(all);
	owner = DatumGetObjectId(values[DJA_TYPE_OWNER - 1]);
	if (named[DJA_ARG_OWNER])
		dja_check_owner(owner);
	if (named[DJA_ARG_SETTINGS])
		values[DJA_TYPE_SETTINGS - 1] = dja_settings_define(PG_GETARG_JSONB_P(DJA_ARG_SETTINGS),
															DatumGetJsonbP(values[DJA_TYPE_SETTINGS - 1]), owner);
	adopt = named[DJA_ARG_HANDLER] || named[DJA_ARG_HOSTED];
	if (adopt || named[DJA_ARG_OWNER])
		dja_check_handler(values, nulls, adopt);
	if (adopt || named[DJA_ARG_OWNER] || named[DJA_ARG_UPGRADE_HANDLER])
	{
		dja_check_upgrade_handler(values, nulls);
		nulls[DJA_TYPE_PROBLEM - 1] = true;
	}

	dja_row_update(writer, &type->tid, values, nulls);
	dja_end_type_change(writer, type->hash, owner);
	PG_RETURN_VOID();
}
