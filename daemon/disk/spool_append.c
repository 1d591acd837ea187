/*
 * spool_append.c - parts become frames at the end of the last segment: all of them with one sync, or none.
 *
 * On the loop it is decided how many parts the cap leaves room for, and whether they begin a new segment; on the pool they
 * are written and synced; on the loop again they count from now on, or nothing of them does. What a crash in between leaves
 * behind stands at the head of spool.c.
 */
#include "daemon/disk/spool_queue.h"

#include "daemon/base/log.h"
#include "daemon/disk/io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define BLOCK_BYTES ((uint64_t)4096)

struct spool_append {
    struct spool *spool;
    struct part *parts[SPOOL_APPEND_MAX];
    struct segment_frame frames[SPOOL_APPEND_MAX]; /* where each part came to lie */
    uint32_t count;
    uint64_t number, begin, room;                  /* to be fallocated up to here */
    uint32_t before;                               /* messages of the segment */
    int fd, dir_fd;
    struct segment_header header;
    const struct key *key;
    uint64_t segment_bytes;
    bool fresh, grow, compress, seal;
    bool refused;                                  /* what room there is belongs to others */
    /* out */
    uint64_t end, bytes, dir_bytes;
    int result;
};

/* ---- On the loop: what fits ---- */

/* Room is given back by the segment: under a small cap segments must be small, too, or none would ever be over and
 * drop-oldest had nothing to drop. */
static uint64_t segment_bytes(const struct spool *spool)
{
    uint64_t share = spool->conf.bytes_max / 8;

    return share < SPOOL_SEGMENT_BYTES ? share : SPOOL_SEGMENT_BYTES;
}

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* How far to allocate for a segment that will end here: ahead, so that not every append moves the file's end on disk. */
static uint64_t spool_room(const struct spool *spool, uint64_t end)
{
    return round_up(end, round_up(segment_bytes(spool) / 64 + 1, BLOCK_BYTES));
}

static bool spool_has_place(const struct spool *spool, uint64_t more)
{
    return spool->bytes + spool->dir_bytes + more + SPOOL_SLACK_BYTES <= spool->conf.bytes_max;
}

/* As many parts as the cap and the segment leave room for, which end at *end. */
static uint32_t spool_fit(const struct spool *spool, struct part *const *parts, uint32_t count, uint64_t room, uint64_t *end)
{
    uint32_t fit;

    for (fit = 0; fit < count && fit < SPOOL_APPEND_MAX && (fit == 0 || *end < segment_bytes(spool)); fit++) {
        uint64_t at = *end + segment_frame_bound(parts[fit]);

        if (at > room && !spool_has_place(spool, spool_room(spool, at) - room))
            break;
        *end = at;
    }
    return fit;
}

static void header_begin(struct segment_header *header, const struct spool *spool)
{
    const struct key *key = keys_newest(spool->conf.keys);

    *header = (struct segment_header){ .encrypted = key != NULL, .life = spool->conf.life, .made_ticks = io_now_ticks() };
    if (key != NULL)
        memcpy(header->key_id, key_id(key), KEY_ID_SIZE);
    if (spool->conf.schema != NULL)
        strncpy(header->schema, spool->conf.schema, SEGMENT_WORD_MAX);
    if (spool->conf.type != NULL)
        strncpy(header->type, spool->conf.type, SEGMENT_WORD_MAX);
}

struct spool_append *spool_append_new(struct spool *spool, struct part *const *parts, uint32_t count, uint32_t *taken)
{
    struct spool_append *append;
    struct segment *last;
    uint64_t room, end;
    uint32_t fit;
    bool fresh;

    assert(!spool->appending);
    if (spool->turn)
        spool_turn(spool);
    last = TAILQ_LAST(&spool->segments, segments);
    fresh = last == NULL || last->sealed;
    room = fresh ? 0 : last->room;
    end = fresh ? SEGMENT_BEGIN : last->size;
    fit = *taken = spool_fit(spool, parts, count, room, &end);
    if (fit == 0)
        return NULL;
    append = calloc(1, sizeof(*append));
    if (append == NULL)
        abort();
    append->spool = spool;
    append->count = fit;
    for (uint32_t i = 0; i < fit; i++) {
        append->parts[i] = parts[i];
        parts[i]->writing = true;
        batch_write_begin(parts[i]->batch);
    }
    append->fresh = fresh;
    append->number = fresh ? spool->next_number : last->number;
    append->begin = fresh ? SEGMENT_BEGIN : last->size;
    append->before = fresh ? 0 : (uint32_t)last->count;
    append->grow = end > room;
    append->room = append->grow ? spool_room(spool, end) : room;
    append->fd = fresh ? -1 : spool->write_fd;
    append->dir_fd = spool->dir_fd;
    append->key = keys_newest(spool->conf.keys);
    if (fresh)
        header_begin(&append->header, spool);
    else
        append->header = spool->write_header;
    append->compress = spool->conf.compress;
    append->segment_bytes = segment_bytes(spool);
    append->refused = !reserve_held(spool->conf.reserve);
    spool->appending = true;
    return append;
}

/* ---- On the pool ---- */

/* Behind the file's end, which stays where its last frame ends. Where that cannot be had (not every file system can, and
 * the frames may need less than the most they could), writing tells. */
static void append_allocate(struct spool_append *append)
{
    int r;

    do
        r = io->fallocate(append->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)append->room);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        append->room = 0;
}

static int append_begin(struct spool_append *append)
{
    int r;

    if (append->fresh) {
        if (io->random(append->header.salt, sizeof(append->header.salt)) < 0)
            return -errno;
        r = segment_make(&append->fd, append->dir_fd, append->number, &append->header);
        if (r < 0)
            return r;
    }
    if (append->grow)
        append_allocate(append);
    return 0;
}

static int append_sync(struct spool_append *append)
{
    if (append->seal && io->ftruncate(append->fd, (off_t)append->end) < 0)         /* frees what was allocated ahead */
        return -errno;
    if (io->fdatasync(append->fd) < 0)
        return -errno;
    return append->fresh && io->fsync(append->dir_fd) < 0 ? -errno : 0;
}

void spool_append_run(struct spool_append *append)
{
    ZSTD_CCtx *zstd = append->compress ? ZSTD_createCCtx() : NULL;
    uint32_t before = append->before;
    int r = append->refused ? UV_ENOSPC : append_begin(append);

    append->end = append->begin;
    for (uint32_t i = 0; i < append->count && r == 0; i++) {
        struct segment_frame *frame = &append->frames[i];

        frame->offset = append->end;
        frame->before = before;
        r = segment_append(append->fd, &append->header, append->key, zstd, append->parts[i], frame);
        append->end = frame->end;
        before += frame->messages;
    }
    append->seal = append->end >= append->segment_bytes || before > UINT32_MAX / 2;
    if (r == 0)
        r = append_sync(append);
    append->bytes = append->fd >= 0 ? spool_fd_bytes(append->fd) : 0;
    append->dir_bytes = spool_fd_bytes(append->dir_fd);
    ZSTD_freeCCtx(zstd);
    append->result = r;
}

/* ---- On the loop again: what counts ---- */

/* Nothing of it counts: a new segment is no more, an old one ends where it did and takes no further append, because
 * after a failed sync nobody knows what the disk holds. */
static void append_undo(struct spool_append *append, struct segment *last)
{
    struct spool *spool = append->spool;
    char path[SEGMENT_PATH_SIZE];

    if (append->fresh) {
        segment_path(path, append->number);
        if (append->fd >= 0) {
            io->close(append->fd);
            io->unlinkat(append->dir_fd, path, 0);
        }
        return;
    }
    if (io->ftruncate(append->fd, (off_t)append->begin) < 0)
        log_line(LOG_WARN, "the end of a segment could not be cut off, what it holds too much will be passed over",
                 "dir", spool->dir, "error", strerror(errno), NULL);
    spool_segment_set_bytes(spool, last, spool_fd_bytes(append->fd));
    spool_close_write(spool);
    last->sealed = true;
    spool_retire(spool);
}

/* The part lies in the segment, and on disk. */
static void append_count(struct spool *spool, struct segment *segment, struct part *part, const struct segment_frame *frame)
{
    for (uint32_t m = 0; m < part->lent.count; m++) {
        uint32_t source = part->lent.messages[m].source, row = source < spool_last_row(spool) ? source : spool_last_row(spool);

        spool->rows[row]++;
        segment->rows[row] += !part->keep;
    }
    segment->count += frame->messages;
    if (part->keep) {
        assert(segment->count - frame->messages == segment->passed);   /* kept parts come first, or when nothing waits */
        part->frame = spool_frame_take(spool, segment, frame);
        segment->passed = segment->count;
        segment->read_at = frame->end;
        segment->read = true;
    } else {
        spool->untaken += frame->messages;
    }
}

static void append_keep(struct spool_append *append, struct segment *last)
{
    struct spool *spool = append->spool;

    if (append->fresh) {
        last = spool_segment_add(spool, append->number);
        last->rows = calloc(spool->conf.rows, sizeof(*last->rows));
        if (last->rows == NULL)
            abort();
        spool->write_fd = append->fd;
        spool->write_header = append->header;
    }
    for (uint32_t i = 0; i < append->count; i++)
        append_count(spool, last, append->parts[i], &append->frames[i]);
    last->size = append->end;
    last->room = append->room > append->end ? append->room : round_up(append->end, BLOCK_BYTES);
    spool_segment_set_bytes(spool, last, append->bytes);
    spool->dir_bytes = append->dir_bytes;
    spool->next_number = last->number + last->count;
    if (append->seal) {
        spool_close_write(spool);
        last->sealed = true;
    }
}

int spool_append_done(struct spool_append *append)
{
    struct spool *spool = append->spool;
    struct segment *last = TAILQ_LAST(&spool->segments, segments);
    int result = append->result;

    spool->appending = false;
    if (result == 0)
        append_keep(append, last);
    else
        append_undo(append, last);
    for (uint32_t i = 0; i < append->count; i++) {
        append->parts[i]->writing = false;
        batch_write_end(append->parts[i]->batch);
    }
    free(append);
    return result;
}
