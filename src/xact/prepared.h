/*
 * prepared.h
 *
 * Around COMMIT PREPARED: call begin before it, and end after it, also after an
 * error.
 */
#ifndef DJA_PREPARED_H
#define DJA_PREPARED_H

extern void dja_prepared_begin(void);
extern void dja_prepared_end(void);

#endif							/* DJA_PREPARED_H */
