/*
 * turn_effects.c
 *
 * The effects of the running turn; see turn_effects.h.
 *
 * Carrying one out may ask for another: a stopped actor's timers go, and with them
 * firings that the batch has read.  Such an effect is one more of the same turn, so
 * the list is taken only when all of it has been carried out.
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
 * A copy of a value that lives as long as effects do.
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
 * The first request to stop an actor.  However many there are, it ends once; with
 * discard, if one of them says so.
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
 * Carries out in the tables what the turn has asked for.
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
 * Applies effects to what the batch holds in memory: once the turn cannot fail any
 * more, for no abort undoes this.
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
