/*
 * spool.c - segments and frames.
 *
 * A spool is a folder of segments, `%016x.seg`, numbered upwards. All integers are little-endian.
 *
 *   segment   header, then frames, then (once the segment is full) a trailer; a segment without one is counted by
 *             walking its frames' heads
 *   header    "PENSPOOL" | u32 version = 1 | u32 zero | u64 number | u32 zero | u32 crc                     32 bytes
 *   frame     head | payload
 *   head      u32 magic "PFRM" | u16 flags | u8 kind | u8 zero | u32 stored | u32 plain | u32 messages | u32 zero |
 *             u64 order | u64 life | u32 payload crc | u32 head crc                                         48 bytes
 *             flags: 1 the payload is one zstd frame, 2 this is the trailer (stored = 0, messages = the segment's sum)
 *   payload   u32 streams, each u16 size and bytes; then per message u32 size, u32 stream, u32 source, u32 zero,
 *             u64 position, i64 ticks; then the messages' bytes, parted by commas
 *
 * Every crc is CRC-32C: of the 28 bytes before it in a header, the 44 bytes before it in a head, the stored payload.
 *
 * If we die
 *   while appending: the tail is torn; nobody was told it is safe. A new process never appends to an old segment, and a
 *   reader that meets a bad head or payload looks for the next good head, so only damaged frames are lost.
 *   after a frame was settled, before the place was saved: it is sent again, with the same event ids.
 *   while a segment is unlinked: it is gone or still there; if it is, the saved place says it is done.
 *
 * In tests/model/outlet.pml a job on the pool is IDLE, RUNNING, SYNCED (the loop has not heard of it) or FAILED; the frames
 * that spool_append_done() has counted are `known` there, those of an append under way are `written`.
 */
#include "daemon/spool.h"

#include "daemon/io.h"
#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define HEADER_SIZE 32u
#define HEAD_SIZE 48u
#define FRAME_MAGIC 0x4D524650u                    /* "PFRM" */
#define FLAG_ZSTD 1u
#define FLAG_TRAILER 2u
#define MESSAGE_SIZE 32u
/* A batch is at most a megabyte and a message at most what one record can make of itself: beyond this a head lies. */
#define PAYLOAD_MAX (128u * 1024 * 1024)

struct segment {
    TAILQ_ENTRY(segment) entry;
    uint64_t number, bytes;
    uint64_t read_at;                /* next untaken frame */
    uint64_t untaken;                /* frames from read_at on */
    uint64_t frames, messages;       /* appended in this life, for the trailer */
    uint32_t taken;                  /* frames in the spool's list of taken ones */
    bool sealed;                     /* nothing is appended any more */
    uint64_t *rows;                  /* [conf.rows] unsettled messages */
};

struct spool {
    struct spool_conf conf;
    char *dir;
    int dir_fd;
    TAILQ_HEAD(segments, segment) segments;  /* oldest first */
    TAILQ_HEAD(frames, spool_frame) taken; /* in order of place */
    uint64_t bytes, untaken, damaged, next_number;
    uint64_t *rows;                  /* sums over the segments */
    int write_fd;                    /* of the last segment, while it is not sealed; else -1 */
    uint64_t *lost;                  /* rows: messages of frames that could not be read back */
    bool appending, reading;
};

/* ---- Bytes ---- */

static void put16(unsigned char *at, uint16_t value)
{
    at[0] = (unsigned char)value;
    at[1] = (unsigned char)(value >> 8);
}

static void put32(unsigned char *at, uint32_t value)
{
    put16(at, (uint16_t)value);
    put16(at + 2, (uint16_t)(value >> 16));
}

static void put64(unsigned char *at, uint64_t value)
{
    put32(at, (uint32_t)value);
    put32(at + 4, (uint32_t)(value >> 32));
}

static uint16_t get16(const unsigned char *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const unsigned char *at)
{
    return get16(at) | (uint32_t)get16(at + 2) << 16;
}

static uint64_t get64(const unsigned char *at)
{
    return get32(at) | (uint64_t)get32(at + 4) << 32;
}

static uint32_t crc32c(const void *data, size_t size)
{
    return crc32_iscsi((unsigned char *)data, (int)size, 0xFFFFFFFFu) ^ 0xFFFFFFFFu;
}

/* ---- Heads ---- */

struct head {
    uint32_t flags, stored, plain, messages, crc;
    enum pen_kind kind;
    uint64_t order, life;
};

static void head_write(unsigned char out[HEAD_SIZE], const struct head *head)
{
    memset(out, 0, HEAD_SIZE);
    put32(out, FRAME_MAGIC);
    put16(out + 4, (uint16_t)head->flags);
    out[6] = (unsigned char)head->kind;
    put32(out + 8, head->stored);
    put32(out + 12, head->plain);
    put32(out + 16, head->messages);
    put64(out + 24, head->order);
    put64(out + 32, head->life);
    put32(out + 40, head->crc);
    put32(out + 44, crc32c(out, 44));
}

static bool head_read(const unsigned char in[HEAD_SIZE], struct head *head)
{
    if (get32(in) != FRAME_MAGIC || get32(in + 44) != crc32c(in, 44))
        return false;
    head->flags = get16(in + 4);
    head->kind = in[6];
    head->stored = get32(in + 8);
    head->plain = get32(in + 12);
    head->messages = get32(in + 16);
    head->order = get64(in + 24);
    head->life = get64(in + 32);
    head->crc = get32(in + 40);
    return head->stored <= PAYLOAD_MAX && head->plain <= PAYLOAD_MAX && (unsigned)head->kind < PEN_KINDS;
}

/* The next good head at or behind `at`: its place, or `end` where there is none. */
static uint64_t head_find(int fd, uint64_t at, uint64_t end, struct head *head)
{
    unsigned char block[64 * 1024];
    ssize_t got;

    while (end - at >= HEAD_SIZE) {
        got = io_read_full(fd, block, sizeof(block) < end - at ? sizeof(block) : (size_t)(end - at), at);
        if (got < 0) {                             /* a place the disk cannot read: what lies behind it may be good */
            at += got == -EIO ? 4096 : end - at;
            if (at > end)
                return end;
            continue;
        }
        if (got < (ssize_t)HEAD_SIZE)
            return end;
        for (size_t i = 0; i + HEAD_SIZE <= (size_t)got; i++)
            if (block[i] == 'P' && head_read(block + i, head) && at + i + HEAD_SIZE + head->stored <= end)
                return at + i;
        at += (uint64_t)got - (HEAD_SIZE - 1);
    }
    return end;
}

/* ---- Opening ---- */

static void segment_path(char out[32], uint64_t number)
{
    snprintf(out, 32, "%016" PRIx64 ".seg", number);
}

static struct segment *segment_new(struct spool *spool, uint64_t number)
{
    struct segment *segment = calloc(1, sizeof(*segment));

    if (segment == NULL || (segment->rows = calloc(spool->conf.rows, sizeof(*segment->rows))) == NULL)
        abort();
    segment->number = number;
    segment->read_at = HEADER_SIZE;
    return segment;
}

static void segment_free(struct segment *segment)
{
    free(segment->rows);
    free(segment);
}

/* Counts frames and messages from read_at on: from the trailer where the whole segment is still to be read, else by its
 * heads. */
static void segment_count(struct spool *spool, struct segment *segment, int fd)
{
    uint64_t *row = &segment->rows[spool->conf.rows - 1];
    uint64_t at = segment->read_at, found;
    unsigned char bytes[HEAD_SIZE];
    struct head head;

    if (at == HEADER_SIZE && segment->bytes >= HEADER_SIZE + HEAD_SIZE &&
        io_read_full(fd, bytes, HEAD_SIZE, segment->bytes - HEAD_SIZE) == (ssize_t)HEAD_SIZE && head_read(bytes, &head) &&
        (head.flags & FLAG_TRAILER) != 0) {
        *row = head.messages;
        segment->untaken = head.order;             /* a trailer's order is its segment's number of frames */
        return;
    }
    while ((found = head_find(fd, at, segment->bytes, &head)) < segment->bytes) {
        if (found > at)
            spool->damaged++;
        at = found + HEAD_SIZE + head.stored;
        if ((head.flags & FLAG_TRAILER) != 0)
            continue;
        *row += head.messages;
        segment->untaken++;
    }
}

static int spool_open_segment(struct spool *spool, uint64_t number, struct pen_error *err)
{
    struct segment *segment;
    struct stat st;
    char path[32];
    int fd;

    segment_path(path, number);
    if (number >= spool->next_number)
        spool->next_number = number + 1;
    if (number < spool->conf.place.segment)
        return io->unlinkat(spool->dir_fd, path, 0) < 0 && errno != ENOENT
            ? pen_error_set(err, -errno, "%s/%s: %s", spool->dir, path, strerror(errno)) : 0;
    fd = io->openat(spool->dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0 || io->fstat(fd, &st) < 0) {
        int code = -errno;

        if (fd >= 0)
            io->close(fd);
        return pen_error_set(err, code, "%s/%s: %s", spool->dir, path, strerror(-code));
    }
    segment = segment_new(spool, number);
    segment->sealed = true;
    segment->bytes = (uint64_t)st.st_size;
    if (number == spool->conf.place.segment && spool->conf.place.offset > segment->read_at)
        segment->read_at = spool->conf.place.offset < segment->bytes ? spool->conf.place.offset : segment->bytes;
    segment_count(spool, segment, fd);
    io->close(fd);
    if (segment->untaken == 0) {
        /* Nothing left in it, or nothing whole: an append that was never acknowledged. */
        segment_free(segment);
        io->unlinkat(spool->dir_fd, path, 0);
        return 0;
    }
    TAILQ_INSERT_TAIL(&spool->segments, segment, entry);
    spool->bytes += segment->bytes;
    spool->untaken += segment->untaken;
    spool->rows[spool->conf.rows - 1] += segment->rows[spool->conf.rows - 1];
    return 0;
}

static int number_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

struct numbers {
    uint64_t *at;
    size_t count, capacity;
};

static int on_name(void *arg, const char *name)
{
    struct numbers *numbers = arg;
    uint64_t number;
    int used;

    if (sscanf(name, "%16" SCNx64 ".seg%n", &number, &used) != 1 || used != 20 || name[20] != '\0')
        return 0;
    if (numbers->count == numbers->capacity) {
        numbers->capacity = numbers->capacity > 0 ? numbers->capacity * 2 : 64;
        numbers->at = realloc(numbers->at, numbers->capacity * sizeof(*numbers->at));
        if (numbers->at == NULL)
            abort();
    }
    numbers->at[numbers->count++] = number;
    return 0;
}

static int spool_open_recover(struct spool *spool, struct pen_error *err)
{
    struct numbers numbers = { 0 };
    int r = 0;

    if (io->list(spool->dir_fd, on_name, &numbers) < 0)
        r = pen_error_set(err, -errno, "%s: %s", spool->dir, strerror(errno));
    if (numbers.count > 0)
        qsort(numbers.at, numbers.count, sizeof(*numbers.at), number_compare);
    for (size_t i = 0; i < numbers.count && r == 0; i++)
        r = spool_open_segment(spool, numbers.at[i], err);
    free(numbers.at);
    return r;
}

int spool_open(struct spool **ret, const struct spool_conf *conf, struct pen_error *err)
{
    struct spool *spool = calloc(1, sizeof(*spool));
    int r;

    if (spool == NULL)
        abort();
    spool->conf = *conf;
    spool->write_fd = -1;
    spool->dir_fd = -1;
    spool->next_number = conf->place.segment + 1;
    TAILQ_INIT(&spool->segments);
    TAILQ_INIT(&spool->taken);
    spool->dir = strdup(conf->dir);
    spool->rows = calloc(conf->rows, sizeof(*spool->rows));
    spool->lost = calloc(conf->rows, sizeof(*spool->lost));
    if (spool->dir == NULL || spool->rows == NULL || spool->lost == NULL)
        abort();
    r = io_make_folder(conf->dir);
    if (r < 0) {
        pen_error_set(err, r, "%s: the spool's folder cannot be made: %s", conf->dir, strerror(-r));
        goto fail;
    }
    spool->dir_fd = io->openat(AT_FDCWD, conf->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (spool->dir_fd < 0) {
        r = pen_error_set(err, -errno, "%s: %s", conf->dir, strerror(errno));
        goto fail;
    }
    r = spool_open_recover(spool, err);
    if (r < 0)
        goto fail;
    *ret = spool;
    return 0;
fail:
    spool_close(spool);
    return r;
}

void spool_close(struct spool *spool)
{
    struct segment *segment;
    struct spool_frame *frame;

    if (spool == NULL)
        return;
    assert(!spool->appending && !spool->reading);
    while ((segment = TAILQ_FIRST(&spool->segments)) != NULL) {
        TAILQ_REMOVE(&spool->segments, segment, entry);
        segment_free(segment);
    }
    while ((frame = TAILQ_FIRST(&spool->taken)) != NULL) {
        TAILQ_REMOVE(&spool->taken, frame, entry);
        free(frame);
    }
    if (spool->write_fd >= 0)
        io->close(spool->write_fd);
    if (spool->dir_fd >= 0)
        io->close(spool->dir_fd);
    free(spool->rows);
    free(spool->lost);
    free(spool->dir);
    free(spool);
}

/* ---- What there is ---- */

uint64_t spool_bytes(const struct spool *spool)
{
    return spool->bytes;
}

uint64_t spool_messages(const struct spool *spool, uint32_t row)
{
    assert(row < spool->conf.rows);
    return spool->rows[row];
}

uint64_t spool_untaken(const struct spool *spool)
{
    return spool->untaken;
}

bool spool_is_empty(const struct spool *spool)
{
    return spool->untaken == 0 && TAILQ_EMPTY(&spool->taken);
}

bool spool_is_full(const struct spool *spool)
{
    return spool->bytes >= spool->conf.bytes_max;
}

uint64_t spool_damaged(const struct spool *spool)
{
    return spool->damaged;
}

struct spool_place spool_place(const struct spool *spool)
{
    const struct spool_frame *frame = TAILQ_FIRST(&spool->taken);
    const struct segment *segment;

    if (frame != NULL)
        return (struct spool_place){ frame->segment, frame->offset };
    TAILQ_FOREACH(segment, &spool->segments, entry)
        if (segment->untaken > 0 || !segment->sealed)
            return (struct spool_place){ segment->number, segment->read_at };
    return (struct spool_place){ spool->next_number, 0 };
}

uint64_t spool_lost(struct spool *spool, uint32_t row)
{
    uint64_t lost = spool->lost[row];

    spool->lost[row] = 0;
    return lost;
}

/* ---- Retiring ---- */

/* A segment goes once it is sealed, read to its end, and settled; what its rows still count then was damaged. */
static void segment_retire(struct spool *spool, struct segment *segment)
{
    char path[32];

    if (!segment->sealed || segment->untaken > 0 || segment->taken > 0)
        return;
    for (uint32_t row = 0; row < spool->conf.rows; row++) {
        spool->lost[row] += segment->rows[row];
        spool->rows[row] -= segment->rows[row];
    }
    segment_path(path, segment->number);
    if (io->unlinkat(spool->dir_fd, path, 0) < 0 && errno != ENOENT)
        log_line(LOG_WARN, "a finished segment of the spool could not be removed, it will be at the next start",
                 "dir", spool->dir, "segment", path, "error", strerror(errno), NULL);
    spool->bytes -= segment->bytes;
    TAILQ_REMOVE(&spool->segments, segment, entry);
    segment_free(segment);
}

static struct segment *segment_find(struct spool *spool, uint64_t number)
{
    struct segment *segment;

    TAILQ_FOREACH(segment, &spool->segments, entry)
        if (segment->number == number)
            return segment;
    return NULL;
}

/* Nothing unsettled is left: the open segment goes too, so that an empty spool is an empty folder. */
static void spool_seal_empty(struct spool *spool)
{
    struct segment *last = TAILQ_LAST(&spool->segments, segments);

    if (last == NULL || last->sealed || spool->appending || !spool_is_empty(spool))
        return;
    io->close(spool->write_fd);
    spool->write_fd = -1;
    last->sealed = true;
    segment_retire(spool, last);
}

static struct spool_frame *frame_take(struct spool *spool, struct segment *segment, uint64_t offset, uint64_t end,
                                      uint32_t messages)
{
    struct spool_frame *frame = calloc(1, sizeof(*frame));

    if (frame == NULL)
        abort();
    frame->segment = segment->number;
    frame->offset = offset;
    frame->end = end;
    frame->unsettled = messages;
    segment->taken++;
    TAILQ_INSERT_TAIL(&spool->taken, frame, entry);
    return frame;
}

void spool_settle(struct spool *spool, struct spool_frame *frame, uint32_t row, uint32_t n)
{
    struct segment *segment = segment_find(spool, frame->segment);

    assert(segment != NULL && n <= frame->unsettled && n <= segment->rows[row]);
    frame->unsettled -= n;
    segment->rows[row] -= n;
    spool->rows[row] -= n;
    if (frame->unsettled > 0)
        return;
    TAILQ_REMOVE(&spool->taken, frame, entry);
    segment->taken--;
    free(frame);
    segment_retire(spool, segment);
    spool_seal_empty(spool);
}

bool spool_drop_oldest(struct spool *spool, uint64_t *lost)
{
    struct segment *segment;

    TAILQ_FOREACH(segment, &spool->segments, entry)
        if (segment->taken == 0 && segment->untaken > 0 && segment->sealed && !spool->reading)
            break;
    if (segment == NULL)
        return false;
    for (uint32_t row = 0; row < spool->conf.rows; row++) {
        lost[row] += segment->rows[row];
        spool->rows[row] -= segment->rows[row];
        segment->rows[row] = 0;
    }
    spool->untaken -= segment->untaken;
    segment->untaken = 0;
    segment_retire(spool, segment);
    return true;
}

/* ---- Append ---- */

struct spool_append {
    struct spool *spool;
    struct part *parts[SPOOL_APPEND_MAX];
    uint64_t ends[SPOOL_APPEND_MAX];               /* where each part's frame ends in the segment */
    uint32_t count;
    uint64_t number, begin, at;
    uint64_t frames, messages;                     /* of the segment, these included */
    uint64_t life;
    int fd, dir_fd;
    uint64_t segment_bytes;
    bool fresh, compress, seal;
    int result;
};

static size_t part_payload_size(const struct part *part)
{
    size_t size = 4 + (size_t)part->lent.count * MESSAGE_SIZE + part->lent.size;

    for (uint32_t i = 0; i < part->batch->stream_count; i++)
        size += 2 + strnlen(part->lent.streams[i], UINT16_MAX);
    return size;
}

/* Room is given back by the segment: under a small cap segments must be small, too, or none would ever be over and
 * drop-oldest had nothing to drop. */
static uint64_t segment_bytes(const struct spool *spool)
{
    uint64_t share = spool->conf.bytes_max / 8;

    return share < SPOOL_SEGMENT_BYTES ? share : SPOOL_SEGMENT_BYTES;
}

struct spool_append *spool_append_new(struct spool *spool, struct part *const *parts, uint32_t count, uint32_t *taken)
{
    struct segment *last = TAILQ_LAST(&spool->segments, segments);
    struct spool_append *append;
    uint64_t bytes = spool->bytes, begin = last == NULL || last->sealed ? spool->bytes : spool->bytes - last->bytes;
    uint32_t fit = 0;

    assert(!spool->appending);
    /* Up to the cap, and no further than what fills the segment. */
    while (fit < count && fit < SPOOL_APPEND_MAX && (fit == 0 || bytes - begin < segment_bytes(spool))) {
        bytes += HEAD_SIZE + part_payload_size(parts[fit]);
        if (bytes + HEADER_SIZE + HEAD_SIZE > spool->conf.bytes_max)
            break;
        fit++;
    }
    *taken = fit;
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
        append->messages += parts[i]->lent.count;
    }
    append->fresh = last == NULL || last->sealed;
    append->number = append->fresh ? spool->next_number : last->number;
    append->begin = append->fresh ? 0 : last->bytes;
    append->frames = fit + (append->fresh ? 0 : last->frames);
    append->messages += append->fresh ? 0 : last->messages;
    append->fd = append->fresh ? -1 : spool->write_fd;
    append->dir_fd = spool->dir_fd;
    append->life = spool->conf.life;
    append->compress = spool->conf.compress;
    append->segment_bytes = segment_bytes(spool);
    spool->appending = true;
    return append;
}

static unsigned char *payload_write(const struct part *part, size_t *size)
{
    const struct pen_batch *lent = &part->lent;
    unsigned char *payload, *at;

    *size = part_payload_size(part);
    at = payload = malloc(*size);
    if (payload == NULL)
        abort();
    put32(at, part->batch->stream_count);
    at += 4;
    for (uint32_t i = 0; i < part->batch->stream_count; i++) {
        size_t length = strnlen(lent->streams[i], UINT16_MAX);

        put16(at, (uint16_t)length);
        memcpy(at + 2, lent->streams[i], length);
        at += 2 + length;
    }
    for (uint32_t i = 0; i < lent->count; i++, at += MESSAGE_SIZE) {
        const struct pen_message *message = &lent->messages[i];

        put32(at, message->size);
        put32(at + 4, message->stream);
        put32(at + 8, message->source);
        put32(at + 12, 0);
        put64(at + 16, message->position);
        put64(at + 24, (uint64_t)message->ticks);
    }
    memcpy(at, lent->data, lent->size);
    return payload;
}

static int append_frame(struct spool_append *append, const struct part *part, ZSTD_CCtx *zstd)
{
    struct head head = { .kind = part->lent.kind, .messages = part->lent.count, .order = part->order,
                         .life = append->life };
    unsigned char bytes[HEAD_SIZE], *payload, *packed = NULL, *stored;
    size_t size, got;
    int r;

    stored = payload = payload_write(part, &size);
    head.plain = head.stored = (uint32_t)size;
    if (append->compress) {
        packed = malloc(size);
        if (packed == NULL)
            abort();
        /* Room for less than the plain bytes only: what does not shrink is stored as it is. */
        got = ZSTD_compressCCtx(zstd, packed, size - 1, payload, size, 1);
        if (!ZSTD_isError(got)) {
            stored = packed;
            head.stored = (uint32_t)got;
            head.flags = FLAG_ZSTD;
        }
    }
    head.crc = crc32c(stored, head.stored);
    head_write(bytes, &head);
    r = io_write_full(append->fd, bytes, HEAD_SIZE, append->at);
    if (r == 0)
        r = io_write_full(append->fd, stored, head.stored, append->at + HEAD_SIZE);
    append->at += HEAD_SIZE + head.stored;
    free(payload);
    free(packed);
    return r;
}

static int append_header(struct spool_append *append)
{
    unsigned char header[HEADER_SIZE] = "PENSPOOL";
    char path[32];

    segment_path(path, append->number);
    append->fd = io->openat(append->dir_fd, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (append->fd < 0)
        return -errno;
    put32(header + 8, 1);
    put64(header + 16, append->number);
    put32(header + 28, crc32c(header, 28));
    append->at = HEADER_SIZE;
    return io_write_full(append->fd, header, HEADER_SIZE, 0);
}

static int append_trailer(struct spool_append *append)
{
    struct head head = { .flags = FLAG_TRAILER, .order = append->frames, .messages = (uint32_t)append->messages,
                         .life = append->life, .crc = crc32c("", 0) };
    unsigned char bytes[HEAD_SIZE];

    head_write(bytes, &head);
    return io_write_full(append->fd, bytes, HEAD_SIZE, append->at);
}

void spool_append_run(struct spool_append *append)
{
    ZSTD_CCtx *zstd = append->compress ? ZSTD_createCCtx() : NULL;
    int r = 0;

    append->at = append->begin;
    if (append->fresh)
        r = append_header(append);
    for (uint32_t i = 0; i < append->count && r == 0; i++) {
        r = append_frame(append, append->parts[i], zstd);
        append->ends[i] = append->at;
    }
    append->seal = append->at >= append->segment_bytes;
    if (r == 0 && append->seal) {
        r = append_trailer(append);
        append->at += HEAD_SIZE;
    }
    if (r == 0 && io->fdatasync(append->fd) < 0)
        r = -errno;
    if (r == 0 && append->fresh && io->fsync(append->dir_fd) < 0)
        r = -errno;
    ZSTD_freeCCtx(zstd);
    append->result = r;
}

/* Nothing of it counts: a new segment is no more, an old one ends where it did and takes no further append, because
 * after a failed sync nobody knows what the disk holds. */
static void append_undo(struct spool_append *append, struct segment *last)
{
    char path[32];

    if (append->fresh) {
        segment_path(path, append->number);
        if (append->fd >= 0) {
            io->close(append->fd);
            io->unlinkat(append->dir_fd, path, 0);
        }
        return;
    }
    if (io->ftruncate(append->fd, (off_t)append->begin) < 0)
        log_line(LOG_WARN, "the end of a segment could not be cut off, its torn frames will be passed over",
                 "dir", append->spool->dir, "error", strerror(errno), NULL);
    io->close(append->fd);
    append->spool->write_fd = -1;
    last->sealed = true;
    segment_retire(append->spool, last);
}

int spool_append_done(struct spool_append *append)
{
    struct spool *spool = append->spool;
    struct segment *last = TAILQ_LAST(&spool->segments, segments);
    uint64_t begin = append->fresh ? HEADER_SIZE : append->begin;
    int result = append->result;

    spool->appending = false;
    if (append->fresh)
        spool->next_number++;
    if (result == 0 && append->fresh) {
        last = segment_new(spool, append->number);
        TAILQ_INSERT_TAIL(&spool->segments, last, entry);
        spool->write_fd = append->fd;
    }
    if (result < 0)
        append_undo(append, last);
    for (uint32_t i = 0; i < append->count; i++) {
        struct part *part = append->parts[i];

        part->writing = false;
        if (result < 0)
            continue;
        for (uint32_t m = 0; m < part->lent.count; m++) {
            uint32_t source = part->lent.messages[m].source;
            uint32_t row = source < spool->conf.rows - 1 ? source : spool->conf.rows - 1;

            last->rows[row]++;
            spool->rows[row]++;
        }
        if (part->keep) {
            assert(last->untaken == 0);            /* kept parts come first, or only when nothing waits */
            part->frame = frame_take(spool, last, begin, append->ends[i], part->lent.count);
            last->read_at = append->ends[i];
        } else {
            last->untaken++;
            spool->untaken++;
        }
        begin = append->ends[i];
    }
    if (result == 0) {
        spool->bytes += append->at - (append->fresh ? 0 : last->bytes);
        last->bytes = append->at;
        last->frames = append->frames;
        last->messages = append->messages;
        if (append->seal) {
            io->close(spool->write_fd);
            spool->write_fd = -1;
            last->sealed = true;
        }
    }
    for (uint32_t i = 0; i < append->count; i++)
        batch_write_end(append->parts[i]->batch);
    free(append);
    return result;
}

/* ---- Read ---- */

struct spool_read {
    struct spool *spool;
    uint64_t number, at, end;
    uint64_t untaken;                              /* frames in [at, end) */
    int dir_fd;
    /* out */
    int trouble;                                   /* negative: the segment could not be opened, nothing was learned */
    struct head head;
    uint64_t offset, next;                         /* of the frame, behind it */
    bool damaged, good;
    unsigned char *payload;                        /* the messages' bytes moved to its front */
    size_t data_size;
    struct pen_message *messages;
    char *names;
    const char **streams;
    uint32_t stream_count;
};

struct spool_read *spool_read_new(struct spool *spool)
{
    struct spool_read *read;
    struct segment *segment;

    assert(!spool->reading);
    TAILQ_FOREACH(segment, &spool->segments, entry)
        if (segment->untaken > 0)
            break;
    if (segment == NULL)
        return NULL;
    read = calloc(1, sizeof(*read));
    if (read == NULL)
        abort();
    read->spool = spool;
    read->number = segment->number;
    read->at = segment->read_at;
    read->end = segment->bytes;
    read->untaken = segment->untaken;
    read->dir_fd = spool->dir_fd;
    spool->reading = true;
    return read;
}

/* Splits the payload into names, index and data; false where it does not add up. */
static bool payload_split(struct spool_read *read, size_t size)
{
    const unsigned char *payload = read->payload, *at, *end = payload + size;
    uint32_t count = read->head.messages, offset = 0;
    char *name;

    if (size < 4 || count == 0 || (read->stream_count = get32(payload)) > size / 2)
        return false;
    at = payload + 4;
    read->streams = calloc(read->stream_count + 1, sizeof(*read->streams));
    read->names = name = malloc(size + 1);
    read->messages = calloc(count, sizeof(*read->messages));
    if (read->streams == NULL || name == NULL || read->messages == NULL)
        abort();
    for (uint32_t i = 0; i < read->stream_count; i++) {
        size_t length;

        if (end - at < 2 || (size_t)(end - at - 2) < (length = get16(at)))
            return false;
        memcpy(name, at + 2, length);
        name[length] = '\0';
        read->streams[i] = name;
        name += length + 1;
        at += 2 + length;
    }
    if ((size_t)(end - at) / MESSAGE_SIZE < count)
        return false;
    for (uint32_t i = 0; i < count; i++, at += MESSAGE_SIZE) {
        struct pen_message *message = &read->messages[i];

        message->offset = offset;
        message->size = get32(at);
        message->stream = get32(at + 4);
        message->source = get32(at + 8);
        message->position = get64(at + 16);
        message->ticks = (int64_t)get64(at + 24);
        if (message->stream >= read->stream_count || message->size >= PAYLOAD_MAX || offset >= PAYLOAD_MAX)
            return false;
        offset += message->size + 1;
    }
    read->data_size = (size_t)(end - at);
    if (read->data_size + 1 != offset)
        return false;
    memmove(read->payload, at, read->data_size);
    return true;
}

static bool read_payload(struct spool_read *read, int fd)
{
    unsigned char *stored = malloc(read->head.stored + 1u), *plain;
    bool good;

    if (stored == NULL)
        abort();
    good = io_read_full(fd, stored, read->head.stored, read->offset + HEAD_SIZE) == (ssize_t)read->head.stored &&
        crc32c(stored, read->head.stored) == read->head.crc;
    if (good && (read->head.flags & FLAG_ZSTD) != 0) {
        plain = malloc(read->head.plain + 1u);
        if (plain == NULL)
            abort();
        good = ZSTD_decompress(plain, read->head.plain, stored, read->head.stored) == read->head.plain;
        free(stored);
        stored = plain;
    }
    read->payload = stored;
    return good && payload_split(read, read->head.plain);
}

void spool_read_run(struct spool_read *read)
{
    char path[32];
    int fd;

    segment_path(path, read->number);
    read->next = read->end;
    fd = io->openat(read->dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0 && errno == ENOENT) {               /* somebody took it away: all of it is lost */
        read->damaged = true;
        read->offset = read->end;
        return;
    }
    if (fd < 0) {
        read->trouble = -errno;
        return;
    }
    do {
        read->offset = head_find(fd, read->at, read->end, &read->head);
        if (read->offset > read->at)
            read->damaged = true;
        if (read->offset >= read->end)
            break;
        read->next = read->offset + HEAD_SIZE + read->head.stored;
        read->at = read->next;
    } while ((read->head.flags & FLAG_TRAILER) != 0);
    if (read->offset < read->end) {
        read->good = read_payload(read, fd);
        read->damaged = read->damaged || !read->good;
    }
    io->close(fd);
}

int spool_read_trouble(const struct spool_read *read)
{
    return read->trouble;
}

struct batch *spool_read_done(struct spool_read *read, struct budget *budget, struct spool_frame **frame,
                              uint64_t *order, bool *own_life)
{
    struct spool *spool = read->spool;
    struct segment *segment = segment_find(spool, read->number);
    struct batch *batch = NULL;

    spool->reading = false;
    if (read->trouble < 0) {
        free(read);
        return NULL;
    }
    segment->read_at = read->next;
    if (read->damaged) {
        spool->damaged++;
        log_line(LOG_ERROR, "damage in the spool was passed over; what could not be read is counted as dropped",
                 "dir", spool->dir, "segment", log_number(read->number), "offset", log_number(read->offset), NULL);
    }
    if (read->offset >= read->end) {               /* fewer whole frames than were counted */
        spool->untaken -= read->untaken;           /* and not what was appended meanwhile */
        segment->untaken -= read->untaken;
    } else {
        segment->untaken--;
        spool->untaken--;
    }
    if (read->good) {
        batch = batch_new(budget, read->head.kind, 1, 0);
        budget_give(budget, batch->capacity);
        free(batch->data);
        batch->data = (char *)read->payload;
        batch->size = read->data_size;
        batch->capacity = read->head.plain;
        batch->messages = read->messages;
        batch->count = batch->message_capacity = batch->unsafe = read->head.messages;
        batch->streams = read->streams;
        batch->stream_count = batch->stream_capacity = read->stream_count;
        batch->names = read->names;
        budget_take(budget, batch->capacity + (size_t)batch->message_capacity * sizeof(*batch->messages));
        *frame = frame_take(spool, segment, read->offset, read->next, read->head.messages);
        *order = read->head.order;
        *own_life = read->head.life == spool->conf.life;
        if (!*own_life)
            for (uint32_t i = 0; i < batch->count; i++)
                batch->messages[i].source = UINT32_MAX;
    } else {
        free(read->payload);
        free(read->messages);
        free(read->streams);
        free(read->names);
        segment_retire(spool, segment);
        spool_seal_empty(spool);
    }
    free(read);
    return batch;
}
