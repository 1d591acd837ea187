/*
 * reload.c - see reload.h.
 *
 * The file is read on the loop, as at the start: a few milliseconds in which nothing else turns. What it changes is
 * pipeline_change.c's matter.
 */
#include "daemon/pipeline/reload.h"

#include "daemon/base/log.h"
#include "daemon/disk/io.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#define TICKS_PER_MS 10000

enum result { RELOAD_DONE = 0, RELOAD_FAILED = 1, RELOAD_WRONG = 2 };

struct reload {
    struct reload_conf conf;
    struct settings *now, *next;     /* in effect; being put into effect */
    uint64_t begun, ended;
    bool again, stopped;
    enum result result;              /* of the last one that ended */
    uint64_t loaded_ms;              /* when what is in effect was read, since 1970 */
    struct buf told;                 /* of the last one */
};

static uint64_t wall_ms(void)
{
    return (uint64_t)io_now_ticks() / TICKS_PER_MS;
}

static void reload_begin(struct reload *reload);

static void reload_end(struct reload *reload, enum result result)
{
    struct settings *before = NULL;

    reload->ended++;
    reload->result = result;
    if (result == RELOAD_DONE) {
        before = reload->now;
        reload->now = reload->next;
        reload->loaded_ms = wall_ms();
    } else {
        settings_free(reload->next);
    }
    reload->next = NULL;
    reload->conf.on_ended(reload->conf.arg, reload->now, before);
    settings_free(before);
    if (reload->again && !reload->stopped)
        reload_begin(reload);
}

/* The sentences on one line, for the log. */
static void told_line(const struct buf *told, char *line, size_t size)
{
    size_t at = 0;

    for (size_t i = 0; i < told->size && at + 3 < size; i++) {
        if (told->data[i] != '\n')
            line[at++] = told->data[i];
        else if (i + 1 < told->size) {
            line[at++] = ';';
            line[at++] = ' ';
        }
    }
    line[at] = '\0';
}

static void on_changed(void *arg, int result, const char *told)
{
    struct reload *reload = arg;
    char line[1024];

    buf_text(&reload->told, "%s%s", told, result < 0 ? "\n" : "");
    told_line(&reload->told, line, sizeof(line));
    if (result == 0)
        log_line(LOG_NOTE, "the configuration was reloaded", "changes", line, NULL);
    else
        log_line(LOG_ERROR, "the configuration was not reloaded: the one before goes on", "file", reload->conf.path, "why", told, NULL);
    reload_end(reload, result == 0 ? RELOAD_DONE : result == UV_EINVAL ? RELOAD_WRONG : RELOAD_FAILED);
}

static void on_mistake(void *arg, const char *file, unsigned line, const char *sentence)
{
    struct reload *reload = arg;

    if (line > 0)
        buf_text(&reload->told, "%s:%u: %s\n", file, line, sentence);
    else
        buf_text(&reload->told, "%s: %s\n", file, sentence);
    log_line(LOG_ERROR, "a mistake in the configuration", "file", file, "line", log_number(line), "why", sentence, NULL);
}

static void reload_begin(struct reload *reload)
{
    struct pen_error err = { 0 };

    reload->begun++;
    reload->again = false;
    reload->told.size = 0;
    reload->conf.on_begun(reload->conf.arg);
    if (settings_read(&reload->next, reload->conf.path, on_mistake, reload, &err) < 0) {
        buf_text(&reload->told, "%s\n", err.text);
        log_line(LOG_ERROR, "the configuration was not reloaded: the one before goes on", "file", reload->conf.path, "why", err.text,
                 NULL);
        reload_end(reload, RELOAD_WRONG);
        return;
    }
    pipeline_change(reload->conf.pipeline, reload->next, on_changed, reload);
}

void reload_ask(struct reload *reload)
{
    if (reload->stopped)
        return;
    reload->again = true;
    if (!reload_is_under_way(reload))
        reload_begin(reload);
}

void reload_stop(struct reload *reload)
{
    reload->stopped = true;
}

bool reload_is_under_way(const struct reload *reload)
{
    return reload->begun > reload->ended;
}

void reload_see(const struct reload *reload, struct status *status)
{
    status->config_loaded_ms = reload->loaded_ms;
    status->config_good = reload->result == RELOAD_DONE;
    status->reloads = reload->ended;
}

void reload_page(const struct reload *reload, struct buf *out)
{
    buf_text(out, "%d %ld %" PRIu64 " %" PRIu64 " %d\n", RELOAD_PAGE_VERSION, (long)getpid(), reload->begun, reload->ended,
             reload->result);
    if (!reload_is_under_way(reload) && reload->told.size > 0)
        buf_add(out, reload->told.data, reload->told.size);
}

struct reload *reload_new(const struct reload_conf *conf)
{
    struct reload *reload = calloc(1, sizeof(*reload));

    if (reload == NULL)
        abort();
    reload->conf = *conf;
    reload->now = settings_share(conf->settings);
    reload->loaded_ms = wall_ms();
    return reload;
}

void reload_free(struct reload *reload)
{
    if (reload == NULL)
        return;
    settings_free(reload->now);
    settings_free(reload->next);
    buf_free(&reload->told);
    free(reload);
}
