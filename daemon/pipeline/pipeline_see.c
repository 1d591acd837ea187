/*
 * pipeline_see.c - what there is to see of the pipeline: for the status, the watchdog, and replay's exit status.
 */
#include "daemon/pipeline/pipeline_inside.h"

#include "daemon/status/status.h"

#include <assert.h>
#include <stdlib.h>

/* What is known to be there, in the sources' own unit, and is not safe yet, or not even read. */
static void host_see_lag(const struct source_host *host, struct status_source *source)
{
    const struct stream *stream;
    uint64_t behind = 0;

    TAILQ_FOREACH(stream, &host->streams.streams, entry) {
        if (stream->end > stream->safe_position)
            behind += stream->end - stream->safe_position;
        if (stream->end > stream->position)
            source->unread += stream->end - stream->position;
    }
    source->behind_bytes = host->settings->type->by_message ? STATUS_NONE : behind;
    source->behind_messages = host->settings->type->by_message ? behind : STATUS_NONE;
    source->newest_ms = host->newest_ticks > 0 ? (uint64_t)(host->newest_ticks / PIPELINE_TICKS_PER_MS) : STATUS_NONE;
}

static void host_see(const struct source_host *host, struct status_source *source)
{
    const struct source_type *type = host->settings->type;

    *source = (struct status_source){
        .name = host->settings->name, .type = type->name, .records = host->counts.records, .events = host->counts.events,
        .unknown = host->counts.unknown, .malformed = host->counts.malformed, .partly = host->counts.partly,
        .oversize = host->counts.oversize, .cut = host->counts.cut, .bytes = host->bytes, .outside = host->counts.outside,
        .streams = host->streams.count,
        .troubles = host->troubles, .token_ms = STATUS_NONE, .ailing = host->ailing,
    };
    host_see_lag(host, source);
    if (type->numbers != NULL && host->self != NULL)
        source->number_count = type->numbers(host->self, source->numbers);
    assert(source->number_count <= SOURCE_NUMBERS_MAX);
    if (type->token_ms != NULL && host->self != NULL)
        source->token_ms = type->token_ms(host->self);
    if (host->pipeline->conf.once && type->progress != NULL && host->self != NULL)
        type->progress(host->self, &source->progress);
}

static void route_add(struct status_route *route, const struct ledger_row *ledger)
{
    route->taken += ledger_taken(ledger);
    route->delivered += ledger->count[LEDGER_DELIVERED];
    route->dead += ledger->count[LEDGER_DEAD];
    route->dropped += ledger->count[LEDGER_DROPPED];
    route->held += ledger->count[LEDGER_HELD];
    route->spooled += ledger->count[LEDGER_SPOOLED];
}

/* What it has of this source; where the configuration no longer leads the one to the other, only what it once took. */
static void route_see(const struct outlet *outlet, const struct source_host *host, struct status *status)
{
    const struct ledger_row *ledger = outlet_ledger(outlet, host->row);
    struct status_route *route = &status->routes[status->route_count];

    if (!host_goes_to(host, outlet) && ledger_taken(ledger) == 0)
        return;
    status->route_count++;
    *route = (struct status_route){ .source = host->settings->name, .sink = outlet_name(outlet) };
    route_add(route, ledger);
}

/* What an earlier life left, and what sources brought that have left the configuration. */
static void route_see_earlier(const struct pipeline *pipeline, const struct outlet *outlet, struct status *status)
{
    struct status_route *route = &status->routes[status->route_count];

    *route = (struct status_route){ .source = STATUS_EARLIER, .sink = outlet_name(outlet) };
    for (uint32_t row = 0; row <= pipeline->row_count; row++)
        if (row == pipeline->row_count || !pipeline->rows[row].live)
            route_add(route, outlet_ledger(outlet, row));
    status->route_count += route->taken > 0;
}

/* An outlet, and where its messages are: of the sources it takes, and of earlier ones. */
static void pipeline_see_outlet(const struct pipeline *pipeline, const struct outlet *outlet, struct status *status)
{
    struct status_sink *sink = &status->sinks[status->sink_count++];
    uint32_t first = status->route_count;

    *sink = (struct status_sink){ 0 };
    outlet_see(outlet, sink);
    for (uint32_t h = 0; h < pipeline->host_count; h++)
        route_see(outlet, pipeline->hosts[h], status);
    route_see_earlier(pipeline, outlet, status);
    for (uint32_t i = first; i < status->route_count; i++) {
        sink->all.taken += status->routes[i].taken;
        sink->all.delivered += status->routes[i].delivered;
        sink->all.dead += status->routes[i].dead;
        sink->all.dropped += status->routes[i].dropped;
        sink->all.held += status->routes[i].held;
        sink->all.spooled += status->routes[i].spooled;
    }
}

void pipeline_see(const struct pipeline *pipeline, struct status *status)
{
    *status = (struct status){
        .now_ms = pipeline_wall_ms(), .started_ms = pipeline->started_ms, .memory_held = pipeline->budget.held,
        .memory_peak = pipeline->budget.peak, .memory_budget = pipeline->budget.total,
        .flow = pipeline->flow_open ? OUTLET_OPEN : OUTLET_PAUSED, .jobs = pipeline->jobs_running,
        .config_loaded_ms = pipeline->started_ms, .config_good = 1, .workers = pipeline->job_count, .unsaved = pipeline->saver.trouble,
        .sources = calloc(pipeline->host_count + 1u, sizeof(*status->sources)),
        .sinks = calloc(pipeline->sink_count + 1u, sizeof(*status->sinks)),
        .routes = calloc((size_t)pipeline->sink_count * (pipeline->host_count + 1u) + 1, sizeof(*status->routes)),
    };
    if (status->sources == NULL || status->sinks == NULL || status->routes == NULL)
        abort();
    for (uint32_t h = 0; h < pipeline->host_count; h++)
        host_see(pipeline->hosts[h], &status->sources[status->source_count++]);
    for (uint32_t o = 0; o < pipeline->sink_count; o++)
        pipeline_see_outlet(pipeline, pipeline->sinks[o].outlet, status);
}

uint64_t pipeline_busy_since(const struct pipeline *pipeline)
{
    uint64_t since = pipeline->saver.since_ms;

    for (uint32_t i = 0; i < pipeline->job_count; i++)
        if (pipeline->jobs[i].since_ms > 0 && (since == 0 || pipeline->jobs[i].since_ms < since))
            since = pipeline->jobs[i].since_ms;
    for (uint32_t i = 0; i < pipeline->sink_count; i++) {
        uint64_t busy = outlet_busy_since(pipeline->sinks[i].outlet);

        if (busy > 0 && (since == 0 || busy < since))
            since = busy;
    }
    return since;
}

/* Sum of one place over all rows and sinks. */
static uint64_t pipeline_sum(const struct pipeline *pipeline, enum ledger_place place)
{
    uint64_t sum = 0;

    for (uint32_t o = 0; o < pipeline->sink_count; o++)
        for (uint32_t row = 0; row <= pipeline->row_count; row++)
            sum += outlet_ledger(pipeline->sinks[o].outlet, row)->count[place];
    return sum;
}

bool pipeline_all_delivered(const struct pipeline *pipeline)
{
    return pipeline_sum(pipeline, LEDGER_HELD) == 0 && pipeline_sum(pipeline, LEDGER_SPOOLED) == 0 &&
        pipeline_sum(pipeline, LEDGER_DEAD) == 0;
}
