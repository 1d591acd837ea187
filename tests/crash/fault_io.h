/* fault_io.h - an io table in which the nth call fails, and the calls after it as long as told; the rest goes to disk_io. */
#ifndef CRASH_FAULT_IO_H
#define CRASH_FAULT_IO_H

#include "daemon/disk/io.h"

enum fault {
    FAULT_NO_SPACE,                  /* ENOSPC, from whatever may need room */
    FAULT_IO,                        /* EIO; a sync that fails so has forgotten what it should have kept */
    FAULT_INTERRUPTED,               /* EINTR */
    FAULT_SHORT,                     /* half of a read or write */
    FAULTS
};
extern const char *const fault_words[FAULTS];

/* Of the calls that such a fault can hit, those numbered [nth, nth + lasts) fail, counted from 1. 0: none. */
void fault_set(enum fault fault, unsigned long nth, unsigned long lasts);
unsigned long fault_calls(void);     /* calls since then that it could have hit */
unsigned long fault_hits(void);      /* and those it did hit */
extern const struct io fault_io;

#endif
