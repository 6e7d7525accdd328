/*
 * slow_end.c
 *
 * A library that keeps transactions from coming to an end: they have committed, or were rolled back, and whoever asked for a
 * callback has been called; but they still have their locks. Callbacks are called in the reverse of the order in which they
 * were registered, and this library is preloaded before djactor.
 *
 * slow_end(path) has the present transaction wait until the file is gone, for a minute at most. It says in the log when it
 * begins to.
 *
 * Preloaded beside djactor by 138_locks_gone.pl.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(slow_end);
extern PGDLLEXPORT void _PG_init(void);

static char file[MAXPGPATH] = "";

static void
at_the_end(XactEvent event, void *arg)
{
	if (file[0] == '\0' || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	elog(LOG, "slow end");
	for (int i = 0; i < 6000 && access(file, F_OK) == 0; i++)
		pg_usleep(10000);
	file[0] = '\0';
}

Datum
slow_end(PG_FUNCTION_ARGS)
{
	text_to_cstring_buffer(PG_GETARG_TEXT_PP(0), file, sizeof(file));
	PG_RETURN_VOID();
}

void
_PG_init(void)
{
	RegisterXactCallback(at_the_end, NULL);
}
