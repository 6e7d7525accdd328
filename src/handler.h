/*
 * handler.h
 *
 * Handlers: finding the function, calling it under a time limit.
 *
 * What a session knows of a function is forgotten when pg_proc tells of a
 * change, so a new version is called from the next batch on; a DjaHandler
 * lives until its type is resolved again, so it is reached through type->call
 * and never kept.  dja_handler_resolve never raises an error for a handler
 * that cannot be called; it says what is wrong, and the mail waits.
 */
#ifndef DJA_HANDLER_H
#define DJA_HANDLER_H

#include "actor_type.h"
#include "fmgr.h"

typedef struct DjaHandler
{
	FmgrInfo	function;
	char	   *name;			/* type->handler that it was resolved from */
	uint32		generation;
	bool		returns_void;
	bool		solo;			/* the language lets it reach outside */
	MemoryContext context;
} DjaHandler;

extern void dja_handlers_init(void);
extern Oid	dja_handler_parse(const char *handler);
extern char *dja_handler_problem(Oid function, const char *name, Oid role, int *sqlerrcode, char **hint);
extern char *dja_handler_signature(Oid function);
extern Oid	dja_handler_owner(Oid function);
extern DjaHandler *dja_handler_resolve(DjaType *type, char **problem);
extern void dja_handlers_forget(void);

extern bool dja_handler_call(DjaType *type, Datum state, Datum payload, Datum *result);
extern void dja_handler_arm(int timeout, TimestampTz now);
extern void dja_handler_disarm(void);
extern void dja_handler_stop(void);
extern volatile bool dja_handler_timed_out;

#endif							/* DJA_HANDLER_H */
