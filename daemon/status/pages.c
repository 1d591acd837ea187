/*
 * pages.c - see pages.h.
 *
 *   /             the status page: three files out of daemon/status/page/, which ask for status.json
 *   /status.json  all of status.h
 *   /metrics      the same for Prometheus
 *   /healthz      200 while the loop turns (or nobody would answer) and no job on the pool hangs: restart us when it is not
 *   /reload       what the last reload did (reload.h): at the socket alone, for the file's own words may be in it
 *   /readyz       200 while data moves or there is none (health.h): wake somebody when it is not; a restart does not help
 */
#include "daemon/status/pages.h"

#include "daemon/status/health.h"
#include "daemon/status/metrics.h"
#include "daemon/status/web.h"

#include "page_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANG_MS 60000u               /* as the unit's WatchdogSec */

struct pages {
    uv_loop_t *loop;
    const struct pipeline *pipeline;
    const struct reload *reload;
    struct settings *settings;       /* held */
    struct health health;
    struct web *web;
    uv_timer_t look;
    char *socket;
};

static void pages_see(struct pages *pages, struct status *status)
{
    pipeline_see(pages->pipeline, status);
    reload_see(pages->reload, status);
    health_look(&pages->health, status, uv_now(pages->loop));
}

static int render_json(void *arg, struct buf *out)
{
    struct pages *pages = arg;
    struct status status;
    struct buf reasons = { 0 };

    pages_see(pages, &status);
    health_reasons(&pages->health, &status, &reasons);
    buf_char(&reasons, '\0');
    status_json(&status, reasons.data, out);
    buf_free(&reasons);
    status_free(&status);
    return 200;
}

static int render_metrics(void *arg, struct buf *out)
{
    struct pages *pages = arg;
    struct status status;

    pages_see(pages, &status);
    metrics_write(&status, out);
    status_free(&status);
    return 200;
}

static int render_ready(void *arg, struct buf *out)
{
    struct pages *pages = arg;
    struct status status;
    bool ready;

    pages_see(pages, &status);
    ready = status.ready != 0;
    if (ready)
        BUF_LITERAL(out, "ok\n");
    else
        health_reasons(&pages->health, &status, out);
    status_free(&status);
    return ready ? 200 : 503;
}

static int render_healthy(void *arg, struct buf *out)
{
    struct pages *pages = arg;
    uint64_t since = pipeline_busy_since(pages->pipeline);
    uint64_t busy_ms = since > 0 ? uv_now(pages->loop) - since : 0;

    if (busy_ms < HANG_MS) {
        BUF_LITERAL(out, "ok\n");
        return 200;
    }
    buf_text(out, "a job on the pool has been running for %" PRIu64 " s: a disk or a parser hangs\n", busy_ms / 1000);
    return 503;
}

static int render_reload(void *arg, struct buf *out)
{
    struct pages *pages = arg;

    reload_page(pages->reload, out);
    return 200;
}

#define FILE_PAGE(name) \
    static int render_##name(void *arg, struct buf *out) \
    { \
        (void)arg; \
        buf_add(out, (const char *)page_##name, sizeof(page_##name)); \
        return 200; \
    }
FILE_PAGE(index_html)
FILE_PAGE(page_css)
FILE_PAGE(page_js)
FILE_PAGE(icon_svg)

static const struct web_page pages_all[] = {
    { "/", "text/html; charset=utf-8", render_index_html, false },
    { "/page.css", "text/css; charset=utf-8", render_page_css, false },
    { "/page.js", "text/javascript; charset=utf-8", render_page_js, false },
    { "/icon.svg", "image/svg+xml", render_icon_svg, false },
    { "/status.json", "application/json", render_json, false },
    { "/metrics", METRICS_TYPE, render_metrics, false },
    { "/healthz", "text/plain; charset=utf-8", render_healthy, false },
    { "/readyz", "text/plain; charset=utf-8", render_ready, false },
    { RELOAD_PAGE, "text/plain; charset=utf-8", render_reload, true },
    { 0 }
};

/* Health looks whether or not anybody asks: what has stood still since before the question is what matters. */
static void on_look(uv_timer_t *timer)
{
    struct pages *pages = timer->data;
    struct status status;

    pages_see(pages, &status);
    status_free(&status);
}

/* Often beside the time that is watched, and seldom beside what a look costs with a hundred thousand files. */
static uint64_t look_every_ms(const struct settings *settings)
{
    uint32_t tenth = settings->daemon.stalled_after_ms / 10;

    return tenth < 100 ? 100 : tenth > 5000 ? 5000 : tenth;
}

static void pages_use(struct pages *pages, struct settings *settings)
{
    pages->settings = settings_share(settings);
    pages->health.stalled_after_ms = settings->daemon.stalled_after_ms;
    pages->health.record_max = settings->daemon.record_max;
    uv_timer_start(&pages->look, on_look, 0, look_every_ms(settings));
}

static void pages_open_web(struct pages *pages)
{
    pages->web = web_open(&(struct web_conf){
        .loop = pages->loop, .listen = pages->settings->daemon.listen, .names = pages->settings->daemon.listen_names,
        .socket = pages->socket, .pages = pages_all, .arg = pages,
    });
}

struct pages *pages_open(struct settings *settings, uv_loop_t *loop, const char *state_dir, const struct pipeline *pipeline,
                         const struct reload *reload)
{
    struct pages *pages = calloc(1, sizeof(*pages));

    if (pages == NULL || asprintf(&pages->socket, "%s/" PAGES_SOCKET, state_dir) < 0)
        abort();
    pages->loop = loop;
    pages->pipeline = pipeline;
    pages->reload = reload;
    uv_timer_init(loop, &pages->look);
    pages->look.data = pages;
    pages_use(pages, settings);
    pages_open_web(pages);
    return pages;
}

static bool listens_alike(const struct daemon_settings *a, const struct daemon_settings *b)
{
    bool alike = strcmp(a->listen != NULL ? a->listen : "", b->listen != NULL ? b->listen : "") == 0 &&
        a->listen_names.count == b->listen_names.count;

    for (size_t i = 0; alike && i < a->listen_names.count; i++)
        alike = strcmp(a->listen_names.items[i], b->listen_names.items[i]) == 0;
    return alike;
}

/* The window borrows its settings: where they stay, those that it was opened with stay too. */
void pages_take(struct pages *pages, struct settings *settings)
{
    struct settings *before = pages->settings;

    pages_use(pages, settings);
    if (listens_alike(&before->daemon, &settings->daemon)) {
        settings_free(pages->settings);
        pages->settings = before;
        return;
    }
    web_close(pages->web);
    pages_open_web(pages);
    settings_free(before);
}

static void on_look_closed(uv_handle_t *handle)
{
    struct pages *pages = handle->data;

    free(pages->socket);
    free(pages);
}

void pages_close(struct pages *pages)
{
    if (pages == NULL)
        return;
    web_close(pages->web);
    settings_free(pages->settings);
    uv_close((uv_handle_t *)&pages->look, on_look_closed);
}
