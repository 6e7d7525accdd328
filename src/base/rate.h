/*
 * rate.h
 *
 * Rates as an actor type's options name them: so many turns in so long a time.
 */
#ifndef DJA_RATE_H
#define DJA_RATE_H

#define DJA_RATE_MAX_TURNS 1000000
#define DJA_RATE_MAX_DAYS 31

typedef struct DjaRate
{
	int			turns;			/* 0 = no limit */
	int64		period;			/* microseconds */
} DjaRate;

/* Returns what is wrong with the text, or NULL if *rate has been set. */
extern const char *dja_rate_parse(const char *text, DjaRate *rate);

#endif							/* DJA_RATE_H */
