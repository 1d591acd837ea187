/*
 * outlet_life.c - an outlet's beginning and end.
 *
 * It stops in steps: a far end that takes messages has half the time to take the last ones; what is left goes to the spool;
 * once no job runs and all is safe, or time is up, the sink is stopped. What is not safe by then was passed by no cursor: it
 * is read again.
 */
#include "daemon/outlet/outlet_inside.h"

#include "daemon/base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- The sink ---- */

static int sink_schema(const struct schema **ret, const struct sink_settings *settings, struct pen_error *err)
{
    *ret = schema_find(settings_schema(settings));
    if (*ret == NULL)
        return pen_error_set(err, UV_EINVAL, "sink %s: there is no schema %s", settings->name, settings->schema);
    return 0;
}

int outlet_sink_open(struct outlet_sink **ret, const struct outlet *outlet, const struct sink_settings *settings,
                     struct pen_error *err)
{
    const struct outlet_conf *conf = &outlet->conf;
    const struct pen_sink *type = settings->type;
    struct outlet_sink *sink = calloc(1, sizeof(*sink));
    struct pen_error inner = { 0 };
    int r;

    if (sink == NULL)
        abort();
    sink->type = type;
    r = sink_schema(&sink->schema, settings, err);
    if (r < 0)
        goto fail;
    sink->host = (struct pen_host){
        .loop = conf->loop, .http = conf->http, .schema = sink->schema->name, .memory_max = conf->memory_max,
        .beside = conf->beside,
    };
    r = type->open(&sink->self, &sink->host, settings->section, &inner);
    if (r < 0) {
        pen_error_set(err, r, "sink %s: %.400s", settings->name, inner.text);
        goto fail;
    }
    sink->limits = *type->limits(sink->self);
    assert(sink->limits.in_flight_max > 0 && sink->limits.bytes_max > 0 && sink->limits.messages_max > 0);
    *ret = sink;
    return 0;
fail:
    free(sink);
    return r;
}

void outlet_sink_close(struct outlet_sink *sink)
{
    if (sink == NULL)
        return;
    sink->type->close(sink->self);
    free(sink);
}

void outlet_sink_take(struct outlet *outlet, struct outlet_sink *sink)
{
    outlet->sink = sink;
    outlet->schema = sink->schema;
    outlet->limits = sink->limits;
}

/* ---- Opening ---- */

int outlet_open(struct outlet **ret, const struct outlet_conf *conf, struct pen_error *err)
{
    struct outlet *outlet = calloc(1, sizeof(*outlet));
    struct outlet_sink *sink;
    int r;

    if (outlet == NULL)
        abort();
    outlet->conf = *conf;
    outlet->settings = conf->settings;
    outlet->name = strdup(conf->settings->name);
    if (outlet->name == NULL)
        abort();
    outlet->ledger = calloc(conf->source_count + 1u, sizeof(*outlet->ledger));
    if (outlet->ledger == NULL)
        abort();
    TAILQ_INIT(&outlet->inbox);
    TAILQ_INIT(&outlet->ready);
    TAILQ_INIT(&outlet->flying);
    uv_timer_init(conf->loop, &outlet->timer);
    outlet->timer.data = outlet;
    r = sink_schema(&outlet->schema, conf->settings, err);
    if (r < 0)
        goto fail;
    outlet_open_burial(outlet);
    r = outlet_open_spool(outlet, err);
    if (r == 0)
        r = outlet_sink_open(&sink, outlet, conf->settings, err);   /* last: once open, it must be stopped before it is closed */
    if (r < 0)
        goto fail;
    outlet_sink_take(outlet, sink);
    budget_take(conf->budget, outlet->limits.memory);
    *ret = outlet;
    return 0;
fail:
    outlet->stopped = true;
    outlet_close(outlet);
    return r;
}

/* ---- Stopping ---- */

/* Everything that is in memory lies on disk as well. */
static bool outlet_is_safe(const struct outlet *outlet)
{
    const struct part *part;

    TAILQ_FOREACH(part, &outlet->ready, entry)
        if (part->frame == NULL)
            return false;
    TAILQ_FOREACH(part, &outlet->flying, entry)
        if (part->frame == NULL)
            return false;
    return TAILQ_EMPTY(&outlet->inbox) && TAILQ_EMPTY(&outlet->burial.waiting);
}

static void parts_abandon(struct parts *list)
{
    struct part *part;

    while ((part = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, part, entry);
        part_abandon(part);
    }
}

static void on_sink_stopped(void *arg)
{
    struct outlet *outlet = arg;

    assert(outlet->flying_count == 0 && !outlet_has_jobs(outlet));
    parts_abandon(&outlet->inbox);
    parts_abandon(&outlet->ready);
    parts_abandon(&outlet->burial.waiting);
    outlet->stopped = true;
    outlet->on_stopped(outlet->stopped_arg);
}

void outlet_stop_on(struct outlet *outlet)
{
    bool given_up = outlet_now_ms(outlet) >= outlet->give_up_ms;
    bool empty = TAILQ_EMPTY(&outlet->ready) && TAILQ_EMPTY(&outlet->flying) && TAILQ_EMPTY(&outlet->inbox) &&
        TAILQ_EMPTY(&outlet->burial.waiting);

    if (outlet->sink_stopping || outlet_has_jobs(outlet))
        return;
    if (!empty && !given_up && (outlet_now_ms(outlet) < outlet->deliver_until_ms || !outlet_is_safe(outlet)))
        return;
    if (given_up && !outlet_is_safe(outlet))
        log_line(LOG_WARN, "stopping with messages that are neither delivered nor spooled: their records will be read again",
                 "sink", outlet->settings->name, NULL);
    outlet->sink_stopping = true;
    uv_timer_stop(&outlet->timer);
    outlet->sink->type->stop(outlet->sink->self, on_sink_stopped, outlet);
}

void outlet_set_grace(struct outlet *outlet)
{
    outlet->deliver_until_ms = outlet_now_ms(outlet);
    if (outlet->state == OUTLET_OPEN && !outlet->hushed && outlet_now_ms(outlet) >= outlet->hold_until_ms)
        outlet->deliver_until_ms += outlet->conf.stop_ms / 2;
}

void outlet_stop(struct outlet *outlet, void (*stopped)(void *arg), void *arg)
{
    outlet->stopping = true;
    outlet->on_stopped = stopped;
    outlet->stopped_arg = arg;
    outlet_set_grace(outlet);
    outlet->give_up_ms = outlet_now_ms(outlet) + outlet->conf.stop_ms;
    outlet_pump(outlet);
}

/* ---- Closing ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void outlet_close(struct outlet *outlet)
{
    if (outlet == NULL)
        return;
    assert(outlet->stopped);
    assert(outlet->next == NULL);
    if (outlet->sink != NULL)
        budget_give(outlet->conf.budget, outlet->limits.memory);
    outlet_sink_close(outlet->sink);
    spool_close(outlet->spool);
    burial_free(&outlet->burial);
    free(outlet->ledger);
    free(outlet->name);
    uv_close((uv_handle_t *)&outlet->timer, on_timer_closed);
}
