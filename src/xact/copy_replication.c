/*
 * copy_replication.c
 *
 * Holds messages that arrive by logical replication, or are otherwise written in
 * session_replication_role = replica.  They belong to the publisher, whose
 * workers handle them.  Here each is put aside, so that it lies in no mailbox,
 * until djactor.resume().  The publisher's changes and deletions arrive, too.  A
 * message that was aside already (stashed, deferred) is held as well, and is
 * again what it was after resume(): the column then reads "held", a blank, and
 * what it was.
 *
 * The trigger fires in replica mode only, so ordinary senders pay nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/columns.h"
#include "tables/rows.h"
#include "xact/copy_replication.h"

PG_FUNCTION_INFO_V1(dja_message_arrived);

#define DJA_ASIDE_HELD "held"
#define DJA_ASIDE_HELD_LEN 4

/*
 * Returns a message's column aside, or NULL.
 */
static char *
dja_aside_of(TupleTableSlot *slot)
{
	slot_getallattrs(slot);
	return slot->tts_isnull[DJA_MSG_ASIDE - 1] ? NULL :
		TextDatumGetCString(slot->tts_values[DJA_MSG_ASIDE - 1]);
}

static bool
dja_aside_is_held(const char *aside)
{
	return aside != NULL && strncmp(aside, DJA_ASIDE_HELD, DJA_ASIDE_HELD_LEN) == 0;
}

/*
 * Sets a message's column aside.
 */
static TM_Result
dja_put_aside(DjaWriter *writer, TupleTableSlot *slot, const char *aside)
{
	Datum		values[DJA_MSG_NATTS];
	bool		nulls[DJA_MSG_NATTS];

	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(nulls, slot->tts_isnull, sizeof(nulls));
	dja_set_text(values, nulls, DJA_MSG_ASIDE, aside);
	return dja_row_try_update(writer, &slot->tts_tid, values, nulls);
}

/*
 * The trigger for each row that is inserted into djactor.message, or updated, in
 * replica mode.  It puts the message aside.
 */
Datum
dja_message_arrived(PG_FUNCTION_ARGS)
{
	static bool reported = false;
	TriggerData *data = (TriggerData *) fcinfo->context;
	TupleTableSlot *slot;
	char	   *aside;
	DjaWriter  *writer;
	TM_Result	result;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		RelationGetRelid(data->tg_relation) != dja_table_oid(DJA_MESSAGE_TABLE))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("djactor.message_arrived() is the trigger of djactor.message")));

	slot = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newslot : data->tg_trigslot;
	aside = dja_aside_of(slot);
	if (dja_aside_is_held(aside))
		return PointerGetDatum(NULL);	/* the publisher holds it, too */

	CommandCounterIncrement();	/* the row was written by this very command */
	writer = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	result = dja_put_aside(writer, slot,
						   aside ? psprintf(DJA_ASIDE_HELD " %s", aside) : DJA_ASIDE_HELD);
	if (result != TM_Ok)
		dja_row_trouble(result);
	dja_writer_close(writer);
	if (!reported)
		ereport(LOG,
				(errmsg("djactor holds mail that arrives by replication in database \"%s\"",
						get_database_name(MyDatabaseId)),
				 errhint("To let it run here, too, use SELECT djactor.resume().")));
	reported = true;
	return PointerGetDatum(NULL);
}

/*
 * Releases the messages that were put aside on arrival, and returns their number.
 * One that is being deleted stays: the publisher has handled it.
 */
int64
dja_replicated_release(void)
{
	DjaWriter  *writer = dja_writer_open(DJA_MESSAGE_TABLE, RowExclusiveLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "djactor arrived",
												  ALLOCSET_SMALL_SIZES);
	DjaFind		find;
	int64		n = 0;

	dja_find_begin(&find, DJA_MESSAGE_TABLE, DJA_ASIDE_INDEX, 0, NULL, NULL);
	while (dja_find_next(&find))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		char	   *aside = dja_aside_of(find.slot);

		if (dja_aside_is_held(aside))
			n += dja_put_aside(writer, find.slot,
							   aside[DJA_ASIDE_HELD_LEN] == '\0' ? NULL :
							   aside + DJA_ASIDE_HELD_LEN + 1) == TM_Ok;
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	dja_find_end(&find);
	MemoryContextDelete(context);
	dja_writer_close(writer);
	return n;
}
