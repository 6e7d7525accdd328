/*
 * turn_effects.c
 *
 * The effects of the running turn; see turn_effects.h.
 *
 * An effect may ask for another while it is carried out: the timers of a
 * stopped actor go, and with them firings that the batch has read.  That effect
 * is the same turn's, so the list is taken only when all of it has been carried
 * out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "turn/stop.h"
#include "turn/turn.h"
#include "turn/turn_effects.h"

static List *dja_effects = NIL;
static MemoryContext dja_effects_context = NULL;

/*
 * Forgets all effects; the next ones live in context.
 */
void
dja_effects_begin(MemoryContext context)
{
	dja_effects = NIL;
	dja_effects_context = context;
}

/*
 * Asks for an effect; returns it, to be completed.
 */
DjaEffect *
dja_effect_request(DjaEffectKind kind, DjaActor *actor, DjaMessage *message)
{
	MemoryContext old = MemoryContextSwitchTo(dja_effects_context);
	DjaEffect  *effect = palloc(sizeof(DjaEffect));

	Assert(dja_turn.actor != NULL);
	effect->kind = kind;
	effect->actor = actor;
	effect->message = message;
	effect->claim = NULL;
	effect->subid = GetCurrentSubTransactionId();
	dja_effects = lappend(dja_effects, effect);
	MemoryContextSwitchTo(old);
	return effect;
}

/*
 * Returns a copy of a value that lives as long as effects do.
 */
Datum
dja_effects_keep(Datum value)
{
	MemoryContext old = MemoryContextSwitchTo(dja_effects_context);
	Datum		copy = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));

	MemoryContextSwitchTo(old);
	return copy;
}

bool
dja_effects_any(void)
{
	return dja_effects != NIL;
}

/*
 * Takes all effects off the list.
 */
List *
dja_effects_take(void)
{
	List	   *effects = dja_effects;

	dja_effects = NIL;
	return effects;
}

/*
 * Returns the first request to stop an actor, or NULL.  However many there are, the
 * actor ends once.  *discard: does one of them say so?
 */
static DjaEffect *
dja_first_stop(DjaActor *actor, bool *discard)
{
	DjaEffect  *first = NULL;
	ListCell   *lc;

	*discard = false;
	foreach(lc, dja_effects)
	{
		DjaEffect  *effect = lfirst(lc);

		if (effect->actor != actor || (effect->kind != DJA_EFFECT_STOP && effect->kind != DJA_EFFECT_DISCARD))
			continue;
		if (first == NULL)
			first = effect;
		*discard |= effect->kind == DJA_EFFECT_DISCARD;
	}
	return first;
}

/*
 * Carries out the effects of a turn in the tables.  self and message are the turn's.
 */
void
dja_effects_carry_out(DjaActor *self, DjaMessage *message)
{
	/* the list may grow meanwhile */
	for (int i = 0; i < list_length(dja_effects); i++)
	{
		DjaEffect  *effect = list_nth(dja_effects, i);
		bool		discard;

		if (effect->actor != NULL && effect == dja_first_stop(effect->actor, &discard))
			dja_actor_end(dja_batch_claim_of(effect->actor), effect->actor,
						  effect->actor == self ? message : NULL, discard);
	}
}

/*
 * Applies effects in the batch's memory.  No abort undoes this, so the turn must not
 * be able to fail any more.
 */
void
dja_effects_apply(List *effects)
{
	ListCell   *lc;

	Assert(dja_turn.actor == NULL && dja_effects == NIL);
	foreach(lc, effects)
	{
		DjaEffect  *effect = lfirst(lc);

		switch (effect->kind)
		{
			case DJA_EFFECT_PAUSE:
			case DJA_EFFECT_RESUME:
				effect->actor->paused = effect->kind == DJA_EFFECT_PAUSE;
				if (!effect->actor->paused)
					effect->actor->suspended = false;
				effect->actor->dirty = true;
				break;
			case DJA_EFFECT_STOP:
			case DJA_EFFECT_DISCARD:
				/* what was read of its mailbox is not what is there */
				dja_batch_claim_of(effect->actor)->reread = true;
				dja_actor_reset(effect->actor);
				break;
			case DJA_EFFECT_GONE:
				effect->message->state = DJA_MESSAGE_GONE;
				break;
			case DJA_EFFECT_REREAD:
				effect->claim->reread = true;
				break;
		}
	}
}

static void
dja_effects_subxact_callback(SubXactEvent event, SubTransactionId subid,
							 SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(lc, dja_effects)
	{
		DjaEffect  *effect = lfirst(lc);

		if (effect->subid != subid)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			dja_effects = foreach_delete_current(dja_effects, lc);
		else
			effect->subid = parent;
	}
	dja_turn_subxact_ended(event == SUBXACT_EVENT_COMMIT_SUB, subid, parent);
}

void
dja_effects_init(void)
{
	RegisterSubXactCallback(dja_effects_subxact_callback, NULL);
}
