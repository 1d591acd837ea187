/* Promise: every line of every file is read, wherever and whenever it appears, is torn, comes back or goes away; a restart reads
 * on where it was safe. file_rotation.c has the names that change, file_turns.c the bounds, archives and the stopping. */
#include "tests/unit/file_host.h"

#include <sys/stat.h>
#include <unistd.h>

/* ---- Finding and following ---- */

static void test_hears_without_rescan(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\ntwo\nthr");
    start_logs("rescan = 1h");
    AWAIT(host.line_count == 2);
    put("logs/a.log", "a", "ee\nfour\n");
    AWAIT(host.line_count == 4);
    assert_int_equal(seen("three"), 1);
    /* A folder made later, and one below it, at once. */
    mkdir(at("logs/x"), 0755);
    mkdir(at("logs/x/y"), 0755);
    put("logs/x/y/b.log", "w", "five\n");
    AWAIT(seen("five") == 1);
    put("logs/x/y/b.log", "a", "six\n");
    AWAIT(seen("six") == 1);
    assert_int_equal(host.line_count, 6);
}

static void test_folder_that_is_made_later(void **state)
{
    char options[512];

    (void)state;
    snprintf(options, sizeof options, "path = %s/later/in/*/a.log\nrescan = 1h", dir);
    start(options);
    mkdir(at("later"), 0755);
    mkdir(at("later/in"), 0755);
    mkdir(at("later/in/z"), 0755);
    put("later/in/z/a.log", "w", "one\n");
    AWAIT(host.line_count == 1);
}

static void test_finds_without_watches(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("watches = 0");
    AWAIT(host.line_count == 1);
    put("logs/a.log", "a", "two\n");
    AWAIT(host.line_count == 2);
    assert_non_null(strstr(log_text, "not all folders can be watched"));
    assert_null(strstr(strstr(log_text, "not all folders") + 1, "not all folders"));
}

static void test_leaves_alone_what_is_no_log(void **state)
{
    (void)state;
    mkdir(at("logs/folder.log"), 0755);
    assert_int_equal(mkfifo(at("logs/fifo.log"), 0644), 0);
    put("logs/.hidden.log", "w", "hidden\n");
    put("logs/other.txt", "w", "other\n");
    mkdir(at("logs/no"), 0755);
    put("logs/no/a.log", "w", "excluded\n");
    put("logs/a.log", "w", "one\n");
    assert_int_equal(symlink("a.log", at("logs/link.log")), 0);
    assert_int_equal(symlink("nowhere", at("logs/dangling.log")), 0);
    assert_int_equal(symlink("..", at("logs/loop")), 0);
    start_logs("exclude = /**/no");
    settle();
    assert_int_equal(seen("one"), 1);
    assert_int_equal(host.line_count, 4);
    assert_int_equal(host.troubles, 0);
}

static void test_start_at_end(void **state)
{
    (void)state;
    put("logs/a.log", "w", "old\nolder\nunfin");
    start_logs("start = end");
    AWAIT(!LIST_EMPTY(&host.streams) || host.rested > 0);
    for (unsigned i = 0; i < 40; i++)              /* the first sweep is over */
        uv_run(&host.loop, UV_RUN_ONCE);
    put("logs/a.log", "a", "ished\nnew\n");
    put("logs/b.log", "w", "later\n");
    AWAIT(seen("new") == 1 && seen("later") == 1);
    assert_int_equal(seen("old"), 0);
    assert_int_equal(seen("unfinished"), 1);
    /* Files that came while we were away are not skipped. */
    save();
    stop();
    put("logs/c.log", "w", "away\n");
    start_logs("start = end");
    AWAIT(seen("away") == 1);
    assert_int_equal(seen("old"), 0);
}

/* ---- Gone, torn, not allowed ---- */

static void test_deleted_while_read(void **state)
{
    (void)state;
    host.hold = true;
    put("logs/a.log", "w", "one\ntwo\n");
    start_logs("chunk = 4096");
    AWAIT(host.out == 1);
    put("logs/a.log", "a", "three\ntorn");
    unlink(at("logs/a.log"));
    resume();
    AWAIT(seen("three") == 1 && seen("torn") == 1);
    assert_int_equal(host.line_count, 4);
    assert_int_equal(host.torn, 1);
}

static void test_torn_end_of_a_live_file_waits(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\ntor");
    start_logs("");
    settle();
    assert_int_equal(host.torn, 0);
    put("logs/a.log", "a", "n?\n");
    AWAIT(seen("torn?") == 1);
}

static void test_permission_comes_later(void **state)
{
    uid_t uid = geteuid();

    (void)state;
    put("logs/a.log", "w", "one\n");
    chmod(at("logs/a.log"), 0);
    if (uid == 0)
        assert_int_equal(chown(dir, 65534, 65534) + chown(at("logs"), 65534, 65534) + seteuid(65534), 0);
    start_logs("");
    settle();
    assert_int_equal(host.troubles, 1);
    assert_int_equal(seen("one"), 0);
    assert_int_equal(seteuid(uid), 0);
    chmod(at("logs/a.log"), 0644);
    AWAIT(seen("one") == 1);
    put("logs/a.log", "a", "two\n");
    AWAIT(seen("two") == 1);
    assert_int_equal(seen("one"), 1);
}

static void test_rows_of_gone_files_are_forgotten(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("forget_after = 10ms");
    AWAIT(seen("one") == 1);
    save();
    assert_int_equal(host.row_count, 1);
    unlink(at("logs/a.log"));
    AWAIT(host.forgotten == 1);
    assert_int_equal(host.row_count, 0);
}

static void test_a_file_that_comes_back_goes_on(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(seen("one") == 1);
    rename(at("logs/a.log"), at("elsewhere"));
    settle();
    put("elsewhere", "a", "two\n");
    rename(at("elsewhere"), at("logs/a.log"));
    AWAIT(seen("two") >= 1);
    settle();
    assert_int_equal(seen("one"), 1);
    assert_int_equal(seen("two"), 1);
}

/* ---- Restart ---- */

static void test_restart_reads_on(void **state)
{
    bool resting = host.resting;

    (void)state;
    put("logs/a.log", "w", "one\n");
    put("logs/with space % and \xff.log", "w", "strange\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    save();
    host.resting = false;            /* a stream that is let go is saved, too */
    put("logs/a.log", "a", "two\n");
    AWAIT(seen("two") == 1);
    /* Died before the second save: two again, one not. */
    stop();
    host.resting = resting;
    host.offered = 0;
    put("logs/a.log", "a", "three\n");
    start_logs("");
    AWAIT(seen("three") == 1);
    settle();
    assert_int_equal(seen("one"), 1);
    assert_int_equal(seen("two"), 2);
    assert_int_equal(seen("strange"), 1);
    assert_int_equal(host.offered, 1 + 3);
}

static void test_damaged_rows_cost_a_reading(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.line_count == 1);
    save();
    stop();
    free(host.rows[0].attrs);
    host.rows[0].attrs = strdup("v1 nonsense");
    start_logs("");
    AWAIT(seen("one") == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_BOTH(hears_without_rescan),
        TEST_BOTH(folder_that_is_made_later),
        TEST_BOTH(finds_without_watches),
        TEST_BOTH(leaves_alone_what_is_no_log),
        TEST_BOTH(start_at_end),
        TEST_BOTH(deleted_while_read),
        TEST_BOTH(torn_end_of_a_live_file_waits),
        TEST_BOTH(permission_comes_later),
        TEST_BOTH(rows_of_gone_files_are_forgotten),
        TEST_BOTH(a_file_that_comes_back_goes_on),
        TEST_BOTH(restart_reads_on),
        TEST_BOTH(damaged_rows_cost_a_reading),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
