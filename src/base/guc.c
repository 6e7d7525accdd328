/*
 * guc.c
 *
 * Defines the settings djactor.*, and that of djactor_python, which has no
 * library of its own.  Settings that determine the size of shared memory change
 * with a restart of the server, all others with a reload.  They belong to the
 * server's administrator (PGC_SIGHUP), since one role's settings must not take
 * another role's time: ALTER ROLE and ALTER DATABASE cannot set them.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "base/guc.h"

int			dja_max_workers = 4;
int			dja_run_queue_size = 131072;
int			dja_batch_size = 1000;
int			dja_batch_time = 10;
int			dja_poll_interval = 60 * 1000;
int			dja_idle_timeout = 5 * 1000;
int			dja_dead_letter_retention = -1;
int			dja_reply_retention = 24 * 3600;
int			dja_idempotency_retention = 24 * 3600;
int			dja_max_crashes = 2;
char	   *dja_instance = "";

static char *dja_python_path = "";	/* read by djactor_python.py */

void
dja_guc_init(void)
{
	DefineCustomIntVariable("djactor.max_workers",
							"Most workers that may run handlers at the same time, in the whole server.",
							"They count against max_worker_processes, as does the launcher and, for moments, a scout.",
							&dja_max_workers, 4, 1, 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("djactor.run_queue_size",
							"Mailboxes with due mail that shared memory has room for.",
							"More than that are found by sweeping the mailbox index. 84 bytes each.",
							&dja_run_queue_size, 131072, 64, 16 * 1024 * 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("djactor.batch_size",
							"Most messages that a worker handles in one transaction.",
							NULL,
							&dja_batch_size, 1000, 1, 100000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("djactor.batch_time",
							"Time after which a worker commits what it has handled.",
							"No further handler is called in that transaction. Sooner when somebody waits for its locks.",
							&dja_batch_time, 10, 1, 60 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("djactor.poll_interval",
							"Time after which a sleeping worker looks for mail that nobody announced.",
							"A safety net only: sending wakes the worker by itself.",
							&dja_poll_interval, 60 * 1000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("djactor.idle_timeout",
							"Time without work after which an extra worker ends.",
							"One worker for each database and role stays; it makes room when another role's mail finds all workers taken.",
							&dja_idle_timeout, 5 * 1000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("djactor.dead_letter_retention",
							"Time after which a dead letter is deleted.",
							"-1 keeps dead letters for ever.",
							&dja_dead_letter_retention, -1, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("djactor.reply_retention",
							"Time for which the answer to an ask is kept in djactor.reply.",
							NULL,
							&dja_reply_retention, 24 * 3600, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("djactor.idempotency_retention",
							"Time for which an idempotency key is remembered after its message was handled.",
							NULL,
							&dja_idempotency_retention, 24 * 3600, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("djactor.max_crashes",
							"Crashes of the process that runs its handler after which a message is given up.",
							NULL,
							&dja_max_crashes, 2, 1, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("djactor.instance",
							   "Name of this installation.",
							   "Where data with waiting mail finds another name than the one it was last served under, it is held until djactor.resume().",
							   &dja_instance, "",
							   PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("djactor_python.path",
							   "Directories in which the classes of Python actors are searched.",
							   "Separated by colons or commas, after those that Python itself searches.",
							   &dja_python_path, "",
							   PGC_SUSET, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("djactor");
	MarkGUCPrefixReserved("djactor_python");
}
