/*
 * rows.h
 *
 * Reads and writes rows of djactor's tables through the table and index access
 * methods.
 *
 * Rows are written without rights checks, triggers or a change of user: djactor's
 * bookkeeping does not depend on the rights of the handler's role.  The SQL
 * functions that call in here check what a role may do.
 *
 * Nothing here waits for a row that another transaction has locked.
 */
#ifndef DJA_ROWS_H
#define DJA_ROWS_H


#include "access/genam.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapshot.h"

#include "tables/catalog.h"

/*
 * An open table with all that writing needs.  It lives until the transaction's
 * end.  Its indexes are opened by the first row that needs an entry in them, which
 * a row that is deleted does not, nor one that is updated in its page.
 */
typedef struct DjaWriter
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *rri;
	TupleTableSlot *slot;
	MemoryContext context;		/* in which it lives */
	ResourceOwner owner;		/* for which it is open */
	bool		indexed;		/* its indexes are open */
	bool		may_update;		/* its publications were checked */
	bool		may_delete;
} DjaWriter;

/*
 * A TID as a number.  Rows that are neighbours in the table get neighbouring
 * numbers.
 */
static inline uint64
dja_tid_encode(const ItemPointerData *tid)
{
	return (uint64) ItemPointerGetBlockNumber(tid) << 16 | ItemPointerGetOffsetNumber(tid);
}

static inline void
dja_tid_decode(uint64 row, ItemPointer tid)
{
	ItemPointerSet(tid, (BlockNumber) (row >> 16), (OffsetNumber) (row & 0xFFFF));
}

/*
 * A scan over the rows that an index has for some values of its first columns, or
 * over all rows of a table (DJA_NO_INDEX), as the latest snapshot sees them.
 */
#define DJA_FIND_MAX 4
#define DJA_NO_INDEX DJA_NINDEXES

typedef struct DjaFind
{
	Relation	rel;
	Relation	index;			/* or NULL */
	Snapshot	snapshot;		/* that it has registered, or NULL */
	IndexScanDesc scan;			/* with an index */
	TableScanDesc table_scan;	/* without one */
	TupleTableSlot *slot;
} DjaFind;

extern DjaWriter *dja_writer_open(DjaTable table, LOCKMODE lockmode);
extern void dja_writer_close(DjaWriter *writer);

/*
 * Writers that a batch keeps open from first use to its end.  Without a batch
 * they are opened and closed for each use.  Always with RowExclusiveLock.
 */
extern void dja_writers_keep(MemoryContext context);
extern void dja_writers_close(void);
extern void dja_writers_forget(void);
extern DjaWriter *dja_writer_get(DjaTable table);
extern void dja_writer_put(DjaWriter *writer);

/* Single columns of a row that is about to be written. */
static inline void
dja_set_column(Datum *values, bool *nulls, int attnum, Datum value, bool isnull)
{
	values[attnum - 1] = value;
	nulls[attnum - 1] = isnull;
}

extern void dja_set_text(Datum *values, bool *nulls, int attnum, const char *string);

extern void dja_row_insert(DjaWriter *writer, const Datum *values, const bool *nulls);
extern void dja_row_update(DjaWriter *writer, ItemPointer tid, const Datum *values, const bool *nulls);
extern void dja_row_make_room(DjaWriter *writer, ItemPointer tid, Size size);
extern void dja_row_delete(DjaWriter *writer, ItemPointer tid);
extern TM_Result dja_row_try_update(DjaWriter *writer, ItemPointer tid, const Datum *values, const bool *nulls);
extern TM_Result dja_row_try_delete(DjaWriter *writer, ItemPointer tid);
extern TM_Result dja_row_lock(DjaWriter *writer, ItemPointer tid, LockTupleMode mode, TupleTableSlot *slot);
extern TransactionId dja_tuple_locker(HeapTupleHeader tuple, bool shared_keys);
extern void dja_row_trouble(TM_Result result);

/* Single rows, seen by the commands that follow. */
extern void dja_table_insert(DjaTable table, const Datum *values, const bool *nulls);
extern TM_Result dja_table_try_delete(DjaTable table, ItemPointer tid);

extern void dja_find_open(DjaFind *find, DjaTable table, DjaIndex index, int nkeys, Snapshot snapshot);
extern void dja_find_begin(DjaFind *find, DjaTable table, DjaIndex index, int nkeys, const Datum *keys,
						   Snapshot snapshot);
extern TransactionId dja_find_writer(DjaTable table, DjaIndex index, int nkeys, const Datum *keys);
extern bool dja_find_next(DjaFind *find);
extern void dja_find_end(DjaFind *find);

#endif							/* DJA_ROWS_H */
