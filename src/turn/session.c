/*
 * session.c
 *
 * A worker's session is logged in as the owner of the actor types that it runs,
 * and stays so.  Handlers may do what that role may do.  Settings that they change
 * are undone after each turn (visit.c); whatever else outlives their transaction is
 * undone after each batch.  A worker outlives changes to its role, so these are
 * looked at before each batch.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "commands/prepare.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/portal.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "shmem/slots.h"
#include "turn/session.h"

/*
 * How soon a worker checks whether the lock that it waits for is part of a
 * deadlock.  The first process that checks is the victim, and that should be the
 * worker.
 */
#define DJA_DEADLOCK_TIMEOUT "2ms"

bool		dja_session_touched = false;

bool		dja_session_outdated = false;
static bool dja_role_changed = true;
static bool dja_login_superuser;

static void
dja_role_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	dja_role_changed = true;
}

static void
dja_columns_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	dja_session_outdated = true;
}

/*
 * Makes this worker end after the batch, so that a fresh session takes over.
 */
void
dja_session_renew(void)
{
	dja_assert_worker();
	dja_lock();
	dja_my_worker->stop = true;
	dja_unlock();
}

/*
 * Sets what bookkeeping and contract need, whatever ALTER ROLE and ALTER DATABASE
 * have set.
 */
void
dja_session_settings(const char *application_name)
{
	const char *const settings[][2] = {
		{"role", "none"},
		{"session_replication_role", "origin"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"application_name", application_name},
		{"transaction_timeout", "0"},
		{"exit_on_error", "off"},
		{"deadlock_timeout", DJA_DEADLOCK_TIMEOUT},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * Called once, after login.
 */
void
dja_session_begin(void)
{
	dja_session_settings("djactor worker");
	dja_login_superuser = strcmp(GetConfigOption("is_superuser", false, false), "on") == 0;
	CacheRegisterSyscacheCallback(AUTHOID, dja_role_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, dja_role_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(DATABASEOID, dja_role_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(ATTNUM, dja_columns_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, dja_columns_callback, (Datum) 0);
}

/*
 * Called in a transaction before handlers run: ends the worker if its role may no
 * longer log in here.
 *
 * Up to 15, a session that logged in as a superuser may become any role for as long
 * as it lasts, even if its own role is no superuser any more.  So the worker ends
 * then, too.
 */
void
dja_session_check(void)
{
	HeapTuple	tuple;
	bool		ok = false;
	bool		same = false;

	if (!dja_role_changed)
		return;
	dja_role_changed = false;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetAuthenticatedUserId()));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_authid role = (Form_pg_authid) GETSTRUCT(tuple);

		ok = role->rolcanlogin && (role->rolsuper || dja_may_connect(MyDatabaseId, role->oid));
		same = role->rolsuper == dja_login_superuser;
		ReleaseSysCache(tuple);
	}
	if (!ok)
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the role of this djactor worker may not log in any more")));
	if (!same)
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the role of this djactor worker was made a superuser, or is none any more"),
				 errdetail("A fresh session takes over.")));
}

/*
 * Looks at the locks of this process: is one of them an advisory lock, of the
 * session or of the transaction, and does another process wait for one?  A process
 * that waits for a row waits for the lock on our transaction id.  Only we add locks
 * to the lists of our process, so an empty list can be seen without a lock.
 */
static bool
dja_look_at_locks(bool *waited_for)
{
	bool		advisory = false;

	*waited_for = false;
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		dja_lock_list *list = &MyProc->myProcLocks[i];
		LWLock	   *partition = LockHashPartitionLockByIndex(i);

		if (dja_lock_list_empty(list))
			continue;
		LWLockAcquire(partition, LW_SHARED);
		for (PROCLOCK *lock = dja_lock_list_next(list, NULL); lock != NULL;
			 lock = dja_lock_list_next(list, lock))
		{
			advisory |= lock->tag.myLock->tag.locktag_lockmethodid == USER_LOCKMETHOD;
			*waited_for |= lock->tag.myLock->waitMask != 0;
		}
		LWLockRelease(partition);
	}
	return advisory;
}

/*
 * Does another process wait for what this one has locked?
 */
bool
dja_locks_waited_for(void)
{
	bool		waited_for;

	(void) dja_look_at_locks(&waited_for);
	return waited_for;
}

/*
 * Called after a turn: releases the advisory locks that it has taken for the
 * session, and returns whether another process waits for what the transaction has
 * locked.  The server's own function looks at everything that the process has
 * locked in the transaction, which costs more than a small turn; so it is called
 * only if there is such a lock.
 */
bool
dja_session_waited_for(void)
{
	bool		waited_for;

	if (dja_look_at_locks(&waited_for))
		LockReleaseSession(USER_LOCKMETHOD);
	return waited_for;
}

/*
 * Undoes what sessions keep beyond transactions, so that the next batch starts with
 * a clean one.  Ends the worker if a handler has managed to stay another role.
 */
void
dja_session_clean(void)
{
	dja_session_touched = false;
	DropAllPreparedStatements();
	PortalHashTableDeleteAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	if (GetUserId() != GetAuthenticatedUserId() || GetSessionUserId() != GetAuthenticatedUserId())
		ereport(FATAL,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a handler has left the session as another role")));
}

/* ---------- drain() ---------- */

/* Cursors that were open when drain() began, by name; as long as that runs. */
static List *dja_kept_cursors = NIL;

/*
 * The names of the open cursors, by means of the view pg_cursors: there is no other
 * way to walk through the server's list.
 */
static List *
dja_cursor_names(void)
{
	ReturnSetInfo result = {.type = T_ReturnSetInfo,.allowedModes = SFRM_Materialize};

	LOCAL_FCINFO(fcinfo, 0);
	FmgrInfo	function;
	TupleTableSlot *slot;
	List	   *names = NIL;

	fmgr_info(F_PG_CURSOR, &function);
	result.econtext = CreateStandaloneExprContext();
	InitFunctionCallInfoData(*fcinfo, &function, 0, InvalidOid, NULL, (Node *) &result);
	(void) FunctionCallInvoke(fcinfo);
	slot = MakeSingleTupleTableSlot(result.setDesc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(result.setResult, true, false, slot))
	{
		bool		isnull;

		names = lappend(names, makeString(TextDatumGetCString(slot_getattr(slot, 1, &isnull))));
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(result.setResult);
	FreeExprContext(result.econtext, true);
	return names;
}

/*
 * Called when drain() begins: notes the cursors that its session has open.
 */
void
dja_session_keep_cursors(void)
{
	dja_kept_cursors = dja_cursor_names();
}

/*
 * Called after a turn of drain(): closes the cursors that it has left open.
 */
void
dja_session_close_cursors(void)
{
	ListCell   *lc;

	foreach(lc, dja_cursor_names())
	{
		Portal		portal = GetPortalByName(strVal(lfirst(lc)));

		if (PortalIsValid(portal) && portal->status != PORTAL_ACTIVE &&
			!list_member(dja_kept_cursors, lfirst(lc)))
			PortalDrop(portal, false);
	}
}
