/*
 * given.h
 *
 * INSERTs of messages with their ids.
 */
#ifndef DJA_GIVEN_H
#define DJA_GIVEN_H

extern void dja_given_init(void);

#endif							/* DJA_GIVEN_H */
