/*
 * worker.h
 *
 * The worker: a background process that serves one pool.
 */
#ifndef DJA_WORKER_H
#define DJA_WORKER_H

#include "fmgr.h"

extern PGDLLEXPORT void dja_worker_main(Datum arg);

/* Background processes of all kinds set these up alike. */
extern void dja_process_signals(void);

#endif							/* DJA_WORKER_H */
