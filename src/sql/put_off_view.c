/*
 * put_off_view.c
 *
 * The mailboxes that are put off, for the view djactor.mailbox.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "shmem/run_queue.h"

PG_FUNCTION_INFO_V1(dja_put_off_list);

#define DJA_LOOK_CHUNK 256		/* mailboxes under the lock */

/*
 * Adds a row.  key_hash is NULL for all mailboxes of a type.
 */
static void
dja_put_off_row(ReturnSetInfo *rsinfo, uint64 type_hash, const uint64 *key_hash, int times,
				TimestampTz until, const char *reason)
{
	Datum		values[5];
	bool		nulls[5] = {0};

	values[0] = Int64GetDatum((int64) type_hash);
	nulls[1] = key_hash == NULL;
	values[1] = nulls[1] ? (Datum) 0 : Int64GetDatum((int64) *key_hash);
	values[2] = Int32GetDatum(times);
	values[3] = TimestampTzGetDatum(until);
	values[4] = CStringGetTextDatum(reason);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * Adds a row for a type that has had its turns.
 */
static void
dja_spent_row(ReturnSetInfo *rsinfo, int i)
{
	DjaTypeQueue type_queue;

	dja_lock();
	type_queue = *dja_type_queue(i);
	dja_unlock();
	if (type_queue.in_use && type_queue.database == MyDatabaseId && type_queue.spent_until > GetCurrentTimestamp())
		dja_put_off_row(rsinfo, type_queue.type_hash, NULL, 0, type_queue.spent_until, "rate");
}

/*
 * Adds a row for each mailbox whose tenant has had its turns.
 */
static void
dja_spent_tenants_rows(ReturnSetInfo *rsinfo)
{
	TimestampTz now = GetCurrentTimestamp();
	int			size = dja_shared->queue->size;
	uint64		type_hashes[DJA_LOOK_CHUNK];
	uint64		key_hashes[DJA_LOOK_CHUNK];
	TimestampTz until[DJA_LOOK_CHUNK];

	for (int first = 0; first < size; first += DJA_LOOK_CHUNK)
	{
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		dja_lock();
		for (int i = first; i < Min(first + DJA_LOOK_CHUNK, size); i++)
		{
			DjaMailbox *mailbox = dja_mailbox(i);

			if (mailbox->state == DJA_MAILBOX_FREE || mailbox->tenant < 0 ||
				dja_tenant(mailbox->tenant)->spent_until <= now ||
				dja_type_queue(mailbox->type_queue)->database != MyDatabaseId ||
				!(mailbox->state == DJA_MAILBOX_QUEUED || mailbox->state == DJA_MAILBOX_BEHIND || mailbox->spent))
				continue;
			type_hashes[n] = dja_type_queue(mailbox->type_queue)->type_hash;
			key_hashes[n] = mailbox->key_hash;
			until[n++] = dja_tenant(mailbox->tenant)->spent_until;
		}
		dja_unlock();
		for (int i = 0; i < n; i++)
			dja_put_off_row(rsinfo, type_hashes[i], &key_hashes[i], 0, until[i], "rate");
	}
}

/*
 * put_off_list(): one row for each mailbox of this database that is put off, and for
 * each type that has had its turns.
 * Nothing is allocated under the lock: a type queue with more of them than there
 * is room for is read again.
 */
Datum
dja_put_off_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DjaMailbox *found = NULL;
	int			room = 0;
	bool		tenants = false;

	InitMaterializedSRF(fcinfo, 0);
	/* the view counts without the preload, too; then nothing is put off */
	for (int i = 0; dja_shared != NULL && i < DJA_MAX_TYPE_QUEUES; i++)
	{
		uint64		type_hash;
		int			n;

		CHECK_FOR_INTERRUPTS();
		/* a look without the lock suffices for nearly all */
		if (!dja_type_queue(i)->in_use)
			continue;
		tenants |= dja_type_queue(i)->rate_by;
		if (dja_type_queue(i)->spent_until != 0)
			dja_spent_row(rsinfo, i);
		if (dja_type_queue(i)->put_off.length == 0)
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
			if (!found[m].spent)
				dja_put_off_row(rsinfo, type_hash, &found[m].key_hash, found[m].put_offs, found[m].not_before, "lock");
	}
	if (tenants)
		dja_spent_tenants_rows(rsinfo);
	return (Datum) 0;
}
