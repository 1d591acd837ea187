/*
 * spool_read.c - the oldest untaken frame comes back as a batch; what is damaged before it is passed over, and counted.
 *
 * On the loop it is said where to look; on the pool the next frame that is whole, and the segment's own, is found and
 * loaded; on the loop again the segment's reading moves behind it. Trouble of the disk or the process, and a key that is
 * missing, are no damage: nothing moves, and the next reading begins at the same place.
 */
#include "daemon/disk/spool_queue.h"

#include "daemon/base/log.h"
#include "daemon/disk/io.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

/* So long a place of the disk that gives errors is tried again before it is given up. A bad sector holds the queue for this
 * time, once; a disk that is away comes back within it, or takes the whole state folder with it. */
#define READ_PATIENCE_S 300

struct spool_read {
    struct spool *spool;
    struct segment *segment;
    uint64_t number, at, end;
    uint64_t passed, count;                        /* messages of the segment: before `at`, and before `end` */
    const struct keys *keys;
    int dir_fd;
    bool over;                                     /* pass over what the disk does not give back */
    /* out */
    int trouble;                                   /* negative: nothing was learned */
    bool gone;                                     /* the file is not there */
    bool clean;                                    /* no byte was passed over */
    uint32_t alien;
    struct segment_header header;
    struct segment_frame frame;
    enum segment_loaded loaded;
    struct segment_payload payload;
};

/* ---- On the loop: where to read ---- */

/* Of the clock that nobody sets; from 1. */
static int64_t now_s(void)
{
    struct timespec now = { 0 };

    (void)io->clock(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1;
}

struct spool_read *spool_read_new(struct spool *spool)
{
    struct spool_read *read;
    struct segment *segment;

    assert(!spool->reading);
    TAILQ_FOREACH(segment, &spool->segments, entry)
        if (segment_untaken(segment) > 0)
            break;
    if (segment == NULL)
        return NULL;
    read = calloc(1, sizeof(*read));
    if (read == NULL)
        abort();
    *read = (struct spool_read){
        .spool = spool, .segment = segment, .number = segment->number, .at = segment->read_at,
        .end = segment->rows != NULL ? segment->size : UINT64_MAX, .passed = segment->passed, .count = segment->count,
        .keys = spool->conf.keys, .dir_fd = spool->dir_fd,
        .over = segment->trouble_since_s > 0 && now_s() - segment->trouble_since_s >= READ_PATIENCE_S,
    };
    spool->reading = true;
    return read;
}

/* ---- On the pool ---- */

/* The next frame that is this segment's own: one that repeats messages, or goes beyond what the segment counts, is what was
 * left of an append that failed. */
static int read_find(struct spool_read *read, const struct segment_file *file)
{
    struct segment_frame *frame = &read->frame;
    uint64_t at = read->at;
    int r;

    if (read->end > file->size)
        read->end = file->size;
    for (;; at = frame->end) {
        r = segment_next(file, at, read->end, read->over, frame);
        read->clean = frame->offset <= at;
        if (r < 0 || frame->offset >= read->end)
            return r;
        if (frame->before >= read->passed && (uint64_t)frame->before + frame->messages <= read->count)
            return 0;
    }
}

void spool_read_run(struct spool_read *read)
{
    struct segment_file file;
    int r = segment_open(&file, read->dir_fd, read->number);

    /* Somebody took it away, or the disk does not give it back: all of it is lost. */
    if (r == UV_ENOENT || r == UV_ELOOP || (r == UV_EIO && read->over)) {
        read->gone = true;
        read->end = read->at;
        read->frame.offset = read->frame.end = read->end;
        return;
    }
    if (r == 0)
        r = read_find(read, &file);
    read->trouble = r;
    read->header = file.header;
    read->alien = file.alien;
    if (r == 0 && read->frame.offset < read->end) {
        read->loaded = segment_load(&file, &read->frame, read->keys, &read->payload);
        if (read->loaded == SEGMENT_LOCKED)
            read->trouble = UV_EACCES;
        if (read->loaded == SEGMENT_TROUBLE && !read->over)
            read->trouble = UV_EIO;
    }
    segment_close(&file);
}

/* ---- On the loop again: what was lost, what is taken ---- */

int spool_read_trouble(const struct spool_read *read)
{
    return read->trouble;
}

static void read_say_locked(const struct spool_read *read)
{
    char path[SEGMENT_PATH_SIZE], id[2 * KEY_ID_SIZE + 1];

    if (read->segment->locked)
        return;
    read->segment->locked = true;
    segment_path(path, read->number);
    key_id_text(id, read->header.key_id);
    log_line(LOG_ERROR, "the key of a segment of the spool is not in key_file: it and all behind it wait until it is, and "
             "the daemon was restarted", "dir", read->spool->dir, "segment", path, "key", id, NULL);
}

static void read_say_lost(const struct spool_read *read, uint64_t messages)
{
    char path[SEGMENT_PATH_SIZE];

    read->spool->damaged++;
    if (read->segment->damaged)
        return;
    read->segment->damaged = true;
    segment_path(path, read->number);
    log_line(read->clean && read->loaded == SEGMENT_LOADED && !read->gone ? LOG_WARN : LOG_ERROR,
             read->gone ? "a segment of the spool is gone; what it held is counted as dropped"
             : read->clean && read->loaded == SEGMENT_LOADED
                 ? "segments that should follow this one are gone; what they held is counted as dropped"
                 : "damage in the spool was passed over; what could not be read is counted as dropped",
             "dir", read->spool->dir, "segment", path, "offset", log_number(read->frame.offset), "messages",
             log_number(messages), NULL);
}

/* Does the segment count as many messages of each source as this frame says it has? Then they are counted as taken. A frame
 * of an earlier life names sources that are perhaps others now. */
static bool read_claim(struct spool_read *read)
{
    struct spool *spool = read->spool;
    uint32_t *rows = read->segment->rows, *claimed;
    bool good = true;

    for (uint32_t i = 0; rows == NULL && i < read->frame.messages; i++)
        read->payload.messages[i].source = UINT32_MAX;
    if (rows == NULL)
        return true;
    claimed = calloc(spool->conf.rows, sizeof(*claimed));
    if (claimed == NULL)
        abort();
    for (uint32_t i = 0; i < read->frame.messages; i++) {
        uint32_t source = read->payload.messages[i].source;

        claimed[source < spool_last_row(spool) ? source : spool_last_row(spool)]++;
    }
    for (uint32_t row = 0; row < spool->conf.rows; row++)
        good = good && claimed[row] <= rows[row];
    for (uint32_t row = 0; good && row < spool->conf.rows; row++)
        rows[row] -= claimed[row];
    free(claimed);
    return good;
}

static struct batch *read_batch(struct spool_read *read, struct budget *budget)
{
    struct segment_payload *payload = &read->payload;
    struct batch *batch = batch_new(budget, read->frame.kind, 1, 0);

    budget_give(budget, batch->capacity);
    free(batch->data);
    batch->data = payload->data;
    batch->size = payload->size;
    batch->capacity = payload->capacity;
    batch->messages = payload->messages;
    batch->count = batch->message_capacity = batch->unsafe = read->frame.messages;
    batch->streams = payload->streams;
    batch->stream_count = batch->stream_capacity = payload->stream_count;
    batch->names = payload->names;
    budget_take(budget, batch->capacity + (size_t)batch->message_capacity * sizeof(*batch->messages));
    return batch;
}

/* Everything in it is taken or lost. What its rows still count was in frames that nobody could read. */
static void segment_finish(struct spool *spool, struct segment *segment)
{
    if (segment_untaken(segment) > 0)
        return;
    for (uint32_t row = 0; segment->rows != NULL && row < spool->conf.rows; row++) {
        spool->lost[row] += segment->rows[row];
        spool->has_lost = true;
        spool->rows[row] -= segment->rows[row];
        segment->rows[row] = 0;
    }
}

/* Moves the segment's reading behind the frame, or to the end; true: a good frame was found. */
static bool read_advance(struct spool_read *read)
{
    struct spool *spool = read->spool;
    struct segment *segment = read->segment;
    const struct segment_frame *frame = &read->frame;
    bool found = frame->offset < read->end, good;
    uint64_t lost = (found ? frame->before : read->count) - read->passed;
    uint64_t passed = lost + (found ? frame->messages : 0);

    good = found && read->loaded == SEGMENT_LOADED && read_claim(read);
    if (found && !good)
        lost += frame->messages;
    if (lost > 0)
        read_say_lost(read, lost);
    segment->unreadable = segment->unreadable || read->over;
    segment->alien = read->alien > 0;
    segment->trouble_since_s = 0;
    segment->read = segment->read || good;
    segment->read_at = frame->end;
    segment->passed += passed;
    spool->untaken -= passed;
    if (segment->rows == NULL) {                   /* of this life: at the segment's end, when it is known whose they were */
        spool->rows[spool_last_row(spool)] -= lost;
        spool->lost[spool_last_row(spool)] += lost;
        spool->has_lost = true;
    }
    segment_finish(spool, segment);
    return good;
}

struct batch *spool_read_done(struct spool_read *read, struct budget *budget, struct spool_frame **frame,
                              uint64_t *order, bool *own_life)
{
    struct spool *spool = read->spool;
    struct batch *batch = NULL;

    spool->reading = false;
    if (read->trouble < 0) {
        if (read->loaded == SEGMENT_LOCKED)
            read_say_locked(read);
        if (read->trouble == UV_EIO && read->segment->trouble_since_s == 0)
            read->segment->trouble_since_s = now_s();
    } else if (read_advance(read)) {
        batch = read_batch(read, budget);
        *frame = spool_frame_take(spool, read->segment, &read->frame);
        *order = read->frame.order;
        *own_life = read->segment->rows != NULL;
    } else {
        segment_payload_free(&read->payload);      /* whole, and yet none of ours */
        spool_retire(spool);
        spool_seal_empty(spool);
    }
    free(read);
    return batch;
}
