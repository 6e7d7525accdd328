/*
 * define.c
 *
 * define_actor_type(), alter_actor_type() and drop_actor_type().
 *
 * Whoever defines or drops takes ShareRowExclusiveLock on djactor.actor_type:
 * definers take turns, readers and senders do not notice.  All options are
 * checked here, once, so that nobody else needs to.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/calendar.h"
#include "base/columns.h"
#include "base/compat.h"
#include "shmem/run_queue.h"
#include "tables/actor.h"
#include "tables/actor_type.h"
#include "tables/handler.h"
#include "tables/message.h"
#include "tables/type_settings.h"
#include "turn/reply.h"
#include "turn/turn.h"
#include "turn/watch.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_define_actor_type);
PG_FUNCTION_INFO_V1(dja_alter_actor_type);
PG_FUNCTION_INFO_V1(dja_drop_actor_type);

/* Arguments of define_actor_type and of alter_actor_type, in their order. */
enum
{
	ARG_NAME, ARG_HANDLER, ARG_INITIAL_STATE, ARG_STATE_VERSION, ARG_UPGRADE_HANDLER, ARG_MAX_ATTEMPTS, ARG_BACKOFF, ARG_BACKOFF_MAX,
	ARG_RETRY_ORDER, ARG_ON_EXHAUSTED, ARG_HANDLER_TIMEOUT, ARG_BATCH_SIZE, ARG_CONCURRENCY,
	ARG_MAILBOX_LIMIT, ARG_ON_FULL, ARG_BREAKER_FAILURES, ARG_BREAKER_WINDOW, ARG_JOURNAL,
	ARG_OWNER, ARG_SETTINGS, NARGS
};

static const char *const dja_arg_names[NARGS] = {
	"name", "handler", "initial_state", "state_version", "upgrade_handler", "max_attempts", "backoff", "backoff_max",
	"retry_order", "on_exhausted", "handler_timeout", "batch_size", "concurrency",
	"mailbox_limit", "on_full", "breaker_failures", "breaker_window", "journal", "owner", "settings"
};

static void
dja_check_positive(FunctionCallInfo fcinfo, int arg)
{
	if (!PG_ARGISNULL(arg) && PG_GETARG_INT32(arg) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least 1", dja_arg_names[arg])));
}

static void
dja_check_interval(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return;
	if (DJA_INTERVAL_INFINITE(PG_GETARG_INTERVAL_P(arg)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be finite", dja_arg_names[arg])));
	if (dja_interval_usec(PG_GETARG_INTERVAL_P(arg)) > DJA_MAX_YEARS * DJA_YEAR_USEC)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not exceed %d years", dja_arg_names[arg], DJA_MAX_YEARS)));
	if (dja_interval_usec(PG_GETARG_INTERVAL_P(arg)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", dja_arg_names[arg])));
}

static void
dja_check_word(FunctionCallInfo fcinfo, int arg, const char *one, const char *other)
{
	char	   *word = text_to_cstring(PG_GETARG_TEXT_PP(arg));

	if (strcmp(word, one) != 0 && strcmp(word, other) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for %s: \"%s\"", dja_arg_names[arg], word),
				 errhint("Use \"%s\" or \"%s\".", one, other)));
}

static bool
dja_may_be_null(int arg)
{
	return arg == ARG_UPGRADE_HANDLER || arg == ARG_BATCH_SIZE || arg == ARG_CONCURRENCY ||
		arg == ARG_MAILBOX_LIMIT || arg == ARG_BREAKER_FAILURES || arg == ARG_JOURNAL ||
		arg == ARG_SETTINGS;
}

static void
dja_check_options(FunctionCallInfo fcinfo)
{
	text	   *name;

	for (int i = 0; i < NARGS; i++)
		if (PG_ARGISNULL(i) && !dja_may_be_null(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", dja_arg_names[i])));

	name = PG_GETARG_TEXT_PP(ARG_NAME);
	if (VARSIZE_ANY_EXHDR(name) < 1 || VARSIZE_ANY_EXHDR(name) > DJA_TYPE_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of an actor type must have 1 to %d bytes", DJA_TYPE_NAME_MAX),
				 errhint("Use app_label.name.")));
	dja_check_positive(fcinfo, ARG_STATE_VERSION);
	dja_check_positive(fcinfo, ARG_MAX_ATTEMPTS);
	dja_check_positive(fcinfo, ARG_BATCH_SIZE);
	dja_check_positive(fcinfo, ARG_CONCURRENCY);
	dja_check_positive(fcinfo, ARG_MAILBOX_LIMIT);
	dja_check_positive(fcinfo, ARG_BREAKER_FAILURES);
	dja_check_interval(fcinfo, ARG_BACKOFF);
	dja_check_interval(fcinfo, ARG_BACKOFF_MAX);
	dja_check_interval(fcinfo, ARG_HANDLER_TIMEOUT);
	dja_check_interval(fcinfo, ARG_BREAKER_WINDOW);
	dja_check_interval(fcinfo, ARG_JOURNAL);
	dja_check_word(fcinfo, ARG_RETRY_ORDER, "hold", "skip");
	dja_check_word(fcinfo, ARG_ON_EXHAUSTED, "dead_letter", "suspend");
	dja_check_word(fcinfo, ARG_ON_FULL, "raise", "dead_letter");
}

/*
 * The owner's workers log in as the owner: so it must be able to, and the
 * caller must be allowed to speak for it.
 */
static void
dja_check_owner(Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(owner));
	Form_pg_authid role;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", owner)));
	role = (Form_pg_authid) GETSTRUCT(tuple);
	if (owner != BOOTSTRAP_SUPERUSERID && owner < FirstNormalObjectId)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("predefined role \"%s\" cannot own an actor type", NameStr(role->rolname)),
				 errhint("Use a role that can log in.")));
	if (!role->rolcanlogin)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("role \"%s\" cannot own an actor type: it may not log in", NameStr(role->rolname)),
				 errdetail("Handlers run in a session that is logged in as the owner of their type."),
				 errhint("Use ALTER ROLE ... LOGIN, or name another owner.")));
	if (!role->rolsuper && !dja_may_connect(MyDatabaseId, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("role \"%s\" cannot own an actor type: it may not connect to database \"%s\"",
						NameStr(role->rolname), get_database_name(MyDatabaseId)),
				 errhint("Use GRANT CONNECT ON DATABASE.")));
	ReleaseSysCache(tuple);
	dja_check_can_act_for(owner);
}

/*
 * Two names with one hash would share a type queue, and one of them would never be
 * served.
 */
static void
dja_check_hash(const char *name, uint64 hash)
{
	DjaType    *other = dja_type_by_hash(hash);

	if (other != NULL && strcmp(other->name, name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("name \"%s\" has the same hash as actor type \"%s\"", name, other->name),
				 errhint("Use another name.")));
}

/*
 * What an earlier type of this name has left is that one's owner's: not for
 * anybody to redrive, to run, or to have thrown away, who now takes the name.
 * Dead letters and journal outlive their type; of the rest nothing should be
 * there, but rows may have been restored without it.
 */
static void
dja_check_leftovers(const char *name, uint64 hash)
{
	static const struct
	{
		DjaTable	table;
		DjaIndex	index;		/* begins with the type */
		bool		hashed;		/* ... with its hash */
		const char *name;
	}			places[] = {
		{DJA_DEAD_LETTER_TABLE, DJA_DEAD_ACTOR_INDEX, false, "dead_letter"},
		{DJA_JOURNAL_TABLE, DJA_JOURNAL_FINISHED_AT_INDEX, false, "journal"},
		{DJA_ACTOR_TABLE, DJA_ACTOR_KEY_INDEX, false, "actor"},
		{DJA_IDENTITY_TABLE, DJA_IDENTITY_PKEY, false, "actor_identity"},
		{DJA_TIMER_TABLE, DJA_TIMER_PKEY, false, "timer"},
		{DJA_WATCH_TABLE, DJA_WATCH_PKEY, false, "watch"},
		{DJA_WATCH_TABLE, DJA_WATCH_ACTOR_INDEX, false, "watch"},
		{DJA_ONCE_TABLE, DJA_ONCE_PKEY, false, "idempotency"},
		/* each message stands in one of these */
		{DJA_MESSAGE_TABLE, DJA_MAILBOX_INDEX, true, "message"},
		{DJA_MESSAGE_TABLE, DJA_DUE_INDEX, true, "message"},
		{DJA_MESSAGE_TABLE, DJA_ASIDE_INDEX, true, "message"},
	};
	Datum		key = CStringGetTextDatum(name);
	Datum		hash_key = Int64GetDatum((int64) hash);

	for (size_t i = 0; i < lengthof(places); i++)
	{
		bool		outlives = places[i].table == DJA_DEAD_LETTER_TABLE || places[i].table == DJA_JOURNAL_TABLE;
		DjaFind		find;
		bool		found;

		if (dja_table_right(places[i].table, ACL_DELETE))
			continue;
		dja_find_begin(&find, places[i].table, places[i].index, 1, places[i].hashed ? &hash_key : &key);
		found = dja_find_next(&find);
		dja_find_end(&find);
		if (found)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("an earlier actor type \"%s\" has left rows in djactor.%s", name, places[i].name),
					 outlives ?
					 errhint("Have them deleted, or the type defined by a role that may delete them.") :
					 errhint("Let a superuser define the type, to keep them, or to drop it again with discard.")));
	}
}

/*
 * The function that shall be called as this owner.
 */
static Oid
dja_check_handler(const char *handler, DjaHandlerKind kind, Oid owner)
{
	Oid			function = dja_handler_parse(handler, kind);
	int			sqlerrcode;
	char	   *hint;
	char	   *problem = dja_handler_problem(function, kind, handler, owner, &sqlerrcode, &hint);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(sqlerrcode),
				 errmsg("%s", problem),
				 errhint("%s", hint)));
	return function;
}

/*
 * The upgrade handler's qualified signature.
 */
static Datum
dja_check_upgrade_handler(const char *handler, Oid handler_owner, Oid owner)
{
	Oid			function = dja_check_handler(handler, DJA_UPGRADE_HANDLER, owner);

	/* whose functions are called is settled by the handler's owner */
	if (dja_handler_owner(function) != handler_owner && dja_handler_owner(function) != owner &&
		!superuser_arg(dja_handler_owner(function)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("upgrade handler %s belongs to another role than the handler",
						dja_handler_signature(function, DJA_UPGRADE_HANDLER)),
				 errhint("Both have to belong to the same role, or this one to the owner of the actor type or to a superuser.")));
	return CStringGetTextDatum(dja_handler_signature(function, DJA_UPGRADE_HANDLER));
}

Datum
dja_define_actor_type(PG_FUNCTION_ARGS)
{
	Datum		values[DJA_TYPE_NATTS] = {0};
	bool		nulls[DJA_TYPE_NATTS] = {0};
	char	   *name;
	uint64		hash;
	Oid			owner;
	Oid			function;
	DjaWriter  *writer;
	DjaType    *type;

	PreventCommandIfReadOnly("djactor.define_actor_type()");
	dja_require_preload();
	dja_catalog_require();
	dja_check_options(fcinfo);
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME));
	hash = dja_hash_name(name, strlen(name));
	owner = PG_GETARG_OID(ARG_OWNER);
	dja_check_owner(owner);

	function = dja_check_handler(text_to_cstring(PG_GETARG_TEXT_PP(ARG_HANDLER)), DJA_MESSAGE_HANDLER, owner);
	writer = dja_writer_open(DJA_ACTOR_TYPE_TABLE, ShareRowExclusiveLock);
	(void) dja_types_all();		/* as of now, under the lock */
	dja_check_hash(name, hash);
	type = dja_type_lookup(name, strlen(name));
	if (type != NULL)
		dja_check_can_act_for(type->owner);
	else
		dja_check_leftovers(name, hash);

	/*
	 * the arguments stand in the order of the columns, but for owner and
	 * settings
	 */
	values[DJA_TYPE_NAME - 1] = PG_GETARG_DATUM(ARG_NAME);
	values[DJA_TYPE_HANDLER - 1] = CStringGetTextDatum(dja_handler_signature(function, DJA_MESSAGE_HANDLER));
	values[DJA_TYPE_OWNER - 1] = ObjectIdGetDatum(owner);
	for (int i = ARG_INITIAL_STATE; i <= ARG_JOURNAL; i++)
	{
		values[DJA_TYPE_INITIAL_STATE - 1 + i - ARG_INITIAL_STATE] = PG_GETARG_DATUM(i);
		nulls[DJA_TYPE_INITIAL_STATE - 1 + i - ARG_INITIAL_STATE] = PG_ARGISNULL(i);
	}
	if (!PG_ARGISNULL(ARG_UPGRADE_HANDLER))
		values[DJA_TYPE_UPGRADE_HANDLER - 1] =
			dja_check_upgrade_handler(text_to_cstring(PG_GETARG_TEXT_PP(ARG_UPGRADE_HANDLER)),
									  dja_handler_owner(function), owner);
	values[DJA_TYPE_SETTINGS - 1] =
		dja_settings_define(PG_ARGISNULL(ARG_SETTINGS) ? NULL : PG_GETARG_JSONB_P(ARG_SETTINGS), NULL, owner);
	values[DJA_TYPE_HANDLER_OWNER - 1] = ObjectIdGetDatum(dja_handler_owner(function));
	values[DJA_TYPE_PAUSED - 1] = BoolGetDatum(false);
	nulls[DJA_TYPE_PAUSED_REASON - 1] = true;
	nulls[DJA_TYPE_PROBLEM - 1] = true;

	if (type == NULL)
		dja_row_insert(writer, values, nulls);
	else
	{
		Datum		old_values[DJA_TYPE_NATTS];
		bool		old_nulls[DJA_TYPE_NATTS];

		dja_type_read_row(type, old_values, old_nulls);
		for (int i = DJA_TYPE_PAUSED - 1; i < DJA_TYPE_PROBLEM - 1; i++)
		{
			values[i] = old_values[i];
			nulls[i] = old_nulls[i];
		}
		dja_row_update(writer, &type->tid, values, nulls);
	}
	dja_writer_close(writer);
	dja_type_changed();
	dja_pending_type(hash, owner);
	CommandCounterIncrement();
	PG_RETURN_VOID();
}

/* ---------- altering ---------- */

static DjaType *
dja_type_to_change(const char *name)
{
	DjaType    *type = dja_type_lookup(name, strlen(name));

	if (type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("actor type \"%s\" does not exist", name)));
	dja_check_can_act_for(type->owner);
	return type;
}

/*
 * Whether alter_actor_type() has been given a value for an option.  Where NULL
 * is a value, the default is one that no option can have.
 */
static bool
dja_is_named(FunctionCallInfo fcinfo, int arg)
{
	if (!dja_may_be_null(arg) || arg == ARG_SETTINGS)
		return !PG_ARGISNULL(arg);
	if (PG_ARGISNULL(arg))
		return true;
	switch (arg)
	{
		case ARG_UPGRADE_HANDLER:
			return VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(arg)) > 0;
		case ARG_JOURNAL:
			return DJA_INTERVAL_INFINITE(PG_GETARG_INTERVAL_P(arg)) ||
				dja_interval_usec(PG_GETARG_INTERVAL_P(arg)) != -USECS_PER_SEC;
		default:
			return PG_GETARG_INT32(arg) != -1;
	}
}

/*
 * The column of djactor.actor_type that has an argument's value.
 */
static int
dja_arg_column(int arg)
{
	return arg == ARG_NAME ? DJA_TYPE_NAME : arg == ARG_HANDLER ? DJA_TYPE_HANDLER :
		arg == ARG_OWNER ? DJA_TYPE_OWNER : arg == ARG_SETTINGS ? DJA_TYPE_SETTINGS : DJA_TYPE_INITIAL_STATE + arg - ARG_INITIAL_STATE;
}

/*
 * Changes the options of a type that are named, as if it were defined again
 * with all others as they are.  A handler that is not named is not looked at,
 * so that one that is gone keeps nobody from changing something else, and
 * nobody takes over what took its place.
 */
Datum
dja_alter_actor_type(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(all, NARGS);	/* the arguments of a definition */
	Datum		values[DJA_TYPE_NATTS];
	bool		nulls[DJA_TYPE_NATTS];
	bool		named[NARGS];
	char	   *name;
	Oid			owner;
	Oid			handler_owner;
	DjaWriter  *writer;
	DjaType    *type;

	PreventCommandIfReadOnly("djactor.alter_actor_type()");
	dja_require_preload();
	dja_catalog_require();
	if (PG_ARGISNULL(ARG_NAME))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", dja_arg_names[ARG_NAME])));
	name = text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME));
	(void) dja_type_to_change(name);
	writer = dja_writer_open(DJA_ACTOR_TYPE_TABLE, ShareRowExclusiveLock);
	(void) dja_types_all();		/* as of now, under the lock */
	type = dja_type_to_change(name);
	dja_type_read_row(type, values, nulls);

	for (int i = 0; i < NARGS; i++)
	{
		int			column = dja_arg_column(i) - 1;

		named[i] = i != ARG_NAME && dja_is_named(fcinfo, i);
		if (named[i] && i != ARG_SETTINGS)
		{
			values[column] = PG_GETARG_DATUM(i);
			nulls[column] = PG_ARGISNULL(i);
		}
		all->args[i].value = values[column];
		all->args[i].isnull = nulls[column];
	}
	dja_check_options(all);
	owner = DatumGetObjectId(values[DJA_TYPE_OWNER - 1]);
	if (named[ARG_OWNER])
		dja_check_owner(owner);
	if (named[ARG_SETTINGS])
		values[DJA_TYPE_SETTINGS - 1] = dja_settings_define(PG_GETARG_JSONB_P(ARG_SETTINGS),
															DatumGetJsonbP(values[DJA_TYPE_SETTINGS - 1]), owner);

	if (named[ARG_HANDLER] || named[ARG_OWNER])
	{
		Oid			function = dja_check_handler(TextDatumGetCString(values[DJA_TYPE_HANDLER - 1]),
												 DJA_MESSAGE_HANDLER, owner);

		if (named[ARG_HANDLER])
		{
			values[DJA_TYPE_HANDLER - 1] = CStringGetTextDatum(dja_handler_signature(function, DJA_MESSAGE_HANDLER));
			values[DJA_TYPE_HANDLER_OWNER - 1] = ObjectIdGetDatum(dja_handler_owner(function));
		}
	}
	handler_owner = DatumGetObjectId(values[DJA_TYPE_HANDLER_OWNER - 1]);
	if (named[ARG_HANDLER] || named[ARG_OWNER] || named[ARG_UPGRADE_HANDLER])
	{
		if (!nulls[DJA_TYPE_UPGRADE_HANDLER - 1])
			values[DJA_TYPE_UPGRADE_HANDLER - 1] =
				dja_check_upgrade_handler(TextDatumGetCString(values[DJA_TYPE_UPGRADE_HANDLER - 1]),
										  handler_owner, owner);
		nulls[DJA_TYPE_PROBLEM - 1] = true;
	}

	dja_row_update(writer, &type->tid, values, nulls);
	dja_writer_close(writer);
	dja_type_changed();
	dja_pending_type(type->hash, owner);
	CommandCounterIncrement();
	PG_RETURN_VOID();
}

/* ---------- dropping ---------- */

/*
 * A scan of the rows of a table that belong to a type.
 */
static TableScanDesc
dja_rows_of_type(Relation rel, int column, DjaType *type, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, column, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, CStringGetTextDatum(type->name));
	return dja_table_beginscan(rel, snapshot, 1, &key);
}

static bool
dja_type_has_rows(DjaTable table, int column, DjaType *type, Snapshot snapshot)
{
	Relation	rel = table_open(dja_table_oid(table), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = dja_rows_of_type(rel, column, type, snapshot);
	bool		found = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return found;
}

/*
 * Refuses to drop a type that has actors or mail.  One snapshot for both: a first
 * turn that commits meanwhile makes an actor out of a message.
 */
static void
dja_require_unused(DjaType *type)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		mail = dja_type_has_rows(DJA_MESSAGE_TABLE, DJA_MSG_ACTOR_TYPE, type, snapshot);
	bool		actors = !mail && dja_type_has_rows(DJA_ACTOR_TABLE, DJA_ACTOR_TYPE, type, snapshot);
	bool		timers = dja_type_has_rows(DJA_TIMER_TABLE, DJA_TIMER_TYPE, type, snapshot);

	UnregisterSnapshot(snapshot);
	if (mail || actors || timers)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("actor type \"%s\" still has %s", type->name, mail ? "mail" : actors ? "actors" : "timers"),
				 errhint("Use djactor.drop_actor_type('%s', discard => true) to delete its actors and mail too.", type->name)));
}

/*
 * Who has asked a message of the type that is dropped gets an error (contract
 * 18), but for actors of that type, which go with it.
 */
static void
dja_answer_dropped(DjaType *type, TupleTableSlot *slot)
{
	DjaMessage *message = dja_message_from_slot(slot);

	if (!message->nulls[DJA_MSG_SENDER_TYPE - 1] &&
		dja_type_is_named(type, DatumGetTextPP(message->values[DJA_MSG_SENDER_TYPE - 1])))
		return;
	dja_answer_failure(message, "dropped", 0, "the actor type was dropped");
}

/*
 * Deletes the rows of a table that belong to a type.  Asks are answered by who
 * has deleted their row, and by nobody else: an open one may get its reply while
 * we look.
 */
static void
dja_discard_rows(DjaTable table, int column, DjaType *type)
{
	DjaWriter  *writer = dja_writer_open(table, RowExclusiveLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(writer->rel, NULL);
	TableScanDesc scan = dja_rows_of_type(writer->rel, column, type, snapshot);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor dropped",
												  ALLOCSET_SMALL_SIZES);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		dja_row_delete(writer, &slot->tts_tid);
		if (table == DJA_MESSAGE_TABLE &&
			DatumGetBool(slot_getattr(slot, DJA_MSG_WANTS_REPLY, &isnull)))
			dja_answer_dropped(type, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	table_endscan(scan);
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	dja_writer_close(writer);
}

/*
 * Drops a type.  To discard what it has, its turns are waited for first, and
 * no new ones start before the outcome is known.
 */
Datum
dja_drop_actor_type(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		discard = PG_GETARG_BOOL(1);
	DjaWriter  *writer;
	DjaType    *type;

	PreventCommandIfReadOnly("djactor.drop_actor_type()");
	dja_require_preload();
	dja_catalog_require();
	type = dja_type_to_change(name);
	if (discard)
	{
		if (dja_turn.actor != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("drop_actor_type() cannot discard mail inside a turn")));
		dja_pending_stop_type_queue(type);	/* before any lock that a turn may
											 * want */
	}
	dja_type_lock(type->hash, AccessExclusiveLock);
	writer = dja_writer_open(DJA_ACTOR_TYPE_TABLE, ShareRowExclusiveLock);
	(void) dja_types_all();		/* as of now, under the locks */
	type = dja_type_to_change(name);

	if (discard)
	{
		dja_discard_rows(DJA_ACTOR_TABLE, DJA_ACTOR_TYPE, type);
		dja_discard_rows(DJA_MESSAGE_TABLE, DJA_MSG_ACTOR_TYPE, type);
	}
	else
		dja_require_unused(type);
	dja_discard_rows(DJA_IDENTITY_TABLE, DJA_IDENTITY_TYPE, type);
	dja_discard_rows(DJA_TIMER_TABLE, DJA_TIMER_TYPE, type);
	dja_watchers_tell_dropped(type);
	dja_discard_rows(DJA_ONCE_TABLE, DJA_ONCE_TYPE, type);

	dja_row_delete(writer, &type->tid);
	dja_writer_close(writer);
	dja_type_changed();
	dja_pending_type(type->hash, type->owner);
	CommandCounterIncrement();
	PG_RETURN_VOID();
}
