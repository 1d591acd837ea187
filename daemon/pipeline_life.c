/*
 * pipeline_life.c - the pipeline's beginning and end, and the saving of cursors in between.
 *
 *   open    state folder and its lock, cursors, outlets, sources, workers; nothing is read yet
 *   stop    RUNNING ──▶ sources: no chunk is out ──▶ outlets: delivered or spooled ──▶ cursors saved ──▶ sources settle
 *   close   once it has stopped, or was never started
 *
 * The order of stopping is what repeats little: nothing new while the last messages come to their end, and the cursors are
 * saved once no message can get any safer.
 */
#include "daemon/pipeline_inside.h"

#include "daemon/http.h"
#include "daemon/log.h"
#include "daemon/spools.h"

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
}

static void collect_places(void *arg, struct cursor_change *change)
{
    struct pipeline *pipeline = arg;

    for (uint32_t i = 0; i < pipeline->outlet_count; i++) {
        struct spool_place place = spool_place(outlet_spool(pipeline->outlets[i]));

        if (place.segment == pipeline->saved_places[i].segment && place.offset == pipeline->saved_places[i].offset)
            continue;
        pipeline->saved_places[i] = place;
        cursor_change_place(change, outlet_name(pipeline->outlets[i]), place);
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
            pen_error_set(err, r, "%s cannot be made: %s", path, strerror(-r));
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

static void on_outlet_moved(void *arg)
{
    struct pipeline *pipeline = arg;

    if (pipeline->state != PIPELINE_RUNNING)
        return;
    pipeline_flow(pipeline);
    pipeline_work(pipeline);
    pipeline_once_done(pipeline);
}

static int pipeline_open_outlets(struct pipeline *pipeline, struct pen_error *err)
{
    const struct settings *settings = pipeline->settings;
    struct outlet_conf conf = {
        .loop = pipeline->conf.loop, .http = pipeline->http, .budget = &pipeline->budget,
        .state_dir = pipeline->conf.state_dir, .life = pipeline_life(), .keys = pipeline->keys,
        .reserve = pipeline->reserve,
        .source_count = settings->source_count, .stop_ms = settings->daemon.stop_ms,
        .memory_max = settings->daemon.memory / 8 / settings->sink_count, .beside = pipeline->conf.once,
        .on_moved = on_outlet_moved, .arg = pipeline,
    };
    int r;

    for (uint32_t i = 0; i < settings->sink_count; i++) {
        conf.settings = &settings->sinks[i];
        r = cursors_spool_place(pipeline->cursors, conf.settings->name, &conf.place, err);
        if (r == 0)
            r = outlet_open(&pipeline->outlets[i], &conf, err);
        if (r < 0)
            return r;
        pipeline->saved_places[i] = conf.place;
        pipeline->window_bytes += outlet_window_bytes(pipeline->outlets[i]);
        pipeline->outlet_count++;
    }
    return 0;
}

/* The distinct schemas of the outlets that this source goes to: each event is written once for each. */
static void host_plan_schemas(struct source_host *host)
{
    struct pipeline *pipeline = host->pipeline;

    for (uint32_t o = 0; o < pipeline->outlet_count; o++) {
        const struct schema *schema = outlet_schema(pipeline->outlets[o]);
        size_t i;

        if (!(outlet_settings(pipeline->outlets[o])->source_mask[host->index / 64] >> (host->index % 64) & 1))
            continue;
        for (i = 0; i < host->plan.schema_count && host->plan.schemas[i] != schema; i++)
            ;
        if (i == host->plan.schema_count && i < WORK_SCHEMAS_MAX)
            host->plan.schemas[host->plan.schema_count++] = schema;
    }
}

static int pipeline_open_sources(struct pipeline *pipeline, struct pen_error *err)
{
    const struct settings *settings = pipeline->settings;
    int r;

    for (uint32_t i = 0; i < settings->source_count; i++) {
        struct source_host *host = &pipeline->hosts[i];

        host->pipeline = pipeline;
        host->settings = &settings->sources[i];
        host->index = i;
        stream_list_init(&host->streams, host->settings->name, &pipeline->saver);
        host->plan.source = (struct pen_span){ host->settings->name, strlen(host->settings->name) };
        host->plan.record_max = settings->daemon.record_max;
        host->plan.big_record = settings->daemon.memory / 256;
        host->plan.output_max = settings->daemon.memory / 64;
        host_plan_schemas(host);
        r = work_plan_open(&host->plan, host->settings->parser, settings->daemon.plugin_dir, err);
        if (r < 0)
            return r;
        pipeline->host_count++;
        r = host->settings->type->open(&host->self, host, host->settings->section, err);
        if (r < 0)
            return r;
    }
    return 0;
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

/* With every sink in trouble and its window full, the flow must still be able to open, or one far end that is down would
 * stop all others. */
static int pipeline_check_memory(struct pipeline *pipeline, struct pen_error *err)
{
    size_t least = (pipeline->baseline - pipeline->kept + pipeline->window_bytes) * 2;

    if (least <= pipeline->budget.total)
        return 0;
    return pen_error_set(err, UV_EINVAL, "\"memory\" is too small for what sources hold and sinks may have in flight: expected "
                         "%zuM or more, or a smaller \"in_flight\" or \"batch_bytes\"", (least >> 20) + 1);
}

int pipeline_new(struct pipeline **ret, const struct pipeline_conf *conf, struct pen_error *err)
{
    struct pipeline *pipeline = calloc(1, sizeof(*pipeline));
    int r;

    if (pipeline == NULL)
        abort();
    pipeline->conf = *conf;
    pipeline->settings = conf->settings;
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
        r = pipeline_open_outlets(pipeline, err);
    if (r == 0)
        r = pipeline_open_sources(pipeline, err);
    if (r == 0) {
        pipeline->baseline = pipeline->budget.held;  /* what was kept until now is in it */
        r = pipeline_check_memory(pipeline, err);
    }
    if (r < 0) {
        pipeline_close(pipeline);
        return r;
    }
    pipeline_open_workers(pipeline);
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

void pipeline_start(struct pipeline *pipeline)
{
    uint32_t every = pipeline->settings->daemon.cursor_save_ms;

    pipeline->state = PIPELINE_RUNNING;
    log_line(LOG_NOTE, "started", "version", PENSTOCK_VERSION, "sources", log_number(pipeline->host_count), "sinks",
             log_number(pipeline->outlet_count), "workers", log_number(pipeline->job_count), "memory",
             log_number(pipeline->budget.total), NULL);
    spools_orphans(pipeline->conf.state_dir, pipeline->settings, on_orphan, NULL);
    uv_timer_start(&pipeline->save_timer, on_save_timer, every, every);
    for (uint32_t i = 0; i < pipeline->outlet_count; i++)
        outlet_pump(pipeline->outlets[i]);
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        pipeline->hosts[i].settings->type->start(pipeline->hosts[i].self);
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

    pipeline->outlets_stopped++;
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
        for (uint32_t i = 0; i < pipeline->outlet_count; i++)
            outlet_stop(pipeline->outlets[i], on_outlet_stopped, pipeline);
        return;
    case PIPELINE_STOPPING_OUTLETS:
        if (pipeline->outlets_stopped < pipeline->outlet_count || pipeline->saver.since_ms > 0)
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
            struct source_host *host = &pipeline->hosts[i];

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
    pipeline->state = PIPELINE_STOPPING_SOURCES;
    pipeline_work(pipeline);                       /* gives queued chunks back */
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        pipeline->hosts[i].settings->type->stop(pipeline->hosts[i].self, on_source_stopped, &pipeline->hosts[i]);
}

/* Replay: all read, then all at its end. */
void pipeline_once_done(struct pipeline *pipeline)
{
    if (!pipeline->conf.once || pipeline->state != PIPELINE_RUNNING || pipeline->chunks_out > 0)
        return;
    for (uint32_t i = 0; i < pipeline->host_count; i++)
        if (!pipeline->hosts[i].drained)
            return;
    for (uint32_t i = 0; i < pipeline->outlet_count; i++)
        if (!outlet_is_idle(pipeline->outlets[i]))
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
            if (pipeline->hosts[i].self != NULL)
                pipeline->hosts[i].settings->type->stop(pipeline->hosts[i].self, on_unstarted_stopped, NULL);
        for (uint32_t i = 0; i < pipeline->outlet_count; i++)
            outlet_stop(pipeline->outlets[i], on_unstarted_stopped, NULL);
        uv_run(pipeline->conf.loop, UV_RUN_DEFAULT);
    }
    for (uint32_t i = 0; i < pipeline->host_count; i++) {
        struct source_host *host = &pipeline->hosts[i];

        host->settings->type->close(host->self);
        stream_list_free(&host->streams);
        work_plan_close(&host->plan);
    }
    for (uint32_t i = 0; i < pipeline->outlet_count; i++)
        outlet_close(pipeline->outlets[i]);
    for (uint32_t i = 0; i < pipeline->job_count; i++)
        worker_free(pipeline->jobs[i].worker);
    if (pipeline->http != NULL)
        http_close(pipeline->http, on_http_closed, NULL);
    saver_free(&pipeline->saver);
    cursors_close(pipeline->cursors);
    keys_free(pipeline->keys);
    reserve_close(pipeline->reserve);
    if (pipeline->lock_fd >= 0)
        close(pipeline->lock_fd);
    uv_close((uv_handle_t *)&pipeline->save_timer, on_save_timer_closed);
}
