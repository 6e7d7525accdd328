/*
 * prepared.c
 *
 * Messages sent in prepared transactions.  What their session has noted in pending.c
 * is gone by the time of COMMIT PREPARED, which another session may run.  So PREPARE
 * writes it down in shared memory, under the transaction's gid, and COMMIT PREPARED
 * does with it what deliver.c does at the end of any other transaction: it announces
 * the mailboxes before the rows become visible, and pushes them afterwards.
 *
 * Only a few mailboxes are written down.  A type with more of them is swept, as it is
 * after a commit that has sent to too many.  The server may not know a gid: after a
 * restart, after a failover, or if the transaction had mail for too many types.  Then
 * all type queues of the database are swept.
 *
 * The gid is known to the utility hook (sql/utility_prepared.c), and the transaction's
 * mail until the callback at its end.  That callback comes when the transaction is
 * prepared for good, and before any session can finish it.  An ERROR there would not undo
 * it, and an ERROR behind the commit of COMMIT PREPARED would be a PANIC, or hide what
 * has happened.  So nothing is allocated here, and nothing raises.
 *
 * Others may finish a gid, and use it again, between the look at its entry and the
 * command.  The entry's serial number tells, and then all type queues are swept, too.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"

#include "shmem/copy_shmem.h"
#include "shmem/prepared_xacts.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"
#include "xact/deliver.h"
#include "xact/prepared.h"

/* The gid under which this transaction is about to be prepared; empty = none. */
static char dja_gid[DJA_GID_BYTES];

/* What goes on while a prepared transaction is finished. */
typedef enum DjaFinishing
{
	DJA_FINISHING_NOTHING,
	DJA_ROLLING_BACK,
	DJA_COMMITTING,				/* with an entry */
	DJA_COMMITTING_UNKNOWN		/* without */
} DjaFinishing;

static DjaFinishing dja_finishing = DJA_FINISHING_NOTHING;
static DjaPrepared dja_finished;	/* a copy of its entry; serial 0 = it has
									 * none */
static int	dja_finished_type_queues[DJA_PREPARED_TYPES];	/* or DJA_NO_TYPE_QUEUE */
static int	dja_finished_mailboxes[DJA_PREPARED_MAILBOXES]; /* as announced */
static int	dja_counted[DJA_MAX_TYPE_QUEUES];	/* those that count an
												 * overflow */
static int	dja_ncounted = 0;

static void dja_prepared_exit(int code, Datum arg);

/* ---------- PREPARE TRANSACTION ---------- */

/*
 * Notes under which gid the transaction will be prepared when its command ends.
 */
void
dja_prepared_gid(const char *gid)
{
	if (strlen(gid) < DJA_GID_BYTES)	/* else the server refuses it */
		strlcpy(dja_gid, gid, DJA_GID_BYTES);
}

/*
 * Forgets it, when the transaction has ended, however it has.
 */
void
dja_prepared_forget(void)
{
	dja_gid[0] = '\0';
}

/*
 * Writes down what the transaction owes, once it is prepared.  That is done for one
 * without mail, too, so that nothing is swept for it.  Raises nothing.
 */
void
dja_prepared_write(void)
{
	DjaPrepared *entry;

	if (dja_gid[0] == '\0')
		return;
	dja_lock();
	if (dja_pending.ntype_queues > DJA_PREPARED_TYPES)
		dja_prepared_xact_drop(dja_gid, 0);
	else if ((entry = dja_prepared_xact_make(dja_gid)) != NULL)
	{
		bool		named = dja_pending.nmailboxes <= DJA_PREPARED_MAILBOXES;

		entry->ntypes = dja_pending.ntype_queues;
		for (int i = 0; i < entry->ntypes; i++)
		{
			entry->types[i].type_hash = dja_pending.type_queues[i].type_hash;
			entry->types[i].next_due = dja_pending.type_queues[i].next_due;
			entry->types[i].sweep = dja_pending.type_queues[i].sweep;
		}
		for (int i = 0; i < dja_pending.nmailboxes; i++)
		{
			DjaPendingMailbox *mailbox = &dja_pending.mailboxes[i];
			DjaPreparedMailbox *written;

			if (!named)
			{
				entry->types[mailbox->type_queue].sweep = true;
				continue;
			}
			written = &entry->mailboxes[entry->nmailboxes++];
			written->key_hash = mailbox->key_hash;
			written->position = mailbox->position;
			written->tenant_value = mailbox->tenant_value;
			written->type = mailbox->type_queue;
		}
	}
	dja_unlock();
}

/* ---------- COMMIT PREPARED, ROLLBACK PREPARED ---------- */

static void
dja_count_overflow(int type_queue)
{
	dja_counted[dja_ncounted++] = type_queue;
	dja_type_queue(type_queue)->overflows++;
}

/*
 * Announces the mail of the transaction whose entry was copied.
 */
static void
dja_finished_announce(void)
{
	for (int i = 0; i < dja_finished.ntypes; i++)
	{
		int			type_queue = dja_type_queue_find(MyDatabaseId, dja_finished.types[i].type_hash);

		dja_finished_type_queues[i] = type_queue;
		if (type_queue >= 0 && dja_finished.types[i].sweep)
			dja_count_overflow(type_queue);
	}
	for (int i = 0; i < dja_finished.nmailboxes; i++)
	{
		DjaPreparedMailbox *mailbox = &dja_finished.mailboxes[i];
		int			type_queue = dja_finished_type_queues[mailbox->type];

		if (type_queue >= 0)
			dja_finished_mailboxes[i] = dja_queue_announce(type_queue, mailbox->key_hash,
														   mailbox->position, mailbox->tenant_value);
	}
}

/*
 * Begins to finish a prepared transaction.  dja_prepared_end() has to follow, also
 * after an error.  A type queue with an overflow, or with a mailbox that is announced,
 * keeps its slot in between.
 */
void
dja_prepared_begin(const char *gid, bool commit)
{
	static bool registered = false;
	DjaPrepared *entry;

	if (!registered)
		before_shmem_exit(dja_prepared_exit, (Datum) 0);
	registered = true;
	Assert(dja_finishing == DJA_FINISHING_NOTHING);

	dja_lock();
	entry = dja_prepared_xact_find(gid);
	if (entry != NULL)
		dja_finished = *entry;
	else
		dja_finished.serial = 0;
	if (!commit)
		dja_finishing = DJA_ROLLING_BACK;
	else if (entry != NULL)
	{
		dja_finishing = DJA_COMMITTING;
		dja_finished_announce();
	}
	else
	{
		dja_finishing = DJA_COMMITTING_UNKNOWN;
		for (int i = 0; i < DJA_MAX_TYPE_QUEUES; i++)
			if (dja_type_queue(i)->in_use && dja_type_queue(i)->database == MyDatabaseId)
				dja_count_overflow(i);
	}
	dja_unlock();
}

static void
dja_wake_for(int i)
{
	DjaTypeQueue *type_queue = dja_type_queue(i);

	if (type_queue->in_use && !type_queue->blocked)
		dja_wake_pool(type_queue->pool);
}

/*
 * Pushes what was announced.  After an error that is a false alarm at worst.
 */
static void
dja_finished_deliver(void)
{
	for (int i = 0; i < dja_finished.nmailboxes; i++)
	{
		DjaPreparedMailbox *mailbox = &dja_finished.mailboxes[i];
		int			type_queue = dja_finished_type_queues[mailbox->type];

		if (type_queue >= 0)
			dja_queue_push(type_queue, dja_finished_mailboxes[i], mailbox->key_hash,
						   mailbox->position, DJA_DEPTH_UNKNOWN, DJA_NOT_COUNTED, mailbox->tenant_value);
	}
	for (int i = 0; i < dja_finished.ntypes; i++)
	{
		DjaPreparedType *type = &dja_finished.types[i];
		int			type_queue = dja_type_queue_find(MyDatabaseId, type->type_hash);

		if (type_queue < 0)
			continue;

		/*
		 * it has been made meanwhile, with a sweep that may have come too
		 * early
		 */
		if (type_queue != dja_finished_type_queues[i])
			dja_type_queue(type_queue)->sweep_wanted = true;
		dja_type_queue(type_queue)->next_due = Min(dja_type_queue(type_queue)->next_due, type->next_due);
		dja_wake_for(type_queue);
	}
}

static void
dja_sweep_all(void)
{
	for (int i = 0; i < DJA_MAX_TYPE_QUEUES; i++)
	{
		DjaTypeQueue *type_queue = dja_type_queue(i);

		if (!type_queue->in_use || type_queue->database != MyDatabaseId)
			continue;
		type_queue->sweep_wanted = true;
		type_queue->next_due = DT_NOBEGIN;
		dja_wake_for(i);
	}
}

/*
 * Ends what dja_prepared_begin() has begun.  done: the command has succeeded.  Raises
 * nothing.
 */
void
dja_prepared_end(bool done)
{
	DjaFinishing finishing = dja_finishing;
	DjaPrepared *entry;
	bool		same;

	if (finishing == DJA_FINISHING_NOTHING)
		return;
	dja_finishing = DJA_FINISHING_NOTHING;
	dja_lock();
	entry = dja_finished.serial != 0 ? dja_prepared_xact_find(dja_finished.gid) : NULL;
	same = entry != NULL && entry->serial == dja_finished.serial;
	if (finishing != DJA_ROLLING_BACK)
	{
		while (dja_ncounted > 0)
			dja_queue_overflow_over(dja_counted[--dja_ncounted]);
		if (finishing == DJA_COMMITTING)
			dja_finished_deliver();
		if (finishing == DJA_COMMITTING_UNKNOWN || !same)
			dja_sweep_all();
	}
	if (done && same)
		dja_prepared_xact_drop(dja_finished.gid, dja_finished.serial);
	dja_unlock();
	if (finishing != DJA_ROLLING_BACK)
		dja_copy_recheck();
}

static void
dja_prepared_exit(int code, Datum arg)
{
	dja_prepared_end(false);
}
