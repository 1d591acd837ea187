/* Promise: many files, long lines and archives are read in turn within the bounds that were set; a replay ends when all is
 * read, and one can stop at any moment and lose nothing. */
#include "tests/unit/file_host.h"

#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* ---- Bounds ---- */

static void test_waits_for_the_flow(void **state)
{
    (void)state;
    host.closed_flow = true;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    for (unsigned i = 0; i < 50; i++)
        uv_run(&host.loop, UV_RUN_ONCE);
    assert_int_equal(host.offered, 0);
    assert_int_equal(host.chunk_bytes_most, 0);
    host.closed_flow = false;
    file_source.on_flow(host.source);
    AWAIT(seen("one") == 1);
}

static void test_long_lines_grow_the_chunk(void **state)
{
    char *line = malloc(300001);

    (void)state;
    memset(line, 'l', 300000);
    line[300000] = '\0';
    put("logs/a.log", "w", "first\n");
    put("logs/a.log", "a", line);
    put("logs/a.log", "a", "\nlast\n");
    start_logs("chunk = 4096");
    AWAIT(seen("last") == 1);
    assert_int_equal(seen(line), 1);
    assert_int_equal(host.line_count, 3);
    free(line);
}

/* Both are read before either has ended, however slow the pool is with one of them. */
static void test_files_take_turns(void **state)
{
    FILE *a = fopen(at("logs/a.log"), "w"), *b = fopen(at("logs/b.log"), "w");
    bool seen_a = false, seen_b = false;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        fprintf(a, "a %u\n", i);
        fprintf(b, "b %u\n", i);
    }
    fclose(a);
    fclose(b);
    host.hold = true;
    start_logs("chunk = 4096");
    AWAIT(host.offered == 2);
    resume();
    AWAIT(host.line_count == 10000);
    for (size_t i = 0; i < 2000; i++) {
        seen_a |= host.lines[i][0] == 'a';
        seen_b |= host.lines[i][0] == 'b';
    }
    assert_true(seen_a && seen_b);
}

static size_t open_files(void)
{
    DIR *fds = opendir("/proc/self/fd");
    size_t count = 0;

    while (readdir(fds) != NULL)
        count++;
    closedir(fds);
    return count;
}

static void test_ten_thousand_files(void **state)
{
    struct mallinfo2 before = mallinfo2(), after;
    size_t fds = open_files();
    char name[64], text[64];

    (void)state;
    for (unsigned i = 0; i < 10000; i++) {
        if (i % 100 == 0) {
            snprintf(name, sizeof name, "logs/%u", i / 100);
            mkdir(at(name), 0755);
        }
        snprintf(name, sizeof name, "logs/%u/%u.log", i / 100, i);
        snprintf(text, sizeof text, "line %u\n", i);
        put(name, "w", text);
    }
    start_logs("rescan = 1h\nopen_max = 64");
    AWAIT(host.line_count == 10000);
    assert_true(host.out_most <= 16);
    assert_true(open_files() <= fds + 64 + 16);
    after = mallinfo2();
    print_message("10,000 idle files: %zu bytes each, fake pipeline's share included\n",
                  (after.uordblks - before.uordblks) / 10000);
    put("logs/37/3737.log", "a", "late\n");
    AWAIT(seen("late") == 1);
}

/* ---- Archives ---- */

static void put_gzip(const char *name, const char *text, size_t keep)
{
    gzFile gz = gzopen(at(name), "wb");

    gzputs(gz, text);
    gzclose(gz);
    if (keep > 0)
        assert_int_equal(truncate(at(name), (off_t)keep), 0);
}

static void test_archives(void **state)
{
    char *text = calloc(1, 600000);
    size_t size = 0, lines = 0;
    struct stat st;

    (void)state;
    while (size < 590000)
        size += (size_t)sprintf(text + size, "line %zu %x\n", lines++, rand());
    for (unsigned i = 0; i < 7; i++) {
        char name[64];

        snprintf(name, sizeof name, "logs/%u.gz.log", i);
        put_gzip(name, text, 0);
    }
    start_logs("chunk = 64K");
    AWAIT(host.line_count == 7 * lines);
    /* One that is still being written, another that is damaged. */
    put_gzip("logs/x.log", text, 0);
    stat(at("logs/x.log"), &st);
    unlink(at("logs/x.log"));
    put_gzip("logs/part.log", text, (size_t)st.st_size / 2);
    AWAIT(host.line_count > 7 * lines);
    settle();
    put_gzip("logs/whole", text, 0);
    {
        char *rest = malloc((size_t)st.st_size);
        FILE *in = fopen(at("logs/whole"), "r"), *out = fopen(at("logs/part.log"), "a");

        fseek(in, st.st_size / 2, SEEK_SET);
        size = fread(rest, 1, (size_t)st.st_size, in);
        fwrite(rest, 1, size, out);
        fclose(in);
        fclose(out);
        free(rest);
    }
    snprintf(text + 590000, 100, "line %zu ", lines - 1);
    AWAIT(host.line_count >= 8 * lines);
    settle();
    assert_int_equal(host.line_count, 8 * lines + 6);
    restart("");
    settle();
    assert_int_equal(host.line_count, 8 * lines + 9);
    free(text);
}

static void test_damaged_archive(void **state)
{
    int fd;

    (void)state;
    put_gzip("logs/a.log", "one\ntwo\n", 0);
    fd = open(at("logs/a.log"), O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "garbage behind it", 17), 17);
    close(fd);
    start_logs("");
    AWAIT(host.line_count == 2);
    settle();
    assert_int_equal(host.line_count, 5);
    assert_int_equal(host.troubles, 1);
}

/* ---- Replay ---- */

static void test_once(void **state)
{
    (void)state;
    host.once = true;
    put("logs/a.log", "w", "one\ntorn");
    put_gzip("logs/b.log", "two\nhalf", 0);
    put("logs/empty.log", "w", "");
    start_logs("");
    AWAIT(host.drained);
    assert_int_equal(host.line_count, 4);
    assert_int_equal(host.torn, 2);
}

static void test_once_with_nothing(void **state)
{
    (void)state;
    host.once = true;
    start_logs("");
    AWAIT(host.drained);
}

static void test_stop_with_chunks_out(void **state)
{
    (void)state;
    host.hold = true;
    put("logs/a.log", "w", "one\n");
    put("logs/b.log", "w", "two\n");
    start_logs("");
    AWAIT(host.out == 2);
    stop();
    assert_int_equal(host.line_count, 2);
}

/* The row may be saved between a file's last chunk and what became of it; then the process may die. */
static void test_death_with_the_last_chunk_out(void **state)
{
    (void)state;
    host.hold = true;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.out == 1);
    restart("");                     /* saved as it was; what the end gave back was never safe */
    host.hold = false;
    AWAIT(seen("one") == 2);
    settle();
    assert_int_equal(seen("one"), 2);
    put("logs/a.log", "a", "two\n");
    AWAIT(seen("two") == 1);
    host.hold = true;
    put("logs/a.log", "a", "three\n");
    AWAIT(host.out == 1);
    restart("");
    host.hold = false;
    AWAIT(seen("three") == 2);
    assert_int_equal(seen("one"), 2);
    assert_int_equal(seen("two"), 1);
}

static void test_stop_in_the_middle(void **state)
{
    char name[64];

    (void)state;
    for (unsigned i = 0; i < 600; i++) {
        snprintf(name, sizeof name, "logs/%u.log", i);
        put(name, "w", "line\n");
    }
    for (size_t wanted = 0; wanted < 60; wanted += 7) {
        start_logs("open_max = 16");
        AWAIT(host.line_count >= wanted);
        for (size_t i = wanted % 5; i > 0; i--)
            uv_run(&host.loop, UV_RUN_NOWAIT);
        stop();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_BOTH(waits_for_the_flow),
        TEST_BOTH(long_lines_grow_the_chunk),
        TEST_BOTH(files_take_turns),
        TEST(ten_thousand_files),
        TEST_BOTH(archives),
        TEST_BOTH(damaged_archive),
        TEST_BOTH(once),
        TEST_BOTH(once_with_nothing),
        TEST_BOTH(stop_with_chunks_out),
        TEST_BOTH(death_with_the_last_chunk_out),
        TEST_BOTH(stop_in_the_middle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
