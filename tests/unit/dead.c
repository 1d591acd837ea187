/*
 * Promise: a dead letter comes back as it was written, whatever stands around it in the file; damage is named and costs its
 * line alone; and the file is never anything between what it was and what it should become.
 */
#include "daemon/disk/dead.h"
#include "daemon/disk/io.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <cmocka.h>

static const struct dead_stamp stamp = { "sentinel", "asim", INT64_C(17637660012345670) };

static struct {
    char dir[64], path[96], path_new[104], more[96];
} bench;

static int bench_setup(void **state)
{
    (void)state;
    strcpy(bench.dir, "/tmp/penstock-dead-XXXXXX");
    if (mkdtemp(bench.dir) == NULL)
        return -1;
    snprintf(bench.path, sizeof(bench.path), "%s/sentinel.jsonl", bench.dir);
    snprintf(bench.path_new, sizeof(bench.path_new), "%s.new", bench.path);
    snprintf(bench.more, sizeof(bench.more), "%s/more", bench.dir);
    return 0;
}

static int bench_teardown(void **state)
{
    char command[128];

    (void)state;
    io = &io_posix;
    snprintf(command, sizeof(command), "rm -r %s", bench.dir);
    return system(command);
}

/* One message that was rejected. */
static int append_to(const char *path, const char *stream, const char *text, const char *why, uint64_t bytes_max)
{
    struct pen_message message = { .size = (uint32_t)strlen(text), .position = 4711, .ticks = -5 };
    struct part part = {
        .lent = { .data = text, .size = strlen(text), .messages = &message, .count = 1, .kind = PEN_AUDIT, .streams = &stream },
        .why = why,
    };
    struct part *parts[] = { &part };

    return dead_append(path, &stamp, parts, 1, bytes_max);
}

static void append(const char *text)
{
    assert_int_equal(append_to(bench.path, "activity/PT1H.json", text, "status 400, Bad: cannot be read", 1 << 20), 0);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "a");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* The file's bytes; the caller's to free. */
static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t size = 0;
    ssize_t got;

    assert_non_null(file);
    got = getdelim(&text, &size, '\0', file);
    fclose(file);
    if (got < 0)
        text[0] = '\0';
    return text;
}

static void assert_file(const char *expected)
{
    char *text = read_file(bench.path);

    assert_string_equal(text, expected);
    free(text);
}

static void assert_span(struct pen_span span, const char *text)
{
    assert_int_equal(span.size, strlen(text));
    assert_memory_equal(span.data, text, span.size);
}

/* ---- Letters ---- */

static void test_a_letter_comes_back(void **state)
{
    static const char text[] = "{\"a\":\",\\\"message\\\":\",\"message\":{\"b\":[1,2]}}";
    static const char stream[] = "made/\"a\",\"message\":\n\x1b";
    struct dead_file *file;
    struct dead_letter letter;

    (void)state;
    assert_int_equal(append_to(bench.path, stream, text, "status INVALID_RECORD: Broker: no", 1 << 20), 0);
    assert_int_equal(append_to(bench.path, stream, text, "longer than batch_bytes", 1 << 20), 0);
    assert_int_equal(dead_open(&file, bench.path), 0);
    assert_int_equal(dead_next(file, &letter), 1);
    assert_null(letter.damage);
    assert_span(letter.time, "2025-11-21T23:00:01.2345670Z");
    assert_span(letter.sink, "sentinel");
    assert_span(letter.schema, "asim");
    assert_span(letter.kind, "audit");
    assert_span(letter.status, "INVALID_RECORD");
    assert_span(letter.reason, "status INVALID_RECORD: Broker: no");
    assert_span(letter.stream, stream);
    assert_span(letter.message, text);
    assert_int_equal(letter.position, 4711);
    assert_int_equal(letter.ticks, -5);
    assert_int_equal(letter.line, 1);
    assert_int_equal(letter.offset, 0);
    assert_int_equal(dead_next(file, &letter), 1);
    assert_int_equal(letter.status.size, 0);
    assert_int_equal(letter.line, 2);
    assert_int_equal(dead_next(file, &letter), 0);
    assert_int_equal(dead_next(file, &letter), 0);
    dead_close(file);
}

/* Lines that end anywhere in a block of reading, and many blocks long. */
static void test_letters_of_all_sizes(void **state)
{
    static const size_t sizes[] = { 1, 65000, 65536, 65537, 3, 700000, 64, 131072 };
    char *text = malloc(700010);
    struct dead_file *file;
    struct dead_letter letter;
    uint64_t end = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        memset(text, 'x', sizes[i] + 2);
        text[0] = text[sizes[i] + 1] = '"';
        text[sizes[i] + 2] = '\0';
        assert_int_equal(append_to(bench.path, "s", text, "why", UINT64_MAX), 0);
    }
    assert_int_equal(dead_open(&file, bench.path), 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        assert_int_equal(dead_next(file, &letter), 1);
        assert_null(letter.damage);
        assert_int_equal(letter.message.size, sizes[i] + 2);
        assert_int_equal(letter.offset, end);
        assert_int_equal(strlen(letter.id), DEAD_ID_SIZE - 1);
        end = letter.end;
    }
    assert_int_equal(dead_next(file, &letter), 0);
    dead_close(file);
    free(text);
}

static void test_damage_costs_its_line(void **state)
{
    static const char *const lines[] = {
        "\n", "# a note\n", "{\"message\":{}}\n", "{\"time\":\"x\",\"message\":{}}\n", "{\"time\":,\"message\":{}}\n",
        "{\"time\":\"x\",\"position\":1,\"ticks\":1,\"stream\":\"\",\"message\":{}}\n", "{\"time\":\"\xff\",\"message\":{}}\n",
    };
    const size_t count = sizeof(lines) / sizeof(*lines);
    struct dead_file *file;
    struct dead_letter letter;

    (void)state;
    append("{\"n\":1}");
    for (size_t i = 0; i < count; i++)
        write_file(bench.path, lines[i]);
    append("{\"n\":2}");
    write_file(bench.path, "{\"time\":\"2026");
    append("{\"n\":3}");             /* stands on a line of its own */
    write_file(bench.path, "torn");
    assert_int_equal(dead_open(&file, bench.path), 0);
    for (size_t i = 0; i < count + 5; i++) {
        bool good = i == 0 || i == count + 1 || i == count + 3;

        assert_int_equal(dead_next(file, &letter), 1);
        assert_int_equal(letter.line, i + 1);
        assert_int_equal(letter.damage == NULL, good);
        assert_int_equal(strlen(letter.id), DEAD_ID_SIZE - 1);
    }
    assert_int_equal(dead_next(file, &letter), 0);
    dead_close(file);
}

/* A line of nothing but zeros, longer than any letter: passed over, and not kept in memory. */
static void test_a_line_without_end_is_passed_over(void **state)
{
    struct dead_file *file;
    struct dead_letter letter;

    (void)state;
    append("{\"n\":1}");
    assert_int_equal(truncate(bench.path, (off_t)300 << 20), 0);
    assert_int_equal(append_to(bench.path, "s", "{\"n\":2}", "why", UINT64_MAX), 0);
    assert_int_equal(dead_open(&file, bench.path), 0);
    assert_int_equal(dead_next(file, &letter), 1);
    assert_int_equal(dead_next(file, &letter), 1);
    assert_non_null(letter.damage);
    assert_string_equal(letter.id, "");
    assert_int_equal(letter.end, ((uint64_t)300 << 20) + 1);
    assert_int_equal(dead_next(file, &letter), 1);
    assert_null(letter.damage);
    assert_span(letter.message, "{\"n\":2}");
    dead_close(file);
}

/* ---- The cap ---- */

static void test_the_cap_holds(void **state)
{
    struct stat before, after;

    (void)state;
    assert_int_equal(append_to(bench.path, "s", "{\"longer\":\"than the cap\"}", "why", 10), 0);
    assert_int_equal(stat(bench.path, &before), 0);
    assert_int_equal(append_to(bench.path, "s", "{}", "why", (uint64_t)before.st_size + 100), UV_EFBIG);
    assert_int_equal(stat(bench.path, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(append_to(bench.path, "s", "{}", "why", (uint64_t)before.st_size + 1000), 0);
}

/* ---- Several at one file ---- */

static void test_an_append_does_not_wait_for_a_lock(void **state)
{
    int fd;

    (void)state;
    append("{\"n\":1}");
    fd = open(bench.path, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_SH), 0);
    assert_int_equal(append_to(bench.path, "s", "{}", "why", 1 << 20), UV_EAGAIN);
    close(fd);
    append("{\"n\":2}");
}

static int replaced;

/* Another file takes the name just after ours was opened. */
static int openat_and_replace(int dir_fd, const char *path, int flags, mode_t mode)
{
    int fd = io_posix.openat(dir_fd, path, flags, mode);

    if (replaced++ == 0 && strcmp(path, bench.path) == 0)
        assert_int_equal(rename(bench.more, bench.path), 0);
    return fd;
}

static void test_a_replaced_file_is_not_written(void **state)
{
    struct io table = io_posix;
    char *text;

    (void)state;
    append("{\"n\":1}");
    write_file(bench.more, "the new one\n");
    replaced = 0;
    table.openat = openat_and_replace;
    io = &table;
    append("{\"n\":2}");
    io = &io_posix;
    text = read_file(bench.path);
    assert_true(strncmp(text, "the new one\n", 12) == 0);
    assert_non_null(strstr(text, "{\"n\":2}"));
    assert_null(strstr(text, "{\"n\":1}"));
    free(text);
}

/* ---- Rewriting ---- */

static bool drops_two(void *arg, const struct dead_letter *letter)
{
    (*(int *)arg)++;
    return letter->damage == NULL && letter->message.size == 7 && letter->message.data[5] == '2';
}

static bool drops_all(void *arg, const struct dead_letter *letter)
{
    (void)arg, (void)letter;
    return true;
}

/* Three letters, a note and a torn line, and what must become of them without the second letter and with one more line. */
static void rewrite_prepare(char **before, char **after)
{
    char *two, *end;

    append("{\"n\":1}");
    write_file(bench.path, "# a note\n");
    append("{\"n\":2}");
    append("{\"n\":3}");
    write_file(bench.path, "torn");
    write_file(bench.more, "one more\n");
    *before = read_file(bench.path);
    *after = malloc(strlen(*before) + 64);
    two = strstr(*before, "# a note\n") + 9;
    end = strchr(two, '\n') + 1;
    sprintf(*after, "%.*s%s\none more\n", (int)(two - *before), *before, end);
}

static void test_rewrite(void **state)
{
    char *before, *after;
    int asked = 0;
    struct stat st;

    (void)state;
    rewrite_prepare(&before, &after);
    assert_int_equal(chmod(bench.path, 0640), 0);
    assert_int_equal(dead_rewrite(bench.path, NULL, drops_two, &asked, bench.more), 0);
    assert_int_equal(asked, 5);
    assert_file(after);
    assert_int_equal(stat(bench.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(dead_rewrite(bench.path, NULL, drops_all, NULL, NULL), 0);
    assert_file("");
    assert_int_equal(access(bench.path_new, F_OK), -1);
    append("{\"n\":4}");
    free(before);
    free(after);
}

static void test_rewrite_only_what_was_read(void **state)
{
    struct dead_file *file;
    char *before;

    (void)state;
    append("{\"n\":1}");
    assert_int_equal(dead_open(&file, bench.path), 0);
    append("{\"n\":2}");             /* may be appended to … */
    assert_int_equal(dead_rewrite(bench.path, file, drops_two, &(int){ 0 }, NULL), 0);
    before = read_file(bench.path);
    assert_int_equal(dead_rewrite(bench.path, file, drops_all, NULL, NULL), UV_ECANCELED);   /* … not replaced */
    assert_file(before);
    free(before);
    dead_close(file);
}

/* The nth call fails, for each n until a run passes clean. */
static struct {
    int calls, fail_at;
} fault;

static bool fault_now(void)
{
    if (++fault.calls != fault.fail_at)
        return false;
    errno = ENOSPC;
    return true;
}

static int fault_openat(int dir_fd, const char *path, int flags, mode_t mode)
{
    return fault_now() ? -1 : io_posix.openat(dir_fd, path, flags, mode);
}

static ssize_t fault_pread(int fd, void *into, size_t size, off_t offset)
{
    return fault_now() ? -1 : io_posix.pread(fd, into, size, offset);
}

static ssize_t fault_pwrite(int fd, const void *from, size_t size, off_t offset)
{
    return fault_now() ? -1 : io_posix.pwrite(fd, from, size > 7 ? 7 : size, offset);
}

static int fault_fstat(int fd, struct stat *st)
{
    return fault_now() ? -1 : io_posix.fstat(fd, st);
}

static int fault_fsync(int fd)
{
    return fault_now() ? -1 : io_posix.fsync(fd);
}

static int fault_fdatasync(int fd)
{
    return fault_now() ? -1 : io_posix.fdatasync(fd);
}

static int fault_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return fault_now() ? -1 : io_posix.renameat(from_fd, from, to_fd, to);
}

static struct io fault_table(void)
{
    struct io table = io_posix;

    table.openat = fault_openat;
    table.pread = fault_pread;
    table.pwrite = fault_pwrite;
    table.fstat = fault_fstat;
    table.fsync = fault_fsync;
    table.fdatasync = fault_fdatasync;
    table.renameat = fault_renameat;
    return table;
}

static void test_rewrite_is_whole_or_not_at_all(void **state)
{
    struct io table = fault_table();
    char *before, *after, *now;
    int r = -1;

    (void)state;
    rewrite_prepare(&before, &after);
    for (fault.fail_at = 1; r < 0; fault.fail_at++) {
        unlink(bench.path);
        write_file(bench.path, before);
        fault.calls = 0;
        io = &table;
        r = dead_rewrite(bench.path, NULL, drops_two, &(int){ 0 }, bench.more);
        io = &io_posix;
        now = read_file(bench.path);
        if (r == 0)
            assert_string_equal(now, after);
        else if (strcmp(now, before) != 0)         /* renamed, and only the folder's sync failed */
            assert_string_equal(now, after);
        assert_int_equal(access(bench.path_new, F_OK), -1);
        free(now);
        assert_true(fault.fail_at < 1000);
    }
    assert_true(fault.fail_at > 20);
    free(before);
    free(after);
}

static void test_append_is_whole_or_not_at_all(void **state)
{
    struct io table = fault_table();
    char *before, *now;
    int r = -1;

    (void)state;
    append("{\"n\":1}");
    write_file(bench.path, "torn");
    before = read_file(bench.path);
    for (fault.fail_at = 1; r < 0; fault.fail_at++) {
        fault.calls = 0;
        io = &table;
        r = append_to(bench.path, "s", "{\"n\":2}", "why", 1 << 20);
        io = &io_posix;
        now = read_file(bench.path);
        assert_int_equal(strncmp(now, before, strlen(before)), 0);
        assert_int_equal(strlen(now) > strlen(before), r == 0);
        free(now);
        assert_true(fault.fail_at < 1000);
    }
    free(before);
}

#define PROMISE(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PROMISE(test_a_letter_comes_back),
        PROMISE(test_letters_of_all_sizes),
        PROMISE(test_damage_costs_its_line),
        PROMISE(test_a_line_without_end_is_passed_over),
        PROMISE(test_the_cap_holds),
        PROMISE(test_an_append_does_not_wait_for_a_lock),
        PROMISE(test_a_replaced_file_is_not_written),
        PROMISE(test_rewrite),
        PROMISE(test_rewrite_only_what_was_read),
        PROMISE(test_rewrite_is_whole_or_not_at_all),
        PROMISE(test_append_is_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
