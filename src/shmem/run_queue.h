/*
 * run_queue.h
 *
 * Mailboxes with due mail, in shared memory.
 *
 * The tables are the truth about what waits.  The run queue is a hint about it,
 * so that no worker searches the tables for work.  It also holds the claims,
 * which keep two workers out of one mailbox.
 *
 * A type queue is an actor type as the queue knows it.  A mailbox belongs to a
 * type queue and is identified by the hash of its actor's key.  Two keys with the
 * same hash share a mailbox, which costs them some parallelism and nothing else.
 * Its states:
 *
 *             push                 pop                 finish: empty
 *   (absent) ------> QUEUED ----------------> RUNNING -----------------> (absent)
 *      |               ^  ^                     |  |  |
 *      | announce      |  | remaining, returned |  |  | finish: retry, or announced
 *      v               |  +---------------------+  |  v
 *   WAITING -----------+<--------------------------|- WAITING
 *             push     |                           | finish: put off
 *                      +--------- PUT_OFF <--------+
 *                       its time is over
 *
 * Workers claim a mailbox when its turn comes, and none ahead of that, so a long
 * turn does not delay other mailboxes.  Those of a type queue are claimed in the
 * order in which they were queued, and those of a stateless type by the priority of
 * their first message before that.  One that is given back untouched returns to
 * the front; one that was served goes to the end.  A mailbox is put off while
 * another transaction has locked one of djactor's rows that its turn would write.
 * No table can record that, so it is remembered here.  A mailbox that is queued may
 * stand BEHIND others of its tenant (tenants.h), or be put off for the tenant's rate.
 *
 * There is not always room for all mailboxes with due mail.  Then some wait for a
 * sweep; room.h says which.
 *
 * The cursor of a mailbox is a position (see dja_position) below which it is
 * known to hold no deliverable message, so that a worker need not walk over the
 * dead rows of messages handled before.  A sender announces its positions before
 * its rows become visible, and pushes them afterwards.  The claimer takes the
 * cursor and leaves DJA_CURSOR_END (unless an announcement is open).  Then it
 * takes its snapshot.  Then it reads what was pushed since, which also stays for
 * the next claim.  So all messages that the snapshot sees are at or above the lower
 * of the two, and those that it does not see are still to be read.  In some cases
 * that cannot be known: a sweep of the type queue is wanted or under way, or an
 * overflow is announced (a transaction with too many mailboxes to name).  Then
 * the cursor reads DJA_CURSOR_START.
 *
 * Every function here needs dja_shared->lock, asserts it, and raises no error,
 * since it is called from the callbacks of committed transactions.  Some take
 * the lock themselves, or need none; their comments say so.
 */
#ifndef DJA_RUN_QUEUE_H
#define DJA_RUN_QUEUE_H

#include "datatype/timestamp.h"

#include "base/columns.h"
#include "shmem/pace.h"
#include "shmem/shmem.h"
#include "shmem/slots.h"
#include "shmem/tenants.h"
#include "shmem/trouble.h"

#define DJA_MAX_TYPE_QUEUES 4096
#define DJA_BREAKER_PARTS 8		/* of a type's breaker_window */
#define DJA_NEVER DT_NOEND		/* next_due of a type queue with no delay or
								 * retry */
#define DJA_CURSOR_START PG_INT64_MIN
#define DJA_CURSOR_END PG_INT64_MAX

#define DJA_NO_TYPE_QUEUE (-1)	/* instead of the index of a type queue */
#define DJA_NO_MAILBOX (-1)		/* instead of the index of a mailbox */

/* What dja_queue_announce returns, and dja_queue_push takes, instead of a mailbox. */
#define DJA_OVERFLOW (-1)		/* no room: the type queue counts it */
#define DJA_NOT_ANNOUNCED (-2)	/* a push by the sweep, the timekeeper, an
								 * operator */

/* What dja_queue_claim returns instead of a mailbox. */
#define DJA_CLAIM_RUNNING (-1)	/* another backend runs it */
#define DJA_CLAIM_NO_ROOM (-2)

#define DJA_MAX_RANKS 16		/* priorities that a type queue tells apart at
								 * the same moment */

#define DJA_HOSTED_PROC (-2)	/* instead of a claimer: a host has it */
#define DJA_ENDS_MAX 15			/* mailbox.ends counts no further */

/* Instead of a number of messages. */
#define DJA_NOT_COUNTED (-1)	/* nobody has counted */
#define DJA_DEPTH_UNKNOWN (-2)	/* what has been counted is not so any more */

/* The queued mailboxes of one priority, in a type queue that goes by priority. */
typedef struct DjaRank
{
	int			tail;			/* its last mailbox */
	int16		priority;
} DjaRank;

/* A point in the order of keys: behind this one, or before all keys. */
typedef struct DjaSweepPoint
{
	bool		behind;
	uint64		key_hash;
} DjaSweepPoint;

typedef struct DjaTypeQueue
{
	bool		in_use;
	Oid			database;
	uint64		type_hash;
	int			pool;
	int			next_in_pool;

	/* from the type's definition */
	int			concurrency;	/* 0 = no limit */
	int			batch_size;		/* turns that may share a transaction with one
								 * of these; 0 = no limit */
	DjaPace		pace;			/* the limits as conflicts lower them */
	DjaRate		rate;			/* of turns; see rates.h */
	bool		rate_by;		/* it counts for each tenant, see tenants.h */
	TimestampTz spent_until;	/* it has had its turns; 0 = it has not */
	bool		hosted;			/* hosts take its mail, workers do not */
	bool		ring_hosts;		/* a waiting host is to be told of its mail */
	bool		hosts_told;		/* a NOTIFY for that is under way */
	uint64		times_queued;	/* mailboxes that were queued for hosts, so
								 * far */

	bool		by_priority;	/* the list is ordered by priority first */
	int			nranks;			/* if so: none of them is empty */
	DjaRank		ranks[DJA_MAX_RANKS];	/* highest priority first */

	uint64		epoch;			/* queue->changes at the type's last change */
	bool		blocked;		/* paused, or its handler cannot be called */
	TimestampTz recheck_at;		/* when blocked: when to try again */

	DjaMailboxList queued;		/* first in first out, but for by_priority */
	int			behind;			/* queued behind others of their tenants */
	DjaMailboxList put_off;
	TimestampTz put_off_due;	/* when the first of them comes back */
	int			workers;		/* workers with a mailbox of this type queue;
								 * if hosted, claims of hosts */
	int			mailboxes;		/* in any state */

	int			overflows;		/* overflows announced, not yet over */
	bool		sweep_wanted;
	bool		sweeping;
	DjaSweepPoint sweep_began;	/* where the sweep began */
	DjaSweepPoint sweep_at;		/* which point it has reached */
	bool		sweep_wrapped;	/* it has come to the last key, and gone on
								 * with the first */
	bool		sweep_refused;	/* it has passed over mail, see room.h ... */
	DjaSweepPoint sweep_refused_at; /* ... first here */
	int64		sweep_usec;		/* that it has taken so far */
	int			sweep_refill;	/* the next one begins when fewer mailboxes
								 * are left, ... */
	TimestampTz sweep_pause_until;	/* ... or then */
	bool		crowded;		/* there are, or may be, more mailboxes with
								 * due mail than it has room for: those in no
								 * tenant */
	bool		tenants_crowded;	/* some of them are */
	int			largest_tenant; /* of those that have grown: the one with most
								 * mailboxes, or DJA_NO_TENANT */

	TimestampTz next_due;		/* earliest delay or retry not yet handled */
	TimestampTz due_not_before; /* the last look failed: wait until then */
	TimestampTz idle_due;		/* when to look for actors that are idle for
								 * their type's idle_ttl */

	TimestampTz history_from;	/* the minute since which the type's history
								 * lacks something; DJA_NEVER = it has all */

	int64		failure_part;	/* breaker.c: the latest part of the window */
	uint32		failures[DJA_BREAKER_PARTS];	/* failed attempts in each */
} DjaTypeQueue;

typedef enum DjaMailboxState
{
	DJA_MAILBOX_FREE,
	DJA_MAILBOX_WAITING,
	DJA_MAILBOX_QUEUED,
	DJA_MAILBOX_RUNNING,
	DJA_MAILBOX_PUT_OFF,
	DJA_MAILBOX_BEHIND			/* QUEUED behind others of its tenant */
} DjaMailboxState;

typedef struct DjaMailbox
{
	uint64		key_hash;
	int64		cursor;			/* lowered by every push */
	int64		claimed_cursor; /* the cursor at the time of the claim */
	int			type_queue;
	int			hash_next;
	int			list_next;		/* in the list that it is in, or in the free
								 * list */
	int			list_prev;
	int			claimer;		/* procno of the backend that runs it,
								 * DJA_HOSTED_PROC or DJA_NO_PROC */
	int			claim_index;	/* its index in that backend's list */
	int			depth;			/* messages waiting, or DJA_NOT_COUNTED */
	TimestampTz not_before;		/* when put off: until then */
	uint16		announced;		/* transactions between announce and push */
	uint16		put_offs;		/* in a row, so far */
	uint16		run_alone;		/* so many of its messages are run alone */
	uint8		state:4;
	uint8		ends:4;			/* workers that were ended with it, or hosts
								 * that died, in a row */
	bool		more;			/* pushed while running */
	int16		priority;		/* when queued by priority: that of its rank */
	int16		died_with;		/* index of the host that died with it last,
								 * or -1 */
	int16		tenant;			/* or DJA_NO_TENANT */
	bool		spent;			/* put off since its tenant has had its turns */
} DjaMailbox;

/*
 * A pool's walk over the actors of one type, in search of idle ones: idle.c.  It
 * stands here so that the next resident goes on where the last one has stopped.
 */
typedef struct DjaIdleWalk
{
	uint64		type_hash;		/* 0 = none is under way */
	TimestampTz began;
	TimestampTz oldest;			/* last turn of those that go on living;
								 * DT_NOEND = none seen */
	int64		usec;			/* that it has taken so far */
	bool		kept;			/* it has met an idle actor that has to go on
								 * living */
	uint16		key_len;		/* 0 = it is at its beginning */
	char		key[DJA_KEY_MAX];	/* of the last actor that it has met */
} DjaIdleWalk;

struct DjaRunQueue
{
	uint64		changes;		/* of actor types, so far; the latest epoch */
	int			size;			/* of mailboxes[] */
	int			nbuckets;		/* power of two */
	int			free_head;
	int			free_count;
	int			clock;			/* where eviction continues its search */
	int			largest;		/* of the type queues that have grown: the one
								 * with most mailboxes */
	DjaTrouble	trouble;
	int			drained;		/* claimed by backends that drain, until their
								 * transactions end */
	int			pool_type_queues[DJA_MAX_POOLS];	/* first type queue of
													 * each pool, or
													 * DJA_NO_TYPE_QUEUE */
	int			pool_rotor[DJA_MAX_POOLS];	/* type queue whose turn it is */
	DjaIdleWalk pool_idle_walks[DJA_MAX_POOLS];
	DjaTypeQueue type_queues[DJA_MAX_TYPE_QUEUES];
	DjaWindow	windows[DJA_MAX_TYPE_QUEUES];	/* of those with a rate */
	DjaTenant	tenants[DJA_MAX_TENANTS];
	/* then int buckets[nbuckets], DjaMailbox mailboxes[size] */
};

/* How a worker leaves a mailbox. */
typedef enum DjaClaimEnd
{
	DJA_END_EMPTY,				/* nothing deliverable left */
	DJA_END_REMAINING,			/* more to do, from the cursor on */
	DJA_END_RETURNED,			/* nothing was done: as if it had not been
								 * claimed */
	DJA_END_PUT_OFF,			/* another transaction has locked a row */
	DJA_END_RETRY,				/* waits for the retry of the message at the
								 * cursor */
	DJA_END_DROPPED				/* the type queue is blocked: the sweep finds
								 * it again */
} DjaClaimEnd;

extern Size dja_run_queue_bytes(void);
extern void dja_run_queue_setup(void *memory);

/* type queues: type_queues.c */
extern int	dja_type_queue_find(Oid database, uint64 type_hash);
extern int	dja_type_queue_slot(Oid database, uint64 type_hash);
extern int	dja_type_queue_create(Oid database, uint64 type_hash, int pool);
extern void dja_type_queue_move(int type_queue, int pool);
extern void dja_type_queue_free(int type_queue);
extern void dja_type_queues_forget(Oid database);
extern void dja_type_queues_sweep(Oid database);
extern void dja_type_queue_block(int type_queue, uint64 epoch, TimestampTz recheck_at);
extern void dja_type_queue_unblock(int type_queue);
extern void dja_type_queue_forgive(int type_queue);
extern uint64 dja_queue_changes(void);
extern int	dja_pool_type_queue_count(int pool);
extern int	dja_type_queue_put_off(int type_queue, Oid database, uint64 *type_hash, DjaMailbox *mailboxes, int room);
extern void dja_type_queue_order(int type_queue, bool by_priority);
extern bool dja_type_queue_unbounded(DjaTypeQueue *type_queue);

/* senders: run_queue.c */
extern int	dja_queue_announce(int type_queue, uint64 key_hash, int64 position, uint64 tenant_value);
extern void dja_queue_overflow_over(int type_queue);
extern void dja_queue_push(int type_queue, int mailbox, uint64 key_hash, int64 position, int depth, int base_depth,
						   uint64 tenant_value);
extern int	dja_queue_depth(int type_queue, uint64 key_hash);

/* workers: claims.c */
extern bool dja_type_queue_busy(int type_queue);
extern bool dja_queue_has_work(int pool, bool resident, TimestampTz now);
extern int	dja_queue_length(int pool);
extern bool dja_queue_wants_help(int pool);
extern int	dja_queue_pop(int pool, int turns, TimestampTz now, int *limit);
extern int	dja_queue_claim(int type_queue, uint64 key_hash);
extern int64 dja_queue_read_cursor(int mailbox);
extern void dja_queue_finish(int mailbox, DjaClaimEnd end, int64 cursor, int removed, int run_alone);
extern void dja_queue_note(int type_queue, DjaPaceEvent event);
extern void dja_queue_leave_type_queues(int turns, TimestampTz started, TimestampTz now);
extern void dja_release_claims(void);
extern TimestampTz dja_queue_next_due(int pool, TimestampTz now);
extern void dja_queue_orphan(int pool, bool orderly);

/* Counts of a type queue: none of them is ever below 0. */
#define dja_assert_type_queue_counts(type_queue) \
	Assert((type_queue)->queued.length >= 0 && (type_queue)->queued.length <= (type_queue)->mailboxes && \
		   (type_queue)->workers >= 0 && (type_queue)->overflows >= 0)

#define dja_type_queue(i) (&dja_shared->queue->type_queues[i])
#define dja_mailbox(i) (&dja_queue_mailboxes(dja_shared->queue)[i])

static inline DjaMailbox *
dja_queue_mailboxes(DjaRunQueue *queue)
{
	return (DjaMailbox *) ((char *) queue + MAXALIGN(sizeof(DjaRunQueue)) +
						   MAXALIGN(sizeof(int) * (Size) queue->nbuckets));
}

/*
 * Returns the position of a message in its mailbox: highest priority first, then
 * lowest id.  The lower 48 bits hold the id, which the identity's MAXVALUE
 * guarantees; the complement of the priority is above them.
 */
static inline int64
dja_position(int16 priority, int64 id)
{
	return (int64) (((uint64) (int64) ~priority) << 48) | id;
}

/*
 * Returns the priority of a position.
 */
static inline int16
dja_position_priority(int64 position)
{
	return (int16) ~(position >> 48);
}

/*
 * Returns where the next lower priority begins.
 */
static inline int64
dja_position_below(int64 position)
{
	int64		below = (position >> 48) + 1;

	return below > PG_INT16_MAX ? DJA_CURSOR_END : (int64) ((uint64) below << 48);
}

#endif							/* DJA_RUN_QUEUE_H */
