/*
 * message_send.c
 *
 * Sending: the INSERT of send().  It is one as any user would write it, and runs with
 * the caller's rights.  It goes into djactor.message, or into djactor_cluster.message if
 * the actor lives on another node.  Its plans are kept until the session ends or the
 * table is renamed.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "tables/message.h"
#include "tables/place.h"

static struct DjaSendPlans
{
	SPIPlanPtr	plans[1 << DJA_SEND_OPTIONS];	/* by options given */
	char	   *table;			/* what they insert into; NULL: there are none */
}			dja_send_here, dja_send_there;

/*
 * Forgets the plans if the table has another name now.
 */
static void
dja_send_check_plans(struct DjaSendPlans *send, const char *table)
{
	char	   *renamed;

	if (send->table != NULL && strcmp(send->table, table) == 0)
		return;
	renamed = MemoryContextStrdup(TopMemoryContext, table);
	if (send->table != NULL)
		pfree(send->table);
	send->table = renamed;
	for (size_t i = 0; i < lengthof(send->plans); i++)
	{
		if (send->plans[i] != NULL)
			SPI_freeplan(send->plans[i]);
		send->plans[i] = NULL;
	}
}

/*
 * Returns the plan of an INSERT that names these options.  Needs SPI to be connected.
 */
static SPIPlanPtr
dja_send_plan(struct DjaSendPlans *send, int given)
{
	static const char *const options[DJA_SEND_OPTIONS] = {
		"idempotency_key", "wants_reply", "headers", "coalesce_key", "coalesce_mode", "coalesce_until"
	};
	Oid			types[DJA_SEND_NARGS] = {
		TEXTOID, TEXTOID, JSONBOID, INT2OID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, TEXTOID, BOOLOID, JSONBOID, TEXTOID, TEXTOID, TIMESTAMPTZOID
	};
	StringInfoData columns;
	StringInfoData parameters;
	SPIPlanPtr	plan;

	if (send->plans[given] != NULL)
		return send->plans[given];
	initStringInfo(&columns);
	initStringInfo(&parameters);
	for (int i = 0; i < DJA_SEND_OPTIONS; i++)
	{
		if (!(given & (1 << i)))
			continue;
		appendStringInfo(&columns, ", %s", options[i]);
		appendStringInfo(&parameters, ", $%d", DJA_SEND_NARGS - DJA_SEND_OPTIONS + i + 1);
	}
	plan = SPI_prepare(psprintf("INSERT INTO %s"
								" (actor_type, actor_key, payload, priority, deliver_at, expires_at%s)"
								" VALUES ($1, $2, $3, $4, $5, $6%s) RETURNING id",
								send->table, columns.data, parameters.data),
					   DJA_SEND_NARGS, types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare the INSERT of djactor.send()");
	send->plans[given] = plan;
	return plan;
}

/*
 * Sends a message, and returns its id.  An option that is not given is not named in
 * the INSERT.  So its column gets its default, which passes the headers of a turn on,
 * and the sender needs no right to that column.
 */
int64
dja_message_send(Datum *values, const bool *nulls)
{
	struct DjaSendPlans *send = &dja_send_here;
	const char *table = dja_table_name(DJA_MESSAGE_TABLE);
	char		flags[DJA_SEND_NARGS + 1] = {0};
	int			given = 0;
	bool		isnull;
	int64		id;

	for (int i = 0; i < DJA_SEND_NARGS; i++)
		flags[i] = nulls[i] ? 'n' : ' ';
	for (int i = 0; i < DJA_SEND_OPTIONS; i++)
		if (!nulls[DJA_SEND_NARGS - DJA_SEND_OPTIONS + i])
			given |= 1 << i;
	if (!nulls[1] && !dja_hold_here(DatumGetTextPP(values[1])))
	{
		send = &dja_send_there;
		table = "djactor_cluster.message";
	}
	dja_send_check_plans(send, table);
	SPI_connect();

	/*
	 * no row limit: an INSERT that is stopped at its first row fires no
	 * statement trigger
	 */
	if (SPI_execute_plan(dja_send_plan(send, given), values, flags, false, 0) != SPI_OK_INSERT_RETURNING ||
		SPI_processed != 1)
		elog(ERROR, "djactor.send() inserted no row");
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return id;
}
