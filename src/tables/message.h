/*
 * message.h
 *
 * Messages: reading a mailbox in order, and writing what becomes of a message.
 */
#ifndef DJA_MESSAGE_H
#define DJA_MESSAGE_H

#include "utils/snapshot.h"

#include "base/columns.h"
#include "tables/actor_type.h"

/* What has become of a message that a batch has read. */
typedef enum DjaMessageState
{
	DJA_MESSAGE_OPEN,			/* still to be handled */
	DJA_MESSAGE_HANDLED,		/* its row is deleted at the end of the batch */
	DJA_MESSAGE_ASIDE,			/* its row stays, out of the mailbox */
	DJA_MESSAGE_GONE			/* its row is deleted already */
} DjaMessageState;

/* A message as it was read, in memory of the caller's choice. */
typedef struct DjaMessage
{
	ItemPointerData tid;
	int64		id;
	int64		position;
	int			attempts;
	int			put_offs;		/* attempts that used none up */
	TransactionId locker;		/* another transaction that has locked its row */
	TimestampTz retry_at;		/* DT_NOBEGIN = none */
	TimestampTz expires_at;		/* DT_NOEND = never */
	bool		plain;			/* kind user, no ask, no idempotency key, no
								 * coalesce key, no delay */
	bool		asks;			/* wants a reply */
	DjaMessageState state;
	Datum		fired_meta;		/* of a timer: its meta as the handler sees
								 * it; 0 = none */
	TimestampTz fired_at;		/* when that was made */
	uint64		rated;			/* its turn counts for the rate of this tenant
								 * value; 0 = for none */
	text	   *key;
	Datum		values[DJA_MSG_NATTS];
	bool		nulls[DJA_MSG_NATTS];
} DjaMessage;

/* Why a message was given up. */
typedef struct DjaFailure
{
	const char *reason;			/* as in djactor.dead_letter */
	int			sqlerrcode;		/* 0 = none */
	char	   *error;			/* NULL = none */
	char	   *context;
} DjaFailure;

/* An index scan over one mailbox, or over one type's delays and retries. */
typedef struct DjaScan
{
	DjaFind		find;
	bool		walking;		/* from mailbox to mailbox, last seen at
								 * walked_to */
	uint64		walked_to;
} DjaScan;

/* Which mailboxes of a type. */
typedef enum DjaScanFrom
{
	DJA_SCAN_ALL_KEYS,
	DJA_SCAN_FROM_KEY,
	DJA_SCAN_AFTER_KEY
} DjaScanFrom;

/*
 * message_scan.c; snapshot is NULL for the latest one, which the scan then keeps to
 * its end
 */
extern void dja_message_scan_begin(DjaScan *scan, Snapshot snapshot);
extern void dja_message_scan_start(DjaScan *scan, uint64 type_hash, uint64 key_hash, int64 cursor);
extern void dja_message_scan_type(DjaScan *scan, uint64 type_hash, DjaScanFrom from, uint64 key_hash);
extern bool dja_message_scan_skip(DjaScan *scan, uint64 type_hash, bool first, uint64 after,
								  uint64 *key_hash, int64 *position);
extern void dja_due_scan_begin(DjaScan *scan, uint64 type_hash, TimestampTz from, Snapshot snapshot);
extern void dja_aside_scan_begin(DjaScan *scan, uint64 type_hash, uint64 key_hash);
extern void dja_coalesce_scan_begin(DjaScan *scan, uint64 type_hash, DjaMessage *message, int64 from);
extern bool dja_scan_next(DjaScan *scan);
extern bool dja_scan_last(DjaScan *scan);
extern bool dja_scan_next_entry(DjaScan *scan, ItemPointer tid);
extern bool dja_scan_fetch(DjaScan *scan, ItemPointerData tid, bool *dead);
extern void dja_scan_end(DjaScan *scan);
extern DjaMessage *dja_scan_message(DjaScan *scan);
extern DjaMessage *dja_message_from_slot(TupleTableSlot *slot);
extern DjaMessage *dja_message_by_id(int64 id, Snapshot snapshot);
extern int	dja_message_count(uint64 type_hash, uint64 key_hash, int64 from, int limit, CommandId cid, bool sent);

/* message.c */
extern void dja_message_dead(DjaWriter *messages, DjaWriter *dead_letters,
							 DjaMessage *message, DjaFailure *failure);
extern void dja_message_retry(DjaWriter *messages, DjaMessage *message, TimestampTz retry_at,
							  const char *error, bool skip);
extern TM_Result dja_message_release(DjaWriter *messages, DjaMessage *message);
extern void dja_message_delay(DjaWriter *messages, DjaMessage *message);
extern void dja_message_set_aside(DjaWriter *messages, DjaMessage *message, const char *aside,
								  TimestampTz until);
extern TimestampTz dja_message_due_at(DjaMessage *message);
extern bool dja_message_is_delayed(DjaMessage *message);
extern bool dja_message_is_aside(DjaMessage *message, const char *aside);

static inline bool
dja_message_is_kind(const DjaMessage *message, const char *kind)
{
	const text *value = (const text *) DatumGetPointer(message->values[DJA_MSG_KIND - 1]);

	return VARSIZE_ANY_EXHDR(value) == strlen(kind) &&
		memcmp(VARDATA_ANY(value), kind, strlen(kind)) == 0;
}

/*
 * message_send.c; the arguments of send(): type, key, payload, priority
 * (smallint), deliver_at, expires_at, and the options idempotency_key,
 * wants_reply, headers, coalesce_key, coalesce_mode, coalesce_until
 */
#define DJA_SEND_NARGS 12
#define DJA_SEND_OPTIONS 6
extern int64 dja_message_send(Datum *values, const bool *nulls);

#endif							/* DJA_MESSAGE_H */
