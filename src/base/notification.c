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
static int	dja_log_level;		/* what log_min_messages says */
static bool dja_is_ours;		/* has there been a notification for this
								 * session? */

/*
 * Does the server log messages of this level?  LOG stands between ERROR and FATAL then.
 */
static bool
dja_is_logged(int elevel)
{
	if (elevel == LOG || elevel == LOG_SERVER_ONLY)
		return dja_log_level == LOG || dja_log_level <= ERROR;
	return elevel >= (dja_log_level == LOG ? FATAL : dja_log_level);
}

static void
dja_see_notification(ErrorData *edata)
{
	if (edata->elevel == INFO)
		dja_is_ours = true;
	if (!dja_is_logged(edata->elevel))
		edata->output_to_server = false;
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
	if (!notifyInterruptPending)
		return false;
	dja_is_ours = false;
	dja_log_level = dja_log_min_messages;
	dja_next_log_hook = emit_log_hook;
	PG_TRY();
	{
		emit_log_hook = dja_see_notification;
		if (!dja_is_logged(INFO))
			dja_log_min_messages = INFO;
		ProcessNotifyInterrupt(false);
	}
	PG_FINALLY();
	{
		dja_log_min_messages = dja_log_level;
		emit_log_hook = dja_next_log_hook;
	}
	PG_END_TRY();
	return dja_is_ours;
}
