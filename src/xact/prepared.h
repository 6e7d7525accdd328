/*
 * prepared.h
 *
 * Around PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED.
 */
#ifndef DJA_PREPARED_H
#define DJA_PREPARED_H

/* gid, when the command comes; then write when it is done, or forget */
extern void dja_prepared_gid(const char *gid);
extern void dja_prepared_write(void);
extern void dja_prepared_forget(void);

/* before the other two commands; and after them, also after an error */
extern void dja_prepared_begin(const char *gid, bool commit);
extern void dja_prepared_end(bool done);

#endif							/* DJA_PREPARED_H */
