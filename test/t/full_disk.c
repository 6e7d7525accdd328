/*
 * full_disk.c
 *
 * For 025_recovery_disk_full.pl: preloaded into a server, it makes the disk full for the
 * files whose path contains what stands in the file that the environment variable
 * FULL_DISK names; while there is no such file there is room.  Existing bytes can be written
 * over, as on a real disk: only what would make a file longer fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int
is_full(int fd, off_t end)
{
	const char *name = getenv("FULL_DISK");
	char		wanted[256];
	char		link[64];
	char		path[4096];
	ssize_t		n;
	int			flag;
	struct stat st;
	int			saved = errno;

	flag = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	if (flag < 0)
	{
		errno = saved;
		return 0;
	}
	n = read(flag, wanted, sizeof(wanted) - 1);
	close(flag);
	wanted[n > 0 ? n : 0] = '\0';
	wanted[strcspn(wanted, "\n")] = '\0';
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	errno = saved;
	if (wanted[0] == '\0' || strstr(path, wanted) == NULL)
		return 0;
	if (end >= 0 && fstat(fd, &st) == 0 && end <= st.st_size)
		return 0;
	errno = ENOSPC;
	return 1;
}

ssize_t
pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	ssize_t		(*real) (int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");

	return is_full(fd, offset + (off_t) n) ? -1 : real(fd, buf, n, offset);
}

ssize_t
pwrite64(int fd, const void *buf, size_t n, off_t offset)
{
	return pwrite(fd, buf, n, offset);
}

ssize_t
pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	ssize_t		(*real) (int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, "pwritev");
	off_t		end = offset;

	for (int i = 0; i < count; i++)
		end += iov[i].iov_len;
	return is_full(fd, end) ? -1 : real(fd, iov, count, offset);
}

ssize_t
pwritev64(int fd, const struct iovec *iov, int count, off_t offset)
{
	return pwritev(fd, iov, count, offset);
}

int
posix_fallocate(int fd, off_t offset, off_t len)
{
	int			(*real) (int, off_t, off_t) = dlsym(RTLD_NEXT, "posix_fallocate");

	return is_full(fd, offset + len) ? ENOSPC : real(fd, offset, len);
}

int
posix_fallocate64(int fd, off_t offset, off_t len)
{
	return posix_fallocate(fd, offset, len);
}

ssize_t
write(int fd, const void *buf, size_t n)
{
	ssize_t		(*real) (int, const void *, size_t) = dlsym(RTLD_NEXT, "write");

	/* pipes and sockets come here too: they have no such path */
	return is_full(fd, -1) ? -1 : real(fd, buf, n);
}
