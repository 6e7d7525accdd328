/*
 * actor_type.c
 *
 * The cache of djactor.actor_type; see actor_type.h for what it promises.
 *
 * Rows are read with the latest snapshot at any isolation level, so a sender in
 * REPEATABLE READ may use a type that was defined after its snapshot.  Memory is
 * bounded by the number of types: the lookup of a name that is no type leaves
 * nothing behind.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/calendar.h"
#include "base/columns.h"
#include "base/compat.h"
#include "shmem/run_queue.h"
#include "tables/actor_type.h"

#define DJA_MOMENT_MS 20		/* for a lock that is about to be released */

static HTAB *dja_types = NULL;
static uint32 dja_types_generation = 1;
static uint64 dja_types_changes = 0;	/* the run queue's changes that the
										 * cache certainly includes */
static Oid	dja_types_relid = InvalidOid;

/*
 * Has the types read again, if relid is their table; InvalidOid = any table.
 */
void
dja_types_outdate(Oid relid)
{
	if (!OidIsValid(relid) || relid == dja_types_relid)
		dja_types_generation = Max(1, dja_types_generation + 1);
}

void
dja_types_init(void)
{
	HASHCTL		ctl = {.keysize = sizeof(uint64),.entrysize = sizeof(DjaType)};

	dja_types = hash_create("djactor types", 64, &ctl, HASH_ELEM | HASH_BLOBS);
}

/*
 * Tells all sessions, this one included, that djactor.actor_type has changed.
 */
void
dja_type_changed(void)
{
	CacheInvalidateRelcacheByRelid(dja_table_oid(DJA_ACTOR_TYPE_TABLE));
}

/*
 * Locks a type until the end of the transaction.  Senders take AccessShareLock,
 * and dropping a type takes AccessExclusiveLock, so that no message is sent to a
 * type that is being dropped.  Also receives the invalidations of earlier
 * changes.
 */
void
dja_type_lock(uint64 hash, LOCKMODE lockmode)
{
	LockDatabaseObject(dja_table_oid(DJA_ACTOR_TYPE_TABLE), (Oid) hash, 0, lockmode);
}

/*
 * Likewise for a worker that is about to send, without waiting.  Returns false if
 * the type is being dropped, or a session waits to drop it.
 */
bool
dja_type_try_lock(uint64 hash)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, dja_table_oid(DJA_ACTOR_TYPE_TABLE), (Oid) hash, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}

static inline int
dja_int_or_zero(const Datum *values, const bool *nulls, int attnum)
{
	return nulls[attnum - 1] ? 0 : DatumGetInt32(values[attnum - 1]);
}

static inline char *
dja_string_or_null(const Datum *values, const bool *nulls, int attnum)
{
	return nulls[attnum - 1] ? NULL : TextDatumGetCString(values[attnum - 1]);
}

static inline bool
dja_word_is(Datum value, const char *word)
{
	return strcmp(TextDatumGetCString(value), word) == 0;
}

/*
 * Returns the rate of a row.  It was checked when the type was defined.
 */
static DjaRateOption
dja_type_rate(const Datum *values, const bool *nulls)
{
	DjaRateOption option = {{0, 0}, !nulls[DJA_TYPE_RATE_BY - 1]};
	char	   *value = dja_string_or_null(values, nulls, DJA_TYPE_RATE);

	if (value == NULL)
		return option;
	if (dja_rate_parse(value, &option.rate) != NULL)
		elog(ERROR, "invalid rate: \"%s\"", value);
	pfree(value);
	return option;
}

/*
 * Fills a cache entry from a row.
 */
static void
dja_type_fill(DjaType *type, ItemPointer tid, Datum *values, bool *nulls)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor type",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	char	   *name = TextDatumGetCString(values[DJA_TYPE_NAME - 1]);
	char	   *handler = dja_string_or_null(values, nulls, DJA_TYPE_HANDLER);
	char	   *upgrade_handler = dja_string_or_null(values, nulls, DJA_TYPE_UPGRADE_HANDLER);
	char	   *problem = dja_string_or_null(values, nulls, DJA_TYPE_PROBLEM);
	Jsonb	   *initial_state = DatumGetJsonbPCopy(values[DJA_TYPE_INITIAL_STATE - 1]);
	Jsonb	   *settings = DatumGetJsonbPCopy(values[DJA_TYPE_SETTINGS - 1]);
	DjaRateOption rate = dja_type_rate(values, nulls);
	char	   *by_value = dja_string_or_null(values, nulls, rate.by ? DJA_TYPE_RATE_BY : DJA_TYPE_FAIR_BY);
	DjaBy		by = {DJA_BY_NOTHING, NULL};

	if (by_value != NULL && !dja_by_parse(by_value, &by))
		elog(ERROR, "invalid rate_by or fair_by: \"%s\"", by_value);

	/* nothing fails from here on, so the entry is never half filled */
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, CacheMemoryContext);
	if (type->context != NULL)
		MemoryContextDelete(type->context);
	type->context = context;
	type->name = name;
	type->name_len = strlen(name);
	type->handler = handler;
	type->upgrade_handler = upgrade_handler;
	type->initial_state = JsonbPGetDatum(initial_state);
	type->settings = settings;
	type->settings_hash = Max(1, dja_hash_name(VARDATA(settings), VARSIZE(settings) - VARHDRSZ));
	type->rate = rate;
	type->by = by;
	type->tid = *tid;
	type->owner = DatumGetObjectId(values[DJA_TYPE_OWNER - 1]);
	type->handler_owner = DatumGetObjectId(values[DJA_TYPE_HANDLER_OWNER - 1]);
	type->state_version = DatumGetInt32(values[DJA_TYPE_STATE_VERSION - 1]);
	type->max_attempts = DatumGetInt32(values[DJA_TYPE_MAX_ATTEMPTS - 1]);
	type->backoff = dja_interval_usec(DatumGetIntervalP(values[DJA_TYPE_BACKOFF - 1]));
	type->backoff_max = dja_interval_usec(DatumGetIntervalP(values[DJA_TYPE_BACKOFF_MAX - 1]));
	type->skip = dja_word_is(values[DJA_TYPE_RETRY_ORDER - 1], "skip");
	type->suspend = dja_word_is(values[DJA_TYPE_ON_EXHAUSTED - 1], "suspend");
	type->handler_timeout =
		(int) Min(dja_interval_usec(DatumGetIntervalP(values[DJA_TYPE_HANDLER_TIMEOUT - 1])) / 1000,
				  PG_INT32_MAX);
	type->batch_size = dja_int_or_zero(values, nulls, DJA_TYPE_BATCH_SIZE);
	type->concurrency = dja_int_or_zero(values, nulls, DJA_TYPE_CONCURRENCY);
	type->mailbox_limit = dja_int_or_zero(values, nulls, DJA_TYPE_MAILBOX_LIMIT);
	type->full_dead_letter = dja_word_is(values[DJA_TYPE_ON_FULL - 1], "dead_letter");
	type->breaker_failures = dja_int_or_zero(values, nulls, DJA_TYPE_BREAKER_FAILURES);
	type->breaker_window = dja_interval_usec(DatumGetIntervalP(values[DJA_TYPE_BREAKER_WINDOW - 1]));
	type->journal = nulls[DJA_TYPE_JOURNAL - 1] ? -1 :
		dja_interval_usec(DatumGetIntervalP(values[DJA_TYPE_JOURNAL - 1]));
	type->hosted = DatumGetBool(values[DJA_TYPE_HOSTED - 1]);
	type->stateless = DatumGetBool(values[DJA_TYPE_STATELESS - 1]);
	type->idle_ttl = nulls[DJA_TYPE_IDLE_TTL - 1] ? 0 :
		dja_interval_usec(DatumGetIntervalP(values[DJA_TYPE_IDLE_TTL - 1]));
	type->paused = DatumGetBool(values[DJA_TYPE_PAUSED - 1]);
	type->problem = problem;
	type->exists = true;
}

/*
 * Reads the whole table into the cache.  There are few types, and they change
 * rarely.
 */
void
dja_types_reload(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor types",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HASH_SEQ_STATUS status;
	DjaType    *type;
	DjaFind		find;
	uint32		generation;
	uint64		changes = dja_shared ? dja_queue_changes() : 0;

	dja_types_relid = dja_table_oid(DJA_ACTOR_TYPE_TABLE);
	generation = dja_types_generation;	/* before the snapshot is taken */
	hash_seq_init(&status, dja_types);
	while ((type = hash_seq_search(&status)) != NULL)
	{
		type->seen = false;
		type->generation = 0;	/* not valid until all is read */
	}

	dja_find_begin(&find, DJA_ACTOR_TYPE_TABLE, DJA_NO_INDEX, 0, NULL, NULL);
	while (dja_find_next(&find))
	{
		uint64		hash = dja_hash_text(DatumGetTextPP(find.slot->tts_values[DJA_TYPE_NAME - 1]));
		bool		found;

		type = hash_search(dja_types, &hash, HASH_ENTER, &found);
		if (!found)
		{
			memset(type, 0, sizeof(DjaType));
			type->hash = type->stat.type_hash = hash;
		}
		type->seen = true;
		dja_type_fill(type, &find.slot->tts_tid, find.slot->tts_values, find.slot->tts_isnull);
	}
	dja_find_end(&find);

	hash_seq_init(&status, dja_types);
	while ((type = hash_seq_search(&status)) != NULL)
	{
		type->exists = type->seen;
		type->generation = generation;
	}
	dja_types_changes = changes;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * Returns the type with this hash of its name, or NULL.
 */
DjaType *
dja_type_by_hash(uint64 hash)
{
	DjaType    *type = hash_search(dja_types, &hash, HASH_FIND, NULL);

	if (type == NULL || !type->exists || type->generation != dja_types_generation)
	{
		dja_types_reload();
		type = hash_search(dja_types, &hash, HASH_FIND, NULL);
	}
	return type != NULL && type->exists ? type : NULL;
}

/*
 * Does the cache include the change of a type queue with this epoch?  The type
 * queue shows a change a moment before its invalidation arrives.
 */
bool
dja_types_know(uint64 epoch)
{
	return epoch <= dja_types_changes;
}

/*
 * Is a type as it was read in that generation still current, as far as this
 * session has been told?
 */
bool
dja_type_is_current(DjaType *type, uint32 generation)
{
	return type->exists && generation == dja_types_generation;
}

/*
 * Returns the type of this name, or NULL.
 */
DjaType *
dja_type_lookup(const char *name, int len)
{
	DjaType    *type = dja_type_by_hash(dja_hash_name(name, len));

	if (type != NULL && type->name_len == len && memcmp(type->name, name, len) == 0)
		return type;
	return NULL;
}

/*
 * Returns the type for which an SQL function was called.  Raises 42704 if there
 * is none, 55000 if the server has not preloaded the library.
 */
DjaType *
dja_require_type(text *name)
{
	DjaType    *type;

	dja_require_installed();
	type = dja_type_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	if (type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("actor type \"%s\" does not exist", text_to_cstring(name))));
	return type;
}

/*
 * Returns all types, as the table has them now.
 */
List *
dja_types_all(void)
{
	HASH_SEQ_STATUS status;
	DjaType    *type;
	List	   *result = NIL;

	dja_types_reload();
	hash_seq_init(&status, dja_types);
	while ((type = hash_seq_search(&status)) != NULL)
		if (type->exists)
			result = lappend(result, type);
	return result;
}

/*
 * Is a type paused, according to the table itself?  A worker must not block a
 * type queue because of a stale cache, since nothing would unblock it.
 */
bool
dja_type_paused_now(DjaType *type)
{
	dja_types_reload();
	return type->exists && type->paused;
}

/*
 * Changes two columns of a type, for a worker.  Returns false if another
 * transaction has locked the table: a worker does not wait for a definer's open
 * transaction.  But one that has just committed, so that the worker runs at all,
 * gets 20 ms to release it.
 */
static bool
dja_type_change(DjaType *type, bool paused, int column, const char *value)
{
	DjaWriter  *writer;
	Datum		values[DJA_TYPE_NATTS];
	bool		nulls[DJA_TYPE_NATTS];

	for (int ms = 0; !ConditionalLockRelationOid(dja_table_oid(DJA_ACTOR_TYPE_TABLE), RowExclusiveLock); ms++)
	{
		CHECK_FOR_INTERRUPTS();
		if (ms == DJA_MOMENT_MS)
			return false;
		pg_usleep(1000);
	}
	writer = dja_writer_open(DJA_ACTOR_TYPE_TABLE, RowExclusiveLock);
	dja_types_reload();
	if (type->exists)
	{
		dja_type_read_row(type, values, nulls);
		values[DJA_TYPE_PAUSED - 1] = BoolGetDatum(paused || type->paused);
		dja_set_text(values, nulls, column, value);
		dja_row_update(writer, &type->tid, values, nulls);
		dja_type_changed();
		CommandCounterIncrement();	/* another mailbox may do the same */
		dja_types_reload();
	}
	dja_writer_close(writer);
	return true;
}

/*
 * Notes why mail of a type waits, or clears that with NULL.
 */
void
dja_type_set_problem(DjaType *type, const char *problem)
{
	(void) dja_type_change(type, false, DJA_TYPE_PROBLEM, problem);
}

/*
 * Pauses a type, on a worker's own decision.  Returns false if the table is
 * locked.
 */
bool
dja_type_pause(DjaType *type, const char *reason)
{
	return dja_type_change(type, true, DJA_TYPE_PAUSED_REASON, reason);
}

/*
 * Formats an interval for an error message, whatever the turn's IntervalStyle.
 */
char *
dja_interval_string(int64 usec)
{
	Interval	interval = {.time = usec};
	struct pg_itm itm;
	char	   *string = palloc(MAXDATELEN + 1);

	interval2itm(interval, &itm);
	EncodeInterval(&itm, INTSTYLE_POSTGRES, string);
	return string;
}

/*
 * Reads a type's row for an update.  The arrays have DJA_TYPE_NATTS elements.
 */
void
dja_type_read_row(DjaType *type, Datum *values, bool *nulls)
{
	Relation	rel = table_open(dja_table_oid(DJA_ACTOR_TYPE_TABLE), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	if (!table_tuple_fetch_row_version(rel, &type->tid, SnapshotAny, slot))
		elog(ERROR, "row of actor type \"%s\" is gone", type->name);
	heap_deform_tuple(ExecCopySlotHeapTuple(slot), slot->tts_tupleDescriptor, values, nulls);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}
