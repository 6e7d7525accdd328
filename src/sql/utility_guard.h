/*
 * utility_guard.h
 *
 * Utility commands that are refused before they can lock what is djactor's.
 */
#ifndef DJA_UTILITY_GUARD_H
#define DJA_UTILITY_GUARD_H

#include "nodes/nodes.h"

extern void dja_guard(Node *statement);

#endif							/* DJA_UTILITY_GUARD_H */
