/*
 * system_message.c
 *
 * Inserts a message without the trigger and the rights of a sender, with the
 * kinds and meta that only djactor may write.  Like any sender's, it waits for
 * nobody's row, and is announced and pushed at the end of the transaction.
 *
 * Mailbox limits do not count here: an answer must not be lost because its
 * asker is busy.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/json.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "turn/system_message.h"
#include "turn/turn.h"
#include "xact/pending.h"
#include "xact/trace.h"

static void
dja_system_message_origin(const DjaSystemMessage *post, Datum *values, bool *nulls)
{
	DjaMessage *origin = post->origin ? post->origin : dja_turn.message;

	if (origin != NULL)
	{
		values[DJA_MSG_HEADERS - 1] = origin->values[DJA_MSG_HEADERS - 1];
		nulls[DJA_MSG_HEADERS - 1] = origin->nulls[DJA_MSG_HEADERS - 1];
		values[DJA_MSG_TRACE_ID - 1] = origin->values[DJA_MSG_TRACE_ID - 1];
		values[DJA_MSG_CAUSE_ID - 1] = Int64GetDatum(origin->id);
		nulls[DJA_MSG_CAUSE_ID - 1] = false;
	}
	else
		values[DJA_MSG_TRACE_ID - 1] = dja_trace_of_transaction();
	if (dja_turn.message != NULL)
		values[DJA_MSG_CAUSE_ID - 1] = Int64GetDatum(dja_turn.message->id);
}

/*
 * Sends it; the message's id, or 0 if there is no such type any more.
 */
int64
dja_send_system_message(const DjaSystemMessage *post)
{
	Datum		values[DJA_MSG_NATTS] = {0};
	bool		nulls[DJA_MSG_NATTS];
	text	   *sender_type = post->sender_type;
	text	   *sender_key = post->sender_key;
	uint64		type_hash = dja_hash_text(post->actor_type);
	DjaType    *type;
	DjaWriter  *writer;
	int64		id;

	/*
	 * No dropper of the type is passed by, see dja_type_lock; nor is he
	 * waited for by a worker, which has others' mail to handle.
	 */
	if (dja_my_worker == NULL)
		dja_type_lock(type_hash, AccessShareLock);
	else if (!dja_type_try_lock(type_hash))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("actor type \"%s\" is being dropped by another transaction",
						text_to_cstring(post->actor_type))));
	type = dja_type_by_hash(type_hash);
	if (type == NULL || !dja_type_is_named(type, post->actor_type))
		return 0;

	id = nextval_internal(dja_identity_sequence(DJA_MESSAGE_TABLE), false);
	memset(nulls, true, sizeof(nulls));
	values[DJA_MSG_ID - 1] = Int64GetDatum(id);
	values[DJA_MSG_ACTOR_TYPE - 1] = PointerGetDatum(post->actor_type);
	values[DJA_MSG_ACTOR_KEY - 1] = PointerGetDatum(post->actor_key);
	values[DJA_MSG_PAYLOAD - 1] = post->payload;
	values[DJA_MSG_PRIORITY - 1] = Int16GetDatum(0);
	values[DJA_MSG_WANTS_REPLY - 1] = BoolGetDatum(false);
	values[DJA_MSG_KIND - 1] = CStringGetTextDatum(post->kind);
	values[DJA_MSG_ATTEMPTS - 1] = Int32GetDatum(0);
	values[DJA_MSG_CRASHES - 1] = Int16GetDatum(0);
	values[DJA_MSG_REDRIVES - 1] = Int16GetDatum(0);
	values[DJA_MSG_SENT_AT - 1] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[DJA_MSG_RELEASED - 1] = BoolGetDatum(false);
	values[DJA_MSG_PUT_OFFS - 1] = Int32GetDatum(0);
	nulls[DJA_MSG_ID - 1] = nulls[DJA_MSG_ACTOR_TYPE - 1] = nulls[DJA_MSG_ACTOR_KEY - 1] =
		nulls[DJA_MSG_PAYLOAD - 1] = nulls[DJA_MSG_PRIORITY - 1] = nulls[DJA_MSG_WANTS_REPLY - 1] =
		nulls[DJA_MSG_TRACE_ID - 1] = nulls[DJA_MSG_KIND - 1] = nulls[DJA_MSG_ATTEMPTS - 1] =
		nulls[DJA_MSG_CRASHES - 1] = nulls[DJA_MSG_REDRIVES - 1] = nulls[DJA_MSG_SENT_AT - 1] =
		nulls[DJA_MSG_RELEASED - 1] = nulls[DJA_MSG_PUT_OFFS - 1] = false;
	dja_system_message_origin(post, values, nulls);
	nulls[DJA_MSG_META - 1] = post->meta == 0;
	values[DJA_MSG_META - 1] = post->meta;
	nulls[DJA_MSG_IN_REPLY_TO - 1] = post->in_reply_to == 0;
	values[DJA_MSG_IN_REPLY_TO - 1] = Int64GetDatum(post->in_reply_to);
	nulls[DJA_MSG_DELIVER_AT - 1] = post->deliver_at == 0;
	values[DJA_MSG_DELIVER_AT - 1] = TimestampTzGetDatum(post->deliver_at);
	if (sender_type == NULL && dja_turn.actor != NULL)
	{
		sender_type = cstring_to_text(dja_turn.actor->type->name);
		sender_key = dja_turn.actor->key;
	}
	nulls[DJA_MSG_SENDER_TYPE - 1] = nulls[DJA_MSG_SENDER_KEY - 1] = sender_type == NULL;
	values[DJA_MSG_SENDER_TYPE - 1] = PointerGetDatum(sender_type);
	values[DJA_MSG_SENDER_KEY - 1] = PointerGetDatum(sender_key);

	writer = dja_writer_get(DJA_MESSAGE_TABLE);
	dja_row_insert(writer, values, nulls);
	dja_writer_put(writer);
	if (post->deliver_at == 0)
		dja_pending_mailbox(type, dja_hash_text(post->actor_key), dja_position(0, id), 0);
	else
		dja_pending_due(type, post->deliver_at);
	CommandCounterIncrement();
	return id;
}
