/*
 * handler.h
 *
 * Handlers: finding the function, calling it.
 *
 * What a session knows of a function is forgotten when pg_proc changes, so the
 * next batch calls the new version.  A DjaHandler lives until its type is
 * resolved again: reach it through type->call and never keep it.
 * dja_handler_resolve() raises no error for a handler that cannot be called; it
 * says what is wrong, and the mail waits.
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

/* What a handler returns. */
typedef struct DjaResult
{
	bool		has_state;		/* false: it is unchanged */
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
	bool		solo;			/* its language can reach outside the database */
	Oid			python;			/* its language, if that is PL/Python */
	MemoryContext context;
} DjaHandler;

/*
 * Returns how many turns of a type may share a transaction, 0 = no limit.  The
 * type's handler has to be resolved.
 */
static inline int
dja_handler_batch_size(const DjaType *type)
{
	Assert(type->call != NULL);
	return type->call->solo ? 1 : type->batch_size;
}

extern void dja_handlers_init(void);
extern Oid	dja_handler_parse(const char *handler, DjaHandlerKind kind);
extern char *dja_handler_problem(Oid function, DjaHandlerKind kind, const char *name, Oid role,
								 int *sqlerrcode, char **hint);
extern char *dja_handler_signature(Oid function, DjaHandlerKind kind);
extern Oid	dja_handler_owner(Oid function);
extern DjaHandler *dja_handler_resolve(DjaType *type, char **problem);
extern int	dja_handler_known_batch_size(DjaType *type);
extern void dja_handlers_forget(void);

extern void dja_handler_call(DjaType *type, Datum state, Datum payload, DjaResult *result);
extern Datum dja_handler_upgrade(DjaType *type, Datum state, int from_version);

#endif							/* DJA_HANDLER_H */
