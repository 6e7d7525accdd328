/*
 * hosted_take.c
 *
 * take(): claims mailboxes for a host, and hands their messages out.
 *
 * It reads a mailbox as a worker does (read.c), and settles what needs no turn: what
 * has expired, duplicates, timers that were cancelled.  Where a worker would call the
 * handler it hands the message out.  If the transaction aborts, all claims go back.
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "shmem/copy_shmem.h"
#include "shmem/rates.h"
#include "turn/coalesce.h"
#include "turn/hosted.h"
#include "turn/hosted_session.h"
#include "turn/turn.h"
#include "turn/turn_timeout.h"

PG_FUNCTION_INFO_V1(dja_take);

#define DJA_TAKE_LOOKS 100		/* at a queue that others change and empty
								 * meanwhile; at mailboxes of which only what
								 * needs no turn was read */
#define DJA_TAKE_AGAIN 100		/* such mailboxes, and messages that are read
								 * of each then */

/* A call of take(), or of drain_take(). */
typedef struct DjaTaking
{
	int			host;			/* DJA_NO_HOST: the transaction drains */
	int64		host_id;
	int			claim;			/* of the mailbox that is drained */
	int			mailboxes;
	int			messages;
	int			each;			/* messages of the present mailbox */
	ReturnSetInfo *rsinfo;
	int			turns;			/* handed out so far */
	int			settled;		/* messages that need no turn */
	int			again[DJA_TAKE_AGAIN];	/* claims to be read once more */
	int			nagain;
} DjaTaking;

static void
dja_put_column(int column, Datum value, bool isnull, Datum *values, bool *nulls)
{
	values[column] = value;
	nulls[column] = isnull;
}

static inline void
dja_put_message_column(int column, DjaMessage *message, int attnum, Datum *values, bool *nulls)
{
	dja_put_column(column, message->values[attnum - 1], message->nulls[attnum - 1], values, nulls);
}

/*
 * Hands a message out as a row.
 */
static void
dja_hand_out(DjaTaking *taking, DjaClaim *claim, DjaMessage *message, DjaActor *actor, int i, int ordinal)
{
	bool		first = ordinal == 1;
	DjaType    *type = claim->type;
	Interval	limit = {0};
	Datum		values[DJA_TAKE_NCOLUMNS];
	bool		nulls[DJA_TAKE_NCOLUMNS] = {0};

	limit.time = (int64) type->handler_timeout * 1000;
	values[0] = Int64GetDatum(dja_host_token(i, ordinal, message->id));
	values[1] = Int64GetDatum(dja_host_token(i, 0, 0));
	dja_put_message_column(2, message, DJA_MSG_ID, values, nulls);
	dja_put_message_column(3, message, DJA_MSG_ACTOR_TYPE, values, nulls);
	dja_put_message_column(4, message, DJA_MSG_ACTOR_KEY, values, nulls);
	values[5] = BoolGetDatum(first);
	dja_put_column(6, actor->state, !first, values, nulls);
	dja_put_column(7, BoolGetDatum(actor->exists), !first, values, nulls);
	dja_put_column(8, Int64GetDatum(actor->turns), !first, values, nulls);
	dja_put_column(9, Int32GetDatum(actor->state_version),
				   !first || actor->state_version >= type->state_version, values, nulls);
	dja_put_message_column(10, message, DJA_MSG_PAYLOAD, values, nulls);
	dja_put_message_column(11, message, DJA_MSG_HEADERS, values, nulls);
	nulls[11] |= !nulls[11] && JB_ROOT_COUNT(DatumGetJsonbP(values[11])) == 0;
	dja_put_message_column(12, message, DJA_MSG_TRACE_ID, values, nulls);
	dja_put_message_column(13, message, DJA_MSG_KIND, values, nulls);
	dja_put_message_column(14, message, DJA_MSG_META, values, nulls);
	if (message->fired_meta != 0)
		dja_put_column(14, message->fired_meta, false, values, nulls);
	dja_put_message_column(15, message, DJA_MSG_ATTEMPTS, values, nulls);
	dja_put_message_column(16, message, DJA_MSG_WANTS_REPLY, values, nulls);
	dja_put_message_column(17, message, DJA_MSG_SENDER_TYPE, values, nulls);
	dja_put_message_column(18, message, DJA_MSG_SENDER_KEY, values, nulls);
	dja_put_message_column(19, message, DJA_MSG_CAUSE_ID, values, nulls);
	dja_put_message_column(20, message, DJA_MSG_IN_REPLY_TO, values, nulls);
	dja_put_message_column(21, message, DJA_MSG_PRIORITY, values, nulls);
	dja_put_message_column(22, message, DJA_MSG_SENT_AT, values, nulls);
	dja_put_column(23, IntervalPGetDatum(&limit), type->handler_timeout == 0, values, nulls);
	tuplestore_putvalues(taking->rsinfo->setResult, taking->rsinfo->setDesc, values, nulls);
	taking->turns++;
}

/*
 * May a message that has crashed a process be handed out with this claim?  Only if the
 * host holds nothing else, and takes nothing else meanwhile.
 */
static bool
dja_take_alone(DjaTaking *taking, int i)
{
	bool		sole;

	if (taking->host < 0)
		return true;
	dja_lock();
	sole = dja_host(taking->host)->nclaims == 1;
	if (sole)
		dja_host_claim(i)->alone = dja_host(taking->host)->emptying = true;
	dja_unlock();
	return sole;
}

/*
 * Raises an error if the code of the host does not know the type's states, since their
 * version has changed.
 */
static void
dja_take_require_version(DjaTaking *taking, DjaType *type, int i)
{
	DjaHostClaim *claim = dja_host_claim(i);

	if (taking->host < 0)
	{
		dja_lock();
		claim->state_version = type->state_version;
		dja_unlock();
	}
	if (claim->state_version != type->state_version)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the state_version of actor type \"%s\" has changed since this host was opened", type->name),
				 errdetail("It was %d and is %d.", claim->state_version, type->state_version),
				 errhint("Start the host anew, with code that knows this version.")));
}

/*
 * Begins the turn of a message that is about to be handed out, as far as its type's rate is
 * concerned.  Returns false if it cannot be handed out now.  All turns of a claim count for
 * one tenant, to which the host may give them back.
 */
static bool
dja_take_rated(DjaClaim *claim, DjaMessage *message, int i, int n)
{
	uint64		first = dja_host_claim(i)->tenant_value;

	if (claim->type->rate.by && n > 0 &&
		dja_tenant_value(&claim->type->by, message->values, message->nulls) != first)
		return false;
	if (!dja_claim_rated(claim, message))
		return false;
	dja_lock();
	dja_host_claim(i)->tenant_value = message->rated;
	dja_unlock();
	return true;
}

/*
 * Hands out the messages of a mailbox that was read, up to one that cannot have its
 * turn now.  Returns how many.
 */
static int
dja_hand_out_claim(DjaTaking *taking, DjaBatch *batch, DjaClaim *claim, int i)
{
	bool		alone = dja_host_claim(i)->alone;
	TimestampTz now = dja_clock();
	DjaActor   *actor = NULL;
	bool		keyed = false;
	bool		ring;
	int			n = 0;

	for (claim->next = 0; claim->next < claim->nmessages; claim->next++)
	{
		DjaMessage *message = claim->messages[claim->next];
		DjaReady	ready;

		CHECK_FOR_INTERRUPTS();
		if (message->state != DJA_MESSAGE_OPEN)
			continue;			/* merged with one before it */
		if (actor != NULL && !dja_text_equal(actor->key, message->key))
			break;				/* the same hash, another actor */
		if (n >= taking->each || (alone && n > 0))
			break;
		if (keyed && !message->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1])
			break;				/* a duplicate, as soon as the other is
								 * handled? */
		if (n > 0 && dja_coalesces_with_earlier(claim, message))
			break;				/* which has been handed out */
		if (dja_is_dangerous(message) && !alone)
		{
			alone = n == 0 && dja_take_alone(taking, i);
			claim->run_alone = !alone;
			if (!alone)
				break;
		}
		actor = dja_claim_actor(batch, claim, message->key);
		ready = dja_turn_readiness(batch, claim, message, actor, DJA_MODE_FAST, now);
		if (ready == DJA_READY_LATER)
			return n;
		if (ready == DJA_READY_NO_MORE)
		{
			dja_claim_remove(claim, message);
			continue;
		}
		if (n == 0)
			dja_take_require_version(taking, claim->type, i);
		if (taking->host >= 0 && claim->type->rate.rate.turns > 0 && !dja_take_rated(claim, message, i, n))
			break;
		dja_hand_out(taking, claim, message, actor, i, ++n);
		keyed |= !message->nulls[DJA_MSG_IDEMPOTENCY_KEY - 1];
		if (n == 1)
		{
			dja_lock();
			dja_host_claim(i)->message_id = message->id;
			dja_host_claim(i)->actor = dja_actor_version(actor);
			ring = dja_host_claim_limit(i, claim->type->handler_timeout);
			dja_unlock();
			if (ring)
				dja_ring_launcher();
		}
	}
	dja_claim_leave(claim, claim->next);
	return n;
}

/*
 * Returns how many messages of a mailbox are handed out: one if more mailboxes wait than
 * the host has asked for, since none is served again before those that have waited
 * longer.
 */
static int
dja_take_each(DjaTaking *taking, int type_queue)
{
	int			others;

	dja_lock();
	others = dja_type_queue(type_queue)->queued.length + dja_type_queue(type_queue)->behind;
	dja_unlock();
	return others < taking->mailboxes ? taking->messages : 1;
}

/*
 * Takes the messages of a mailbox that is claimed, reading no more than so many beyond
 * those that it may hand out.
 */
static void
dja_take_claimed(DjaTaking *taking, DjaBatch *batch, DjaAttachedClaim *attached, int more)
{
	DjaClaim   *claim = dja_batch_add(batch, attached->mailbox);
	int			i = attached->claim;
	int			n = 0;

	taking->each = dja_take_each(taking, claim->type_queue);
	batch->budget = taking->each + more;
	dja_claim_read(batch, claim);
	if (claim->nmessages > 0)
		n = dja_hand_out_claim(taking, batch, claim, i);
	attached->freed += claim->freed;
	if (n == 0)
	{
		dja_hosted_over(attached, claim->end, claim->cursor, claim->run_alone);
		if (claim->end == DJA_END_REMAINING && claim->removed > 0 && claim->next == claim->nmessages &&
			taking->nagain < DJA_TAKE_AGAIN)
			taking->again[taking->nagain++] = i;
	}
	else
	{
		dja_lock();
		dja_host_claim(i)->taken = attached->taken = n;
		dja_host_claim(i)->last = claim->messages[claim->next - 1]->position;
		dja_host_claim(i)->end = claim->end == DJA_END_RETURNED ? DJA_END_REMAINING : claim->end;
		dja_host_claim(i)->cursor = claim->cursor;
		attached->actor = dja_host_claim(i)->actor;
		dja_unlock();
		taking->mailboxes--;
	}
}

/*
 * Takes one mailbox.  Returns false if there is none that this host may have now.
 */
static bool
dja_take_mailbox(DjaTaking *taking, DjaBatch *batch)
{
	TimestampTz now = GetCurrentTimestamp();
	int			i;

	dja_lock();
	i = dja_host_pop(taking->host, taking->host_id, now);
	dja_unlock();
	if (i < 0)
		return false;
	dja_take_claimed(taking, batch, dja_hosted_attach_fresh(i), 1);
	return true;
}

/*
 * Takes the next message of the mailbox that is drained.
 */
static void
dja_drain_take_step(DjaBatch *batch, void *arg)
{
	DjaTaking  *taking = (DjaTaking *) arg;
	DjaAttachedClaim *attached = dja_hosted_attach_again(taking->claim);
	DjaClaim   *claim = dja_batch_add(batch, attached->mailbox);

	batch->budget = 2;
	dja_claim_read(batch, claim);
	if (claim->nmessages > 0)
		(void) dja_hand_out_claim(taking, batch, claim, taking->claim);
	taking->settled = claim->removed;
	attached->freed += claim->freed;
	dja_lock();
	dja_host_claim(taking->claim)->taken = attached->taken = 1;
	dja_host_claim(taking->claim)->done = 0;
	dja_host_claim(taking->claim)->end = DJA_END_REMAINING;
	dja_host_claim(taking->claim)->cursor = DJA_CURSOR_START;
	attached->actor = dja_host_claim(taking->claim)->actor;
	attached->state_version = dja_host_claim(taking->claim)->state_version;
	dja_unlock();
}

/*
 * Hands out the next message of a mailbox that this transaction has claimed to drain it.
 * Returns how many messages were handed out or settled: 0 if there is nothing to do.
 */
int
dja_take_drained(int claim, ReturnSetInfo *rsinfo, bool *handed_out)
{
	DjaTaking	taking = {.host = DJA_NO_HOST,.claim = claim,.messages = 1,.each = 1,.rsinfo = rsinfo};

	dja_hosted_in_batch(dja_drain_take_step, &taking);
	*handed_out = taking.turns > 0;
	return taking.turns + taking.settled;
}

static void
dja_take_step(DjaBatch *batch, void *arg)
{
	DjaTaking  *taking = (DjaTaking *) arg;

	while (taking->mailboxes > 0 && dja_take_mailbox(taking, batch))
		CHECK_FOR_INTERRUPTS();
}

/*
 * Takes from mailboxes of which only messages that need no turn were read, by a batch that
 * has settled these.
 */
static void
dja_take_again_step(DjaBatch *batch, void *arg)
{
	DjaTaking  *taking = (DjaTaking *) arg;
	int			n = taking->nagain;

	taking->nagain = 0;
	for (int k = 0; k < n && taking->mailboxes > 0; k++)
	{
		CHECK_FOR_INTERRUPTS();
		dja_take_claimed(taking, batch, dja_hosted_attach_again(taking->again[k]), DJA_TAKE_AGAIN);
	}
}

/*
 * Takes what there is.  If no message is handed out, what comes behind those that were
 * settled is looked at, too: it would wait for the end of the transaction otherwise.
 */
static void
dja_take_all(DjaTaking *taking)
{
	taking->nagain = 0;
	dja_hosted_in_batch(dja_take_step, taking);
	for (int looks = 0; taking->turns == 0 && taking->nagain > 0 && looks < DJA_TAKE_LOOKS; looks++)
		dja_hosted_in_batch(dja_take_again_step, taking);
}

/*
 * take(mailboxes, messages)
 */
Datum
dja_take(PG_FUNCTION_ARGS)
{
	DjaTaking	taking;

	dja_require_installed();
	PreventCommandIfReadOnly("djactor.take()");
	if (dja_turn.actor != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("take() cannot be called inside a turn")));
	taking.mailboxes = PG_GETARG_INT32(0);
	taking.messages = PG_GETARG_INT32(1);
	if (taking.mailboxes < 0 || taking.mailboxes > DJA_MAX_HOST_CLAIMS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mailboxes must be between 0 and %d", DJA_MAX_HOST_CLAIMS)));
	if (taking.messages < 1 || taking.messages > DJA_MAX_HOST_MESSAGES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("messages must be between 1 and %d", DJA_MAX_HOST_MESSAGES)));
	InitMaterializedSRF(fcinfo, 0);
	taking.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	taking.turns = taking.settled = 0;
	taking.host = dja_require_host(&taking.host_id);
	if (dja_copy_is_held(MyDatabaseId))
		taking.mailboxes = 0;	/* until resume() */
	for (int looks = 1;; looks++)
	{
		uint64		queued;
		bool		idle;

		CHECK_FOR_INTERRUPTS();
		dja_lock();
		queued = dja_host_queued(taking.host);
		dja_unlock();
		dja_take_all(&taking);
		if (taking.turns > 0)
			break;
		dja_lock();
		idle = dja_host_go_idle(taking.host, taking.host_id, queued, looks == DJA_TAKE_LOOKS);
		dja_unlock();
		if (idle)
			break;
	}
	return (Datum) 0;
}
