/*
 * arrived.h
 *
 * Messages that arrive by replication; see arrived.c.
 */
#ifndef DJA_ARRIVED_H
#define DJA_ARRIVED_H

extern int64 dja_arrived_release(void);

#endif							/* DJA_ARRIVED_H */
