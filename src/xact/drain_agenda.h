/*
 * drain_agenda.h
 *
 * What a drain() has still to look at.
 */
#ifndef DJA_DRAIN_AGENDA_H
#define DJA_DRAIN_AGENDA_H

#include "datatype/timestamp.h"
#include "storage/itemptr.h"

/* A mailbox that may have mail. */
typedef struct DjaAgendaItem
{
	struct
	{
		uint64		type_hash;
		uint64		key_hash;
	}			key;
	int64		cursor;			/* nothing waits below */
	ItemPointerData tid;		/* of the message there, if known */
} DjaAgendaItem;

/* A type. */
typedef struct DjaAgendaType
{
	uint64		type_hash;
	bool		swept;			/* its mailboxes are known */
	TimestampTz from;			/* no message due before has to be released */
} DjaAgendaType;

extern void dja_agenda_begin(void);
extern void dja_agenda_end(void);
extern DjaAgendaType *dja_agenda_type(uint64 type_hash);
extern uint64 *dja_agenda_keys(uint64 type_hash, int *n);
extern bool dja_agenda_take(uint64 type_hash, uint64 key_hash, DjaAgendaItem *taken);
extern void dja_agenda_keep(const DjaAgendaItem *item);

/* called by senders and others; without a drain() under way they do nothing */
extern void dja_agenda_mail(uint64 type_hash, uint64 key_hash, int64 position);
extern void dja_agenda_due(uint64 type_hash, TimestampTz due);
extern void dja_agenda_afresh(void);

#endif							/* DJA_DRAIN_AGENDA_H */
