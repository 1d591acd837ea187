/*
 * spool.c - the queue of segments: what waits, what was taken, what is settled, and the cap.
 *
 * A spool is a folder of segments (segment.c has their format), named by the number of their first message and written one
 * after the other. So a segment's messages are those from its name up to the next one's: whatever a file may hold beyond
 * that is an append that was taken back. spool_append.c writes at the end, spool_read.c takes what is untaken.
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
#include "daemon/disk/spool_queue.h"

#include "daemon/base/log.h"
#include "daemon/disk/io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

_Static_assert(SPOOL_APPEND_MAX <= SEGMENT_TAIL_MAX, "segment_measure() looks at the frames of one append");

uint64_t spool_fd_bytes(int fd)
{
    struct stat st;

    return io->fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* ---- Segments ---- */

struct segment *spool_segment_add(struct spool *spool, uint64_t number)
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

void spool_segment_set_bytes(struct spool *spool, struct segment *segment, uint64_t bytes)
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

void spool_retire(struct spool *spool)
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
        spool_segment_set_bytes(spool, segment, spool_fd_bytes(fd));
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
    else if (file.bytes > file.size + SPOOL_SLACK_BYTES)
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
        segment = spool_segment_add(spool, number);
        segment->sealed = true;
        spool_segment_set_bytes(spool, segment, names->at[i].bytes);
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
    spool->rows[spool_last_row(spool)] = spool->untaken;
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
    spool->dir_bytes = spool_fd_bytes(spool->dir_fd);
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

void spool_close_write(struct spool *spool)
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

bool spool_has_lost(const struct spool *spool)
{
    return spool->has_lost;
}

uint64_t spool_lost(struct spool *spool, uint32_t row)
{
    uint64_t lost = spool->lost[row];

    spool->lost[row] = 0;
    if (row == spool_last_row(spool))              /* whoever asks asks for all, in order */
        spool->has_lost = false;
    return lost;
}

/* ---- Change ---- */

static bool words_differ(const char *a, const char *b)
{
    return (a == NULL) != (b == NULL) || (a != NULL && strcmp(a, b) != 0);
}

void spool_change(struct spool *spool, const struct spool_conf *conf)
{
    spool->turn |= words_differ(spool->conf.schema, conf->schema) || words_differ(spool->conf.type, conf->type) ||
        spool->conf.keys != conf->keys;
    spool->conf.schema = conf->schema;
    spool->conf.type = conf->type;
    spool->conf.keys = conf->keys;
    spool->conf.bytes_max = conf->bytes_max;
    spool->conf.compress = conf->compress;
}

void spool_turn(struct spool *spool)
{
    struct segment *last = TAILQ_LAST(&spool->segments, segments);

    assert(!spool->appending);
    spool->turn = false;
    if (last == NULL || last->sealed)
        return;
    if (spool->write_fd >= 0) {                    /* gives back what was allocated ahead; else the next start does */
        (void)!io->ftruncate(spool->write_fd, (off_t)last->size);
        spool_segment_set_bytes(spool, last, spool_fd_bytes(spool->write_fd));
    }
    spool_close_write(spool);
    last->sealed = true;
    spool_retire(spool);
}

/* ---- Settling ---- */

void spool_seal_empty(struct spool *spool)
{
    struct segment *last = TAILQ_LAST(&spool->segments, segments);

    if (last == NULL || last->sealed || spool->appending || !spool_is_empty(spool))
        return;
    spool_close_write(spool);
    last->sealed = true;
    spool_retire(spool);
}

struct spool_frame *spool_frame_take(struct spool *spool, struct segment *segment, const struct segment_frame *found)
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
        uint64_t n = segment->rows != NULL ? segment->rows[row] : row == spool_last_row(spool) ? segment_untaken(segment) : 0;

        lost[row] += n;
        spool->rows[row] -= n;
    }
    segment_unlink(spool, segment);
    return true;
}
