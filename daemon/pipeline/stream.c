/*
 * stream.c - see stream.h.
 *
 * tests/model/outlet.pml has the cursor (`cursor`, safe in memory; `pending_cursor`, collected into a transaction with the
 * spool's place; `saved_cursor`, committed) and asks after every save whether all before it is safe.
 */
#include "daemon/pipeline/stream.h"

#include "daemon/base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *copied(const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL)
        abort();
    return copy;
}

/* ---- Streams ---- */

static void stream_unsaved(struct stream *stream)
{
    if (stream->dirty)
        return;
    stream->dirty = true;
    TAILQ_INSERT_TAIL(&stream->list->saver->unsaved, stream, unsaved);
}

void stream_list_init(struct stream_list *list, const char *source, struct saver *saver)
{
    TAILQ_INIT(&list->streams);
    list->count = 0;
    list->source = source;
    list->saver = saver;
}

struct stream *stream_new(struct stream_list *list, const char *name, const struct cursor *cursor)
{
    struct stream *stream = calloc(1, sizeof(*stream));

    if (stream == NULL || asprintf(&stream->name, "%s/%s", list->source, name) < 0)
        abort();
    stream->list = list;
    stream->key = copied(cursor->key);
    stream->attrs = copied(cursor->attrs);
    stream->position = stream->safe_position = cursor->position;
    stream->word = stream->safe_word = cursor->word;
    TAILQ_INIT(&stream->runs);
    TAILQ_INSERT_TAIL(&list->streams, stream, entry);
    list->count++;
    return stream;
}

uint64_t stream_position(const struct stream *stream)
{
    return stream->position;
}

uint64_t stream_safe_position(const struct stream *stream)
{
    return stream->safe_position;
}

bool stream_is_safe(const struct stream *stream, uint64_t *position, uint64_t *word)
{
    if (stream->chunk != NULL || !TAILQ_EMPTY(&stream->runs))
        return false;
    *position = stream->safe_position;
    *word = stream->safe_word;
    return true;
}

void stream_set_attrs(struct stream *stream, const char *attrs)
{
    if (strcmp(stream->attrs, attrs) == 0)
        return;
    free(stream->attrs);
    stream->attrs = copied(attrs);
    stream_unsaved(stream);
}

void stream_set_end(struct stream *stream, uint64_t end)
{
    stream->end = end;
}

void stream_close(struct stream *stream, bool forget)
{
    assert(stream->chunk == NULL);
    stream->closed = true;
    stream->forget = forget;
    stream->self = NULL;
    stream_unsaved(stream);                        /* it is freed by the save after its last run */
}

static void stream_free(struct stream *stream)
{
    struct run *run;

    while ((run = TAILQ_FIRST(&stream->runs)) != NULL) {
        TAILQ_REMOVE(&stream->runs, run, entry);
        free(run);
    }
    TAILQ_REMOVE(&stream->list->streams, stream, entry);
    stream->list->count--;
    if (stream->dirty)
        TAILQ_REMOVE(&stream->list->saver->unsaved, stream, unsaved);
    free(stream->name);
    free(stream->key);
    free(stream->attrs);
    free(stream);
}

void stream_list_free(struct stream_list *list)
{
    struct stream *stream;

    while ((stream = TAILQ_FIRST(&list->streams)) != NULL)
        stream_free(stream);
}

/* ---- Runs ---- */

/* The cursor moves over the unbroken front of released runs. */
static void on_run_released(struct run *released)
{
    struct stream *stream = released->stream;
    struct run *run;

    while ((run = TAILQ_FIRST(&stream->runs)) != NULL && run->holds == 0) {
        TAILQ_REMOVE(&stream->runs, run, entry);
        stream->safe_position = run->position;
        stream->safe_word = run->word;
        free(run);
        stream_unsaved(stream);
    }
}

struct run *stream_run(struct stream *stream)
{
    struct run *run = calloc(1, sizeof(*run));

    if (run == NULL)
        abort();
    *run = (struct run){ .stream = stream, .position = stream->position, .word = stream->word, .holds = 1,
                         .on_released = on_run_released };
    TAILQ_INSERT_TAIL(&stream->runs, run, entry);
    return run;
}

/* ---- Saving ---- */

void saver_init(struct saver *saver)
{
    TAILQ_INIT(&saver->unsaved);
    saver->work.data = saver;
}

static void on_save_work(uv_work_t *work)
{
    struct saver *saver = work->data;

    saver->result = cursors_save(saver->cursors, &saver->change, &saver->err);
}

static void on_save_done(uv_work_t *work, int status)
{
    struct saver *saver = work->data;

    (void)status;
    saver->since_ms = 0;
    if (saver->result == 0) {
        cursor_change_clear(&saver->change);
        saver->trouble = false;
    } else if (!saver->trouble) {
        saver->trouble = true;
        log_line(LOG_ERROR, "cursors cannot be saved; they are kept and tried again: after a crash now, more would repeat",
                 "error", saver->err.text, NULL);
    }
    saver->on_saved(saver->arg);
}

static bool stream_is_at_rest(const struct stream *stream)
{
    return !stream->closed && stream->chunk == NULL && TAILQ_EMPTY(&stream->runs) && stream->skip == 0 &&
        stream->position == stream->safe_position && stream->word == stream->safe_word;
}

static void saver_collect(struct saver *saver)
{
    struct stream *stream, *next;

    for (stream = TAILQ_FIRST(&saver->unsaved); stream != NULL; stream = next) {
        bool at_rest = saver->on_rest != NULL && stream_is_at_rest(stream) && saver->on_rest(stream);
        bool done = at_rest || (stream->closed && TAILQ_EMPTY(&stream->runs));
        struct cursor cursor = { stream->key, stream->attrs, stream->safe_position, stream->safe_word };

        next = TAILQ_NEXT(stream, unsaved);
        cursor_change_row(&saver->change, stream->list->source, &cursor, done && stream->forget);
        TAILQ_REMOVE(&saver->unsaved, stream, unsaved);
        stream->dirty = false;
        if (done)
            stream_free(stream);
    }
    saver->collect(saver->arg, &saver->change);
}

bool saver_is_pending(const struct saver *saver)
{
    return saver->change.row_count > 0 || saver->change.place_count > 0;
}

void saver_save(struct saver *saver, bool last)
{
    if (saver->since_ms > 0)
        return;
    if (last || !saver_is_pending(saver))
        saver_collect(saver);
    if (!saver_is_pending(saver))
        return;
    saver->since_ms = uv_now(saver->loop);
    uv_queue_work(saver->loop, &saver->work, on_save_work, on_save_done);
}

void saver_free(struct saver *saver)
{
    cursor_change_clear(&saver->change);
}
