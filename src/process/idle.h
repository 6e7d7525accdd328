/*
 * idle.h
 *
 * Stops actors that have had no turn for their type's idle_ttl.
 */
#ifndef DJA_IDLE_H
#define DJA_IDLE_H

extern bool dja_stop_idle(int pool);

#endif							/* DJA_IDLE_H */
