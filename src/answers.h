/*
 * answers.h
 *
 * Asks from outside that the transaction has answered; see answers.c.  pending.c
 * calls all but the first at the transaction's end.
 */
#ifndef DJA_ANSWERS_H
#define DJA_ANSWERS_H

extern void dja_answers_note(int64 message_id);
extern void dja_answers_announce(void);
extern void dja_answers_deliver(void);
extern void dja_answers_forget(void);
extern void dja_answers_init(void);

#endif							/* DJA_ANSWERS_H */
