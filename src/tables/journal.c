/*
 * journal.c
 *
 * Writes djactor.journal, a log for people.
 *
 * A row is written in the transaction of its turn, outside the turn's savepoint,
 * so it exists if and only if the turn is committed.  Callers ask first whether
 * the type keeps a journal (type->journal >= 0).  retention.c deletes rows that
 * are older than that.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "tables/journal.h"

/*
 * Writes a row.  turn is DJA_NO_TURN if there was none, as for a duplicate.
 */
void
dja_journal_write(DjaMessage *message, int64 turn, TimestampTz started_at,
				  TimestampTz finished_at, const char *outcome, Datum reply)
{
	Datum		values[DJA_JOURNAL_NATTS];
	bool		nulls[DJA_JOURNAL_NATTS];

	memcpy(values, message->values, sizeof(Datum) * DJA_MSG_COMMON);
	memcpy(nulls, message->nulls, sizeof(bool) * DJA_MSG_COMMON);
	if (message->fired_meta != 0)
		values[DJA_MSG_META - 1] = message->fired_meta;
	nulls[DJA_MSG_RETRY_AT - 1] = true;
	memset(nulls + DJA_MSG_COMMON, 0, sizeof(bool) * (DJA_JOURNAL_NATTS - DJA_MSG_COMMON));
	dja_set_column(values, nulls, DJA_JOURNAL_TURN, Int64GetDatum(turn), turn < 0);
	values[DJA_JOURNAL_STARTED_AT - 1] = TimestampTzGetDatum(started_at);
	values[DJA_JOURNAL_FINISHED_AT - 1] = TimestampTzGetDatum(finished_at);
	values[DJA_JOURNAL_OUTCOME - 1] = CStringGetTextDatum(outcome);
	dja_set_column(values, nulls, DJA_JOURNAL_REPLY, reply, reply == 0);
	values[DJA_JOURNAL_WORKER_PID - 1] = Int32GetDatum(MyProcPid);
	dja_table_insert(DJA_JOURNAL_TABLE, values, nulls);
	pfree(DatumGetPointer(values[DJA_JOURNAL_OUTCOME - 1]));
}
