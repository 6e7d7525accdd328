/*
 * retention.h
 *
 * Deletes what has been kept for long enough: dead letters, replies,
 * idempotency keys, journals.
 */
#ifndef DJA_RETENTION_H
#define DJA_RETENTION_H

extern bool dja_purge(void);

#endif							/* DJA_RETENTION_H */
