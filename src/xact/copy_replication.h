/*
 * copy_replication.h
 *
 * Messages that arrive by replication; see copy_replication.c.
 */
#ifndef DJA_COPY_REPLICATION_H
#define DJA_COPY_REPLICATION_H

extern int64 dja_replicated_release(void);

#endif							/* DJA_COPY_REPLICATION_H */
