/*
 * progress.h
 *
 * What the running turn says about how far it is.
 */
#ifndef DJA_TURN_PROGRESS_H
#define DJA_TURN_PROGRESS_H

extern void dja_progress_over(void);

#endif							/* DJA_TURN_PROGRESS_H */
