/*
 * trace.c
 *
 * The trace of messages that a transaction sends from outside a turn; see
 * trace.h.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "xact/trace.h"

/*
 * Makes a random UUID (version 4).  It has to be unique, not secret.  So a
 * generator that was seeded well once is enough, and costs a hundredth of
 * gen_random_uuid().
 */
static void
dja_new_trace(pg_uuid_t *trace)
{
	static pg_prng_state state;
	static int	seeded_by = 0;	/* a forked process must not repeat its parent */
	uint64		half[2];

	if (seeded_by != MyProcPid && !pg_prng_strong_seed(&state))
		pg_prng_seed(&state, (uint64) GetCurrentTimestamp() ^ ((uint64) MyProcPid << 32));
	seeded_by = MyProcPid;
	half[0] = pg_prng_uint64(&state);
	half[1] = pg_prng_uint64(&state);
	memcpy(trace->data, half, UUID_LEN);
	trace->data[6] = (trace->data[6] & 0x0f) | 0x40;
	trace->data[8] = (trace->data[8] & 0x3f) | 0x80;
}

Datum
dja_trace_of_transaction(void)
{
	static pg_uuid_t trace;
	static LocalTransactionId xact = InvalidLocalTransactionId;

	if (xact != dja_my_xact())
	{
		dja_new_trace(&trace);
		xact = dja_my_xact();
	}
	return UUIDPGetDatum(memcpy(palloc(UUID_LEN), &trace, UUID_LEN));
}
