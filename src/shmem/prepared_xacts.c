/*
 * prepared_xacts.c
 *
 * A hash table of fixed size, with a place for each transaction that the server can
 * have prepared at once.  Its entries are a hint, like all of shared memory: who finds
 * none for a gid has all type queues swept (xact/prepared.c).  So none is there after
 * a restart, and the oldest place is taken if there is no free one.  That happens only
 * if transactions were finished that no utility command has named, which leaves their
 * entries behind.
 *
 * A gid may be used again once its transaction is finished.  The serial number tells
 * the entries apart.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "common/hashfn.h"

#include "shmem/prepared_xacts.h"

#define DJA_NO_PREPARED (-1)

struct DjaPreparedXacts
{
	uint64		serials;		/* given out so far */
	int			size;			/* of entries and of buckets */
	int			free;			/* list, or DJA_NO_PREPARED */
	int			oldest;			/* taken next if there is no free one */
	/* then DjaPrepared entries[size], int buckets[size] */
};

#define dja_prepared_entries(table) \
	((DjaPrepared *) ((char *) (table) + MAXALIGN(sizeof(DjaPreparedXacts))))
#define dja_prepared_buckets(table) ((int *) (dja_prepared_entries(table) + (table)->size))

Size
dja_prepared_xacts_size(void)
{
	return MAXALIGN(sizeof(DjaPreparedXacts)) +
		mul_size(max_prepared_xacts, MAXALIGN(sizeof(DjaPrepared) + sizeof(int)));
}

void
dja_prepared_xacts_setup(void *memory)
{
	DjaPreparedXacts *table = memory;
	DjaPrepared *entries;

	StaticAssertStmt(DJA_GID_BYTES >= GIDSIZE, "a gid fits in");
	memset(table, 0, dja_prepared_xacts_size());
	table->size = max_prepared_xacts;
	table->free = table->size > 0 ? 0 : DJA_NO_PREPARED;
	entries = dja_prepared_entries(table);
	for (int i = 0; i < table->size; i++)
	{
		entries[i].next = i + 1 < table->size ? i + 1 : DJA_NO_PREPARED;
		dja_prepared_buckets(table)[i] = DJA_NO_PREPARED;
	}
}

/*
 * Returns the place where the number of a gid's entry stands: its bucket, or the link of
 * the entry before.  The number is DJA_NO_PREPARED if there is none.  Needs a table that
 * is not empty.
 */
static int *
dja_prepared_link(const char *gid)
{
	DjaPreparedXacts *table = dja_shared->prepared;
	uint32		hash = hash_bytes((const unsigned char *) gid, (int) strlen(gid));
	int		   *link = &dja_prepared_buckets(table)[hash % (uint32) table->size];

	while (*link >= 0 && strcmp(dja_prepared_entries(table)[*link].gid, gid) != 0)
		link = &dja_prepared_entries(table)[*link].next;
	return link;
}

/*
 * Returns the entry of a gid, or NULL.
 */
DjaPrepared *
dja_prepared_xact_find(const char *gid)
{
	DjaPreparedXacts *table = dja_shared->prepared;
	int			i;

	dja_assert_locked();
	if (table->size == 0)
		return NULL;
	i = *dja_prepared_link(gid);
	return i >= 0 ? &dja_prepared_entries(table)[i] : NULL;
}

/*
 * Drops the entry of a gid, if it still has this serial number; 0 = whichever it has.
 */
void
dja_prepared_xact_drop(const char *gid, uint64 serial)
{
	DjaPreparedXacts *table = dja_shared->prepared;
	DjaPrepared *entry = dja_prepared_xact_find(gid);
	int		   *link;
	int			i;

	if (entry == NULL || (serial != 0 && entry->serial != serial))
		return;
	link = dja_prepared_link(gid);
	i = *link;
	*link = entry->next;
	entry->serial = 0;
	entry->next = table->free;
	table->free = i;
}

/*
 * Makes an entry for a gid, without types and mailboxes.  Returns NULL if the server
 * cannot have prepared transactions.
 */
DjaPrepared *
dja_prepared_xact_make(const char *gid)
{
	DjaPreparedXacts *table = dja_shared->prepared;
	DjaPrepared *entry;
	int		   *link;
	int			i;

	dja_assert_locked();
	Assert(strlen(gid) < DJA_GID_BYTES);
	if (table->size == 0)
		return NULL;
	dja_prepared_xact_drop(gid, 0);
	if (table->free < 0)
	{
		dja_prepared_xact_drop(dja_prepared_entries(table)[table->oldest].gid, 0);
		table->oldest = (table->oldest + 1) % table->size;
	}
	i = table->free;
	entry = &dja_prepared_entries(table)[i];
	table->free = entry->next;
	link = dja_prepared_link(gid);
	strlcpy(entry->gid, gid, DJA_GID_BYTES);
	entry->serial = ++table->serials;
	entry->ntypes = entry->nmailboxes = 0;
	entry->next = DJA_NO_PREPARED;
	*link = i;
	return entry;
}
