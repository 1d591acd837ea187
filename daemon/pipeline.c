/*
 * pipeline.c - how a chunk travels.
 *
 *   source ── stream_offer ──▶ queue ──▶ job on the pool (work.h: frame, parse, write) ──▶ commit on the loop
 *                                                                                            │ messages into the outlets,
 *                                                                                            ▼ one run per job
 *   source ◀── on_chunk ── position moves                       cursor ◀── runs released, oldest first ── outlets
 *
 * One job per stream at a time, so a stream's order is the order of its jobs. A job that would make too much output stops
 * early and the same chunk is queued again; so is one that meets a big record, which must have the budget to itself.
 *
 * Memory: one number, budget.held, holds chunks, workers, batches, what the sinks' libraries may take and what sources keep
 * to know their streams again. At the upper
 * mark the flow closes: no reads, no new jobs. At the lower one it opens, or when no more is in batches than the windows
 * hold. Jobs that run may overdraw by their output. tests/model/flow.pml asks whether every pause ends.
 */
#include "daemon/pipeline.h"

#include "daemon/buf.h"
#include "daemon/http.h"
#include "daemon/io.h"
#include "daemon/log.h"
#include "daemon/spools.h"
#include "daemon/status.h"
#include "daemon/stream.h"
#include "daemon/work.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 64
#define FAULT_LOG_MS 10000u
#define TICKS_PER_MS 10000
#define TICKS_PER_DAY (24 * 60 * 60 * 1000LL * TICKS_PER_MS)

struct source_host {
    struct pipeline *pipeline;
    const struct source_settings *settings;
    uint32_t index;
    void *self;
    struct work_plan plan;
    struct stream_list streams;
    uint64_t troubles;
    uint64_t bytes;                                /* of chunks done with */
    struct work_counts counts;
    int64_t newest_ticks;                          /* newest event time accepted; 0: none yet */
    uint64_t faults_unsaid, fault_said_ms;
    bool drained, stopped;
};

struct job {
    uv_work_t work;
    struct worker *worker;
    size_t worker_bytes;                           /* as counted in the budget */
    struct stream *stream;                         /* NULL: free */
    struct work run;
    uint32_t message;                              /* of the chunk, where it has messages: the one that `run` is at */
    uint64_t since_ms;
};

struct pipeline {
    struct pipeline_conf conf;
    const struct settings *settings;
    int lock_fd;
    uint64_t started_ms;                           /* since 1970 */
    struct http *http;
    struct cursors *cursors;
    struct keys *keys;               /* NULL: nothing is encrypted */
    struct reserve *reserve;
    struct budget budget;
    size_t baseline, chunk_bytes;
    size_t kept;                                   /* of the baseline: what sources know of their streams */
    size_t window_bytes;                           /* batches that the sinks may hold in flight, all windows full */
    bool flow_open, big_waits;
    struct stream *big_stream;                     /* has the budget to itself, between its passes too */
    size_t big_bytes;                              /* counted for its tree */
    struct outlet *outlets[SETTINGS_SINKS_MAX];
    uint32_t outlet_count, outlets_stopped;
    struct source_host hosts[SETTINGS_SOURCES_MAX];
    uint32_t host_count, hosts_stopped, hosts_settled;
    struct job jobs[WORKERS_MAX];
    uint32_t job_count, jobs_running;
    struct streams queue;
    uint32_t chunks_out;
    uv_timer_t save_timer;
    struct saver saver;
    struct spool_place saved_places[SETTINGS_SINKS_MAX];
    enum { PIPELINE_IDLE, PIPELINE_RUNNING, PIPELINE_STOPPING_SOURCES, PIPELINE_STOPPING_OUTLETS, PIPELINE_SAVING,
           PIPELINE_SETTLING, PIPELINE_STOPPED } state;
};

static void pipeline_flow(struct pipeline *pipeline);
static void pipeline_set_marks(struct pipeline *pipeline);
static void pipeline_work(struct pipeline *pipeline);
static void pipeline_stop_on(struct pipeline *pipeline);

static uint64_t now_ms(const struct pipeline *pipeline)
{
    return uv_now(pipeline->conf.loop);
}

static uint64_t wall_ms(void)
{
    return (uint64_t)io_now_ticks() / 10000;
}

/* ---- Chunks ---- */

static size_t chunk_cost(const struct chunk *chunk)
{
    return chunk->capacity + chunk->message_max * sizeof(*chunk->messages);
}

struct chunk *chunk_take_messages(struct source_host *host, size_t capacity, uint32_t message_max)
{
    size_t list = message_max * sizeof(struct chunk_message);
    struct chunk *chunk = malloc(sizeof(*chunk) + list + capacity + JSON_PADDING);

    if (chunk == NULL)
        abort();
    *chunk = (struct chunk){ .capacity = capacity, .message_max = message_max };
    chunk->messages = (struct chunk_message *)(chunk + 1);
    chunk->data = (char *)(chunk + 1) + list;
    budget_take(&host->pipeline->budget, chunk_cost(chunk));
    host->pipeline->chunk_bytes += chunk_cost(chunk);
    return chunk;
}

struct chunk *chunk_take(struct source_host *host, size_t capacity)
{
    return chunk_take_messages(host, capacity, 0);
}

void chunk_add(struct chunk *chunk, uint64_t number, const void *data, size_t size)
{
    assert(chunk->message_count < chunk->message_max && size <= chunk->capacity - chunk->size);
    if (chunk->message_count == 0)
        chunk->offset = number;
    if (size > 0)
        memcpy(chunk->data + chunk->size, data, size);
    chunk->size += size;
    chunk->messages[chunk->message_count++] = (struct chunk_message){ number, chunk->size };
}

void chunk_drop(struct source_host *host, struct chunk *chunk)
{
    budget_give(&host->pipeline->budget, chunk_cost(chunk));
    host->pipeline->chunk_bytes -= chunk_cost(chunk);
    free(chunk);
}

/* ---- Streams ---- */

struct stream *stream_open(struct source_host *host, const char *name, const struct cursor *cursor, void *self)
{
    struct stream *stream = stream_new(&host->streams, name, cursor);

    stream->host = host;
    stream->self = self;
    return stream;
}

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

/* ---- Commit ---- */

static void host_log_faults(struct source_host *host, const struct stream *stream, const struct work *run)
{
    uint64_t now = now_ms(host->pipeline);

    if (run->fault_count == 0)
        return;
    host->faults_unsaid += run->fault_count;
    if (host->fault_said_ms > 0 && now - host->fault_said_ms < FAULT_LOG_MS)
        return;
    log_line(LOG_WARN, "records that are not what they should be; they travel as unknown", "source",
             host->settings->name, "stream", stream->name, "position", log_number(run->faults[0].position), "why",
             run->faults[0].why, "records", log_number(host->faults_unsaid), NULL);
    host->faults_unsaid = 0;
    host->fault_said_ms = now;
}

static void host_count(struct source_host *host, const struct work *run)
{
    host->counts.records += run->counts.records;
    host->counts.events += run->counts.events;
    host->counts.unknown += run->counts.unknown;
    host->counts.malformed += run->counts.malformed;
    host->counts.partly += run->counts.partly;
    host->counts.oversize += run->counts.oversize;
    host->counts.cut += run->counts.cut;
}

/* An event without a time of its own bears its arrival, and a clock a day ahead is wrong: neither tells how far we are. */
static void host_note_time(struct source_host *host, const struct work *work)
{
    const struct work_messages *messages = host->plan.schema_count > 0 ? &work->messages[0] : NULL;
    int64_t received = (int64_t)work->received_ms * TICKS_PER_MS;

    for (size_t i = 0; messages != NULL && i < messages->count; i++) {
        int64_t ticks = messages->index[i].ticks;

        if (ticks > host->newest_ticks && ticks != received && ticks < received + TICKS_PER_DAY)
            host->newest_ticks = ticks;
    }
}

/* One schema's messages into the outlets that take it from this source. */
static void commit_messages(struct source_host *host, struct stream *stream, struct run *run,
                            const struct schema *schema, const struct work_messages *messages)
{
    struct pipeline *pipeline = host->pipeline;

    for (uint32_t o = 0; o < pipeline->outlet_count; o++) {
        struct outlet *outlet = pipeline->outlets[o];
        const struct sink_settings *settings = outlet_settings(outlet);

        if (outlet_schema(outlet) != schema || !(settings->source_mask[host->index / 64] >> (host->index % 64) & 1))
            continue;
        for (size_t i = 0; i < messages->count; i++) {
            const struct work_message *message = &messages->index[i];
            struct batch_origin origin = { run, stream->name, host->index, message->position, message->ticks };

            if (settings->kind_mask >> message->kind & 1)
                outlet_add(outlet, message->kind, messages->bytes.data + message->offset, message->size, &origin);
            else
                outlet_drop(outlet, host->index);
        }
    }
}

static void job_commit(struct job *job)
{
    struct stream *stream = job->stream;
    struct source_host *host = stream->host;
    struct work *work = &job->run;
    struct run *run;

    stream->chunk_at = (size_t)(work->data - stream->chunk->data) + work->consumed;
    host->bytes += work->consumed;
    stream->chunk_message = job->message;
    stream->word = work->word_after;
    stream->skip = work->skip_after;
    stream->blamed = work->blamed_after;
    if (!work->whole) {
        stream->position += work->consumed;
    } else if (work->end == WORK_ALL) {
        stream->position = work->place + 1;
        stream->word = 0;
    } else {                                       /* before its end, a message has no place to go on at but its beginning */
        stream->position = work->place;
    }
    run = stream_run(stream);
    if (work->whole)
        run->word = 0;
    for (size_t i = 0; i < host->plan.schema_count; i++)
        commit_messages(host, stream, run, host->plan.schemas[i], &work->messages[i]);
    host_count(host, work);
    host_note_time(host, work);
    host_log_faults(host, stream, work);
    run_release(run);
}

/* ---- Big records ---- */

/* A big record's tree may take most of the budget. It waits until all else is out of memory, or as far out as it will go;
 * then it keeps what it has over as many passes as its events need, each as soon as the batches of the last are on their
 * way. */
static size_t batch_bytes(const struct pipeline *pipeline)
{
    size_t others = pipeline->baseline + pipeline->chunk_bytes + pipeline->big_bytes;

    return pipeline->budget.held > others ? pipeline->budget.held - others : 0;
}

/* As far out as they will go: what a sink in trouble has in flight stays until that sink is well again. Half as much once
 * more for the batches' indices. */
static bool batches_are_out(const struct pipeline *pipeline)
{
    return batch_bytes(pipeline) <= pipeline->window_bytes + pipeline->window_bytes / 2;
}

static size_t big_need(const struct pipeline *pipeline, const struct stream *stream)
{
    size_t size = stream->chunk->size - stream->chunk_at, most = pipeline->settings->daemon.record_max;

    return json_need(size < most ? size : most);
}

static bool big_fits(const struct pipeline *pipeline, const struct stream *stream)
{
    if (pipeline->big_stream != NULL)
        return pipeline->big_stream == stream && batch_bytes(pipeline) < pipeline->budget.total / 8;
    return pipeline->budget.held + big_need(pipeline, stream) <= pipeline->budget.total ||
        (pipeline->jobs_running == 0 && batches_are_out(pipeline));
}

static void big_take(struct pipeline *pipeline, struct stream *stream)
{
    if (pipeline->big_stream == stream)
        return;
    pipeline->big_stream = stream;
    pipeline->big_bytes = big_need(pipeline, stream);
    budget_take(&pipeline->budget, pipeline->big_bytes);
}

static void big_give(struct pipeline *pipeline)
{
    budget_give(&pipeline->budget, pipeline->big_bytes);
    pipeline->big_stream = NULL;
    pipeline->big_bytes = 0;
}

/* ---- Jobs ---- */

static size_t message_begin(const struct chunk *chunk, uint32_t message)
{
    return message > 0 ? chunk->messages[message - 1].end : 0;
}

/* Small messages of a queue share a job. */
static bool job_next_message(struct job *job)
{
    const struct chunk *chunk = job->stream->chunk;
    struct work *run = &job->run;
    size_t begin;

    if (run->end != WORK_ALL || job->message + 1 >= chunk->message_count)
        return false;
    begin = message_begin(chunk, ++job->message);
    run->data = chunk->data + begin;
    run->size = chunk->messages[job->message].end - begin;
    run->offset = run->word = run->skip = 0;
    run->blamed = false;
    run->place = chunk->messages[job->message].number;
    run->adds = true;
    return true;
}

static void on_job_work(uv_work_t *work)
{
    struct job *job = work->data;

    do {
        work_run(job->worker, &job->run);
    } while (job_next_message(job));
    if (job->run.big_allowed && job->run.end != WORK_FULL)
        worker_shrink(job->worker);
}

static void stream_give_back(struct stream *stream)
{
    struct source_host *host = stream->host;
    struct chunk *chunk = stream->chunk;

    stream->chunk = NULL;
    host->pipeline->chunks_out--;
    host->settings->type->on_chunk(host->self, stream->self, chunk, stream->chunk_at);
}

static void stream_queue(struct stream *stream)
{
    TAILQ_INSERT_TAIL(&stream->host->pipeline->queue, stream, queued);
}

static void on_job_done(uv_work_t *work, int status)
{
    struct job *job = work->data;
    struct stream *stream = job->stream;
    struct pipeline *pipeline = stream->host->pipeline;
    size_t worker_bytes = worker_held(job->worker);

    (void)status;
    job_commit(job);
    job->stream = NULL;
    job->since_ms = 0;
    pipeline->jobs_running--;
    if (pipeline->big_stream == stream && job->run.end == WORK_FULL) {
        worker_bytes = job->worker_bytes;          /* the tree stays, and is counted already */
    } else {
        stream->big = job->run.end == WORK_BIG;
        if (pipeline->big_stream == stream)
            big_give(pipeline);
    }
    budget_give(&pipeline->budget, job->worker_bytes);
    budget_take(&pipeline->budget, worker_bytes);
    pipeline->baseline += worker_bytes - job->worker_bytes;
    job->worker_bytes = worker_bytes;

    if (job->run.end == WORK_ALL || pipeline->state != PIPELINE_RUNNING)
        stream_give_back(stream);
    else
        stream_queue(stream);
    for (uint32_t i = 0; i < pipeline->outlet_count && pipeline->state <= PIPELINE_STOPPING_SOURCES; i++)
        outlet_pump(pipeline->outlets[i]);
    pipeline_flow(pipeline);
    pipeline_work(pipeline);
    if (pipeline->state == PIPELINE_STOPPING_SOURCES)
        pipeline_stop_on(pipeline);
}

static struct job *job_free(struct pipeline *pipeline)
{
    for (uint32_t i = 0; i < pipeline->job_count; i++)
        if (pipeline->jobs[i].stream == NULL)
            return &pipeline->jobs[i];
    return NULL;
}

static void job_start(struct pipeline *pipeline, struct job *job, struct stream *stream)
{
    const struct chunk *chunk = stream->chunk;
    const struct chunk_message *message = chunk->message_count > 0 ? &chunk->messages[stream->chunk_message] : NULL;
    size_t at = stream->chunk_at;

    job->stream = stream;
    job->message = stream->chunk_message;
    job->run = (struct work){
        .plan = &stream->host->plan, .data = chunk->data + at, .size = (message ? message->end : chunk->size) - at,
        .offset = message ? at - message_begin(chunk, job->message) : stream->position, .word = stream->word,
        .skip = stream->skip, .blamed = stream->blamed, .received_ms = wall_ms(), .final = chunk->final || message,
        .whole = message != NULL, .place = message ? message->number : 0, .big_allowed = stream->big,
    };
    if (stream->big)
        big_take(pipeline, stream);
    job->since_ms = now_ms(pipeline);
    pipeline->jobs_running++;
    job->work.data = job;
    uv_queue_work(pipeline->conf.loop, &job->work, on_job_work, on_job_done);
}

/* Starts what may start. Streams with a big record wait for room, and the flow closes behind them so that there will be
 * some; the others go on as long as it is open. */
static void pipeline_work(struct pipeline *pipeline)
{
    struct stream *stream, *next;
    struct job *job;
    bool big_waits = false;

    for (stream = TAILQ_FIRST(&pipeline->queue); stream != NULL; stream = next) {
        next = TAILQ_NEXT(stream, queued);
        if (pipeline->state != PIPELINE_RUNNING) {
            TAILQ_REMOVE(&pipeline->queue, stream, queued);
            stream_give_back(stream);
            continue;
        }
        if (stream->big && !big_fits(pipeline, stream)) {
            big_waits = true;
            continue;
        }
        if ((!pipeline->flow_open && !stream->big) || (job = job_free(pipeline)) == NULL)
            continue;
        TAILQ_REMOVE(&pipeline->queue, stream, queued);
        job_start(pipeline, job, stream);
    }
    pipeline->big_waits = big_waits;
    if (big_waits && pipeline->flow_open)
        pipeline_flow(pipeline);
}

void stream_offer(struct stream *stream, struct chunk *chunk)
{
    struct pipeline *pipeline = stream->host->pipeline;

    assert(stream->chunk == NULL && !stream->closed && chunk->offset >= stream->position);
    assert(chunk->message_count > 0 || chunk->offset == stream->position);
    stream->position = chunk->offset;
    memset(chunk->data + chunk->size, 0, JSON_PADDING);
    stream->chunk = chunk;
    stream->chunk_at = 0;
    stream->chunk_message = 0;
    pipeline->chunks_out++;
    stream_queue(stream);
    pipeline_work(pipeline);
    pipeline_flow(pipeline);
}

/* ---- Flow ---- */

/* At three quarters of the budget the flow is closed, at half of it it opens again. What the sources keep to know their
 * streams takes from that room, but never all: sources that know too much for the budget go on, in more memory than they
 * should have. */
static void pipeline_set_marks(struct pipeline *pipeline)
{
    struct budget *budget = &pipeline->budget;
    size_t upper = budget->total / 4 * 3, room = budget->total / 8;

    if (pipeline->kept + room < upper)
        room = upper - pipeline->kept;
    budget->upper = pipeline->kept + room;
    budget->lower = pipeline->kept + room / 3 * 2;
}

static void pipeline_flow(struct pipeline *pipeline)
{
    const struct budget *budget = &pipeline->budget;
    /* Chunks that wait for the flow to open must not be what keeps it closed, not even together with what sinks in trouble
     * have in flight: that may stay for ever, and the other sinks would wait for it. */
    bool only_chunks = batches_are_out(pipeline) && pipeline->big_stream == NULL;

    if (pipeline->big_waits)                       /* for what is in batches: they need not be full to leave */
        for (uint32_t i = 0; i < pipeline->outlet_count; i++)
            if (outlet_has_open(pipeline->outlets[i]))
                outlet_flush(pipeline->outlets[i]);
    if (pipeline->flow_open && (budget->held >= budget->upper || pipeline->big_waits)) {
        pipeline->flow_open = false;
    } else if (!pipeline->flow_open && !pipeline->big_waits && (budget->held <= budget->lower || only_chunks)) {
        pipeline->flow_open = true;
        for (uint32_t i = 0; i < pipeline->host_count && pipeline->state == PIPELINE_RUNNING; i++)
            pipeline->hosts[i].settings->type->on_flow(pipeline->hosts[i].self);
    }
}

void source_reserve(struct source_host *host, size_t size)
{
    budget_take(&host->pipeline->budget, size);
}

void source_keep(struct source_host *host, ptrdiff_t size)
{
    struct pipeline *pipeline = host->pipeline;

    pipeline->kept += (size_t)size;
    pipeline->baseline += (size_t)size;
    budget_take(&pipeline->budget, (size_t)size);             /* or give: sizes wrap */
    pipeline_set_marks(pipeline);
}

bool flow_is_open(const struct source_host *host)
{
    return host->pipeline->flow_open && host->pipeline->state == PIPELINE_RUNNING;
}

static void pipeline_once_done(struct pipeline *pipeline);

static void on_outlet_moved(void *arg)
{
    struct pipeline *pipeline = arg;

    if (pipeline->state != PIPELINE_RUNNING)
        return;
    pipeline_flow(pipeline);
    pipeline_work(pipeline);
    pipeline_once_done(pipeline);
}

/* ---- What sources ask ---- */

uv_loop_t *source_loop(struct source_host *host)
{
    return host->pipeline->conf.loop;
}

const char *source_name(const struct source_host *host)
{
    return host->settings->name;
}

uint64_t source_now_ms(struct source_host *host)
{
    return now_ms(host->pipeline);
}

struct http *source_http(struct source_host *host)
{
    return host->pipeline->http;
}

bool source_is_once(const struct source_host *host)
{
    return host->pipeline->conf.once;
}

void source_trouble(struct source_host *host)
{
    host->troubles++;
}

void source_each_cursor(struct source_host *host, void (*each)(void *arg, const struct cursor *cursor), void *arg)
{
    struct pen_error err = { 0 };

    if (cursors_each(host->pipeline->cursors, host->settings->name, each, arg, &err) < 0)
        log_line(LOG_ERROR, "cursors cannot be read: what they covered will be read again", "source",
                 host->settings->name, "error", err.text, NULL);
}

void source_drained(struct source_host *host)
{
    host->drained = true;
    pipeline_once_done(host->pipeline);
}

/* Replay: all read, then all at its end. */
static void pipeline_once_done(struct pipeline *pipeline)
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
static void pipeline_stop_on(struct pipeline *pipeline)
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
    pipeline->job_count = count < 1 ? 1 : count > WORKERS_MAX ? WORKERS_MAX : (uint32_t)count;
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
    pipeline->started_ms = wall_ms();
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

/* ---- What there is to see ---- */

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
    source->newest_ms = host->newest_ticks > 0 ? (uint64_t)(host->newest_ticks / TICKS_PER_MS) : STATUS_NONE;
}

static void host_see(const struct source_host *host, struct status_source *source)
{
    const struct source_type *type = host->settings->type;

    *source = (struct status_source){
        .name = host->settings->name, .type = type->name, .records = host->counts.records, .events = host->counts.events,
        .unknown = host->counts.unknown, .malformed = host->counts.malformed, .partly = host->counts.partly,
        .oversize = host->counts.oversize, .cut = host->counts.cut, .bytes = host->bytes, .streams = host->streams.count,
        .troubles = host->troubles,
    };
    host_see_lag(host, source);
    if (type->numbers != NULL && host->self != NULL)
        source->number_count = type->numbers(host->self, source->numbers);
    assert(source->number_count <= SOURCE_NUMBERS_MAX);
}

static void route_see(const struct outlet *outlet, uint32_t row, const char *source, struct status *status)
{
    const struct ledger_row *ledger = outlet_ledger(outlet, row);
    struct status_route *route = &status->routes[status->route_count];

    if (source == NULL && ledger_taken(ledger) == 0)
        return;
    status->route_count++;
    *route = (struct status_route){
        .source = source != NULL ? source : STATUS_EARLIER, .sink = outlet_name(outlet), .taken = ledger_taken(ledger),
        .delivered = ledger->count[LEDGER_DELIVERED], .dead = ledger->count[LEDGER_DEAD],
        .dropped = ledger->count[LEDGER_DROPPED], .held = ledger->count[LEDGER_HELD],
        .spooled = ledger->count[LEDGER_SPOOLED],
    };
}

/* An outlet, and where its messages are: of the sources it takes, and what an earlier life left. */
static void pipeline_see_outlet(const struct pipeline *pipeline, const struct outlet *outlet, struct status *status)
{
    struct status_sink *sink = &status->sinks[status->sink_count++];
    uint32_t first = status->route_count;

    *sink = (struct status_sink){ 0 };
    outlet_see(outlet, sink);
    for (uint32_t h = 0; h < pipeline->host_count; h++)
        if (outlet_settings(outlet)->source_mask[h / 64] >> (h % 64) & 1)
            route_see(outlet, h, pipeline->hosts[h].settings->name, status);
    route_see(outlet, pipeline->settings->source_count, NULL, status);
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
        .now_ms = wall_ms(), .started_ms = pipeline->started_ms, .memory_held = pipeline->budget.held,
        .memory_peak = pipeline->budget.peak, .memory_budget = pipeline->budget.total,
        .flow = pipeline->flow_open ? OUTLET_OPEN : OUTLET_PAUSED, .jobs = pipeline->jobs_running,
        .workers = pipeline->job_count, .unsaved = pipeline->saver.trouble,
        .sources = calloc(pipeline->host_count + 1u, sizeof(*status->sources)),
        .sinks = calloc(pipeline->outlet_count + 1u, sizeof(*status->sinks)),
        .routes = calloc((size_t)pipeline->outlet_count * (pipeline->host_count + 1u) + 1, sizeof(*status->routes)),
    };
    if (status->sources == NULL || status->sinks == NULL || status->routes == NULL)
        abort();
    for (uint32_t h = 0; h < pipeline->host_count; h++)
        host_see(&pipeline->hosts[h], &status->sources[status->source_count++]);
    for (uint32_t o = 0; o < pipeline->outlet_count; o++)
        pipeline_see_outlet(pipeline, pipeline->outlets[o], status);
}

uint64_t pipeline_busy_since(const struct pipeline *pipeline)
{
    uint64_t since = pipeline->saver.since_ms;

    for (uint32_t i = 0; i < pipeline->job_count; i++)
        if (pipeline->jobs[i].since_ms > 0 && (since == 0 || pipeline->jobs[i].since_ms < since))
            since = pipeline->jobs[i].since_ms;
    for (uint32_t i = 0; i < pipeline->outlet_count; i++) {
        uint64_t busy = outlet_busy_since(pipeline->outlets[i]);

        if (busy > 0 && (since == 0 || busy < since))
            since = busy;
    }
    return since;
}

/* Sum of one place over all rows and sinks. */
static uint64_t pipeline_sum(const struct pipeline *pipeline, enum ledger_place place)
{
    uint64_t sum = 0;

    for (uint32_t o = 0; o < pipeline->outlet_count; o++)
        for (uint32_t row = 0; row <= pipeline->settings->source_count; row++)
            sum += outlet_ledger(pipeline->outlets[o], row)->count[place];
    return sum;
}

bool pipeline_all_delivered(const struct pipeline *pipeline)
{
    return pipeline_sum(pipeline, LEDGER_HELD) == 0 && pipeline_sum(pipeline, LEDGER_SPOOLED) == 0 &&
        pipeline_sum(pipeline, LEDGER_DEAD) == 0;
}
