/*
 * worker.h
 *
 * The worker: a background process that serves one pool.
 */
#ifndef DJA_WORKER_H
#define DJA_WORKER_H

#include "miscadmin.h"

extern PGDLLEXPORT void dja_worker_main(Datum arg);

/* Background processes of all kinds set these up alike. */
extern void dja_process_signals(void);

/* Interrupts between batches, where there is nothing to cancel. */
#define dja_check_interrupts() \
	do { QueryCancelPending = false; CHECK_FOR_INTERRUPTS(); } while (0)

#endif							/* DJA_WORKER_H */
