/*
 * dead_letter.h
 *
 * Messages that are given up.
 */
#ifndef DJA_DEAD_LETTER_H
#define DJA_DEAD_LETTER_H

#include "tables/message.h"

extern void dja_give_up(DjaType *type, DjaMessage *message, DjaFailure *failure);

#endif							/* DJA_DEAD_LETTER_H */
