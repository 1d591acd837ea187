/*
 * Promise: what was appended and synced comes back whole and in order, in this life or the next; damage costs the frames
 * it hit and is counted; trouble that passes costs nothing; and an empty spool is an empty folder.
 */
#include "daemon/spool.h"

#include <dirent.h>
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

#define HEADER 32
#define HEAD 48

static struct {
    char dir[64];
    struct budget budget;
    struct spool *spool;
    struct spool_conf conf;
} bench;

static void bench_open(uint64_t life, struct spool_place place)
{
    struct pen_error err = { 0 };

    bench.conf = (struct spool_conf){ .dir = bench.dir, .bytes_max = bench.conf.bytes_max, .rows = 2, .life = life,
                                      .place = place };
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
    spool_close(bench.spool);
    assert_int_equal(bench.budget.held, 0);
    snprintf(command, sizeof(command), "rm -r %s", bench.dir);
    return system(command);
}

/* One batch of two messages that name it. */
static struct part *part_make(int n)
{
    struct batch *batch = batch_new(&bench.budget, PEN_AUDIT, 64, 0);
    struct batch_origin origin = { .stream = "source/stream", .source = 0, .position = (uint64_t)n, .ticks = n };
    char text[32];

    for (int i = 0; i < 2; i++) {
        int size = snprintf(text, sizeof(text), "{\"n\":%d,\"i\":%d}", n, i);

        batch_add(batch, text, (size_t)size, &origin);
    }
    return part_new(NULL, batch, (uint64_t)n, 0);
}

/* Appends batches [from, from + count) in one go; the result. */
static int put(int from, uint32_t count, uint32_t *taken)
{
    struct part *parts[SPOOL_APPEND_MAX];
    struct spool_append *append;
    int r = 0;

    for (uint32_t i = 0; i < count; i++)
        parts[i] = part_make(from + (int)i);
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

static void put_all(int from, uint32_t count)
{
    uint32_t taken;

    assert_int_equal(put(from, count, &taken), 0);
    assert_int_equal(taken, count);
}

/* Reads one frame back and settles it: its number, or -1. */
static int take(uint32_t row)
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
    assert_int_equal(batch->messages[0].source, row == 0 ? 0 : UINT32_MAX);
    part = part_new(NULL, batch, order, 0);
    spool_settle(bench.spool, frame, row, 2);
    part_free(part);
    return n;
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

static FILE *segment_open(unsigned number)
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
    FILE *file = segment_open(number);

    fseek(file, at, SEEK_SET);
    fputc('#', file);
    fclose(file);
}

/* All frames of these tests with a number of one digit are of one size. */
static long frame_size(unsigned number, long frames)
{
    FILE *file = segment_open(number);
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
    file = segment_open(1);
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
    assert_int_equal(spool_untaken(bench.spool), 2);
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

static void test_cap_holds(void **state)
{
    uint32_t taken;

    (void)state;
    bench.conf.bytes_max = 1000;
    bench_open(1, (struct spool_place){ 0 });
    assert_int_equal(put(0, 20, &taken), 0);
    assert_true(taken > 0 && taken < 20);
    assert_true(spool_bytes(bench.spool) <= 1000);
    for (uint32_t n = 0; n < taken; n++)
        assert_int_equal(take(0), n);
    assert_empty();
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
    file = segment_open(1);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_comes_back_in_order, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_two_lives_and_a_place, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_torn_tail_is_passed_over, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_head_costs_its_frame, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_payload_costs_its_frame_and_is_counted, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_damage_at_the_end_of_the_open_segment, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_append_during_a_read_that_finds_damage, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_no_descriptor_is_no_damage, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_segment_taken_away_is_counted_as_lost, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_cap_holds, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_failed_append_leaves_what_was_there, bench_setup, bench_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
