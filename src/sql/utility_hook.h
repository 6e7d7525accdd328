/*
 * utility_hook.h
 *
 * What has to happen around utility commands.
 */
#ifndef DJA_UTILITY_HOOK_H
#define DJA_UTILITY_HOOK_H

extern void dja_dbhook_init(void);

#endif							/* DJA_UTILITY_HOOK_H */
