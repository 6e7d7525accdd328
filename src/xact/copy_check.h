/*
 * copy_check.h
 *
 * Tells whether this database is where its data was at home, or a copy.  See
 * copy_check.c.
 */
#ifndef DJA_COPY_CHECK_H
#define DJA_COPY_CHECK_H

/*
 * True while a statement runs that restores rows with their ids: a COPY as
 * pg_dump writes it, or an INSERT.  Such rows may come before their types.
 * utility_copy.c and dump_insert.c set it around the statement.
 */
extern bool dja_restoring;

extern bool dja_home_check(void);
extern void dja_home_sending(void);
extern void dja_home_restored(void);
extern void dja_home_restored_rows(void);
extern void dja_home_require(void);

#endif							/* DJA_COPY_CHECK_H */
