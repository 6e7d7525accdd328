/*
 * prepared_xacts.h
 *
 * What the transactions that are prepared owe the workers, each under its gid.
 */
#ifndef DJA_PREPARED_XACTS_H
#define DJA_PREPARED_XACTS_H

#include "datatype/timestamp.h"

#include "shmem/shmem.h"

#define DJA_GID_BYTES 200		/* GIDSIZE of the server */
#define DJA_PREPARED_TYPES 64	/* actor types of a transaction */
#define DJA_PREPARED_MAILBOXES 32

typedef struct DjaPreparedType
{
	uint64		type_hash;
	TimestampTz next_due;		/* DJA_NEVER = nothing is delayed */
	bool		sweep;			/* it has mail that is not in the list of
								 * mailboxes */
} DjaPreparedType;

typedef struct DjaPreparedMailbox
{
	uint64		key_hash;
	int64		position;		/* lowest */
	uint64		tenant_value;	/* 0 = not known */
	int			type;			/* index into the types */
} DjaPreparedMailbox;

typedef struct DjaPrepared
{
	char		gid[DJA_GID_BYTES];
	uint64		serial;			/* no other has it; 0 = free */
	int			next;			/* in its bucket, or in the free list */
	int			ntypes;
	int			nmailboxes;
	DjaPreparedType types[DJA_PREPARED_TYPES];
	DjaPreparedMailbox mailboxes[DJA_PREPARED_MAILBOXES];
} DjaPrepared;

extern Size dja_prepared_xacts_size(void);
extern void dja_prepared_xacts_setup(void *memory);

/* need the lock, and raise nothing */
extern DjaPrepared *dja_prepared_xact_find(const char *gid);
extern DjaPrepared *dja_prepared_xact_make(const char *gid);
extern void dja_prepared_xact_drop(const char *gid, uint64 serial);

#endif							/* DJA_PREPARED_XACTS_H */
