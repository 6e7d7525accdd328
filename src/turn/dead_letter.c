/*
 * dead_letter.c
 *
 * Gives messages up.
 *
 * Whatever ends a message answers its ask, lets a periodic timer go on and tells
 * the actor's watchers, in the same transaction.
 */
#include "postgres.h"

#include "base/clock.h"
#include "shmem/slots.h"
#include "shmem/stats.h"
#include "turn/dead_letter.h"
#include "turn/reply.h"
#include "turn/timer.h"
#include "turn/watch.h"

/*
 * Moves a message to djactor.dead_letter, with all that this means to others.
 * Watchers are told when the actor has failed at it, and not when it came too
 * late or was too much.
 */
void
dja_give_up(DjaType *type, DjaMessage *message, DjaFailure *failure)
{
	DjaWriter  *messages = dja_writer_get(DJA_MESSAGE_TABLE);
	DjaWriter  *dead_letters = dja_writer_get(DJA_DEAD_LETTER_TABLE);

	if (message->fired_meta == 0 && dja_message_is_kind(message, "timer"))
		(void) dja_timer_fires(message, dja_clock());
	dja_message_dead(messages, dead_letters, message, failure);
	message->state = DJA_MESSAGE_GONE;
	dja_writer_put(dead_letters);
	dja_writer_put(messages);

	if (dja_my_worker != NULL)
		dja_stat_count(&type->stat, DJA_STAT_DEAD);
	dja_answer_failure(message, failure->reason, failure->sqlerrcode, failure->error);
	if (dja_message_is_kind(message, "timer"))
		dja_timer_done(message, "dead");
	if (strcmp(failure->reason, "failed") == 0 || strcmp(failure->reason, "rejected") == 0 ||
		strcmp(failure->reason, "crashed") == 0)
		dja_watchers_tell(type, message->key, failure->reason, false);
}
