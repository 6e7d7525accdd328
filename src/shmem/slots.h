/*
 * slots.h
 *
 * Pools and workers in shared memory.
 *
 * A pool is a (database, role) pair that has actor types.  A worker serves one
 * pool, in a session logged in as the pool's role.  One worker of a pool is
 * its resident: it LISTENs, keeps the time, sweeps, and is the one that
 * senders wake.
 *
 * Every function here wants dja_shared->lock held by the caller, unless its
 * comment says otherwise, and none of them raises an error: they may be called
 * from the callback of a committed transaction.
 *
 * Who writes what:
 *   pool.state, rung	the resident; rung also by senders
 *   pool.wanted		workers and senders set it, the launcher clears it
 *   pool.waits_since	who has the launcher rung, while it is 0, and the launcher
 *   pool.failures		the launcher, a worker that has logged in
 *   pool.not_before		they, and a worker that leaves while it stalls
 *   worker.*			the launcher while STARTING, then the worker itself;
 *						message_id, actor_type and since without the lock,
 *						for the eyes of djactor.worker only
 *   scouted			the scout, when it is done
 *   scouting			the launcher, before it sends one and when that has ended
 *   scout_pid			the scout
 *   scout_stop			the launcher clears it, backends set it
 *   worker.stop		the launcher, backends that need the database for themselves, reload()
 *   places_wanted	the launcher
 *   holds			such backends
 */
#ifndef DJA_SLOTS_H
#define DJA_SLOTS_H

#include "datatype/timestamp.h"
#include "storage/latch.h"

#include "shmem/shmem.h"

#define DJA_MAX_POOLS 512
#define DJA_BREATH_MS 2			/* who is idle for less may have mail again
								 * before another worker has started */

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
	bool		rung;			/* this sleep's NOTIFY is under way */
	volatile bool wanted;		/* wants one more worker */
	int			resident;		/* worker slot, -1 = none */
	int			workers;		/* slots taken, starting ones included */
	int			failures;		/* starts in a row that came to nothing */
	TimestampTz not_before;		/* no further start before */
	TimestampTz waits_since;	/* something is to be done, and nobody is
								 * there; 0 = not that anybody knew */
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
	uint32		generation;		/* tells this use of the slot from earlier
								 * ones */
	volatile bool stop;			/* asked to end after its batch */
	volatile bool long_turn;	/* its batch has a turn that takes long */
	volatile bool stalled;		/* it waits for the server to get better */
	TimestampTz since;			/* of the present state */
	TimestampTz serves_since;	/* the end of its first batch, 0 = not yet */
	int			slice_ms;		/* so long it keeps its place from then on, if
								 * it is busy, though others wait */
	TimestampTz stop_seen;		/* when the launcher first knew of stop, 0 =
								 * not yet */
	int64		message_id;		/* being handled, 0 = none */
	char		actor_type[NAMEDATALEN];	/* of that message, cut to fit */
} DjaWorker;

/*
 * A database that a backend needs for itself (to drop, rename, move or copy
 * it): no worker starts there before that backend's transaction has ended.
 */
typedef struct DjaLockout
{
	Oid			database;		/* InvalidOid = free */
	int			procno;
	int			count;			/* commands of that backend that want it */
} DjaLockout;

#define DJA_MAX_LOCKOUTS 64
#define DJA_MAX_SCOUTS 16

struct DjaSlots
{
	int			launcher_procno;	/* -1 = not running */
	volatile bool places_wanted;	/* pools wait: who has no mail rings */
	volatile bool scout_wanted; /* to all databases */
	volatile Oid scout_databases[DJA_MAX_SCOUTS];	/* or to these */
	volatile Oid scout_new[DJA_MAX_SCOUTS]; /* or to these, after a while */
	volatile Oid scouted;		/* where the last scout has been */
	Oid			scouting;		/* where one is sent, or is */
	int			scout_pid;		/* once it is there, else 0 */
	bool		scout_stop;		/* asked to end: somebody needs the database */
	Oid			told_database;	/* of which a scout last said that it stands
								 * still */
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
extern Latch *dja_pool_latch(int pool);
extern bool dja_wake_idle(int pool);
extern bool dja_is_resident(void);
extern int	dja_long_turns(int pool);
extern void dja_wake_pool(int pool);
extern void dja_renew_workers(Oid database, Oid role);
extern bool dja_is_locked_out(Oid database);
extern bool dja_lockout_begin(Oid database);
extern void dja_lockout_end(Oid database);
extern void dja_lockouts_end(void);
extern int	dja_stop_workers(Oid database, int *pids);
extern bool dja_scout_sent(Oid database);
extern bool dja_scout_attach(Oid database);
extern int	dja_stop_scout(Oid database);

/* These take no lock. */
extern void dja_ring_launcher(void);
extern void dja_ring_scout(Oid database);
extern void dja_ring_scout_later(Oid database);

extern DjaWorker *dja_my_worker;	/* NULL in other processes */

#define dja_pool(i) (&dja_shared->slots->pools[i])
#define dja_worker(i) (&dja_shared->slots->workers[i])

#endif							/* DJA_SLOTS_H */
