/*
 * type_change.h
 *
 * Changing rows of djactor.actor_type; see type_change.c.
 */
#ifndef DJA_TYPE_CHANGE_H
#define DJA_TYPE_CHANGE_H

#include "tables/actor_type.h"

/*
 * Returns the type of a name for a function that changes it, or its actors.
 * Raises 42704 if there is none, 42501 if the user may not act for its owner,
 * 25006 in a read-only transaction and 55000 without the preload.
 */
extern DjaType *dja_require_own_type(text *name, const char *function);

/*
 * Between these two no other session changes types.  A type that was looked up
 * before begin has to be looked up again after it.  end tells the workers of the
 * type, at the commit.
 */
extern DjaWriter *dja_begin_type_change(void);
extern void dja_end_type_change(DjaWriter *writer, uint64 hash, Oid owner);

#endif							/* DJA_TYPE_CHANGE_H */
