/*
 * tenant_value.c
 *
 * The values by which tenants are told apart; see tenant_value.h.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/columns.h"
#include "tables/catalog.h"
#include "tables/tenant_value.h"

bool
dja_by_parse(const char *text, DjaBy *by)
{
	static const struct
	{
		const char *prefix;
		DjaByKind	kind;
	}			forms[] = {{"header:", DJA_BY_HEADER}, {"key:", DJA_BY_KEY}};

	for (int i = 0; i < (int) lengthof(forms); i++)
	{
		size_t		len = strlen(forms[i].prefix);

		if (strncmp(text, forms[i].prefix, len) != 0 || text[len] == '\0')
			continue;
		by->kind = forms[i].kind;
		by->what = text +len;

		return true;
	}
	return false;
}

static uint64
dja_header_hash(const char *name, Datum headers)
{
	Jsonb	   *object = DatumGetJsonbP(headers);
	JsonbValue	buffer;
	JsonbValue *value = NULL;
	Jsonb	   *json;
	char	   *text;

	if (JB_ROOT_IS_OBJECT(object))
		value = getKeyJsonValueFromContainer(&object->root, name, strlen(name), &buffer);
	if (value == NULL || value->type == jbvNull)
		return 0;
	if (value->type == jbvString)
		return dja_hash_name(value->val.string.val, value->val.string.len);
	/* anything else as it is written: the number 7 is the string "7" */
	json = JsonbValueToJsonb(value);
	text = JsonbToCString(NULL, &json->root, VARSIZE(json));

	return dja_hash_name(text, (int) strlen(text));
}

static uint64
dja_key_hash(const char *separator, const text *key)
{
	const char *data = VARDATA_ANY(key);
	int			len = (int) VARSIZE_ANY_EXHDR(key);
	int			separator_len = (int) strlen(separator);

	for (int i = 0; i + separator_len <= len; i++)
		if (memcmp(data + i, separator, separator_len) == 0)
			return dja_hash_name(data, i);
	return dja_hash_name(data, len);
}

uint64
dja_tenant_value(const DjaBy *by, const Datum *values, const bool *nulls)
{
	uint64		hash = 0;

	switch (by->kind)
	{
		case DJA_BY_NOTHING:
			return 0;
		case DJA_BY_HEADER:
			if (!nulls[DJA_MSG_HEADERS - 1])
				hash = dja_header_hash(by->what, values[DJA_MSG_HEADERS - 1]);
			break;
		case DJA_BY_KEY:
			hash = dja_key_hash(by->what, DatumGetTextPP(values[DJA_MSG_ACTOR_KEY - 1]));
			break;
	}
	return hash == 0 ? 1 : hash;
}
