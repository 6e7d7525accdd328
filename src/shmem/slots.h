/*
 * slots.h
 *
 * Pools and workers in shared memory.
 *
 * A pool is a (database, role) pair that has actor types.  A worker serves one
 * pool, in a session logged in as the pool's role.  One worker of a pool is its
 * resident: it LISTENs, handles delays and sweeps, and is the one that senders
 * wake.
 *
 * Every function here needs dja_shared->lock and asserts it, unless its comment
 * says otherwise.
 * None raises an error, since they may be called from the callback of a committed
 * transaction.
 *
 * Written by (dja_assert_launcher and dja_assert_worker check it):
 *   pool.state, rung	the resident; rung also by senders
 *   pool.wanted		workers and senders set it, the launcher clears it
 *   pool.waits_since	a process that rings the launcher, while it is 0, and the launcher
 *   pool.failures		the launcher, a worker that has logged in or was asked
 *						to end before
 *   pool.not_before		they, and a worker that leaves while it stalls
 *   worker.*			the launcher while STARTING, then the worker itself;
 *						message_id, actor_type and since without the lock,
 *						only to be shown by djactor.worker
 *	worker.cancel_id	sessions that cancel a message; the worker clears it when
 *						a turn begins
 *   scouted			the scout, when it is done; the launcher, before it sends one
 *   scouting			the launcher, before it sends one and when that has ended
 *   scout_pid			the scout
 *   scout_stop			the launcher clears it, backends set it
 *   worker.stop		the launcher, backends with a lockout, reload()
 *   places_wanted		the launcher
 *   lockouts			backends that need a database for themselves
 */
#ifndef DJA_SLOTS_H
#define DJA_SLOTS_H

#include "datatype/timestamp.h"
#include "storage/latch.h"
#include "storage/proc.h"

#include "base/compat.h"
#include "shmem/shmem.h"

#define DJA_MAX_POOLS 512
#define DJA_BREATH_MS 2			/* a worker idle for less may have mail again
								 * before another one has started */

#define DJA_NO_POOL (-1)		/* instead of the index of a pool */
#define DJA_NO_SLOT (-1)		/* instead of the slot of a worker */
#define DJA_NO_PROC (-1)		/* instead of an index of the proc array */
#define dja_wake(procno) SetLatch(&ProcGlobal->allProcs[procno].procLatch)

typedef enum DjaPoolState
{
	DJA_POOL_ABSENT,			/* no resident: ring the launcher */
	DJA_POOL_BUSY,				/* the resident looks again before it waits */
	DJA_POOL_LINGERING,			/* idle for less than a second: set its latch */
	DJA_POOL_ASLEEP				/* NOTIFY djactor wakes it */
} DjaPoolState;

typedef struct DjaPool
{
	bool		in_use;
	Oid			database;
	Oid			role;
	DjaPoolState state;
	bool		rung;			/* a NOTIFY for this sleep is under way */
	volatile bool wanted;		/* wants one more worker */
	int			resident;		/* worker slot, or DJA_NO_SLOT */
	int			workers;		/* slots taken, starting ones included */
	int			failures;		/* failed starts in a row */
	TimestampTz not_before;		/* no further start before */
	TimestampTz waits_since;	/* since when there is something to do and no
								 * worker; 0 = not known */
} DjaPool;

typedef enum DjaWorkerState
{
	DJA_WORKER_FREE,
	DJA_WORKER_STARTING,
	DJA_WORKER_IDLE,
	DJA_WORKER_BUSY
} DjaWorkerState;

typedef struct DjaWorker
{
	DjaWorkerState state;
	int			pool;
	int			pid;
	int			procno;
	uint32		generation;		/* distinguishes this use of the slot from
								 * earlier ones */
	volatile bool stop;			/* asked to end after its batch */
	volatile bool long_turn;	/* its batch is in a long turn */
	volatile bool stalled;		/* it waits for the server's trouble to end */
	TimestampTz since;			/* of the present state */
	TimestampTz serves_since;	/* the end of its first batch, 0 = not yet */
	int			slice_ms;		/* how long a busy worker keeps its place from
								 * then on, while others wait */
	TimestampTz stop_seen;		/* when the launcher first noticed stop, 0 =
								 * not yet */
	int64		message_id;		/* being handled, 0 = none */
	volatile int64 cancel_id;	/* the message whose turn is to be broken off */
	char		actor_type[NAMEDATALEN];	/* of that message, cut to fit */
} DjaWorker;

/*
 * A database that a backend needs for itself (to drop, rename, move or copy it).
 * No worker starts there before that backend's transaction has ended.
 */
typedef struct DjaLockout
{
	Oid			database;		/* InvalidOid = free */
	int			procno;
	int			count;			/* commands of that backend that need it */
} DjaLockout;

#define DJA_MAX_LOCKOUTS 64
#define DJA_MAX_SCOUTS 16

struct DjaSlots
{
	int			launcher_procno;	/* DJA_NO_PROC = not running */
	volatile bool places_wanted;	/* pools wait: a worker without mail rings */
	volatile bool scout_wanted; /* to be sent to all databases */
	volatile Oid scout_databases[DJA_MAX_SCOUTS];	/* or to these */
	volatile Oid scout_new[DJA_MAX_SCOUTS]; /* or to these, after a while */
	volatile Oid scouted;		/* where the last scout has been */
	Oid			scouting;		/* the database to which one was sent */
	int			scout_pid;		/* once it is there, else 0 */
	bool		scout_stop;		/* asked to end: a backend needs the database */
	Oid			told_database;	/* the database of which a scout last logged
								 * that it stands still */
	int			told;			/* ... and why */
	TimestampTz told_at;
	DjaLockout	lockouts[DJA_MAX_LOCKOUTS];
	DjaPool		pools[DJA_MAX_POOLS];
	DjaWorker	workers[FLEXIBLE_ARRAY_MEMBER];
};

extern Size dja_slots_size(void);
extern void dja_slots_setup(void *memory);

extern int	dja_pool_find(Oid database, Oid role, bool create);
extern void dja_pool_free(int pool);
extern bool dja_wake_idle(int pool);
extern bool dja_is_resident(void);
extern int	dja_long_turns(int pool);
extern bool dja_worker_cancel(Oid database, int64 message_id);
extern void dja_wake_pool(int pool);
extern int	dja_stop_workers(Oid database, Oid role, int *pids);
extern void dja_ring_launcher(void);	/* takes no lock */

/* lockouts.c */
extern bool dja_is_locked_out(Oid database);
extern bool dja_lockout_begin(Oid database);
extern void dja_lockout_end(Oid database);
extern void dja_lockouts_end(void);

/* scout_booking.c; to ring takes no lock */
extern bool dja_scout_sent(Oid database);
extern bool dja_scout_attach(Oid database);
extern int	dja_stop_scout(Oid database);
extern void dja_ring_scout(Oid database, bool later);

extern DjaWorker *dja_my_worker;	/* NULL in other processes */

#define dja_pool(i) (&dja_shared->slots->pools[i])
#define dja_worker(i) (&dja_shared->slots->workers[i])

/* This process is the launcher; it is the worker whose slot dja_my_worker is. */
#define dja_assert_launcher() Assert(dja_shared->slots->launcher_procno == dja_my_procno())
#define dja_assert_worker() Assert(dja_my_worker != NULL && dja_my_worker->pid == MyProcPid)

/* Slots taken by workers of a pool: as many as there are places, at most. */
#define dja_assert_pool_counts(pool) \
	Assert((pool)->in_use && (pool)->workers >= 0 && (pool)->workers <= dja_max_workers)

#endif							/* DJA_SLOTS_H */
