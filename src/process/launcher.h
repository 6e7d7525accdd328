/*
 * launcher.h
 *
 * The launcher: starts workers and scouts.  It is connected to no database.
 */
#ifndef DJA_LAUNCHER_H
#define DJA_LAUNCHER_H

extern PGDLLEXPORT void dja_launcher_main(Datum arg);
extern PGDLLEXPORT void dja_scout_main(Datum arg);
extern void dja_launcher_register(void);

#endif							/* DJA_LAUNCHER_H */
