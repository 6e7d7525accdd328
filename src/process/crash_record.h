/*
 * crash_record.h
 *
 * Writes down the crashes that messages are charged with.
 */
#ifndef DJA_CRASH_RECORD_H
#define DJA_CRASH_RECORD_H

extern void dja_record_crashes(int pool, int slot);

#endif							/* DJA_CRASH_RECORD_H */
