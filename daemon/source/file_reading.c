/*
 * file_reading.c - one reading: what the worker is told, what it found, and what becomes of the chunk.
 *
 * The reader says where the file is now, whether its bytes are still ours, and what comes next. From that, in this order,
 * follow the file's place, its content, its end; then the chunk is offered, and on_chunk says how much of it was taken.
 */
#include "daemon/source/file.h"

#include "daemon/base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLICE_TURNS 64               /* chunks a file may read while others wait to be opened */
#define SETTLE_MS 5000               /* a file that got shorter may be in the middle of being written again */

struct file_job {
    uv_work_t work;
    struct file *file;
    char *hint;
    struct reading reading;
};

static void on_read_done(uv_work_t *work, int status);

static void on_read(uv_work_t *work)
{
    struct file_job *job = work->data;

    reader_run(&job->reading);
}

static void job_free(struct file_job *job)
{
    free(job->reading.new_path);
    free(job->hint);
    free(job);
}

void file_read(struct file *file)
{
    struct source_file *source = file->source;
    struct file_job *job = calloc(1, sizeof *job);
    size_t capacity = file->want > source->chunk ? file->want : source->chunk;

    if (file->chunk == NULL) {
        file->chunk = chunk_take(source->host, capacity);
        file->chunk->size = 0;
        file->chunk->offset = file_position(file);
    }
    if (file->reader == NULL) {
        source->open_count++;
        file->turns = 0;
    }
    file->turns++;
    source->busy++;
    file->state = FILE_READING;
    *job = (struct file_job){ .file = file, .hint = file->hint, .reading = {
        .path = file->path, .hint = file->hint, .dev = file->dev, .ino = file->ino, .prints = file->prints,
        .position = file_position(file), .check = file->dirty && (!file->lost || file->hint != NULL), .skip = file->skip,
        .known_size = file->lost && !file->final ? file->end_size : UNKNOWN_SIZE,
        .reader = file->reader, .data = file->chunk->data, .have = file->chunk->size, .capacity = file->chunk->capacity,
    } };
    job->work.data = job;
    file->hint = NULL;
    file->dirty = false;
    uv_queue_work(source_loop(source->host), &job->work, on_read, on_read_done);
}

/* ---- Where the file is ----------------------------------------------------------------------------------------- */

static void file_log(const struct file *file, enum log_level level, const char *msg)
{
    log_line(level, msg, "source", source_name(file->source->host), "path", file->path, "position",
             log_number(file->stream != NULL ? stream_position(file->stream) : file->position), NULL);
}

/* Whatever was at this position before, it is another file's now: what we have of it is safe, or will be. */
static void file_begin_anew(struct file *file)
{
    if (file->stream != NULL || file->position > 0) {
        file_log(file, LOG_NOTE, "file was written anew: reading it from its start");
        file_save(file);
        stream_close(file->stream, true);
    }
    file->stream = NULL;
    file->key = file_key_new();
    file->position = file->word = 0;
    file->prints = (struct prints){ 0 };
    file->end_size = UNKNOWN_SIZE;
    file->is_short = false;
}

static void file_gone(struct file *file)
{
    if (file->gone == 0)
        file->gone = time(NULL);
    file->lost = file->leaving = file->final = false;
    file->end_size = UNKNOWN_SIZE;
    file_save(file);
}

/* Of a replay's files, which were found, or begun by an earlier start, each is read to its end, or it is said. */
static void file_note_missing(struct file *file)
{
    if (!source_is_once(file->source->host) || file->gone != 0 || file->end_size != UNKNOWN_SIZE)
        return;
    file_log(file, LOG_WARN, "a file is gone before all of it was read");
    source_trouble(file->source->host);
}

static void file_lose(struct file *file)
{
    if (!file->lost)
        file->quiet_ms = source_now_ms(file->source->host);
    file->lost = file->leaving = true;
    file_wait(file);
}

static void file_move(struct file *file, const char *path)
{
    file_take_path(file, path);
    file->lost = false;
    file->leaving = true;
    file->quiet_ms = source_now_ms(file->source->host);
    file_wait(file);
    file_save(file);
}

/* True: goes on. Paths that turn out to lead to other files than we thought are looked at anew. */
static bool file_place(struct file *file, const struct reading *reading)
{
    struct source_file *source = file->source;
    char *path = strdup(file->path);
    bool held = file->by_path;
    enum place place = reading->place;
    struct file *rival = file_by_path(source, file->path);

    /* What begins like ours belongs to somebody else already: our bytes are safe there, and we are nowhere. */
    if (place == PLACE_REPLACED && rival != NULL && rival != file)
        place = PLACE_GONE;
    switch (place) {
    case PLACE_SAME:
        if (file->gone != 0)
            file_take_inode(file, file->dev, file->ino);
        file->gone = 0;
        break;
    case PLACE_MOVED:
        rival = file_by_inode(source, &(struct stat){ .st_dev = file->dev, .st_ino = file->ino });
        if (rival != NULL && rival != file && strcmp(rival->path, reading->new_path) == 0) {
            file_drop_path(file);
            file_gone(file);
            break;
        }
        file->gone = 0;
        rival = file_by_path(source, reading->new_path);
        file_move(file, reading->new_path);
        file_take_inode(file, file->dev, file->ino);
        if (rival != NULL && rival != file)
            file_check(rival);
        break;
    case PLACE_REPLACED:
        if (reading->prints.head_size > 0 && reading->path_st.st_ino != file->ino)
            file_log(file, LOG_NOTE, "file was replaced by one that begins with all we have read: reading on in it");
        file->gone = 0;
        file->lost = file->leaving = false;
        file_take_inode(file, reading->path_st.st_dev, reading->path_st.st_ino);
        file_save(file);
        break;
    case PLACE_LOST:
        file_drop_path(file);
        file_lose(file);
        break;
    case PLACE_GONE:
        if (reading->place == PLACE_GONE)
            file_note_missing(file);
        if (reading->path_taken)
            file_drop_path(file);
        file_gone(file);
        break;
    }
    /* The name that was ours may have a new file, made before or since we looked: events about it were taken for ours. */
    if (held && file_by_path(source, path) == NULL)
        finder_look(source->finder, path);
    /* Our inode was seen there, but it is not our file: somebody else's, then, and not ours to be asked for again. A file
     * that is only gone keeps its inode, since one may look between two renames and find it nowhere. */
    if (reading->hint != NULL && (place == PLACE_LOST || place == PLACE_GONE)) {
        file_drop_inode(file);
        finder_look(source->finder, reading->hint);
    } else if (reading->hint != NULL && place != PLACE_SAME && file_by_path(source, reading->hint) == NULL) {
        finder_look(source->finder, reading->hint);
    }
    free(path);
    return file->gone == 0;
}

/* ---- What it holds --------------------------------------------------------------------------------------------- */

static void file_fail(struct file *file, const struct reading *reading)
{
    if (!file->failed) {
        log_line(LOG_WARN, "cannot read a file: tried again with every rescan", "source", source_name(file->source->host),
                 "path", file->path, "error", uv_strerror(reading->trouble), NULL);
        source_trouble(file->source->host);
    }
    file_set_failed(file, true);
    file->end_size = UNKNOWN_SIZE;
}

/* Shorter than what was read: either truncated, or a copy of it is being written over it. Time tells. */
static void file_short(struct file *file, const struct stat *st)
{
    uint64_t now_ms = source_now_ms(file->source->host);
    uint64_t settle_ms = file->source->final_after_ms < SETTLE_MS ? file->source->final_after_ms : SETTLE_MS;

    if (!file->is_short || file->short_size != (uint64_t)st->st_size) {
        file->is_short = true;
        file->short_size = (uint64_t)st->st_size;
        file->quiet_ms = now_ms;
    }
    if (source_is_once(file->source->host) || file->lost || now_ms - file->quiet_ms >= settle_ms) {
        file_begin_anew(file);
        file->again = true;
    } else {
        file_wait(file);
    }
}

/* A damaged archive is as long as its good part, until it changes. */
static void file_damaged(struct file *file, struct reading *reading)
{
    log_line(LOG_WARN, "an archive is damaged: it is read up to there", "source", source_name(file->source->host), "path",
             file->path, "position", log_number(file_position(file)), "error", reading->err.text, NULL);
    source_trouble(file->source->host);
    reading->trouble = 0;
    reading->end = true;
}

/* Of a file that is still written the rest may come; of a replay's, that was all. It is no end that the row may know: whoever
 * tries again should hear of it again. */
static void file_note_cut(struct file *file, const struct reading *reading)
{
    if (!source_is_once(file->source->host) || !reading->end || unpack_complete(file->reader->unpack))
        return;
    file_set_failed(file, true);
    file->end_size = UNKNOWN_SIZE;
    if (reading->err.code != 0)      /* damaged: it was said */
        return;
    log_line(LOG_WARN, "an archive ends in its middle: it is read up to there", "source", source_name(file->source->host), "path",
             file->path, "position", log_number(file_position(file)), NULL);
    source_trouble(file->source->host);
}

static void file_skipped(struct file *file, uint64_t position)
{
    file->skip = false;
    file->position = position;
    reader_note(file->reader, "", 0, position, &file->prints);
    file_save(file);
}

static void file_offer(struct file *file, const struct reading *reading)
{
    struct chunk *chunk = file->chunk;

    file->unnoted = true;
    if (file->stream == NULL)
        file_open_stream(file);
    chunk->size = reading->size;
    chunk->offset = stream_position(file->stream);
    chunk->final = reading->end && !reading->changed && file->final && unpack_complete(file->reader->unpack);
    file->at_end = reading->end;
    stream_set_end(file->stream, reader_is_packed(file->reader) ? 0 : (uint64_t)reading->st.st_size);
    file->state = FILE_OUT;
    stream_offer(file->stream, chunk);
}

/* At its end, and all of it offered: what is left is unfinished, or two brackets. */
static void file_ended(struct file *file)
{
    if (file->final && !source_is_once(file->source->host)) {
        file->final = file->leaving = false;
        if (file->lost) {
            file_close_reader(file);
            file_gone(file);
        }
    }
    file_idle(file);
}

static void file_take_reading(struct file *file, struct reading *reading)
{
    struct source_file *source = file->source;

    if (reading->trouble == 0 || reading->size > reading->have)
        file_set_failed(file, false);
    if (!file_place(file, reading)) {
        file_close_reader(file);
        file_idle(file);
        return;
    }
    if (reading->content == CONTENT_SHORT) {
        file_short(file, &reading->st);
        file_idle(file);
        return;
    }
    file->is_short = false;
    if (reading->content == CONTENT_OTHER) {
        file_begin_anew(file);
        file->again = true;
        file_idle(file);
        return;
    }
    if (file->skip)
        file_skipped(file, reading->skipped_to);
    /* What comes later shows as another size or time. A file that still grows is not over. */
    if (file->final && !source_is_once(source->host) && !source->closing &&
        file->end_size != (uint64_t)reading->st.st_size)
        file->final = false;
    if (reading->end || reading->skip) {
        if (file->end_size != (uint64_t)reading->st.st_size)
            file->quiet_ms = source_now_ms(source->host);
        file->end_size = reading->changed ? UNKNOWN_SIZE : (uint64_t)reading->st.st_size;
        file->end_ctime = file_ctime(&reading->st);
    }
    if (reading->changed)
        file->again = true;
    file_note_cut(file, reading);
    if (reader_is_packed(file->reader) && !file->packed && !reading->end) {
        if (source->packed_count >= PACKED_MAX) {
            file_park(file);
            return;
        }
        file->packed = true;
        source->packed_count++;
    }
    if (reading->size > 0) {
        source->busy++;
        file_offer(file, reading);
    } else {
        file_save(file);
        file_ended(file);
    }
}

static void on_read_done(uv_work_t *work, int status)
{
    struct file_job *job = work->data;
    struct file *file = job->file;
    struct source_file *source = file->source;
    struct reading *reading = &job->reading;

    if (file->reader == NULL && reading->reader == NULL)
        source->open_count--;
    file->reader = reading->reader;
    source->busy--;
    file->state = FILE_OUT;          /* neither idle nor ready until it is decided */
    if (source->closing) {
        job_free(job);
        file_source_note_at_rest(source);
        return;
    }
    assert(status == 0);
    if (reading->trouble < 0 && reading->size > reading->have) {
        /* Damage behind good bytes: they go first, and the damage is met again. */
        reading->end = false;
        file_take_reading(file, reading);
    } else if (reading->trouble == UV_EINVAL && reading->reader != NULL) {
        file_damaged(file, reading);
        file_take_reading(file, reading);
    } else if (reading->trouble < 0) {
        file_fail(file, reading);
        file_close_reader(file);
        file_idle(file);
    } else {
        file_take_reading(file, reading);
    }
    job_free(job);
    file_source_kick(source);
}

/* ---- What became of the chunk ---------------------------------------------------------------------------------- */

void file_source_on_chunk(void *self, void *stream_self, struct chunk *chunk, size_t consumed)
{
    struct source_file *source = self;
    struct file *file = stream_self;
    size_t rest = chunk->size - consumed;

    assert(file->state == FILE_OUT && file->chunk == chunk && consumed <= chunk->size);
    source->busy--;
    file->unnoted = false;
    if (consumed > 0)
        reader_note(file->reader, chunk->data, consumed, chunk->offset, &file->prints);
    assert(stream_position(file->stream) == chunk->offset + consumed);
    file->want = consumed == 0 && !file->at_end ? chunk->capacity * 2 : 0;
    if (chunk->unseen)               /* it reaches to an end that we have not: the row must not know of one */
        file->end_size = UNKNOWN_SIZE;
    if (consumed > 0 || file->at_end)
        file_save(file);
    if (source->closing) {
        file_drop_chunk(file);
        file_source_note_at_rest(source);
        return;
    }
    if (file->at_end) {
        file_ended(file);
        return;
    }
    if (file->packed) {
        /* An archive cannot go back to the rest: it is kept, in a larger chunk if it filled this one. */
        struct chunk *next = file->want > 0 ? chunk_take(source->host, file->want) : chunk;

        memmove(next->data, chunk->data + consumed, rest);
        if (next != chunk)
            chunk_drop(source->host, chunk);
        next->size = rest;
        file->chunk = next;
    } else {
        file_drop_chunk(file);
    }
    file->dirty |= file->again;
    file->again = false;
    if (file->turns >= SLICE_TURNS && !TAILQ_EMPTY(&source->ready_closed) && !file->packed && !file->lost &&
        source->open_count >= source->open_max)
        file_close_reader(file);
    file_ready(file);
}
