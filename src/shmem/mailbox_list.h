/*
 * mailbox_list.h
 *
 * Lists of mailboxes, linked by index: those of a type queue, those that are put off,
 * those behind others of their tenant.  A mailbox is in one list at most.
 *
 * For the files that mailboxes.h names.  Every function needs dja_shared->lock.
 */
#ifndef DJA_MAILBOX_LIST_H
#define DJA_MAILBOX_LIST_H

#include "shmem/run_queue.h"

static inline void
dja_list_clear(DjaMailboxList *list)
{
	list->head = list->tail = DJA_NO_MAILBOX;
	list->length = 0;
}

/*
 * Inserts a mailbox behind another one; DJA_NO_MAILBOX: at the front.
 */
static inline void
dja_list_insert(DjaMailboxList *list, int i, int before)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	mailbox->list_prev = before;
	mailbox->list_next = before < 0 ? list->head : dja_mailbox(before)->list_next;
	if (before < 0)
		list->head = i;
	else
		dja_mailbox(before)->list_next = i;
	if (mailbox->list_next < 0)
		list->tail = i;
	else
		dja_mailbox(mailbox->list_next)->list_prev = i;
	list->length++;
}

static inline void
dja_list_append(DjaMailboxList *list, int i)
{
	dja_list_insert(list, i, list->tail);
}

static inline void
dja_list_remove(DjaMailboxList *list, int i)
{
	DjaMailbox *mailbox = dja_mailbox(i);

	Assert(list->length > 0);
	if (mailbox->list_prev < 0)
		list->head = mailbox->list_next;
	else
		dja_mailbox(mailbox->list_prev)->list_next = mailbox->list_next;
	if (mailbox->list_next < 0)
		list->tail = mailbox->list_prev;
	else
		dja_mailbox(mailbox->list_next)->list_prev = mailbox->list_prev;
	list->length--;
	Assert((list->length == 0) == (list->head < 0) && (list->head < 0) == (list->tail < 0));
}

#endif							/* DJA_MAILBOX_LIST_H */
