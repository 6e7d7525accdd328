/*
 * catalog.c
 *
 * Where djactor's objects are; see catalog.h.
 *
 * A worker checks the extension once in each transaction, under AccessShareLock
 * on it.  So DROP EXTENSION and ALTER EXTENSION UPDATE wait for a running batch,
 * and no batch starts on half an extension.  (The lock that the server itself
 * takes for the latter lets readers pass; utility_extension.c takes another.)
 *
 * Senders rely on the cache, which is cleared when any of the tables changes.  It
 * never remembers that the extension has another version, since no table need
 * change when that ends.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "base/columns.h"
#include "base/compat.h"
#include "shmem/shmem.h"
#include "tables/actor_type.h"
#include "tables/catalog.h"
#include "tables/place.h"

char		dja_serves[] = "djactor serves " CppAsString2(DJA_VERSION);

static const struct
{
	const char *name;
	int			natts;
}			dja_tables[DJA_NTABLES] = {
	[DJA_ACTOR_TYPE_TABLE] = {"actor_type", DJA_TYPE_NATTS},
	[DJA_ACTOR_TABLE] = {"actor", DJA_ACTOR_NATTS},
	[DJA_IDENTITY_TABLE] = {"actor_identity", DJA_IDENTITY_NATTS},
	[DJA_MESSAGE_TABLE] = {"message", DJA_MSG_NATTS},
	[DJA_DEAD_LETTER_TABLE] = {"dead_letter", DJA_DEAD_NATTS},
	[DJA_REPLY_TABLE] = {"reply", DJA_REPLY_NATTS},
	[DJA_TIMER_TABLE] = {"timer", DJA_TIMER_NATTS},
	[DJA_WATCH_TABLE] = {"watch", DJA_WATCH_NATTS},
	[DJA_ONCE_TABLE] = {"idempotency", DJA_ONCE_NATTS},
	[DJA_JOURNAL_TABLE] = {"journal", DJA_JOURNAL_NATTS},
	[DJA_HOME_TABLE] = {"home", DJA_HOME_NATTS},
	[DJA_HISTORY_TABLE] = {"stat_history", DJA_HISTORY_NATTS},
};

static const struct
{
	DjaTable	table;
	const char *name;
}			dja_indexes[DJA_NINDEXES] = {
	[DJA_ACTOR_TYPE_PKEY] = {DJA_ACTOR_TYPE_TABLE, "actor_type_pkey"},
	[DJA_ACTOR_KEY_INDEX] = {DJA_ACTOR_TABLE, "actor_key"},
	[DJA_ACTOR_ID_INDEX] = {DJA_ACTOR_TABLE, "actor_id"},
	[DJA_IDENTITY_PKEY] = {DJA_IDENTITY_TABLE, "actor_identity_pkey"},
	[DJA_MESSAGE_PKEY] = {DJA_MESSAGE_TABLE, "message_pkey"},
	[DJA_MAILBOX_INDEX] = {DJA_MESSAGE_TABLE, "message_mailbox"},
	[DJA_DUE_INDEX] = {DJA_MESSAGE_TABLE, "message_due"},
	[DJA_ASIDE_INDEX] = {DJA_MESSAGE_TABLE, "message_aside"},
	[DJA_DEAD_PKEY] = {DJA_DEAD_LETTER_TABLE, "dead_letter_pkey"},
	[DJA_DEAD_FAILED_AT_INDEX] = {DJA_DEAD_LETTER_TABLE, "dead_letter_failed_at"},
	[DJA_DEAD_ACTOR_INDEX] = {DJA_DEAD_LETTER_TABLE, "dead_letter_actor"},
	[DJA_REPLY_PKEY] = {DJA_REPLY_TABLE, "reply_pkey"},
	[DJA_REPLY_EXPIRES_AT_INDEX] = {DJA_REPLY_TABLE, "reply_expires_at"},
	[DJA_TIMER_PKEY] = {DJA_TIMER_TABLE, "timer_pkey"},
	[DJA_WATCH_PKEY] = {DJA_WATCH_TABLE, "watch_pkey"},
	[DJA_WATCH_ACTOR_INDEX] = {DJA_WATCH_TABLE, "watch_actor"},
	[DJA_ONCE_PKEY] = {DJA_ONCE_TABLE, "idempotency_pkey"},
	[DJA_ONCE_COMPLETED_AT_INDEX] = {DJA_ONCE_TABLE, "idempotency_completed_at"},
	[DJA_JOURNAL_PKEY] = {DJA_JOURNAL_TABLE, "journal_pkey"},
	[DJA_JOURNAL_FINISHED_AT_INDEX] = {DJA_JOURNAL_TABLE, "journal_finished_at"},
	[DJA_HISTORY_PKEY] = {DJA_HISTORY_TABLE, "stat_history_pkey"},
};

static struct
{
	bool		valid;
	DjaInstalled installed;
	char		version[32];
	Oid			extension;
	Oid			tables[DJA_NTABLES];
	Oid			indexes[DJA_NINDEXES];
	Oid			sequences[DJA_NTABLES]; /* looked up when first needed */
	Oid			result_type;	/* djactor.result */
}			dja_catalog;

uint64		dja_catalog_state = 1;

static void
dja_catalog_changed(void)
{
	dja_catalog.valid = false;
	dja_catalog_state++;
}

/*
 * The only one of djactor's.  A backend has room for ten such callbacks, of which
 * PostgreSQL and other extensions need most.
 */
static void
dja_relcache_callback(Datum arg, Oid relid)
{
	dja_types_outdate(relid);
	dja_places_outdate(relid);
	if (!OidIsValid(relid))
	{
		dja_catalog_changed();
		return;
	}
	for (int i = 0; i < DJA_NTABLES; i++)
		if (dja_catalog.tables[i] == relid)
			dja_catalog_changed();
}

void
dja_catalog_init(void)
{
	CacheRegisterRelcacheCallback(dja_relcache_callback, (Datum) 0);
}

/*
 * Reads the extension's OID and version as of now.  Returns false if it is not
 * installed.
 */
static bool
dja_read_extension(Oid *extension, char *version, Size size)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("djactor"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Datum		values[Natts_pg_extension];
		bool		nulls[Natts_pg_extension];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		*extension = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		strlcpy(version, TextDatumGetCString(values[Anum_pg_extension_extversion - 1]), size);
		found = true;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Finds the schema that the extension's script has made, whatever its name is now.
 */
static Oid
dja_find_schema(void)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	Oid			schema = InvalidOid;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(dja_catalog.extension));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	while (!OidIsValid(schema) && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend dep = (Form_pg_depend) GETSTRUCT(tuple);

		if (dep->classid == NamespaceRelationId && dep->deptype == DEPENDENCY_EXTENSION)
			schema = dep->objid;
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return schema;
}

/*
 * Finds a table.  It must be the extension's, belong to a superuser, and have the
 * columns that this library was built for.
 */
static bool
dja_find_table(DjaTable table, Oid schema)
{
	HeapTuple	tuple = SearchSysCache2(RELNAMENSP, CStringGetDatum(dja_tables[table].name),
										ObjectIdGetDatum(schema));
	Form_pg_class class;
	bool		fits;

	if (!HeapTupleIsValid(tuple))
		return false;
	class = (Form_pg_class) GETSTRUCT(tuple);
	dja_catalog.tables[table] = class->oid;
	fits = class->relkind == RELKIND_RELATION && class->relnatts == dja_tables[table].natts &&
		superuser_arg(class->relowner) &&
		getExtensionOfObject(RelationRelationId, class->oid) == dja_catalog.extension;
	ReleaseSysCache(tuple);
	return fits;
}

/*
 * Finds all tables and indexes.  Returns false unless they are as the script made
 * them, in a schema of a superuser.
 */
static bool
dja_find_relations(void)
{
	Oid			schema = dja_find_schema();

	if (!superuser_arg(GetSysCacheOid1(NAMESPACEOID, Anum_pg_namespace_nspowner,
									   ObjectIdGetDatum(schema))))
		return false;
	for (DjaTable t = 0; t < DJA_NTABLES; t++)
		if (!dja_find_table(t, schema))
			return false;
	for (int i = 0; i < DJA_NINDEXES; i++)
	{
		dja_catalog.indexes[i] = get_relname_relid(dja_indexes[i].name, schema);
		if (!OidIsValid(dja_catalog.indexes[i]) ||
			IndexGetRelation(dja_catalog.indexes[i], true) != dja_catalog.tables[dja_indexes[i].table])
			return false;
	}
	dja_catalog.result_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
											  CStringGetDatum("result"), ObjectIdGetDatum(schema));
	return true;
}

/*
 * Compares two dotted version numbers.
 */
static int
dja_compare_versions(const char *a, const char *b)
{
	while (*a || *b)
	{
		long		na = strtol(a, (char **) &a, 10);
		long		nb = strtol(b, (char **) &b, 10);

		if (na != nb)
			return na < nb ? -1 : 1;
		if (*a != *b)
			return strcmp(a, b);
		if (*a)
			a++, b++;
	}
	return 0;
}

/*
 * Checks whether this database has the extension, in the version that this
 * library serves.  lock: the extension cannot be dropped or updated before the
 * transaction ends, and the answer comes from the catalog, not from the cache.
 * Raises 55000 if the tables are not as the script made them.
 */
DjaInstalled
dja_catalog_check(bool lock)
{
	Oid			extension = InvalidOid;
	char		version[sizeof(dja_catalog.version)] = "";
	bool		installed;
	int			order;

	if (dja_catalog.valid && !lock)
		return dja_catalog.installed;

	installed = dja_read_extension(&extension, version, sizeof(version));
	if (installed && lock)
	{
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		installed = dja_read_extension(&extension, version, sizeof(version));
	}
	if (!installed)
	{
		dja_catalog.valid = false;
		return DJA_NOT_INSTALLED;
	}
	if (dja_catalog.valid && dja_catalog.extension == extension &&
		strcmp(dja_catalog.version, version) == 0)
		return dja_catalog.installed;

	dja_catalog.extension = extension;
	strlcpy(dja_catalog.version, version, sizeof(dja_catalog.version));
	order = dja_compare_versions(version, DJA_SQL_VERSION);
	if (order != 0)
		dja_catalog.installed = order < 0 ? DJA_LIBRARY_NEWER : DJA_EXTENSION_NEWER;
	else
	{
		memset(dja_catalog.sequences, 0, sizeof(dja_catalog.sequences));
		if (!dja_find_relations())
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the tables of extension djactor are not as its script made them"),
					 errdetail("A table is missing, has other columns or indexes, or does not belong to a superuser."),
					 errhint("Undo what was changed, or drop and create the extension.")));
		dja_catalog.installed = DJA_INSTALLED;
	}
	dja_catalog.valid = dja_catalog.installed == DJA_INSTALLED;
	return dja_catalog.installed;
}

/*
 * Has all sessions, this one included, read the catalog again, after a change of
 * the extension.  This session may not have read it before.  Then it knows the
 * table only by name, which is enough to invalidate it.
 */
void
dja_catalog_forget(void)
{
	Oid			table = dja_catalog.tables[DJA_MESSAGE_TABLE];

	if (!dja_catalog.valid)
	{
		Oid			schema = get_namespace_oid("djactor", true);

		table = OidIsValid(schema) ? get_relname_relid("message", schema) : InvalidOid;
	}
	if (OidIsValid(table) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table)))
		CacheInvalidateRelcacheByRelid(table);
	dja_catalog.valid = false;
}

/*
 * Waits until no worker is in a batch, and keeps all out until the end of the
 * transaction.  Does nothing unless the user may change the extension.
 */
void
dja_catalog_lock(void)
{
	Oid			extension = get_extension_oid("djactor", true);

	if (OidIsValid(extension) && dja_owns_extension(extension, GetUserId()))
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessExclusiveLock);
}

/*
 * Raises 42501 if the extension exists and the user does not own it.
 */
void
dja_catalog_check_owner(void)
{
	Oid			extension = get_extension_oid("djactor", true);

	if (OidIsValid(extension) && !dja_owns_extension(extension, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_EXTENSION, "djactor");
}

/*
 * Raises 55000 unless the extension is installed in the version that this library
 * serves.
 */
void
dja_catalog_require(void)
{
	switch (dja_catalog_check(false))
	{
		case DJA_INSTALLED:
			return;
		case DJA_NOT_INSTALLED:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension djactor does not exist in this database"),
					 errhint("Use CREATE EXTENSION djactor.")));
		case DJA_EXTENSION_NEWER:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension djactor %s is newer than the loaded library, which serves %s",
							dja_catalog.version, DJA_SQL_VERSION),
					 errhint("Restart the server so that it loads the library that belongs to the extension.")));
		case DJA_LIBRARY_NEWER:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension djactor %s is older than the loaded library, which serves %s",
							dja_catalog.version, DJA_SQL_VERSION),
					 errhint("Use ALTER EXTENSION djactor UPDATE.")));
	}
}

/*
 * Likewise, and unless the server has loaded this library when it started.
 */
void
dja_require_installed(void)
{
	dja_require_preload();
	dja_catalog_require();
}

const char *
dja_catalog_version(void)
{
	return dja_catalog.version;
}

/*
 * Returns the OID of a table.  Raises what dja_catalog_require() raises.
 */
Oid
dja_table_oid(DjaTable table)
{
	if (!dja_catalog.valid)
		dja_catalog_require();
	return dja_catalog.tables[table];
}

/*
 * Does the current user have this right on every row of the table?  Row security
 * may restrict it to some rows; then the answer is no.
 */
bool
dja_table_right(DjaTable table, AclMode right)
{
	Oid			relid = dja_table_oid(table);

	return pg_class_aclcheck(relid, GetUserId(), right) == ACLCHECK_OK &&
		check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED;
}

/*
 * Returns the qualified name of one of our tables, quoted for SQL text, whatever
 * tables a schema named djactor has by now.
 */
char *
dja_table_name(DjaTable table)
{
	Oid			relid = dja_table_oid(table);

	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/*
 * Likewise for an index.
 */
Oid
dja_index_oid(DjaIndex index)
{
	if (!dja_catalog.valid)
		dja_catalog_require();
	return dja_catalog.indexes[index];
}

/*
 * Returns the composite type djactor.result.
 */
Oid
dja_result_type(void)
{
	if (!dja_catalog.valid)
		dja_catalog_require();
	return dja_catalog.result_type;
}

/*
 * Returns the sequence behind column 1 of a table.
 */
Oid
dja_identity_sequence(DjaTable table)
{
	Oid			relid = dja_table_oid(table);

	if (!OidIsValid(dja_catalog.sequences[table]))
	{
		List	   *sequences = getOwnedSequences(relid);

		if (list_length(sequences) != 1)
			elog(ERROR, "table %s has %d sequences, not one",
				 dja_tables[table].name, list_length(sequences));
		dja_catalog.sequences[table] = linitial_oid(sequences);
	}
	return dja_catalog.sequences[table];
}

/*
 * Returns the 64-bit hash that identifies a type's name or an actor's key.  It is
 * stored in indexes, so it can never change within a major version of the
 * extension.
 */
uint64
dja_hash_name(const char *name, int len)
{
	return DatumGetUInt64(hash_any_extended((const unsigned char *) name, len, 0));
}
