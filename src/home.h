/*
 * home.h
 *
 * Is this database where its data was at home, or a copy?  See home.c.
 */
#ifndef DJA_HOME_H
#define DJA_HOME_H

extern bool dja_home_check(void);
extern void dja_home_sending(void);
extern void dja_home_restored(void);
extern void dja_home_restored_rows(void);
extern void dja_home_require(void);
extern bool dja_home_is_held(void);

#endif							/* DJA_HOME_H */
