/*
 * greedy.c
 *
 * A library that takes seven of the ten places that a backend has for callbacks on changes
 * of tables.  PostgreSQL needs two itself, so one is left.  Preloaded before djactor by
 * 124_callbacks.pl.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/inval.h"

PG_MODULE_MAGIC;

#define GREEDY_CALLBACKS 7

extern PGDLLEXPORT void _PG_init(void);

static void
greedy_callback(Datum arg, Oid table)
{
}

void
_PG_init(void)
{
	for (int i = 0; i < GREEDY_CALLBACKS; i++)
		CacheRegisterRelcacheCallback(greedy_callback, (Datum) 0);
}
