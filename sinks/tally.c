/* tally.c - see tally.h. */
#include "sinks/tally.h"

void tally_begin(struct tally *tally, uint64_t minute)
{
    *tally = (struct tally){ .begun = minute };
}

void tally_add(struct tally *tally, uint64_t minute, uint64_t rows)
{
    uint64_t slot = minute % TALLY_MINUTES;

    if (minute < tally->begun)
        tally->begun = minute;
    if (tally->slots[slot].minute != minute) {
        tally->slots[slot].minute = minute;
        tally->slots[slot].rows = 0;
    }
    tally->slots[slot].rows += rows;
}

uint64_t tally_sum(const struct tally *tally, uint64_t from, uint64_t to)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < TALLY_MINUTES; i++)
        if (tally->slots[i].minute >= from && tally->slots[i].minute < to)
            sum += tally->slots[i].rows;
    return sum;
}
