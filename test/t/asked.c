/*
 * asked.c
 *
 * A library that the server asks before it runs a function, as sepgsql is asked: it forbids
 * those named "forbidden".  Preloaded beside djactor by 051_asked.pl.
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "fmgr.h"
#include "utils/lsyscache.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static object_access_hook_type asked_next = NULL;

static void
asked(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (asked_next)
		asked_next(access, class, object, sub, arg);
	if (access == OAT_FUNCTION_EXECUTE && strcmp(get_func_name(object), "forbidden") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a security label forbids it")));
}

void
_PG_init(void)
{
	asked_next = object_access_hook;
	object_access_hook = asked;
}
