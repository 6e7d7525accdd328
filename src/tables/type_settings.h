/*
 * type_settings.h
 *
 * The settings of the server that a turn sees (contract point 33).
 *
 * A type remembers the values that its definer's session had for the settings
 * that decide what SQL means, and for any others that its definition names.  All
 * its turns see these, in a worker and also in drain() in any session.
 *
 * A batch opens a level of settings, makes those of one type after the other
 * visible in it, and closes it; an abort also closes it.  No other level may be
 * open within it when the next type's settings are made visible.
 */
#ifndef DJA_TYPE_SETTINGS_H
#define DJA_TYPE_SETTINGS_H

#include "tables/actor_type.h"

extern Datum dja_settings_define(Jsonb *named, Jsonb *stored, Oid owner);

extern void dja_settings_open(void);
extern void dja_settings_see(DjaType *type, int elevel);
extern void dja_settings_close(void);

#endif							/* DJA_TYPE_SETTINGS_H */
