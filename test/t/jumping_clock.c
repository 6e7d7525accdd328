/*
 * jumping_clock.c
 *
 * For 023_clock.pl: preloaded into a server, it moves the server's clock by as
 * many seconds as the file says that the environment variable JUMPING_CLOCK
 * names.  Monotonic clocks and timers run on, as they do when an operator or
 * NTP sets the clock.  (libfaketime will not do: a process that was forked
 * while its parent slept in select() keeps the real time for ever, and up to
 * PostgreSQL 15 that is how the postmaster starts background workers.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long
offset(void)
{
	const char *name = getenv("JUMPING_CLOCK");
	FILE	   *file = name ? fopen(name, "re") : NULL;
	long		seconds = 0;

	if (file == NULL)
		return 0;
	if (fscanf(file, "%ld", &seconds) != 1)
		seconds = 0;
	fclose(file);
	return seconds;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec ts;
	int			(*real) (clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
	int			result = real(CLOCK_REALTIME, &ts);

	(void) tz;
	tv->tv_sec = ts.tv_sec + offset();
	tv->tv_usec = ts.tv_nsec / 1000;
	return result;
}

time_t
time(time_t *t)
{
	struct timeval tv;

	gettimeofday(&tv, NULL);
	if (t != NULL)
		*t = tv.tv_sec;
	return tv.tv_sec;
}
