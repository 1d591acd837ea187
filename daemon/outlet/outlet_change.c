/*
 * outlet_change.c - an outlet changes under way: another sink takes the place of the one it has, other settings hold.
 *
 * All that waits stays where it is: open batches, parts, spool, dead letters and counters are the outlet's and not the sink's.
 * So nothing is delivered twice and nothing goes round by the disk for a reload's sake. The two sinks are open side by side
 * for a moment; the new one is handed its first part when the last of the old one is answered.
 */
#include "daemon/outlet/outlet_inside.h"

#include <assert.h>

uint64_t outlet_held(const struct outlet *outlet, uint32_t row)
{
    return outlet->ledger[row].count[LEDGER_HELD];
}

uint64_t outlet_held_all(const struct outlet *outlet)
{
    uint64_t held = 0;

    for (uint32_t row = 0; row <= outlet->conf.source_count; row++)
        held += outlet_held(outlet, row);
    return held;
}

uint32_t outlet_flying(const struct outlet *outlet)
{
    return outlet->flying_count;
}

void outlet_drain(struct outlet *outlet, bool drain)
{
    if (outlet->draining == drain)
        return;
    outlet->draining = drain;
    outlet_set_grace(outlet);
    outlet_pump(outlet);
}

void outlet_hush(struct outlet *outlet, bool hush)
{
    outlet->hushed = hush;
    outlet_pump(outlet);
}

/* ---- Another sink ---- */

int outlet_prepare(struct outlet *outlet, const struct sink_settings *settings, size_t memory_max, struct pen_error *err)
{
    int r;

    assert(outlet->next == NULL);
    outlet->conf.memory_max = memory_max;
    r = outlet_sink_open(&outlet->next, outlet, settings, err);
    if (r == 0)
        budget_take(outlet->conf.budget, outlet->next->limits.memory);
    return r;
}

static void outlet_sink_gone(struct outlet *outlet, struct outlet_sink *sink)
{
    budget_give(outlet->conf.budget, sink->limits.memory);
    outlet_sink_close(sink);
}

static void on_next_stopped(void *arg)
{
    struct outlet *outlet = arg;
    struct outlet_sink *sink = outlet->next;

    outlet->next = NULL;
    outlet_sink_gone(outlet, sink);
    outlet->on_stopped(outlet->stopped_arg);
}

void outlet_abandon(struct outlet *outlet, void (*abandoned)(void *arg), void *arg)
{
    outlet->on_stopped = abandoned;
    outlet->stopped_arg = arg;
    outlet->next->type->stop(outlet->next->self, on_next_stopped, outlet);
}

/* What the far end said was about the old one: the new one is tried at once, and what it is told is news. */
static void outlet_forgive(struct outlet *outlet)
{
    outlet->hold_until_ms = 0;
    outlet->backoff_ms = 0;
    outlet->dead_in_a_row = 0;
    outlet->doubting = false;
    outlet->trouble[0] = '\0';
    for (int kind = 0; kind < PEN_KINDS; kind++)
        outlet->refused[kind] = false;
}

static void on_old_stopped(void *arg)
{
    struct outlet *outlet = arg;
    struct outlet_sink *old = outlet->sink;

    assert(outlet->flying_count == 0);
    outlet_sink_take(outlet, outlet->next);
    outlet->next = NULL;
    outlet_forgive(outlet);
    outlet_sink_gone(outlet, old);
    outlet->on_stopped(outlet->stopped_arg);
}

void outlet_exchange(struct outlet *outlet, void (*exchanged)(void *arg), void *arg)
{
    assert(outlet->hushed && outlet->next != NULL);
    outlet_flush(outlet);                          /* by the old one's bounds: a batch keeps those that it was begun with */
    outlet->on_stopped = exchanged;
    outlet->stopped_arg = arg;
    outlet->sink->type->stop(outlet->sink->self, on_old_stopped, outlet);
}

/* ---- Other settings ---- */

void outlet_take(struct outlet *outlet, const struct sink_settings *settings, const struct keys *keys, uint32_t stop_ms)
{
    struct spool_conf conf;

    outlet->settings = outlet->conf.settings = settings;
    outlet->conf.keys = keys;
    outlet->conf.stop_ms = stop_ms;
    outlet->burial.conf.bytes_max = settings->dead_max;
    outlet->burial.conf.stamp.schema = outlet->schema->name;
    conf = outlet_spool_conf(outlet);
    spool_change(outlet->spool, &conf);
    if (settings->spool == SPOOL_ALWAYS && outlet->state == OUTLET_OPEN)
        outlet_spill(outlet);
}

void outlet_row_renew(struct outlet *outlet, uint32_t row)
{
    struct ledger_row *from = &outlet->ledger[row], *to = &outlet->ledger[outlet->conf.source_count];

    assert(row < outlet->conf.source_count && from->count[LEDGER_HELD] == 0 && from->count[LEDGER_SPOOLED] == 0);
    for (int place = 0; place < LEDGER_PLACES; place++)
        to->count[place] += from->count[place];
    *from = (struct ledger_row){ 0 };
}
