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
#include "daemon/pipeline/pipeline_inside.h"

#include "daemon/base/buf.h"
#include "daemon/base/log.h"
#include "daemon/pipeline/pace.h"

#include <assert.h>
#include <string.h>

#define FAULT_LOG_MS 10000u
#define TICKS_PER_DAY (24 * 60 * 60 * 1000LL * PIPELINE_TICKS_PER_MS)

/* ---- Commit ---- */

static void host_log_faults(struct source_host *host, const struct stream *stream, const struct work *run)
{
    uint64_t now = pipeline_now_ms(host->pipeline);

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
    host->counts.outside += run->counts.outside;
    host->counts.cut += run->counts.cut;
}

/* An event without a time of its own bears its arrival, and a clock a day ahead is wrong: neither tells how far we are. */
static void host_note_time(struct source_host *host, const struct work *work)
{
    const struct work_messages *messages = host->plan.schema_count > 0 ? &work->messages[0] : NULL;
    int64_t received = (int64_t)work->received_ms * PIPELINE_TICKS_PER_MS;

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

    for (uint32_t o = 0; o < pipeline->sink_count; o++) {
        struct outlet *outlet = pipeline->sinks[o].outlet;
        const struct sink_settings *settings = outlet_settings(outlet);

        if (outlet_schema(outlet) != schema || !host_goes_to(host, outlet))
            continue;
        for (size_t i = 0; i < messages->count; i++) {
            const struct work_message *message = &messages->index[i];
            struct batch_origin origin = { run, stream->name, host->row, message->position, message->ticks };

            if (settings->kind_mask >> message->kind & 1)
                outlet_add(outlet, message->kind, messages->bytes.data + message->offset, message->size, &origin);
            else
                outlet_drop(outlet, host->row, 1);
        }
        outlet_drop(outlet, host->row, messages->outside);
    }
}

static void job_commit(struct job *job)
{
    struct stream *stream = job->stream;
    struct source_host *host = stream->host;
    struct work *work = &job->run;
    size_t at = (size_t)(work->data - stream->chunk->data) + work->consumed;
    struct run *run;

    pace_spend(host->pipeline->conf.pace, at - stream->chunk_at, work->counts.records);
    host->bytes += at - stream->chunk_at;          /* of all messages of the job */
    stream->chunk_at = at;
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
 * way, or again as far out as they will go. */
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
        return pipeline->big_stream == stream &&
            (batch_bytes(pipeline) < pipeline->budget.total / 8 || batches_are_out(pipeline));
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

static void stream_give_back(struct stream *stream, bool seen)
{
    struct source_host *host = stream->host;
    struct chunk *chunk = stream->chunk;

    chunk->unseen = !seen;
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
        stream_give_back(stream, job->run.end == WORK_ALL);
    else
        stream_queue(stream);
    for (uint32_t i = 0; i < pipeline->sink_count && pipeline->state <= PIPELINE_STOPPING_SOURCES; i++)
        outlet_pump(pipeline->sinks[i].outlet);
    pipeline_flow(pipeline);
    pipeline_work(pipeline);
    if (pipeline->state == PIPELINE_STOPPING_SOURCES)
        pipeline_stop_on(pipeline);
    change_kick(pipeline);
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
        .skip = stream->skip, .blamed = stream->blamed, .received_ms = pipeline_wall_ms(), .final = chunk->final || message,
        .whole = message != NULL, .place = message ? message->number : 0, .big_allowed = stream->big,
    };
    if (stream->big)
        big_take(pipeline, stream);
    job->since_ms = pipeline_now_ms(pipeline);
    pipeline->jobs_running++;
    job->work.data = job;
    uv_queue_work(pipeline->conf.loop, &job->work, on_job_work, on_job_done);
}

/* Starts what may start. Streams with a big record wait for room, and the flow closes behind them so that there will be
 * some; the others go on as long as it is open. */
void pipeline_work(struct pipeline *pipeline)
{
    struct stream *stream, *next;
    struct job *job;
    bool big_waits = false;

    for (stream = TAILQ_FIRST(&pipeline->queue); stream != NULL; stream = next) {
        next = TAILQ_NEXT(stream, queued);
        if (pipeline->state != PIPELINE_RUNNING || stream->host->leaving) {
            TAILQ_REMOVE(&pipeline->queue, stream, queued);
            stream_give_back(stream, false);
            continue;
        }
        if (pipeline->quiet && stream != pipeline->big_stream)
            continue;
        if (stream->big && !big_fits(pipeline, stream)) {
            big_waits = true;
            continue;
        }
        if ((!pipeline->flow_open && !stream->big) || !pace_may_go(pipeline->conf.pace) || (job = job_free(pipeline)) == NULL)
            continue;
        TAILQ_REMOVE(&pipeline->queue, stream, queued);
        job_start(pipeline, job, stream);
    }
    pipeline->big_waits = big_waits;
    if (big_waits && pipeline->flow_open)
        pipeline_flow(pipeline);
}

void pipeline_recall(struct pipeline *pipeline)
{
    struct stream *stream;

    do {
        TAILQ_FOREACH(stream, &pipeline->queue, queued)
            if (stream->host->leaving)
                break;
        if (stream != NULL) {
            TAILQ_REMOVE(&pipeline->queue, stream, queued);
            stream_give_back(stream, false);
        }
    } while (stream != NULL);
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
void pipeline_set_marks(struct pipeline *pipeline)
{
    struct budget *budget = &pipeline->budget;
    size_t upper = budget->total / 4 * 3, room = budget->total / 8;

    if (pipeline->kept + room < upper)
        room = upper - pipeline->kept;
    budget->upper = pipeline->kept + room;
    budget->lower = pipeline->kept + room / 3 * 2;
}

void pipeline_flow(struct pipeline *pipeline)
{
    const struct budget *budget = &pipeline->budget;
    /* Chunks that wait for the flow to open must not be what keeps it closed, not even together with what sinks in trouble
     * have in flight: that may stay for ever, and the other sinks would wait for it. */
    bool only_chunks = batches_are_out(pipeline) && pipeline->big_stream == NULL;

    if (pipeline->big_waits)                       /* for what is in batches: they need not be full to leave */
        for (uint32_t i = 0; i < pipeline->sink_count; i++)
            if (outlet_has_open(pipeline->sinks[i].outlet))
                outlet_flush(pipeline->sinks[i].outlet);
    if (pipeline->flow_open && (budget->held >= budget->upper || pipeline->big_waits)) {
        pipeline->flow_open = false;
    } else if (!pipeline->flow_open && !pipeline->big_waits && (budget->held <= budget->lower || only_chunks)) {
        pipeline->flow_open = true;
        for (uint32_t i = 0; i < pipeline->host_count && pipeline->state == PIPELINE_RUNNING; i++)
            if (!pipeline->hosts[i]->leaving)
                pipeline->hosts[i]->settings->type->on_flow(pipeline->hosts[i]->self);
    }
}
