/*
 * pipeline_life.c - the pipeline's beginning and end, and the saving of cursors in between.
 *
 *   open    state folder and its lock, cursors, outlets, sources, workers; nothing is read yet
 *   change  pipeline_change.c
 *   stop    RUNNING ──▶ sources: no chunk is out ──▶ outlets: delivered or spooled ──▶ cursors saved ──▶ sources settle
 *   close   once it has stopped, or was never started
 *
 * The order of stopping is what repeats little: nothing new while the last messages come to their end, and the cursors are
 * saved once no message can get any safer.
 */
#include "daemon/pipeline/pipeline_inside.h"

#include "daemon/base/log.h"
#include "daemon/disk/spools.h"
#include "daemon/pipeline/pace.h"
#include "daemon/remote/http.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* ---- What is saved ---- */

static bool on_rest(struct stream *stream)
{
    const struct source_type *type = stream->host->settings->type;

    return type->on_rest != NULL && type->on_rest(stream->host->self, stream->self, &(struct cursor){
        stream->key, stream->attrs, stream->safe_position, stream->safe_word });
}

static void on_saved(void *arg)
{
    struct pipeline *pipeline = arg;

    if (pipeline->saver.result == UV_ENOSPC)
        reserve_release(pipeline->reserve);
    if (pipeline->state >= PIPELINE_STOPPING_SOURCES)
        pipeline_stop_on(pipeline);
    change_kick(pipeline);
}

static void collect_places(void *arg, struct cursor_change *change)
{
    struct pipeline *pipeline = arg;

    for (uint32_t i = 0; i < pipeline->sink_count; i++) {
        struct sink_host *sink = &pipeline->sinks[i];
        struct spool_place place = spool_place(outlet_spool(sink->outlet));

        if (place.segment == sink->saved.segment && place.offset == sink->saved.offset)
            continue;
        sink->saved = place;
        cursor_change_place(change, outlet_name(sink->outlet), place);
    }
}

static void on_save_timer(uv_timer_t *timer)
{
    struct pipeline *pipeline = timer->data;

    (void)reserve_held(pipeline->reserve);
    saver_save(&pipeline->saver, false);
}

/* ---- Opening ---- */

static int pipeline_open_state(struct pipeline *pipeline, struct pen_error *err)
{
    static const char *const folders[] = { "", "/spool", "/dead" };
    const char *dir = pipeline->conf.state_dir;
    char *path;
    int r = 0;

    for (size_t i = 0; i < sizeof(folders) / sizeof(*folders) && r == 0; i++) {
        if (asprintf(&path, "%s%s", dir, folders[i]) < 0)
            abort();
        r = io_make_folder(path);
        if (r < 0)
            pen_error_set(err, r, "%s cannot be made: %s; mend state_dir, or make the folder it is in", path, strerror(-r));
        free(path);
    }
    if (r < 0)
        return r;
    if (asprintf(&path, "%s/lock", dir) < 0)
        abort();
    pipeline->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (pipeline->lock_fd < 0)
        r = pen_error_set(err, -errno, "%s: %s", path, strerror(errno));
    else if (flock(pipeline->lock_fd, LOCK_EX | LOCK_NB) < 0)
        r = pen_error_set(err, UV_EBUSY, "%s is in use: another penstock runs on this state folder", dir);
    free(path);
    if (r < 0)
        return r;
    pipeline->reserve = reserve_open(dir);
    if (asprintf(&path, "%s/state.db", dir) < 0)
        abort();
    r = cursors_open(&pipeline->cursors, path, err);
    if (r == UV_ENOSPC) {                          /* it may need a little to get itself into order */
        reserve_release(pipeline->reserve);
        r = cursors_open(&pipeline->cursors, path, err);
    }
    free(path);
    if (r == 0 && pipeline->settings->daemon.key_file != NULL)
        r = keys_read(&pipeline->keys, pipeline->settings->daemon.key_file, err);
    return r;
}

/* Names this process in the spool's frames: no two lives may share it, whatever the clock does. */
static uint64_t pipeline_life(void)
{
    uint64_t life;

    if (io->random(&life, sizeof(life)) < 0)
        life = (uint64_t)io_now_ticks();
    return life;
}

/* ---- A sink ---- */

static void on_outlet_moved(void *arg)
{
    struct pipeline *pipeline = arg;

    change_kick(pipeline);
    if (pipeline->state != PIPELINE_RUNNING)
        return;
    pipeline_flow(pipeline);
    pipeline_work(pipeline);
    pipeline_once_done(pipeline);
}

size_t sink_memory_max(const struct settings *settings)
{
    return settings->daemon.memory / 8 / settings->sink_count;
}

int sink_open(struct sink_host *ret, struct pipeline *pipeline, struct settings *settings, uint32_t index, struct pen_error *err)
{
    struct outlet_conf conf = {
        .settings = &settings->sinks[index],
        .loop = pipeline->conf.loop, .http = pipeline->http, .budget = &pipeline->budget,
        .state_dir = pipeline->conf.state_dir, .life = pipeline->life, .keys = pipeline->keys,
        .reserve = pipeline->reserve,
        .source_count = pipeline->row_count, .stop_ms = settings->daemon.stop_ms,
        .memory_max = sink_memory_max(settings), .beside = pipeline->conf.beside,
        .on_moved = on_outlet_moved, .arg = pipeline,
    };
    struct sink_host sink = { 0 };
    int r = cursors_spool_place(pipeline->cursors, conf.settings->name, &conf.place, err);

    if (r == 0) {
        settings_print_files(&sink.print, conf.settings->section, conf.settings->type->options);
        r = outlet_open(&sink.outlet, &conf, err);
    }
    if (r < 0)
        return r;
    sink.saved = conf.place;
    sink.opened = settings_share(settings);
    *ret = sink;
    return 0;
}

void sink_close(struct sink_host *sink)
{
    outlet_close(sink->outlet);                    /* and gives back what of the budget was its own */
    settings_free(sink->opened);
    *sink = (struct sink_host){ 0 };
}

static int pipeline_open_sinks(struct pipeline *pipeline, struct pen_error *err)
{
    int r = 0;

    for (uint32_t i = 0; i < pipeline->settings->sink_count && r == 0; i++) {
        r = sink_open(&pipeline->sinks[i], pipeline, pipeline->settings, i, err);
        pipeline->sink_count += r == 0;
    }
    return r;
}

/* ---- A source ---- */

static bool row_is_free(const struct pipeline *pipeline, uint32_t row)
{
    for (uint32_t i = 0; i < pipeline->sink_count; i++) {
        const struct ledger_row *ledger = outlet_ledger(pipeline->sinks[i].outlet, row);

        if (ledger->count[LEDGER_HELD] > 0 || ledger->count[LEDGER_SPOOLED] > 0)
            return false;
    }
    return true;
}

static void row_name(struct pipeline *pipeline, uint32_t row, const char *source)
{
    char **name = &pipeline->rows[row].source;

    if (*name != NULL && strcmp(*name, source) == 0)
        return;
    for (uint32_t i = 0; i < pipeline->sink_count && *name != NULL; i++)
        outlet_row_renew(pipeline->sinks[i].outlet, row);
    free(*name);
    pipeline->rows[row] = (struct row){ .source = strdup(source) };
    if (*name == NULL)
        abort();
}

/* The row that its messages are counted in; of a name that was there before, the same as then. */
static int host_open_row(struct source_host *host, struct pen_error *err)
{
    struct pipeline *pipeline = host->pipeline;
    uint32_t count = pipeline->row_count, row;

    for (row = 0; row < count; row++)
        if (pipeline->rows[row].source != NULL && strcmp(pipeline->rows[row].source, host->settings->name) == 0)
            break;
    for (uint32_t i = 0; row == count && i < count; i++)
        if (pipeline->rows[i].source == NULL)
            row = i;
    for (uint32_t i = 0; row == count && i < count; i++)
        if (!pipeline->rows[i].live && row_is_free(pipeline, i))
            row = i;
    if (row == count)
        return pen_error_set(err, UV_EBUSY, "source %s: the spools still hold messages of so many sources that have left: let them "
                             "drain first", host->settings->name);
    host->row = row;
    row_name(pipeline, row, host->settings->name);
    pipeline->rows[row].live = true;
    return 0;
}

/* The distinct schemas of the outlets that this source goes to: each event is written once for each. */
static void host_plan_schemas(struct source_host *host)
{
    struct pipeline *pipeline = host->pipeline;

    host->plan.schema_count = 0;
    for (uint32_t o = 0; o < pipeline->sink_count; o++) {
        const struct schema *schema = outlet_schema(pipeline->sinks[o].outlet);
        size_t i;

        if (!host_goes_to(host, pipeline->sinks[o].outlet))
            continue;
        for (i = 0; i < host->plan.schema_count && host->plan.schemas[i] != schema; i++)
            ;
        if (i == host->plan.schema_count && i < WORK_SCHEMAS_MAX)
            host->plan.schemas[host->plan.schema_count++] = schema;
    }
}

void host_plan(struct source_host *host)
{
    const struct daemon_settings *daemon = &host->pipeline->settings->daemon;

    host->plan.record_max = daemon->record_max;
    host->plan.big_record = daemon->memory / 256;
    host->plan.output_max = daemon->memory / 64;
    host->plan.window = host->pipeline->conf.window;
    host_plan_schemas(host);
}

void host_take(struct source_host *host, const struct settings *settings, uint32_t index)
{
    host->settings = &settings->sources[index];
    host->index = index;
    host->streams.source = host->settings->name;
    host->plan.source = (struct pen_span){ host->settings->name, strlen(host->settings->name) };
}

int host_open(struct source_host **ret, struct pipeline *pipeline, struct settings *settings, uint32_t index,
              struct pen_error *err)
{
    struct source_host *host = calloc(1, sizeof(*host));
    struct pen_error inner = { 0 };
    int r;

    if (host == NULL)
        abort();
    host->pipeline = pipeline;
    host->opened = settings_share(settings);
    stream_list_init(&host->streams, settings->sources[index].name, &pipeline->saver);
    host_take(host, settings, index);
    r = host_open_row(host, err);
    if (r == 0)
        r = work_plan_open(&host->plan, host->settings->parser, settings->daemon.plugin_dir, err);
    if (r < 0)
        goto fail;
    settings_print_files(&host->print, host->settings->section, host->settings->type->options);
    r = host->settings->type->open(&host->self, host, host->settings->section, &inner);
    if (r < 0) {
        pen_error_set(err, r, "source %s: %.400s", host->settings->name, inner.text);
        goto fail;
    }
    *ret = host;
    return 0;
fail:
    host_close(host);
    return r;
}

void host_close(struct source_host *host)
{
    if (host == NULL)
        return;
    if (host->self != NULL)
        host->settings->type->close(host->self);
    host->pipeline->rows[host->row].live = false;
    source_keep(host, -(ptrdiff_t)host->kept);
    budget_give(&host->pipeline->budget, host->reserved);
    stream_list_free(&host->streams);
    work_plan_close(&host->plan);
    settings_free(host->opened);
    free(host);
}

void pipeline_mark_rows(struct pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        pipeline->rows[pipeline->hosts[i]->row].live = true;
}

static int pipeline_open_sources(struct pipeline *pipeline, struct pen_error *err)
{
    for (uint32_t i = 0; i < pipeline->settings->source_count; i++) {
        int r = host_open(&pipeline->hosts[i], pipeline, pipeline->settings, i, err);

        if (r < 0)
            return r;
        pipeline->host_count++;
        host_plan(pipeline->hosts[i]);
    }
    return 0;
}

static void on_pace(void *arg)
{
    pipeline_work(arg);
}

static void pipeline_open_workers(struct pipeline *pipeline)
{
    int64_t count = pipeline->settings->daemon.workers;

    if (count == 0)
        count = sysconf(_SC_NPROCESSORS_ONLN);
    pipeline->job_count = count < 1 ? 1 : count > PIPELINE_WORKERS_MAX ? PIPELINE_WORKERS_MAX : (uint32_t)count;
    for (uint32_t i = 0; i < pipeline->job_count; i++)
        pipeline->jobs[i].worker = worker_new();
}

/* ---- Memory ---- */

/* With every sink in trouble and its window full, the flow must still be able to open, or one far end that is down would
 * stop all others. */
int pipeline_check_memory(size_t memory, struct source_host *const *hosts, uint32_t host_count, const struct sink_host *sinks,
                          uint32_t sink_count, struct pen_error *err)
{
    size_t least = 0;

    for (uint32_t i = 0; i < host_count; i++)
        least += hosts[i]->reserved * 2;
    for (uint32_t i = 0; i < sink_count; i++)
        least += outlet_least_bytes(sinks[i].outlet) * 2;
    if (least <= memory)
        return 0;
    return pen_error_set(err, UV_EINVAL, "\"memory\" is too small for what sources hold and sinks may have in flight: expected "
                         "%zuM or more, or a smaller \"in_flight\" or \"batch_bytes\"", (least >> 20) + 1);
}

void pipeline_count_memory(struct pipeline *pipeline)
{
    pipeline->budget.total = pipeline->settings->daemon.memory;
    pipeline->baseline = pipeline->kept;
    pipeline->window_bytes = 0;
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        pipeline->baseline += pipeline->hosts[i]->reserved;
    for (uint32_t i = 0; i < pipeline->sink_count; i++) {
        pipeline->baseline += outlet_sink_bytes(pipeline->sinks[i].outlet);
        pipeline->window_bytes += outlet_window_bytes(pipeline->sinks[i].outlet);
    }
    for (uint32_t i = 0; i < pipeline->job_count; i++)
        pipeline->baseline += pipeline->jobs[i].worker_bytes;
    pipeline_set_marks(pipeline);
}

/* ---- All of it ---- */

int pipeline_new(struct pipeline **ret, const struct pipeline_conf *conf, struct pen_error *err)
{
    struct pipeline *pipeline = calloc(1, sizeof(*pipeline));
    int r;

    if (pipeline == NULL)
        abort();
    pipeline->conf = *conf;
    pipeline->settings = settings_share(conf->settings);
    pipeline->row_count = conf->once ? conf->settings->source_count : SETTINGS_SOURCES_MAX;
    pipeline->life = pipeline_life();
    pipeline->lock_fd = -1;
    pipeline->started_ms = pipeline_wall_ms();
    pipeline->flow_open = true;
    TAILQ_INIT(&pipeline->queue);
    pipeline->budget.total = conf->settings->daemon.memory;
    pipeline_set_marks(pipeline);
    pipeline->saver = (struct saver){ .loop = conf->loop, .collect = collect_places, .on_saved = on_saved,
                                       .on_rest = on_rest, .arg = pipeline };
    saver_init(&pipeline->saver);
    uv_timer_init(conf->loop, &pipeline->save_timer);
    pipeline->save_timer.data = pipeline;
    r = pipeline_open_state(pipeline, err);
    pipeline->saver.cursors = pipeline->cursors;
    if (r == 0)
        r = http_new(&pipeline->http, conf->loop, err);
    if (r == 0)
        r = pipeline_open_sinks(pipeline, err);
    if (r == 0)
        r = pipeline_open_sources(pipeline, err);
    if (r == 0)
        r = pipeline_check_memory(pipeline->budget.total, pipeline->hosts, pipeline->host_count, pipeline->sinks,
                                  pipeline->sink_count, err);
    if (r < 0) {
        pipeline_close(pipeline);
        return r;
    }
    pipeline_open_workers(pipeline);
    pipeline_count_memory(pipeline);
    *ret = pipeline;
    return 0;
}

static void on_orphan(void *arg, const char *sink, const struct spool_look *look)
{
    (void)arg;
    log_line(LOG_WARN, "this sink left the configuration, and messages wait in its spool: \"penstock spool adopt\" gives them to "
             "another sink, \"penstock spool drop\" throws them away", "sink", sink, "messages",
             log_number(look->messages), "bytes", log_number(look->bytes), NULL);
}

void pipeline_say_orphans(struct pipeline *pipeline)
{
    spools_orphans(pipeline->conf.state_dir, pipeline->settings, on_orphan, NULL);
}

void pipeline_start(struct pipeline *pipeline)
{
    uint32_t every = pipeline->settings->daemon.cursor_save_ms;

    pipeline->state = PIPELINE_RUNNING;
    if (pipeline->conf.pace != NULL)
        pace_on_go(pipeline->conf.pace, on_pace, pipeline);
    log_line(LOG_NOTE, "started", "version", PENSTOCK_VERSION, "sources", log_number(pipeline->host_count), "sinks",
             log_number(pipeline->sink_count), "workers", log_number(pipeline->job_count), "memory",
             log_number(pipeline->budget.total), NULL);
    pipeline_say_orphans(pipeline);
    uv_timer_start(&pipeline->save_timer, on_save_timer, every, every);
    for (uint32_t i = 0; i < pipeline->sink_count; i++)
        outlet_pump(pipeline->sinks[i].outlet);
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        pipeline->hosts[i]->settings->type->start(pipeline->hosts[i]->self);
}

/* ---- Stopping ---- */

static void on_source_stopped(void *arg)
{
    struct source_host *host = arg;

    host->stopped = true;
    host->pipeline->hosts_stopped++;
    pipeline_stop_on(host->pipeline);
}

static void on_source_settled(void *arg)
{
    struct pipeline *pipeline = arg;

    pipeline->hosts_settled++;
    pipeline_stop_on(pipeline);
}

static void on_outlet_stopped(void *arg)
{
    struct pipeline *pipeline = arg;

    pipeline->sinks_stopped++;
    pipeline_stop_on(pipeline);
}

/* Each step begins when the one before is done; every callback comes back here. */
void pipeline_stop_on(struct pipeline *pipeline)
{
    switch (pipeline->state) {
    case PIPELINE_STOPPING_SOURCES:
        if (pipeline->chunks_out > 0 || pipeline->hosts_stopped < pipeline->host_count)
            return;
        pipeline->state = PIPELINE_STOPPING_OUTLETS;
        for (uint32_t i = 0; i < pipeline->sink_count; i++)
            outlet_stop(pipeline->sinks[i].outlet, on_outlet_stopped, pipeline);
        return;
    case PIPELINE_STOPPING_OUTLETS:
        if (pipeline->sinks_stopped < pipeline->sink_count || pipeline->saver.since_ms > 0)
            return;
        pipeline->state = PIPELINE_SAVING;
        uv_timer_stop(&pipeline->save_timer);
        saver_save(&pipeline->saver, true);
        if (pipeline->saver.since_ms > 0)
            return;
        /* fall through */
    case PIPELINE_SAVING:
        pipeline->state = PIPELINE_SETTLING;
        for (uint32_t i = 0; i < pipeline->host_count; i++) {
            struct source_host *host = pipeline->hosts[i];

            if (host->settings->type->settle != NULL)
                host->settings->type->settle(host->self, on_source_settled, pipeline);
            else
                pipeline->hosts_settled++;
        }
        /* fall through */
    case PIPELINE_SETTLING:
        if (pipeline->hosts_settled < pipeline->host_count)
            return;
        pipeline->state = PIPELINE_STOPPED;
        pipeline->conf.on_stopped(pipeline->conf.arg);
        return;
    case PIPELINE_IDLE:
    case PIPELINE_RUNNING:
    case PIPELINE_STOPPED:
        return;
    }
}

void pipeline_stop(struct pipeline *pipeline)
{
    if (pipeline->state != PIPELINE_RUNNING)
        return;
    if (pipeline->change != NULL) {                /* first that comes to its end, and then we come back */
        pipeline->stop_after = true;
        change_give_up(pipeline);
        return;
    }
    pipeline->state = PIPELINE_STOPPING_SOURCES;
    pipeline_work(pipeline);                       /* gives queued chunks back */
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        pipeline->hosts[i]->settings->type->stop(pipeline->hosts[i]->self, on_source_stopped, pipeline->hosts[i]);
}

/* Replay: all read, then all at its end. */
void pipeline_once_done(struct pipeline *pipeline)
{
    if (!pipeline->conf.once || pipeline->state != PIPELINE_RUNNING || pipeline->chunks_out > 0)
        return;
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        if (!pipeline->hosts[i]->drained)
            return;
    for (uint32_t i = 0; i < pipeline->sink_count; i++)
        if (!outlet_is_idle(pipeline->sinks[i].outlet))
            return;
    pipeline_stop(pipeline);
}

/* ---- Closing ---- */

static void on_http_closed(void *arg)
{
    (void)arg;
}

static void on_save_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_unstarted_stopped(void *arg)
{
    (void)arg;
}

void pipeline_close(struct pipeline *pipeline)
{
    if (pipeline == NULL)
        return;
    if (pipeline->state == PIPELINE_IDLE) {
        /* Never started: stop what was opened, one turn after the other, and then come back. */
        pipeline->state = PIPELINE_STOPPED;
        for (uint32_t i = 0; i < pipeline->host_count; i++)
            if (pipeline->hosts[i]->self != NULL)
                pipeline->hosts[i]->settings->type->stop(pipeline->hosts[i]->self, on_unstarted_stopped, NULL);
        for (uint32_t i = 0; i < pipeline->sink_count; i++)
            outlet_stop(pipeline->sinks[i].outlet, on_unstarted_stopped, NULL);
        uv_run(pipeline->conf.loop, UV_RUN_DEFAULT);
    }
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        host_close(pipeline->hosts[i]);
    for (uint32_t i = 0; i < pipeline->sink_count; i++)
        sink_close(&pipeline->sinks[i]);
    for (uint32_t i = 0; i < pipeline->row_count; i++)
        free(pipeline->rows[i].source);
    for (uint32_t i = 0; i < pipeline->job_count; i++)
        worker_free(pipeline->jobs[i].worker);
    if (pipeline->http != NULL)
        http_close(pipeline->http, on_http_closed, NULL);
    saver_free(&pipeline->saver);
    cursors_close(pipeline->cursors);
    keys_free(pipeline->keys);
    for (size_t i = 0; i < pipeline->keys_before_count; i++)
        keys_free(pipeline->keys_before[i]);
    free(pipeline->keys_before);
    reserve_close(pipeline->reserve);
    if (pipeline->lock_fd >= 0)
        close(pipeline->lock_fd);
    settings_free(pipeline->settings);
    uv_close((uv_handle_t *)&pipeline->save_timer, on_save_timer_closed);
}
