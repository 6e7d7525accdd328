/*
 * timekeeper.h
 *
 * The duties of a pool's resident besides mail: sweeps, delays, retries, and telling
 * hosts of theirs.
 * retention.c deletes old rows.
 */
#ifndef DJA_TIMEKEEPER_H
#define DJA_TIMEKEEPER_H

extern bool dja_sweep(int pool);
extern bool dja_release_due(int pool);
extern bool dja_recheck_blocked(int pool);
extern void dja_tell_hosts(int pool);

#endif							/* DJA_TIMEKEEPER_H */
