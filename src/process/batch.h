/*
 * batch.h
 *
 * A worker's batch: claims, and one transaction for many messages.
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

#endif							/* DJA_BATCH_H */
