/*
 * type_leftovers.c
 *
 * Rows that an earlier type of a name has left belong to the owner of that type.
 * A role that takes the name now shall not redrive, run or discard them.
 *
 * Dead letters and journal outlive their type.  The other tables should have no
 * such rows, but rows may have been restored without their type.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "sql/type_leftovers.h"
#include "tables/rows.h"

void
dja_check_leftovers(const char *name, uint64 hash)
{
	static const struct
	{
		DjaTable	table;
		DjaIndex	index;		/* begins with the type */
		bool		hashed;		/* ... with its hash */
		const char *name;
	}			places[] = {
		{DJA_DEAD_LETTER_TABLE, DJA_DEAD_ACTOR_INDEX, false, "dead_letter"},
		{DJA_JOURNAL_TABLE, DJA_JOURNAL_FINISHED_AT_INDEX, false, "journal"},
		{DJA_ACTOR_TABLE, DJA_ACTOR_KEY_INDEX, false, "actor"},
		{DJA_IDENTITY_TABLE, DJA_IDENTITY_PKEY, false, "actor_identity"},
		{DJA_TIMER_TABLE, DJA_TIMER_PKEY, false, "timer"},
		{DJA_WATCH_TABLE, DJA_WATCH_PKEY, false, "watch"},
		{DJA_WATCH_TABLE, DJA_WATCH_ACTOR_INDEX, false, "watch"},
		{DJA_ONCE_TABLE, DJA_ONCE_PKEY, false, "idempotency"},
		/* each message stands in one of these */
		{DJA_MESSAGE_TABLE, DJA_MAILBOX_INDEX, true, "message"},
		{DJA_MESSAGE_TABLE, DJA_DUE_INDEX, true, "message"},
		{DJA_MESSAGE_TABLE, DJA_ASIDE_INDEX, true, "message"},
	};
	Datum		key = CStringGetTextDatum(name);
	Datum		hash_key = Int64GetDatum((int64) hash);

	for (size_t i = 0; i < lengthof(places); i++)
	{
		bool		outlives = places[i].table == DJA_DEAD_LETTER_TABLE || places[i].table == DJA_JOURNAL_TABLE;
		DjaFind		find;
		bool		found;

		if (dja_table_right(places[i].table, ACL_DELETE))
			continue;
		dja_find_begin(&find, places[i].table, places[i].index, 1, places[i].hashed ? &hash_key : &key, NULL);
		found = dja_find_next(&find);
		dja_find_end(&find);
		if (found)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("an earlier actor type \"%s\" has left rows in djactor.%s", name, places[i].name),
					 outlives ?
					 errhint("Have them deleted, or the type defined by a role that may delete them.") :
					 errhint("Let a superuser define the type, to keep them, or to drop it again with discard.")));
	}
}
