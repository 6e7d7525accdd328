/*
 * put_off_view.c
 *
 * The mailboxes that are put off, for the view djactor.mailbox.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "shmem/run_queue.h"

PG_FUNCTION_INFO_V1(dja_put_off_list);

/*
 * put_off_list(): one row for each mailbox of this database that is put off.
 * Nothing is allocated under the lock: a type queue with more of them than there
 * is room for is read again.
 */
Datum
dja_put_off_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DjaMailbox *found = NULL;
	int			room = 0;

	InitMaterializedSRF(fcinfo, 0);
	/* the view counts without the preload, too; then nothing is put off */
	for (int i = 0; dja_shared != NULL && i < DJA_MAX_TYPE_QUEUES; i++)
	{
		uint64		type_hash;
		int			n;

		CHECK_FOR_INTERRUPTS();
		/* a look without the lock suffices for nearly all */
		if (!dja_type_queue(i)->in_use || dja_type_queue(i)->put_off < 0)
			continue;
		for (;;)
		{
			dja_lock();
			n = dja_type_queue_put_off(i, MyDatabaseId, &type_hash, found, room);
			dja_unlock();
			if (n <= room)
				break;
			room = 2 * n;
			found = palloc(sizeof(DjaMailbox) * room);
		}
		for (int m = 0; m < n; m++)
		{
			Datum		values[4];
			bool		nulls[4] = {0};

			values[0] = Int64GetDatum((int64) type_hash);
			values[1] = Int64GetDatum((int64) found[m].key_hash);
			values[2] = Int32GetDatum(found[m].put_offs);
			values[3] = TimestampTzGetDatum(found[m].not_before);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}
