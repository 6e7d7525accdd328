/*
 * crash.c
 *
 * Markers and verdicts; see crash.h.
 *
 * When a process dies of a signal, the postmaster ends all others with SIGQUIT
 * and starts anew with empty shared memory.  Workers that get SIGQUIT mark
 * themselves innocent.  The remaining markers are judged as follows:
 *
 *   one message, under this		its process crashed: charged
 *   same postmaster
 *   several, or under another		nobody can tell which of them it was, if any:
 *   postmaster (the whole			suspects; each is run alone next
 *   server was killed)
 *   one that ran alone because		charged; otherwise a message that takes the whole
 *   it was suspected, or had		server along would do so for ever
 *   crashed before
 *   from before a reboot			nothing: it may have been the power
 *
 * A verdict is kept in a file of its own until it has been acted upon, so that
 * the next crash does not lose it.  Only the postmaster reads and writes these
 * files, always whole, and no contents can harm it.  Mapped files get their disk
 * space before they are mapped, since a full disk would be a SIGBUS.  All files
 * are in a directory that base backups leave out.  A worker that cannot make its
 * marker works without.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "tcop/tcopprot.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/python.h"
#include "shmem/crash.h"
#include "shmem/run_queue.h"
#include "shmem/slots.h"

#define DJA_NO_ENTRY (-1)		/* instead of the index of an entry */
#define DJA_MARKER_MAGIC 0x646a6131
#define DJA_MARKER_PREFIX "djactor."
#define DJA_MARKER_PATH PG_STAT_TMP_DIR "/" DJA_MARKER_PREFIX "%d"
#define DJA_CRASH_PREFIX "djactor.crash."
#define DJA_CRASH_PATH PG_STAT_TMP_DIR "/" DJA_CRASH_PREFIX "%d"

/* Used until a worker has its file, and if it cannot have one. */
static DjaMarker dja_private_marker;
DjaMarker  *dja_marker = &dja_private_marker;

static volatile sig_atomic_t dja_sigterm = false;

/* ---------- shared memory ---------- */

/*
 * Returns the number of entries: as many as one crash can leave, and as many
 * again from before.
 */
int
dja_crash_room(void)
{
	return 2 * dja_max_workers;
}

Size
dja_crash_size(void)
{
	return MAXALIGN(offsetof(DjaCrashes, crashes) + sizeof(DjaCrash) * (Size) dja_crash_room());
}

/*
 * Counts an entry in (n = 1) or out (n = -1).
 */
static void
dja_crash_count(DjaCrashes *crashes, DjaVerdict verdict, int n)
{
	if (verdict == DJA_CHARGED)
		crashes->charges += n;
	else if (verdict == DJA_SUSPECT)
		crashes->suspects += n;
	Assert(crashes->charges >= 0 && crashes->suspects >= 0);
	Assert(crashes->charges + crashes->suspects <= dja_crash_room());
}

/*
 * Adds a verdict, and returns its entry; DJA_NO_ENTRY if there is no room.
 * Needs the lock, unless no other process exists.
 */
static int
dja_crash_note(DjaCrashes *crashes, DjaVerdict verdict, Oid database, uint64 type_hash,
			   int64 message_id)
{
	int			room = DJA_NO_ENTRY;

	Assert(!IsUnderPostmaster || LWLockHeldByMeInMode(dja_shared->lock, LW_EXCLUSIVE));
	Assert(verdict != DJA_NO_VERDICT && message_id != 0);
	for (int i = 0; i < dja_crash_room(); i++)
	{
		DjaCrash   *crash = &crashes->crashes[i];

		if (crash->verdict == DJA_NO_VERDICT)
		{
			if (room < 0 || crashes->crashes[room].verdict != DJA_NO_VERDICT)
				room = i;
		}
		else if (crash->database == database && crash->message_id == message_id)
		{
			room = i;
			verdict = Max(verdict, crash->verdict);
			break;
		}
		else if (room < 0 && verdict == DJA_CHARGED && crash->verdict == DJA_SUSPECT)
			room = i;			/* a charge may replace a suspicion */
	}
	if (room >= 0)
	{
		DjaCrash   *crash = &crashes->crashes[room];

		dja_crash_count(crashes, crash->verdict, -1);
		crash->verdict = verdict;
		crash->database = database;
		crash->type_hash = type_hash;
		crash->message_id = message_id;
		crash->writer = DJA_NO_SLOT;
		dja_crash_count(crashes, verdict, 1);
	}
	return room;
}

void
dja_crash_free(int i)
{
	dja_assert_locked();
	Assert(dja_crash(i)->verdict != DJA_NO_VERDICT);
	dja_crash_count(dja_shared->crashes, dja_crash(i)->verdict, -1);
	dja_crash(i)->verdict = DJA_NO_VERDICT;
	dja_crash(i)->writer = DJA_NO_SLOT;
}

/*
 * Removes an entry's file, so that the next start does not find it.  Only the
 * postmaster writes these files, so none can appear meanwhile.
 */
void
dja_crash_remove_file(int i)
{
	char		path[MAXPGPATH];

	dja_assert_unlocked();
	snprintf(path, sizeof(path), DJA_CRASH_PATH, i);
	(void) unlink(path);
}

bool
dja_crash_owed_slow(Oid database, uint64 type_hash, bool unclaimed)
{
	dja_assert_locked();
	for (int i = 0; i < dja_crash_room(); i++)
	{
		DjaCrash   *crash = dja_crash(i);

		if (crash->verdict == DJA_CHARGED && crash->database == database &&
			crash->type_hash == type_hash && (!unclaimed || crash->writer < 0))
			return true;
	}
	return false;
}

/*
 * Returns the entry of a message of this database that is suspected, or
 * DJA_NO_ENTRY.
 */
static int
dja_crash_suspicion(int64 message_id)
{
	dja_assert_locked();
	for (int i = 0; i < dja_crash_room(); i++)
	{
		DjaCrash   *crash = dja_crash(i);

		if (crash->verdict == DJA_SUSPECT && crash->database == MyDatabaseId &&
			crash->message_id == message_id)
			return i;
	}
	return DJA_NO_ENTRY;
}

bool
dja_crash_suspected_slow(int64 message_id)
{
	bool		suspected;

	dja_lock();
	suspected = dja_crash_suspicion(message_id) >= 0;
	dja_unlock();
	return suspected;
}

/*
 * Clears a suspect: the message was run alone, and its process is alive.
 */
void
dja_crash_acquit(int64 message_id)
{
	int			i;

	if (dja_shared->crashes->suspects == 0)
		return;
	dja_lock();
	i = dja_crash_suspicion(message_id);
	if (i >= 0)
		dja_crash_free(i);
	dja_unlock();
	if (i >= 0)
		dja_crash_remove_file(i);
}

/* ---------- entries that cannot be acted upon any more ---------- */

/*
 * Frees the entries that no worker is writing down and nobody can act upon: with a
 * list of all databases, those of databases that are not in it; with NIL, those of
 * this database whose type has no type queue, when all types have theirs.
 */
void
dja_crash_forget(List *databases)
{
	for (int i = 0; i < dja_crash_room(); i++)
	{
		DjaCrash   *crash = dja_crash(i);
		bool		gone;

		dja_lock();
		gone = crash->verdict != DJA_NO_VERDICT && crash->writer < 0;
		if (gone && databases != NIL)
			gone = !list_member_oid(databases, crash->database);
		else if (gone)
			gone = crash->database == MyDatabaseId &&
				dja_type_queue_find(MyDatabaseId, crash->type_hash) < 0;
		if (gone)
			dja_crash_free(i);
		dja_unlock();
		if (gone)
			dja_crash_remove_file(i);
	}
}

/* ---------- markers ---------- */

/*
 * SIGQUIT: another process has crashed, or the server is stopped at once.
 */
static void
dja_crash_quit(SIGNAL_ARGS)
{
	dja_marker->innocent = true;
	_exit(2);					/* as SignalHandlerForCrashExit does, for the
								 * same reasons */
}

/*
 * SIGTERM: asks this process to end, and Python code has to be told.  A signal
 * that the process has sent to itself comes from its handler, and is not noted.
 */
static void
dja_crash_terminate(int signo, siginfo_t * info, void *context)
{
	int			save_errno = errno;

	if (info->si_pid != MyProcPid)
		dja_sigterm = true;
	DJA_DIE(signo, info);
	dja_python_nudge();
	errno = save_errno;
}

/*
 * Sets the handler of SIGTERM.  pqsignal() would not tell it who has sent the
 * signal.
 */
void
dja_catch_sigterm(void)
{
	struct sigaction action = {0};

	action.sa_sigaction = dja_crash_terminate;
	action.sa_flags = SA_SIGINFO | SA_RESTART;
	sigemptyset(&action.sa_mask);
	(void) sigaction(SIGTERM, &action, NULL);
}

/*
 * Has another process asked this one to end?
 */
bool
dja_crash_terminated(void)
{
	return dja_sigterm;
}

/*
 * Maps a new file.  Returns NULL, and sets errno, if that fails.
 */
static DjaMarker *
dja_marker_map(const char *path)
{
	DjaMarker  *marker;
	int			fd;
	int			error;

	/* a new file, since an earlier worker may still have the old one */
	(void) unlink(path);
	fd = OpenTransientFile(path, O_RDWR | O_CREAT | O_EXCL | PG_BINARY);
	if (fd < 0)
		return NULL;
	do
		error = posix_fallocate(fd, 0, sizeof(DjaMarker));
	while (error == EINTR);
	marker = error != 0 ? MAP_FAILED :
		mmap(NULL, sizeof(DjaMarker), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (error == 0 && marker == MAP_FAILED)
		error = errno;
	(void) CloseTransientFile(fd);
	if (error == 0)
		return marker;
	(void) unlink(path);
	errno = error;
	return NULL;
}

/*
 * Makes the marker of this process, in the file of that number.
 */
static void
dja_marker_make(int slot)
{
	DjaCrashes *crashes = dja_shared->crashes;
	DjaMarker  *marker;
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), DJA_MARKER_PATH, slot);
	marker = dja_marker_map(path);
	if (marker == NULL)
	{
		if (crashes->complained == 0)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not create file \"%s\": %m", path),
					 errdetail("Should a process of djactor crash without it, no message will be charged with that.")));
		crashes->complained = slot + 1;
	}
	else
	{
		if (crashes->complained == slot + 1)
			crashes->complained = 0;
		marker->magic = DJA_MARKER_MAGIC;
		marker->server = PgStartTime;
		strlcpy(marker->boot_id, crashes->boot_id, sizeof(marker->boot_id));
		dja_marker = marker;
	}
	dja_marker->database = MyDatabaseId;
}

/*
 * Makes the marker of a worker that has taken its slot and its database.
 */
void
dja_crash_begin(int slot)
{
	dja_assert_worker();
	Assert(dja_my_worker == dja_worker(slot));
	dja_marker_make(slot);
	pqsignal(SIGQUIT, dja_crash_quit);
}

/*
 * SIGQUIT in a client's session.
 */
static void
dja_client_quit(SIGNAL_ARGS)
{
	dja_marker->innocent = true;
	quickdie(DJA_SIGNAL_ARGS);
}

/*
 * The number of a client's marker follows those of workers.
 */
static int
dja_client_slot(void)
{
	return dja_max_workers + dja_my_procno();
}

static void
dja_client_marker_end(int code, Datum arg)
{
	char		path[MAXPGPATH];

	dja_marker->message_id = 0;
	dja_marker = &dja_private_marker;
	snprintf(path, sizeof(path), DJA_MARKER_PATH, dja_client_slot());
	(void) unlink(path);
}

/*
 * Makes the marker of a client's session, which runs turns of hosted types, unless it
 * has one.
 */
void
dja_crash_begin_client(void)
{
	static bool made = false;

	if (made || dja_my_worker != NULL)
		return;
	made = true;
	dja_marker_make(dja_client_slot());
	before_shmem_exit(dja_client_marker_end, (Datum) 0);
	pqsignal(SIGQUIT, dja_client_quit);
}

/*
 * Ends the marker of a worker on its way out, before it gives its claims back.
 * If a handler ends its process without having been asked to (with FATAL, exit()
 * or a signal to itself, or since it ignores its time limit), that is charged as
 * a crash.
 */
void
dja_crash_end(int slot)
{
	DjaMarker  *marker = dja_marker;
	bool		charged = marker->message_id != 0 && !dja_sigterm && PostmasterIsAlive();

	dja_assert_worker();
	Assert(dja_my_worker == dja_worker(slot));
	dja_lock();
	for (int i = 0; i < dja_crash_room(); i++)
		if (dja_crash(i)->verdict != DJA_NO_VERDICT && dja_crash(i)->writer == slot)
			dja_crash(i)->writer = DJA_NO_SLOT;
	if (charged)
		(void) dja_crash_note(dja_shared->crashes, DJA_CHARGED, marker->database,
							  marker->type_hash, marker->message_id);
	dja_unlock();
	marker->message_id = 0;
	dja_marker = &dja_private_marker;
}

/*
 * Charges a message with the death of a process outside the server that ran it.
 * Without room for the verdict it goes unpunished.
 */
void
dja_crash_charge(Oid database, uint64 type_hash, int64 message_id)
{
	dja_assert_locked();
	(void) dja_crash_note(dja_shared->crashes, DJA_CHARGED, database, type_hash, message_id);
}

/* ---------- the postmaster ---------- */

static void
dja_read_boot_id(char *boot_id)
{
	int			fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | PG_BINARY, 0);

	if (fd < 0)
		return;
	if (read(fd, boot_id, DJA_BOOT_ID_LEN) != DJA_BOOT_ID_LEN)
		boot_id[0] = '\0';
	close(fd);
}

/*
 * Reads a file and removes it.  Returns false if it holds nothing of interest.
 */
static bool
dja_marker_read(const char *name, const char *boot_id, DjaMarker *marker)
{
	char		path[MAXPGPATH];
	int			fd;
	bool		ok;

	snprintf(path, sizeof(path), "%s/%s", PG_STAT_TMP_DIR, name);
	fd = open(path, O_RDONLY | PG_BINARY, 0);
	if (fd < 0)
		return false;
	ok = read(fd, marker, sizeof(DjaMarker)) == sizeof(DjaMarker) &&
		marker->magic == DJA_MARKER_MAGIC && marker->message_id != 0;
	close(fd);
	(void) unlink(path);
	if (ok && marker->verdict == DJA_NO_VERDICT)
	{
		marker->boot_id[DJA_BOOT_ID_LEN] = '\0';
		ok = !marker->innocent && strcmp(marker->boot_id, boot_id) == 0;
	}
	return ok && marker->verdict <= DJA_CHARGED;
}

/*
 * Keeps a verdict in shared memory, and in a file for the next start.
 */
static void
dja_crash_keep(DjaCrashes *crashes, DjaMarker *marker)
{
	int			i = dja_crash_note(crashes, marker->verdict, marker->database,
								   marker->type_hash, marker->message_id);
	char		path[MAXPGPATH];
	int			fd;

	if (i < 0)
		return;
	marker->verdict = crashes->crashes[i].verdict;
	snprintf(path, sizeof(path), DJA_CRASH_PATH, i);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY, pg_file_create_mode);
	if (fd < 0)
		return;
	/* a file that was cut off is ignored */
	(void) !write(fd, marker, sizeof(DjaMarker));
	close(fd);
}

/*
 * Passes the verdicts, at a start and after a crash.  Raises no error: a server
 * that does not start would be worse than a verdict lost.
 */
static void
dja_crash_collect(DjaCrashes *crashes)
{
	DIR		   *dir = AllocateDir(PG_STAT_TMP_DIR);
	struct dirent *entry;
	int			size = 64;
	int			n = 0;
	int			running = 0;
	DjaMarker  *markers = palloc(sizeof(DjaMarker) * size);

	while ((entry = ReadDirExtended(dir, PG_STAT_TMP_DIR, LOG)) != NULL)
	{
		if (strncmp(entry->d_name, DJA_MARKER_PREFIX, strlen(DJA_MARKER_PREFIX)) != 0)
			continue;
		if (n == size)
			markers = repalloc(markers, sizeof(DjaMarker) * (size *= 2));
		if (!dja_marker_read(entry->d_name, crashes->boot_id, &markers[n]))
			continue;
		if (markers[n++].verdict == DJA_NO_VERDICT)
			running++;
	}
	FreeDir(dir);

	for (int i = 0; i < n; i++)
	{
		DjaMarker  *marker = &markers[i];

		if (marker->verdict == DJA_NO_VERDICT)
		{
			/* at its first start a postmaster has no start time yet */
			bool		this_server = PgStartTime != 0 && marker->server == PgStartTime;

			marker->verdict = marker->run_alone || (running == 1 && this_server) ?
				DJA_CHARGED : DJA_SUSPECT;
			if (marker->verdict == DJA_SUSPECT)
				ereport(LOG,
						(errmsg("message " INT64_FORMAT " of djactor was being handled in database %u when the server was killed",
								marker->message_id, marker->database),
						 errdetail("It may have nothing to do with that; it will be run in a transaction of its own.")));
		}
		dja_crash_keep(crashes, marker);
	}
	pfree(markers);
}

void
dja_crash_setup(void *memory)
{
	DjaCrashes *crashes = memory;

	Assert(!IsUnderPostmaster);
	memset(crashes, 0, dja_crash_size());
	dja_read_boot_id(crashes->boot_id);
	if (IsPostmasterEnvironment && !IsUnderPostmaster)
		dja_crash_collect(crashes);
}
