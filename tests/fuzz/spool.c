/*
 * spool.c - any bytes as segments of a spool: it opens, is read to its end, and every count comes out even.
 *
 * Segments are made by the spool itself from the input, then changed as the input says: bytes flipped, cut, doubled, or all
 * of it replaced. A quarter of the inputs keep real checksums: then what is read back must be what was written. In the others
 * every checksum is right, so that the fuzzer gets behind them: what a segment says may be a lie then, but never our end.
 *
 * Chance and the clock are the same in every run, and nothing is synced: what happens depends on the input alone, and soon.
 *
 * Input: 1 byte mode, 1 byte how many frames, 2 bytes where the saved place is; then changes: 1 byte what, 2 bytes where,
 * 1 byte of value; for a file replaced by any bytes, the rest of the input.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/base/log.h"
#include "daemon/disk/io.h"
#include "daemon/disk/spools.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROWS 2
#define CHANGES_MAX 16
#define FILE_MAX (1 << 20)

static bool honest;                  /* checksums are real */

/* In place of ISA-L's. */
unsigned crc32_iscsi(unsigned char *data, int size, unsigned start);
unsigned crc32_iscsi(unsigned char *data, int size, unsigned start)
{
    if (!honest)
        return 0xffffffff;
    for (int i = 0; i < size; i++) {
        start ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            start = start >> 1 ^ (0x82f63b78 & -(start & 1));
    }
    return start;
}

static int no_sync(int fd)
{
    (void)fd;
    return 0;
}

static int fixed_clock(clockid_t clock, struct timespec *now)
{
    (void)clock;
    *now = (struct timespec){ .tv_sec = 1700000000 };
    return 0;
}

static int fixed_random(void *into, size_t size)
{
    static unsigned char next;

    if (into == NULL)
        next = 0;
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)into)[i] = next++;
    return 0;
}

static const struct keys *keys_once(void)
{
    static struct keys *keys;
    struct pen_error err = { 0 };
    char path[128];
    FILE *file;

    if (keys != NULL)
        return keys;
    snprintf(path, sizeof(path), "%s/key", fuzz_folder());
    file = fopen(path, "w");
    assert(file != NULL && fchmod(fileno(file), 0600) == 0);
    fputs("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n", file);
    fclose(file);
    if (keys_read(&keys, path, &err) < 0)
        abort();
    return keys;
}

static struct budget budget;

/* What message i of frame n says; its position says n as well. */
static size_t message_text(char text[64], unsigned n, unsigned i)
{
    return (size_t)snprintf(text, 64, "{\"frame\":%u,\"message\":%u,\"pad\":\"%.*s\"}", n, i, (int)(n % 20), "xxxxxxxxxxxxxxxxxxxx");
}

static struct part *part_make(unsigned n)
{
    struct batch *batch = batch_new(&budget, (enum pen_kind)(n % PEN_KINDS), 64, 0);
    char text[64];

    for (unsigned i = 0; i <= n % 3; i++)
        batch_add(batch, text, message_text(text, n, i),
                  &(struct batch_origin){ .stream = n % 2 ? "odd" : "even", .source = 0, .position = n, .ticks = i });
    return part_new(NULL, batch, n, 0);
}

static void fill(const struct spool_conf *conf, unsigned frames)
{
    struct pen_error err = { 0 };
    struct part *parts[SPOOL_APPEND_MAX];
    struct spool *spool;
    uint32_t taken;
    int r = spool_open(&spool, conf, &err);

    assert(r == 0);
    for (unsigned from = 0; from < frames; from += taken) {
        uint32_t count = frames - from < 3 ? frames - from : 3;
        struct spool_append *append;

        for (uint32_t i = 0; i < count; i++)
            parts[i] = part_make(from + i);
        append = spool_append_new(spool, parts, count, &taken);
        assert(append != NULL && taken > 0);
        spool_append_run(append);
        r = spool_append_done(append);
        assert(r == 0);
        for (uint32_t i = 0; i < count; i++) {
            if (i < taken)
                batch_safe(parts[i]->batch, parts[i]->lent.count);
            part_free(parts[i]);
        }
    }
    spool_close(spool);
}

/* ---- Changes ---- */

/* The n-th file of the folder, by name. */
static int file_open(unsigned n, char path[static 384])
{
    struct dirent **entries;
    int count = scandir(fuzz_folder(), &entries, NULL, alphasort), fd = -1;

    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.' && n-- == 0) {
            snprintf(path, 384, "%s/%s", fuzz_folder(), entries[i]->d_name);
            fd = open(path, O_RDWR | O_CLOEXEC);
        }
        free(entries[i]);
    }
    free(entries);
    return fd;
}

static void file_rename(const char *path, unsigned number)
{
    char to[384];

    snprintf(to, sizeof(to), "%s/%016x.seg", fuzz_folder(), number);
    (void)!rename(path, to);
}

static void change(struct feed *feed)
{
    uint8_t what = feed_byte(feed);
    size_t where = feed_number(feed, 2);
    uint8_t value = feed_byte(feed);
    char *bytes = malloc(FILE_MAX), path[384];
    int fd = file_open(what >> 5 & 3, path);
    ssize_t size = fd < 0 ? -1 : pread(fd, bytes, FILE_MAX, 0);

    assert(bytes != NULL);
    if (size > 0) {
        struct pen_span file;

        if ((what & 15) == 8)
            file_rename(path, (unsigned)where);
        where = what & 16 ? (size_t)size - 1 - where % (size_t)size : where % (size_t)size;   /* from either end */
        switch (what & 15) {
        case 0: case 1: case 2:
            bytes[where] = (char)value;
            break;
        case 3:
            bytes[where] ^= (char)(1 << (value & 7));
            break;
        case 4:
            size = (ssize_t)where;
            break;
        case 5:
            if (size + value * 4 < FILE_MAX && where + value * 4u <= (size_t)size) {
                memmove(bytes + where + value * 4u, bytes + where, (size_t)size - where);
                size += value * 4;
            }
            break;
        case 6:
            memset(bytes + where, value, (size_t)size - where < 4 ? (size_t)size - where : 4);
            break;
        case 7:
            file = feed_span(feed, FILE_MAX);
            size = (ssize_t)file.size;
            memcpy(bytes, file.data, file.size);
            break;
        }
        if (ftruncate(fd, 0) < 0 || pwrite(fd, bytes, (size_t)size, 0) != size)
            abort();
    }
    if (fd >= 0)
        close(fd);
    free(bytes);
}

/* ---- Reading back ---- */

static void assert_batch(const struct batch *batch, uint64_t order)
{
    char text[64];

    assert(batch->count > 0 && batch->kind < PEN_KINDS);
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct pen_message *message = &batch->messages[i];

        assert(message->offset + (size_t)message->size <= batch->size && message->stream < batch->stream_count);
        assert(message->source == UINT32_MAX);
        (void)strlen(batch->streams[message->stream]);
        if (!honest)
            continue;
        assert(message->position == order && batch->count == order % 3 + 1 && batch->kind == order % PEN_KINDS);
        assert(message->size == message_text(text, (unsigned)order, i));
        assert(memcmp(batch->data + message->offset, text, message->size) == 0);
        assert(strcmp(batch->streams[message->stream], order % 2 ? "odd" : "even") == 0);
    }
}

/* What commands see without opening it; they print the words. */
struct seen {
    const struct spool_look *look;
    uint64_t whole, locked, lost;
};

static void assert_word(const char *word)
{
    assert(strlen(word) <= SEGMENT_WORD_MAX && judge_line((struct pen_span){ word, strlen(word) }, false));
    assert(strpbrk(word, "\"\\ ") == NULL);
}

static void on_frame(void *arg, const struct segment_file *file, const struct segment_frame *frame,
                     const struct segment_payload *payload)
{
    struct seen *seen = arg;

    if (file->has_header) {
        assert_word(file->header.schema);
        assert_word(file->header.type);
    }
    *(payload != NULL ? &seen->whole : &seen->locked) += frame->messages;
    for (uint32_t i = 0; payload != NULL && i < frame->messages; i++) {
        const struct pen_message *message = &payload->messages[i];

        assert(message->offset + (size_t)message->size <= payload->size && message->stream < payload->stream_count);
    }
}

static void on_lost(void *arg, uint64_t segment, uint64_t offset, uint64_t messages)
{
    (void)segment;
    (void)offset;
    ((struct seen *)arg)->lost += messages;
}

static void visit(const struct spool_conf *conf)
{
    struct spool_look look;
    struct seen seen = { .look = &look };
    const struct spool_visitor visitor = { on_frame, on_lost, &seen };

    if (spool_look(&look, conf->dir, conf->place) < 0)
        return;
    if (look.has_header) {
        assert_word(look.newest.schema);
        assert_word(look.newest.type);
    }
    /* Behind damage at the saved place nobody knows how much was settled. */
    if (spool_visit(conf->dir, conf->place, conf->keys, &visitor) == 0 && honest && conf->place.offset == 0)
        assert(seen.whole + seen.locked + seen.lost == look.messages);
}

/* One frame; messages that came, 0 where none could be read. */
static uint64_t take(struct spool *spool)
{
    struct spool_read *read = spool_read_new(spool);
    struct spool_frame *frame;
    struct batch *batch;
    uint64_t order, count;
    bool own_life;

    assert(read != NULL);
    spool_read_run(read);
    batch = spool_read_done(read, &budget, &frame, &order, &own_life);
    if (batch == NULL)
        return 0;
    assert_batch(batch, order);
    count = batch->count;
    spool_settle(spool, frame, ROWS - 1, batch->count);
    part_free(part_new(NULL, batch, order, 0));
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = feed_of(data, size);
    uint8_t mode = feed_byte(&feed), frames = feed_byte(&feed) % 48;
    uint64_t offset = feed_number(&feed, 2), found, came = 0, lost = 0, before;
    struct pen_error err = { 0 };
    struct spool_conf conf = { .dir = fuzz_folder(), .bytes_max = mode & 4 ? 1 << 17 : 1 << 20, .rows = ROWS, .life = 1,
                               .schema = "asim", .type = "sentinel", .compress = mode & 8, .keys = mode & 32 ? keys_once() : NULL };
    struct io ours = io_posix;
    struct spool *spool;

    ours.fdatasync = ours.fsync = no_sync;
    ours.clock = fixed_clock;
    ours.random = fixed_random;
    io = &ours;
    (void)fixed_random(NULL, 0);
    log_set_level((enum log_level)0);
    honest = (mode & 3) == 0;
    fuzz_folder_clear();
    fill(&conf, frames);
    for (unsigned i = 0; feed_left(&feed) > 0 && i < CHANGES_MAX; i++)
        change(&feed);

    /* Everything, in a second life. */
    conf.life = 0x123456789abcdef;
    if (mode & 16)
        conf.place = (struct spool_place){ 1, offset };
    visit(&conf);
    if (spool_open(&spool, &conf, &err) < 0) {
        assert(judge_line((struct pen_span){ err.text, strlen(err.text) }, false) && err.text[0] != '\0');
        return 0;
    }
    found = spool_messages(spool, ROWS - 1);
    /* What seems locked by a key that is not there waits: after some turns without progress it is left alone. */
    for (unsigned vain = 0; spool_untaken(spool) > 0 && vain < 10; vain = spool_untaken(spool) < before ? 0 : vain + 1) {
        before = spool_untaken(spool);
        came += take(spool);
        lost += spool_lost(spool, ROWS - 1);
        assert(spool_untaken(spool) <= before);
    }
    assert(came + lost + spool_untaken(spool) == found && spool_messages(spool, ROWS - 1) == spool_untaken(spool));
    assert(spool_untaken(spool) == 0 || !honest);
    assert(spool_is_empty(spool) == (spool_untaken(spool) == 0));
    spool_close(spool);
    io = &io_posix;
    assert(budget.held == 0);
    return 0;
}
