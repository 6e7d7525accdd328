/*
 * copy_backup.c
 *
 * Distinguishes a server that was started from a backup from the server that was
 * backed up.  Both have the same system identifier, the same databases, the same
 * rows.
 *
 * A base backup starts with a file backup_label, recovery to a point in time with
 * recovery.signal.  The startup process removes both, so the postmaster looks for
 * them before that process exists, while it loads the library.  Each such start
 * draws a new token and keeps it in the data directory.
 *
 * A standby is no copy: it is what its primary is, also after promotion.  It may
 * have been made from a backup that is older than the primary's last start from
 * one.  So a start with standby.signal leaves a token that stands for any.
 *
 * The next backup copies the file, which does no harm: a start from that backup
 * draws a token of its own.
 *
 * Nothing here raises an error.  A server that cannot write the file starts,
 * holds its copies for as long as it runs, and logs that.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "shmem/copy_backup.h"

/* relative to the data directory, which is the postmaster's working directory */
#define DJA_TOKEN_FILE "djactor.restored"
#define DJA_TOKEN_FILE_NEW "djactor.restored.tmp"

int64		dja_backup_token = 0;

static bool
dja_file_exists(const char *name)
{
	struct stat st;

	return stat(name, &st) == 0;
}

static int64
dja_token_draw(void)
{
	int64		token;

	if (!pg_strong_random(&token, sizeof(token)))
		token = GetCurrentTimestamp();
	return Max(1, token & PG_INT64_MAX);
}

static int64
dja_token_read(void)
{
	char		line[32];
	int			fd = open(DJA_TOKEN_FILE, O_RDONLY | PG_BINARY, 0);
	ssize_t		n = 0;

	if (fd >= 0)
	{
		n = read(fd, line, sizeof(line) - 1);
		close(fd);
	}
	else if (errno == ENOENT)
		return 0;
	if (fd < 0 || n <= 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", DJA_TOKEN_FILE),
				 errdetail("djactor holds databases with mail until djactor.resume().")));
		return dja_token_draw();
	}
	line[n] = '\0';
	return strtoi64(line, NULL, 10);
}

static bool
dja_token_write(int64 token)
{
	char		line[32];
	int			len = snprintf(line, sizeof(line), INT64_FORMAT "\n", token);
	int			fd = open(DJA_TOKEN_FILE_NEW, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY,
						  pg_file_create_mode);
	bool		ok;

	if (fd < 0)
		return false;
	errno = ENOSPC;				/* the reason for a short write */
	ok = write(fd, line, len) == len && pg_fsync(fd) == 0;
	return close(fd) == 0 && ok &&
		durable_rename(DJA_TOKEN_FILE_NEW, DJA_TOKEN_FILE, LOG) == 0;
}

/*
 * Finds the token.  Called in the postmaster, while it loads the library.
 */
void
dja_backup_token_init(void)
{
	bool		standby = dja_file_exists("standby.signal");
	int64		before;

	if (IsUnderPostmaster)
		return;
	before = dja_token_read();
	if (standby)
		dja_backup_token = DJA_TOKEN_INHERITED;
	else if (dja_file_exists("backup_label") || dja_file_exists("recovery.signal"))
		dja_backup_token = dja_token_draw();
	else
		dja_backup_token = before;
	if (dja_backup_token == before)
		return;
	if (!dja_token_write(dja_backup_token))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", DJA_TOKEN_FILE),
				 errdetail("Until the next start djactor knows that this server was started from a backup, but not afterwards.")));
}
