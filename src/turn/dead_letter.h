/*
 * dead_letter.h
 *
 * Messages that are given up, and those that an operator takes back, brings
 * back or throws away.
 */
#ifndef DJA_DEAD_LETTER_H
#define DJA_DEAD_LETTER_H

#include "tables/message.h"

extern void dja_give_up(DjaType *type, DjaMessage *message, DjaFailure *failure);

#endif							/* DJA_DEAD_LETTER_H */
