/*
 * trouble.c
 *
 * Decides whose trouble an error is; see trouble.h.
 *
 * The server serves others in two cases: a batch has committed just now, or only
 * few messages have met such an error of late.  In the second case the server has
 * hardly been tested, since one bad message on a quiet server has no others
 * beside it.  That its error could be written down each time shows that the
 * server works.
 *
 * "Just now" is less time than the quick tries of a message take that was put off
 * for the server's trouble.  So a message that is charged after them has met its
 * error all the time, while others were served.  The time since the message was
 * due would be too short, since mail is claimed at once.
 */
#include "postgres.h"

#include "shmem/shmem.h"
#include "shmem/trouble.h"

#define DJA_OF_LATE (60 * USECS_PER_SEC)
#define DJA_JUST_NOW (500 * INT64CONST(1000))

/*
 * Notes that a batch with turns in it has committed.
 */
void
dja_trouble_over(DjaTrouble *trouble, TimestampTz now)
{
	dja_assert_locked();
	trouble->served_at = now;
}

/*
 * Notes that a message has met an error of the server.  Returns whether that is
 * the message's own, since the server serves others.
 */
bool
dja_trouble_is_its_own(DjaTrouble *trouble, int64 message_id, TimestampTz now)
{
	int			mine = 0;
	int			recent = 0;

	dja_assert_locked();
	for (int i = 0; i < DJA_TROUBLED; i++)
	{
		recent += trouble->put_off[i].message_id != 0 && trouble->put_off[i].at >= now - DJA_OF_LATE;
		if (trouble->put_off[mine].message_id == message_id)
			continue;
		if (trouble->put_off[i].message_id == message_id ||
			trouble->put_off[i].at < trouble->put_off[mine].at)
			mine = i;
	}
	trouble->put_off[mine].message_id = message_id;
	trouble->put_off[mine].at = now;
	return trouble->served_at >= now - DJA_JUST_NOW || recent < DJA_TROUBLED;
}
