/*
 * wish.h
 *
 * What the running turn wants to happen at its end.  A wish shares the fate of
 * the subtransaction in which it was made: a handler may catch its own errors.
 */
#ifndef DJA_WISH_H
#define DJA_WISH_H

#include "actor.h"
#include "mailbox.h"

typedef enum DjaWishKind
{
	DJA_WISH_PAUSE,				/* an actor that the batch holds in memory */
	DJA_WISH_RESUME,
	DJA_WISH_STOP,				/* an actor that the batch holds, or the own
								 * one */
	DJA_WISH_DISCARD,			/* the same, its mail to be given up */
	DJA_WISH_GONE,				/* a message that the batch has read was
								 * cancelled */
	DJA_WISH_REREAD,			/* what was read of a mailbox is not what is
								 * there */
	DJA_WISH_UNSTASHED,			/* the own actor's stash was emptied */
	DJA_WISH_STASH,				/* the message */
	DJA_WISH_DEFER,				/* its answer */
	DJA_WISH_ANSWERED			/* it has its answer */
} DjaWishKind;

typedef struct DjaWish
{
	DjaWishKind kind;
	DjaActor   *actor;
	DjaMessage *message;
	struct DjaRun *run;
	Datum		value;			/* the reply, 0 = none */
	SubTransactionId subid;		/* with which it would be rolled back */
} DjaWish;

extern void dja_wishes_init(void);
extern void dja_wishes_begin(MemoryContext context);
extern DjaWish *dja_wish(DjaWishKind kind, DjaActor *actor, DjaMessage *message);
extern void dja_wish_answered(Datum reply);
extern DjaWish *dja_wished(DjaWishKind kind);
extern List *dja_wishes_take(void);

#endif							/* DJA_WISH_H */
