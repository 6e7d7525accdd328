/*
 * ranks.c
 *
 * Ranks: the list of a type queue that goes by priority.
 *
 * The mailboxes of one priority are a rank.  They stand next to each other in the
 * list, first in first out, and ranks of higher priorities stand before them.  Of each
 * rank its last mailbox is known, so that one is queued without a walk.  No rank is
 * empty.
 *
 * mailboxes.c calls what is here; it holds dja_shared->lock.
 */
#include "postgres.h"

#include "shmem/mailboxes.h"
#include "shmem/run_queue.h"

/*
 * Returns where the rank of a priority is among the ranks, or has to be made.
 */
static int
dja_rank_find(DjaTypeQueue *type_queue, int16 priority, bool *found)
{
	int			rank = 0;

	while (rank < type_queue->nranks && type_queue->ranks[rank].priority > priority)
		rank++;
	*found = rank < type_queue->nranks && type_queue->ranks[rank].priority == priority;
	return rank;
}

/*
 * Returns the rank that a mailbox is to join; it is made if it is not there.  If there
 * are too many, the mailbox joins the next lower one, or the lowest.
 */
static DjaRank *
dja_rank_for(DjaTypeQueue *type_queue, DjaMailbox *mailbox)
{
	bool		found;
	int			rank = dja_rank_find(type_queue, mailbox->priority, &found);

	if (!found && type_queue->nranks < DJA_MAX_RANKS)
	{
		memmove(&type_queue->ranks[rank + 1], &type_queue->ranks[rank],
				sizeof(DjaRank) * (size_t) (type_queue->nranks - rank));
		type_queue->nranks++;
		type_queue->ranks[rank].tail = DJA_NO_MAILBOX;
		type_queue->ranks[rank].priority = mailbox->priority;
	}
	rank = Min(rank, type_queue->nranks - 1);
	mailbox->priority = type_queue->ranks[rank].priority;
	return &type_queue->ranks[rank];
}

/*
 * Puts a mailbox into its rank, at the end or at the front.
 */
void
dja_rank_insert(DjaTypeQueue *type_queue, int i, bool at_front)
{
	DjaMailbox *mailbox = dja_mailbox(i);
	DjaRank    *rank = dja_rank_for(type_queue, mailbox);
	int			before = rank->tail;

	if (at_front || before < 0)
		before = rank == type_queue->ranks ? DJA_NO_MAILBOX : (rank - 1)->tail;
	dja_list_insert(&type_queue->queued, i, before);
	if (!at_front || rank->tail < 0)
		rank->tail = i;
}

/*
 * Takes a mailbox out of its rank, which ends if it was the only one.  It still is in the
 * list.
 */
void
dja_rank_remove(DjaTypeQueue *type_queue, int i)
{
	int			before = dja_mailbox(i)->list_prev;
	bool		found;
	int			rank;

	if (!type_queue->by_priority)
		return;
	rank = dja_rank_find(type_queue, dja_mailbox(i)->priority, &found);
	Assert(found);
	if (type_queue->ranks[rank].tail != i)
		return;
	if (before >= 0 && (rank == 0 || type_queue->ranks[rank - 1].tail != before))
		type_queue->ranks[rank].tail = before;
	else
		memmove(&type_queue->ranks[rank], &type_queue->ranks[rank + 1],
				sizeof(DjaRank) * (size_t) (--type_queue->nranks - rank));
}

/*
 * Has a type queue go by priority, or not.  What is queued stays as it is, and counts
 * as one rank.
 */
void
dja_type_queue_order(int i, bool by_priority)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	dja_assert_locked();
	if (type_queue->by_priority == by_priority)
		return;
	type_queue->by_priority = by_priority;
	type_queue->nranks = 0;
	if (!by_priority || type_queue->queued.length == 0)
		return;
	/* rare, so a walk is good enough */
	for (int m = type_queue->queued.head; m >= 0; m = dja_mailbox(m)->list_next)
		dja_mailbox(m)->priority = 0;
	type_queue->nranks = 1;
	type_queue->ranks[0].priority = 0;
	type_queue->ranks[0].tail = type_queue->queued.tail;
}
