/*
 * tenant_value.h
 *
 * What rate_by and fair_by tell messages apart by: the value of a header, or the beginning
 * of the actor's key.
 *
 *   header:NAME	the value of that header; all messages without it have one in common
 *   key:SEPARATOR	the key up to the first separator; the whole key if there is none
 */
#ifndef DJA_TENANT_VALUE_H
#define DJA_TENANT_VALUE_H

typedef enum DjaByKind
{
	DJA_BY_NOTHING,
	DJA_BY_HEADER,
	DJA_BY_KEY
} DjaByKind;

typedef struct DjaBy
{
	DjaByKind	kind;
	const char *what;			/* name or separator, within the text that was
								 * read */
} DjaBy;

/* Returns false if the text is of neither form. */
extern bool dja_by_parse(const char *text, DjaBy *by);

/*
 * Returns the hash of a message's value, never 0; or 0 if by is nothing.  values and nulls
 * are a row of djactor.message, or its first columns.
 */
extern uint64 dja_tenant_value(const DjaBy *by, const Datum *values, const bool *nulls);

#endif							/* DJA_TENANT_VALUE_H */
