/*
 * python.c
 *
 * What the extension djactor_python needs of C: where `make install` has put
 * its Python module, and a nudge for the interpreter.  Everything else of it
 * is SQL and Python, so it has no library of its own, and this file is not
 * linked with Python's.
 *
 * An interpreter that loops or sleeps does not look whether the server has
 * asked it to stop.  But it looks for signals of its own: the module has a
 * handler for SIGVTALRM, which nobody else uses, that lets the server look.
 */
#include "postgres.h"

#include <signal.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "python.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dja_python_directory);

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
 * Has the interpreter, if this process has one that listens, look for
 * interrupts at its next step, or at once when it sleeps.  Signal handlers
 * call it, so it does only what they may.
 */
void
dja_python_nudge(void)
{
	struct sigaction action;
	int			save_errno = errno;

	if (sigaction(SIGVTALRM, NULL, &action) == 0 &&
		action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN)
		(void) raise(SIGVTALRM);
	errno = save_errno;
}
