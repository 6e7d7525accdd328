/*
 * held.h
 *
 * Databases whose mail is held, in shared memory: the workers' side of home.c.
 *
 * The tables are the truth here too.  An entry says "do not serve this
 * database until somebody has looked and found nothing against it"; without an
 * entry a worker still looks when it starts.
 *
 * Who writes what, all under dja_shared->lock:
 *   open, asked	backends that restore rows, in their pre-commit and afterwards
 *   held			who has looked: scout and worker
 *   the entry		made by both, removed by who has looked, and by the launcher
 *					for a database that is gone
 *   restored		written once, at the start of the server
 *
 * The functions take the lock themselves.
 */
#ifndef DJA_HELD_H
#define DJA_HELD_H

#include "shmem.h"

#define DJA_MAX_HELD 512

typedef struct DjaHeldDatabase
{
	Oid			database;		/* InvalidOid = free */
	int			open;			/* restoring transactions that are about to
								 * commit */
	uint32		asked;			/* counts them */
	bool		held;			/* somebody has looked, and logged it */
} DjaHeldDatabase;

struct DjaHeld
{
	int64		restored;		/* see startup.h */
	volatile int count;			/* of entries; also read without the lock */
	DjaHeldDatabase databases[DJA_MAX_HELD];
};

/* What a look at the tables has found. */
typedef enum DjaHomeVerdict
{
	DJA_AT_HOME,
	DJA_HELD,
	DJA_UNDECIDED				/* hangs on a transaction that is still open */
} DjaHomeVerdict;

/* What was known before the look. */
typedef struct DjaHeldLook
{
	int			open;
	uint32		asked;
} DjaHeldLook;

extern Size dja_held_size(void);
extern void dja_held_setup(DjaHeld *held);
extern void dja_held_init(void);

extern bool dja_held(Oid database);
extern bool dja_held_found(Oid database);
extern void dja_held_look(DjaHeldLook *look);
extern bool dja_held_verdict(const DjaHeldLook *look, DjaHomeVerdict verdict, bool *news);
extern void dja_held_forget(Oid database);
extern void dja_held_recheck(void);

/* for the end of the transaction */
extern void dja_held_suspect(void);
extern void dja_held_look_again(bool may_prepare);

#endif							/* DJA_HELD_H */
