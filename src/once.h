/*
 * once.h
 *
 * Idempotency keys: what was handled with which key, per actor.
 */
#ifndef DJA_ONCE_H
#define DJA_ONCE_H

#include "mailbox.h"

extern bool dja_once_is_duplicate(DjaType *type, DjaMessage *message);
extern void dja_once_complete(DjaMessage *message, bool answered, Datum reply, Datum error);
extern void dja_once_answered(DjaMessage *ask, Datum reply, Datum error, Datum meta, bool keep);

#endif							/* DJA_ONCE_H */
