/*
 * progress.h
 *
 * What turns say about how far they are, for as long as they run.
 */
#ifndef DJA_PROGRESS_H
#define DJA_PROGRESS_H

#include "datatype/timestamp.h"

#include "shmem/shmem.h"

#define DJA_PROGRESS_BYTES 1024 /* of a value, as text */
#define DJA_MAX_PROGRESS 1024	/* turns at once */

typedef struct DjaProgress
{
	Oid			database;
	int64		message_id;		/* 0 = free */
	TimestampTz at;
	int			len;
	char text[	DJA_PROGRESS_BYTES];	/* of the jsonb, without a zero */
} DjaProgress;

extern Size dja_progress_size(void);
extern void dja_progress_setup(void *memory);

/* takes the lock */
extern bool dja_progress_copy(int i, DjaProgress *copy);
extern bool dja_progress_find(int64 message_id, DjaProgress *copy);

/* need the lock */
extern void dja_progress_put(Oid database, int64 message_id, const char *text, int len);
extern void dja_progress_drop(Oid database, int64 message_id);

#endif							/* DJA_PROGRESS_H */
