/*
 * waiters.h
 *
 * Backends that wait for the answer to an ask, in shared memory.  The session
 * that answers wakes them after its commit.
 */
#ifndef DJA_WAITERS_H
#define DJA_WAITERS_H

#include "shmem/shmem.h"

/* An ask from outside that was answered, and the subtransaction that did so. */
typedef struct DjaAnswer
{
	int64		message_id;
	SubTransactionId subid;
} DjaAnswer;

extern Size dja_waiters_size(void);
extern void dja_waiters_setup(void *memory);
extern void dja_wait_for(int64 message_id);
extern void dja_wait_over(void);
extern void dja_wake_waiters(const DjaAnswer *answers, int n);

#endif							/* DJA_WAITERS_H */
