/*
 * type_settings.c
 *
 * The settings of actor types; see type_settings.h.
 *
 * They are set for a level of the server's settings and not for the session, so
 * the end of the level, or of the transaction, undoes them.  A setting that has
 * the right value already is left alone: if all types of a batch agree with the
 * server, nothing is set.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/numeric.h"

#include "base/json.h"
#include "tables/type_settings.h"

/* Settings that decide how SQL is understood, and how a date is written. */
static const char *const dja_remembered[] = {"TimeZone", "search_path", "DateStyle", "IntervalStyle"};

/* Settings that the worker, or the contract, decides. */
static const char *const dja_reserved[] = {
	"role", "session_authorization", "session_replication_role",
	"transaction_isolation", "transaction_read_only", "transaction_deferrable",
	"default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable",
	"transaction_timeout", "deadlock_timeout", "exit_on_error"
};

/* The open level, and the hash of the settings visible in it (0 = none). */
static int	dja_settings_level = 0;
static uint64 dja_settings_seen = 0;

static int
dja_set(const char *name, const char *value, Oid role, bool change, int elevel)
{
	return set_config_option(name, value, superuser_arg(role) ? PGC_SUSET : PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, change, elevel, false);
}

/*
 * Returns a value as the text of a setting; NULL for JSON null.
 */
static char *
dja_setting_value(const char *name, JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return numeric_normalize(value->val.numeric);
		case jbvBool:
			return pstrdup(value->val.boolean ? "on" : "off");
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value of setting \"%s\"", name),
					 errhint("Use a string, a number, a boolean, or null for what the worker has.")));
	}
	return NULL;				/* not reached */
}

/*
 * Checks one setting that a definition names.  Raises 22023, or what the server
 * raises.
 */
static void
dja_setting_check(const char *name, const char *value, Oid owner)
{
	for (size_t i = 0; i < lengthof(dja_reserved); i++)
		if (pg_strcasecmp(name, dja_reserved[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" cannot be a setting of an actor type", dja_reserved[i]),
					 errdetail("Workers keep it as their work needs it.")));
	if (pg_strncasecmp(name, "djactor.", strlen("djactor.")) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be a setting of an actor type", name),
				 errdetail("It is the server's.")));
	if (value != NULL)
		(void) dja_set(name, value, owner, false, ERROR);
}

static bool
dja_is_json_null(Jsonb *json)
{
	JsonbValue	value;

	return JB_ROOT_IS_SCALAR(json) && JsonbExtractScalar(&json->root, &value) && value.type == jbvNull;
}

static bool
dja_is_among(List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (pg_strcasecmp(strVal(lfirst(lc)), name) == 0)
		return true;
	return false;
}

/*
 * Returns a setting's name as the server spells it, if it is one of those always
 * remembered.
 */
static const char *
dja_spelt(char *name)
{
	for (size_t i = 0; i < lengthof(dja_remembered); i++)
		if (pg_strcasecmp(name, dja_remembered[i]) == 0)
			return dja_remembered[i];
	return name;
}

/*
 * Reads the next setting of an object.  Returns false at the end.
 */
static bool
dja_next_setting(JsonbIterator **it, char **name, JsonbValue *value)
{
	JsonbIteratorToken token = JsonbIteratorNext(it, value, true);

	if (token == WJB_BEGIN_OBJECT)
		token = JsonbIteratorNext(it, value, true);
	if (token != WJB_KEY)
		return false;
	*name = pnstrdup(value->val.string.val, value->val.string.len);
	(void) JsonbIteratorNext(it, value, true);
	return true;
}

/*
 * Pushes the settings that a definition names.  Returns their names.
 */
static List *
dja_push_named(DjaJsonState *state, Jsonb *named, Oid owner)
{
	JsonbIterator *it = JsonbIteratorInit(&named->root);
	JsonbValue	item;
	List	   *names = NIL;
	char	   *name;

	while (dja_next_setting(&it, &name, &item))
	{
		char	   *value = dja_setting_value(name, &item);

		dja_setting_check(name, value, owner);
		names = lappend(names, makeString(name));
		if (value == NULL)
			continue;
		dja_json_push_string(state, WJB_KEY, dja_spelt(name));
		dja_json_push_string(state, WJB_VALUE, value);
	}
	return names;
}

/*
 * Pushes the settings that a type has had, except those of these names.
 */
static void
dja_push_others(DjaJsonState *state, Jsonb *stored, List *names)
{
	JsonbIterator *it = JsonbIteratorInit(&stored->root);
	JsonbValue	value;
	char	   *name;

	while (dja_next_setting(&it, &name, &value))
	{
		if (dja_is_among(names, name))
			continue;
		dja_json_push_string(state, WJB_KEY, name);
		dja_json_push(state, WJB_VALUE, &value);
	}
}

/*
 * Returns the settings of a type that is being defined, as an object of strings.
 * It has those that the definition names (NULL = none).  The others come from the
 * type's former settings (stored), or from the present session if that is NULL.
 * Raises 22023, or what the server raises for a setting.
 */
Datum
dja_settings_define(Jsonb *named, Jsonb *stored, Oid owner)
{
	List	   *names = NIL;
	DjaJsonState state = {0};

	if (named != NULL && !JB_ROOT_IS_OBJECT(named) && !dja_is_json_null(named))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("settings must be a JSON object"),
				 errhint("Its keys are names of settings, its values what turns see of them.")));
	dja_json_push(&state, WJB_BEGIN_OBJECT, NULL);
	if (named != NULL && JB_ROOT_IS_OBJECT(named))
		names = dja_push_named(&state, named, owner);
	if (stored != NULL)
		dja_push_others(&state, stored, names);
	for (size_t i = 0; stored == NULL && i < lengthof(dja_remembered); i++)
	{
		if (dja_is_among(names, dja_remembered[i]))
			continue;
		dja_json_push_string(&state, WJB_KEY, dja_remembered[i]);
		dja_json_push_string(&state, WJB_VALUE, GetConfigOption(dja_remembered[i], false, false));
	}
	dja_json_push(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(state.result));
}

/*
 * Opens the level, when a batch begins.
 */
void
dja_settings_open(void)
{
	dja_settings_level = NewGUCNestLevel();
	dja_settings_seen = 0;
}

/*
 * Makes the settings of a type visible to the turns that follow.  elevel is for a setting
 * that the server does not accept any more.
 */
void
dja_settings_see(DjaType *type, int elevel)
{
	JsonbIterator *it;
	JsonbValue	item;
	char	   *name;

	if (dja_settings_seen == type->settings_hash)
		return;
	if (dja_settings_seen != 0)
	{
		AtEOXact_GUC(false, dja_settings_level);
		dja_settings_open();
	}
	it = JsonbIteratorInit(&type->settings->root);
	while (dja_next_setting(&it, &name, &item))
	{
		char	   *value = dja_setting_value(name, &item);
		const char *present = GetConfigOption(name, true, false);

		if (value != NULL && (present == NULL || strcmp(present, value) != 0))
			(void) dja_set(name, value, GetUserId(), true, elevel);
	}
	dja_settings_seen = type->settings_hash;
}

/*
 * Closes the level, when the batch ends.
 */
void
dja_settings_close(void)
{
	AtEOXact_GUC(false, dja_settings_level);
	dja_settings_seen = 0;
}
