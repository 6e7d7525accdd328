/*
 * copy_backup.h
 *
 * Tells whether this server was started from a backup, and from which.
 */
#ifndef DJA_COPY_BACKUP_H
#define DJA_COPY_BACKUP_H

/*
 * A number for the latest start from a backup.  0: never.  DJA_TOKEN_INHERITED: a
 * standby, which takes over whatever its primary has written into the rows.
 * Valid in the postmaster; other processes read it in shared memory, see
 * copy_shmem.h.
 */
#define DJA_TOKEN_INHERITED (-1)

extern int64 dja_backup_token;

extern void dja_backup_token_init(void);

#endif							/* DJA_COPY_BACKUP_H */
