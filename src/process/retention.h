/*
 * retention.h
 *
 * Deletes dead letters, replies, idempotency keys and journal rows that are past
 * their retention.
 */
#ifndef DJA_RETENTION_H
#define DJA_RETENTION_H

extern bool dja_purge(void);

#endif							/* DJA_RETENTION_H */
