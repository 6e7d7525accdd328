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

/* This node's number; DJA_NO_NODE if the database is none of a cluster. */
extern int	dja_this_node(void);

/* The role as which nodes connect.  Raises 55000 if the database is none of a cluster. */
extern Oid	dja_cluster_role(void);

/* The node of a key's actors.  Raises 55000 if the database is none of a cluster. */
extern int	dja_node_of_key(const text *key);

/* Do actors of this key live here?  All do if the database is none of a cluster. */
extern bool dja_lives_here(const text *key);

/* Raises 23514 if actors of this key live on another node. */
extern void dja_require_here(const text *key);

/*
 * For who has found no message, dead letter or ask of this id: raises 42704 if it is
 * another node that has given it, and does nothing else.
 */
extern void dja_refuse_id_of_other_node(int64 id);

#endif							/* DJA_PLACE_H */
