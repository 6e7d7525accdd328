/*
 * deliver.h
 *
 * The lists between pending.c, which fills them while a transaction runs, and
 * deliver.c, which hands them to the run queue at its end.  Other files set single
 * flags for the end of the transaction.
 */
#ifndef DJA_DELIVER_H
#define DJA_DELIVER_H

#include "datatype/timestamp.h"

#include "shmem/rates.h"

typedef struct DjaPendingTypeQueue
{
	uint64		type_hash;
	Oid			owner;
	int			type_queue;		/* DJA_NO_TYPE_QUEUE until it is announced */
	bool		mail;			/* there may be some to handle now; noted
								 * before the commit */
	bool		sweep;			/* too many mailboxes to name */
	bool		notified;		/* our NOTIFY wakes its pool */
	bool		hosts_notified; /* our NOTIFY wakes its hosts */
	bool		changed;		/* the type was defined, dropped, paused,
								 * resumed */
	bool		dropped;
	bool		stopped;		/* by us, until the end of the transaction */
	bool		overflow;		/* announced as an overflow: swept or changed */
	int			concurrency;	/* if changed */
	int			batch_size;
	bool		hosted;
	bool		stateless;
	DjaRateOption rate;
	TimestampTz next_due;
} DjaPendingTypeQueue;

typedef struct DjaPendingMailbox
{
	uint64		key_hash;
	int64		position;		/* lowest */
	uint64		tenant_value;	/* 0 = not known */
	int			type_queue;		/* index into the type queues */
	int			mailbox;		/* as announced, before DJA_NO_MAILBOX */
	int			count;
	CommandId	command;		/* the latest command that sent to it ... */
	int			before;			/* ... and count before that */
	int			base_depth;		/* or DJA_NOT_COUNTED */
	bool		recount;		/* the run queue's depth has to be forgotten */
	int			bucket;
} DjaPendingMailbox;

typedef struct DjaPending
{
	DjaPendingTypeQueue *type_queues;
	int			ntype_queues;
	DjaPendingMailbox *mailboxes;
	int			nmailboxes;
	bool		drained;		/* claims of our own end with the transaction */
	bool		locks_out;		/* so do lockouts from databases */
	Oid			dropped;		/* a database; InvalidOid = none */
	bool		scout;			/* a scout is wanted, in */
	Oid			scout_database; /* ... this one, or in all */
	bool		scout_later;	/* ... which is new */
	bool		renew;			/* sessions of workers have to be replaced, in */
	Oid			renew_database; /* ... this database, or in all */
	Oid			renew_role;		/* ... of this role, or of all */
} DjaPending;

extern DjaPending dja_pending;

extern void dja_pending_reset(void);
extern void dja_deliver_init(void);
extern bool dja_can_notify(void);
extern void dja_notify_hosts(uint64 type_hash);

#endif							/* DJA_DELIVER_H */
