/*
 * drain_agenda.c
 *
 * Remembers what a drain() has still to look at: which mailboxes, from which
 * message on, and which delays.
 *
 * drain() runs in one transaction, so the rows that it has handled stay in the
 * indexes, and no index scan can remove them.  If each round began at the
 * beginning, it would cost as much as was handled before.  So the first round
 * looks at everything, and the next ones at what is left and at what the
 * transaction itself has sent since, which pending.c reports.
 *
 * After a rollback to a savepoint there may be an item too many, which does no
 * harm.  Rows that other sessions commit meanwhile may be seen or not, as always.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "xact/drain_agenda.h"

static MemoryContext dja_agenda_context = NULL; /* NULL: no drain() is under
												 * way */
static HTAB *dja_agenda_items;
static HTAB *dja_agenda_types;
static bool dja_agenda_stale;

static HTAB *
dja_agenda_table(const char *name, Size keysize, Size entrysize)
{
	HASHCTL		ctl;

	ctl.keysize = keysize;
	ctl.entrysize = entrysize;
	ctl.hcxt = dja_agenda_context;
	return hash_create(name, 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

void
dja_agenda_begin(void)
{
	dja_agenda_context = AllocSetContextCreate(CurrentMemoryContext, "djactor agenda",
											   ALLOCSET_DEFAULT_SIZES);
	dja_agenda_items = dja_agenda_table("djactor agenda", sizeof(((DjaAgendaItem *) NULL)->key),
										sizeof(DjaAgendaItem));
	dja_agenda_types = dja_agenda_table("djactor agenda of types", sizeof(uint64),
										sizeof(DjaAgendaType));
	dja_agenda_stale = false;
}

/*
 * Ends the agenda.  Also called after an error.
 */
void
dja_agenda_end(void)
{
	if (dja_agenda_context != NULL)
		MemoryContextDelete(dja_agenda_context);
	dja_agenda_context = NULL;
}

/*
 * Returns what is known of a type.  It may have been forgotten by the beginning
 * of a round.
 */
DjaAgendaType *
dja_agenda_type(uint64 type_hash)
{
	DjaAgendaType *type;
	bool		found;

	if (dja_agenda_stale)
	{
		HASH_SEQ_STATUS status;

		dja_agenda_stale = false;
		hash_seq_init(&status, dja_agenda_types);
		while ((type = hash_seq_search(&status)) != NULL)
		{
			type->swept = false;
			type->from = DT_NOBEGIN;
		}
	}
	type = hash_search(dja_agenda_types, &type_hash, HASH_ENTER, &found);
	if (!found)
	{
		type->swept = false;
		type->from = DT_NOBEGIN;
	}
	return type;
}

static int
dja_compare_keys(const void *a, const void *b)
{
	int64		key_a = *(const int64 *) a;
	int64		key_b = *(const int64 *) b;

	return key_a < key_b ? -1 : key_a > key_b;
}

/*
 * Returns the mailboxes of a type in the order of the index, and their number in
 * *n.
 */
uint64 *
dja_agenda_keys(uint64 type_hash, int *n)
{
	uint64	   *keys;
	HASH_SEQ_STATUS status;
	DjaAgendaItem *item;

	Assert(dja_agenda_context != NULL);
	keys = palloc(sizeof(uint64) * Max(1, hash_get_num_entries(dja_agenda_items)));
	*n = 0;
	hash_seq_init(&status, dja_agenda_items);
	while ((item = hash_seq_search(&status)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (item->key.type_hash == type_hash)
			keys[(*n)++] = item->key.key_hash;
	}
	qsort(keys, *n, sizeof(uint64), dja_compare_keys);
	return keys;
}

/*
 * Takes a mailbox out.  Returns false if it was not there.
 */
bool
dja_agenda_take(uint64 type_hash, uint64 key_hash, DjaAgendaItem *taken)
{
	DjaAgendaItem key = {.key = {type_hash, key_hash}};
	DjaAgendaItem *item = hash_search(dja_agenda_items, &key.key, HASH_FIND, NULL);

	if (item == NULL)
		return false;
	*taken = *item;
	(void) hash_search(dja_agenda_items, &key.key, HASH_REMOVE, NULL);
	return true;
}

/*
 * Notes that a mailbox may have mail from item's cursor on.
 */
void
dja_agenda_keep(const DjaAgendaItem *item)
{
	DjaAgendaItem *kept;
	bool		found;

	kept = hash_search(dja_agenda_items, &item->key, HASH_ENTER, &found);
	if (!found || item->cursor < kept->cursor)
	{
		kept->cursor = item->cursor;
		kept->tid = item->tid;
	}
}

void
dja_agenda_mail(uint64 type_hash, uint64 key_hash, int64 position)
{
	DjaAgendaItem item = {.key = {type_hash, key_hash}};

	if (dja_agenda_context == NULL)
		return;
	item.cursor = position;
	ItemPointerSetInvalid(&item.tid);
	dja_agenda_keep(&item);
}

void
dja_agenda_due(uint64 type_hash, TimestampTz due)
{
	DjaAgendaType *type;

	if (dja_agenda_context == NULL)
		return;
	type = dja_agenda_type(type_hash);
	type->from = Min(type->from, due);
}

/*
 * Has everything looked at again, since nothing known need still be true.
 */
void
dja_agenda_afresh(void)
{
	dja_agenda_stale = true;
}
