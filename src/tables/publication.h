/*
 * publication.h
 *
 * Refuses to write where a publication would keep changes from subscribers.
 */
#ifndef DJA_PUBLICATION_H
#define DJA_PUBLICATION_H

#include "nodes/nodes.h"
#include "utils/rel.h"

extern void dja_refuse_unheard(Relation rel, CmdType command);
extern void dja_check_published(void);

#endif							/* DJA_PUBLICATION_H */
