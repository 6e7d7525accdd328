/*
 * idempotency.h
 *
 * Idempotency keys: which keys of an actor's messages were handled, and how the
 * messages were answered.
 */
#ifndef DJA_IDEMPOTENCY_H
#define DJA_IDEMPOTENCY_H

#include "tables/message.h"

extern bool dja_idempotency_is_duplicate(DjaType *type, DjaMessage *message);
extern void dja_idempotency_complete(DjaMessage *message, bool answered, Datum reply, Datum error);
extern void dja_idempotency_answer_duplicates(DjaMessage *ask, Datum reply, Datum error,
											  const char *reason, const char *failure);
extern void dja_idempotency_ended(DjaMessage *ask, const char *reason, const char *error);

#endif							/* DJA_IDEMPOTENCY_H */
