/*
 * script.h - a life of spool, cursors and dead letters without a loop: a seed chooses what is done next, and every call
 * comes in an order that the seed alone decides. What the outlet, the streams and the saver do with these is done here in
 * few lines, so that the nth call is the same call in every run.
 */
#ifndef CRASH_SCRIPT_H
#define CRASH_SCRIPT_H

#include "crash/oracle.h"

/* Opens what is in the folder, does `actions` things, and closes. With `drain`, goes on until all of the records [0, count)
 * came to their end, and the spool is empty. False: it did not open, or did not get there; another life may. */
bool script_live(const char *dir, const struct variant *variant, unsigned seed, unsigned actions, uint32_t count, bool drain);

#endif
