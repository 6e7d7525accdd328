/*
 * python.c
 *
 * The C code for PL/Python: a nudge for the interpreter, and for the extension
 * djactor_python the directory into which `make install` has put its Python
 * module.  The rest of that extension is SQL and Python, so it has no library of
 * its own, and this file is not linked with Python's.
 *
 * An interpreter that loops or sleeps does not notice when the server wants its
 * process to stop, or to let a DROP DATABASE go on: the server's signal handlers
 * only set flags.  But the interpreter checks for signals of its own.  So before
 * its first handler it gets a signal handler for SIGVTALRM, which nothing else
 * uses.  That runs a query, in which the server checks its flags.
 *
 * The interpreter keeps a signal until it next runs code, and that may be where
 * PL/Python cannot run a query: while it compiles a function.  So only a handler
 * in PL/Python is nudged, and PL/Python's own frames are skipped; the next tick
 * of turn_timeout.c nudges again.
 */
#include "postgres.h"

#include <signal.h>

#include "catalog/pg_language.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "base/python.h"

PG_FUNCTION_INFO_V1(dja_python_directory);

static volatile bool dja_python_runs = false;

/*
 * python_directory(): the directory below the share directory of the running
 * server, wherever that was moved to.
 */
Datum
dja_python_directory(PG_FUNCTION_ARGS)
{
	char		share[MAXPGPATH];

	get_share_path(my_exec_path, share);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s/djactor", share)));
}

/*
 * Has the interpreter of this process listen for nudges.  Signals that the
 * server's own handlers receive must also end a system call in which it waits.
 */
static void
dja_python_listen(Oid language)
{
	static bool listens = false;
	InlineCodeBlock *block;
	Oid			handler;

	if (listens)
		return;
	handler = GetSysCacheOid1(LANGOID, Anum_pg_language_laninline, ObjectIdGetDatum(language));
	if (!OidIsValid(handler))
		elog(ERROR, "cache lookup failed for language %u", language);

	block = makeNode(InlineCodeBlock);
	block->source_text =
		"import signal\n"
		"def look(_, frame):\n"
		"    if frame is not None and not any(name.startswith('__plpython_') for name in frame.f_code.co_names):\n"
		"        plpy.execute('SELECT 1')\n"
		"signal.signal(signal.SIGVTALRM, look)\n"
		"for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):\n"
		"    signal.siginterrupt(number, True)\n";
	block->langOid = language;
	block->langIsTrusted = false;
	block->atomic = true;
	(void) OidFunctionCall1(handler, PointerGetDatum(block));
	listens = true;
}

/*
 * Called before and after a handler in PL/Python; dja_python_end() also after an
 * error.
 */
void
dja_python_begin(Oid language)
{
	dja_python_listen(language);
	dja_python_runs = true;
}

void
dja_python_end(void)
{
	dja_python_runs = false;
}

/*
 * Has the interpreter, if a handler runs in it, check for interrupts at its next
 * step, or at once if it sleeps.  Async-signal-safe: signal handlers call it.
 */
void
dja_python_nudge(void)
{
	struct sigaction action;
	int			save_errno = errno;

	if (!dja_python_runs)
		return;
	if (sigaction(SIGVTALRM, NULL, &action) == 0 &&
		action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN)
		(void) raise(SIGVTALRM);
	errno = save_errno;
}
