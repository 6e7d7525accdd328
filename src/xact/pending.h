/*
 * pending.h
 *
 * Collects what a transaction owes the workers when it commits: mailboxes to
 * push, delays to watch for, types that have changed.  It is collected while the
 * transaction runs, announced in its pre-commit, delivered after its commit, and
 * forgotten when it aborts.
 */
#ifndef DJA_PENDING_H
#define DJA_PENDING_H

#include "tables/actor_type.h"

extern void dja_pending_mailbox(DjaType *type, uint64 key_hash, int64 position, int count);
extern void dja_pending_tenant(DjaType *type, uint64 key_hash, const Datum *values, const bool *nulls);
extern void dja_pending_due(DjaType *type, TimestampTz due);
extern void dja_pending_type(uint64 type_hash, Oid owner);
extern int	dja_pending_count(DjaType *type, uint64 key_hash, int *base_depth, bool *recount);
extern int64 dja_pending_position(uint64 type_hash, uint64 key_hash);
extern void dja_pending_set_base_depth(DjaType *type, uint64 key_hash, int base_depth);
extern void dja_pending_recount(DjaType *type, uint64 key_hash);
extern void dja_pending_command(DjaType *type, uint64 key_hash, CommandId command);
extern int	dja_pending_counted(DjaType *type, uint64 key_hash, int depth);
extern void dja_pending_undone(void);
extern bool dja_pending_any(void);
extern void dja_pending_scout(Oid database);
extern void dja_pending_created(Oid database);
extern void dja_pending_renew(Oid database, Oid role);
extern void dja_pending_stop_type_queue(DjaType *type);

/*
 * Returns the type queue of a type, and makes it if need be; DJA_NO_TYPE_QUEUE
 * without room. Needs the lock.
 */
extern int	dja_ensure_type_queue(Oid database, uint64 type_hash, Oid owner);

#endif							/* DJA_PENDING_H */
