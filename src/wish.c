/*
 * wish.c
 *
 * The running turn's wishes; see wish.h.  turn.c fulfils them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "wish.h"

static List *dja_wishes = NIL;
static MemoryContext dja_wishes_context = NULL;

/*
 * Forgets all wishes; the next ones live in context.
 */
void
dja_wishes_begin(MemoryContext context)
{
	dja_wishes = NIL;
	dja_wishes_context = context;
}

DjaWish *
dja_wish(DjaWishKind kind, DjaActor *actor, DjaMessage *message)
{
	MemoryContext old = MemoryContextSwitchTo(dja_wishes_context);
	DjaWish    *wish = palloc(sizeof(DjaWish));

	wish->kind = kind;
	wish->actor = actor;
	wish->message = message;
	wish->run = NULL;
	wish->value = 0;
	wish->subid = GetCurrentSubTransactionId();
	dja_wishes = lappend(dja_wishes, wish);
	MemoryContextSwitchTo(old);
	return wish;
}

/*
 * The message has its answer; the reply, if it is one.
 */
void
dja_wish_answered(Datum reply)
{
	DjaWish    *wish = dja_wish(DJA_WISH_ANSWERED, NULL, NULL);
	MemoryContext old = MemoryContextSwitchTo(dja_wishes_context);

	if (reply != 0)
		wish->value = PointerGetDatum(PG_DETOAST_DATUM_COPY(reply));
	MemoryContextSwitchTo(old);
}

/*
 * The first wish of a kind that the running turn has, NULL without.
 */
DjaWish *
dja_wished(DjaWishKind kind)
{
	ListCell   *lc;

	foreach(lc, dja_wishes)
	{
		if (((DjaWish *) lfirst(lc))->kind == kind)
			return lfirst(lc);
	}
	return NULL;
}

/*
 * All wishes, which are wishes no more.
 */
List *
dja_wishes_take(void)
{
	List	   *wishes = dja_wishes;

	dja_wishes = NIL;
	return wishes;
}

static void
dja_wish_subxact_callback(SubXactEvent event, SubTransactionId subid,
						  SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	foreach(lc, dja_wishes)
	{
		DjaWish    *wish = lfirst(lc);

		if (wish->subid != subid)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			dja_wishes = foreach_delete_current(dja_wishes, lc);
		else if (event == SUBXACT_EVENT_COMMIT_SUB)
			wish->subid = parent;
	}
}

void
dja_wishes_init(void)
{
	RegisterSubXactCallback(dja_wish_subxact_callback, NULL);
}
