/*
 * outlet_see.c - what there is to see of an outlet, for the status, the watchdog, and whoever waits for its end.
 */
#include "daemon/outlet/outlet_inside.h"

#include "daemon/status/status.h"

const char *outlet_name(const struct outlet *outlet)
{
    return outlet->name;
}

const struct schema *outlet_schema(const struct outlet *outlet)
{
    return outlet->schema;
}

const struct sink_settings *outlet_settings(const struct outlet *outlet)
{
    return outlet->settings;
}

enum outlet_state outlet_state(const struct outlet *outlet)
{
    return outlet->state;
}

const struct ledger_row *outlet_ledger(const struct outlet *outlet, uint32_t row)
{
    return &outlet->ledger[row];
}

const struct outlet_counts *outlet_counts(const struct outlet *outlet)
{
    return &outlet->counts;
}

static bool outlet_is_refused(const struct outlet *outlet)
{
    bool refused = outlet->doubting;

    for (int kind = 0; kind < PEN_KINDS; kind++)
        refused = refused || outlet->refused[kind];
    return refused;
}

/* Sealed, and not at its end. What is still open waits for its time. */
static bool outlet_waits(const struct outlet *outlet)
{
    return !TAILQ_EMPTY(&outlet->inbox) || outlet->append.since_ms > 0 || outlet->ready_count > 0 ||
        outlet->flying_count > 0 || outlet->burial.waiting_count > 0 || !spool_is_empty(outlet->spool);
}

void outlet_see(const struct outlet *outlet, struct status_sink *sink)
{
    const struct sink_settings *settings = outlet->settings;
    const struct outlet_counts *counts = &outlet->counts;
    const struct pen_sink *type = outlet->sink->type;

    sink->name = settings->name;
    sink->type = type->name;
    sink->schema = outlet->schema->name;
    sink->trouble = outlet->trouble[0] != '\0' ? outlet->trouble : NULL;
    sink->flow = outlet->state;
    sink->refused = outlet_is_refused(outlet);
    sink->hold_ms = outlet->hold_until_ms > outlet_now_ms(outlet) ? outlet->hold_until_ms - outlet_now_ms(outlet) : 0;
    sink->waiting = outlet_waits(outlet);
    sink->batches = counts->batches;
    sink->bytes = counts->bytes;
    sink->submitted = counts->submitted;
    sink->retries = counts->retries;
    sink->refusals = counts->refusals;
    sink->cuts = counts->cuts;
    sink->in_flight = outlet->flying_count;
    sink->in_turn = outlet->ready_count;
    sink->spool_bytes = spool_bytes(outlet->spool);
    sink->spool_max = settings->spool_max;
    sink->damaged = spool_damaged(outlet->spool);
    sink->dead_bytes = burial_bytes(&outlet->burial);
    sink->dead_max = settings->dead_max;
    sink->token_ms = type->token_ms != NULL ? type->token_ms(outlet->sink->self) : STATUS_NONE;
    sink->arrival = type->arrival != NULL ? type->arrival(outlet->sink->self) : PEN_ARRIVAL_NONE;
    sink->answers = &outlet->answers;
}

const struct spool *outlet_spool(const struct outlet *outlet)
{
    return outlet->spool;
}

static size_t window_bytes(const struct pen_limits *limits)
{
    return limits->in_flight_max * limits->bytes_max;
}

size_t outlet_least_bytes(const struct outlet *outlet)
{
    const struct pen_limits *limits = outlet->next != NULL ? &outlet->next->limits : &outlet->limits;

    return limits->memory + window_bytes(limits);
}

size_t outlet_sink_bytes(const struct outlet *outlet)
{
    return outlet->limits.memory;
}

size_t outlet_window_bytes(const struct outlet *outlet)
{
    return window_bytes(&outlet->limits);
}

bool outlet_is_idle(const struct outlet *outlet)
{
    for (uint32_t row = 0; row <= outlet->conf.source_count; row++)
        if (outlet->ledger[row].count[LEDGER_HELD] > 0 || outlet->ledger[row].count[LEDGER_SPOOLED] > 0)
            return false;
    return !outlet_has_jobs(outlet);
}

uint64_t outlet_busy_since(const struct outlet *outlet)
{
    uint64_t since = 0;

    if (outlet->append.since_ms > 0)
        since = outlet->append.since_ms;
    if (outlet->read.since_ms > 0 && (since == 0 || outlet->read.since_ms < since))
        since = outlet->read.since_ms;
    if (outlet->burial.since_ms > 0 && (since == 0 || outlet->burial.since_ms < since))
        since = outlet->burial.since_ms;
    return since;
}
