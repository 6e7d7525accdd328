/*
 * place.c
 *
 * On which node of a cluster an actor lives.
 *
 * A database is a node if it has the extension djactor_cluster, and a row in
 * djactor_cluster.here.  A key may name its node.  Every other one has a slot, and that
 * row says which node has which slot.  It is read when it has changed, of which a relcache
 * invalidation of the table tells.  A transaction that looks where keys live keeps the
 * table locked until it ends: add_node() changes it when nobody relies on it.  Every other
 * database has all actors, and pays a look into the system cache to know that.
 *
 * Slots move to other nodes, see move_slots() in djactor_cluster.sql.  So who relies on
 * where a key lives, since it sends there for example, holds the key's slot: it has locked
 * the slot in share mode until the end of its transaction.  Who moves the slot locks it
 * exclusively.  What is known of the slots may have changed while the lock was waited for.
 * A transaction has 256 such locks at most.  They belong to it and not to a savepoint, so one bit tells that a slot is held.
 *
 * Turns hold no slot.  A turn ends by removing its message or changing it, and so does
 * whatever else djactor does to an actor on its own.  Whoever moves the actor removes the
 * message first.  One of the two waits for the other's row, or finds it gone.
 *
 * The slot is the upper byte of the key's hash, by which Citus distributes text, too.  So
 * if a table of Citus has up to 256 shards, a power of two, each shard is a whole number
 * of slots, and actors can live where the rows of their keys are.
 *
 * Anybody who may send gets here, and the table is found by name.  So it counts only
 * if it is the extension's and a superuser's.
 *
 * An id names the node that has given it, by its range.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "tables/catalog.h"
#include "tables/place.h"

#define DJA_ARRIVAL_LOOK_MS 10
#define DJA_ARRIVAL_LOOKS 1000	/* at actors that are on their way here */
#define DJA_ID_BITS 42			/* of an id below the node's number */

/* Columns of djactor_cluster.here. */
enum
{
	DJA_HERE_NODE = 1, DJA_HERE_SLOTS, DJA_HERE_ROLE, DJA_HERE_NODES, DJA_HERE_MOVING,
	DJA_HERE_NATTS = DJA_HERE_MOVING
};

static struct
{
	bool		valid;			/* nothing has changed since it was read */
	LocalTransactionId xact;	/* which has locked the table */
	Oid			table;
	int			node;			/* this node */
	Oid			role;			/* as which nodes connect */
	uint64		nodes;			/* a bit for each node */
	int16		slots[DJA_SLOTS];	/* the node of each */
	bool		moving[DJA_SLOTS];	/* its actors are on their way, from here
									 * or to here */
}			dja_here = {false, InvalidLocalTransactionId, InvalidOid, DJA_NO_NODE, InvalidOid, 0, {0}, {0}};

/* The slots that the transaction holds. */
static struct
{
	LocalTransactionId xact;
	bool		held[DJA_SLOTS];
}			dja_slots = {InvalidLocalTransactionId, {0}};

/*
 * Finds djactor_cluster.here; InvalidOid if there is no such table of the extension.
 */
static Oid
dja_here_table(Oid schema)
{
	HeapTuple	tuple = SearchSysCache2(RELNAMENSP, CStringGetDatum("here"), ObjectIdGetDatum(schema));
	Oid			table = InvalidOid;
	Form_pg_class class;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	class = (Form_pg_class) GETSTRUCT(tuple);
	if (class->relkind == RELKIND_RELATION && class->relnatts == DJA_HERE_NATTS && superuser_arg(class->relowner))
		table = class->oid;
	ReleaseSysCache(tuple);
	if (OidIsValid(table))
	{
		Oid			extension = getExtensionOfObject(RelationRelationId, table);

		if (!OidIsValid(extension) || extension != get_extension_oid("djactor_cluster", true))
			table = InvalidOid;
	}
	return table;
}

static int
dja_read_numbers(Datum array, Datum **numbers)
{
	int			n;

	deconstruct_array(DatumGetArrayTypeP(array), INT2OID, sizeof(int16), true, TYPALIGN_SHORT,
					  numbers, NULL, &n);
	return n;
}

static void
dja_read_arrays(Datum slots, Datum nodes, Datum moving)
{
	Datum	   *numbers;
	int			n = dja_read_numbers(slots, &numbers);

	if (n != DJA_SLOTS)
		elog(ERROR, "djactor_cluster.here has %d slots", n);
	for (int i = 0; i < n; i++)
		dja_here.slots[i] = DatumGetInt16(numbers[i]);
	n = dja_read_numbers(nodes, &numbers);
	dja_here.nodes = 0;
	for (int i = 0; i < n; i++)
		dja_here.nodes |= UINT64CONST(1) << (DatumGetInt16(numbers[i]) & (DJA_NODES - 1));
	n = dja_read_numbers(moving, &numbers);
	memset(dja_here.moving, 0, sizeof(dja_here.moving));
	for (int i = 0; i < n; i++)
		dja_here.moving[DatumGetInt16(numbers[i]) & (DJA_SLOTS - 1)] = true;
}

/*
 * Locks something in share mode until the transaction ends, also if this is in a
 * savepoint, and hears what has changed.
 */
static void
dja_hold(const LOCKTAG *tag)
{
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = TopTransactionResourceOwner;
	PG_TRY();
	{
		(void) LockAcquire(tag, AccessShareLock, false, false);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	AcceptInvalidationMessages();
}

static void
dja_lock_here(Oid table)
{
	LOCKTAG		tag;

	if (dja_here.table == table && dja_here.xact == dja_my_xact())
		return;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, table);
	dja_hold(&tag);
	dja_here.table = table;
	dja_here.xact = dja_my_xact();
}

static void
dja_read_here(Oid table)
{
	Relation	rel = table_open(table, NoLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple = systable_getnext(scan);

	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		dja_read_arrays(heap_getattr(tuple, DJA_HERE_SLOTS, RelationGetDescr(rel), &isnull),
						heap_getattr(tuple, DJA_HERE_NODES, RelationGetDescr(rel), &isnull),
						heap_getattr(tuple, DJA_HERE_MOVING, RelationGetDescr(rel), &isnull));
		dja_here.role = DatumGetObjectId(heap_getattr(tuple, DJA_HERE_ROLE, RelationGetDescr(rel), &isnull));
		dja_here.node = DatumGetInt16(heap_getattr(tuple, DJA_HERE_NODE, RelationGetDescr(rel), &isnull));
		dja_here.valid = true;
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
}

void
dja_places_outdate(Oid table)
{
	if (!OidIsValid(table) || table == dja_here.table)
		dja_here.valid = false;
}

int
dja_this_node(void)
{
	Oid			schema = get_namespace_oid("djactor_cluster", true);
	Oid			table;

	if (!OidIsValid(schema))
		return DJA_NO_NODE;
	if (dja_here.valid)
		dja_lock_here(dja_here.table);
	if (dja_here.valid)
		return dja_here.node;
	dja_here.node = DJA_NO_NODE;
	table = dja_here_table(schema);
	if (OidIsValid(table))
	{
		dja_lock_here(table);
		dja_read_here(table);
	}
	return dja_here.node;
}

static void
dja_require_node(void)
{
	if (dja_this_node() == DJA_NO_NODE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not a node of a cluster"),
				 errhint("Call djactor_cluster.set_up() first.")));
}

static bool
dja_is_node(int64 node)
{
	return node >= 0 && node < DJA_NODES && (dja_here.nodes & (UINT64CONST(1) << node)) != 0;
}

/*
 * Keys "@N" and "@N/..." live on node N, if there is one; those of djactor's own
 * actors are such.
 */
static int
dja_node_in_key(const text *key)
{
	const char *p = VARDATA_ANY(key);
	const char *end = p + VARSIZE_ANY_EXHDR(key);
	int			node = 0;
	int			digits = 0;

	if (p == end || *p != '@')
		return DJA_NO_NODE;
	for (p++; p < end && *p >= '0' && *p <= '9' && digits < 3; p++, digits++)
		node = node * 10 + (*p - '0');
	if (digits == 0 || (p < end && *p != '/') || !dja_is_node(node))
		return DJA_NO_NODE;
	return node;
}

Oid
dja_cluster_role(void)
{
	dja_require_node();
	return dja_here.role;
}

/*
 * hashtext() of a deterministic collation; Citus sorts it as a signed number.
 */
static int
dja_hash_slot(const text *key)
{
	uint32		hash = hash_bytes((const unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));

	return (hash ^ 0x80000000) >> 24;
}

int
dja_slot_of_key(const text *key)
{
	return dja_this_node() != DJA_NO_NODE && dja_node_in_key(key) != DJA_NO_NODE ? DJA_NO_SLOT : dja_hash_slot(key);
}

/* ---------- holding a slot ---------- */

static void
dja_slot_tag(LOCKTAG *tag, int slot)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, RelationRelationId, dja_here.table, slot + 1);
}

static void
dja_slot_hold(int slot)
{
	LOCKTAG		tag;

	if (dja_slots.xact != dja_my_xact())
	{
		memset(dja_slots.held, 0, sizeof(dja_slots.held));
		dja_slots.xact = dja_my_xact();
	}
	if (dja_slots.held[slot])
		return;
	dja_slot_tag(&tag, slot);
	dja_hold(&tag);
	dja_slots.held[slot] = true;
}

static void
dja_slot_let_go(int slot)
{
	ResourceOwner owner = CurrentResourceOwner;
	LOCKTAG		tag;

	dja_slot_tag(&tag, slot);
	CurrentResourceOwner = TopTransactionResourceOwner;
	(void) LockRelease(&tag, AccessShareLock, false);
	CurrentResourceOwner = owner;
	dja_slots.held[slot] = false;
}

void
dja_slot_lock(int slot)
{
	LOCKTAG		tag;

	dja_require_node();
	dja_slot_tag(&tag, slot);
	(void) LockAcquire(&tag, AccessExclusiveLock, false, false);
	AcceptInvalidationMessages();
}

/*
 * Waits for the actors of a slot that are on their way here.  Who brings them needs the
 * slot's lock, and may have it for long.
 */
static void
dja_slot_await(int slot)
{
	static uint32 wait_event = 0;

	for (int looks = 0; dja_here.moving[slot] && dja_here.slots[slot] == dja_here.node; looks++)
	{
		if (looks == DJA_ARRIVAL_LOOKS)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("actors of slot %d are on their way to this node", slot),
					 errhint("Call djactor_cluster.move_slots() again on the node from which they come.")));
		dja_slot_let_go(slot);
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, DJA_ARRIVAL_LOOK_MS,
						 DJA_WAIT_EVENT(wait_event, "DjactorArrival"));
		CHECK_FOR_INTERRUPTS();
		dja_slot_hold(slot);
		(void) dja_this_node();
	}
}

/* ---------- where a key lives ---------- */

int
dja_node_of_key(const text *key)
{
	int			node;

	dja_require_node();
	node = dja_node_in_key(key);
	return node != DJA_NO_NODE ? node : dja_here.slots[dja_hash_slot(key)];
}

int
dja_hold_node_of_key(const text *key)
{
	dja_require_node();
	if (dja_node_in_key(key) == DJA_NO_NODE)
		dja_slot_hold(dja_hash_slot(key));
	return dja_node_of_key(key);
}

bool
dja_lives_here(const text *key)
{
	int			here = dja_this_node();

	return here == DJA_NO_NODE || dja_node_of_key(key) == here;
}

bool
dja_hold_here(const text *key)
{
	int			here = dja_this_node();

	if (here == DJA_NO_NODE)
		return true;
	if (dja_hold_node_of_key(key) != here)
		return false;
	if (dja_node_in_key(key) == DJA_NO_NODE)
		dja_slot_await(dja_hash_slot(key));
	return dja_node_of_key(key) == here;
}

void
dja_require_here(const text *key)
{
	if (!dja_hold_here(key))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("actors with the key \"%s\" live on node %d", text_to_cstring(key), dja_node_of_key(key)),
				 errdetail("This is node %d of the cluster.", dja_this_node()),
				 errhint("Send with djactor.send() or into djactor_cluster.message. Do everything else on their node.")));
}

void
dja_refuse_id_of_other_node(int64 id)
{
	int			here = dja_this_node();
	int64		node = id >> DJA_ID_BITS;

	if (here != DJA_NO_NODE && node != here && dja_is_node(node))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no message " INT64_FORMAT " on node %d", id, here),
				 errdetail("Its id was given by node %d.", (int) node),
				 errhint("Call the function there.")));
}

/*
 * Does a message that is sent to this other node get its id there?  It does by the transport
 * "direct".  The node's partition of djactor_cluster.message is a foreign table then.  It also is
 * by "citus", but of djactor's own wrapper.
 */
static bool
dja_gives_ids(int node)
{
	Oid			namespace = get_namespace_oid("djactor_cluster", true);
	Oid			partition = OidIsValid(namespace) ? get_relname_relid(psprintf("message_%d", node), namespace) : InvalidOid;
	ForeignServer *server;

	if (!OidIsValid(partition) || get_rel_relkind(partition) != RELKIND_FOREIGN_TABLE)
		return false;
	server = GetForeignServer(GetForeignTable(partition)->serverid);
	return strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, "djactor_citus") != 0;
}

void
dja_refuse_ask_of_other_node(int64 id)
{
	int64		node = id >> DJA_ID_BITS;

	if (node == dja_this_node() || !dja_is_node(node) || !dja_gives_ids((int) node))
		dja_refuse_id_of_other_node(id);
}
