/*
 * json.c
 *
 * Making and reading small jsonb objects; see json.h.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/numeric.h"

#include "base/compat.h"
#include "base/json.h"

static void
dja_json_key(DjaJsonState *state, const char *key)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = (char *) key;
	value.val.string.len = strlen(key);
	dja_json_push(state, WJB_KEY, &value);
}

/*
 * Makes an object of these pairs.
 */
Datum
dja_json_object(const DjaPair *pairs, int n)
{
	DjaJsonState state = {0};

	dja_json_push(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	value;

		dja_json_key(&state, pairs[i].key);
		if (pairs[i].string != NULL)
		{
			value.type = jbvString;
			value.val.string.val = (char *) pairs[i].string;
			value.val.string.len = strlen(pairs[i].string);
		}
		else if (pairs[i].json != NULL)
		{
			if (!JB_ROOT_IS_SCALAR(pairs[i].json) ||
				!JsonbExtractScalar(&pairs[i].json->root, &value))
			{
				value.type = jbvBinary;
				value.val.binary.data = &pairs[i].json->root;
				value.val.binary.len = VARSIZE(pairs[i].json) - VARHDRSZ;
			}
		}
		else if (pairs[i].is_number)
		{
			value.type = jbvNumeric;
			value.val.numeric = int64_to_numeric(pairs[i].number);
		}
		else
			value.type = jbvNull;
		dja_json_push(&state, WJB_VALUE, &value);
	}
	dja_json_push(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(state.result));
}

Datum
dja_json_null(void)
{
	JsonbValue	value;

	value.type = jbvNull;
	return JsonbPGetDatum(JsonbValueToJsonb(&value));
}

static JsonbValue *
dja_json_find(Datum object, const char *key)
{
	Jsonb	   *json = DatumGetJsonbP(object);

	if (!JB_ROOT_IS_OBJECT(json))
		return NULL;
	return getKeyJsonValueFromContainer(&json->root, key, strlen(key), NULL);
}

/*
 * Returns the string at a key of an object, or NULL if there is none.
 */
char *
dja_json_string(Datum object, const char *key)
{
	JsonbValue *value = dja_json_find(object, key);

	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/*
 * Returns a moment as in JSON: ISO 8601, with the session's offset from UTC.
 */
char *
dja_time_string(TimestampTz time)
{
	char		buffer[MAXDATELEN + 1];

	(void) JsonEncodeDateTime(buffer, TimestampTzGetDatum(time), TIMESTAMPTZOID, NULL);
	return pstrdup(buffer);
}
