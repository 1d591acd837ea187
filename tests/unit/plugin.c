/*
 * Loading parsers: the built-in ones in their order, users' own before them; what is no parser of ours is refused in a
 * sentence that says why. $PENSTOCK_PLUGINS is the folder that tests/plugin was built in.
 */
#include "daemon/record/work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A folder with copies of these shared objects, in order a.so, b.so, … */
static void folder_make(char *folder, const char *const *plugins)
{
    char target[64] = "a.so";

    strcpy(folder, "/tmp/penstock-plugin-XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (; *plugins != NULL; plugins++, target[0]++) {
        char from[512], to[512];

        snprintf(from, sizeof(from), "%s/%s.so", getenv("PENSTOCK_PLUGINS"), *plugins);
        snprintf(to, sizeof(to), "%s/%s", folder, target);
        assert_int_equal(symlink(from, to), 0);
    }
}

static void folder_remove(const char *folder)
{
    for (char name = 'a'; name < 'e'; name++) {
        char path[512];

        snprintf(path, sizeof(path), "%s/%c.so", folder, name);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void test_built_in(void **state)
{
    struct work_plan plan = { 0 };
    struct pen_error err = { 0 };

    (void)state;
    assert_int_equal(work_plan_open(&plan, "auto", NULL, &err), 0);
    assert_int_equal(plan.parser_count, 5);
    assert_string_equal(plan.parsers[4].parser->name, "unknown");
    work_plan_close(&plan);
    work_plan_close(&plan);
}

static void test_named(void **state)
{
    struct work_plan plan = { 0 };
    struct pen_error err = { 0 };

    (void)state;
    assert_int_equal(work_plan_open(&plan, "vnet-flow", NULL, &err), 0);
    assert_int_equal(plan.parser_count, 2);
    assert_string_equal(plan.parsers[0].parser->name, "vnet-flow");
    assert_string_equal(plan.parsers[1].parser->name, "unknown");
    work_plan_close(&plan);
    assert_int_equal(work_plan_open(&plan, "unknown", NULL, &err), 0);
    assert_int_equal(plan.parser_count, 1);
    work_plan_close(&plan);
    assert_true(work_plan_open(&plan, "vnet-flaw", NULL, &err) < 0);
    assert_non_null(strstr(err.text, "vnet-flow"));
}

static void test_users_come_first(void **state)
{
    static const char *const plugins[] = { "good", NULL };
    struct work_plan plan = { 0 };
    struct pen_error err = { 0 };
    char folder[64];

    (void)state;
    folder_make(folder, plugins);
    assert_int_equal(work_plan_open(&plan, "auto", folder, &err), 0);
    assert_int_equal(plan.parser_count, 6);
    assert_string_equal(plan.parsers[0].parser->name, "wrong");
    assert_non_null(plan.parsers[0].plugin);
    assert_null(plan.parsers[1].plugin);
    work_plan_close(&plan);
    assert_int_equal(work_plan_open(&plan, "wrong", folder, &err), 0);
    assert_int_equal(plan.parser_count, 2);
    work_plan_close(&plan);
    folder_remove(folder);
}

static void test_newer_plugin_that_uses_nothing_new(void **state)
{
    static const char *const plugins[] = { "newer_unused", NULL };
    struct work_plan plan = { 0 };
    struct pen_error err = { 0 };
    char folder[64];

    (void)state;
    folder_make(folder, plugins);
    assert_int_equal(work_plan_open(&plan, "auto", folder, &err), 0);
    assert_true(plan.parsers[0].parser->size > sizeof(struct pen_parser));
    work_plan_close(&plan);
    folder_remove(folder);
}

static void test_refused(void **state)
{
    static const struct { const char *plugins[3], *why; } cases[] = {
        { { "no_symbol" }, "no pen_parser_v1()" },
        { { "nothing" }, "returns nothing" },
        { { "small" }, "impossible size" },
        { { "newer" }, "newer Penstock" },
        { { "no_name" }, "no proper name" },
        { { "no_claims" }, "lacks claims()" },
        { { "options" }, "wants settings" },
        { { "taken" }, "called \"unknown\" already" },
        { { "good", "good" }, "called \"wrong\" already" },
        { { "fails_to_open" }, "x" },
        { { "not-there" }, "No such file" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct work_plan plan = { 0 };
        struct pen_error err = { 0 };
        char folder[64];

        folder_make(folder, cases[i].plugins);
        assert_true(work_plan_open(&plan, "auto", folder, &err) < 0);
        if (strstr(err.text, cases[i].why) == NULL)
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].plugins[0], err.text, cases[i].why);
        assert_int_equal(plan.parser_count, 0);
        folder_remove(folder);
    }
}

static void test_folder_for_everybody(void **state)
{
    static const char *const plugins[] = { "good", NULL };
    struct work_plan plan = { 0 };
    struct pen_error err = { 0 };
    char folder[64];

    (void)state;
    folder_make(folder, plugins);
    assert_int_equal(chmod(folder, 0777), 0);
    assert_true(work_plan_open(&plan, "auto", folder, &err) < 0);
    assert_non_null(strstr(err.text, "everybody may write"));
    folder_remove(folder);
    assert_true(work_plan_open(&plan, "auto", folder, &err) < 0);
    assert_non_null(strstr(err.text, "No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_built_in),
        cmocka_unit_test(test_named),
        cmocka_unit_test(test_users_come_first),
        cmocka_unit_test(test_newer_plugin_that_uses_nothing_new),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_folder_for_everybody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
