/*
 * catalog.h
 *
 * Finds djactor's tables and indexes by OID, and reads and writes their rows.
 *
 * The OIDs come from the extension's membership, never from names on a search
 * path, and a table counts only while it and its schema belong to a superuser:
 * a database owner may add tables of his own to an extension that he owns.
 * The cache is dropped by relcache invalidation.
 *
 * Rows are written without rights checks, triggers or a change of user:
 * djactor's own bookkeeping is not the handler's role's business.  What a role
 * may do is checked by the SQL functions that call in here.
 */
#ifndef DJA_CATALOG_H
#define DJA_CATALOG_H

#include "compat.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#define DJA_SQL_VERSION "1.0"

typedef enum DjaTable
{
	DJA_ACTOR_TYPE_TABLE,
	DJA_ACTOR_TABLE,
	DJA_IDENTITY_TABLE,
	DJA_MESSAGE_TABLE,
	DJA_DEAD_LETTER_TABLE,
	DJA_NTABLES
} DjaTable;

typedef enum DjaIndex
{
	DJA_ACTOR_TYPE_PKEY,
	DJA_ACTOR_KEY_INDEX,
	DJA_ACTOR_ID_INDEX,
	DJA_IDENTITY_PKEY,
	DJA_MESSAGE_PKEY,
	DJA_MAILBOX_INDEX,
	DJA_DUE_INDEX,
	DJA_DEAD_FAILED_AT_INDEX,
	DJA_NINDEXES
} DjaIndex;

typedef enum DjaInstalled
{
	DJA_NOT_INSTALLED,
	DJA_INSTALLED,
	DJA_EXTENSION_NEWER,		/* than this library */
	DJA_LIBRARY_NEWER			/* than the extension */
} DjaInstalled;

/*
 * An open table with all that writing needs; lives until the transaction's
 * end.
 */
typedef struct DjaWriter
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *rri;
	TupleTableSlot *slot;
} DjaWriter;

extern void dja_catalog_init(void);
extern DjaInstalled dja_catalog_check(bool lock);
extern void dja_catalog_require(void);
extern void dja_catalog_forget(void);
extern const char *dja_catalog_version(void);
extern Oid	dja_table_oid(DjaTable table);
extern Oid	dja_index_oid(DjaIndex index);
extern Oid	dja_identity_sequence(DjaTable table);
extern uint64 dja_hash_name(const char *name, int len);

static inline uint64
dja_hash_text(const text *name)
{
	return dja_hash_name(VARDATA_ANY(name), (int) VARSIZE_ANY_EXHDR(name));
}

static inline bool
dja_text_equal(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

extern DjaWriter *dja_writer_open(DjaTable table, LOCKMODE lockmode);
extern void dja_writer_close(DjaWriter *writer);
extern void dja_row_insert(DjaWriter *writer, const Datum *values, const bool *nulls);
extern void dja_row_update(DjaWriter *writer, ItemPointer tid, const Datum *values, const bool *nulls);
extern void dja_row_delete(DjaWriter *writer, ItemPointer tid);
extern TM_Result dja_row_try_update(DjaWriter *writer, ItemPointer tid, const Datum *values, const bool *nulls);
extern TM_Result dja_row_try_delete(DjaWriter *writer, ItemPointer tid);
extern void dja_row_trouble(TM_Result result);

#endif							/* DJA_CATALOG_H */
