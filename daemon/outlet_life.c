/*
 * outlet_life.c - an outlet's beginning and end.
 *
 * It stops in steps: a far end that takes messages has half the time to take the last ones; what is left goes to the spool;
 * once no job runs and all is safe, or time is up, the sink is stopped. What is not safe by then was passed by no cursor: it
 * is read again.
 */
#include "daemon/outlet_inside.h"

#include "daemon/log.h"

#include <assert.h>
#include <stdlib.h>

/* ---- Opening ---- */

int outlet_open(struct outlet **ret, const struct outlet_conf *conf, struct pen_error *err)
{
    struct outlet *outlet = calloc(1, sizeof(*outlet));
    const struct pen_sink *type = conf->settings->type;
    struct pen_error inner = { 0 };
    int r;

    if (outlet == NULL)
        abort();
    outlet->conf = *conf;
    outlet->settings = conf->settings;
    outlet->ledger = calloc(conf->source_count + 1u, sizeof(*outlet->ledger));
    if (outlet->ledger == NULL)
        abort();
    TAILQ_INIT(&outlet->inbox);
    TAILQ_INIT(&outlet->ready);
    TAILQ_INIT(&outlet->flying);
    uv_timer_init(conf->loop, &outlet->timer);
    outlet->timer.data = outlet;
    outlet->schema = schema_find(conf->settings->schema != NULL ? conf->settings->schema : type->schemas[0]);
    if (outlet->schema == NULL) {
        r = pen_error_set(err, UV_EINVAL, "sink %s: there is no schema %s", conf->settings->name, conf->settings->schema);
        goto fail;
    }
    outlet_open_burial(outlet);
    r = outlet_open_spool(outlet, err);
    if (r < 0)
        goto fail;
    outlet->host = (struct pen_host){
        .loop = conf->loop, .http = conf->http, .schema = outlet->schema->name, .memory_max = conf->memory_max,
        .beside = conf->beside,
    };
    r = type->open(&outlet->sink, &outlet->host, conf->settings->section, &inner);
    if (r < 0) {
        pen_error_set(err, r, "sink %s: %.400s", conf->settings->name, inner.text);
        goto fail;
    }
    outlet->limits = *type->limits(outlet->sink);
    assert(outlet->limits.in_flight_max > 0 && outlet->limits.bytes_max > 0 && outlet->limits.messages_max > 0);
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
    outlet->settings->type->stop(outlet->sink, on_sink_stopped, outlet);
}

void outlet_stop(struct outlet *outlet, void (*stopped)(void *arg), void *arg)
{
    outlet->stopping = true;
    outlet->on_stopped = stopped;
    outlet->stopped_arg = arg;
    outlet->deliver_until_ms = outlet_now_ms(outlet);
    /* A far end that takes messages gets half the time to take the last ones; one that does not is not waited for. */
    if (outlet->state == OUTLET_OPEN && outlet_now_ms(outlet) >= outlet->hold_until_ms)
        outlet->deliver_until_ms += outlet->conf.stop_ms / 2;
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
    if (outlet->sink != NULL)
        outlet->settings->type->close(outlet->sink);
    spool_close(outlet->spool);
    burial_free(&outlet->burial);
    free(outlet->ledger);
    uv_close((uv_handle_t *)&outlet->timer, on_timer_closed);
}
