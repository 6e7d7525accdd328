/*
 * history.h
 *
 * Keeps djactor.stat_history.  For a pool's resident, outside a transaction.
 */
#ifndef DJA_HISTORY_H
#define DJA_HISTORY_H

#include "datatype/timestamp.h"

/* when dja_history_write() has something to do; needs the lock */
extern TimestampTz dja_history_due(int pool, TimestampTz now);

/* does a piece of what is due; returns true if there is more to do */
extern bool dja_history_write(int pool);

#endif							/* DJA_HISTORY_H */
