/*
 * tables.h
 *
 * djactor's tables as the C code sees them: by attribute number, through the
 * table and index access methods, without a change of user and without SQL.
 *
 * The numbers repeat the order of the columns in sql/djactor--1.0.sql.
 * dja_catalog_check() compares the count when a session first opens the
 * tables, so that a library and a script of different versions never meet on a
 * row.
 */
#ifndef DJA_TABLES_H
#define DJA_TABLES_H

#include "access/attnum.h"

enum
{
	DJA_TYPE_NAME = 1, DJA_TYPE_HANDLER, DJA_TYPE_OWNER, DJA_TYPE_INITIAL_STATE,
	DJA_TYPE_MAX_ATTEMPTS, DJA_TYPE_BACKOFF, DJA_TYPE_BACKOFF_MAX, DJA_TYPE_RETRY_ORDER,
	DJA_TYPE_ON_EXHAUSTED, DJA_TYPE_HANDLER_TIMEOUT, DJA_TYPE_BATCH_SIZE,
	DJA_TYPE_CONCURRENCY, DJA_TYPE_MAILBOX_LIMIT, DJA_TYPE_ON_FULL, DJA_TYPE_HANDLER_OWNER,
	DJA_TYPE_PAUSED,
	DJA_TYPE_PAUSED_REASON, DJA_TYPE_PROBLEM,
	DJA_TYPE_NATTS = DJA_TYPE_PROBLEM
};

enum
{
	DJA_ACTOR_ID = 1, DJA_ACTOR_TYPE, DJA_ACTOR_KEY, DJA_ACTOR_STATE, DJA_ACTOR_STATUS,
	DJA_ACTOR_PAUSED, DJA_ACTOR_TURNS, DJA_ACTOR_FAILURES, DJA_ACTOR_LAST_ERROR,
	DJA_ACTOR_CREATED_AT, DJA_ACTOR_UPDATED_AT,
	DJA_ACTOR_NATTS = DJA_ACTOR_UPDATED_AT
};

enum
{
	DJA_IDENTITY_ID = 1, DJA_IDENTITY_TYPE, DJA_IDENTITY_KEY,
	DJA_IDENTITY_NATTS = DJA_IDENTITY_KEY
};

enum
{
	DJA_MSG_ID = 1, DJA_MSG_ACTOR_TYPE, DJA_MSG_ACTOR_KEY, DJA_MSG_PAYLOAD, DJA_MSG_HEADERS,
	DJA_MSG_PRIORITY, DJA_MSG_DELIVER_AT, DJA_MSG_EXPIRES_AT, DJA_MSG_TRACE_ID,
	DJA_MSG_SENDER_TYPE, DJA_MSG_SENDER_KEY, DJA_MSG_CAUSE_ID, DJA_MSG_ATTEMPTS,
	DJA_MSG_RETRY_AT, DJA_MSG_LAST_ERROR, DJA_MSG_SENT_AT, DJA_MSG_RELEASED,
	DJA_MSG_NATTS = DJA_MSG_RELEASED
};

/* A dead letter has the message's columns up to sent_at, then its own. */
enum
{
	DJA_DEAD_REASON = DJA_MSG_RELEASED, DJA_DEAD_SQLSTATE, DJA_DEAD_ERROR,
	DJA_DEAD_CONTEXT, DJA_DEAD_FAILED_AT,
	DJA_DEAD_NATTS = DJA_DEAD_FAILED_AT
};

/* Columns of the mailbox index and of the due index. */
enum
{
	DJA_MAILBOX_IX_TYPE = 1, DJA_MAILBOX_IX_KEY, DJA_MAILBOX_IX_POSITION
};
enum
{
	DJA_DUE_IX_TYPE = 1, DJA_DUE_IX_AT
};

#define DJA_KEY_MAX 512			/* bytes of an actor key */
#define DJA_TYPE_NAME_MAX 255	/* bytes of a type's name */

#endif							/* DJA_TABLES_H */
