/*
 * type_change.c
 *
 * Changing rows of djactor.actor_type, for the functions that define, alter,
 * drop, pause and resume types.
 *
 * They take ShareRowExclusiveLock on the table: one waits for the other, and
 * readers and senders do not notice.
 */
#include "postgres.h"

#include "access/xact.h"

#include "base/compat.h"
#include "sql/type_change.h"
#include "xact/pending.h"

DjaType *
dja_require_own_type(text *name, const char *function)
{
	DjaType    *type;

	PreventCommandIfReadOnly(function);
	type = dja_require_type(name);
	dja_check_can_act_for(type->owner);
	return type;
}

DjaWriter *
dja_begin_type_change(void)
{
	DjaWriter  *writer = dja_writer_open(DJA_ACTOR_TYPE_TABLE, ShareRowExclusiveLock);

	(void) dja_types_all();		/* reads what stands there under the lock */
	return writer;
}

void
dja_end_type_change(DjaWriter *writer, uint64 hash, Oid owner)
{
	dja_writer_close(writer);
	dja_type_changed();
	dja_pending_type(hash, owner);
	CommandCounterIncrement();
}
