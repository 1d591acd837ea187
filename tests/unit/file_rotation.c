/* Promise: whatever happens to the names and inodes of log files, every line in them is read, none is torn, and a line is
 * read twice only where reading it once would have been a guess. */
#include "tests/unit/file_host.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Who is who ---- */

static void test_renamed(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.line_count == 1);
    rename(at("logs/a.log"), at("logs/b.log"));
    put("logs/b.log", "a", "two\n");
    put("logs/a.log", "w", "three\n");
    AWAIT(seen("two") == 1 && seen("three") == 1);
    settle();
    assert_int_equal(seen("one"), 1);
    assert_int_equal(seen("three"), 1);
}

static void test_renamed_in_a_chain_while_away(void **state)
{
    (void)state;
    put("logs/a.1.log", "w", "old 1\n");
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    save();
    stop();
    put("logs/a.log", "a", "two\n");
    rename(at("logs/a.1.log"), at("logs/a.2.log"));
    rename(at("logs/a.log"), at("logs/a.1.log"));
    put("logs/a.log", "w", "three\n");
    start_logs("");
    AWAIT(seen("two") == 1 && seen("three") == 1);
    settle();
    assert_int_equal(seen("old 1") + seen("one"), 2);
}

/* Rotated to a name that no pattern matches, with lines we have not read. */
static void test_renamed_out_of_the_pattern(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\n");
    start_logs("");
    AWAIT(host.line_count == 1);
    rename(at("logs/a.log"), at("logs/a.old"));
    put("logs/a.old", "a", "two\ntorn");
    put("logs/a.log", "w", "three\n");
    AWAIT(seen("two") == 1 && seen("three") == 1 && seen("torn") == 1);
    assert_int_equal(host.line_count, 4);

    /* And while we were away: found by its inode, believed by its bytes. */
    save();
    stop();
    put("logs/a.log", "a", "four\n");
    rename(at("logs/a.log"), at("logs/a.older"));
    put("logs/a.log", "w", "five\n");
    start_logs("");
    AWAIT(seen("four") == 1 && seen("five") == 1);
    assert_int_equal(seen("three"), 1);
}

static void test_copied_and_truncated(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\ntwo\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    put("logs/a.log", "w", "x\n");
    AWAIT(seen("x") == 1);
    /* Truncated and past the old place before we look. */
    put("logs/a.log", "w", "other, and longer than before\nmore\n");
    AWAIT(seen("more") == 1);
    assert_int_equal(seen("other, and longer than before"), 1);
    assert_int_equal(host.line_count, 5);
    assert_true(host.forgotten >= 2);
}

static void test_inode_reused_while_away(void **state)
{
    struct stat st;
    char text[64], *space;

    (void)state;
    put("logs/a.log", "w", "one\ntwo\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    save();
    stop();
    unlink(at("logs/a.log"));
    put("logs/b.log", "w", "three\nfour\nfive\n");
    assert_int_equal(stat(at("logs/b.log"), &st), 0);
    /* The file system gives the number again: said here by the row. */
    assert_int_equal(host.row_count, 1);
    space = strchr(strchr(host.rows[0].attrs, ' ') + 1, ' ');
    snprintf(text, sizeof text, "v1 %ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    space = strdup(space);
    free(host.rows[0].attrs);
    assert_true(asprintf(&host.rows[0].attrs, "%s%s", text, space) > 0);
    free(space);
    start_logs("");
    AWAIT(seen("five") == 1);
    assert_int_equal(seen("three"), 1);
    assert_int_equal(host.line_count, 5);
}

/* A longer copy under the same name: azcopy renames it into place. */
static void test_replaced_by_a_longer_copy(void **state)
{
    (void)state;
    put("logs/a.log", "w", "one\ntwo\n");
    start_logs("");
    AWAIT(host.line_count == 2);
    for (unsigned i = 0; i < 3; i++) {
        char line[16];

        snprintf(line, sizeof line, "more %u", i);
        put("logs/temporary", "w", "one\ntwo\n");
        for (unsigned j = 0; j <= i; j++) {
            char text[16];

            snprintf(text, sizeof text, "more %u\n", j);
            put("logs/temporary", "a", text);
        }
        rename(at("logs/temporary"), at("logs/a.log"));
        AWAIT(seen(line) == 1);
    }
    settle();
    assert_int_equal(host.line_count, 5 + 3);
    /* Another file in its place is another file. */
    put("logs/temporary", "w", "zero\none\ntwo\nmore\n");
    rename(at("logs/temporary"), at("logs/a.log"));
    AWAIT(seen("zero") == 1 && seen("more") == 1);
    assert_int_equal(seen("one"), 2);
}

/* A folder of files, all replaced by longer copies: file systems hand each freed inode to the next copy. */
static void test_replaced_with_inodes_passed_on(void **state)
{
    char name[64], text[64];

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "logs/%u.log", i);
        snprintf(text, sizeof text, "first of %u\n", i);
        put(name, "w", text);
    }
    start_logs("");
    AWAIT(host.line_count == 20);
    restart("open_max = 8");
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "logs/%u.log", i);
        snprintf(text, sizeof text, "first of %u\nsecond of %u\n", i, i);
        put("logs/temporary", "w", text);
        rename(at("logs/temporary"), at(name));
    }
    AWAIT(host.line_count >= 40);
    settle();
    for (unsigned i = 0; i < 20; i++) {
        snprintf(text, sizeof text, "first of %u", i);
        assert_int_equal(seen(text), 1);
        snprintf(text, sizeof text, "second of %u", i);
        assert_int_equal(seen(text), 1);
    }
}

static void test_equal_beginnings(void **state)
{
    char same[4096];

    (void)state;
    memset(same, 's', sizeof same);
    same[sizeof same - 2] = '\n';
    same[sizeof same - 1] = '\0';
    put("logs/a.log", "w", same);
    put("logs/a.log", "a", "a\n");
    put("logs/b.log", "w", same);
    put("logs/b.log", "a", "b\n");
    start_logs("");
    AWAIT(host.line_count == 4);
    put("logs/c.log", "w", same);
    put("logs/c.log", "a", "c\n");
    put("logs/b.log", "a", "bb\n");
    AWAIT(host.line_count == 7);
    assert_int_equal(seen("a") + seen("b") + seen("c") + seen("bb"), 4);
    /* In the place of one of them, equal for long, then not. */
    put("logs/temporary", "w", same);
    put("logs/temporary", "a", "d\nand longer\n");
    rename(at("logs/temporary"), at("logs/a.log"));
    AWAIT(seen("and longer") == 1 && seen("d") == 1);
}

/* The same bytes before our place, other ones at the beginning. */
static void test_equal_only_at_our_place(void **state)
{
    char same[4096];

    (void)state;
    memset(same, 's', sizeof same);
    same[sizeof same - 2] = '\n';
    same[sizeof same - 1] = '\0';
    put("logs/a.log", "w", "one\n");
    put("logs/a.log", "a", same);
    start_logs("");
    AWAIT(host.line_count == 2);
    put("logs/temporary", "w", "two\n");
    put("logs/temporary", "a", same);
    put("logs/temporary", "a", "three\n");
    rename(at("logs/temporary"), at("logs/a.log"));
    AWAIT(seen("two") == 1 && seen("three") == 1);
}

#define ROTATED_LINES 20000

struct rotated {
    bool read[ROTATED_LINES];
    unsigned distinct;
    size_t looked;                   /* at so many of the host's lines */
};

/* Whether each of the first n numbered lines has been read at least once. What came is looked at once. */
static bool all_read(struct rotated *rotated, unsigned n)
{
    for (; rotated->looked < host.line_count; rotated->looked++) {
        unsigned number = (unsigned)atoi(host.lines[rotated->looked] + strlen("line "));

        assert_true(number < ROTATED_LINES);
        rotated->distinct += !rotated->read[number];
        rotated->read[number] = true;
    }
    return rotated->distinct >= n;
}

/* Lines are written and files renamed, deleted behind us and made again, all the time, in no order. Nothing is lost; who
 * looks between two renames may read a file again. */
static void test_rotation_without_pause(void **state)
{
    unsigned written = 0, rotations = 0;
    struct rotated rotated = { .distinct = 0 };
    char text[64], name[64];

    (void)state;
    srand(11);
    start_logs("chunk = 4096");
    while (written < ROTATED_LINES) {
        FILE *file = fopen(at("logs/a.log"), "a");

        for (int i = rand() % 200; i > 0 && written < ROTATED_LINES; i--)
            fprintf(file, "line %u\n", written++);
        fclose(file);
        if (rand() % 4 == 0) {
            /* The last one falls off the end, as in life, only when it was read. */
            if (rotations >= 5)
                AWAIT(all_read(&rotated, written));
            for (unsigned i = rotations < 5 ? rotations : 5; i > 0; i--) {
                snprintf(name, sizeof name, "logs/a.%u.log", i);
                snprintf(text, sizeof text, "logs/a.%u.log", i + 1);
                rename(at(name), at(text));
            }
            rename(at("logs/a.log"), at("logs/a.1.log"));
            rotations++;
        }
        for (int i = rand() % 4; i > 0; i--)
            uv_run(&host.loop, UV_RUN_NOWAIT);
    }
    AWAIT(all_read(&rotated, ROTATED_LINES));
}

/* The name is taken again while we are still finding out where its last holder went: heard of, not left to the sweep. */
static void test_hears_of_the_next_file(void **state)
{
    char text[32], name[64];

    (void)state;
    start_logs("rescan = 1h");
    for (unsigned i = 0; i < 200; i++) {
        snprintf(text, sizeof text, "line %u\n", i);
        put("logs/a.log", "w", text);
        text[strlen(text) - 1] = '\0';
        AWAIT(seen(text) == 1);
        snprintf(name, sizeof name, "logs/a.log.%u", i);
        rename(at("logs/a.log"), at(name));
        for (unsigned turns = i % 8; turns > 0; turns--)
            uv_run(&host.loop, UV_RUN_NOWAIT);
    }
}

/* Is a file of this number held open? */
static bool is_open(ino_t ino)
{
    struct dirent *entry;
    bool found = false;
    DIR *fds = opendir("/proc/self/fd");
    struct stat st;

    while ((entry = readdir(fds)) != NULL)
        found |= fstatat(dirfd(fds), entry->d_name, &st, 0) == 0 && st.st_ino == ino;
    closedir(fds);
    return found;
}

/* A file ends before anything was read of it, others hold its name by now, and its inode comes back under a new one: the
 * number is all that was known of it, and says nothing. A hard link elsewhere plays the file system that hands it out again. */
static void test_inode_of_an_unread_file_comes_back(void **state)
{
    struct stat st;

    (void)state;
    put("logs/a.log", "w", "");
    assert_int_equal(stat(at("logs/a.log"), &st), 0);
    assert_int_equal(link(at("logs/a.log"), at("aside")), 0);
    start_logs("");
    AWAIT(is_open(st.st_ino));
    unlink(at("logs/a.log"));
    AWAIT(!is_open(st.st_ino));
    put("logs/a.log", "w", "one\n");
    AWAIT(seen("one") == 1);
    put("aside", "a", "two\n");
    rename(at("aside"), at("logs/b.log"));
    AWAIT(seen("two") == 1);
    put("logs/b.log", "a", "three\n");
    AWAIT(seen("three") == 1);
    settle();
    assert_int_equal(host.line_count, 3 + 3);
}

/* Blocks go in before the closing brackets; the copy is rewritten in place, or replaced. */
static void test_growing_pt1h(void **state)
{
    char text[8192] = "{\"records\":[", whole[8300], line[32], options[512];

    (void)state;
    host.pt1h = true;
    snprintf(options, sizeof options, "path = %s/logs/PT1H.json\nrescan = 50ms\nfinal_after = 100ms", dir);
    start(options);
    for (unsigned i = 0; i < 60; i++) {
        snprintf(line, sizeof line, "{\"time\":\"%u\"}", i);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i > 0 ? "," : "", line);
        snprintf(whole, sizeof whole, "%s]}", text);
        if (i % 3 == 0) {
            put("logs/temporary", "w", whole);
            rename(at("logs/temporary"), at("logs/PT1H.json"));
        } else {
            int fd = open(at("logs/PT1H.json"), O_WRONLY);

            assert_int_equal(write(fd, whole, strlen(whole)), strlen(whole));
            close(fd);
        }
        if (i % 7 == 0)
            AWAIT(seen(line) == 1);
    }
    AWAIT(seen(line) == 1);
    assert_int_equal(host.line_count, 60);
    AWAIT(!host.resting || host.rested > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_BOTH(renamed),
        TEST_BOTH(renamed_in_a_chain_while_away),
        TEST_BOTH(renamed_out_of_the_pattern),
        TEST_BOTH(copied_and_truncated),
        TEST_BOTH(inode_reused_while_away),
        TEST_BOTH(replaced_by_a_longer_copy),
        TEST_BOTH(replaced_with_inodes_passed_on),
        TEST_BOTH(equal_beginnings),
        TEST_BOTH(equal_only_at_our_place),
        TEST_BOTH(rotation_without_pause),
        TEST_BOTH(hears_of_the_next_file),
        TEST_BOTH(inode_of_an_unread_file_comes_back),
        TEST_BOTH(growing_pt1h),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
