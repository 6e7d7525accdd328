/*
 * prepared.c
 *
 * Messages sent in prepared transactions.  What their session noted in pending.c
 * is lost by the time of COMMIT PREPARED, which another session may run.  So all
 * type queues of the database are swept instead.  Called by utility_prepared.c.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"

#include "base/compat.h"
#include "shmem/copy_shmem.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "xact/prepared.h"

static bool dja_preparing = false;	/* a COMMIT PREPARED is under way */
static bool dja_prepared_type_queues[DJA_MAX_TYPE_QUEUES];	/* which have counted it */

static void dja_prepared_exit(int code, Datum arg);

/*
 * Has every type queue of the database count an overflow, since COMMIT PREPARED
 * makes rows visible that no sender pushes.  dja_prepared_end() has to follow,
 * also after an error.  A type queue with an overflow keeps its slot in between.
 */
void
dja_prepared_begin(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(dja_prepared_exit, (Datum) 0);
	registered = true;
	Assert(!dja_preparing);

	dja_lock();
	for (int i = 0; i < DJA_MAX_TYPE_QUEUES; i++)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);

		dja_prepared_type_queues[i] = type_queue->in_use && type_queue->database == MyDatabaseId;
		if (dja_prepared_type_queues[i])
			type_queue->overflows++;
	}
	dja_preparing = true;
	dja_unlock();
}

/*
 * Takes the overflows back and has all type queues of the database swept.
 */
void
dja_prepared_end(void)
{
	if (!dja_preparing)
		return;
	dja_preparing = false;
	dja_lock();
	for (int i = 0; i < DJA_MAX_TYPE_QUEUES; i++)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);

		Assert(!dja_prepared_type_queues[i] || type_queue->overflows > 0);
		if (dja_prepared_type_queues[i])
			type_queue->overflows--;
		if (type_queue->in_use && type_queue->database == MyDatabaseId)
		{
			type_queue->sweep_wanted = true;
			type_queue->next_due = DT_NOBEGIN;
			if (!type_queue->blocked)
				dja_wake_pool(type_queue->pool);
		}
	}
	dja_unlock();
	dja_copy_recheck();
}

static void
dja_prepared_exit(int code, Datum arg)
{
	dja_prepared_end();
}
