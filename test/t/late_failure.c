/*
 * late_failure.c
 *
 * A library that makes transactions fail, or kills their processes, as late as that is possible: just before they commit,
 * when postgres_fdw has committed what they did on other servers.  Callbacks are called in the reverse of the order in which
 * they were registered, and this library is preloaded.
 *
 * It does so to transactions in which its trigger late_failure(what, one in n) was called; what is error or kill.
 * Preloaded beside djactor by 130_cluster_outbox.pl.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(late_failure);
extern PGDLLEXPORT void _PG_init(void);

static const char *planned = NULL;

static void
before_commit(XactEvent event, void *arg)
{
	const char *what = planned;

	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		planned = NULL;
	if (event != XACT_EVENT_PRE_COMMIT || what == NULL)
		return;
	planned = NULL;
	elog(LOG, "late %s", what);
	if (strcmp(what, "kill") == 0)
		kill(getpid(), SIGKILL);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("late failure")));
}

Datum
late_failure(PG_FUNCTION_ARGS)
{
	static int	calls = 0;
	TriggerData *data = (TriggerData *) fcinfo->context;
	char	  **args = data->tg_trigger->tgargs;

	if (++calls % atoi(args[1]) == 0)
		planned = strcmp(args[0], "kill") == 0 ? "kill" : "error";
	return PointerGetDatum(NULL);
}

void
_PG_init(void)
{
	RegisterXactCallback(before_commit, NULL);
}
