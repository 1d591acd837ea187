/*
 * rule_watch.c - see rule_watch.h.
 *
 * It has an HTTP client of its own, which goes when the last look is over: no connection is held to far ends that will not be
 * asked again.
 */
#include "daemon/rule/rule_watch.h"

#include "daemon/base/log.h"
#include "daemon/rule/rule_look.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct watched {
    struct rule_watch *watch;
    struct rule_look *look;          /* NULL: done with, or nothing to look at */
    const char *sink;
};

struct rule_watch {
    struct settings *settings;       /* held */
    struct http *http;               /* NULL: closed */
    uv_timer_t over;                 /* on the turn after the last look, whose callback may be the client's */
    unsigned looking, parts;         /* looks under way; of client and timer, those that are not gone */
    struct watched sinks[SETTINGS_SINKS_MAX];
};

static void on_finding(void *arg, enum finding finding, const char *sentence)
{
    const struct watched *watched = arg;

    if (finding != FINDING_GOOD)
        log_line(finding == FINDING_WRONG ? LOG_WARN : LOG_NOTE, sentence, "sink", watched->sink, NULL);
}

static void part_gone(struct rule_watch *watch)
{
    if (--watch->parts > 0)
        return;
    settings_free(watch->settings);
    free(watch);
}

static void on_http_closed(void *arg)
{
    part_gone(arg);
}

static void on_over(uv_timer_t *timer)
{
    struct rule_watch *watch = timer->data;

    http_close(watch->http, on_http_closed, watch);
    watch->http = NULL;
}

static void on_done(void *arg)
{
    struct watched *watched = arg;

    rule_look_close(watched->look);
    watched->look = NULL;
    if (--watched->watch->looking == 0)
        uv_timer_start(&watched->watch->over, on_over, 0, 0);
}

static void watch_sink(struct rule_watch *watch, const struct sink_settings *sink, struct watched *watched, uv_loop_t *loop)
{
    if (sink->type != &sentinel_sink)
        return;
    watched->watch = watch;
    watched->sink = sink->name;
    watched->look = rule_look_start(&(struct rule_look_conf){
        .http = watch->http, .loop = loop, .sink = sink->name, .section = sink->section,
        .schema = settings_schema(sink), .kinds = sink->kind_mask,
        .tell = on_finding, .done = on_done, .arg = watched,
    });
    watch->looking += watched->look != NULL;
}

static bool sink_is_new(const struct sink_settings *sink, const struct settings *before)
{
    for (unsigned i = 0; before != NULL && i < before->sink_count; i++)
        if (strcmp(before->sinks[i].name, sink->name) == 0)
            return !conf_sections_agree(before->sinks[i].section, sink->section, NULL);
    return true;
}

struct rule_watch *rule_watch_start(struct settings *settings, const struct settings *before, uv_loop_t *loop)
{
    struct rule_watch *watch = calloc(1, sizeof(*watch));
    struct pen_error err = { 0 };

    assert(watch != NULL);
    if (http_new(&watch->http, loop, &err) < 0) {
        log_line(LOG_WARN, "data collection rules are not compared", "error", err.text, NULL);
        free(watch);
        return NULL;
    }
    watch->settings = settings_share(settings);
    uv_timer_init(loop, &watch->over);
    watch->over.data = watch;
    watch->parts = 2;
    for (unsigned i = 0; i < settings->sink_count; i++)
        if (sink_is_new(&settings->sinks[i], before))
            watch_sink(watch, &settings->sinks[i], &watch->sinks[i], loop);
    if (watch->looking > 0)
        return watch;
    rule_watch_close(watch);
    return NULL;
}

bool rule_watch_is_over(const struct rule_watch *watch)
{
    return watch == NULL || watch->looking == 0;
}

static void on_timer_closed(uv_handle_t *timer)
{
    part_gone(timer->data);
}

void rule_watch_close(struct rule_watch *watch)
{
    if (watch == NULL)
        return;
    for (unsigned i = 0; i < SETTINGS_SINKS_MAX; i++)
        rule_look_close(watch->sinks[i].look);
    if (watch->http != NULL)
        http_close(watch->http, on_http_closed, watch);
    uv_close((uv_handle_t *)&watch->over, on_timer_closed);
}
