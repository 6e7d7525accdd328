/*
 * mailbox_limit.c
 *
 * mailbox_limit of an actor type: a message that is sent to a full mailbox is an
 * error for its sender, or a dead letter (on_full).
 *
 * The run queue knows about how many messages wait.  Before one is refused they
 * are counted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"

#include "shmem/run_queue.h"
#include "sql/mailbox_limit.h"
#include "tables/message.h"
#include "turn/dead_letter.h"
#include "turn/turn.h"
#include "xact/pending.h"

/*
 * Returns how many messages of a mailbox the batch under way has handled, the
 * present one included.  Their rows are still there, but they wait no more.
 */
static int
dja_count_in_hand(DjaType *type, uint64 key_hash)
{
	DjaClaim   *claim = dja_batch_mailbox(type, key_hash);

	if (claim == NULL)
		return 0;
	return claim->freed + (dja_turn.actor->type == type && dja_turn.actor->key_hash == key_hash &&
						   dja_message_is_kind(dja_turn.message, "user"));
}

/*
 * Is there room in the mailbox for one more message?
 */
static bool
dja_mailbox_has_room(DjaType *type, uint64 key_hash, CommandId cid)
{
	int			limit = type->mailbox_limit + dja_count_in_hand(type, key_hash);
	int			base;
	bool		recount;
	int			mine = dja_pending_count(type, key_hash, &base, &recount);
	bool		known;
	int			type_queue;
	int			depth = -1;

	dja_pending_command(type, key_hash, cid);
	if (!recount)
	{
		dja_lock();
		type_queue = dja_type_queue_find(MyDatabaseId, type->hash);
		if (type_queue >= 0)
			depth = dja_queue_depth(type_queue, key_hash);
		dja_unlock();
	}
	known = depth >= 0 || base >= 0 || mine > 0;
	if (depth < 0)
		depth = base;
	if (depth < 0 || depth + mine >= limit)
	{
		depth = dja_message_count(type->hash, key_hash, DJA_CURSOR_START, limit + 1, cid, true);
		if (known)
		{
			mine = dja_pending_counted(type, key_hash, depth);
			return depth + mine < limit;
		}
	}
	dja_pending_set_base_depth(type, key_hash, depth);
	return depth + mine < limit;
}

/*
 * Moves a message that was just inserted to djactor.dead_letter.
 */
static void
dja_reject_full(DjaType *type, int64 id)
{
	DjaFailure	failure = {"mailbox_full", ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, NULL, NULL};
	DjaMessage *message;

	CommandCounterIncrement();
	message = dja_message_by_id(id, NULL);
	if (message != NULL)
	{
		failure.error = psprintf("the mailbox holds %d messages, the limit of actor type \"%s\"",
								 type->mailbox_limit, type->name);
		dja_give_up(type, message, &failure);
	}
}

bool
dja_take_mailbox_room(DjaType *type, text *key, int64 id, CommandId cid)
{
	if (type->mailbox_limit == 0 || dja_mailbox_has_room(type, dja_hash_text(key), cid))
		return true;
	if (!type->full_dead_letter)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("mailbox of actor %s \"%s\" is full", type->name, text_to_cstring(key)),
				 errdetail("The mailbox limit of the actor type is %d messages.", type->mailbox_limit),
				 errhint("Send again later, or define the actor type with a higher mailbox_limit."),
				 err_generic_string(PG_DIAG_SCHEMA_NAME, "djactor"),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "mailbox_limit")));
	dja_reject_full(type, id);
	return false;
}
