/*
 * in_block.c
 *
 * Functions that tell in which kind of transaction they are called, as an extension that
 * writes on other servers finds out; and a handler in C that does.  Loaded by
 * 122_transaction_block.pl.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(in_block);
PG_FUNCTION_INFO_V1(block_handler);

Datum
in_block(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(IsTransactionBlock());
}

/*
 * f(state jsonb, message jsonb): the new state is whether it runs in a block.
 */
Datum
block_handler(PG_FUNCTION_ARGS)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(IsTransactionBlock() ? "true" : "false"));
}
