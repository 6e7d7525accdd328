/*
 * shmem.h
 *
 * djactor's piece of shared memory, and the one lock that guards it.
 *
 * dja_shared is NULL if the library was not preloaded; dja_require_preload()
 * raises an error then.  Each part is laid out by its own file: slots.c (pools
 * and workers, lockouts, scouts), run_queue.c (type queues and mailboxes),
 * waiters.c (backends that wait for an answer), stats.c (counters), crash.c
 * (messages whose process crashed), copy_shmem.c (databases whose mail is held),
 * hosts.c (client sessions that run turns, and their claims), progress.c (what turns say) and
 * prepared_xacts.c (what prepared transactions owe the workers).
 */
#ifndef DJA_SHMEM_H
#define DJA_SHMEM_H

#include "storage/lwlock.h"

typedef struct DjaSlots DjaSlots;
typedef struct DjaRunQueue DjaRunQueue;
typedef struct DjaWaiters DjaWaiters;
typedef struct DjaStats DjaStats;
typedef struct DjaCrashes DjaCrashes;
typedef struct DjaCopies DjaCopies;
typedef struct DjaHosts DjaHosts;
typedef struct DjaProgressTable DjaProgressTable;
typedef struct DjaPreparedXacts DjaPreparedXacts;

typedef struct DjaShared
{
	LWLock	   *lock;			/* guards everything below that is not atomic */
	DjaSlots   *slots;
	DjaRunQueue *queue;
	DjaWaiters *waiters;
	DjaStats   *stats;
	DjaCrashes *crashes;
	DjaCopies  *copies;
	DjaHosts   *hosts;
	DjaProgressTable *progress;
	DjaPreparedXacts *prepared;
} DjaShared;

extern DjaShared *dja_shared;

extern void dja_shmem_init(void);
extern void dja_require_preload(void);

/*
 * The contract of the lock, as assertions.  A function that needs it begins with
 * dja_assert_locked().  dja_lock() asserts that its caller does not hold it yet.
 * What may last, wait or raise an error begins with dja_assert_unlocked(), which
 * may be called before shared memory is there.
 */
#define dja_assert_locked() Assert(LWLockHeldByMeInMode(dja_shared->lock, LW_EXCLUSIVE))
#define dja_assert_unlocked() Assert(dja_shared == NULL || !LWLockHeldByMe(dja_shared->lock))

#define dja_lock() \
	do { \
		dja_assert_unlocked(); \
		LWLockAcquire(dja_shared->lock, LW_EXCLUSIVE); \
	} while (0)
#define dja_unlock() LWLockRelease(dja_shared->lock)

#endif							/* DJA_SHMEM_H */
