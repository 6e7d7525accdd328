/*
 * coalesce.h
 *
 * Messages of an actor with the same coalesce key, merged into one at their turn.
 */
#ifndef DJA_COALESCE_H
#define DJA_COALESCE_H

#include "turn/visit.h"

extern DjaReady dja_coalesce(DjaBatch *batch, DjaClaim *claim, DjaMessage *message, TimestampTz now);
extern bool dja_coalesces_with_earlier(DjaClaim *claim, DjaMessage *message);
extern List *dja_coalesced_take(DjaMessage *carrier, bool failed);
extern void dja_coalesce_forget(void);

#endif							/* DJA_COALESCE_H */
