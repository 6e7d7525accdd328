/*
 * copy_backup.h
 *
 * Was this server started from a backup, and from which?
 */
#ifndef DJA_COPY_BACKUP_H
#define DJA_COPY_BACKUP_H

/*
 * A number for the latest start from a backup, 0 = none ever, or that of
 * whoever wrote the rows that a standby has replayed.  Valid in the postmaster;
 * others read it in shared memory, see copy_shmem.h.
 */
#define DJA_TOKEN_INHERITED (-1)

extern int64 dja_backup_token;

extern void dja_backup_token_init(void);

#endif							/* DJA_COPY_BACKUP_H */
