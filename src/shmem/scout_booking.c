/*
 * scout_booking.c
 *
 * Which databases scouts are sent to; see slots.h.
 *
 * Anybody may want a scout somewhere, from a callback of a committed transaction,
 * too: such wishes are flags and places that are set without the lock.  The launcher
 * takes them and books one database at a time, under the lock, so that a backend
 * that needs the database for itself finds the scout that is there, or on its way.
 */
#include "postgres.h"

#include "base/compat.h"
#include "shmem/slots.h"

/* ---------- the scout that is sent ---------- */

/*
 * The launcher is about to send a scout to a database; false if somebody needs
 * that for himself.
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
 * A scout, not connected yet, has come: may it go on?  From now on whoever needs
 * the database waits for its end.
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
 * pid, 0 if there is none yet.  It lasts a moment, unless it waits for a lock.
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
 * Has the launcher send a scout to a database, or to all (InvalidOid).  Takes
 * no lock: two that take one place cost a scout too few at worst, so a second
 * look makes sure, and no place left means all.
 */
static void
dja_note_scout(volatile Oid *wanted, Oid database)
{
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

void
dja_ring_scout(Oid database)
{
	dja_note_scout(dja_shared->slots->scout_databases, database);
}

/*
 * The same, but there is time: the database is new.
 */
void
dja_ring_scout_later(Oid database)
{
	dja_note_scout(dja_shared->slots->scout_new, database);
}
