/*
 * startup.h
 *
 * Was this server started from a backup, and from which?
 */
#ifndef DJA_STARTUP_H
#define DJA_STARTUP_H

/*
 * A number for the latest start from a backup, 0 = none ever.  Valid in the
 * postmaster; others read it in shared memory, see held.h.
 */
extern int64 dja_startup_token;

extern void dja_startup_init(void);

#endif							/* DJA_STARTUP_H */
