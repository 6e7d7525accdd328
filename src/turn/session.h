/*
 * session.h
 *
 * A worker's session: its role, its settings, and what is undone after turns and
 * batches.
 */
#ifndef DJA_SESSION_H
#define DJA_SESSION_H

/*
 * True if a statement has left something that outlives its turn: then the batch
 * ends after that turn.
 */
extern bool dja_session_touched;

/*
 * True if columns or types have changed since login.  PL/pgSQL keeps what it has
 * compiled with the old ones, and may fail where a fresh session does not.
 */
extern bool dja_session_outdated;

extern void dja_session_settings(const char *application_name);
extern void dja_session_begin(void);
extern void dja_session_check(void);
extern bool dja_session_waited_for(void);
extern bool dja_locks_waited_for(void); /* in any session */
extern void dja_session_renew(void);
extern void dja_session_clean(void);
extern void dja_session_keep_cursors(void);
extern void dja_session_close_cursors(void);

#endif							/* DJA_SESSION_H */
