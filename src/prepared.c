/*
 * prepared.c
 *
 * Messages sent in prepared transactions.  What their session noted in
 * pending.c is gone when COMMIT PREPARED comes, from another session perhaps,
 * so all lanes of the database are swept instead.  Called by dbhook.c.
 */
#include "postgres.h"

#include "compat.h"
#include "held.h"
#include "miscadmin.h"
#include "prepared.h"
#include "runqueue.h"
#include "slots.h"
#include "storage/ipc.h"

static bool dja_preparing = false;	/* a COMMIT PREPARED is under way */
static bool dja_prepared_lanes[DJA_MAX_LANES];	/* that counted it */

static void dja_prepared_exit(int code, Datum arg);

/*
 * COMMIT PREPARED makes rows visible that nobody pushes: around it, every lane
 * of the database counts a flood.  begin comes before, end after it, whatever
 * became of it; a lane with a flood keeps its place in between.
 */
void
dja_prepared_begin(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(dja_prepared_exit, (Datum) 0);
	registered = true;

	dja_lock();
	for (int i = 0; i < DJA_MAX_LANES; i++)
	{
		DjaLane    *lane = dja_lane(i);

		dja_prepared_lanes[i] = lane->in_use && lane->database == MyDatabaseId;
		if (dja_prepared_lanes[i])
			lane->floods++;
	}
	dja_preparing = true;
	dja_unlock();
}

void
dja_prepared_end(void)
{
	if (!dja_preparing)
		return;
	dja_preparing = false;
	dja_lock();
	for (int i = 0; i < DJA_MAX_LANES; i++)
	{
		DjaLane    *lane = dja_lane(i);

		if (dja_prepared_lanes[i])
			lane->floods--;
		if (lane->in_use && lane->database == MyDatabaseId)
		{
			lane->sweep_wanted = true;
			lane->next_due = DT_NOBEGIN;
			if (!lane->blocked)
				dja_wake_pool(lane->pool);
		}
	}
	dja_unlock();
	dja_held_recheck();
}

static void
dja_prepared_exit(int code, Datum arg)
{
	dja_prepared_end();
}
