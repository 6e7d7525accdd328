/*
 * python.c
 *
 * What the extension djactor_python needs of C: where `make install` has put
 * its Python module.  Everything else of it is SQL and Python, so it has no
 * library of its own and this file knows nothing of Python.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
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
