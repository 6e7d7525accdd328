/*
 * actor_type.h
 *
 * Kinds of actors, cached in each session.
 *
 * A DjaType stays at its address for the life of the session.  Its contents are
 * read again from djactor.actor_type at the first lookup after the table has
 * changed.  So a caller that needs the present contents looks the type up again.
 * Options are checked when a type is defined, so the contents are valid.
 */
#ifndef DJA_ACTOR_TYPE_H
#define DJA_ACTOR_TYPE_H

#include "storage/lockdefs.h"
#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "shmem/rates.h"
#include "shmem/stats.h"
#include "tables/tenant_value.h"
#include "tables/rows.h"

struct DjaHandler;

typedef struct DjaType
{
	uint64		hash;			/* key of the cache */
	bool		exists;
	bool		seen;			/* by the present reload */
	uint32		generation;		/* of the cache when it was read */
	ItemPointerData tid;
	MemoryContext context;		/* of what the entry points to */
	char	   *name;			/* as text, without header */
	int			name_len;
	char	   *handler;		/* of a hosted type its hosts' business; NULL
								 * = none */
	bool		hosted;			/* its turns run outside the server: host.h */
	bool		stateless;		/* its turns leave no state */
	int64		idle_ttl;		/* microseconds without a turn, after which an
								 * actor stops; 0 = never */
	Oid			owner;
	Oid			handler_owner;
	Datum		initial_state;
	int			state_version;
	char	   *upgrade_handler;	/* NULL = none */
	int			max_attempts;
	int64		backoff;		/* microseconds */
	int64		backoff_max;
	bool		skip;			/* retry_order: others overtake a failed
								 * message */
	bool		suspend;		/* on_exhausted: the actor is suspended */
	int			handler_timeout;	/* ms, 0 = none */
	int			batch_size;		/* 0 = djactor.batch_size */
	int			concurrency;	/* 0 = no limit */
	DjaRateOption rate;			/* of its turns */
	DjaBy		by;				/* rate_by or fair_by */
	int			mailbox_limit;	/* 0 = no limit */
	bool		full_dead_letter;	/* on_full: dead_letter instead of raise */
	int			breaker_failures;	/* 0 = no breaker */
	int64		breaker_window; /* microseconds */
	int64		journal;		/* microseconds, -1 = none */
	Jsonb	   *settings;		/* that its turns see: an object of strings */
	uint64		settings_hash;	/* of them, not 0 */
	bool		paused;
	char	   *problem;		/* why its mail waits; NULL = it does not */

	struct DjaHandler *call;	/* handler.c's, NULL until resolved */
	struct DjaHandler *upgrade; /* likewise, of upgrade_handler */
	DjaStatOfType stat;			/* its counters in this process */
	int			savepoints;		/* visit.c: turns that still get one */
	int64		turn_usec;		/* visit.c: how long a turn takes, roughly */
} DjaType;

static inline bool
dja_type_is_named(const DjaType *type, const text *name)
{
	return (int) VARSIZE_ANY_EXHDR(name) == type->name_len &&
		memcmp(VARDATA_ANY(name), type->name, type->name_len) == 0;
}

extern void dja_types_init(void);
extern void dja_types_outdate(Oid relid);
extern DjaType *dja_require_type(text *name);
extern DjaType *dja_type_lookup(const char *name, int len);
extern DjaType *dja_type_by_hash(uint64 hash);
extern bool dja_types_know(uint64 epoch);
extern bool dja_type_is_current(DjaType *type, uint32 generation);
extern bool dja_type_paused_now(DjaType *type);
extern List *dja_types_all(void);
extern void dja_types_reload(void);
extern void dja_type_changed(void);
extern void dja_type_lock(uint64 hash, LOCKMODE lockmode);
extern bool dja_type_try_lock(uint64 hash);
extern void dja_type_set_problem(DjaType *type, const char *problem);
extern bool dja_type_pause(DjaType *type, const char *reason);
extern char *dja_interval_string(int64 usec);
extern void dja_type_read_row(DjaType *type, Datum *values, bool *nulls);

#endif							/* DJA_ACTOR_TYPE_H */
