/*
 * notification.h
 *
 * Reading notifications in a process without a client; see notification.c.
 */
#ifndef DJA_NOTIFICATION_H
#define DJA_NOTIFICATION_H

extern bool dja_read_notifications(void);

#endif							/* DJA_NOTIFICATION_H */
