/*
 * progress.c
 *
 * A table of fixed size: message, and what its turn has said last.  Whoever ends the
 * turn drops its entry: the process that runs it, or for turns outside of transactions
 * the end of their claim.  An entry that nobody has dropped is replaced when the table
 * is full, the oldest first.
 *
 * The ids stand apart from the values, so that looking for one reads little memory.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "shmem/progress.h"

struct DjaProgressTable
{
	int			used;			/* entries that were ever used */
	int64		ids[DJA_MAX_PROGRESS];
	DjaProgress entries[DJA_MAX_PROGRESS];
};

Size
dja_progress_size(void)
{
	return MAXALIGN(sizeof(DjaProgressTable));
}

void
dja_progress_setup(void *memory)
{
	memset(memory, 0, sizeof(DjaProgressTable));
}

static int
dja_progress_index(Oid database, int64 message_id)
{
	DjaProgressTable *table = dja_shared->progress;

	dja_assert_locked();
	for (int i = 0; i < table->used; i++)
		if (table->ids[i] == message_id && table->entries[i].database == database)
			return i;
	return -1;
}

/*
 * Returns a free entry, or the oldest one.
 */
static int
dja_progress_room(void)
{
	DjaProgressTable *table = dja_shared->progress;
	int			oldest = 0;

	for (int i = 0; i < table->used; i++)
	{
		if (table->ids[i] == 0)
			return i;
		if (table->entries[i].at < table->entries[oldest].at)
			oldest = i;
	}
	return table->used < DJA_MAX_PROGRESS ? table->used++ : oldest;
}

/*
 * Notes what the turn of a message says.
 */
void
dja_progress_put(Oid database, int64 message_id, const char *text, int len)
{
	DjaProgressTable *table = dja_shared->progress;
	int			i = dja_progress_index(database, message_id);
	DjaProgress *entry;

	Assert(len >= 0 && len <= DJA_PROGRESS_BYTES);
	if (i < 0)
		i = dja_progress_room();
	entry = &table->entries[i];
	table->ids[i] = entry->message_id = message_id;
	entry->database = database;
	entry->at = GetCurrentTimestamp();
	entry->len = len;
	memcpy(entry->text, text, len);
}

/*
 * The turn is over.
 */
void
dja_progress_drop(Oid database, int64 message_id)
{
	int			i = dja_progress_index(database, message_id);

	if (i < 0)
		return;
	dja_shared->progress->ids[i] = 0;
	dja_shared->progress->entries[i].message_id = 0;
}

/*
 * Copies an entry, by its number.  Returns false after the last one.
 */
bool
dja_progress_copy(int i, DjaProgress *copy)
{
	bool		there;

	dja_lock();
	there = i < dja_shared->progress->used;
	if (there)
		*copy = dja_shared->progress->entries[i];
	dja_unlock();
	return there;
}

/*
 * Copies what the turn of a message of this database has said, if it has.
 */
bool
dja_progress_find(int64 message_id, DjaProgress *copy)
{
	int			i;

	dja_lock();
	i = message_id == 0 ? -1 : dja_progress_index(MyDatabaseId, message_id);
	if (i >= 0)
		*copy = dja_shared->progress->entries[i];
	dja_unlock();
	return i >= 0;
}
