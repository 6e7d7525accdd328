/*
 * windows.h
 *
 * How many turns of a rate have begun in the time that has just passed, in shared
 * memory.
 *
 * A window remembers when turns began for one period of its rate.  A turn may begin
 * while fewer than the rate's number are remembered.  So in any span of a period's
 * length at most that many begin, wherever it starts.  A bucket of tokens would
 * let twice as many begin in the period that follows quiet.
 *
 * A rate of up to DJA_WINDOW_PARTS turns is remembered turn by turn.  With more, those
 * of a fifteenth of the period are remembered together, as if all had begun with the
 * last of them: they are forgotten that much too late, never too early.
 *
 * An empty window says nothing, and so does one that is new: after a restart of the
 * server counting begins anew.
 *
 * Every function needs dja_shared->lock, and raises no error.
 */
#ifndef DJA_WINDOWS_H
#define DJA_WINDOWS_H

#include "datatype/timestamp.h"

#include "base/rate.h"

#define DJA_WINDOW_PARTS 16

typedef struct DjaWindowPart
{
	TimestampTz at;				/* when the last of these turns began */
	int			turns;
} DjaWindowPart;

typedef struct DjaWindow
{
	int			first;			/* the oldest part */
	int			nparts;
	DjaWindowPart parts[DJA_WINDOW_PARTS];	/* a ring, in the order of time */
} DjaWindow;

/* how many turns may begin now; if none may, *until is when one may */
extern int	dja_window_left(DjaWindow *window, const DjaRate *rate, TimestampTz now, TimestampTz *until);

/* a turn begins now, which must be allowed */
extern void dja_window_take(DjaWindow *window, const DjaRate *rate, TimestampTz now);

/* a turn that began no earlier than since counts as if it had not begun */
extern void dja_window_give_back(DjaWindow *window, TimestampTz since);

#endif							/* DJA_WINDOWS_H */
