/*
 * hosted_check.c
 *
 * What a turn of a hosted type has to be checked for before it ends, whichever call
 * ends it: its token, its claim, its message, its actor.  See hosted.h.
 *
 * The rows are checked to be the versions that take() has handed out.  Nothing is
 * locked before the end of the turn.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "shmem/stats.h"
#include "turn/hosted.h"
#include "turn/turn.h"

const char *const dja_outcome_names[] = {
	[DJA_TURN_DONE] = "done",
	[DJA_TURN_STALE] = "stale",
	[DJA_TURN_CHANGED] = "changed",
	[DJA_TURN_GONE] = "gone",
	[DJA_TURN_HALTED] = "halted",
	[DJA_TURN_LOCKED] = "locked",
};

/*
 * Raises an error unless a turn of a hosted type can be begun or ended here.
 */
void
dja_require_hosting(void)
{
	dja_require_installed();
	PreventCommandIfReadOnly("a turn");
	if (dja_turn.actor != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a turn is under way in this transaction"),
				 errhint("Call djactor.end_turn() first.")));
}

/*
 * Attaches the transaction to the claim of a turn.  Returns NULL if the turn is stale.
 * Raises an error, which leaves the claim as it is, if the message is another one.
 */
DjaAttachedClaim *
dja_attach_turn(int64 token, int64 message_id)
{
	DjaAttachedClaim *attached = dja_hosted_attach(token);

	if (attached != NULL && !dja_token_fits(token, message_id))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message " INT64_FORMAT " is not the one of its token", message_id)));
	return attached;
}

/*
 * Takes the claim into the batch, and looks its type up.  Raises 42501 if the type is
 * another role's.
 */
DjaClaim *
dja_hosted_claim(DjaBatch *batch, DjaAttachedClaim *attached)
{
	DjaClaim   *claim = dja_batch_add(batch, attached->mailbox);

	claim->type = dja_type_by_hash(claim->type_hash);
	claim->was_read = true;
	claim->end = DJA_END_REMAINING;
	claim->cursor = DJA_CURSOR_START;
	if (claim->type != NULL && claim->type->owner != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("turns of actor type \"%s\" can only be run by its owner", claim->type->name)));
	return claim;
}

/*
 * Can a turn of this message go on, as far as the message says?
 */
DjaHostedOutcome
dja_message_outcome(DjaClaim *claim, DjaMessage *message)
{
	if (claim->type == NULL || message == NULL || !message->nulls[DJA_MSG_ASIDE - 1] ||
		message->retry_at > dja_clock())
		return DJA_TURN_GONE;
	if (!dja_type_is_named(claim->type, DatumGetTextPP(message->values[DJA_MSG_ACTOR_TYPE - 1])) ||
		dja_hash_text(message->key) != claim->key_hash)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message " INT64_FORMAT " is not the one of its token", message->id)));
	if (!claim->type->hosted || claim->type->paused)
		return DJA_TURN_HALTED;
	return TransactionIdIsValid(message->locker) ? DJA_TURN_LOCKED : DJA_TURN_DONE;
}

/*
 * ... and as far as its actor says?
 */
DjaHostedOutcome
dja_actor_outcome(DjaAttachedClaim *attached, DjaActor *actor)
{
	if (TransactionIdIsValid(actor->locker))
		return DJA_TURN_LOCKED;
	if (actor->paused || actor->suspended || actor->state_version > actor->type->state_version ||
		attached->state_version != actor->type->state_version)
		return DJA_TURN_HALTED;
	return dja_version_equal(dja_actor_version(actor), attached->actor) ? DJA_TURN_DONE : DJA_TURN_CHANGED;
}

/*
 * Notes a turn for djactor.stat.
 */
void
dja_hosted_count(DjaType *type, DjaMessage *message, TimestampTz started, TimestampTz now)
{
	TimestampTz due = DatumGetTimestampTz(message->values[DJA_MSG_SENT_AT - 1]);

	if (!message->nulls[DJA_MSG_DELIVER_AT - 1])
		due = Max(due, DatumGetTimestampTz(message->values[DJA_MSG_DELIVER_AT - 1]));
	dja_stat_handled(&type->stat, Max(started - due, 0), now - started);
}

/*
 * By how much does the end of a message free its mailbox's limit?
 */
int
dja_message_frees(DjaMessage *message)
{
	return message->plain || dja_message_is_kind(message, "user");
}
