/*
 * copy_check.h
 *
 * Is this database where its data was at home, or a copy?  See copy_check.c.
 */
#ifndef DJA_COPY_CHECK_H
#define DJA_COPY_CHECK_H

/*
 * Rows are being restored, with their ids, by COPY as pg_dump writes it or by an INSERT:
 * they may come before their types.  Set around the statement, by utility_hook.c and
 * dump_insert.c.
 */
extern bool dja_restoring;

extern bool dja_home_check(void);
extern void dja_home_sending(void);
extern void dja_home_restored(void);
extern void dja_home_restored_rows(void);
extern void dja_home_require(void);
extern bool dja_home_is_held(void);

#endif							/* DJA_COPY_CHECK_H */
