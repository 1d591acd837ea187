/*
 * spool.c - the queue of segments: what waits, what was taken, what is settled, and the cap.
 *
 * A spool is a folder of segments (segment.c has their format), named by the number of their first message and written one
 * after the other. So a segment's messages are those from its name up to the next one's: whatever a file may hold beyond
 * that is an append that was taken back.
 *
 *      settled │ taken: in memory, to be settled │ untaken │ appended
 *     ─────────┼─────────────────────────────────┼─────────┼──────────▶
 *              place                             read_at   the last segment's end
 *
 * Opening lists the folder's names and sizes, reads the head at the saved place, and walks the heads of the last segment
 * alone, because no name tells its end. For 100 GB that is 1,600 names, and the same reading as for one segment; memory is
 * about 100 bytes per segment, and 4 more per source for those of this life.
 *
 * The cap counts blocks of the disk: of the folder, its segments, and whatever else lies in it. Before an append the most it
 * can take is held against the cap, and fallocated, so that no file system takes more than that ahead of us.
 *
 * If we die
 *   while appending: the tail is torn, or whole and unacknowledged, and then sent twice. A new process never appends to an
 *   old segment. A last segment without one whole frame is removed if it is the beginning of one, else set aside.
 *   and the power goes later: a new process syncs what the old one left last, before it numbers anything after it.
 *   after an append failed, before its bytes were cut off: the next segment's name says that they do not count.
 *   after a frame was settled, before the place was saved: it is sent again, with the same event ids.
 *   while a segment is unlinked: it is gone or still there; if it is, the saved place says it is done. Segments go oldest
 *   first, so none is ever missing between two others, but where drop-oldest took one; then its messages are counted as
 *   dropped once more.
 *
 * Damage costs the messages of the frames it hit, no others; how many these were the next whole head tells, or the next
 * segment's name. They are counted as dropped, and one error names segment and offset. A segment of which nothing could be
 * read is set aside under another name rather than removed; so is one with places that the disk did not give back. What the
 * disk or the process has no right, no descriptor or no key to read is not damage: it waits, and so does all behind it.
 *
 * In tests/model/outlet.pml a job on the pool is IDLE, RUNNING, SYNCED (the loop has not heard of it) or FAILED; the frames
 * that spool_append_done() has counted are `known` there, those of an append under way are `written`.
 */
#include "daemon/spool.h"

#include "daemon/io.h"
#include "daemon/log.h"
#include "daemon/segment.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <zstd.h>

/* What an append may cost beside its bytes: the file's map of extents, the folder growing by a name. */
#define SLACK_BYTES ((uint64_t)16 * 1024)
#define BLOCK_BYTES ((uint64_t)4096)
/* So long a place of the disk that gives errors is tried again before it is given up. A bad sector holds the queue for this
 * time, once; a disk that is away comes back within it, or takes the whole state folder with it. */
#define READ_PATIENCE_S 300
_Static_assert(SPOOL_APPEND_MAX <= SEGMENT_TAIL_MAX, "segment_measure() looks at the frames of one append");

struct segment {
    TAILQ_ENTRY(segment) entry;
    uint64_t number;                 /* of its first message */
    uint64_t count;                  /* of its messages */
    uint64_t passed;                 /* of them: taken, or lost */
    uint64_t bytes;                  /* of the disk */
    uint64_t size;                   /* of the file, where it is of this life; else 0: as it is */
    uint64_t read_at;                /* next untaken frame */
    uint64_t room;                   /* fallocated up to here, while it is appended to */
    uint32_t *rows;                  /* [conf.rows] untaken messages; NULL: of an earlier life, all are the last row's */
    uint32_t taken;                  /* frames in the spool's list of taken ones */
    int64_t trouble_since_s;         /* the disk gives errors at read_at; 0: it does not */
    bool sealed;                     /* nothing is appended any more */
    bool read;                       /* some frame of it was whole */
    bool unreadable;                 /* the disk did not give back some place of it */
    bool alien;                      /* another version's */
    bool damaged, locked;            /* said already */
};

struct spool_frame {
    TAILQ_ENTRY(spool_frame) entry;
    struct segment *segment;
    uint64_t offset;
    uint32_t unsettled;              /* messages */
};

struct spool {
    struct spool_conf conf;
    char *dir;
    int dir_fd;
    TAILQ_HEAD(segments, segment) segments;  /* oldest first */
    TAILQ_HEAD(frames, spool_frame) taken; /* in order of place */
    uint64_t bytes;                  /* of segments and other files */
    uint64_t dir_bytes;              /* of the folder itself */
    uint64_t untaken;                /* messages, in all segments */
    uint64_t damaged, next_number;
    uint64_t *rows;                  /* unsettled messages, taken ones too */
    uint64_t *lost;                  /* by rows: messages of frames that could not be read back */
    int write_fd;                    /* of the last segment, while it is not sealed; else -1 */
    struct segment_header write_header;    /* of the same */
    bool appending, reading;
};

static uint32_t last_row(const struct spool *spool)
{
    return spool->conf.rows - 1;
}

static uint64_t segment_untaken(const struct segment *segment)
{
    return segment->count - segment->passed;
}

/* Of the clock that nobody sets; from 1. */
static int64_t now_s(void)
{
    struct timespec now = { 0 };

    (void)io->clock(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1;
}

static uint64_t fd_bytes(int fd)
{
    struct stat st;

    return io->fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* ---- Segments ---- */

static struct segment *segment_add(struct spool *spool, uint64_t number)
{
    struct segment *segment = calloc(1, sizeof(*segment));

    if (segment == NULL)
        abort();
    segment->number = number;
    segment->read_at = SEGMENT_BEGIN;
    TAILQ_INSERT_TAIL(&spool->segments, segment, entry);
    return segment;
}

static void segment_forget(struct spool *spool, struct segment *segment)
{
    assert(segment->taken == 0);
    spool->bytes -= segment->bytes;
    spool->untaken -= segment_untaken(segment);
    TAILQ_REMOVE(&spool->segments, segment, entry);
    free(segment->rows);
    free(segment);
}

static void segment_set_bytes(struct spool *spool, struct segment *segment, uint64_t bytes)
{
    spool->bytes += bytes - segment->bytes;
    segment->bytes = bytes;
}

static void segment_unlink(struct spool *spool, struct segment *segment)
{
    char path[SEGMENT_PATH_SIZE];

    segment_path(path, segment->number);
    if (io->unlinkat(spool->dir_fd, path, 0) < 0 && errno != ENOENT)
        log_line(LOG_WARN, "a finished segment of the spool could not be removed, it will be at the next start",
                 "dir", spool->dir, "segment", path, "error", strerror(errno), NULL);
    segment_forget(spool, segment);
}

/* Its bytes stay in the folder, and count. */
static void segment_put_aside(struct spool *spool, struct segment *segment)
{
    uint64_t bytes = segment->bytes;
    char path[SEGMENT_PATH_SIZE];
    int r = segment_set_aside(spool->dir_fd, segment->number);

    segment_path(path, segment->number);
    if (r != UV_ENOENT)
        log_line(LOG_ERROR, r == 0 ? "a segment of the spool cannot be read: it is set aside, under a name that ends in .aside"
                                   : "a segment of the spool cannot be read, nor set aside; it is passed over",
                 "dir", spool->dir, "segment", path, "why",
                 segment->alien ? "another version of Penstock wrote it: deliver it with that one"
                 : segment->unreadable ? "the disk does not give it back" : "nothing in it is whole", NULL);
    segment_forget(spool, segment);
    spool->bytes += r != UV_ENOENT ? bytes : 0;
}

/* Everything in it is taken or lost. What its rows still count was in frames that nobody could read. */
static void segment_finish(struct spool *spool, struct segment *segment)
{
    if (segment_untaken(segment) > 0)
        return;
    for (uint32_t row = 0; segment->rows != NULL && row < spool->conf.rows; row++) {
        spool->lost[row] += segment->rows[row];
        spool->rows[row] -= segment->rows[row];
        segment->rows[row] = 0;
    }
}

/* Segments go once they are sealed, read to their end, and settled; the oldest first. */
static void spool_retire(struct spool *spool)
{
    struct segment *segment;

    while ((segment = TAILQ_FIRST(&spool->segments)) != NULL && segment->sealed && segment_untaken(segment) == 0 &&
           segment->taken == 0) {
        if (segment->damaged && (!segment->read || segment->unreadable))
            segment_put_aside(spool, segment);
        else
            segment_unlink(spool, segment);
    }
}

/* ---- Opening ---- */

/* It was appended to when its process died: gives back what was allocated ahead. */
static void segment_trim(struct spool *spool, struct segment *segment, uint64_t size)
{
    char path[SEGMENT_PATH_SIZE];
    int fd;

    segment_path(path, segment->number);
    fd = io->openat(spool->dir_fd, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0)
        return;
    if (io->ftruncate(fd, (off_t)size) == 0)
        segment_set_bytes(spool, segment, fd_bytes(fd));
    io->close(fd);
}

static int spool_open_file(const struct spool *spool, const struct segment *segment, struct segment_file *file)
{
    unsigned tries = 0;
    int r;

    do
        r = segment_open(file, spool->dir_fd, segment->number);
    while (r < 0 && io_again(-r, &tries));
    return r;
}

static int spool_open_last(struct spool *spool, struct segment *segment)
{
    struct segment_file file;
    int r = spool_open_file(spool, segment, &file);
    bool torn;

    if (r == UV_EIO || r == UV_ELOOP) {
        segment->unreadable = true;
        segment_put_aside(spool, segment);
        return 0;
    }
    if (r < 0)
        return r;
    segment->count = segment_measure(&file);
    /* Perhaps it was killed before it had synced this, and now the power goes: what is numbered after it must find it. */
    (void)!io->fdatasync(file.fd);
    (void)!io->fsync(spool->dir_fd);
    spool->untaken += segment->count;
    segment->alien = file.alien > 0;
    torn = segment->count == 0 && segment_is_torn(&file);
    segment_close(&file);
    if (torn)
        segment_unlink(spool, segment);
    else if (segment->count == 0)
        segment_put_aside(spool, segment);
    else if (file.bytes > file.size + SLACK_BYTES)
        segment_trim(spool, segment, file.size);
    return 0;
}

/* The segment in which the saved place lies: the head there tells how many messages were settled before it. */
static int spool_open_place(struct spool *spool, struct segment *segment, uint64_t offset)
{
    struct segment_frame frame;
    struct segment_file file;
    int r = spool_open_file(spool, segment, &file);

    if (r < 0)
        return r;
    if (file.alien == 0) {                         /* else it is set aside when it is read */
        (void)segment_next(&file, offset, file.size, true, &frame);
        segment->read_at = offset;
        segment->passed = frame.offset < file.size && frame.before < segment->count ? frame.before : segment->count;
        spool->untaken -= segment->passed;
    }
    segment_close(&file);
    return 0;
}

static void spool_open_names(struct spool *spool, const struct segment_names *names)
{
    char path[SEGMENT_PATH_SIZE];
    struct segment *segment = NULL;

    for (size_t i = 0; i < names->count; i++) {
        uint64_t number = names->at[i].number;

        if (number < spool->conf.place.segment) {  /* settled, and we died before it was gone */
            segment_path(path, number);
            if (io->unlinkat(spool->dir_fd, path, 0) < 0 && errno != ENOENT)
                spool->bytes += names->at[i].bytes;
            continue;
        }
        if (segment != NULL) {
            segment->count = number - segment->number;
            spool->untaken += segment->count;
        }
        segment = segment_add(spool, number);
        segment->sealed = true;
        segment_set_bytes(spool, segment, names->at[i].bytes);
    }
    spool->bytes += names->other_bytes;
    if (names->aside > 0)
        log_line(LOG_WARN, "files that were set aside lie in the spool's folder and take of its room", "dir", spool->dir,
                 "files", log_number(names->aside), NULL);
}

static int spool_open_recover(struct spool *spool)
{
    const struct spool_place *place = &spool->conf.place;
    struct segment_names names;
    struct segment *segment;
    int r = segment_names_read(&names, spool->dir_fd);

    if (r < 0)
        return r;
    spool_open_names(spool, &names);
    segment_names_free(&names);
    segment = TAILQ_LAST(&spool->segments, segments);
    spool->next_number = place->segment + (place->offset > 0);
    if (segment != NULL) {
        spool->next_number = segment->number;
        r = spool_open_last(spool, segment);
        segment = TAILQ_LAST(&spool->segments, segments);
        if (segment != NULL)
            spool->next_number = segment->number + segment->count;
    }
    if (spool->next_number == 0)
        spool->next_number = 1;
    segment = TAILQ_FIRST(&spool->segments);
    if (r == 0 && segment != NULL && segment->number == place->segment && place->offset > SEGMENT_BEGIN)
        r = spool_open_place(spool, segment, place->offset);
    spool->rows[last_row(spool)] = spool->untaken;
    if (r == 0)
        spool_retire(spool);
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
    /* Commands that change a spool ask for the same lock. It reaches no disk and is not in the table of io.h. */
    if (flock(spool->dir_fd, LOCK_EX | LOCK_NB) < 0) {
        r = pen_error_set(err, UV_EBUSY, "%s: the spool is in use by another process", conf->dir);
        goto fail;
    }
    spool->dir_bytes = fd_bytes(spool->dir_fd);
    r = spool_open_recover(spool);
    if (r < 0) {
        pen_error_set(err, r, "%s: the spool cannot be read: %s", conf->dir, uv_strerror(r));
        goto fail;
    }
    *ret = spool;
    return 0;
fail:
    spool_close(spool);
    return r;
}

/* Nothing more will be appended to the last segment. */
static void spool_close_write(struct spool *spool)
{
    if (spool->write_fd >= 0)
        io->close(spool->write_fd);
    spool->write_fd = -1;
}

void spool_close(struct spool *spool)
{
    struct segment *segment;
    struct spool_frame *frame;

    if (spool == NULL)
        return;
    assert(!spool->appending && !spool->reading);
    while ((frame = TAILQ_FIRST(&spool->taken)) != NULL) {
        TAILQ_REMOVE(&spool->taken, frame, entry);
        free(frame);
    }
    segment = TAILQ_LAST(&spool->segments, segments);
    if (spool->write_fd >= 0)                      /* gives back what was allocated ahead; else the next start does */
        (void)!io->ftruncate(spool->write_fd, (off_t)segment->size);
    spool_close_write(spool);
    while ((segment = TAILQ_FIRST(&spool->segments)) != NULL) {
        segment->taken = 0;
        segment_forget(spool, segment);
    }
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

uint64_t spool_damaged(const struct spool *spool)
{
    return spool->damaged;
}

struct spool_place spool_place(const struct spool *spool)
{
    const struct spool_frame *frame = TAILQ_FIRST(&spool->taken);
    const struct segment *segment;

    if (frame != NULL)
        return (struct spool_place){ frame->segment->number, frame->offset };
    TAILQ_FOREACH(segment, &spool->segments, entry)
        if (segment_untaken(segment) > 0 || !segment->sealed)
            return (struct spool_place){ segment->number, segment->read_at };
    return (struct spool_place){ spool->next_number, 0 };
}

uint64_t spool_lost(struct spool *spool, uint32_t row)
{
    uint64_t lost = spool->lost[row];

    spool->lost[row] = 0;
    return lost;
}

/* ---- Settling ---- */

/* Nothing unsettled is left: the open segment goes too, so that an empty spool is an empty folder. */
static void spool_seal_empty(struct spool *spool)
{
    struct segment *last = TAILQ_LAST(&spool->segments, segments);

    if (last == NULL || last->sealed || spool->appending || !spool_is_empty(spool))
        return;
    spool_close_write(spool);
    last->sealed = true;
    spool_retire(spool);
}

static struct spool_frame *frame_take(struct spool *spool, struct segment *segment, const struct segment_frame *found)
{
    struct spool_frame *frame = calloc(1, sizeof(*frame));

    if (frame == NULL)
        abort();
    frame->segment = segment;
    frame->offset = found->offset;
    frame->unsettled = found->messages;
    segment->taken++;
    TAILQ_INSERT_TAIL(&spool->taken, frame, entry);
    return frame;
}

void spool_settle(struct spool *spool, struct spool_frame *frame, uint32_t row, uint32_t n)
{
    assert(n <= frame->unsettled && n <= spool->rows[row]);
    frame->unsettled -= n;
    spool->rows[row] -= n;
    if (frame->unsettled > 0)
        return;
    TAILQ_REMOVE(&spool->taken, frame, entry);
    frame->segment->taken--;
    free(frame);
    spool_retire(spool);
    spool_seal_empty(spool);
}

bool spool_drop_oldest(struct spool *spool, uint64_t *lost)
{
    struct segment *segment;

    TAILQ_FOREACH(segment, &spool->segments, entry)
        if (segment->taken == 0 && segment_untaken(segment) > 0 && segment->sealed && !spool->reading)
            break;
    if (segment == NULL)
        return false;
    for (uint32_t row = 0; row < spool->conf.rows; row++) {
        uint64_t n = segment->rows != NULL ? segment->rows[row] : row == last_row(spool) ? segment_untaken(segment) : 0;

        lost[row] += n;
        spool->rows[row] -= n;
    }
    segment_unlink(spool, segment);
    return true;
}

/* ---- Append ---- */

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
    return spool->bytes + spool->dir_bytes + more + SLACK_BYTES <= spool->conf.bytes_max;
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
    struct segment *last = TAILQ_LAST(&spool->segments, segments);
    bool fresh = last == NULL || last->sealed;
    uint64_t room = fresh ? 0 : last->room, end = fresh ? SEGMENT_BEGIN : last->size;
    struct spool_append *append;
    uint32_t fit;

    assert(!spool->appending);
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
    append->bytes = append->fd >= 0 ? fd_bytes(append->fd) : 0;
    append->dir_bytes = fd_bytes(append->dir_fd);
    ZSTD_freeCCtx(zstd);
    append->result = r;
}

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
    segment_set_bytes(spool, last, fd_bytes(append->fd));
    spool_close_write(spool);
    last->sealed = true;
    spool_retire(spool);
}

/* The part lies in the segment, and on disk. */
static void append_count(struct spool *spool, struct segment *segment, struct part *part, const struct segment_frame *frame)
{
    for (uint32_t m = 0; m < part->lent.count; m++) {
        uint32_t source = part->lent.messages[m].source, row = source < last_row(spool) ? source : last_row(spool);

        spool->rows[row]++;
        segment->rows[row] += !part->keep;
    }
    segment->count += frame->messages;
    if (part->keep) {
        assert(segment->count - frame->messages == segment->passed);   /* kept parts come first, or when nothing waits */
        part->frame = frame_take(spool, segment, frame);
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
        last = segment_add(spool, append->number);
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
    segment_set_bytes(spool, last, append->bytes);
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

/* ---- Read ---- */

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
        .keys = spool->conf.keys, .dir_fd = spool->dir_fd, .over = segment->trouble_since_s > 0 && now_s() - segment->trouble_since_s >= READ_PATIENCE_S,
    };
    spool->reading = true;
    return read;
}

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
    log_line(read->clean && read->loaded == SEGMENT_LOADED && !read->gone ? LOG_WARN : LOG_ERROR, read->gone ? "a segment of the spool is gone; what it held is counted as dropped"
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

        claimed[source < last_row(spool) ? source : last_row(spool)]++;
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
        spool->rows[last_row(spool)] -= lost;
        spool->lost[last_row(spool)] += lost;
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
        *frame = frame_take(spool, read->segment, &read->frame);
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
