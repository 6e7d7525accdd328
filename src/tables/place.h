/*
 * place.h
 *
 * On which node of a cluster an actor lives; see place.c.
 */
#ifndef DJA_PLACE_H
#define DJA_PLACE_H

#include "base/compat.h"

#define DJA_NO_NODE (-1)
#define DJA_NODES 64			/* their numbers are below */
#define DJA_SLOTS 256
#define DJA_NO_SLOT (-1)

/* This node's number; DJA_NO_NODE if the database is none of a cluster. */
extern int	dja_this_node(void);

/* The role as which nodes connect.  Raises 55000 if the database is none of a cluster. */
extern Oid	dja_cluster_role(void);

/* The slot of a key; DJA_NO_SLOT if the key names its node. */
extern int	dja_slot_of_key(const text *key);

/*
 * The node of a key's actors, and whether it is this one, as which a database counts that
 * is none of a cluster.  They may move as soon as that was said.  The first one raises
 * 55000 if the database is none of a cluster.
 */
extern int	dja_node_of_key(const text *key);
extern bool dja_lives_here(const text *key);

/*
 * Likewise, and they stay there until the transaction ends: the caller waits for who is
 * moving them.  The second one waits for actors that are on their way here, too, and
 * raises 55P03 if they do not come.
 */
extern int	dja_hold_node_of_key(const text *key);
extern bool dja_hold_here(const text *key);

/* Raises 23514 if actors of this key live on another node.  Else they stay here. */
extern void dja_require_here(const text *key);

/*
 * For who moves a slot: waits until no other transaction holds it, and lets none hold it
 * until this (sub)transaction ends.
 */
extern void dja_slot_lock(int slot);

/* Called when a table has changed, InvalidOid: any. */
extern void dja_places_outdate(Oid table);

/*
 * For who has found no message or dead letter of this id: raises 42704 if it is
 * another node that has given it, and does nothing else.
 */
extern void dja_refuse_id_of_other_node(int64 id);

/*
 * For who has found no ask of this id: likewise, unless that node also gives ids to what
 * is sent to it from here.
 */
extern void dja_refuse_ask_of_other_node(int64 id);

#endif							/* DJA_PLACE_H */
