/*
 * send.h
 *
 * Sending; see send.c.
 */
#ifndef DJA_SEND_H
#define DJA_SEND_H

/*
 * Rows are being restored, with their ids, by COPY as pg_dump writes it: they
 * may come before their types.  Set by dbhook.c around the command.
 */
extern bool dja_restoring;

/* The same may be true of whatever this session sends: it loads INSERTs of a dump. */
extern bool dja_types_may_follow;

extern Datum dja_trace_of_transaction(void);

#endif							/* DJA_SEND_H */
