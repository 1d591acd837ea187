/*
 * tally.h - how many rows a far end has accepted, minute by minute, for the last two hours.
 *
 * In memory alone, 2 KB: a start begins anew and knows nothing of the minutes before it. Minutes count from 1970, by the wall
 * clock, since those who are compared with count so. Where that clock is set back, the tally begins with the earlier minute.
 */
#ifndef SINKS_TALLY_H
#define SINKS_TALLY_H

#include <stdint.h>

#define TALLY_MINUTES 120

struct tally {
    uint64_t begun;                  /* its first minute: all rows since the start are in it or in later ones */
    struct { uint64_t minute, rows; } slots[TALLY_MINUTES];        /* a minute's own is minute % TALLY_MINUTES */
};

void tally_begin(struct tally *tally, uint64_t minute);
void tally_add(struct tally *tally, uint64_t minute, uint64_t rows);
/* Of the minutes from `from` to the one before `to`; what has left the ring is missing. */
uint64_t tally_sum(const struct tally *tally, uint64_t from, uint64_t to);

#endif
