/*
 * breaker.c
 *
 * The breaker of a type (contract 14): when more than breaker_failures attempts
 * have failed within breaker_window, what is broken is the handler or what it
 * depends on, not the messages.  So the type is paused, with a logged reason,
 * instead of its mail being driven into dead letters.
 *
 * Failed attempts of all workers are counted in its type queue, in eight parts
 * of the window: the oldest part drops out as a whole, so the window is between
 * seven eighths and all of what was asked for.  An attempt counts when it
 * fails, whatever becomes of the transaction that writes it down.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/clock.h"
#include "shmem/run_queue.h"
#include "shmem/shmem.h"
#include "turn/breaker.h"
#include "xact/pending.h"

/*
 * Counts one failure; how many there have been in the window.
 */
static int
dja_breaker_failures(int type_queue_id, DjaType *type)
{
	int64		part = dja_clock() / Max(1, type->breaker_window / DJA_BREAKER_PARTS);
	int			failures = 0;
	DjaTypeQueue *type_queue;

	dja_lock();
	type_queue = dja_type_queue(type_queue_id);

	/*
	 * forget the parts since the last failure; a clock put back a little
	 * changes nothing
	 */
	if (part - type_queue->failure_part >= DJA_BREAKER_PARTS ||
		type_queue->failure_part - part >= DJA_BREAKER_PARTS)
	{
		memset(type_queue->failures, 0, sizeof(type_queue->failures));
		type_queue->failure_part = part;
	}
	else
		for (int64 p = type_queue->failure_part + 1; p <= part; p++)
			type_queue->failures[p % DJA_BREAKER_PARTS] = 0;
	type_queue->failure_part = Max(type_queue->failure_part, part);
	type_queue->failures[type_queue->failure_part % DJA_BREAKER_PARTS]++;
	for (int i = 0; i < DJA_BREAKER_PARTS; i++)
		failures += type_queue->failures[i];
	dja_unlock();
	return failures;
}

/*
 * An attempt at a message of this type has failed.  Part of the transaction
 * that writes the failure down.
 */
void
dja_breaker_count(int type_queue, DjaType *type)
{
	char	   *reason;

	if (type->breaker_failures == 0 ||
		dja_breaker_failures(type_queue, type) <= type->breaker_failures || type->paused)
		return;
	reason = psprintf("breaker: more than %d failed attempts within %s", type->breaker_failures,
					  dja_interval_string(type->breaker_window));
	/* a definer's open transaction keeps us from it: the next failure, then */
	if (!dja_type_pause(type, reason))
		return;
	dja_pending_type(type->hash, type->owner);
	ereport(LOG,
			(errmsg("actor type \"%s\" is paused: more than %d attempts have failed within %s",
					type->name, type->breaker_failures, dja_interval_string(type->breaker_window)),
			 errhint("Mend what its handler depends on, then use djactor.resume().")));
}
