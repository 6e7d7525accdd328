/*
 * scout_booking.c
 *
 * The databases that scouts are sent to; see slots.h.
 *
 * Any backend may call for a scout, from a callback of a committed transaction,
 * too. Such calls are stored without the lock.  The launcher takes them, and
 * books one database at a time, under the lock.  So a backend that needs the
 * database for itself finds the scout that is there, or on its way.
 */
#include "postgres.h"

#include "shmem/slots.h"

/* ---------- the scout that is sent ---------- */

/*
 * Books a database for the scout that the launcher is about to send.  Returns false
 * if a backend needs the database for itself.
 */
bool
dja_scout_sent(Oid database)
{
	DjaSlots   *slots = dja_shared->slots;

	dja_assert_locked();
	dja_assert_launcher();
	if (dja_is_locked_out(database))
		return false;
	slots->scouting = database;
	slots->scout_pid = 0;
	slots->scout_stop = false;
	return true;
}

/*
 * Registers a scout that is not connected yet.  Returns whether it may go on.  From
 * now on a backend that needs the database waits for its end.
 */
bool
dja_scout_attach(Oid database)
{
	DjaSlots   *slots = dja_shared->slots;

	dja_assert_locked();
	if (slots->scouting != database || slots->scout_stop)
		return false;
	slots->scout_pid = MyProcPid;
	return true;
}

/*
 * Asks the scout to end that is in a database, or on its way there.  Returns its
 * pid, 0 if there is none yet.  Its end takes a moment, unless it waits for a lock.
 */
int
dja_stop_scout(Oid database)
{
	DjaSlots   *slots = dja_shared->slots;

	dja_assert_locked();
	if (slots->scouting != database)
		return 0;
	slots->scout_stop = true;
	return slots->scout_pid;
}

/* ---------- where one is wanted ---------- */

/*
 * Has the launcher send a scout to a database, or to all (InvalidOid).  Takes no
 * lock.  Two callers may take one element at once; so each looks a second time, and a
 * scout too few is the worst that can come of it.  If no element is left, scouts are
 * sent to all databases.  later: the database is new, so there is time.
 */
void
dja_ring_scout(Oid database, bool later)
{
	volatile Oid *wanted = later ? dja_shared->slots->scout_new : dja_shared->slots->scout_databases;
	bool		noted = false;

	for (int i = 0; OidIsValid(database) && i < DJA_MAX_SCOUTS && !noted; i++)
	{
		if (!OidIsValid(wanted[i]))
			wanted[i] = database;
		noted = wanted[i] == database;
	}
	if (!noted)
		dja_shared->slots->scout_wanted = true;
	dja_ring_launcher();
}
