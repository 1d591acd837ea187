/*
 * loop.h - a life of the daemon's own outlet, stream and saver on a loop, with a source of numbered records and a far end
 * that answers as it likes, one batch at a time. What script.h does in few lines is here the real thing, with the pool's
 * threads; so no two runs are the same, and each is judged by the log it has left.
 *
 * A second of the loop's clock lasts 10 ms, so that nobody waits for the patience of an outlet.
 */
#ifndef CRASH_LOOP_H
#define CRASH_LOOP_H

#include "crash/oracle.h"

/* Opens what is in the folder, takes `turns` turns, and stops in order. With `drain`, goes on until every record of
 * [0, count) came to its end and the cursor is saved there. False: it did not open, or did not get there. */
bool loop_live(const char *dir, const struct variant *variant, unsigned seed, unsigned turns, uint32_t count, bool drain);

#endif
