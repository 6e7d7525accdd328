/*
 * define_type.c
 *
 * define_actor_type(): defines an actor type, or defines it anew.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "sql/type_change.h"
#include "sql/type_leftovers.h"
#include "sql/type_options.h"
#include "tables/type_settings.h"

PG_FUNCTION_INFO_V1(dja_define_actor_type);

/*
 * Raises 42710 if another type has the same hash.  The two would share a type
 * queue, and one of them would never be served.
 */
static void
dja_check_hash(const char *name, uint64 hash)
{
	DjaType    *other = dja_type_by_hash(hash);

	if (other != NULL && strcmp(other->name, name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("name \"%s\" has the same hash as actor type \"%s\"", name, other->name),
				 errhint("Use another name.")));
}

/*
 * A type that is defined anew stays paused, for the reason that it has.
 */
Datum
dja_define_actor_type(PG_FUNCTION_ARGS)
{
	Datum		values[DJA_TYPE_NATTS] = {0};
	bool		nulls[DJA_TYPE_NATTS] = {0};
	Oid			owner;
	char	   *name;
	uint64		hash;
	DjaWriter  *writer;
	DjaType    *type;

	PreventCommandIfReadOnly("djactor.define_actor_type()");
	dja_require_installed();
	dja_check_options(fcinfo);
	for (int i = 0; i < DJA_ARG_SETTINGS; i++)
	{
		values[dja_argument_column(i) - 1] = PG_GETARG_DATUM(i);
		nulls[dja_argument_column(i) - 1] = PG_ARGISNULL(i);
	}
	for (int i = DJA_ARG_SETTINGS + 1; i < DJA_NARGS; i++)
	{
		values[dja_argument_column(i) - 1] = PG_GETARG_DATUM(i);
		nulls[dja_argument_column(i) - 1] = PG_ARGISNULL(i);
	}
	owner = PG_GETARG_OID(DJA_ARG_OWNER);
	dja_check_owner(owner);
	dja_check_handler(values, nulls, true);

	name = text_to_cstring(PG_GETARG_TEXT_PP(DJA_ARG_NAME));
	hash = dja_hash_name(name, strlen(name));
	writer = dja_begin_type_change();
	dja_check_hash(name, hash);
	type = dja_type_lookup(name, strlen(name));
	if (type != NULL)
		dja_check_can_act_for(type->owner);
	else
		dja_check_leftovers(name, hash);
	dja_check_upgrade_handler(values, nulls);
	values[DJA_TYPE_SETTINGS - 1] =
		dja_settings_define(PG_ARGISNULL(DJA_ARG_SETTINGS) ? NULL : PG_GETARG_JSONB_P(DJA_ARG_SETTINGS), NULL, owner);
	values[DJA_TYPE_PAUSED - 1] = BoolGetDatum(false);
	nulls[DJA_TYPE_PAUSED_REASON - 1] = true;
	nulls[DJA_TYPE_PROBLEM - 1] = true;

	if (type == NULL)
		dja_row_insert(writer, values, nulls);
	else
	{
		Datum		old_values[DJA_TYPE_NATTS];
		bool		old_nulls[DJA_TYPE_NATTS];

		dja_type_read_row(type, old_values, old_nulls);
		for (int i = DJA_TYPE_PAUSED - 1; i < DJA_TYPE_PROBLEM - 1; i++)
		{
			values[i] = old_values[i];
			nulls[i] = old_nulls[i];
		}
		dja_row_update(writer, &type->tid, values, nulls);
	}
	dja_end_type_change(writer, hash, owner);
	PG_RETURN_VOID();
}
