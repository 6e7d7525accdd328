/*
 * send.h
 *
 * Sending; see send.c.
 */
#ifndef DJA_SEND_H
#define DJA_SEND_H

/*
 * Rows are being restored, with their ids, by COPY as pg_dump writes it or by an INSERT:
 * they may come before their types.  Set around the statement, by dbhook.c and given.c.
 */
extern bool dja_restoring;

extern Datum dja_trace_of_transaction(void);
extern void dja_check_key(text *key, const char *what);

#endif							/* DJA_SEND_H */
