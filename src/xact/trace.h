/*
 * trace.h
 *
 * Each transaction that sends from outside a turn starts a new trace, as one
 * request.  Messages that a turn sends get the trace of its message instead.
 */
#ifndef DJA_TRACE_H
#define DJA_TRACE_H

/* Returns a random UUID (version 4), the same throughout a transaction. */
extern Datum dja_trace_of_transaction(void);

#endif							/* DJA_TRACE_H */
