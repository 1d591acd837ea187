/*
 * Promise: what was appended and synced comes back whole and in order, in this life or the next; damage costs the frames
 * it hit and is counted; trouble that passes costs nothing, a key that is not there neither; the cap holds, in blocks of the
 * disk; and an empty spool is an empty folder.
 */
#include "daemon/disk/spool.h"

#include "daemon/disk/io.h"
#include "daemon/disk/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <isa-l/crc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define HEADER ((long)SEGMENT_BEGIN)
#define HEAD ((long)SEGMENT_HEAD_SIZE)

static struct {
    char dir[64];
    struct budget budget;
    struct spool *spool;
    struct spool_conf conf;
    struct keys *keys;
} bench;

static void bench_open(uint64_t life, struct spool_place place)
{
    struct pen_error err = { 0 };

    bench.conf = (struct spool_conf){ .dir = bench.dir, .bytes_max = bench.conf.bytes_max, .rows = 2, .life = life,
                                      .place = place, .keys = bench.keys, .compress = bench.conf.compress };
    assert_int_equal(spool_open(&bench.spool, &bench.conf, &err), 0);
}

static int bench_setup(void **state)
{
    (void)state;
    memset(&bench, 0, sizeof(bench));
    strcpy(bench.dir, "/tmp/penstock-spool-XXXXXX");
    bench.conf.bytes_max = 1 << 20;
    return mkdtemp(bench.dir) != NULL ? 0 : -1;
}

static int bench_teardown(void **state)
{
    char command[128];

    (void)state;
    io = &io_posix;
    spool_close(bench.spool);
    keys_free(bench.keys);
    assert_int_equal(bench.budget.held, 0);
    snprintf(command, sizeof(command), "rm -r %s", bench.dir);
    return system(command);
}

/* One batch of two messages that name it, and of `more` bytes that no compression makes smaller. */
static struct part *part_make(int n, size_t more)
{
    struct batch *batch = batch_new(&bench.budget, PEN_AUDIT, 64, 0);
    struct batch_origin origin = { .stream = "source/stream", .source = 0, .position = (uint64_t)n, .ticks = n };
    char *text = malloc(64 + more);

    for (int i = 0; i < 2; i++) {
        size_t size = (size_t)sprintf(text, "{\"n\":%d,\"i\":%d}", n, i);

        if (i == 1)
            assert_int_equal(io->random(text + size, more), 0);
        batch_add(batch, text, size + (i == 1 ? more : 0), &origin);
    }
    free(text);
    return part_new(NULL, batch, (uint64_t)n, 0);
}

/* Appends batches [from, from + count) in one go; the result. */
static int put_sized(int from, uint32_t count, size_t more, uint32_t *taken)
{
    struct part *parts[SPOOL_APPEND_MAX];
    struct spool_append *append;
    int r = 0;

    for (uint32_t i = 0; i < count; i++)
        parts[i] = part_make(from + (int)i, more);
    append = spool_append_new(bench.spool, parts, count, taken);
    if (append != NULL) {
        spool_append_run(append);
        r = spool_append_done(append);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (i < *taken && r == 0)
            batch_safe(parts[i]->batch, 2);
        part_free(parts[i]);
    }
    return r;
}

static int put(int from, uint32_t count, uint32_t *taken)
{
    return put_sized(from, count, 0, taken);
}

static void put_all(int from, uint32_t count)
{
    uint32_t taken;

    assert_int_equal(put(from, count, &taken), 0);
    assert_int_equal(taken, count);
}

/* Reads one frame back and settles it: its number, or -1. */
static int take_row(const uint32_t *row)
{
    struct spool_read *read = spool_read_new(bench.spool);
    struct spool_frame *frame;
    struct batch *batch;
    struct part *part;
    uint64_t order;
    bool own_life;
    int n;

    assert_non_null(read);
    spool_read_run(read);
    batch = spool_read_done(read, &bench.budget, &frame, &order, &own_life);
    if (batch == NULL)
        return -1;
    assert_int_equal(batch->count, 2);
    assert_int_equal(batch->kind, PEN_AUDIT);
    assert_string_equal(batch->streams[batch->messages[1].stream], "source/stream");
    n = (int)order;
    assert_int_equal(batch->messages[1].position, n);
    assert_int_equal(atoi(batch->data + batch->messages[1].offset + 5), n);
    assert_int_equal(batch->messages[0].source, own_life ? 0 : UINT32_MAX);
    if (row != NULL)
        assert_int_equal(own_life ? 0 : 1, *row);
    part = part_new(NULL, batch, order, 0);
    spool_settle(bench.spool, frame, own_life ? 0 : 1, 2);
    part_free(part);
    return n;
}

static int take(uint32_t row)
{
    return take_row(&row);
}

static int take_any(void)
{
    return take_row(NULL);
}

static unsigned files(void)
{
    DIR *dir = opendir(bench.dir);
    struct dirent *entry;
    unsigned count = 0;

    while ((entry = readdir(dir)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void assert_empty(void)
{
    assert_true(spool_is_empty(bench.spool));
    assert_int_equal(spool_bytes(bench.spool), 0);
    assert_int_equal(spool_messages(bench.spool, 0) + spool_messages(bench.spool, 1), 0);
    assert_int_equal(files(), 0);
}

static FILE *file_open(unsigned number)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%016x.seg", bench.dir, number);
    file = fopen(path, "r+");
    assert_non_null(file);
    return file;
}

/* Overwrites one byte of the segment. */
static void spoil(unsigned number, long at)
{
    FILE *file = file_open(number);

    fseek(file, at, SEEK_SET);
    fputc('#', file);
    fclose(file);
}

/* All frames of these tests with a number of one digit are of one size. */
static long frame_size(unsigned number, long frames)
{
    FILE *file = file_open(number);
    long size;

    fseek(file, 0, SEEK_END);
    size = (ftell(file) - HEADER) / frames;
    fclose(file);
    return size;
}

/* ---- Tests ---- */

static void test_comes_back_in_order(void **state)
{
    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 3);
    put_all(3, 2);
    assert_int_equal(spool_messages(bench.spool, 0), 10);
    for (int n = 0; n < 5; n++)
        assert_int_equal(take(0), n);
    assert_empty();
}

/* A head tells of the whole segment what its messages are, and whose key sealed them: where that changes, another one begins. */
static void test_a_change_of_what_they_are_begins_a_segment(void **state)
{
    struct spool_conf conf;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    conf = bench.conf;
    put_all(0, 2);
    conf.bytes_max = 2 << 20;
    spool_change(bench.spool, &conf);
    put_all(2, 1);
    assert_int_equal(files(), 1);
    conf.schema = "raw";
    spool_change(bench.spool, &conf);
    put_all(3, 2);
    assert_int_equal(files(), 2);
    for (int n = 0; n < 5; n++)
        assert_int_equal(take(0), n);
    assert_empty();
    conf.schema = "asim";
    spool_change(bench.spool, &conf);
    put_all(5, 1);                                 /* where there was none to be left */
    assert_int_equal(files(), 1);
    assert_int_equal(take(0), 5);
    assert_empty();
}

static void test_two_lives_and_a_place(void **state)
{
    struct spool_place place;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 4);
    assert_int_equal(take(0), 0);
    place = spool_place(bench.spool);
    assert_int_equal(take(0), 1);                  /* settled, and its place not saved: it repeats */
    spool_close(bench.spool);
    bench_open(2, place);
    assert_int_equal(spool_messages(bench.spool, 1), 6);
    put_all(4, 1);
    for (int n = 1; n < 4; n++)
        assert_int_equal(take(1), n);
    assert_int_equal(take(0), 4);
    assert_empty();
}

static void test_torn_tail_is_passed_over(void **state)
{
    FILE *file;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 3);
    spool_close(bench.spool);
    file = file_open(1);
    assert_int_equal(ftruncate(fileno(file), HEADER + 3 * frame_size(1, 3) - 1), 0);
    fclose(file);
    bench_open(2, (struct spool_place){ 0 });
    assert_int_equal(spool_messages(bench.spool, 1), 4);
    assert_int_equal(take(1), 0);
    assert_int_equal(take(1), 1);
    assert_empty();
}

static void test_damaged_head_costs_its_frame(void **state)
{
    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 3);
    spool_close(bench.spool);
    spoil(1, HEADER + frame_size(1, 3) + 9);
    bench_open(2, (struct spool_place){ 0 });
    assert_int_equal(take(1), 0);
    assert_int_equal(take(1), 2);
    assert_true(spool_damaged(bench.spool) > 0);
    assert_empty();
}

static void test_damaged_payload_costs_its_frame_and_is_counted(void **state)
{
    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 3);
    spool_close(bench.spool);
    spoil(1, HEADER + frame_size(1, 3) + HEAD + 20);
    bench_open(2, (struct spool_place){ 0 });
    assert_int_equal(spool_messages(bench.spool, 1), 6);
    assert_int_equal(take(1), 0);
    assert_int_equal(take(1), -1);
    assert_int_equal(take(1), 2);
    assert_int_equal(spool_lost(bench.spool, 1), 2);
    assert_empty();
}

/* The last frame of the open segment is damaged: it must not stay behind as waiting for ever. */
static void test_damage_at_the_end_of_the_open_segment(void **state)
{
    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 2);
    spoil(1, HEADER + frame_size(1, 2) + HEAD + 20);
    assert_int_equal(take(0), 0);
    assert_int_equal(take(0), -1);
    assert_int_equal(spool_lost(bench.spool, 0), 2);
    assert_empty();
    put_all(2, 1);
    assert_int_equal(take(0), 2);
    assert_empty();
}

/* What is appended while a read meets damage to the old end is not lost with it. */
static void test_append_during_a_read_that_finds_damage(void **state)
{
    struct spool_frame *frame;
    struct spool_read *read;
    uint64_t order;
    bool own_life;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 1);
    spoil(1, HEADER + 9);
    read = spool_read_new(bench.spool);
    spool_read_run(read);
    put_all(1, 2);
    assert_null(spool_read_done(read, &bench.budget, &frame, &order, &own_life));
    assert_int_equal(spool_untaken(bench.spool), 4);
    assert_int_equal(take(0), 1);
    assert_int_equal(take(0), 2);
    assert_int_equal(spool_lost(bench.spool, 0), 2);
    assert_empty();
}

/* No descriptor left is no damage: the segment is read when there is one again. */
static void test_no_descriptor_is_no_damage(void **state)
{
    struct rlimit old, none;
    struct spool_frame *frame;
    struct spool_read *read;
    uint64_t order;
    bool own_life;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 2);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){ 0, old.rlim_max };
    read = spool_read_new(bench.spool);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    spool_read_run(read);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(spool_read_trouble(read), UV_EMFILE);
    assert_null(spool_read_done(read, &bench.budget, &frame, &order, &own_life));
    assert_int_equal(spool_damaged(bench.spool), 0);
    assert_int_equal(take(0), 0);
    assert_int_equal(take(0), 1);
    assert_empty();
}

static void test_segment_taken_away_is_counted_as_lost(void **state)
{
    char path[128];

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 2);
    snprintf(path, sizeof(path), "%s/%016x.seg", bench.dir, 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(take(0), -1);
    assert_int_equal(spool_lost(bench.spool, 0), 4);
    assert_empty();
}

/* As du(1) counts: the folder and all in it, in blocks. */
static uint64_t disk_bytes(void)
{
    DIR *dir = opendir(bench.dir);
    struct dirent *entry;
    uint64_t bytes = 0;
    struct stat st;

    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, "..") == 0)
            continue;
        assert_int_equal(fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
        bytes += (uint64_t)st.st_blocks * 512;
    }
    closedir(dir);
    return bytes;
}

static int sync_nothing(int fd)
{
    (void)fd;
    return 0;
}

/* Appends, reads and dropped segments in any order, past segments' ends, for a few caps and over several lives: after
 * every step the disk has no more than the cap, and the spool knows what it has. */
static void test_cap_is_never_passed(void **state)
{
    static const uint64_t caps[] = { 64 << 10, 200 << 10, 3 << 20 };
    uint64_t lost[2], appended = 0, refused = 0;
    struct io quick = io_posix;                    /* no sync: only the counting is tried here */
    unsigned seed = 7;

    (void)state;
    quick.fdatasync = quick.fsync = sync_nothing;
    io = &quick;
    for (size_t i = 0; i < sizeof(caps) / sizeof(*caps); i++) {
        struct spool_place place = { 0 };

        bench.conf.bytes_max = caps[i];
        for (uint64_t life = 1; life < 4; life++) {
            bench_open(life, place);
            for (int step = 0; step < 400; step++) {
                uint32_t taken = 0, count = 1 + (uint32_t)rand_r(&seed) % 40;

                if (rand_r(&seed) % 3 > 0) {
                    assert_int_equal(put_sized(step, count, (size_t)rand_r(&seed) % (caps[i] / 64), &taken), 0);
                    appended += taken;
                    refused += taken < count;
                } else if (spool_untaken(bench.spool) > 0) {
                    (void)take_any();
                }
                if (taken == 0 && rand_r(&seed) % 8 == 0)
                    (void)spool_drop_oldest(bench.spool, lost);
                assert_true(disk_bytes() <= caps[i]);
                assert_true(spool_bytes(bench.spool) <= disk_bytes());
                assert_true(spool_bytes(bench.spool) + 8192 >= disk_bytes());
            }
            place = spool_place(bench.spool);
            spool_close(bench.spool);
            assert_true(disk_bytes() <= caps[i]);
        }
        bench_open(4, place);
        while (spool_untaken(bench.spool) > 0)
            (void)take_any();
        assert_empty();
        spool_close(bench.spool);
        bench.spool = NULL;
    }
    assert_true(appended > 1000 && refused > 10);
    io = &io_posix;
}

/* An append that fails for want of room leaves what was there, and nothing of itself. */
static void test_failed_append_leaves_what_was_there(void **state)
{
    struct rlimit old, small;
    uint32_t taken;
    struct stat st;
    FILE *file;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 1);
    file = file_open(1);
    assert_int_equal(fstat(fileno(file), &st), 0);
    fclose(file);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){ (rlim_t)st.st_size + 60, old.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(put(1, 2, &taken), UV_EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(spool_messages(bench.spool, 0), 2);
    put_all(3, 1);
    assert_int_equal(take(0), 0);
    assert_int_equal(take(0), 3);
    assert_empty();
}

/* Frames stand for themselves: without a header they are read all the same. */
static void test_damaged_header_costs_nothing(void **state)
{
    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 3);
    spool_close(bench.spool);
    spoil(1, 3);
    spoil(1, SEGMENT_COPY_AT + 20);
    bench_open(2, (struct spool_place){ 0 });
    for (int n = 0; n < 3; n++)
        assert_int_equal(take(1), n);
    assert_int_equal(spool_damaged(bench.spool), 0);
    assert_empty();
}

/* A power cut may leave a whole head and zeros where its bytes should be. Nobody was told that they are safe. */
static void test_torn_append_is_no_damage(void **state)
{
    long size;
    FILE *file;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 5);
    spool_close(bench.spool);
    size = frame_size(1, 5);
    file = file_open(1);
    for (long n = 3; n < 5; n++) {
        fseek(file, HEADER + n * size + HEAD, SEEK_SET);
        for (long i = HEAD; i < size; i++)
            fputc(0, file);
    }
    fclose(file);
    bench_open(2, (struct spool_place){ 0 });
    assert_int_equal(spool_messages(bench.spool, 1), 6);
    put_all(5, 1);
    for (int n = 0; n < 3; n++)
        assert_int_equal(take(1), n);
    assert_int_equal(take(0), 5);
    assert_int_equal(spool_damaged(bench.spool), 0);
    assert_empty();
}

static unsigned files_aside(void)
{
    struct segment_names names;
    int fd = open(bench.dir, O_RDONLY | O_DIRECTORY);
    unsigned aside;

    assert_int_equal(segment_names_read(&names, fd), 0);
    aside = names.aside;
    segment_names_free(&names);
    close(fd);
    return aside;
}

/* Neither a segment of the first format nor one full of nonsense stops the start, is taken for ours, or is removed. */
static void test_alien_segments_are_set_aside(void **state)
{
    static const char first[] = "PENSPOOL\1\0\0\0";
    char path[128];
    FILE *file;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 3);
    spool_close(bench.spool);
    for (unsigned number = 7; number < 9; number++) {
        snprintf(path, sizeof(path), "%s/%016x.seg", bench.dir, number);
        file = fopen(path, "w");
        assert_non_null(file);
        if (number == 7)
            fwrite(first, sizeof(first), 1, file);
        for (int i = 0; i < 20000; i++)
            fputc(i * 7 % 251, file);
        fclose(file);
    }
    bench_open(2, (struct spool_place){ 0 });
    assert_int_equal(files_aside(), 1);            /* the last; the other one when it is read */
    put_all(5, 1);
    for (int n = 0; n < 3; n++)
        assert_int_equal(take(1), n);
    while (spool_messages(bench.spool, 1) > 0)
        assert_int_equal(take(1), -1);
    assert_int_equal(take(0), 5);
    assert_int_equal(files_aside(), 2);
    assert_true(spool_is_empty(bench.spool));
    assert_true(spool_bytes(bench.spool) >= 40000);    /* they are not ours, but on our disk */
}

/* A head that is whole and lies: more messages than any payload can hold, more bytes than the file has. */
static void test_lying_heads_are_not_there(void **state)
{
    static const struct { long at; unsigned char byte; } lies[] = { { 8, 0xff }, { 11, 0x7f }, { 12, 1 }, { 19, 0xff }, { 23, 0xff },
                                                                    { 6, 9 }, { 32, 0xff } };
    unsigned char head[SEGMENT_HEAD_SIZE];
    uint32_t crc;
    long at;
    FILE *file;

    (void)state;
    for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        bench_open(1, (struct spool_place){ 0 });
        put_all(0, 3);
        spool_close(bench.spool);
        at = HEADER + frame_size(1, 3);
        file = file_open(1);
        fseek(file, at, SEEK_SET);
        assert_int_equal(fread(head, sizeof(head), 1, file), 1);
        head[lies[i].at] = lies[i].byte;
        crc = crc32_iscsi(head, 44, 0xFFFFFFFFu) ^ 0xFFFFFFFFu;
        memcpy(head + 44, &crc, 4);
        fseek(file, at, SEEK_SET);
        fwrite(head, sizeof(head), 1, file);
        fclose(file);
        bench_open(2, (struct spool_place){ 0 });
        assert_int_equal(take(1), 0);
        assert_int_equal(take(1), 2);
        assert_int_equal(spool_lost(bench.spool, 1), 2);
        assert_empty();
        spool_close(bench.spool);
        bench.spool = NULL;
    }
}

/* What commands print of a header is words; one that says something else is none of ours. */
static void test_lying_headers_are_not_there(void **state)
{
    static const char lies[][5] = { "\x1b[2J", "a\"}\n", "\xc2\x9b" };
    static const long at[] = { 72, 88 };           /* schema, sink type */
    unsigned char header[SEGMENT_HEADER_SIZE];
    struct segment_file file;
    int dir_fd = open(bench.dir, O_RDONLY | O_DIRECTORY);
    unsigned char honest[SEGMENT_HEADER_SIZE];
    uint32_t crc;
    FILE *on_disk;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 1);
    spool_close(bench.spool);
    bench.spool = NULL;
    assert_int_equal(segment_open(&file, dir_fd, 1), 0);
    assert_true(file.has_header);
    assert_int_equal(pread(file.fd, honest, sizeof(honest), 0), sizeof(honest));
    segment_close(&file);
    for (size_t i = 0; i < 6; i++) {
        on_disk = file_open(1);
        memcpy(header, honest, sizeof(header));
        memcpy(header + at[i / 3], lies[i % 3], sizeof(lies[0]));
        crc = crc32_iscsi(header, SEGMENT_HEADER_SIZE - 4, 0xFFFFFFFFu) ^ 0xFFFFFFFFu;
        memcpy(header + SEGMENT_HEADER_SIZE - 4, &crc, 4);
        for (long copy = 0; copy <= SEGMENT_COPY_AT; copy += SEGMENT_COPY_AT) {
            fseek(on_disk, copy, SEEK_SET);
            fwrite(header, sizeof(header), 1, on_disk);
        }
        fclose(on_disk);
        assert_int_equal(segment_open(&file, dir_fd, 1), 0);
        assert_false(file.has_header);
        segment_close(&file);
    }
    close(dir_fd);
}

/* ---- Trouble of the disk ---- */

static struct io troubled;
static int trouble_left;

static ssize_t pread_troubled(int fd, void *into, size_t size, off_t offset)
{
    if (offset >= (off_t)SEGMENT_BEGIN && trouble_left > 0) {
        trouble_left--;
        errno = EIO;
        return -1;
    }
    return io_posix.pread(fd, into, size, offset);
}

static int64_t clock_ahead_s;

static int clock_troubled(clockid_t clock, struct timespec *now)
{
    int r = io_posix.clock(clock, now);

    now->tv_sec += clock_ahead_s;
    return r;
}

static int try_read(void)
{
    struct spool_read *read = spool_read_new(bench.spool);
    struct spool_frame *frame;
    uint64_t order;
    bool own_life;
    int trouble;

    spool_read_run(read);
    trouble = spool_read_trouble(read);
    assert_null(spool_read_done(read, &bench.budget, &frame, &order, &own_life));
    return trouble;
}

/* A disk that is away for a while: what it holds waits. One that never gives a place back: that is passed over, and the
 * segment is kept. */
static void test_trouble_that_passes_is_no_damage(void **state)
{
    (void)state;
    troubled = io_posix;
    troubled.pread = pread_troubled;
    troubled.clock = clock_troubled;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 2);
    io = &troubled;
    trouble_left = 50;                             /* every read asks five times */
    for (int i = 0; i < 10; i++)
        assert_int_equal(try_read(), UV_EIO);
    assert_int_equal(take(0), 0);
    trouble_left = 1000000;
    assert_int_equal(try_read(), UV_EIO);
    clock_ahead_s = 299;
    assert_int_equal(try_read(), UV_EIO);
    clock_ahead_s = 301;
    assert_int_equal(take(0), -1);
    assert_int_equal(spool_lost(bench.spool, 0), 2);
    assert_true(spool_is_empty(bench.spool));
    assert_int_equal(files_aside(), 1);
}

/* ---- Encryption ---- */

#define KEY_A "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define KEY_B "/////////////////////////////////////////zM="

static int key_ring(const char *lines)
{
    struct pen_error err = { 0 };
    char path[128];
    FILE *file;
    int r;

    snprintf(path, sizeof(path), "%s.keys", bench.dir);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(lines, file);
    fclose(file);
    chmod(path, 0600);
    keys_free(bench.keys);
    bench.keys = NULL;
    r = keys_read(&bench.keys, path, &err);
    unlink(path);
    return r;
}

static void test_key_files(void **state)
{
    (void)state;
    assert_int_equal(key_ring("# the first\n" KEY_A "\n\n  \n" KEY_B "\r\n"), 0);
    assert_int_not_equal(key_ring("\n# nothing\n"), 0);
    assert_int_not_equal(key_ring(KEY_A "0\n"), 0);
    assert_int_not_equal(key_ring(KEY_A "\nx" KEY_A "\n"), 0);
    assert_int_not_equal(key_ring("AAAA\n"), 0);
    assert_int_not_equal(key_ring("g" KEY_A "\n"), 0);
    assert_null(keys_newest(bench.keys));
}

static bool segment_holds(unsigned number, const char *text)
{
    char bytes[32768];
    FILE *file = file_open(number);
    size_t size = fread(bytes, 1, sizeof(bytes), file);

    fclose(file);
    return memmem(bytes, size, text, strlen(text)) != NULL;
}

/* Written with one key, read with it when another one writes; plain segments before and after stay readable. */
static void test_encrypted_comes_back(void **state)
{
    struct spool_place place;

    (void)state;
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 1);
    place = spool_place(bench.spool);
    assert_true(segment_holds(1, "source/stream") && segment_holds(1, "\"n\":"));
    spool_close(bench.spool);
    assert_int_equal(key_ring(KEY_A), 0);
    bench_open(2, place);
    put_all(1, 2);
    assert_false(segment_holds(3, "source/stream") || segment_holds(3, "\"n\":"));
    spool_close(bench.spool);
    assert_int_equal(key_ring(KEY_A "\n" KEY_B), 0);
    bench_open(3, place);
    put_all(3, 1);
    spool_close(bench.spool);
    bench.conf.compress = true;
    bench_open(4, place);
    put_all(4, 1);
    for (int n = 0; n < 4; n++)
        assert_int_equal(take(1), n);
    assert_int_equal(take(0), 4);
    assert_empty();
}

/* Without its key a segment waits, all behind it waits, nothing is lost, and it goes on when the key is there. */
static void test_missing_key_waits(void **state)
{
    (void)state;
    assert_int_equal(key_ring(KEY_A), 0);
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 2);
    spool_close(bench.spool);
    assert_int_equal(key_ring(KEY_B), 0);
    bench_open(2, (struct spool_place){ 0 });
    put_all(2, 1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(try_read(), UV_EACCES);
    assert_int_equal(spool_messages(bench.spool, 1), 4);
    assert_int_equal(spool_damaged(bench.spool), 0);
    spool_close(bench.spool);
    assert_int_equal(key_ring(KEY_A "\n" KEY_B), 0);
    bench_open(3, (struct spool_place){ 0 });
    for (int n = 0; n < 3; n++)
        assert_int_equal(take(1), n);
    assert_empty();
}

/* A frame moved to another place of its segment, whole and with a right checksum, is refused: its place was sealed with it. */
static void test_moved_frame_is_refused(void **state)
{
    char bytes[4096];
    size_t size;
    FILE *file;

    (void)state;
    assert_int_equal(key_ring(KEY_A), 0);
    bench_open(1, (struct spool_place){ 0 });
    put_all(0, 3);
    spool_close(bench.spool);
    size = (size_t)frame_size(1, 3);
    file = file_open(1);
    fseek(file, HEADER, SEEK_SET);
    assert_int_equal(fread(bytes, size, 1, file), 1);
    fseek(file, HEADER, SEEK_SET);
    for (size_t i = 0; i < size; i++)
        fputc(0, file);
    fseek(file, HEADER + (long)size - 1, SEEK_SET);
    fputc(bytes[0], file);                         /* one byte further down, over the next frame's head */
    fwrite(bytes + 1, size - 1, 1, file);
    fclose(file);
    bench_open(2, (struct spool_place){ 0 });
    assert_int_equal(take(1), -1);
    assert_int_equal(take(1), 2);
    assert_int_equal(spool_lost(bench.spool, 1), 4);
    assert_empty();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_comes_back_in_order, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_a_change_of_what_they_are_begins_a_segment, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_two_lives_and_a_place, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_torn_tail_is_passed_over, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_head_costs_its_frame, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_payload_costs_its_frame_and_is_counted, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_damage_at_the_end_of_the_open_segment, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_append_during_a_read_that_finds_damage, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_no_descriptor_is_no_damage, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_segment_taken_away_is_counted_as_lost, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_cap_is_never_passed, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_failed_append_leaves_what_was_there, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_header_costs_nothing, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_torn_append_is_no_damage, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_alien_segments_are_set_aside, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_lying_heads_are_not_there, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_lying_headers_are_not_there, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_trouble_that_passes_is_no_damage, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_key_files, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_encrypted_comes_back, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_missing_key_waits, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_moved_frame_is_refused, bench_setup, bench_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
