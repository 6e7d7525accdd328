/*
 * catalog.c
 *
 * Where djactor's objects are, and writing their rows; see catalog.h.
 *
 * A worker checks the extension once in each transaction, under
 * AccessShareLock on it, so that DROP EXTENSION and ALTER EXTENSION UPDATE
 * wait for a running batch and no batch starts on half an extension.  Senders
 * trust the cache, which is dropped when any of the tables changes.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "compat.h"
#include "executor/executor.h"
#include "storage/lmgr.h"
#include "tables.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

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
	[DJA_DEAD_FAILED_AT_INDEX] = {DJA_DEAD_LETTER_TABLE, "dead_letter_failed_at"},
};

static struct
{
	bool		valid;
	DjaInstalled installed;
	char		version[32];
	Oid			extension;
	Oid			tables[DJA_NTABLES];
	Oid			indexes[DJA_NINDEXES];
	Oid			sequences[DJA_NTABLES]; /* looked up when first wanted */
}			dja_catalog;

static void
dja_catalog_relcache_callback(Datum arg, Oid relid)
{
	if (!OidIsValid(relid))
	{
		dja_catalog.valid = false;
		return;
	}
	for (int i = 0; i < DJA_NTABLES; i++)
		if (dja_catalog.tables[i] == relid)
			dja_catalog.valid = false;
}

void
dja_catalog_init(void)
{
	CacheRegisterRelcacheCallback(dja_catalog_relcache_callback, (Datum) 0);
}

/*
 * The extension's OID and version as of now; false when it is not installed.
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
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

		*extension = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		strlcpy(version, isnull ? "" : TextDatumGetCString(datum), size);
		found = true;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Is this table what it seems?  Both it and its schema have to belong to a superuser.
 */
static bool
dja_trustworthy(Form_pg_class class)
{
	HeapTuple	tuple;
	bool		result;

	if (!superuser_arg(class->relowner))
		return false;
	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(class->relnamespace));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = superuser_arg(((Form_pg_namespace) GETSTRUCT(tuple))->nspowner);
	ReleaseSysCache(tuple);
	return result;
}

static void
dja_find_tables(void)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	memset(dja_catalog.tables, 0, sizeof(dja_catalog.tables));
	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(dja_catalog.extension));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend dep = (Form_pg_depend) GETSTRUCT(tuple);
		HeapTuple	class_tuple;
		Form_pg_class class;

		if (dep->classid != RelationRelationId || dep->objsubid != 0 ||
			dep->deptype != DEPENDENCY_EXTENSION)
			continue;
		class_tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(dep->objid));
		if (!HeapTupleIsValid(class_tuple))
			continue;
		class = (Form_pg_class) GETSTRUCT(class_tuple);
		for (int i = 0; i < DJA_NTABLES; i++)
			if (class->relkind == RELKIND_RELATION &&
				strcmp(NameStr(class->relname), dja_tables[i].name) == 0 &&
				dja_trustworthy(class))
				dja_catalog.tables[i] = class->oid;
		ReleaseSysCache(class_tuple);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
}

static void
dja_find_indexes(void)
{
	for (DjaTable t = 0; t < DJA_NTABLES; t++)
	{
		Relation	rel = table_open(dja_catalog.tables[t], AccessShareLock);
		List	   *indexes = RelationGetIndexList(rel);
		ListCell   *lc;

		foreach(lc, indexes)
		{
			char	   *name = get_rel_name(lfirst_oid(lc));

			for (int i = 0; i < DJA_NINDEXES; i++)
				if (name && dja_indexes[i].table == t && strcmp(name, dja_indexes[i].name) == 0)
					dja_catalog.indexes[i] = lfirst_oid(lc);
		}
		list_free(indexes);
		table_close(rel, AccessShareLock);
	}
}

/*
 * Are all parts there, of the shape that this library was built for?
 */
static bool
dja_shape_fits(void)
{
	for (int i = 0; i < DJA_NTABLES; i++)
	{
		Relation	rel;
		int			natts;

		if (!OidIsValid(dja_catalog.tables[i]))
			return false;
		rel = table_open(dja_catalog.tables[i], AccessShareLock);
		natts = RelationGetNumberOfAttributes(rel);
		table_close(rel, AccessShareLock);
		if (natts != dja_tables[i].natts)
			return false;
	}
	dja_find_indexes();
	for (int i = 0; i < DJA_NINDEXES; i++)
		if (!OidIsValid(dja_catalog.indexes[i]))
			return false;
	return true;
}

/*
 * Which of two dotted version numbers is the later one?
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
 * Looks whether this database has the extension, in the version that this
 * library serves.  With lock, the extension cannot be dropped or updated
 * before the transaction ends, and the answer is read from the catalog, not
 * from the cache.
 */
DjaInstalled
dja_catalog_check(bool lock)
{
	Oid			extension = InvalidOid;
	char		version[sizeof(dja_catalog.version)] = "";
	int			order;

	if (dja_catalog.valid && !lock)
		return dja_catalog.installed;

	if (!dja_read_extension(&extension, version, sizeof(version)))
	{
		dja_catalog.valid = false;
		return DJA_NOT_INSTALLED;
	}
	if (lock)
	{
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		if (!dja_read_extension(&extension, version, sizeof(version)))
		{
			dja_catalog.valid = false;
			return DJA_NOT_INSTALLED;
		}
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
		memset(dja_catalog.indexes, 0, sizeof(dja_catalog.indexes));
		memset(dja_catalog.sequences, 0, sizeof(dja_catalog.sequences));
		dja_find_tables();
		if (!dja_shape_fits())
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the tables of extension djactor are not as its script made them"),
					 errdetail("A table is missing, has other columns or indexes, or does not belong to a superuser."),
					 errhint("Undo what was changed, or drop and create the extension.")));
		dja_catalog.installed = DJA_INSTALLED;
	}
	dja_catalog.valid = true;
	return dja_catalog.installed;
}

/*
 * The extension has changed: this session, and all others, have to look again.
 */
void
dja_catalog_forget(void)
{
	if (dja_catalog.valid && OidIsValid(dja_catalog.tables[DJA_MESSAGE_TABLE]) &&
		SearchSysCacheExists1(RELOID, ObjectIdGetDatum(dja_catalog.tables[DJA_MESSAGE_TABLE])))
		CacheInvalidateRelcacheByRelid(dja_catalog.tables[DJA_MESSAGE_TABLE]);
	dja_catalog.valid = false;
}

/*
 * Raises 55000 unless the extension is here in the version that this library
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

const char *
dja_catalog_version(void)
{
	return dja_catalog.version;
}

Oid
dja_table_oid(DjaTable table)
{
	if (!dja_catalog.valid)
		dja_catalog_require();
	return dja_catalog.tables[table];
}

Oid
dja_index_oid(DjaIndex index)
{
	if (!dja_catalog.valid)
		dja_catalog_require();
	return dja_catalog.indexes[index];
}

/*
 * The sequence behind column 1 of a table.
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
 * 64 bits to know a type's name or an actor's key by.  Stored in indexes: it
 * can never change within a major version of the extension.
 */
uint64
dja_hash_name(const char *name, int len)
{
	return DatumGetUInt64(hash_any_extended((const unsigned char *) name, len, 0));
}

/* ---------- writing rows ---------- */

DjaWriter *
dja_writer_open(DjaTable table, LOCKMODE lockmode)
{
	DjaWriter  *writer = palloc(sizeof(DjaWriter));

	writer->rel = table_open(dja_table_oid(table), lockmode);
	writer->estate = CreateExecutorState();
	writer->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->rri, writer->rel, 0, NULL, 0);	/* of no range table */
	ExecOpenIndices(writer->rri, false);
	writer->slot = MakeSingleTupleTableSlot(RelationGetDescr(writer->rel), &TTSOpsVirtual);
	return writer;
}

void
dja_writer_close(DjaWriter *writer)
{
	ExecDropSingleTupleTableSlot(writer->slot);
	ExecCloseIndices(writer->rri);
	FreeExecutorState(writer->estate);
	table_close(writer->rel, NoLock);
	pfree(writer);
}

static void
dja_writer_fill(DjaWriter *writer, const Datum *values, const bool *nulls)
{
	int			natts = RelationGetDescr(writer->rel)->natts;

	ExecClearTuple(writer->slot);
	memcpy(writer->slot->tts_values, values, sizeof(Datum) * natts);
	memcpy(writer->slot->tts_isnull, nulls, sizeof(bool) * natts);
	ExecStoreVirtualTuple(writer->slot);
	writer->slot->tts_tableOid = RelationGetRelid(writer->rel);
}

void
dja_row_insert(DjaWriter *writer, const Datum *values, const bool *nulls)
{
	dja_writer_fill(writer, values, nulls);
	simple_table_tuple_insert(writer->rel, writer->slot);
	dja_insert_index_tuples(writer->rri, writer->slot, writer->estate);
	ResetPerTupleExprContext(writer->estate);
}

/*
 * Updates or deletes the very version at tid without waiting for anybody.  A
 * lock that our own transaction has on it (SELECT FOR UPDATE in a handler,
 * say) is none to wait for, but the server goes past it only when it may wait.
 */
TM_Result
dja_row_try_update(DjaWriter *writer, ItemPointer tid, const Datum *values, const bool *nulls)
{
	CommandId	cid = GetCurrentCommandId(true);
	Snapshot	snapshot = GetActiveSnapshot();
	TM_FailureData failure;
	TM_Result	result;

	dja_writer_fill(writer, values, nulls);
	result = dja_table_tuple_update(writer->rri, writer->estate, tid, writer->slot,
									cid, snapshot, false, &failure);
	if (result == TM_BeingModified && TransactionIdIsCurrentTransactionId(failure.xmax))
		result = dja_table_tuple_update(writer->rri, writer->estate, tid, writer->slot,
										cid, snapshot, true, &failure);
	ResetPerTupleExprContext(writer->estate);
	return result;
}

TM_Result
dja_row_try_delete(DjaWriter *writer, ItemPointer tid)
{
	CommandId	cid = GetCurrentCommandId(true);
	Snapshot	snapshot = GetActiveSnapshot();
	TM_FailureData failure;
	TM_Result	result;

	result = table_tuple_delete(writer->rel, tid, cid, snapshot, InvalidSnapshot, false,
								&failure, false);
	if (result == TM_BeingModified && TransactionIdIsCurrentTransactionId(failure.xmax))
		result = table_tuple_delete(writer->rel, tid, cid, snapshot, InvalidSnapshot, true,
									&failure, false);
	return result;
}

/*
 * What a row that is not as it was read means to the transaction: it starts
 * over.
 */
void
dja_row_trouble(TM_Result result)
{
	switch (result)
	{
		case TM_SelfModified:
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("the turn has changed a row of djactor that it runs on"),
					 errhint("Return the new state from the handler instead of updating djactor.actor.")));
		case TM_BeingModified:
		case TM_WouldBlock:
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("a row of djactor is locked by another transaction")));
		default:
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("a row of djactor was changed by another transaction")));
	}
}

void
dja_row_update(DjaWriter *writer, ItemPointer tid, const Datum *values, const bool *nulls)
{
	TM_Result	result = dja_row_try_update(writer, tid, values, nulls);

	if (result != TM_Ok)
		dja_row_trouble(result);
}

void
dja_row_delete(DjaWriter *writer, ItemPointer tid)
{
	TM_Result	result = dja_row_try_delete(writer, tid);

	if (result != TM_Ok)
		dja_row_trouble(result);
}
