/*
 * djactor.c
 *
 * Where the server meets djactor: what happens when the library is loaded.
 *
 * By shared_preload_libraries everything is set up: settings, shared memory,
 * the launcher, the hooks.  Loaded later, or by pg_upgrade, only what SQL
 * functions need to say so; nothing here may raise an error then.
 */
#include "postgres.h"

#include "actor_type.h"
#include "catalog.h"
#include "compat.h"
#include "dbhook.h"
#include "deliver.h"
#include "fmgr.h"
#include "given.h"
#include "guc.h"
#include "handler.h"
#include "held.h"
#include "launcher.h"
#include "miscadmin.h"
#include "shmem.h"
#include "startup.h"
#include "stats.h"
#include "wish.h"

DJA_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	dja_catalog_init();
	dja_types_init();
	dja_handlers_init();
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	dja_guc_init();
	dja_startup_init();
	dja_shmem_init();
	dja_deliver_init();
	dja_held_init();
	dja_wishes_init();
	dja_stats_init();
	dja_dbhook_init();
	dja_given_init();
	dja_launcher_register();
}
