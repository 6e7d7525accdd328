/*
 * reply.h
 *
 * Answers.  Each ask gets exactly one (contract 18).  Code that ends an ask, by
 * handling, rejecting, cancelling or dropping it, calls one of these functions in
 * the same transaction, once.
 */
#ifndef DJA_REPLY_H
#define DJA_REPLY_H

#include "tables/message.h"

extern void dja_answer(DjaMessage *ask, Datum payload);
extern void dja_answer_error(DjaMessage *ask, Datum error);
extern void dja_answer_failure(DjaMessage *ask, const char *reason, int sqlerrcode, const char *error);
extern void dja_answer_expired(DjaMessage *ask, const char *error);
extern void dja_end_deferred(DjaMessage *ask, const char *reason, const char *error);
extern bool dja_can_answer(DjaMessage *ask);
extern TM_Result dja_expire_deferred(DjaMessage *ask);

#endif							/* DJA_REPLY_H */
