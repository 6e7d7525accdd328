/*
 * cluster.h
 *
 * Rows of djactor_cluster.message; see cluster.c.
 */
#ifndef DJA_CLUSTER_H
#define DJA_CLUSTER_H

#include "access/tupdesc.h"

#include "base/columns.h"

/* Columns of djactor_cluster.message; those up to cause_id are djactor.message's. */
enum
{
	DJA_CLUSTER_SENT_AT = DJA_MSG_CAUSE_ID + 1, DJA_CLUSTER_COALESCE_KEY,
	DJA_CLUSTER_COALESCE_MODE, DJA_CLUSTER_COALESCE_UNTIL,
	DJA_CLUSTER_FROM_NODE, DJA_CLUSTER_ASK_ID,
	DJA_CLUSTER_NATTS = DJA_CLUSTER_ASK_ID
};

/*
 * Checks a message for another node as any that is sent, so that its sender hears what
 * is wrong.  Returns its id, which is a new one unless the row has one.
 */
extern int64 dja_cluster_check(TupleDesc columns, const Datum *row, const bool *row_nulls);

#endif							/* DJA_CLUSTER_H */
