/*
 * dump_insert.h
 *
 * INSERTs of messages with their ids.
 */
#ifndef DJA_DUMP_INSERT_H
#define DJA_DUMP_INSERT_H

extern void dja_dump_insert_init(void);

#endif							/* DJA_DUMP_INSERT_H */
