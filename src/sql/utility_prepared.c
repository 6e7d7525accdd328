/*
 * utility_prepared.c
 *
 * COMMIT PREPARED makes messages visible that nobody pushes.  The type queues of
 * the database are swept instead, whatever becomes of the command
 * (xact/prepared.c).
 */
#include "postgres.h"

#include "nodes/parsenodes.h"

#include "sql/utility_hook.h"
#include "xact/prepared.h"

void
dja_before_prepared(DjaUtility *utility)
{
	if (((TransactionStmt *) utility->statement)->kind == TRANS_STMT_COMMIT_PREPARED)
		dja_prepared_begin();
}

/*
 * Does nothing after another command on transactions, since nothing has begun.
 */
void
dja_after_prepared(DjaUtility *utility)
{
	dja_prepared_end();
}
