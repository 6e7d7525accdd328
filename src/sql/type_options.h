/*
 * type_options.h
 *
 * The options of an actor type: the arguments of define_actor_type() and of
 * alter_actor_type(), in their order, and their checks.  Each check raises an
 * error that names the option.
 *
 * values and nulls are a row of djactor.actor_type.
 */
#ifndef DJA_TYPE_OPTIONS_H
#define DJA_TYPE_OPTIONS_H

#include "fmgr.h"

#include "base/columns.h"

typedef enum DjaTypeArgument
{
	DJA_ARG_NAME, DJA_ARG_HANDLER, DJA_ARG_INITIAL_STATE, DJA_ARG_STATE_VERSION, DJA_ARG_UPGRADE_HANDLER,
	DJA_ARG_MAX_ATTEMPTS, DJA_ARG_BACKOFF, DJA_ARG_BACKOFF_MAX, DJA_ARG_RETRY_ORDER,
	DJA_ARG_ON_EXHAUSTED, DJA_ARG_HANDLER_TIMEOUT, DJA_ARG_BATCH_SIZE, DJA_ARG_CONCURRENCY,
	DJA_ARG_MAILBOX_LIMIT, DJA_ARG_ON_FULL, DJA_ARG_BREAKER_FAILURES, DJA_ARG_BREAKER_WINDOW,
	DJA_ARG_JOURNAL, DJA_ARG_OWNER, DJA_ARG_SETTINGS, DJA_ARG_HOSTED, DJA_ARG_STATELESS,
	DJA_ARG_IDLE_TTL, DJA_ARG_RATE, DJA_ARG_RATE_BY, DJA_ARG_FAIR_BY,
	DJA_ARG_WAIT_TARGET, DJA_NARGS
} DjaTypeArgument;

/* the column that has an argument's value */
extern int	dja_argument_column(int arg);

/* is NULL a value of the option? */
extern bool dja_may_be_null(int arg);

/* needs all arguments of a definition */
extern void dja_check_options(FunctionCallInfo fcinfo);

/* may the owner's workers log in, and may the user act for the owner? */
extern void dja_check_owner(Oid owner);

/*
 * Can the handler be called as the row's owner?  With adopt the row gets its
 * signature and its owner.  That of a hosted type may be any text, or NULL.
 */
extern void dja_check_handler(Datum *values, const bool *nulls, bool adopt);

/* the same for the upgrade handler, if there is one; the row gets its signature */
extern void dja_check_upgrade_handler(Datum *values, const bool *nulls);

#endif							/* DJA_TYPE_OPTIONS_H */
