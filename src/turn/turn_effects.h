/*
 * turn_effects.h
 *
 * Changes by the running turn to actors, messages and mailboxes that its batch
 * holds in memory.  A subtransaction that is rolled back takes the effects that
 * it has asked for along, since a handler may catch its own errors.  An effect
 * has three steps:
 *
 *   dja_effect_request		in the turn
 *   dja_effects_carry_out	at its end, in the tables; may fail, and the turn with it
 *   dja_effects_apply		in memory, once the turn cannot fail any more
 *
 * Requests of the turn about itself stand in DjaTurn.
 */
#ifndef DJA_TURN_EFFECTS_H
#define DJA_TURN_EFFECTS_H

#include "tables/actor.h"
#include "tables/message.h"

typedef enum DjaEffectKind
{
	DJA_EFFECT_PAUSE,			/* an actor that the batch holds in memory */
	DJA_EFFECT_RESUME,
	DJA_EFFECT_STOP,			/* an actor that the batch holds, or the own
								 * one */
	DJA_EFFECT_DISCARD,			/* the same, its mail to be given up */
	DJA_EFFECT_GONE,			/* a message that the batch has read was
								 * cancelled */
	DJA_EFFECT_REREAD			/* what was read of a mailbox is not what is
								 * there */
} DjaEffectKind;

typedef struct DjaEffect
{
	DjaEffectKind kind;
	DjaActor   *actor;
	DjaMessage *message;
	struct DjaClaim *claim;
	SubTransactionId subid;		/* with which it would be rolled back */
} DjaEffect;

extern void dja_effects_init(void);
extern void dja_effects_begin(MemoryContext context);
extern DjaEffect *dja_effect_request(DjaEffectKind kind, DjaActor *actor, DjaMessage *message);
extern void dja_effects_carry_out(DjaActor *self, DjaMessage *message);
extern List *dja_effects_take(void);
extern void dja_effects_apply(List *effects);
extern bool dja_effects_any(void);
extern Datum dja_effects_keep(Datum value);

#endif							/* DJA_TURN_EFFECTS_H */
