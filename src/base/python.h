/*
 * python.h
 *
 * Interrupting Python code; see python.c.
 */
#ifndef DJA_PYTHON_H
#define DJA_PYTHON_H

extern void dja_python_begin(Oid language);
extern void dja_python_end(void);
extern void dja_python_nudge(void);

#endif							/* DJA_PYTHON_H */
