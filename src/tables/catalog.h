/*
 * catalog.h
 *
 * Finds djactor's tables, indexes and types by OID.
 *
 * The OIDs come from the extension's membership, never from names on a search
 * path.  A table counts only while it and its schema belong to a superuser, since
 * a database owner may add his own tables to an extension that he owns.  Relcache
 * invalidation clears the cache.
 */
#ifndef DJA_CATALOG_H
#define DJA_CATALOG_H

#include "base/compat.h"

/*
 * The version of the extension's script that this library serves.  It is the end
 * of a string that occurs once in the library, so that a test can make a library
 * of another version by patching it.
 */
extern char dja_serves[];
#define DJA_SQL_VERSION (dja_serves + sizeof("djactor serves ") - 1)

typedef enum DjaTable
{
	DJA_ACTOR_TYPE_TABLE,
	DJA_ACTOR_TABLE,
	DJA_IDENTITY_TABLE,
	DJA_MESSAGE_TABLE,
	DJA_DEAD_LETTER_TABLE,
	DJA_REPLY_TABLE,
	DJA_TIMER_TABLE,
	DJA_WATCH_TABLE,
	DJA_ONCE_TABLE,
	DJA_JOURNAL_TABLE,
	DJA_HOME_TABLE,
	DJA_HISTORY_TABLE,
	DJA_NTABLES
} DjaTable;

typedef enum DjaIndex
{
	DJA_ACTOR_TYPE_PKEY,
	DJA_ACTOR_KEY_INDEX,
	DJA_ACTOR_ID_INDEX,
	DJA_IDENTITY_PKEY,
	DJA_MESSAGE_PKEY,
	DJA_MAILBOX_INDEX,
	DJA_DUE_INDEX,
	DJA_ASIDE_INDEX,
	DJA_DEAD_PKEY,
	DJA_DEAD_FAILED_AT_INDEX,
	DJA_DEAD_ACTOR_INDEX,
	DJA_REPLY_PKEY,
	DJA_REPLY_EXPIRES_AT_INDEX,
	DJA_TIMER_PKEY,
	DJA_WATCH_PKEY,
	DJA_WATCH_ACTOR_INDEX,
	DJA_ONCE_PKEY,
	DJA_ONCE_COMPLETED_AT_INDEX,
	DJA_JOURNAL_PKEY,
	DJA_JOURNAL_FINISHED_AT_INDEX,
	DJA_HISTORY_PKEY,
	DJA_NINDEXES
} DjaIndex;

typedef enum DjaInstalled
{
	DJA_NOT_INSTALLED,
	DJA_INSTALLED,
	DJA_EXTENSION_NEWER,		/* than this library */
	DJA_LIBRARY_NEWER			/* than the extension */
} DjaInstalled;

/* Changes whenever anything about our tables has changed. */
extern uint64 dja_catalog_state;

extern void dja_catalog_init(void);
extern DjaInstalled dja_catalog_check(bool lock);
extern void dja_catalog_require(void);
extern void dja_require_installed(void);
extern void dja_catalog_forget(void);
extern void dja_catalog_lock(void);
extern void dja_catalog_check_owner(void);
extern const char *dja_catalog_version(void);
extern Oid	dja_table_oid(DjaTable table);
extern bool dja_table_right(DjaTable table, AclMode right);
extern char *dja_table_name(DjaTable table);
extern Oid	dja_index_oid(DjaIndex index);
extern Oid	dja_result_type(void);
extern Oid	dja_identity_sequence(DjaTable table);
extern uint64 dja_hash_name(const char *name, int len);

static inline uint64
dja_hash_text(const text *name)
{
	return dja_hash_name(VARDATA_ANY(name), (int) VARSIZE_ANY_EXHDR(name));
}

static inline bool
dja_text_equal(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

#endif							/* DJA_CATALOG_H */
