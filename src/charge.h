/*
 * charge.h
 *
 * Writes down the crashes that messages are charged with.
 */
#ifndef DJA_CHARGE_H
#define DJA_CHARGE_H

extern void dja_charge_crashes(int pool, int slot);

#endif							/* DJA_CHARGE_H */
