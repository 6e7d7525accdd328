/*
 * utility_prepared.c
 *
 * PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED: prepared transactions
 * have a gid, and what they owe the workers is remembered by it (xact/prepared.c).
 */
#include "postgres.h"

#include "nodes/parsenodes.h"

#include "sql/utility_hook.h"
#include "xact/prepared.h"

void
dja_before_prepared(DjaUtility *utility)
{
	TransactionStmt *statement = (TransactionStmt *) utility->statement;

	switch (statement->kind)
	{
		case TRANS_STMT_PREPARE:
			dja_prepared_gid(statement->gid);
			break;
		case TRANS_STMT_COMMIT_PREPARED:
			dja_prepared_begin(statement->gid, true);
			break;
		case TRANS_STMT_ROLLBACK_PREPARED:
			dja_prepared_begin(statement->gid, false);
			break;
		default:
			break;
	}
}

/*
 * These do nothing after another command on transactions, since nothing has begun.
 */
void
dja_after_prepared(DjaUtility *utility)
{
	dja_prepared_end(true);
}

void
dja_failed_prepared(DjaUtility *utility)
{
	dja_prepared_end(false);
}
