/*
 * hosted_session.c
 *
 * Sessions that are hosts: host_open() and host_close(), and what any session of the
 * same role may do for a host: renew its lease, stop it from taking more, report that
 * its process has died.  Which host runs a message.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/calendar.h"
#include "base/compat.h"
#include "shmem/crash.h"
#include "tables/actor_type.h"
#include "tables/message.h"
#include "turn/hosted_session.h"
#include "xact/copy_check.h"

PG_FUNCTION_INFO_V1(dja_sql_host_open);
PG_FUNCTION_INFO_V1(dja_sql_host_close);
PG_FUNCTION_INFO_V1(dja_sql_heartbeat);
PG_FUNCTION_INFO_V1(dja_sql_host_drain);
PG_FUNCTION_INFO_V1(dja_sql_host_crashed);
PG_FUNCTION_INFO_V1(dja_sql_host_list);
PG_FUNCTION_INFO_V1(dja_hosted_state);

#define DJA_MIN_LEASE_USEC USECS_PER_SEC
#define DJA_MAX_LEASE_USEC (3600 * USECS_PER_SEC)

static int	dja_my_host = DJA_NO_HOST;
static int64 dja_my_host_id = 0;

/*
 * Is this session's host still registered?  Needs the lock.
 */
static bool
dja_is_host(void)
{
	dja_assert_locked();
	return dja_my_host >= 0 && dja_host(dja_my_host)->id == dja_my_host_id && !dja_host(dja_my_host)->gone;
}

/*
 * Returns the host that this session is, with its id, and renews its lease.  Raises 55000 if it is
 * none.
 */
int
dja_require_host(int64 *id)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		is_host;

	dja_lock();
	is_host = dja_is_host();
	if (is_host)
	{
		dja_host_renew(dja_my_host, now);
		dja_host_wait(dja_my_host, false);
	}
	dja_unlock();
	if (!is_host && dja_my_host >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the lease of this host is over"),
				 errdetail("What it had taken is handed out to others."),
				 errhint("Call djactor.host_open() again.")));
	if (!is_host)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this session is not a host"),
				 errhint("Call djactor.host_open() in this session. It has to be connected directly, or by a pooler in session mode.")));
	*id = dja_my_host_id;
	return dja_my_host;
}

static void
dja_host_exit(int code, Datum arg)
{
	dja_lock();
	/* a client that goes away has died; a session that is ended has not */
	if (dja_is_host())
		dja_host_end(dja_my_host, !ProcDiePending);
	dja_unlock();
	dja_my_host = DJA_NO_HOST;
	dja_ring_launcher();
}

/*
 * Reads the types that a host asks for.  Raises an error unless the user owns all of
 * them, and they are hosted.
 */
static int
dja_read_host_types(ArrayType *array, uint64 *hashes, int *state_versions)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	if (n < 1 || n > DJA_MAX_HOST_TYPES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a host must have 1 to %d actor types", DJA_MAX_HOST_TYPES)));
	for (int i = 0; i < n; i++)
	{
		DjaType    *type;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("types must not contain nulls")));
		type = dja_require_type(DatumGetTextPP(names[i]));
		if (type->owner != GetUserId())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("role \"%s\" does not own actor type \"%s\"",
							GetUserNameFromId(GetUserId(), false), type->name),
					 errhint("Connect as role \"%s\", as which its turns run.",
							 GetUserNameFromId(type->owner, false))));
		if (!type->hosted)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("actor type \"%s\" is not hosted", type->name),
					 errhint("Define it with hosted => true.")));
		hashes[i] = type->hash;
		state_versions[i] = type->state_version;
	}
	return n;
}

/*
 * Has the server notice soon that the client's machine is gone.  The settings are the
 * session's, and mean nothing on a socket of this machine.
 */
static void
dja_host_keepalives(void)
{
	static const char *const settings[][2] = {
		{"tcp_keepalives_idle", "5"}, {"tcp_keepalives_interval", "2"},
		{"tcp_keepalives_count", "3"}, {"tcp_user_timeout", "10000"},
		{"client_connection_check_interval", "1000"},
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SET, true, WARNING, false);
}

/*
 * host_open(types, name, lease, version)
 */
Datum
dja_sql_host_open(PG_FUNCTION_ARGS)
{
	static bool exits = false;
	uint64		types[DJA_MAX_HOST_TYPES];
	int			state_versions[DJA_MAX_HOST_TYPES];
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Interval   *interval = PG_GETARG_INTERVAL_P(2);
	char	   *version = text_to_cstring(PG_GETARG_TEXT_PP(3));
	int64		lease;
	int			ntypes;
	bool		already;

	PreventCommandDuringRecovery("djactor.host_open()");
	dja_require_installed();
	lease = DJA_INTERVAL_INFINITE(interval) ? 0 : dja_interval_usec(interval);
	if (lease < DJA_MIN_LEASE_USEC || lease > DJA_MAX_LEASE_USEC)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be between 1 second and 1 hour")));
	ntypes = dja_read_host_types(PG_GETARG_ARRAYTYPE_P(0), types, state_versions);
	dja_home_check();
	if (!exits)
		before_shmem_exit(dja_host_exit, (Datum) 0);
	exits = true;

	dja_lock();
	already = dja_is_host();
	if (!already)
	{
		dja_my_host = dja_host_open(MyDatabaseId, GetUserId(), types, state_versions, ntypes, name,
									version, (int) (lease / 1000));
		if (dja_my_host >= 0)
			dja_my_host_id = dja_host(dja_my_host)->id;
	}
	dja_unlock();
	if (already)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this session is a host already")));
	if (dja_my_host < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many hosts"),
				 errdetail("There is room for %d.", DJA_MAX_HOSTS)));
	dja_host_keepalives();
	dja_ring_launcher();		/* it looks after the lease */
	PG_RETURN_INT64(dja_my_host_id);
}

/*
 * host_close()
 */
Datum
dja_sql_host_close(PG_FUNCTION_ARGS)
{
	int64		id;

	dja_require_preload();
	(void) dja_require_host(&id);
	dja_lock();
	if (dja_is_host())
		dja_host_end(dja_my_host, false);
	dja_unlock();
	dja_my_host = DJA_NO_HOST;
	PG_RETURN_VOID();
}

/*
 * Returns the host with an id, if it is one of this database and the user may act for
 * it; DJA_NO_HOST if it is gone.  Needs the lock.
 */
static int
dja_find_own_host(int64 id)
{
	int			i = dja_host_find(id);

	return i >= 0 && dja_host(i)->database == MyDatabaseId && dja_host(i)->role == GetUserId() ?
		i : DJA_NO_HOST;
}

/*
 * heartbeat(host)
 */
Datum
dja_sql_heartbeat(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		alive;
	int			i;

	dja_require_preload();
	dja_lock();
	i = dja_find_own_host(PG_GETARG_INT64(0));
	alive = i >= 0 && !dja_host(i)->gone;
	if (alive)
		dja_host_renew(i, now);
	dja_unlock();
	PG_RETURN_BOOL(alive);
}

/*
 * host_drain(host)
 */
Datum
dja_sql_host_drain(PG_FUNCTION_ARGS)
{
	int			i;

	dja_require_preload();
	dja_lock();
	i = dja_find_own_host(PG_GETARG_INT64(0));
	if (i >= 0 && !dja_host(i)->gone)
		dja_host(i)->draining = true;
	dja_unlock();
	PG_RETURN_BOOL(i >= 0);
}

/*
 * Charges a message with the death of its process, if the user owns its type.  A worker
 * writes that down before the type's mail goes on.
 */
static void
dja_charge_message(int64 id)
{
	DjaMessage *message = dja_message_by_id(id, GetActiveSnapshot());
	DjaType    *type;
	text	   *name;
	int			type_queue;

	if (message == NULL)
		return;
	name = DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1]);
	type = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	if (type == NULL || type->owner != GetUserId())
		return;
	dja_lock();
	dja_crash_charge(MyDatabaseId, type->hash, id);
	type_queue = dja_type_queue_find(MyDatabaseId, type->hash);
	if (type_queue >= 0 && dja_type_queue(type_queue)->pool >= 0)
		dja_wake_pool(dja_type_queue(type_queue)->pool);
	dja_unlock();
}

/*
 * host_crashed(host, charged)
 */
Datum
dja_sql_host_crashed(PG_FUNCTION_ARGS)
{
	Datum	   *charged;
	bool	   *nulls;
	int64		already = 0;
	bool		known;
	int			n;
	int			i;

	dja_require_installed();
	PreventCommandIfReadOnly("djactor.host_crashed()");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &charged, &nulls, &n);
	dja_lock();
	i = dja_find_own_host(PG_GETARG_INT64(0));
	known = i >= 0;
	if (known && !dja_host(i)->gone)
		dja_host_end(i, true);	/* its session has not noticed yet */
	if (known)
	{
		already = dja_host(i)->charged_id;
		if (n > 0)
			dja_host_acquit(i);
		dja_host_forget(i);
	}
	dja_unlock();
	for (int c = 0; c < n && known; c++)
		if (!nulls[c] && DatumGetInt64(charged[c]) != already)
			dja_charge_message(DatumGetInt64(charged[c]));
	PG_RETURN_BOOL(known);
}

/*
 * host_list(): one row for each host of this database.
 */
Datum
dja_sql_host_list(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DjaHost    *host = palloc(sizeof(DjaHost));

	dja_require_installed();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < DJA_MAX_HOSTS; i++)
	{
		Datum		values[11];
		bool		nulls[11] = {0};
		Datum		names[DJA_MAX_HOST_TYPES];
		int			nnames = 0;

		dja_lock();
		*host = *dja_host(i);
		dja_unlock();
		if (host->id == 0 || host->gone || host->database != MyDatabaseId)
			continue;
		for (int t = 0; t < host->ntypes; t++)
		{
			DjaType    *type = dja_type_by_hash(host->types[t]);

			if (type != NULL)
				names[nnames++] = CStringGetTextDatum(type->name);
		}
		values[0] = Int64GetDatum(host->id);
		values[1] = Int32GetDatum(host->pid);
		values[2] = ObjectIdGetDatum(host->role);
		values[3] = CStringGetTextDatum(host->name);
		values[4] = CStringGetTextDatum(host->version);
		values[5] = PointerGetDatum(construct_array(names, nnames, TEXTOID, -1, false, TYPALIGN_INT));
		values[6] = Int32GetDatum(host->nclaims);
		values[7] = CStringGetTextDatum(host->draining ? "draining" : host->waiting ? "waiting" :
										host->nclaims > 0 ? "busy" : "idle");
		values[8] = TimestampTzGetDatum(host->since);
		values[9] = TimestampTzGetDatum(host->lease_until);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * hosted_state(message_id): whether a host runs a message.
 *
 * The claim is looked for before the row, under a snapshot of after that.  So a message
 * whose turn ends meanwhile is gone, and not one that waits.
 */
Datum
dja_hosted_state(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	Datum		values[3];
	bool		nulls[3] = {true, true, true};
	DjaMessage *message;
	DjaHostClaim claim = {0};
	TupleDesc	desc;
	char		name[NAMEDATALEN];
	bool		found = false;

	dja_require_preload();
	dja_catalog_require();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	message = dja_message_by_id(id, GetActiveSnapshot());
	if (message != NULL)
	{
		uint64		type_hash = dja_hash_text(DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1]));
		uint64		key_hash = dja_hash_text(message->key);
		int			i;

		dja_lock();
		i = dja_host_claim_of(MyDatabaseId, type_hash, key_hash);
		if (i >= 0)
		{
			found = true;
			claim = *dja_host_claim(i);
			strlcpy(name, dja_host(claim.host)->name, NAMEDATALEN);
		}
		dja_unlock();
		message = dja_message_by_id(id, GetLatestSnapshot());
	}
	if (message != NULL)
	{
		found &= message->nulls[DJA_MSG_ASIDE - 1] && !dja_message_is_delayed(message) &&
			(claim.message_id == id || (claim.message_id == 0 && claim.done > 0));
		nulls[0] = false;
		values[0] = CStringGetTextDatum(!found ? "waiting" : claim.message_id == 0 ? "next" : "running");
	}
	if (message != NULL && found)
	{
		nulls[1] = nulls[2] = false;
		values[1] = CStringGetTextDatum(name);
		values[2] = TimestampTzGetDatum(claim.progress_at);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
