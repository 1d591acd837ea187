/*
 * outlet.c - the road from a message to its answer.
 *
 *                      ┌──────────── ready ──▶ flying ──▶ answer
 *   open ──seal──▶ inbox                ▲
 *                      └──▶ spool ──────┘ read back
 *
 *   OPEN      the inbox goes straight to ready. Nothing is on disk.
 *   SPOOLING  the inbox is appended to the spool and synced; ready is filled from the spool, oldest first.
 *   PAUSED    as SPOOLING, but the spool is full or cannot be written: the inbox waits in memory, and the sources with it.
 *
 * road_spills() is the one place that decides to leave OPEN: a sealed part could not be submitted for spool_after, or the
 * daemon stops. The spool then holds an unbroken run of the outlet's sequence: what is in flight (or waits for its
 * retry) is written first and stays in memory as well, `keep`; what comes behind is written and forgotten. The outlet is
 * OPEN again when the spool is empty.
 *
 * What *safe* means is known to one function, batch_safe(): on disk and synced, or at its end.
 *
 * tests/model/outlet.pml is this protocol, with these states and names, checked in every state it can reach. A part there
 * is in one of INBOX, APPENDING (an append has it from the inbox), READY, FLYING, LANDED (`late`: its answer waits
 * for the append), DEAD, BURYING.
 *
 * If we die at any instruction: parts in memory were never safe, their runs hold the cursors, the records are read again;
 * parts on disk are read back in order. Either repeats with the same event ids and loses nothing.
 */
#include "daemon/outlet/outlet_inside.h"

#include "daemon/base/log.h"

#include <stdlib.h>

#define BATCH_FIRST_BYTES ((size_t)32 * 1024)

/* ---- Counting and safety ---- */

static uint32_t ledger_row_of(const struct outlet *outlet, const struct pen_message *message)
{
    return message->source < outlet->conf.source_count ? message->source : outlet->conf.source_count;
}

void outlet_part_end(struct part *part, uint32_t from, uint32_t count, enum ledger_place end)
{
    struct outlet *outlet = part->outlet;
    enum ledger_place before = part->frame != NULL ? LEDGER_SPOOLED : LEDGER_HELD;
    uint32_t row, same, i = from;

    while (i < from + count) {
        row = ledger_row_of(outlet, &part->lent.messages[i]);
        for (same = 1; i + same < from + count && ledger_row_of(outlet, &part->lent.messages[i + same]) == row; same++)
            ;
        ledger_move(&outlet->ledger[row], before, end, same);
        if (part->frame != NULL)
            spool_settle(outlet->spool, part->frame, row, same);
        i += same;
    }
    if (before == LEDGER_HELD)
        batch_safe(part->batch, count);
}

void outlet_part_on_disk(struct part *part)
{
    struct outlet *outlet = part->outlet;

    for (uint32_t i = 0; i < part->lent.count; i++)
        ledger_move(&outlet->ledger[ledger_row_of(outlet, &part->lent.messages[i])], LEDGER_HELD, LEDGER_SPOOLED, 1);
    batch_safe(part->batch, part->lent.count);
}

/* What the spool could not read back is gone, and must not be counted as waiting for ever. */
static void outlet_count_lost(struct outlet *outlet)
{
    if (!spool_has_lost(outlet->spool))
        return;
    for (uint32_t row = 0; row <= outlet->conf.source_count; row++)
        ledger_move(&outlet->ledger[row], LEDGER_SPOOLED, LEDGER_DROPPED, spool_lost(outlet->spool, row));
}

/* ---- Lists ---- */

void outlet_ready_add(struct outlet *outlet, struct part *part)
{
    parts_insert(&outlet->ready, part);
    outlet->ready_count++;
}

static struct part *ready_take(struct outlet *outlet)
{
    struct part *part = TAILQ_FIRST(&outlet->ready);

    if (part != NULL) {
        TAILQ_REMOVE(&outlet->ready, part, entry);
        outlet->ready_count--;
    }
    return part;
}

/* ---- Sealing ---- */

static void outlet_seal(struct outlet *outlet, enum pen_kind kind)
{
    struct batch *batch = outlet->open[kind];
    struct part *part;

    outlet->open[kind] = NULL;
    outlet->room[kind] = batch->size + batch->size / 16;       /* less than what batch_trim() would give back */
    batch_trim(batch);
    part = part_new(outlet, batch, ++outlet->order, outlet_now_ms(outlet));
    TAILQ_INSERT_TAIL(&outlet->inbox, part, entry);
}

void outlet_flush(struct outlet *outlet)
{
    for (int kind = 0; kind < PEN_KINDS; kind++)
        if (outlet->open[kind] != NULL)
            outlet_seal(outlet, kind);
    outlet_pump(outlet);
}

bool outlet_has_open(const struct outlet *outlet)
{
    for (int kind = 0; kind < PEN_KINDS; kind++)
        if (outlet->open[kind] != NULL)
            return true;
    return false;
}

/* While much goes by, batch after batch becomes as full as the one before: it need not grow to that by copying. */
static size_t outlet_room(const struct outlet *outlet, enum pen_kind kind)
{
    size_t room = outlet->room[kind] < outlet->limits.bytes_max ? outlet->room[kind] : outlet->limits.bytes_max;

    return room > BATCH_FIRST_BYTES ? room : BATCH_FIRST_BYTES;
}

void outlet_add(struct outlet *outlet, enum pen_kind kind, const char *data, size_t size,
                const struct batch_origin *origin)
{
    enum pen_kind lane = outlet->limits.by_kind ? kind : PEN_UNKNOWN;
    struct batch **open = &outlet->open[lane];

    if (*open != NULL && !batch_fits(*open, size, origin->ticks, &outlet->limits))
        outlet_seal(outlet, lane);
    if (*open == NULL)
        *open = batch_new(outlet->conf.budget, lane, outlet_room(outlet, lane), outlet_now_ms(outlet));
    batch_add(*open, data, size, origin);
    outlet->ledger[origin->source].count[LEDGER_HELD]++;
}

void outlet_drop(struct outlet *outlet, uint32_t source, uint64_t count)
{
    outlet->ledger[source].count[LEDGER_DROPPED] += count;
}

/* When an open batch is sealed, full or not. While others stand before it, it would only wait sealed: so it goes on filling,
 * and one full post leaves in place of many small ones. But no longer than what waits may wait before it goes to disk. */
static uint64_t outlet_due_ms(const struct outlet *outlet, const struct batch *batch)
{
    uint32_t wait_ms = outlet->settings->flush_ms;
    bool queue = !TAILQ_EMPTY(&outlet->ready) || outlet->flying_count >= outlet->limits.in_flight_max ||
        outlet_now_ms(outlet) < outlet->hold_until_ms;

    if (queue && outlet->state == OUTLET_OPEN && outlet->settings->spool_after_ms > wait_ms)
        wait_ms = outlet->settings->spool_after_ms;
    return batch->opened_ms + wait_ms;
}

static void outlet_seal_due(struct outlet *outlet)
{
    for (int kind = 0; kind < PEN_KINDS; kind++) {
        struct batch *batch = outlet->open[kind];

        if (batch != NULL && (outlet->stopping || outlet->draining || batch->size >= outlet->limits.bytes_max ||
                              outlet_now_ms(outlet) >= outlet_due_ms(outlet, batch)))
            outlet_seal(outlet, kind);
    }
}

/* ---- The states ---- */

void outlet_enter(struct outlet *outlet, enum outlet_state state, const char *why)
{
    static const char *const words[] = { "open", "spooling", "paused" };

    if (outlet->state == state)
        return;
    log_line(state == OUTLET_PAUSED ? LOG_WARN : LOG_NOTE, why, "sink", outlet->settings->name, "flow", words[state],
             "spool_bytes", log_number(spool_bytes(outlet->spool)), NULL);
    outlet->state = state;
}

/* The one decision: does what waits go to disk? */
static bool road_spills(const struct outlet *outlet)
{
    const struct part *oldest = TAILQ_FIRST(&outlet->ready);

    if (oldest == NULL)
        oldest = TAILQ_FIRST(&outlet->inbox);
    if ((outlet->stopping || outlet->draining) && outlet_now_ms(outlet) >= outlet->deliver_until_ms)
        return oldest != NULL || outlet->flying_count > 0;
    return oldest != NULL && outlet_now_ms(outlet) >= outlet->append_hold_until_ms &&
        outlet_now_ms(outlet) - oldest->sealed_ms >= outlet->settings->spool_after_ms;
}

/* OPEN to SPOOLING: what flies, or stands before something that flies, is written and kept; the rest goes back to the
 * inbox, to be written and forgotten. */
void outlet_spill(struct outlet *outlet)
{
    struct part *part, *next;
    uint64_t last = 0;

    TAILQ_FOREACH(part, &outlet->flying, entry) {
        part->keep = part->unwritten = true;
        if (part->order > last)
            last = part->order;
    }
    for (part = TAILQ_FIRST(&outlet->ready); part != NULL; part = next) {
        next = TAILQ_NEXT(part, entry);
        if (part->order <= last) {
            part->keep = part->unwritten = true;
            continue;
        }
        TAILQ_REMOVE(&outlet->ready, part, entry);
        outlet->ready_count--;
        parts_insert(&outlet->inbox, part);
    }
    outlet_enter(outlet, OUTLET_SPOOLING,
                 outlet->stopping ? "stopping: what is not delivered goes to the spool"
                 : outlet->draining ? "the configuration changes: what is not delivered goes to the spool"
                 : outlet->settings->spool == SPOOL_ALWAYS ? "messages go by way of the disk, as configured"
                 : "messages wait too long for the far end: they go to the spool");
}

/* SPOOLING or PAUSED to OPEN: nothing is on disk any more. */
static void outlet_unspill(struct outlet *outlet)
{
    struct part *part;

    TAILQ_FOREACH(part, &outlet->ready, entry)
        part->keep = part->unwritten = false;
    TAILQ_FOREACH(part, &outlet->flying, entry)
        part->keep = part->unwritten = false;
    /* Their waiting was for the disk, not for the far end: it must not send them back at once. */
    TAILQ_FOREACH(part, &outlet->inbox, entry)
        part->sealed_ms = outlet_now_ms(outlet);
    outlet_enter(outlet, OUTLET_OPEN, "the spool is empty");
}

/* ---- To the sink ---- */

/* While the answer to a part waits for the disk, nobody knows whether the part comes back: what is behind it must not pass. */
static void outlet_submit(struct outlet *outlet)
{
    struct part *part;

    while (!outlet->hushed && outlet->late_count == 0 && outlet->flying_count < outlet->limits.in_flight_max && !burial_blocks(&outlet->burial) &&
           outlet_now_ms(outlet) >= outlet->hold_until_ms && (part = ready_take(outlet)) != NULL) {
        part->flying = true;
        outlet->flying_count++;
        outlet->counts.submitted++;
        TAILQ_INSERT_TAIL(&outlet->flying, part, entry);
        outlet->sink->type->submit(outlet->sink->self, &part->lent);
    }
}

/* ---- The pump ---- */

static void soonest(uint64_t *at, uint64_t when)
{
    if (when < *at)
        *at = when;
}

static void on_timer(uv_timer_t *timer)
{
    outlet_pump(timer->data);
}

static void outlet_arm(struct outlet *outlet)
{
    const struct part *part = TAILQ_FIRST(&outlet->ready);
    uint64_t at = UINT64_MAX, now = outlet_now_ms(outlet);

    for (int kind = 0; kind < PEN_KINDS; kind++)
        if (outlet->open[kind] != NULL)
            soonest(&at, outlet_due_ms(outlet, outlet->open[kind]));
    if (outlet->hold_until_ms > now)
        soonest(&at, outlet->hold_until_ms);
    if (outlet->append_hold_until_ms > now)
        soonest(&at, outlet->append_hold_until_ms);
    if (outlet->read_hold_until_ms > now)
        soonest(&at, outlet->read_hold_until_ms);
    if (outlet->burial.hold_until_ms > now)
        soonest(&at, outlet->burial.hold_until_ms);
    if (part != NULL && outlet->state == OUTLET_OPEN)
        soonest(&at, part->sealed_ms + outlet->settings->spool_after_ms);
    if ((outlet->stopping || outlet->draining) && outlet->deliver_until_ms > now)
        soonest(&at, outlet->deliver_until_ms);
    if (outlet->stopping)
        soonest(&at, outlet->give_up_ms);
    if (at == UINT64_MAX)
        uv_timer_stop(&outlet->timer);
    else
        uv_timer_start(&outlet->timer, on_timer, at > now ? at - now : 1, 0);
}

static void inbox_to_ready(struct outlet *outlet)
{
    struct part *part;

    while ((part = TAILQ_FIRST(&outlet->inbox)) != NULL) {
        TAILQ_REMOVE(&outlet->inbox, part, entry);
        outlet_ready_add(outlet, part);
    }
}

bool outlet_has_jobs(const struct outlet *outlet)
{
    return outlet->append.since_ms > 0 || outlet->read.since_ms > 0 || outlet->burial.since_ms > 0;
}

void outlet_pump(struct outlet *outlet)
{
    outlet_count_lost(outlet);                     /* a segment with damage may have gone by any answer */
    outlet_seal_due(outlet);
    if (outlet->state != OUTLET_OPEN && outlet->settings->spool != SPOOL_ALWAYS && !outlet_has_jobs(outlet) &&
        spool_is_empty(outlet->spool) && !outlet->stopping)
        outlet_unspill(outlet);
    if (outlet->state == OUTLET_OPEN && !outlet->sink_stopping) {
        inbox_to_ready(outlet);
        outlet_submit(outlet);
        if (road_spills(outlet))
            outlet_spill(outlet);
    }
    /* Once the sink is told to stop, no job may outlive it: what is answered from now on stays unsafe or on disk as it
     * is, and comes again in the next life. */
    if (!outlet->sink_stopping) {
        outlet_start_append(outlet);
        outlet_start_read(outlet);
        outlet_submit(outlet);
        burial_pump(&outlet->burial);
        outlet_arm(outlet);
    }
    if (outlet->stopping)
        outlet_stop_on(outlet);
    outlet->conf.on_moved(outlet->conf.arg);
}
