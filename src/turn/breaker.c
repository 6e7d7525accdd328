/*
 * breaker.c
 *
 * The breaker of a type (contract 14).
 *
 * If more than breaker_failures attempts have failed within breaker_window, the
 * messages are not at fault.  The handler is broken, or something that it depends
 * on.  So the type is paused, with a logged reason, before its mail becomes dead
 * letters.
 *
 * The failed attempts of all workers are counted in the type queue, in eight parts
 * of the window.  The oldest part drops out as a whole, so the window is between
 * seven eighths and all of breaker_window.  An attempt counts when it fails, even if
 * the transaction that records the failure aborts.
 */
#include "postgres.h"

#include "base/clock.h"
#include "shmem/run_queue.h"
#include "shmem/shmem.h"
#include "turn/breaker.h"
#include "xact/pending.h"

/*
 * Counts one failure.  Returns how many there have been in the window.  Takes the
 * lock.
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
	 * forget the parts since the last failure; a clock that was put back a
	 * little changes nothing
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
 * Counts a failed attempt at a message of this type, and pauses the type if there
 * were too many.  Needs the transaction that records the failure.
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
	/* not while another transaction defines it: the next failure tries again */
	if (!dja_type_pause(type, reason))
		return;
	dja_pending_type(type->hash, type->owner);
	ereport(LOG,
			(errmsg("actor type \"%s\" is paused: more than %d attempts have failed within %s",
					type->name, type->breaker_failures, dja_interval_string(type->breaker_window)),
			 errhint("Mend what its handler depends on, then use djactor.resume().")));
}
