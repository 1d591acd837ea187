/*
 * Promise: what was saved is there after the next start, all of a save or nothing of it; every save is synced, by way of the
 * io table; and an administrator may look into state.db while we have it open, without taking our locks away.
 */
#include "daemon/disk/cursor.h"

#include "daemon/disk/io.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct {
    char dir[64], path[96];
    struct cursors *cursors;
    unsigned writes, syncs, folder_syncs;
    bool full;
} bench;

static ssize_t counted_pwrite(int fd, const void *from, size_t size, off_t offset)
{
    bench.writes++;
    if (bench.full) {
        errno = ENOSPC;
        return -1;
    }
    return io_posix.pwrite(fd, from, size, offset);
}

static int counted_fdatasync(int fd)
{
    bench.syncs++;
    return io_posix.fdatasync(fd);
}

static int counted_fsync(int fd)
{
    bench.folder_syncs++;
    return io_posix.fsync(fd);
}

static struct io counted;

static int bench_setup(void **state)
{
    struct pen_error err = { 0 };

    (void)state;
    memset(&bench, 0, sizeof(bench));
    strcpy(bench.dir, "/tmp/penstock-cursor-XXXXXX");
    if (mkdtemp(bench.dir) == NULL)
        return -1;
    snprintf(bench.path, sizeof(bench.path), "%s/state.db", bench.dir);
    counted = io_posix;
    counted.pwrite = counted_pwrite;
    counted.fdatasync = counted_fdatasync;
    counted.fsync = counted_fsync;
    io = &counted;
    return cursors_open(&bench.cursors, bench.path, &err);
}

static int bench_teardown(void **state)
{
    char command[128];

    (void)state;
    cursors_close(bench.cursors);
    io = &io_posix;
    snprintf(command, sizeof(command), "rm -r %s", bench.dir);
    return system(command);
}

static int save(uint64_t position)
{
    struct cursor cursor = { .key = "file", .attrs = "inode", .position = position, .word = 3 };
    struct cursor_change change = { 0 };
    struct pen_error err = { 0 };
    int r;

    cursor_change_row(&change, "source", &cursor, false);
    cursor_change_place(&change, "sink", (struct spool_place){ position + 1, position + 2 });
    r = cursors_save(bench.cursors, &change, &err);
    cursor_change_clear(&change);
    return r;
}

static void on_cursor(void *arg, const struct cursor *cursor)
{
    assert_string_equal(cursor->key, "file");
    assert_string_equal(cursor->attrs, "inode");
    assert_int_equal(cursor->word, 3);
    *(uint64_t *)arg = cursor->position;
}

static void assert_saved(uint64_t position)
{
    struct spool_place place;
    struct pen_error err = { 0 };
    uint64_t found = 0;

    assert_int_equal(cursors_each(bench.cursors, "source", on_cursor, &found, &err), 0);
    assert_int_equal(found, position);
    assert_int_equal(cursors_spool_place(bench.cursors, "sink", &place, &err), 0);
    assert_int_equal(place.segment, position + 1);
    assert_int_equal(place.offset, position + 2);
}

static void reopen(void)
{
    struct pen_error err = { 0 };

    cursors_close(bench.cursors);
    assert_int_equal(cursors_open(&bench.cursors, bench.path, &err), 0);
}

/* What the sqlite3 command answers. */
static void ask(const char *sql, char *answer, size_t size)
{
    char command[256];
    size_t got;
    FILE *pipe;

    snprintf(command, sizeof(command), "sqlite3 %s '%s'", bench.path, sql);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    got = fread(answer, 1, size - 1, pipe);
    answer[got] = '\0';
    assert_int_equal(pclose(pipe), 0);
}

/* ---- Tests ---- */

static void test_saved_is_there_again(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 50; i++)
        assert_int_equal(save(i), 0);
    assert_saved(50);
    reopen();
    assert_saved(50);
    assert_int_equal(save(51), 0);
    reopen();
    assert_saved(51);
}

static void test_every_save_is_synced(void **state)
{
    (void)state;
    assert_int_equal(save(1), 0);
    assert_true(bench.folder_syncs > 0);           /* the write-ahead log is new, and its folder must know it */
    for (uint64_t i = 2; i < 20; i++) {
        unsigned writes = bench.writes, syncs = bench.syncs;

        assert_int_equal(save(i), 0);
        assert_true(bench.writes > writes);
        assert_true(bench.syncs > syncs);
    }
}

static void test_full_disk_changes_nothing(void **state)
{
    (void)state;
    assert_int_equal(save(1), 0);
    bench.full = true;
    assert_int_equal(save(2), UV_ENOSPC);
    bench.full = false;
    assert_saved(1);
    assert_int_equal(save(3), 0);
    reopen();
    assert_saved(3);
}

static void test_an_administrator_may_look(void **state)
{
    char answer[64], wal[112];

    (void)state;
    if (system("sqlite3 -version >/dev/null 2>&1") != 0)
        skip();
    snprintf(wal, sizeof(wal), "%s-wal", bench.path);
    for (uint64_t i = 1; i <= 5; i++) {
        assert_int_equal(save(i), 0);
        ask("SELECT position FROM stream", answer, sizeof(answer));
        assert_int_equal(atoi(answer), i);
        /* Whoever closes a database last removes its log: that one is still there says that our lock is. */
        assert_int_equal(access(wal, F_OK), 0);
    }
    ask("PRAGMA wal_checkpoint(TRUNCATE); UPDATE spool SET offset = 77", answer, sizeof(answer));
    assert_int_equal(save(6), 0);
    assert_saved(6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_saved_is_there_again, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_every_save_is_synced, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_full_disk_changes_nothing, bench_setup, bench_teardown),
        cmocka_unit_test_setup_teardown(test_an_administrator_may_look, bench_setup, bench_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
