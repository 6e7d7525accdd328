/*
 * remedy.h
 *
 * What follows when a worker's batch was aborted by an error.
 */
#ifndef DJA_REMEDY_H
#define DJA_REMEDY_H

#include "turn/visit.h"

/* How a batch's transaction ended. */
typedef enum DjaOutcome
{
	DJA_COMMITTED,
	DJA_ABORTED,				/* each claim knows what comes next */
	DJA_STALLED					/* likewise, and the server is in trouble */
} DjaOutcome;

extern DjaOutcome dja_batch_failed(DjaBatch *batch, DjaError *error);

#endif							/* DJA_REMEDY_H */
