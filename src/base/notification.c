/*
 * notification.c
 *
 * Reading notifications in a process without a client.
 *
 * Up to 18 any NOTIFY in its database wakes a session that LISTENs, whatever the channel: also
 * those by which hosts and waiting clients are told, and the application's.  The server passes on
 * to the session's client what is for its channels.  If there is no client it logs that, at a
 * level that hardly anybody has logged.  So it is seen here, on its way to the log.
 *
 * What always holds: the log has what it would have without us.
 *
 * Called by workers, between transactions.
 */
#include "postgres.h"

#include "commands/async.h"
#include "utils/elog.h"
#include "utils/guc.h"

#include "base/compat.h"
#include "base/notification.h"

static emit_log_hook_type dja_next_log_hook;
static bool dja_is_logged;		/* what is offered to the log */
static bool dja_is_ours;		/* has there been one for this session? */

static void
dja_see_notification(ErrorData *edata)
{
	if (edata->elevel == INFO)
	{
		dja_is_ours = true;
		edata->output_to_server = dja_is_logged;
	}
	if (edata->output_to_server && dja_next_log_hook != NULL)
		dja_next_log_hook(edata);
}

/*
 * Reads the notifications that have arrived.  Returns whether there was one for a channel to which
 * this session LISTENs.
 */
bool
dja_read_notifications(void)
{
	int			level = dja_log_min_messages;

	if (!notifyInterruptPending)
		return false;
	dja_is_ours = false;
	dja_is_logged = level <= INFO && level != LOG;
	dja_next_log_hook = emit_log_hook;
	PG_TRY();
	{
		emit_log_hook = dja_see_notification;
		if (!dja_is_logged)
			dja_log_min_messages = INFO;
		ProcessNotifyInterrupt(false);
	}
	PG_FINALLY();
	{
		dja_log_min_messages = level;
		emit_log_hook = dja_next_log_hook;
	}
	PG_END_TRY();
	return dja_is_ours;
}
