/*
 * turn_effects.c
 *
 * The effects of the running turn; see turn_effects.h.  turn.c carries them out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

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

DjaEffect *
dja_effect_request(DjaEffectKind kind, DjaActor *actor, DjaMessage *message)
{
	MemoryContext old = MemoryContextSwitchTo(dja_effects_context);
	DjaEffect  *effect = palloc(sizeof(DjaEffect));

	effect->kind = kind;
	effect->actor = actor;
	effect->message = message;
	effect->claim = NULL;
	effect->value = 0;
	effect->subid = GetCurrentSubTransactionId();
	dja_effects = lappend(dja_effects, effect);
	MemoryContextSwitchTo(old);
	return effect;
}

/*
 * The message has its answer; the reply, if it is one.
 */
void
dja_effect_answered(Datum reply)
{
	DjaEffect  *effect = dja_effect_request(DJA_EFFECT_ANSWERED, NULL, NULL);
	MemoryContext old = MemoryContextSwitchTo(dja_effects_context);

	if (reply != 0)
		effect->value = PointerGetDatum(PG_DETOAST_DATUM_COPY(reply));
	MemoryContextSwitchTo(old);
}

/*
 * The first effect of a kind that the running turn asks for, or NULL.
 */
DjaEffect *
dja_effect_requested(DjaEffectKind kind)
{
	ListCell   *lc;

	foreach(lc, dja_effects)
	{
		if (((DjaEffect *) lfirst(lc))->kind == kind)
			return lfirst(lc);
	}
	return NULL;
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

static void
dja_effects_subxact_callback(SubXactEvent event, SubTransactionId subid,
							 SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	foreach(lc, dja_effects)
	{
		DjaEffect  *effect = lfirst(lc);

		if (effect->subid != subid)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			dja_effects = foreach_delete_current(dja_effects, lc);
		else if (event == SUBXACT_EVENT_COMMIT_SUB)
			effect->subid = parent;
	}
}

void
dja_effects_init(void)
{
	RegisterSubXactCallback(dja_effects_subxact_callback, NULL);
}
