/*
 * trace.h
 *
 * Whoever sends from outside starts a new trace with each transaction: that is
 * one request.  What a turn sends has the trace of its message instead.
 */
#ifndef DJA_TRACE_H
#define DJA_TRACE_H

/* A uuid of version 4, the same throughout a transaction. */
extern Datum dja_trace_of_transaction(void);

#endif							/* DJA_TRACE_H */
