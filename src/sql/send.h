/*
 * send.h
 *
 * Sending; see send.c.
 */
#ifndef DJA_SEND_H
#define DJA_SEND_H

extern void dja_check_key(text *key, const char *what);

#endif							/* DJA_SEND_H */
