/*
 * journal.h
 *
 * djactor.journal: the handled messages of types that keep a journal.
 */
#ifndef DJA_JOURNAL_H
#define DJA_JOURNAL_H

#include "tables/message.h"

#define DJA_NO_TURN (-1)		/* instead of the number of a turn */

extern void dja_journal_write(DjaMessage *message, int64 turn,
							  TimestampTz started_at, TimestampTz finished_at,
							  const char *outcome, Datum reply);

#endif							/* DJA_JOURNAL_H */
