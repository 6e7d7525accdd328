/*
 * json.h
 *
 * The few jsonb values that djactor makes itself.
 */
#ifndef DJA_JSON_H
#define DJA_JSON_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "base/compat.h"

/* One pair of an object; the value is the first member that is set. */
typedef struct DjaPair
{
	const char *key;
	const char *string;			/* NULL: use json */
	Jsonb	   *json;			/* NULL: use number */
	int64		number;
	bool		is_number;		/* false: JSON null */
} DjaPair;

#define DJA_PAIR_STRING(key, string) {(key), (string), NULL, 0, false}
#define DJA_PAIR_NUMBER(key, number) {(key), NULL, NULL, (number), true}

extern void dja_json_push_string(DjaJsonState *state, JsonbIteratorToken token, const char *string);
extern Datum dja_json_object(const DjaPair *pairs, int n);
extern Datum dja_json_array(const Datum *elements, int n);
extern Datum dja_json_null(void);
extern char *dja_json_string(Datum object, const char *key);
extern char *dja_time_string(TimestampTz time);

#endif							/* DJA_JSON_H */
