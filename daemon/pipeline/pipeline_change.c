/*
 * pipeline_change.c - another configuration takes effect under way.
 *
 *   prepare   what is new is opened beside the old: sinks, sources, parsers, keys. What cannot be opened ends it here
 *   QUIET     no job starts; those that run end. Sources go on reading into their chunks, sinks go on sending
 *   DRAIN     what sources have brought that go, and what is in memory for sinks that go, is delivered or on disk
 *   HUSH      the sinks that change are handed nothing more, and answer what they have
 *   STOP      what goes is stopped
 *   SAVE      its cursors and places are saved
 *   SETTLE    its far ends hear of them
 *   swap      the tables change, what is new starts, and jobs start again
 *
 * Until the end of HUSH nothing has been stopped: whatever goes wrong, the new things are closed again (ABANDON), and it is
 * as if nothing had been. From STOP on nothing can fail: the new is open, and the old is safe.
 *
 * A sink that changes keeps its outlet, with all that waits there; a source that changes is another source that begins where
 * the old one's cursors stand. They may, for all of it is safe then, so nothing is read twice. The pause of the flow is as
 * long as the slowest of these steps, and bounded by stop_wait. tests/scenario/test_reload.py holds all this.
 */
#include "daemon/pipeline/pipeline_inside.h"

#include "daemon/base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum move { MOVE_KEPT, MOVE_ROWS, MOVE_CHANGED, MOVE_ADDED };

static const char *const move_words[] = {
    [MOVE_KEPT] = NULL, [MOVE_ROWS] = "changed, and stays connected", [MOVE_CHANGED] = "changed", [MOVE_ADDED] = "added",
};

static const char *const step_words[] = { "quiet", "drain", "hush", "stop", "save", "settle", "abandon" };

struct change {
    struct pipeline *pipeline;
    struct settings *settings;       /* held */
    enum { CHANGE_QUIET, CHANGE_DRAIN, CHANGE_HUSH, CHANGE_STOP, CHANGE_SAVE, CHANGE_SETTLE, CHANGE_ABANDON } step;
    uint64_t until_ms;               /* of this step */
    uint32_t waits;                  /* callbacks that are still to come in it */
    struct keys *keys;               /* of the new configuration, where they differ */
    bool keys_change;
    /* By the index in the new settings. hosts: the one that goes on, or a new one. sinks: the one that goes on (changed or not), or
     * a new one. */
    struct source_host *hosts[SETTINGS_SOURCES_MAX];
    enum move host_moves[SETTINGS_SOURCES_MAX];
    uint32_t host_count;
    struct sink_host sinks[SETTINGS_SINKS_MAX];
    enum move sink_moves[SETTINGS_SINKS_MAX];
    uint32_t sink_count;
    uv_timer_t timer;
    int result;
    struct buf told;
    void (*done)(void *arg, int result, const char *told);
    void *arg;
};

static void change_on(struct change *change);

static void on_timer(uv_timer_t *timer)
{
    change_on(timer->data);
}

void change_kick(struct pipeline *pipeline)
{
    if (pipeline->change != NULL)
        uv_timer_start(&pipeline->change->timer, on_timer, 0, 0);
}

/* Whatever a step has begun comes back here, perhaps from inside the call that began it. */
static void on_part(void *arg)
{
    struct change *change = arg;

    change->waits--;
    change_kick(change->pipeline);
}

static bool change_late(struct change *change)
{
    uint64_t now = pipeline_now_ms(change->pipeline);

    if (now >= change->until_ms)
        return true;
    uv_timer_start(&change->timer, on_timer, change->until_ms - now, 0);
    return false;
}

static void change_enter(struct change *change, int step, uint32_t within_ms)
{
    change->step = step;
    change->until_ms = pipeline_now_ms(change->pipeline) + within_ms;
    log_line(LOG_TRACE, "a step of the change of configuration begins", "step", step_words[step], NULL);
}

/* ---- The end ---- */

static void on_change_closed(uv_handle_t *handle)
{
    struct change *change = handle->data;

    buf_free(&change->told);
    free(change);
}

static void change_end(struct change *change)
{
    struct pipeline *pipeline = change->pipeline;

    pipeline->change = NULL;
    settings_free(change->settings);
    buf_char(&change->told, '\0');
    uv_close((uv_handle_t *)&change->timer, on_change_closed);
    change->done(change->arg, change->result, change->told.data);
    if (pipeline->stop_after)
        pipeline_stop(pipeline);
}

/* ---- Abandon ---- */

/* Everything goes on as it was; what was opened is stopped and, when all of that has stopped, closed. */
static void change_abandon(struct change *change, int result, const char *why)
{
    struct pipeline *pipeline = change->pipeline;

    change->result = result;
    change->told.size = 0;
    buf_text(&change->told, "%s", why);
    change_enter(change, CHANGE_ABANDON, 0);
    pipeline->quiet = false;
    pipeline_mark_rows(pipeline);
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        pipeline->hosts[i]->goes = false;
    for (uint32_t i = 0; i < pipeline->sink_count; i++) {
        pipeline->sinks[i].goes = false;
        outlet_drain(pipeline->sinks[i].outlet, false);
        outlet_hush(pipeline->sinks[i].outlet, false);
    }
    change->waits++;                               /* none of those below is the last */
    for (uint32_t i = 0; i < change->host_count; i++)
        if (change->host_moves[i] >= MOVE_CHANGED) {
            change->waits++;
            change->hosts[i]->settings->type->stop(change->hosts[i]->self, on_part, change);
        }
    for (uint32_t i = 0; i < change->sink_count; i++) {
        if (change->sink_moves[i] < MOVE_CHANGED)
            continue;
        change->waits++;
        if (change->sink_moves[i] == MOVE_ADDED)
            outlet_stop(change->sinks[i].outlet, on_part, change);
        else
            outlet_abandon(change->sinks[i].outlet, on_part, change);
    }
    change->waits--;
    keys_free(change->keys);
    pipeline_flow(pipeline);
    pipeline_work(pipeline);
    change_kick(pipeline);
}

static void change_abandoned(struct change *change)
{
    for (uint32_t i = 0; i < change->host_count; i++)
        if (change->host_moves[i] >= MOVE_CHANGED)
            host_close(change->hosts[i]);
    pipeline_mark_rows(change->pipeline);
    for (uint32_t i = 0; i < change->sink_count; i++)
        if (change->sink_moves[i] == MOVE_ADDED)
            sink_close(&change->sinks[i]);
    pipeline_flow(change->pipeline);               /* what they held of the budget may have closed it */
    pipeline_work(change->pipeline);
    change_end(change);
}

void change_give_up(struct pipeline *pipeline)
{
    if (pipeline->change->step <= CHANGE_HUSH)
        change_abandon(pipeline->change, UV_ECANCELED, "the daemon stops");
}

/* ---- Prepare ---- */

static struct source_host *host_find(const struct pipeline *pipeline, const char *name)
{
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        if (strcmp(pipeline->hosts[i]->settings->name, name) == 0)
            return pipeline->hosts[i];
    return NULL;
}

static struct sink_host *sink_find(struct pipeline *pipeline, const char *name)
{
    for (uint32_t i = 0; i < pipeline->sink_count; i++)
        if (strcmp(outlet_name(pipeline->sinks[i].outlet), name) == 0)
            return &pipeline->sinks[i];
    return NULL;
}

static int prepare_source(struct change *change, uint32_t i, struct pen_error *err)
{
    const struct source_settings *settings = &change->settings->sources[i];
    struct source_host *old = host_find(change->pipeline, settings->name);
    int r = 0;

    change->host_moves[i] = old == NULL ? MOVE_ADDED
        : settings_compare_source(old->settings, &old->print, settings) == SETTINGS_SAME ? MOVE_KEPT : MOVE_CHANGED;
    if (change->host_moves[i] == MOVE_KEPT)
        change->hosts[i] = old;
    else
        r = host_open(&change->hosts[i], change->pipeline, change->settings, i, err);
    if (r < 0)
        return r;
    change->host_count++;
    if (old != NULL)
        old->goes = change->host_moves[i] != MOVE_KEPT;
    return 0;
}

static int prepare_sink(struct change *change, uint32_t i, struct pen_error *err)
{
    static const enum move moves[] = { [SETTINGS_SAME] = MOVE_KEPT, [SETTINGS_ROWS] = MOVE_ROWS, [SETTINGS_CHANGED] = MOVE_CHANGED };
    const struct sink_settings *settings = &change->settings->sinks[i];
    struct sink_host *old = sink_find(change->pipeline, settings->name);
    struct settings_print print;
    int r = 0;

    change->sink_moves[i] = old == NULL ? MOVE_ADDED
        : moves[settings_compare_sink(outlet_settings(old->outlet), &old->print, settings)];
    settings_print_files(&print, settings->section, settings->type->options);  /* before they are read: what changes then is found next time */
    if (old == NULL)
        r = sink_open(&change->sinks[i], change->pipeline, change->settings, i, err);
    else if (change->sink_moves[i] == MOVE_CHANGED)
        r = outlet_prepare(old->outlet, settings, sink_memory_max(change->settings), err);
    if (r < 0)
        return r;
    change->sink_count++;
    if (old == NULL)
        return 0;
    change->sinks[i] = *old;
    old->goes = false;
    if (change->sink_moves[i] == MOVE_CHANGED)
        change->sinks[i].print = print;
    return 0;
}

/* A ring of keys is read anew, always: who rotates a key changes the file and not its name. */
static int prepare_keys(struct change *change, struct pen_error *err)
{
    const char *path = change->settings->daemon.key_file;
    int r = path != NULL ? keys_read(&change->keys, path, err) : 0;

    change->keys_change = r == 0 && !keys_agree(change->keys, change->pipeline->keys);
    if (r == 0 && !change->keys_change) {
        keys_free(change->keys);
        change->keys = NULL;
    }
    return r;
}

/* What is in memory was made for the old schema or the old type: it goes before the sink does. */
static bool sink_turns(const struct change *change, uint32_t i)
{
    const struct sink_settings *new = &change->settings->sinks[i];
    const struct outlet *outlet = change->sinks[i].outlet;

    return change->sink_moves[i] == MOVE_CHANGED &&
        (new->type != outlet_settings(outlet)->type ||
         strcmp(settings_schema(new), outlet_schema(outlet)->name) != 0);
}

/* NULL: none. Else a sink whose spool holds what was made for another schema or type than it is to have: it would be sent as
 * what it is not, and a DCR drops the columns that it lacks without a word. */
static const char *change_mixes(const struct change *change)
{
    for (uint32_t i = 0; i < change->sink_count; i++)
        if (sink_turns(change, i) && !spool_is_empty(outlet_spool(change->sinks[i].outlet)))
            return change->settings->sinks[i].name;
    return NULL;
}

static const char mixes_text[] = "sink %.64s: its type or schema changes, and its spool holds messages as they were until now: let it "
                                 "drain first, or give the new one another name";

static int prepare(struct change *change, struct pen_error *err)
{
    struct pipeline *pipeline = change->pipeline;
    const char *fixed = settings_fixed(pipeline->settings, change->settings), *mixes;
    int r = 0;

    if (fixed != NULL)
        return pen_error_set(err, UV_EINVAL, "\"%s\" in [daemon] changes: that needs a restart", fixed);
    r = prepare_keys(change, err);
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        pipeline->hosts[i]->goes = true;           /* until the new settings name it */
    for (uint32_t i = 0; i < pipeline->sink_count; i++)
        pipeline->sinks[i].goes = true;
    for (uint32_t i = 0; i < change->settings->sink_count && r == 0; i++)
        r = prepare_sink(change, i, err);
    if (r == 0 && (mixes = change_mixes(change)) != NULL)
        r = pen_error_set(err, UV_EBUSY, mixes_text, mixes);
    for (uint32_t i = 0; i < change->settings->source_count && r == 0; i++)
        r = prepare_source(change, i, err);
    if (r == 0)
        r = pipeline_check_memory(change->settings->daemon.memory, change->hosts, change->host_count, change->sinks,
                                  change->sink_count, err);
    return r;
}

/* ---- What changes, for people ---- */

static void tell(struct change *change, const char *kind, const char *name, const char *what)
{
    buf_text(&change->told, "%s%s%s: %s\n", kind, name[0] != '\0' ? " " : "", name, what);
}

static void tell_all(struct change *change)
{
    const struct pipeline *pipeline = change->pipeline;
    struct conf *old = pipeline->settings->conf, *new = change->settings->conf;
    uint32_t untouched = 0;

    if (change->keys_change || !conf_sections_agree(conf_section(old, CONF_DAEMON, 0), conf_section(new, CONF_DAEMON, 0), NULL))
        tell(change, "daemon", "", "changed");
    for (uint32_t i = 0; i < change->sink_count; i++) {
        if (change->sink_moves[i] != MOVE_KEPT)
            tell(change, "sink", change->settings->sinks[i].name, move_words[change->sink_moves[i]]);
        untouched += change->sink_moves[i] == MOVE_KEPT;
    }
    for (uint32_t i = 0; i < pipeline->sink_count; i++)
        if (pipeline->sinks[i].goes)
            tell(change, "sink", outlet_name(pipeline->sinks[i].outlet), "removed");
    for (uint32_t i = 0; i < change->host_count; i++) {
        if (change->host_moves[i] != MOVE_KEPT)
            tell(change, "source", change->settings->sources[i].name, move_words[change->host_moves[i]]);
        untouched += change->host_moves[i] == MOVE_KEPT;
    }
    for (uint32_t i = 0; i < pipeline->host_count; i++) {
        const char *name = pipeline->hosts[i]->settings->name;
        uint32_t n = 0;

        while (n < change->host_count && strcmp(change->settings->sources[n].name, name) != 0)
            n++;
        if (n == change->host_count)
            tell(change, "source", name, "removed");
    }
    buf_text(&change->told, "%u untouched\n", untouched);
}

/* ---- Drain ---- */

static void change_drain(struct change *change)
{
    struct pipeline *pipeline = change->pipeline;

    bool host_goes = false;

    for (uint32_t h = 0; h < pipeline->host_count; h++)
        host_goes = host_goes || pipeline->hosts[h]->goes;
    for (uint32_t o = 0; o < pipeline->sink_count; o++)            /* whatever it holds: a batch is safe as a whole */
        if (pipeline->sinks[o].goes || (host_goes && outlet_held_all(pipeline->sinks[o].outlet) > 0))
            outlet_drain(pipeline->sinks[o].outlet, true);
    for (uint32_t i = 0; i < change->sink_count; i++)
        if (sink_turns(change, i))
            outlet_drain(change->sinks[i].outlet, true);
}

static bool streams_are_safe(const struct source_host *host)
{
    const struct stream *stream;

    TAILQ_FOREACH(stream, &host->streams.streams, entry)
        if (!TAILQ_EMPTY(&stream->runs))
            return false;
    return true;
}

/* NULL: none. Else one that still holds something which must be safe first. */
static const struct outlet *change_holder(const struct change *change)
{
    const struct pipeline *pipeline = change->pipeline;

    for (uint32_t o = 0; o < pipeline->sink_count; o++) {
        const struct outlet *outlet = pipeline->sinks[o].outlet;

        if (pipeline->sinks[o].goes && outlet_held_all(outlet) > 0)
            return outlet;
        for (uint32_t h = 0; h < pipeline->host_count; h++)
            if (pipeline->hosts[h]->goes && outlet_held(outlet, pipeline->hosts[h]->row) > 0)
                return outlet;
    }
    for (uint32_t i = 0; i < change->sink_count; i++)
        if (sink_turns(change, i) && outlet_held_all(change->sinks[i].outlet) > 0)
            return change->sinks[i].outlet;
    return NULL;
}

static bool change_drained(const struct change *change)
{
    const struct pipeline *pipeline = change->pipeline;

    if (change_holder(change) != NULL)
        return false;
    for (uint32_t h = 0; h < pipeline->host_count; h++)
        if (pipeline->hosts[h]->goes && !streams_are_safe(pipeline->hosts[h]))
            return false;
    return true;
}

/* ---- Stop ---- */

static bool change_flies(const struct change *change)
{
    for (uint32_t i = 0; i < change->sink_count; i++)
        if (change->sink_moves[i] == MOVE_CHANGED && outlet_flying(change->sinks[i].outlet) > 0)
            return true;
    return false;
}

static void change_hush(struct change *change)
{
    for (uint32_t i = 0; i < change->sink_count; i++)
        if (change->sink_moves[i] == MOVE_CHANGED)
            outlet_hush(change->sinks[i].outlet, true);
}

static void change_stop(struct change *change)
{
    struct pipeline *pipeline = change->pipeline;

    assert(pipeline->jobs_running == 0);
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        pipeline->hosts[i]->leaving = pipeline->hosts[i]->goes;
    pipeline_recall(pipeline);
    change->waits++;                               /* none of those below is the last */
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        if (pipeline->hosts[i]->leaving) {
            change->waits++;
            pipeline->hosts[i]->settings->type->stop(pipeline->hosts[i]->self, on_part, change);
        }
    for (uint32_t i = 0; i < pipeline->sink_count; i++)
        if (pipeline->sinks[i].goes) {
            change->waits++;
            outlet_stop(pipeline->sinks[i].outlet, on_part, change);
        }
    for (uint32_t i = 0; i < change->sink_count; i++)
        if (change->sink_moves[i] == MOVE_CHANGED) {
            change->waits++;
            outlet_exchange(change->sinks[i].outlet, on_part, change);
        }
    on_part(change);
}

/* All of what leaves is safe, and its rows say so. */
static bool change_saved(const struct change *change)
{
    const struct pipeline *pipeline = change->pipeline;
    const struct stream *stream;

    TAILQ_FOREACH(stream, &pipeline->saver.unsaved, unsaved)
        if (stream->host->leaving)
            return false;
    return pipeline->saver.since_ms == 0 && !saver_is_pending(&pipeline->saver);
}

static void change_settle(struct change *change)
{
    struct pipeline *pipeline = change->pipeline;

    change->waits++;
    for (uint32_t i = 0; i < pipeline->host_count; i++) {
        struct source_host *host = pipeline->hosts[i];

        if (!host->leaving || host->settings->type->settle == NULL)
            continue;
        change->waits++;
        host->settings->type->settle(host->self, on_part, change);
    }
    on_part(change);
}

/* ---- Swap ---- */

static void swap_keys(struct change *change)
{
    struct pipeline *pipeline = change->pipeline;

    if (!change->keys_change)
        return;
    pipeline->keys_before = realloc(pipeline->keys_before, (pipeline->keys_before_count + 1) * sizeof(*pipeline->keys_before));
    if (pipeline->keys_before == NULL)
        abort();
    pipeline->keys_before[pipeline->keys_before_count++] = pipeline->keys;
    pipeline->keys = change->keys;
}

/* A source that changed, or comes again, goes on counting where it was: so does its row in every ledger. */
static void host_leave_counts(const struct source_host *host)
{
    struct row *row = &host->pipeline->rows[host->row];

    row->past.troubles = host->troubles;
    row->past.bytes = host->bytes;
    row->past.counts = host->counts;
    row->past.newest_ticks = host->newest_ticks;
}

static void host_inherit(struct source_host *host)
{
    const struct row *row = &host->pipeline->rows[host->row];

    host->troubles = row->past.troubles;
    host->bytes = row->past.bytes;
    host->counts = row->past.counts;
    host->newest_ticks = row->past.newest_ticks;
}

static void swap_hosts(struct change *change)
{
    struct pipeline *pipeline = change->pipeline;

    for (uint32_t i = 0; i < pipeline->host_count; i++) {
        struct source_host *old = pipeline->hosts[i];

        if (!old->leaving)
            continue;
        host_leave_counts(old);
        host_close(old);
    }
    pipeline->host_count = change->host_count;
    for (uint32_t i = 0; i < change->host_count; i++) {
        pipeline->hosts[i] = change->hosts[i];
        if (change->host_moves[i] >= MOVE_CHANGED)
            host_inherit(change->hosts[i]);
        host_take(change->hosts[i], change->settings, i);
    }
    pipeline_mark_rows(pipeline);
}

static void swap_sinks(struct change *change)
{
    struct pipeline *pipeline = change->pipeline;

    for (uint32_t i = 0; i < pipeline->sink_count; i++) {
        if (pipeline->sinks[i].goes)
            sink_close(&pipeline->sinks[i]);
        for (uint32_t n = 0; n < change->sink_count; n++)          /* saved meanwhile */
            if (change->sinks[n].outlet == pipeline->sinks[i].outlet)
                change->sinks[n].saved = pipeline->sinks[i].saved;
    }
    pipeline->sink_count = change->sink_count;
    for (uint32_t i = 0; i < change->sink_count; i++) {
        struct sink_host *sink = &pipeline->sinks[i];

        *sink = change->sinks[i];
        sink->goes = false;
        outlet_take(sink->outlet, &change->settings->sinks[i], pipeline->keys, change->settings->daemon.stop_ms);
        if (change->sink_moves[i] != MOVE_CHANGED)
            continue;
        settings_free(sink->opened);
        sink->opened = settings_share(change->settings);
    }
}

static void change_swap(struct change *change)
{
    struct pipeline *pipeline = change->pipeline;
    uint32_t every = change->settings->daemon.cursor_save_ms;
    bool orphans = change->sink_count < pipeline->sink_count;

    assert(pipeline->jobs_running == 0);           /* they read the plans */
    for (uint32_t i = 0; i < pipeline->sink_count; i++)
        orphans = orphans || pipeline->sinks[i].goes;
    swap_keys(change);
    swap_hosts(change);
    swap_sinks(change);
    settings_free(pipeline->settings);
    pipeline->settings = settings_share(change->settings);
    pipeline_count_memory(pipeline);
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        host_plan(pipeline->hosts[i]);
    if (uv_timer_get_repeat(&pipeline->save_timer) != every) {
        uv_timer_set_repeat(&pipeline->save_timer, every);
        uv_timer_again(&pipeline->save_timer);
    }
    if (orphans)
        pipeline_say_orphans(pipeline);
    pipeline->quiet = false;
    for (uint32_t i = 0; i < pipeline->host_count; i++)            /* first: what follows may tell them that the flow is open */
        if (change->host_moves[i] >= MOVE_CHANGED)
            pipeline->hosts[i]->settings->type->start(pipeline->hosts[i]->self);
    for (uint32_t i = 0; i < pipeline->sink_count; i++) {
        outlet_drain(pipeline->sinks[i].outlet, false);
        outlet_hush(pipeline->sinks[i].outlet, false);             /* pumps it */
    }
    pipeline_flow(pipeline);
    pipeline_work(pipeline);
    change_end(change);
}

/* ---- Step by step ---- */

static void change_fail_mixed(struct change *change, const char *sink)
{
    char why[256];

    (void)snprintf(why, sizeof(why), mixes_text, sink);
    change_abandon(change, UV_EBUSY, why);
}

static void change_fail_drain(struct change *change)
{
    const struct outlet *holder = change_holder(change);
    char why[256];

    if (holder == NULL)
        (void)snprintf(why, sizeof(why), "not all that was read is safe yet; try again");
    else
        (void)snprintf(why, sizeof(why), "sink %.64s can neither deliver nor spool what it has in memory within stop_wait: see its spool and "
                       "the disk", outlet_name(holder));
    change_abandon(change, UV_ETIMEDOUT, why);
}

static void change_on(struct change *change)
{
    struct pipeline *pipeline = change->pipeline;
    uint32_t stop_ms = pipeline->settings->daemon.stop_ms;
    const char *mixes;

    switch (change->step) {
    case CHANGE_QUIET:
        if (pipeline->jobs_running > 0 || pipeline->big_stream != NULL) {
            if (change_late(change))
                change_abandon(change, UV_ETIMEDOUT, "a job on the pool does not come to its end within stop_wait; try again");
            return;
        }
        change_enter(change, CHANGE_DRAIN, stop_ms);
        change_drain(change);
        /* fall through */
    case CHANGE_DRAIN:
        if (!change_drained(change)) {
            if (change_late(change))
                change_fail_drain(change);
            return;
        }
        if ((mixes = change_mixes(change)) != NULL) {              /* the far end did not take it in time */
            change_fail_mixed(change, mixes);
            return;
        }
        if (pipeline->saver.trouble) {
            change_abandon(change, UV_EIO, "the cursors cannot be saved: see the disk");
            return;
        }
        change_enter(change, CHANGE_HUSH, stop_ms / 2);
        change_hush(change);
        /* fall through */
    case CHANGE_HUSH:
        if (change_flies(change) && !change_late(change))
            return;
        change_enter(change, CHANGE_STOP, 0);
        change_stop(change);
        /* fall through */
    case CHANGE_STOP:
        if (change->waits > 0)
            return;
        change_enter(change, CHANGE_SAVE, stop_ms);
        saver_save(&pipeline->saver, false);
        /* fall through */
    case CHANGE_SAVE:
        if (!change_saved(change) && !pipeline->saver.trouble)     /* else it is tried again at its own pace */
            saver_save(&pipeline->saver, false);
        if (!change_saved(change) && !change_late(change))
            return;
        change_enter(change, CHANGE_SETTLE, 0);
        change_settle(change);
        /* fall through */
    case CHANGE_SETTLE:
        if (change->waits > 0)
            return;
        change_swap(change);
        return;
    case CHANGE_ABANDON:
        if (change->waits == 0)
            change_abandoned(change);
        return;
    }
}

void pipeline_change(struct pipeline *pipeline, struct settings *settings,
                     void (*done)(void *arg, int result, const char *told), void *arg)
{
    struct change *change = calloc(1, sizeof(*change));
    struct pen_error err = { 0 };
    int r;

    assert(pipeline->state == PIPELINE_RUNNING && pipeline->change == NULL && !pipeline->conf.once);
    if (change == NULL)
        abort();
    *change = (struct change){ .pipeline = pipeline, .settings = settings_share(settings), .done = done, .arg = arg };
    uv_timer_init(pipeline->conf.loop, &change->timer);
    change->timer.data = change;
    pipeline->change = change;
    r = prepare(change, &err);
    if (r < 0) {
        change_abandon(change, r, err.text);
        return;
    }
    tell_all(change);
    pipeline->quiet = true;
    change_enter(change, CHANGE_QUIET, pipeline->settings->daemon.stop_ms);
    change_kick(pipeline);
}

bool pipeline_is_changing(const struct pipeline *pipeline)
{
    return pipeline->change != NULL;
}
