/*
 * turn_effects.h
 *
 * What the running turn wants to happen at its end.  An effect goes with the
 * subtransaction in which it was asked for: a handler may catch its own errors.
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
	DJA_EFFECT_REREAD,			/* what was read of a mailbox is not what is
								 * there */
	DJA_EFFECT_UNSTASHED,		/* the own actor's stash was emptied */
	DJA_EFFECT_STASH,			/* the message */
	DJA_EFFECT_DEFER,			/* its answer */
	DJA_EFFECT_ANSWERED			/* it has its answer */
} DjaEffectKind;

typedef struct DjaEffect
{
	DjaEffectKind kind;
	DjaActor   *actor;
	DjaMessage *message;
	struct DjaClaim *claim;
	Datum		value;			/* the reply, 0 = none */
	SubTransactionId subid;		/* with which it would be rolled back */
} DjaEffect;

extern void dja_effects_init(void);
extern void dja_effects_begin(MemoryContext context);
extern DjaEffect *dja_effect_request(DjaEffectKind kind, DjaActor *actor, DjaMessage *message);
extern void dja_effect_answered(Datum reply);
extern DjaEffect *dja_effect_requested(DjaEffectKind kind);
extern List *dja_effects_take(void);

#endif							/* DJA_TURN_EFFECTS_H */
