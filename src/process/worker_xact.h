/*
 * worker_xact.h
 *
 * A worker's transactions.  Needs a worker, outside a transaction.
 */
#ifndef DJA_WORKER_XACT_H
#define DJA_WORKER_XACT_H

#include "turn/visit.h"

/* of a batch */
extern void dja_transaction_start(DjaBatch *batch);
extern void dja_transaction_commit(DjaBatch *batch);
extern DjaError *dja_recover(MemoryContext context);

/* of another duty */
extern bool dja_in_transaction(void (*step) (void *arg), void *arg);
extern bool dja_try_in_transaction(void (*step) (void *arg), void *arg);
extern bool dja_had_trouble(void);

#endif							/* DJA_WORKER_XACT_H */
