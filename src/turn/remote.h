/*
 * remote.h
 *
 * Closes connections of dblink that a turn has left open.
 */
#ifndef DJA_REMOTE_H
#define DJA_REMOTE_H

extern void dja_remote_begin(void);
extern void dja_remote_close(void);
extern void dja_remote_aborted(void);

#endif							/* DJA_REMOTE_H */
