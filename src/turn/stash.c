/*
 * stash.c
 *
 * stash() sets the message of the running turn aside.  unstash_all() puts all
 * messages that the actor has stashed back into its mailbox, where their ids sort
 * them before later ones.  The size of a stash is limited, since only its actor
 * empties it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "turn/turn.h"
#include "turn/turn_effects.h"
#include "xact/pending.h"

PG_FUNCTION_INFO_V1(dja_stash);
PG_FUNCTION_INFO_V1(dja_unstash_all);

#define DJA_STASH_MAX 1000		/* messages of one actor */

/*
 * Returns how many messages an actor has stashed.  The counter in memory may be too
 * high, since cancel() does not lower it.
 */
static int
dja_stash_count(DjaActor *actor)
{
	DjaScan		scan;
	int			n = 0;

	dja_aside_scan_begin(&scan, actor->type->hash, actor->key_hash);
	while (dja_scan_next(&scan))
	{
		DjaMessage *message = dja_scan_message(&scan);

		n += dja_message_is_aside(message, "stashed") && dja_text_equal(message->key, actor->key);
	}
	dja_scan_end(&scan);
	return n;
}

/*
 * stash(): the end of the turn sets the message aside.
 */
Datum
dja_stash(PG_FUNCTION_ARGS)
{
	dja_require_turn("stash()");
	if (dja_turn.actor->stashed >= DJA_STASH_MAX && !dja_turn_asks(DJA_TURN_UNSTASHED) &&
		dja_stash_count(dja_turn.actor) >= DJA_STASH_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("stash of actor %s \"%s\" is full", dja_turn.actor->type->name,
						text_to_cstring(dja_turn.actor->key)),
				 errdetail("It holds %d messages.", DJA_STASH_MAX),
				 errhint("Call djactor.unstash_all() before, or reject the message.")));
	dja_turn_ask(DJA_TURN_STASH);
	PG_RETURN_VOID();
}

/*
 * unstash_all(): returns how many messages it has put back.
 */
Datum
dja_unstash_all(PG_FUNCTION_ARGS)
{
	DjaActor   *actor = dja_turn.actor;
	DjaWriter  *writer;
	DjaScan		scan;
	int			n = 0;

	dja_require_turn("unstash_all()");
	if (actor->stashed == 0)
		PG_RETURN_INT32(0);
	writer = dja_writer_get(DJA_MESSAGE_TABLE);
	dja_aside_scan_begin(&scan, actor->type->hash, actor->key_hash);
	while (dja_scan_next(&scan))
	{
		DjaMessage *message = dja_scan_message(&scan);

		if (!dja_message_is_aside(message, "stashed") || !dja_text_equal(message->key, actor->key))
			continue;
		dja_message_set_aside(writer, message, NULL, DT_NOEND);
		dja_pending_mailbox(actor->type, actor->key_hash, message->position, 0);
		dja_pending_tenant(actor->type, actor->key_hash, message->values, message->nulls);
		n++;
	}
	dja_scan_end(&scan);
	dja_writer_put(writer);
	dja_turn_ask(DJA_TURN_UNSTASHED);
	dja_effect_request(DJA_EFFECT_REREAD, NULL, NULL)->claim = dja_batch_claim_of(actor);
	PG_RETURN_INT32(n);
}
