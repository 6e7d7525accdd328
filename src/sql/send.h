/*
 * send.h
 *
 * Sending; see send.c.
 */
#ifndef DJA_SEND_H
#define DJA_SEND_H

/*
 * Raises 22023 if a key is empty or too long; what says which key it is.
 */
extern void dja_check_key(text *key, const char *what);

#endif							/* DJA_SEND_H */
