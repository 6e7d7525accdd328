/*
 * utility_guard.h
 *
 * Refuses utility commands before they can lock an object of the extension.
 */
#ifndef DJA_UTILITY_GUARD_H
#define DJA_UTILITY_GUARD_H

#include "nodes/nodes.h"

/*
 * Raises 42501 if the user lacks the right to an object of the extension that a
 * command would lock.
 */
extern void dja_guard_utility(Node *statement);

#endif							/* DJA_UTILITY_GUARD_H */
