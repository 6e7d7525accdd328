/*
 * refuse_write.c
 *
 * The trigger on tables that nobody writes by hand: it refuses, and names the
 * function to use instead.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(dja_refuse_write);

static const struct
{
	const char *table;			/* NULL = any other */
	const char *hint;
}			dja_refusals[] = {
	{"message", "A message is sent with INSERT and cannot be changed; djactor.cancel() takes one back, djactor.drop_actor_type(name, true) discards all mail of a type."},
	{"actor_type", "Use djactor.define_actor_type(), drop_actor_type(), pause() and resume()."},
	{"dead_letter", "A dead letter can be deleted, not changed; see djactor.redrive() and discard()."},
	{"reply", "Its rows can be deleted, not changed."},
	{"journal", "Its rows can be deleted, not changed."},
	{"stat_history", "Its rows can be deleted, not changed."},
	{"timer", "Use djactor.schedule() and unschedule(), or in a turn set_timer() and cancel_timer(); djactor.cancel() takes a firing back."},
	{"watch", "An actor watches with djactor.watch() and unwatch()."},
	{"idempotency", "It is djactor's own bookkeeping."},
	{"home", "It is djactor's own bookkeeping."},
	{NULL, "Only the column state of djactor.actor may be updated; see djactor.pause() and resume()."}
};

/*
 * refuse_write(): the trigger.
 */
Datum
dja_refuse_write(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	const char *table;
	int			row = 0;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("djactor.refuse_write() is a trigger")));
	table = RelationGetRelationName(data->tg_relation);
	while (dja_refusals[row].table != NULL && strcmp(dja_refusals[row].table, table) != 0)
		row++;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("table djactor.%s cannot be changed this way", table),
			 errhint("%s", dja_refusals[row].hint)));
	return PointerGetDatum(NULL);	/* not reached */
}
