/*
 * drain.h
 *
 * The parts of drain() that drain_take() shares: which mailboxes have due mail, and the
 * clock.  Both begin with dja_drain_begin(), and end with dja_drain_end(), or with
 * dja_drain_failed() after an error.
 */
#ifndef DJA_DRAIN_H
#define DJA_DRAIN_H

#include "tables/actor_type.h"
#include "xact/drain_agenda.h"

/* Has this round done anything that others may have to follow up?  When did it begin? */
extern bool dja_drain_progress;
extern TimestampTz dja_drain_round;

extern void dja_drain_check(int64 max, TimestampTz until, const char *on_error);
extern void dja_drain_limit(text *type, text *key);
extern void dja_drain_begin(void);
extern void dja_drain_end(void);
extern void dja_drain_failed(void);
extern bool dja_drain_serves(DjaType *type, bool hosted);
extern bool dja_drain_advance(TimestampTz until, bool hosted);
extern uint64 *dja_drain_keys(DjaType *type, int *n);
extern bool dja_drain_take_item(DjaType *type, uint64 key_hash, DjaAgendaItem *item);
extern int	dja_drain_claim(DjaType *type, uint64 key_hash, int (*claim) (int type_queue, uint64 key_hash));

#endif							/* DJA_DRAIN_H */
