/*
 * json.c
 *
 * Making and reading small jsonb objects; see json.h.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/numeric.h"

#include "base/compat.h"
#include "base/json.h"

/*
 * Pushes a string: a key, or a value.
 */
void
dja_json_push_string(DjaJsonState *state, JsonbIteratorToken token, const char *string)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = (char *) string;
	value.val.string.len = strlen(string);
	dja_json_push(state, token, &value);
}

/*
 * Makes a jsonb value a part of another one.
 */
static void
dja_json_value(Jsonb *json, JsonbValue *value)
{
	if (!JB_ROOT_IS_SCALAR(json) || !JsonbExtractScalar(&json->root, value))
	{
		value->type = jbvBinary;
		value->val.binary.data = &json->root;
		value->val.binary.len = VARSIZE(json) - VARHDRSZ;
	}
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

		dja_json_push_string(&state, WJB_KEY, pairs[i].key);
		if (pairs[i].string != NULL)
		{
			dja_json_push_string(&state, WJB_VALUE, pairs[i].string);
			continue;
		}
		if (pairs[i].json != NULL)
			dja_json_value(pairs[i].json, &value);
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

/*
 * Makes an array of objects.
 */
Datum
dja_json_array(const Datum *elements, int n)
{
	DjaJsonState state = {0};

	dja_json_push(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	value;

		dja_json_value(DatumGetJsonbP(elements[i]), &value);
		dja_json_push(&state, WJB_ELEM, &value);
	}
	dja_json_push(&state, WJB_END_ARRAY, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(state.result));
}

Datum
dja_json_null(void)
{
	JsonbValue	value;

	value.type = jbvNull;
	return JsonbPGetDatum(JsonbValueToJsonb(&value));
}

/*
 * Returns the string at a key of an object, or NULL if there is none.
 */
char *
dja_json_string(Datum object, const char *key)
{
	Jsonb	   *json = DatumGetJsonbP(object);
	JsonbValue *value = NULL;

	if (JB_ROOT_IS_OBJECT(json))
		value = getKeyJsonValueFromContainer(&json->root, key, strlen(key), NULL);
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
