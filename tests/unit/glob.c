/* Promise: a pattern means the same files whether one path is asked for or a tree is listed, and no tree, whatever links
 * and names are in it, keeps a listing from ending. */
#include "daemon/source/glob.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include <cmocka.h>

static char dir[64];

static struct glob *glob_of(const char *first, const char *second)
{
    const char *items[] = { first, second };
    struct pen_list list = { items, second != NULL ? 2 : 1 };
    struct pen_error err = { 0 };
    struct glob *glob = NULL;

    if (glob_new(&glob, &list, &err) < 0)
        fail_msg("%s", err.text);
    return glob;
}

static void test_matches(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool matches, enters;
    } rows[] = {
        { "/a/b.json", "/a/b.json", true, false },
        { "/a/b.json", "/a", false, true },
        { "/a/b.json", "/", false, true },
        { "/a/b.json", "/a/c.json", false, false },
        { "//a///b.json", "/a/b.json", true, false },
        { "/a/*.json", "/a/b.json", true, false },
        { "/a/*.json", "/a/x/b.json", false, false },
        { "/a/*.json", "/a/.b.json", false, false },
        { "/a/.*.json", "/a/.b.json", true, false },
        { "/a/?.json", "/a/b.json", true, false },
        { "/a/?.json", "/a/bb.json", false, false },
        { "/a/[bc].json", "/a/c.json", true, false },
        { "/a/[!bc].json", "/a/c.json", false, false },
        { "/a/h=[0-9][0-9]/PT1H.json", "/a/h=18/PT1H.json", true, false },
        { "/a/\\*.json", "/a/*.json", true, false },
        { "/a/\\*.json", "/a/b.json", false, false },
        { "/a/**/b.json", "/a/b.json", true, true },
        { "/a/**/b.json", "/a/x/y/z/b.json", true, true },
        { "/a/**/b.json", "/a/x/y/z", false, true },
        { "/a/**/b.json", "/a/.x/b.json", false, false },
        { "/a/**/.x/b.json", "/a/y/.x/b.json", true, false },
        { "/a/**/m=*/**/b.json", "/a/y=1/m=2/d=3/b.json", true, true },
        { "/a/**/m=*/**/b.json", "/a/y=1/d=3/b.json", false, true },
        { "/a/**", "/a/b", true, true },
        { "/a/**", "/a/x/y/b", true, true },
        { "/a/**", "/a", false, true },
        { "/**/**/**/b", "/b", true, true },
        { "/a/x**y/b", "/a/xzy/b", true, false },
        { "/a/[b", "/a/[b", true, false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct glob *glob = glob_of(rows[i].pattern, NULL);

        if (glob_matches(glob, rows[i].path) != rows[i].matches || glob_enters(glob, rows[i].path) != rows[i].enters)
            fail_msg("%s on %s: matches %d, enters %d", rows[i].pattern, rows[i].path,
                     glob_matches(glob, rows[i].path), glob_enters(glob, rows[i].path));
        glob_free(glob);
    }
}

static void test_refuses(void **state)
{
    char deep[1024] = "";

    (void)state;
    for (unsigned i = 0; i < GLOB_PARTS_MAX; i++)
        strcat(deep, "/a");
    for (const char *const *at = (const char *const[]){ "a/b", "", "/", "/a/", "/a/../b", "/a/./b", deep, NULL }; *at != NULL;
         at++) {
        struct pen_list list = { at, 1 };
        struct pen_error err = { 0 };
        struct glob *glob = NULL;

        assert_int_equal(glob_new(&glob, &list, &err), UV_EINVAL);
        assert_null(glob);
        assert_true(strlen(err.text) > 10);
    }
}

/* A pattern made to be slow: parts times names, no more. */
static void test_stays_quick(void **state)
{
    struct glob *glob = glob_of("/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/b", NULL);
    char path[256] = "";

    (void)state;
    for (unsigned i = 0; i < 60; i++)
        strcat(path, "/a");
    for (unsigned i = 0; i < 1000; i++)
        assert_false(glob_matches(glob, path));
    glob_free(glob);
}

/* ---- Listing ---- */

static const char *at(const char *name)
{
    static char paths[8][512];
    static unsigned slot;
    char *path = paths[slot++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void make(const char *name)
{
    int fd;

    for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        char folder[400];

        snprintf(folder, sizeof folder, "%.*s", (int)(slash - name), name);
        mkdir(at(folder), 0755);
    }
    fd = open(at(name), O_CREAT | O_WRONLY, 0644);
    assert_true(fd >= 0);
    close(fd);
}

/* Walks as the file source does; returns files met, at most 10,000 folders. */
static size_t walk(const struct glob *glob, const struct glob *exclude, bool links, const char *first, char *names)
{
    struct glob_list *list;
    char *stack[10000];
    size_t files = 0, depth = 1, steps = 0, count;

    names[0] = '\0';
    stack[0] = strdup(first);
    while (depth > 0) {
        char *folder = stack[--depth];
        struct glob_entry entries[3];

        assert_true(++steps < 10000);
        assert_int_equal(glob_list_open(&list, glob, exclude, links, folder), 0);
        free(folder);
        while ((count = glob_list_next(list, entries, 3)) > 0)
            for (size_t i = 0; i < count; i++) {
                if (S_ISDIR(entries[i].st.st_mode)) {
                    stack[depth++] = entries[i].path;
                    continue;
                }
                files++;
                assert_true(glob_matches(glob, entries[i].path));
                strcat(strcat(names, entries[i].path + strlen(dir) + 1), " ");
                free(entries[i].path);
            }
        assert_int_equal(glob_list_close(list), 0);
    }
    return files;
}

static size_t walk_all(const char *pattern, char *names)
{
    char first[512];
    struct glob *glob;
    size_t files;

    snprintf(first, sizeof first, "%s/%s", dir, pattern);
    glob = glob_of(first, NULL);
    files = walk(glob, NULL, true, "/", names);
    glob_free(glob);
    return files;
}

static void test_lists(void **state)
{
    char names[65536];

    (void)state;
    make("r/y=2026/m=11/PT1H.json");
    make("r/y=2026/m=11/other.txt");
    make("r/y=2026/m=12/PT1H.json");
    make("r/PT1H.json");
    make("r/.hidden/PT1H.json");
    assert_int_equal(walk_all("r/**/PT1H.json", names), 3);
    assert_int_equal(walk_all("r/*/m=1[12]/PT1H.json", names), 2);
    assert_int_equal(walk_all("r/y=2026/m=11/PT1H.json", names), 1);
    assert_string_equal(names, "r/y=2026/m=11/PT1H.json ");
    assert_int_equal(walk_all("r/**", names), 4);
    assert_int_equal(walk_all("nowhere/**", names), 0);
}

static void test_lists_without_what_is_excluded(void **state)
{
    struct glob *glob = glob_of(at("r/**/*.json"), NULL), *exclude = glob_of(at("r/no"), at("r/**/b.json"));
    char names[65536];

    (void)state;
    make("r/no/a.json");
    make("r/x/a.json");
    make("r/x/b.json");
    assert_int_equal(walk(glob, exclude, true, "/", names), 1);
    assert_string_equal(names, "r/x/a.json ");
    glob_free(glob);
    glob_free(exclude);
}

static void test_links(void **state)
{
    char names[65536];

    (void)state;
    make("r/x/a.json");
    assert_int_equal(symlink(at("r"), at("r/loop")), 0);
    assert_int_equal(symlink(at("r/x"), at("r/x/self")), 0);
    assert_int_equal(symlink("a.json", at("r/x/b.json")), 0);
    assert_int_equal(symlink("nowhere", at("r/x/c.json")), 0);
    assert_int_equal(walk_all("r/**/*.json", names), 2);
    /* Named, a linked folder is entered: as deep as the pattern goes, and no deeper. */
    assert_int_equal(walk_all("r/*/*/*.json", names), 4);
    assert_int_equal(walk_all("r/loop/loop/x/a.json", names), 1);
}

/* Only names are asked for in a folder that may be entered but not read. */
static void test_unreadable_folder(void **state)
{
    uid_t uid = geteuid();
    struct glob *glob = glob_of(at("r/x/a.json"), NULL), *wild = glob_of(at("r/*/a.json"), NULL);
    struct glob_list *list;
    char names[65536];

    (void)state;
    make("r/x/a.json");
    chmod(dir, 0755);
    chmod(at("r"), 0711);
    if (uid == 0)
        assert_int_equal(seteuid(65534), 0);
    else
        chmod(at("r"), 0111);
    assert_int_equal(walk(glob, NULL, true, "/", names), 1);
    assert_int_equal(glob_list_open(&list, wild, NULL, true, at("r")), UV_EACCES);
    assert_int_equal(seteuid(uid), 0);
    chmod(at("r"), 0755);
    glob_free(glob);
    glob_free(wild);
}

static int on_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/penstock-glob-XXXXXX");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(dir, on_remove, 16, FTW_DEPTH | FTW_PHYS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(matches), TEST(refuses), TEST(stays_quick), TEST(lists), TEST(lists_without_what_is_excluded), TEST(links),
        TEST(unreadable_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
