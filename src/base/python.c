/*
 * python.c
 *
 * What handlers in PL/Python need of C: a nudge for the interpreter, and for the
 * extension djactor_python where `make install` has put its Python module.
 * Everything else of it is SQL and Python, so it has no library of its own, and
 * this file is not linked with Python's.
 *
 * An interpreter that loops or sleeps does not look whether the server wants
 * something of its process: that it stops, or that it lets a DROP DATABASE go on.
 * The server's signal handlers only set flags.  But the interpreter looks for
 * signals of its own: before its first handler it gets one for SIGVTALRM, which
 * nobody else uses, that runs a query, which lets the server look.
 *
 * The interpreter keeps a signal until it runs the next time, and that may be
 * where PL/Python cannot run a query: while it compiles a function.  So only a
 * handler in PL/Python is nudged, and the frames of PL/Python's own are passed
 * over; the next tick of turn_timeout.c nudges again.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
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
 * python_directory(): below the share directory of the server that runs,
 * wherever that has been moved to.
 */
Datum
dja_python_directory(PG_FUNCTION_ARGS)
{
	char		share[MAXPGPATH];

	get_share_path(my_exec_path, share);
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s/djactor", share)));
}

/*
 * Has this process' interpreter listen.  Signals that the server's own handlers
 * have seen to must also end a system call in which it waits.
 */
static void
dja_python_listen(Oid language)
{
	static bool listens = false;
	InlineCodeBlock *block;
	HeapTuple	tuple;
	Oid			handler;

	if (listens)
		return;
	tuple = SearchSysCache1(LANGOID, ObjectIdGetDatum(language));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for language %u", language);
	handler = ((Form_pg_language) GETSTRUCT(tuple))->laninline;
	ReleaseSysCache(tuple);

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
 * A handler in PL/Python begins, or ends: also by an error, which says so too.
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
 * Has the interpreter, if a handler runs in it, look for interrupts at its
 * next step, or at once when it sleeps.  Signal handlers call it, so it does
 * only what they may.
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
