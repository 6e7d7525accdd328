/*
 * hosted_session.h
 *
 * The host that this session is, if it is one.
 */
#ifndef DJA_HOSTED_SESSION_H
#define DJA_HOSTED_SESSION_H

#include "shmem/hosts.h"

#define DJA_TAKE_NCOLUMNS 24	/* of take() */

extern int	dja_require_host(int64 *id);

#endif							/* DJA_HOSTED_SESSION_H */
