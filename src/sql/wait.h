/*
 * wait.h
 *
 * Waiting in a function, and in a procedure, which holds nothing meanwhile.
 */
#ifndef DJA_WAIT_H
#define DJA_WAIT_H

#include "access/tupdesc.h"
#include "fmgr.h"

extern TupleDesc dja_call_begin(FunctionCallInfo fcinfo, const char *procedure,
								const char *detail, const char *hint);
extern Datum dja_call_end(TupleDesc row, Datum value);
extern void dja_nap(bool commit, long ms, uint32 wait_event);

#endif							/* DJA_WAIT_H */
