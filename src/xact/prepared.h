/*
 * prepared.h
 *
 * Around COMMIT PREPARED: begin before it, end after it, whatever became of it.
 */
#ifndef DJA_PREPARED_H
#define DJA_PREPARED_H

extern void dja_prepared_begin(void);
extern void dja_prepared_end(void);

#endif							/* DJA_PREPARED_H */
