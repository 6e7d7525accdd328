/*
 * compat.h
 *
 * Differences between the PostgreSQL versions that djactor supports, 15 to 19.
 * All version conditions of the project are here, so that the rest of the code
 * reads as if there were only one server.
 */
#ifndef DJA_COMPAT_H
#define DJA_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/tableam.h"
#include "catalog/pg_publication.h"
#include "commands/dbcommands.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "parser/parse_relation.h"
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 150000
#error "djactor needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM >= 180000
#define DJA_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "djactor", .version = CppAsString2(DJA_RELEASE))
#else
#define DJA_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* The lowest level of what this process logs; to be assigned, too. */
#if PG_VERSION_NUM >= 190000
#define dja_log_min_messages (log_min_messages[MyBackendType])
#else
#define dja_log_min_messages log_min_messages
#endif

/* Scans. */
#if PG_VERSION_NUM >= 190000
#define dja_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0, SO_NONE)
#define dja_table_beginscan(heap, snapshot, nkeys, keys) \
	table_beginscan((heap), (snapshot), (nkeys), (keys), SO_NONE)
#elif PG_VERSION_NUM >= 180000
#define dja_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), NULL, (nkeys), 0)
#define dja_table_beginscan(heap, snapshot, nkeys, keys) \
	table_beginscan((heap), (snapshot), (nkeys), (keys))
#else
#define dja_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan((heap), (index), (snapshot), (nkeys), 0)
#define dja_table_beginscan(heap, snapshot, nkeys, keys) \
	table_beginscan((heap), (snapshot), (nkeys), (keys))
#endif

/* Index of a backend in the proc array; it also names the holder of a claim. */
#if PG_VERSION_NUM >= 170000
#define dja_my_procno() ((int) MyProcNumber)
#define dja_my_xact() (MyProc->vxid.lxid)
#else
#define dja_my_procno() (MyProc->pgprocno)
#define dja_my_xact() (MyProc->lxid)
#endif

/*
 * The number of entries in the proc array that a backend or background process
 * can have.
 */
#define dja_proc_count() (MaxBackends + NUM_AUXILIARY_PROCS)

/* Which index entries a row needs that was written. */
typedef enum DjaIndexUpdate
{
	DJA_INDEX_NONE,
	DJA_INDEX_INSERTED,			/* in all: it is new */
	DJA_INDEX_UPDATED,			/* in all: it is a new version */
	DJA_INDEX_SUMMARIZING		/* a new version, in those that summarize
								 * pages */
} DjaIndexUpdate;

static inline void
dja_insert_index_tuples(ResultRelInfo *rri, TupleTableSlot *slot, EState *estate, DjaIndexUpdate update)
{
#if PG_VERSION_NUM >= 190000
	uint32		flags = update == DJA_INDEX_INSERTED ? 0 :
	update == DJA_INDEX_UPDATED ? EIIT_IS_UPDATE : EIIT_IS_UPDATE | EIIT_ONLY_SUMMARIZING;

	list_free(ExecInsertIndexTuples(rri, estate, flags, slot, NIL, NULL));
#elif PG_VERSION_NUM >= 160000
	list_free(ExecInsertIndexTuples(rri, slot, estate, update != DJA_INDEX_INSERTED, false, NULL, NIL,
									update == DJA_INDEX_SUMMARIZING));
#else
	list_free(ExecInsertIndexTuples(rri, slot, estate, update != DJA_INDEX_INSERTED, false, NULL, NIL));
#endif
}

/* Makes a new version of a row; *update says which index entries it needs. */
static inline TM_Result
dja_table_tuple_update(Relation rel, ItemPointer tid, TupleTableSlot *slot, CommandId cid,
					   Snapshot snapshot, TM_FailureData *failure, DjaIndexUpdate *update)
{
	LockTupleMode lockmode;
	TM_Result	result;
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes indexes = TU_None;
#if PG_VERSION_NUM >= 190000
	result = table_tuple_update(rel, tid, slot, cid, 0, snapshot, InvalidSnapshot,
								true, failure, &lockmode, &indexes);
#else
	result = table_tuple_update(rel, tid, slot, cid, snapshot, InvalidSnapshot,
								true, failure, &lockmode, &indexes);
#endif
	*update = indexes == TU_None ? DJA_INDEX_NONE :
		indexes == TU_Summarizing ? DJA_INDEX_SUMMARIZING : DJA_INDEX_UPDATED;
#else
	bool		indexes = false;

	result = table_tuple_update(rel, tid, slot, cid, snapshot, InvalidSnapshot,
								true, failure, &lockmode, &indexes);
	*update = indexes ? DJA_INDEX_UPDATED : DJA_INDEX_NONE;
#endif
	return result;
}

static inline TM_Result
dja_table_tuple_delete(Relation rel, ItemPointer tid, CommandId cid, Snapshot snapshot,
					   bool wait, TM_FailureData *failure)
{
#if PG_VERSION_NUM >= 190000
	return table_tuple_delete(rel, tid, cid, 0, snapshot, InvalidSnapshot, wait, failure);
#else
	return table_tuple_delete(rel, tid, cid, snapshot, InvalidSnapshot, wait, failure, false);
#endif
}

/* Removes row versions that no snapshot can see from a page of a table. */
static inline void
dja_page_prune(Relation rel, Buffer buffer)
{
#if PG_VERSION_NUM >= 190000
	Buffer		map = InvalidBuffer;

	heap_page_prune_opt(rel, buffer, &map, false);
	if (BufferIsValid(map))
		ReleaseBuffer(map);
#else
	heap_page_prune_opt(rel, buffer);
#endif
}

/* Could a subscriber apply such a change to any row of the table? */
typedef enum DjaPublicationFault
{
	DJA_PUBLICATION_FINE,
	DJA_PUBLICATION_PARTIAL,	/* its filter or columns do not fit the
								 * replica identity */
	DJA_PUBLICATION_BLIND		/* there is no replica identity */
} DjaPublicationFault;

/* Checks what CheckCmdReplicaIdentity does, without raising an error. */
static inline DjaPublicationFault
dja_publication_fault(Relation rel, CmdType command)
{
	bool		updates = command == CMD_UPDATE;
	PublicationDesc desc;

	RelationBuildPublicationDesc(rel, &desc);
	if (updates ? !desc.rf_valid_for_update || !desc.cols_valid_for_update :
		!desc.rf_valid_for_delete || !desc.cols_valid_for_delete)
		return DJA_PUBLICATION_PARTIAL;
#if PG_VERSION_NUM >= 180000
	if (updates ? !desc.gencols_valid_for_update : !desc.gencols_valid_for_delete)
		return DJA_PUBLICATION_PARTIAL;
#endif
	if ((updates ? desc.pubactions.pubupdate : desc.pubactions.pubdelete) &&
		rel->rd_rel->relreplident != REPLICA_IDENTITY_FULL &&
		!OidIsValid(RelationGetReplicaIndex(rel)))
		return DJA_PUBLICATION_BLIND;
	return DJA_PUBLICATION_FINE;
}

/* May the current user act for a role?  The first raises 42501 if not. */
#if PG_VERSION_NUM >= 160000
#define dja_check_can_act_for(role) check_can_set_role(GetUserId(), (role))
#define dja_can_act_for(role) member_can_set_role(GetUserId(), (role))
#else
#define dja_check_can_act_for(role) check_is_member_of_role(GetUserId(), (role))
#define dja_can_act_for(role) is_member_of_role(GetUserId(), (role))
#endif

/* Rights to objects: from 16 on one function serves all catalogs. */
#if PG_VERSION_NUM >= 160000
#define dja_may_execute(function, role) \
	(object_aclcheck(ProcedureRelationId, (function), (role), ACL_EXECUTE) == ACLCHECK_OK)
#define dja_may_use_schema(schema, role) \
	(object_aclcheck(NamespaceRelationId, (schema), (role), ACL_USAGE) == ACLCHECK_OK)
#define dja_may_connect(database, role) \
	(object_aclcheck(DatabaseRelationId, (database), (role), ACL_CONNECT) == ACLCHECK_OK)
#define dja_owns_database(database, role) object_ownercheck(DatabaseRelationId, (database), (role))
#define dja_owns_extension(extension, role) object_ownercheck(ExtensionRelationId, (extension), (role))
#define dja_owns_table(table, role) object_ownercheck(RelationRelationId, (table), (role))
#else
#define dja_may_execute(function, role) \
	(pg_proc_aclcheck((function), (role), ACL_EXECUTE) == ACLCHECK_OK)
#define dja_may_use_schema(schema, role) \
	(pg_namespace_aclcheck((schema), (role), ACL_USAGE) == ACLCHECK_OK)
#define dja_may_connect(database, role) \
	(pg_database_aclcheck((database), (role), ACL_CONNECT) == ACLCHECK_OK)
#define dja_owns_database(database, role) pg_database_ownercheck((database), (role))
#define dja_owns_extension(extension, role) pg_extension_ownercheck((extension), (role))
#define dja_owns_table(table, role) pg_class_ownercheck((table), (role))
#endif

/* Splits a possibly qualified name. */
#if PG_VERSION_NUM >= 160000
#define dja_string_to_names(string) stringToQualifiedNameList((string), NULL)
#else
#define dja_string_to_names(string) stringToQualifiedNameList(string)
#endif

/* Intervals can be infinite from 17 on. */
#if PG_VERSION_NUM >= 170000
#define DJA_INTERVAL_INFINITE(interval) INTERVAL_NOT_FINITE(interval)
#else
#define DJA_INTERVAL_INFINITE(interval) ((void) (interval), false)
#endif

/* A jsonb value under construction, zeros at first. */
#if PG_VERSION_NUM >= 190000
typedef JsonbInState DjaJsonState;
#define dja_json_push(state, token, value) pushJsonbValue((state), (token), (value))
#else
typedef struct DjaJsonState
{
	JsonbParseState *parse;
	JsonbValue *result;
} DjaJsonState;
#define dja_json_push(state, token, value) \
	((void) ((state)->result = pushJsonbValue(&(state)->parse, (token), (value))))
#endif

/* The locks of a process: a list of another kind from 16 on. */
#if PG_VERSION_NUM >= 160000
typedef dlist_head dja_lock_list;
#define dja_lock_list_empty(list) dlist_is_empty(list)
#else
typedef SHM_QUEUE dja_lock_list;
#define dja_lock_list_empty(list) SHMQueueEmpty(list)
#endif

/* Returns the lock after this one, or the first one for NULL; NULL at the end. */
static inline PROCLOCK *
dja_lock_list_next(dja_lock_list *list, PROCLOCK *lock)
{
#if PG_VERSION_NUM >= 160000
	dlist_node *node = lock ? &lock->procLink : &list->head;

	return node->next == &list->head ? NULL : dlist_container(PROCLOCK, procLink, node->next);
#else
	return (PROCLOCK *) SHMQueueNext(list, lock ? &lock->procLink : list,
									 offsetof(PROCLOCK, procLink));
#endif
}

/*
 * Returns the columns that an INSERT names, as attribute numbers less
 * FirstLowInvalidHeapAttributeNumber.
 */
static inline Bitmapset *
dja_inserted_columns(PlannedStmt *plan, RangeTblEntry *rte)
{
#if PG_VERSION_NUM >= 160000
	return rte->perminfoindex == 0 ? NULL : getRTEPermissionInfo(plan->permInfos, rte)->insertedCols;
#else
	return rte->insertedCols;
#endif
}

/* Marks a database whose DROP was cut short; minor versions differ. */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB (-2)
#endif

/* The arguments that a signal handler passes on to another one. */
#if PG_VERSION_NUM >= 190000
#define DJA_SIGNAL_ARGS postgres_signal_arg, pg_siginfo
#else
#define DJA_SIGNAL_ARGS postgres_signal_arg
#endif

/* Calls die() from a handler that sigaction() set, to learn who sent the signal. */
#if PG_VERSION_NUM >= 190000
#define DJA_DIE(signo, info) \
	die((signo), &(pg_signal_info) {.pid = (uint32_t) (info)->si_pid, .uid = (uint32_t) (info)->si_uid})
#else
#define DJA_DIE(signo, info) die(signo)
#endif

/* Wait events, named from 17 on. */
#if PG_VERSION_NUM >= 170000
#define DJA_WAIT_EVENT(var, name) \
	(((var) == 0) ? ((var) = WaitEventExtensionNew(name)) : (var))
#else
#define DJA_WAIT_EVENT(var, name) ((void) (var), PG_WAIT_EXTENSION)
#endif

#endif							/* DJA_COMPAT_H */
