/*
 * session.h
 *
 * A worker's session: as which role, with which settings, and that it stays
 * clean.
 */
#ifndef DJA_SESSION_H
#define DJA_SESSION_H

extern void dja_session_begin(void);
extern void dja_session_check(void);
extern void dja_session_clean(void);

#endif							/* DJA_SESSION_H */
