/*
 * watch.h
 *
 * Watches between actors, and what watchers are told.
 */
#ifndef DJA_WATCH_H
#define DJA_WATCH_H

#include "tables/actor_type.h"

extern void dja_watchers_tell(DjaType *type, text *key, const char *reason, bool over);
extern void dja_watchers_tell_dropped(DjaType *type);
extern void dja_watches_drop(DjaType *type, text *key);

#endif							/* DJA_WATCH_H */
