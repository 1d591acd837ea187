/* A window's promises: times are read as they are documented, and nothing that may hold an event of it is passed over. */
#include "daemon/record/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW (INT64_C(1795341600) * WINDOW_TICKS_A_SECOND)          /* 2026-11-22T10:00:00Z */

static int64_t read_time(const char *text)
{
    struct pen_error err = { 0 };
    int64_t ticks;

    if (window_time_read(text, NOW, &ticks, &err) < 0) {
        assert_non_null(strstr(err.text, "2026-03-01T10:00Z"));
        return -1;
    }
    assert_int_equal(ticks % WINDOW_TICKS_A_SECOND, 0);
    return ticks / WINDOW_TICKS_A_SECOND;
}

static void test_times(void **state)
{
    static const struct { const char *text; int64_t seconds; } good[] = {
        { "2026-11-22", 1795305600 }, { "2026-11-22T10:00Z", 1795341600 }, { "2026-11-22T10:00:30Z", 1795341630 },
        { "2026-11-22T11:00+01:00", 1795341600 }, { "2026-11-22T05:00:00-05:00", 1795341600 }, { "2024-02-29", 1709164800 },
        { "now", 1795341600 }, { "-36h", 1795341600 - 36 * 3600 }, { "-2d", 1795341600 - 2 * 86400 }, { "-90m", 1795341600 - 5400 },
    };
    static const char *const bad[] = {
        "", "-", "36h", "-36", "-36s", "--36h", "-1e3h", "- 36h", "yesterday", "2026", "2026-11", "2026-11-31", "2025-02-29",
        "2026-13-01", "2026-11-22T10Z", "2026-11-22 10:00Z", "2026-11-22T10:00", "2026-11-22T10:00Zulu", "26-11-22", "22.11.2026",
        "2026-11-22T25:00Z", "-99999999999999999999h", "-9999999d", " 2026-11-22", "2026-11-22 ", "12026-11-22",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        assert_int_equal(read_time(good[i].text), good[i].seconds);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        if (read_time(bad[i]) != -1)
            fail_msg("\"%s\" was read as a time", bad[i]);
}

static void test_spans(void **state)
{
    struct pen_error err = { 0 };
    int64_t ticks;

    (void)state;
    assert_int_equal(window_span_read("48h", &ticks, &err), 0);
    assert_int_equal(ticks, 48 * 3600 * WINDOW_TICKS_A_SECOND);
    assert_int_equal(window_span_read("0m", &ticks, &err), 0);
    assert_int_equal(ticks, 0);
    assert_true(window_span_read("-1h", &ticks, &err) < 0 && window_span_read("2 d", &ticks, &err) < 0);
}

/* 10:00 to 12:00 on the 1st of March, two hours late at most: from the hour that ends at 09:00 to the one that begins before 14:00. */
static void test_paths(void **state)
{
    struct window window = { 0 };
    struct pen_error err = { 0 };
    static const struct { const char *path; bool may; } cases[] = {
        { "/a/resourceId=/SUB/y=2026/m=03/d=01/h=10/m=00/PT1H.json", true },
        { "/a/y=2026/m=03/d=01/h=09/m=00/PT1H.json", true }, { "/a/y=2026/m=03/d=01/h=08/m=00/PT1H.json", false },
        { "/a/y=2026/m=03/d=01/h=13/m=00/PT1H.json.gz", true }, { "/a/y=2026/m=03/d=01/h=14/m=00/PT1H.json", false },
        { "/a/y=2026/", true }, { "/a/y=2025/", false }, { "/a/y=2027/", false }, { "/a/y=2026/m=03/", true },
        { "/a/y=2026/m=01/", false }, { "/a/y=2026/m=04/", false }, { "/a/y=2026/m=02/d=28/", false },
        { "/a/y=2026/m=03/d=01/", true }, { "/a/y=2026/m=03/d=02/", false }, { "/a/y=2026/m=03/d=01/h=08/", false },
        { "/a/export.json", true }, { "/a/2025/03/01/x.json", true }, { "/a/y=2026/PT1H.json", true }, { "/a/y=26/m=02/x", true },
    };

    (void)state;
    assert_int_equal(window_time_read("2026-03-01T10:00Z", NOW, &window.from_ticks, &err), 0);
    assert_int_equal(window_time_read("2026-03-01T12:00Z", NOW, &window.to_ticks, &err), 0);
    assert_int_equal(window_span_read("2h", &window.late_ticks, &err), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        if (window_may_hold(&window, cases[i].path) != cases[i].may)
            fail_msg("%s: %s", cases[i].path, cases[i].may ? "was passed over" : "would be read in vain");
    window = WINDOW_ALL;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_true(window_may_hold(&window, cases[i].path));
    assert_true(window_has(&window, NOW) && window_has(&window, INT64_MIN));
}

/* From is in it, to is not. */
static void test_bounds(void **state)
{
    struct window window = { .from_ticks = 10, .to_ticks = 20 };

    (void)state;
    assert_true(window_has(&window, 10) && window_has(&window, 19));
    assert_false(window_has(&window, 9) || window_has(&window, 20));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times), cmocka_unit_test(test_spans), cmocka_unit_test(test_paths), cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
