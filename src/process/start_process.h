/*
 * start_process.h
 *
 * Starts djactor's background processes.  Called by the launcher alone.
 */
#ifndef DJA_START_PROCESS_H
#define DJA_START_PROCESS_H

#include "catalog/pg_database.h"
#include "postmaster/bgworker.h"
#include "utils/timestamp.h"

extern void dja_process_describe(BackgroundWorker *worker, const char *function, const char *name,
								 int restart_time);
extern bool dja_database_open(Form_pg_database database);
extern bool dja_database_is_open(Oid database);
extern bool dja_start_process(const char *function, const char *name, Datum arg,
							  uint32 generation, bool leaving, BackgroundWorkerHandle **handle);
extern TimestampTz dja_process_not_before(void);
extern bool dja_process_reap(BackgroundWorkerHandle **handle);

#endif							/* DJA_START_PROCESS_H */
