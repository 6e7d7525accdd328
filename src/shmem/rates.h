/*
 * rates.h
 *
 * The rates of actor types, enforced where mail is claimed.
 *
 * A type queue whose type has had all the turns that its rate allows is spent until
 * the next one may begin (type_queue.spent_until).  Nothing is claimed from it before,
 * and its mail does not count as something that workers have to do: the pool's
 * resident sleeps until then, and no worker is started.
 *
 * A rate may count for each tenant (tenants.h).  Then it is the tenant that is spent.
 *
 * A turn is counted when it begins.  One that is undone because it shared a
 * transaction, and will begin again, is counted as if it had not.
 *
 * Every function needs dja_shared->lock and raises no error, unless it says that it
 * takes the lock.
 */
#ifndef DJA_RATES_H
#define DJA_RATES_H

#include "shmem/run_queue.h"

/* A type's rate, and whether it counts for each tenant. */
typedef struct DjaRateOption
{
	DjaRate		rate;
	bool		by;
} DjaRateOption;

extern void dja_type_queue_set_rate(int type_queue, DjaRateOption option);
extern bool dja_rate_allows(int type_queue, TimestampTz now);
extern void dja_rate_recover(DjaTypeQueue *type_queue, TimestampTz now);
extern int	dja_rate_turns_left(int mailbox, DjaRateOption option);
extern bool dja_rate_begin_turn(int mailbox, DjaRateOption option, uint64 tenant_value, uint64 epoch);
extern void dja_rate_give_back(int type_queue, uint64 tenant_value, int turns, TimestampTz since);

#endif							/* DJA_RATES_H */
