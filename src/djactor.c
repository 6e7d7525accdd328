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

#include "miscadmin.h"

#include "base/compat.h"
#include "base/guc.h"
#include "process/launcher.h"
#include "shmem/copy_backup.h"
#include "shmem/copy_shmem.h"
#include "shmem/shmem.h"
#include "shmem/stats.h"
#include "sql/dump_insert.h"
#include "sql/utility_hook.h"
#include "tables/actor_type.h"
#include "tables/catalog.h"
#include "tables/handler.h"
#include "turn/hosted.h"
#include "turn/turn_effects.h"
#include "xact/deliver.h"
#include "xact/two_phase.h"

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
	dja_backup_token_init();
	dja_shmem_init();
	dja_two_phase_init();		/* before any other that writes at the end of
								 * transactions */
	dja_deliver_init();
	dja_copy_init();
	dja_effects_init();
	dja_hosted_init();
	dja_stats_init();
	dja_utility_init();
	dja_dump_insert_init();
	dja_launcher_register();
}
