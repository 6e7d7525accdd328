/*
 * two_phase.c
 *
 * Has Citus commit in two phases what belongs together: the turns of a transaction, what
 * it sends, and what Citus has written for it on other nodes.
 *
 * Left to itself Citus does so if a transaction has written distributed tables on several
 * nodes.  If it has written them on one other node only, Citus commits there first, in the
 * pre-commit, and then the server commits here.  What happens in between tears the two
 * apart.  So if there is something here to be torn off, this file asks for two phases,
 * before Citus commits.
 *
 * What always holds:
 *
 * - A transaction without an id (xid) has written nothing here, be it to ordinary, unlogged
 *   or temporary tables.  That is how the server itself knows that there is nothing to
 *   commit.  (Citus writes what its two phases need after it was asked for them.)
 * - A serializable transaction may fail in its commit, and so take back what it has read.
 *   Hence two phases.
 * - Any other that comes to the pre-commit without an id is over, here, when Citus has
 *   committed on the other node.  One phase is enough then, and saves two of three flushes.
 *   Only a NOTIFY of it is lost if the session ends in that moment.  If the other node is
 *   lost while it commits, nobody here knows whether it has, and COMMIT raises an error, as
 *   if the client had lost its server.
 * - What is decided here stays right until then.  Deferred triggers fire before any
 *   callback.  Callbacks are called in the opposite order in which they were registered.
 *   Citus insists on being loaded first, so its callback is the last one.  This one is
 *   registered before all others of djactor, so what they write counts.
 * - A transaction that has neither sent a message nor made turns is left to Citus.
 *
 * The functions that are called are in Citus since 10.1.  All versions for servers that
 * djactor knows have them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/guc.h"

#include "xact/pending.h"
#include "xact/two_phase.h"

/* Functions of Citus; NULL without it. */
static void (*dja_citus_begin) (void);
static bool (*dja_citus_has_begun) (void);
static void (*dja_citus_two_phases) (void);

static bool dja_together = false;	/* this transaction's writes */

static void
dja_two_phase_xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		if ((dja_together || dja_pending_any()) && dja_citus_has_begun() &&
			(TransactionIdIsValid(GetTopTransactionIdIfAny()) || IsolationIsSerializable()))
			dja_citus_two_phases();
	}
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		dja_together = false;
}

static void *
dja_citus_function(const char *name)
{
	return load_external_function("citus", name, false, NULL);
}

/*
 * Needs Citus to be loaded, if it will be.
 */
void
dja_two_phase_init(void)
{
	static const char setting[] = "citus.enable_ddl_propagation";

	if (GetConfigOption(setting, true, false) == NULL || GetConfigOptionFlags(setting, true) & GUC_CUSTOM_PLACEHOLDER)
		return;
	dja_citus_begin = (void (*) (void)) dja_citus_function("UseCoordinatedTransaction");
	dja_citus_has_begun = (bool (*) (void)) dja_citus_function("InCoordinatedTransaction");
	dja_citus_two_phases = (void (*) (void)) dja_citus_function("Use2PCForCoordinatedTransaction");
	if (dja_citus_begin != NULL && dja_citus_has_begun != NULL && dja_citus_two_phases != NULL)
		RegisterXactCallback(dja_two_phase_xact_callback, NULL);
	else
		dja_citus_begin = NULL;
}

void
dja_commit_together(void)
{
	dja_together = true;
}

void
dja_write_by_citus(void)
{
	if (dja_citus_begin == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot hand messages over to Citus"),
				 errdetail("Citus is not loaded, or it is a version that djactor does not know."),
				 errhint("Let shared_preload_libraries name citus before djactor.")));
	dja_citus_begin();
	dja_commit_together();
}
