/*
 * system_message.c
 *
 * Messages that djactor itself sends.
 *
 * They are inserted without the trigger and the rights of a sender, with the kinds
 * and meta that only djactor may write.  As with any sender, no row is waited for,
 * and the end of the transaction announces and pushes the message.
 *
 * Mailbox limits do not apply, since an answer must not be lost when its asker is
 * busy.
 *
 * In a cluster the actor may live on another node, since one of the two has moved.  Then
 * the actor djactor_cluster.answers of this node sends the message on, as the role that
 * may do so.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/json.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "tables/place.h"
#include "turn/system_message.h"
#include "turn/turn.h"
#include "xact/pending.h"
#include "xact/trace.h"

/*
 * Fills in headers, trace and cause.
 */
static void
dja_system_message_origin(const DjaSystemMessage *post, Datum *values, bool *nulls)
{
	DjaMessage *origin = post->origin ? post->origin : dja_turn.message;

	if (origin != NULL)
	{
		dja_set_column(values, nulls, DJA_MSG_HEADERS, origin->values[DJA_MSG_HEADERS - 1],
					   origin->nulls[DJA_MSG_HEADERS - 1]);
		dja_set_column(values, nulls, DJA_MSG_TRACE_ID, origin->values[DJA_MSG_TRACE_ID - 1], false);
		dja_set_column(values, nulls, DJA_MSG_CAUSE_ID,
					   Int64GetDatum((dja_turn.message ? dja_turn.message : origin)->id), false);
	}
	else
		dja_set_column(values, nulls, DJA_MSG_TRACE_ID, dja_trace_of_transaction(), false);
}

/*
 * Sends a message to an actor of another node.
 */
static int64
dja_send_system_message_there(const DjaSystemMessage *post, int node)
{
	DjaSystemMessage parcel = *post;
	DjaPair		to[] = {
		DJA_PAIR_STRING("type", text_to_cstring(post->actor_type)),
		DJA_PAIR_STRING("key", text_to_cstring(post->actor_key)),
	};
	DjaPair		pairs[] = {
		{"to", NULL, DatumGetJsonbP(dja_json_object(to, lengthof(to))), 0, false},
		{"meta", NULL, post->meta == 0 ? NULL : DatumGetJsonbP(post->meta), 0, false},
	};

	Assert(post->deliver_at == 0);
	parcel.actor_type = cstring_to_text("djactor_cluster.answers");
	parcel.actor_key = cstring_to_text(psprintf("@%d/%d", dja_this_node(), node));
	parcel.meta = dja_json_object(pairs, lengthof(pairs));
	return dja_send_system_message(&parcel);
}

/*
 * Sends a message.  Returns its id, or 0 if its actor type does not exist any more.
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
	int64		id;

	if (!dja_hold_here(post->actor_key))
		return dja_send_system_message_there(post, dja_hold_node_of_key(post->actor_key));

	/*
	 * The lock keeps others from dropping the type meanwhile, see
	 * dja_type_lock.  A worker does not wait for a transaction that drops it,
	 * since there is other mail to handle.
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
	dja_set_column(values, nulls, DJA_MSG_ID, Int64GetDatum(id), false);
	dja_set_column(values, nulls, DJA_MSG_ACTOR_TYPE, PointerGetDatum(post->actor_type), false);
	dja_set_column(values, nulls, DJA_MSG_ACTOR_KEY, PointerGetDatum(post->actor_key), false);
	dja_set_column(values, nulls, DJA_MSG_PAYLOAD, post->payload, false);
	dja_set_column(values, nulls, DJA_MSG_PRIORITY, Int16GetDatum(0), false);
	dja_set_column(values, nulls, DJA_MSG_WANTS_REPLY, BoolGetDatum(false), false);
	dja_set_text(values, nulls, DJA_MSG_KIND, post->kind);
	dja_set_column(values, nulls, DJA_MSG_ATTEMPTS, Int32GetDatum(0), false);
	dja_set_column(values, nulls, DJA_MSG_CRASHES, Int16GetDatum(0), false);
	dja_set_column(values, nulls, DJA_MSG_REDRIVES, Int16GetDatum(0), false);
	dja_set_column(values, nulls, DJA_MSG_SENT_AT,
				   TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()), false);
	dja_set_column(values, nulls, DJA_MSG_RELEASED, BoolGetDatum(false), false);
	dja_set_column(values, nulls, DJA_MSG_PUT_OFFS, Int32GetDatum(0), false);
	dja_system_message_origin(post, values, nulls);
	dja_set_column(values, nulls, DJA_MSG_META, post->meta, post->meta == 0);
	dja_set_column(values, nulls, DJA_MSG_IN_REPLY_TO, Int64GetDatum(post->in_reply_to), post->in_reply_to == 0);
	dja_set_column(values, nulls, DJA_MSG_DELIVER_AT, TimestampTzGetDatum(post->deliver_at), post->deliver_at == 0);
	if (sender_type == NULL && dja_turn.actor != NULL)
	{
		sender_type = cstring_to_text(dja_turn.actor->type->name);
		sender_key = dja_turn.actor->key;
	}
	dja_set_column(values, nulls, DJA_MSG_SENDER_TYPE, PointerGetDatum(sender_type), sender_type == NULL);
	dja_set_column(values, nulls, DJA_MSG_SENDER_KEY, PointerGetDatum(sender_key), sender_type == NULL);

	dja_table_insert(DJA_MESSAGE_TABLE, values, nulls);
	if (post->deliver_at == 0)
	{
		uint64		key_hash = dja_hash_text(post->actor_key);

		dja_pending_mailbox(type, key_hash, dja_position(0, id), 0);
		dja_pending_tenant(type, key_hash, values, nulls);
	}
	else
		dja_pending_due(type, post->deliver_at);
	return id;
}
