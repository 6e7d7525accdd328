/*
 * mailbox_index.c
 *
 * SQL functions by which messages are indexed (djactor.message_mailbox and its
 * neighbours).
 */
#include "postgres.h"

#include "fmgr.h"

#include "shmem/run_queue.h"
#include "tables/catalog.h"

PG_FUNCTION_INFO_V1(dja_name_hash);
PG_FUNCTION_INFO_V1(dja_mailbox_position);

Datum
dja_name_hash(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) dja_hash_text(PG_GETARG_TEXT_PP(0)));
}

Datum
dja_mailbox_position(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(dja_position(PG_GETARG_INT16(0), PG_GETARG_INT64(1)));
}
