/*
 * send.h
 *
 * Sending; see send.c.
 */
#ifndef DJA_SEND_H
#define DJA_SEND_H

/*
 * Raises 22023 if a key is empty or too long.  what names the key in the error.
 */
extern void dja_check_key(text *key, const char *what);

#endif							/* DJA_SEND_H */
