/*
 * two_phase.h
 *
 * Transactions over several nodes of Citus; see two_phase.c.
 */
#ifndef DJA_TWO_PHASE_H
#define DJA_TWO_PHASE_H

extern void dja_two_phase_init(void);

/*
 * What this transaction writes here, and what Citus writes for it on other nodes, is
 * to be committed as a whole.
 */
extern void dja_commit_together(void);

/*
 * Likewise, and what Citus is about to write ends with this transaction, even if the
 * statement is one by itself.  Raises 0A000 if Citus is not there.
 */
extern void dja_write_by_citus(void);

#endif							/* DJA_TWO_PHASE_H */
