/*
 * send.h
 *
 * Sending; see send.c.
 */
#ifndef DJA_SEND_H
#define DJA_SEND_H

#include "executor/tuptable.h"
#include "tables/actor_type.h"

/*
 * Raises 22023 if a key is empty or too long.  what names the key in the error.
 */
extern void dja_check_key(text *key, const char *what);

/*
 * For rows of djactor.message in a minimal slot.
 */
extern DjaType *dja_check_sent(TupleTableSlot *slot, DjaType **last);
extern void dja_note_sent(TupleTableSlot *slot, DjaType **last, CommandId cid, bool limited);

#endif							/* DJA_SEND_H */
