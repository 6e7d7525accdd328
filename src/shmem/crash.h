/*
 * crash.h
 *
 * Tells which message was being handled when a process died (contract point 15).
 *
 * A worker keeps the identity of the message whose handler runs in its marker, and so
 * does a client's session between begin_turn() and end_turn().
 * That is a file mapped into its memory, which outlives the process and shared
 * memory.  When the postmaster sets up shared memory anew, it reads the markers.
 * It passes a verdict on each message whose handler was running, unless the
 * worker was merely ended by the postmaster.  crash_record.c acts on the
 * verdicts.
 *
 * Written by:
 *   a marker			its worker, without a lock; nobody reads it while that lives
 *   djactor.crash.*		the postmaster, while it is alone; removed by workers,
 *						launcher and scout
 *   crashes[]			under the lock: the postmaster, while it is alone, and a worker on
 *						its way out; workers, launcher and scout free entries;
 *						writer is the slot of the worker that writes the crash down
 *   charges, suspects	with them; read without the lock as a hint
 *   complained			workers, without the lock: a log line too many or too few at worst
 */
#ifndef DJA_CRASH_H
#define DJA_CRASH_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "shmem/shmem.h"

#define DJA_BOOT_ID_LEN 36

typedef enum DjaVerdict
{
	DJA_NO_VERDICT,
	DJA_SUSPECT,				/* one of several: it runs alone next, and is
								 * charged if that crashes, too */
	DJA_CHARGED					/* its crash has to be written down before its
								 * type queue goes on */
} DjaVerdict;

/* What a file holds: a worker's marker, or a verdict not yet acted upon. */
typedef struct DjaMarker
{
	uint32		magic;
	Oid			database;
	TimestampTz server;			/* start of the postmaster */
	char		boot_id[DJA_BOOT_ID_LEN + 1];
	uint8		verdict;
	volatile bool innocent;		/* ended by the postmaster */
	bool		run_alone;		/* in a transaction of its own, since it has
								 * crashed or is suspected */
	uint64		type_hash;
	volatile int64 message_id;	/* 0 = no handler runs */
} DjaMarker;

typedef struct DjaCrash
{
	DjaVerdict	verdict;		/* DJA_NO_VERDICT = free */
	Oid			database;
	uint64		type_hash;
	int64		message_id;
	int			writer;			/* worker slot, or DJA_NO_SLOT */
} DjaCrash;

struct DjaCrashes
{
	char		boot_id[DJA_BOOT_ID_LEN + 1];	/* empty = unknown; never
												 * changes */
	int			complained;		/* slot + 1 of a worker that could make no
								 * marker and has logged that */
	int			charges;		/* entries in that state */
	int			suspects;
	DjaCrash	crashes[FLEXIBLE_ARRAY_MEMBER];
};

extern DjaMarker *dja_marker;

/* shared memory */
extern Size dja_crash_size(void);
extern void dja_crash_setup(void *memory);
extern int	dja_crash_room(void);

/* a worker */
extern void dja_crash_begin(int slot);
extern void dja_crash_end(int slot);
extern void dja_crash_begin_client(void);
extern void dja_catch_sigterm(void);
extern bool dja_crash_terminated(void);
extern void dja_crash_acquit(int64 message_id);
extern bool dja_crash_suspected_slow(int64 message_id);

/* entries; all but dja_crash_remove_file(), which must not have it, need the lock */
extern bool dja_crash_owed_slow(Oid database, uint64 type_hash, bool unclaimed);
extern void dja_crash_charge(Oid database, uint64 type_hash, int64 message_id);
extern void dja_crash_free(int i);
extern void dja_crash_remove_file(int i);

/* takes the lock */
extern void dja_crash_forget(List *databases);

#define dja_crash(i) (&dja_shared->crashes->crashes[i])

/*
 * Marks a message whose handler is about to run.  The id is written last.
 */
static inline void
dja_crash_mark(uint64 type_hash, int64 message_id, bool run_alone)
{
	Assert(dja_marker->message_id == 0);
	dja_marker->type_hash = type_hash;
	dja_marker->run_alone = run_alone;
	dja_marker->message_id = message_id;
}

/*
 * Clears the marker after the handler.  Its process is alive, which clears a
 * suspect.
 */
static inline void
dja_crash_unmark(void)
{
	int64		id = dja_marker->message_id;

	dja_marker->message_id = 0;
	if (dja_marker->run_alone)
	{
		dja_marker->run_alone = false;
		dja_crash_acquit(id);
	}
}

static inline bool
dja_crash_suspected(int64 message_id)
{
	return dja_shared->crashes->suspects > 0 && dja_crash_suspected_slow(message_id);
}

/*
 * Is a crash of a message of this type still to be written down?  unclaimed: one
 * that no worker is writing down.  Needs the lock.
 */
static inline bool
dja_crash_owed(Oid database, uint64 type_hash, bool unclaimed)
{
	return dja_shared->crashes->charges > 0 &&
		dja_crash_owed_slow(database, type_hash, unclaimed);
}

#endif							/* DJA_CRASH_H */
