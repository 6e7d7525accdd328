/*
 * batch.h
 *
 * A worker's batch: claims, one transaction for many messages, and what to do
 * when it aborts.
 */
#ifndef DJA_BATCH_H
#define DJA_BATCH_H

typedef enum DjaBatchResult
{
	DJA_BATCH_EMPTY,			/* nothing to claim */
	DJA_BATCH_DONE,
	DJA_BATCH_STALLED			/* the server is in trouble: wait */
} DjaBatchResult;

extern DjaBatchResult dja_batch_run(int pool);

/*
 * Runs step(arg) in a transaction of its own; false, logged, if that failed.
 * Then dja_had_trouble() is true, once.
 */
extern bool dja_in_transaction(void (*step) (void *arg), void *arg);
extern bool dja_had_trouble(void);

#endif							/* DJA_BATCH_H */
