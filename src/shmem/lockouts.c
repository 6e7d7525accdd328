/*
 * lockouts.c
 *
 * Databases that backends need for themselves, to drop, rename, move or copy them;
 * see slots.h.
 *
 * A backend makes its lockout before it asks the workers of the database to
 * end, and keeps it until its transaction has ended.  The launcher looks for
 * lockouts under the same lock before it starts a worker, so none is started in
 * between.
 */
#include "postgres.h"

#include "base/compat.h"
#include "shmem/slots.h"

/*
 * Does a backend need this database for itself?  The launcher asks without the
 * lock, too, and then under it (dja_scout_sent, dja_place_take) before it starts
 * anything there.
 */
bool
dja_is_locked_out(Oid database)
{
	for (int i = 0; i < DJA_MAX_LOCKOUTS; i++)
		if (dja_shared->slots->lockouts[i].database == database)
			return true;
	return false;
}

/*
 * Returns this backend's lockout from a database, NULL if it has none.  It is one,
 * however many of the backend's commands need it.
 */
static DjaLockout *
dja_my_lockout(Oid database)
{
	dja_assert_locked();
	for (int i = 0; i < DJA_MAX_LOCKOUTS; i++)
	{
		DjaLockout *lockout = &dja_shared->slots->lockouts[i];

		if (lockout->database == database && lockout->procno == dja_my_procno())
			return lockout;
	}
	return NULL;
}

/*
 * Keeps workers from starting in a database until dja_lockout_end() or
 * dja_lockouts_end().  Returns false if too many databases are locked out already.
 */
bool
dja_lockout_begin(Oid database)
{
	DjaLockout *lockout = dja_my_lockout(database);

	for (int i = 0; i < DJA_MAX_LOCKOUTS && lockout == NULL; i++)
	{
		if (OidIsValid(dja_shared->slots->lockouts[i].database))
			continue;
		lockout = &dja_shared->slots->lockouts[i];
		lockout->database = database;
		lockout->procno = dja_my_procno();
		lockout->count = 0;
	}
	if (lockout != NULL)
		lockout->count++;
	return lockout != NULL;
}

/*
 * Ends this backend's lockout from a database for one of its commands.
 */
void
dja_lockout_end(Oid database)
{
	DjaLockout *lockout = dja_my_lockout(database);

	Assert(lockout == NULL || lockout->count > 0);
	if (lockout != NULL && --lockout->count == 0)
		lockout->database = InvalidOid;
}

/*
 * Ends all lockouts of this backend.
 */
void
dja_lockouts_end(void)
{
	dja_assert_locked();
	for (int i = 0; i < DJA_MAX_LOCKOUTS; i++)
	{
		DjaLockout *lockout = &dja_shared->slots->lockouts[i];

		if (OidIsValid(lockout->database) && lockout->procno == dja_my_procno())
			lockout->database = InvalidOid;
	}
}
