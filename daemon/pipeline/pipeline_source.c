/*
 * pipeline_source.c - what the pipeline offers a source, as source.h has it: chunks, streams, memory, a few facts.
 */
#include "daemon/pipeline/pipeline_inside.h"

#include "daemon/base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

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

void source_each_cursor(struct source_host *host, void (*each)(void *arg, const struct cursor *cursor), void *arg)
{
    struct pen_error err = { 0 };

    if (cursors_each(host->pipeline->cursors, host->settings->name, each, arg, &err) < 0)
        log_line(LOG_ERROR, "cursors cannot be read: what they covered will be read again", "source",
                 host->settings->name, "error", err.text, NULL);
}

/* ---- Memory and flow ---- */

void source_reserve(struct source_host *host, size_t size)
{
    host->reserved += size;
    budget_take(&host->pipeline->budget, size);
}

void source_keep(struct source_host *host, ptrdiff_t size)
{
    struct pipeline *pipeline = host->pipeline;

    host->kept += (size_t)size;
    pipeline->kept += (size_t)size;
    pipeline->baseline += (size_t)size;
    budget_take(&pipeline->budget, (size_t)size);             /* or give: sizes wrap */
    pipeline_set_marks(pipeline);
}

bool flow_is_open(const struct source_host *host)
{
    return host->pipeline->flow_open && host->pipeline->state == PIPELINE_RUNNING && !host->leaving;
}

/* ---- Facts and news ---- */

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
    return pipeline_now_ms(host->pipeline);
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

void source_is_ailing(struct source_host *host, bool ailing)
{
    host->ailing = ailing;
}

const struct window *source_window(const struct source_host *host)
{
    return host->pipeline->conf.window;
}

void source_drained(struct source_host *host)
{
    host->drained = true;
    pipeline_once_done(host->pipeline);
}
