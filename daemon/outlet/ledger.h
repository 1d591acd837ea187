/*
 * ledger.h - where every message is, per source and sink, so that the counters add up at any moment:
 *
 *     taken = held + spooled + delivered + dead + dropped
 *
 * A message enters a sink's ledger as held (or dropped, by the sink's `events =`) and only ever moves. The last row counts
 * what an earlier life left in the spool, and what sources counted whose row was given to another since.
 */
#ifndef DAEMON_LEDGER_H
#define DAEMON_LEDGER_H

#include <assert.h>
#include <stdint.h>

enum ledger_place {
    LEDGER_HELD,                     /* in memory: open, waiting or in flight, and nowhere else */
    LEDGER_SPOOLED,                  /* on disk, perhaps in flight as well */
    LEDGER_DELIVERED,
    LEDGER_DEAD,                     /* in the dead letters */
    LEDGER_DROPPED,                  /* by a rule of the user, or lost to a damaged disk (which is logged as an error) */
    LEDGER_PLACES
};

struct ledger_row {
    uint64_t count[LEDGER_PLACES];
};

static inline uint64_t ledger_taken(const struct ledger_row *row)
{
    uint64_t sum = 0;

    for (int i = 0; i < LEDGER_PLACES; i++)
        sum += row->count[i];
    return sum;
}

static inline void ledger_move(struct ledger_row *row, enum ledger_place from, enum ledger_place to, uint64_t n)
{
    assert(row->count[from] >= n);
    row->count[from] -= n;
    row->count[to] += n;
}

#endif
