/*
 * type_leftovers.h
 *
 * Rows that an earlier type of a name has left; see type_leftovers.c.
 */
#ifndef DJA_TYPE_LEFTOVERS_H
#define DJA_TYPE_LEFTOVERS_H

/*
 * Raises 42501 if there are such rows in a table from which the user may not
 * delete.
 */
extern void dja_check_leftovers(const char *name, uint64 hash);

#endif							/* DJA_TYPE_LEFTOVERS_H */
