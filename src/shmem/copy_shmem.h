/*
 * copy_shmem.h
 *
 * Databases whose mail is held, in shared memory: the workers' side of
 * copy_check.c.
 *
 * The tables are the truth here, too.  An entry says that this database must not
 * be served until a look at its tables finds no reason against it.  Without an
 * entry a worker still looks when it starts.
 *
 * Written under dja_shared->lock:
 *   open, asked	by backends that restore rows, in their pre-commit and afterwards
 *   held			by a scout or worker that has looked
 *   the entry		made by both; removed by a scout or worker that has looked, and by the
 *					launcher for a database that is gone
 *   restored		once, at the start of the server
 *
 * The functions take the lock themselves.
 */
#ifndef DJA_COPY_SHMEM_H
#define DJA_COPY_SHMEM_H

#include "shmem/shmem.h"

#define DJA_MAX_COPIES 512

typedef struct DjaCopy
{
	Oid			database;		/* InvalidOid = free */
	int			open;			/* restoring transactions that are committing */
	uint32		asked;			/* how many there have been */
	bool		held;			/* a look has found it held, and logged that */
} DjaCopy;

struct DjaCopies
{
	int64		restored;		/* see copy_backup.h */
	volatile int count;			/* of entries; also read without the lock */
	DjaCopy		databases[DJA_MAX_COPIES];
};

/* What a look at the tables has found. */
typedef enum DjaCopyVerdict
{
	DJA_COPY_AT_HOME,
	DJA_COPY_HELD,
	DJA_COPY_UNDECIDED			/* depends on a transaction that is still open */
} DjaCopyVerdict;

/* The state before the look. */
typedef struct DjaCopyLook
{
	int			open;
	uint32		asked;
} DjaCopyLook;

extern Size dja_copies_size(void);
extern void dja_copies_setup(void *memory);
extern void dja_copy_init(void);

extern bool dja_copy_is_held(Oid database);
extern bool dja_copy_found(Oid database);
extern void dja_copy_look(DjaCopyLook *look);
extern bool dja_copy_verdict(const DjaCopyLook *look, DjaCopyVerdict verdict, bool *news);
extern void dja_copy_forget(Oid database);
extern void dja_copy_recheck(void);

/* These take effect at the end of the transaction. */
extern void dja_copy_suspect(void);
extern void dja_copy_look_again(bool may_prepare);

#endif							/* DJA_COPY_SHMEM_H */
