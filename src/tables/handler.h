/*
 * handler.h
 *
 * Handlers: finding the function, calling it.
 *
 * What a session knows of a function is forgotten when pg_proc tells of a
 * change, so a new version is called from the next batch on; a DjaHandler
 * lives until its type is resolved again, so it is reached through type->call
 * and never kept.  dja_handler_resolve never raises an error for a handler
 * that cannot be called; it says what is wrong, and the mail waits.
 */
#ifndef DJA_HANDLER_H
#define DJA_HANDLER_H

#include "fmgr.h"

#include "tables/actor_type.h"

typedef enum DjaHandlerKind
{
	DJA_MESSAGE_HANDLER,		/* f(state jsonb, message jsonb) */
	DJA_UPGRADE_HANDLER			/* f(state jsonb, from_version int) */
} DjaHandlerKind;

/* What a handler gives back besides raising errors. */
typedef struct DjaResult
{
	bool		has_state;		/* else it is unchanged */
	Datum		state;
	bool		has_reply;
	Datum		reply;
} DjaResult;

typedef struct DjaHandler
{
	FmgrInfo	function;
	char	   *name;			/* type->handler that it was resolved from */
	uint32		generation;
	Oid			returns;		/* jsonb, void or djactor.result */
	bool		solo;			/* the language lets it reach outside */
	Oid			python;			/* its language, if that is PL/Python */
	MemoryContext context;
} DjaHandler;

/*
 * So many turns of a type whose handler has been resolved may share a
 * transaction; 0 = no limit.
 */
static inline int
dja_handler_batch_size(const DjaType *type)
{
	return type->call->solo ? 1 : type->batch_size;
}

extern void dja_handlers_init(void);
extern Oid	dja_handler_parse(const char *handler, DjaHandlerKind kind);
extern char *dja_handler_problem(Oid function, DjaHandlerKind kind, const char *name, Oid role,
								 int *sqlerrcode, char **hint);
extern char *dja_handler_signature(Oid function, DjaHandlerKind kind);
extern Oid	dja_handler_owner(Oid function);
extern DjaHandler *dja_handler_resolve(DjaType *type, char **problem);
extern void dja_handlers_forget(void);

extern void dja_handler_call(DjaType *type, Datum state, Datum payload, DjaResult *result);
extern Datum dja_handler_upgrade(DjaType *type, Datum state, int from_version);

#endif							/* DJA_HANDLER_H */
