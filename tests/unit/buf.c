/* Promise: text, numbers and times are written exactly, and hostile bytes come out as valid JSON. */
#include "daemon/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

static void expect(struct buf *buf, const char *text)
{
    buf_char(buf, '\0');
    assert_string_equal(buf->data, text);
    buf->size = 0;
}

static void test_numbers(void **state)
{
    struct buf buf = { 0 };

    (void)state;
    buf_int(&buf, 0);
    expect(&buf, "0");
    buf_int(&buf, INT64_MIN);
    expect(&buf, "-9223372036854775808");
    buf_int(&buf, INT64_MAX);
    expect(&buf, "9223372036854775807");
    for (int64_t power = 1; power <= INT64_MAX / 10; power *= 10) {      /* where the number of digits changes */
        for (int64_t number = power - 1; number <= power + 1; number++) {
            char text[24];

            snprintf(text, sizeof(text), "%lld", (long long)-number);
            buf_int(&buf, -number);
            expect(&buf, text);
            buf_int(&buf, number);
            expect(&buf, number == 0 ? "0" : text + 1);
        }
    }
    for (int64_t four = 0; four < 10000; four++) {                       /* any four digits, at any place */
        for (int64_t power = 1; power <= INT64_C(1000000000000); power *= 10000) {
            char text[24];

            snprintf(text, sizeof(text), "%lld", (long long)(four * power + 1234));
            buf_int(&buf, four * power + 1234);
            expect(&buf, text);
        }
    }
    buf_real(&buf, 0.1);
    expect(&buf, "0.1");
    buf_real(&buf, 1.0 / 3);
    expect(&buf, "0.3333333333333333");
    buf_real(&buf, -0.0);
    expect(&buf, "-0.0");
    buf_free(&buf);
}

static void test_times(void **state)
{
    struct buf buf = { 0 };

    (void)state;
    buf_time(&buf, 0);
    expect(&buf, "1970-01-01T00:00:00Z");
    buf_time(&buf, INT64_C(17240904068944384));
    expect(&buf, "2024-08-19T18:00:06.8944384Z");
    buf_time(&buf, INT64_C(16631460035990000));
    expect(&buf, "2022-09-14T09:00:03.599Z");
    buf_time(&buf, -1);
    expect(&buf, "1969-12-31T23:59:59.9999999Z");
    buf_time(&buf, INT64_C(-621355968000000000));
    expect(&buf, "0001-01-01T00:00:00Z");
    buf_time(&buf, INT64_MIN);
    expect(&buf, "0001-01-01T00:00:00Z");
    buf_time(&buf, INT64_MAX);
    expect(&buf, "9999-12-31T23:59:59.9999999Z");
    buf_time(&buf, INT64_C(951782400) * 10000000);
    expect(&buf, "2000-02-29T00:00:00Z");
    buf_free(&buf);
}

static void test_strings(void **state)
{
    struct buf buf = { 0 };

    (void)state;
    buf_json_string(&buf, "a\"b\\c\n\x01\x1b\0d", 10);
    expect(&buf, "\"a\\\"b\\\\c\\n\\u0001\\u001b\\u0000d\"");
    buf_json_string(&buf, "\xC3\xA9\xE2\x80\x93\xF0\x9F\x98\x80", 9);
    expect(&buf, "\"\xC3\xA9\xE2\x80\x93\xF0\x9F\x98\x80\"");
    /* overlong, surrogate, stray, cut off */
    buf_json_string(&buf, "\xC0\xAF|\xED\xA0\x80|\x80|\xE2\x80", 11);
    expect(&buf, "\"\xEF\xBF\xBD\xEF\xBF\xBD|\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD|\xEF\xBF\xBD|\xEF\xBF\xBD\xEF\xBF\xBD\"");
    buf_json_string(&buf, NULL, 0);
    expect(&buf, "\"\"");
    buf_free(&buf);
}

static void test_arena(void **state)
{
    struct arena arena = { 0 };
    char *small, *large;

    (void)state;
    small = arena_alloc(&arena, 3);
    assert_int_equal((uintptr_t)small % 16, 0);
    large = arena_alloc(&arena, 1 << 20);
    memset(large, 1, 1 << 20);
    assert_true(arena.held > 1 << 20);
    arena_reset(&arena);
    assert_true(arena.held < 1 << 20);
    assert_ptr_equal(arena_alloc(&arena, 5), small);
    arena_free(&arena);
    assert_int_equal(arena.held, 0);
}

/* What a file may be called, or a library may say. */
static void test_sentences_are_clean(void **state)
{
    struct pen_error err = { 0 };

    (void)state;
    assert_int_equal(pen_error_set(&err, -2, "a\x1b[2J\n\x7f\t\xc2\x9b \xc3\xa9 \xc2\xa0\xc2"), -2);
    assert_string_equal(err.text, "a?[2J???\?? \xc3\xa9 \xc2\xa0\xc2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_times), cmocka_unit_test(test_strings),
        cmocka_unit_test(test_arena), cmocka_unit_test(test_sentences_are_clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
