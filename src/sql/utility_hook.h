/*
 * utility_hook.h
 *
 * Utility commands that djactor has to know of.  The table in utility_hook.c
 * lists them with the functions that run around them; each subject has a file.
 *
 * Only a function that runs before the command may read its tree.  A procedure
 * that was called by a prepared statement may deallocate that statement and roll
 * back: then the tree is gone when the procedure returns, and another
 * transaction may have begun.  So that function copies what the others need.
 */
#ifndef DJA_UTILITY_HOOK_H
#define DJA_UTILITY_HOOK_H

#include "nodes/plannodes.h"

typedef struct DjaUtility
{
	NodeTag		tag;			/* which command */
	bool		top_level;

	/* NULL as soon as the command runs */
	PlannedStmt *plan;			/* before the command runs it may be replaced */
	Node	   *statement;

	/* copied from the command before it runs */
	NameData	database;		/* empty = none */
	Oid			role;
	Oid			locked_out;		/* the database that the command has for
								 * itself */
	bool		restores_mail;
	bool		changes_types;	/* other types may be here afterwards */

	/* set once the command has succeeded */
	uint64		rows;
} DjaUtility;

extern void dja_before_copy(DjaUtility *utility);
extern void dja_after_copy(DjaUtility *utility);
extern void dja_failed_copy(DjaUtility *utility);
extern void dja_before_database(DjaUtility *utility);
extern void dja_after_database(DjaUtility *utility);
extern void dja_failed_database(DjaUtility *utility);
extern void dja_before_extension(DjaUtility *utility);
extern void dja_after_extension(DjaUtility *utility);
extern void dja_before_prepared(DjaUtility *utility);
extern void dja_after_prepared(DjaUtility *utility);
extern void dja_failed_prepared(DjaUtility *utility);
extern void dja_before_settings(DjaUtility *utility);
extern void dja_after_settings(DjaUtility *utility);
extern void dja_before_session(DjaUtility *utility);
extern void dja_before_trigger(DjaUtility *utility);

extern void dja_utility_init(void);

#endif							/* DJA_UTILITY_HOOK_H */
