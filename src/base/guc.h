/*
 * guc.h
 *
 * The settings.  Every file may read them; only the server's GUC machinery writes
 * them.
 */
#ifndef DJA_GUC_H
#define DJA_GUC_H

extern int	dja_max_workers;	/* per server */
extern int	dja_run_queue_size; /* mailboxes */
extern int	dja_batch_size;		/* messages */
extern int	dja_batch_time;		/* ms */
extern int	dja_poll_interval;	/* ms */
extern int	dja_idle_timeout;	/* ms */
extern int	dja_dead_letter_retention;	/* s, -1 = for ever */
extern int	dja_reply_retention;	/* s */
extern int	dja_idempotency_retention;	/* s */
extern int	dja_max_crashes;
extern char *dja_instance;

extern void dja_guc_init(void);

#endif							/* DJA_GUC_H */
