/*
 * letters.h
 *
 * Messages that are given up, and those that an operator takes back, brings
 * back or throws away.
 */
#ifndef DJA_LETTERS_H
#define DJA_LETTERS_H

#include "mailbox.h"

extern void dja_give_up(DjaType *type, DjaMessage *message, DjaFailure *failure);

#endif							/* DJA_LETTERS_H */
