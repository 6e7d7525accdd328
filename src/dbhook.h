/*
 * dbhook.h
 *
 * What has to happen around utility commands.
 */
#ifndef DJA_DBHOOK_H
#define DJA_DBHOOK_H

extern void dja_dbhook_init(void);

#endif							/* DJA_DBHOOK_H */
