/* json: nodes by value over the tape, lookups that cope with anything, and texts that are refused with a reason. */
#include "daemon/record/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <uv.h>

static struct json *json;
static char padded[1 << 21];

static int try_parse(const char *text, size_t size, struct pen_json *root, const char **why)
{
    assert_true(size + JSON_PADDING <= sizeof(padded));
    memcpy(padded, text, size);
    memset(padded + size, 'x', JSON_PADDING);
    return json_parse(json, padded, size, root, why);
}

static struct pen_json parse(const char *text)
{
    struct pen_json root;
    const char *why;

    assert_int_equal(try_parse(text, strlen(text), &root, &why), 0);
    return root;
}

static void assert_span(struct pen_span span, const char *text)
{
    assert_non_null(span.data);
    assert_int_equal(span.size, strlen(text));
    assert_memory_equal(span.data, text, span.size);
}

static void members_are_found_by_name(void **state)
{
    struct pen_json root = parse("{\"a\":{\"b\":[1,[2,3],{\"c\":4}],\"long\":-9223372036854775808},\"A\":\"upper\",\"e\":\"\"}");
    struct pen_json node = pen_json_path(&root, "a.b"), item;
    int64_t number;

    assert_int_equal(pen_json_type(&node), PEN_JSON_ARRAY);
    assert_int_equal(pen_json_count(&node), 3);
    item = pen_json_item(&node, 2);
    item = pen_json_get(&item, "c");
    assert_true(pen_json_int(&item, &number));
    assert_int_equal(number, 4);
    assert_span(pen_json_text(&root, "A"), "upper");
    assert_span(pen_json_text(&root, "e"), "");
    node = pen_json_path(&root, "a.long");
    assert_true(pen_json_int(&node, &number));
    assert_true(number == INT64_MIN);
    node = pen_json_path(&root, "a.b.c");
    assert_int_equal(pen_json_type(&node), PEN_JSON_MISSING);
    assert_null(pen_json_text(&root, "none").data);
    (void)state;
}

static void a_missing_node_answers_everything(void **state)
{
    struct pen_json none = { 0 }, node;
    struct pen_json_iter it = pen_json_each(&none);
    int64_t number;
    double real;
    bool truth;

    node = pen_json_path(&none, "a.b");
    assert_null(node.tree);
    node = pen_json_item(&none, 0);
    assert_null(node.tree);
    assert_false(pen_json_next(&it));
    assert_int_equal(pen_json_count(&none), 0);
    assert_null(pen_json_value(&none).data);
    assert_false(pen_json_int(&none, &number) || pen_json_real(&none, &real) || pen_json_bool(&none, &truth));
    (void)state;
}

static void case_is_ignored_on_request_and_the_exact_name_wins(void **state)
{
    struct pen_json root = parse("{\"ErrorInfo\":1,\"errorInfo\":2,\"LEVEL\":3}"), node;
    int64_t number;

    node = pen_json_get_nocase(&root, "errorInfo");
    assert_true(pen_json_int(&node, &number) && number == 2);
    node = pen_json_get_nocase(&root, "level");
    assert_true(pen_json_int(&node, &number) && number == 3);
    node = pen_json_get(&root, "level");
    assert_null(node.tree);
    (void)state;
}

static void the_first_of_repeated_keys_wins(void **state)
{
    struct pen_json root = parse("{\"a\":\"one\",\"a\":\"two\"}");

    assert_span(pen_json_text(&root, "a"), "one");
    assert_int_equal(pen_json_count(&root), 2);
    (void)state;
}

static void numbers_are_read_from_texts_too(void **state)
{
    static const struct { const char *text; bool whole; int64_t number; } cases[] = {
        { "[2826]", true, 2826 }, { "[\"78\"]", true, 78 }, { "[\"-5\"]", true, -5 }, { "[3.0]", true, 3 },
        { "[\"3.0\"]", true, 3 }, { "[1e3]", true, 1000 }, { "[3.5]", false, 0 }, { "[\"\"]", false, 0 },
        { "[\" 7\"]", false, 0 }, { "[\"0x10\"]", false, 0 }, { "[\"nan\"]", false, 0 }, { "[\"12a\"]", false, 0 },
        { "[\"9223372036854775807\"]", true, INT64_MAX }, { "[\"9223372036854775808\"]", false, 0 },
        { "[9223372036854775808]", false, 0 }, { "[1e300]", false, 0 }, { "[true]", false, 0 }, { "[null]", false, 0 },
        { "[\"-\"]", false, 0 }, { "[\"1e400\"]", false, 0 }, { "[[1]]", false, 0 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct pen_json root = parse(cases[i].text), item = pen_json_item(&root, 0);
        int64_t number = 0;

        if (pen_json_int(&item, &number) != cases[i].whole || number != cases[i].number)
            fail_msg("%s", cases[i].text);
    }
    (void)state;
}

static void truth_is_read_from_words_in_any_case(void **state)
{
    struct pen_json root = parse("[true,false,\"True\",\"FALSE\",\"yes\",1]"), item;
    static const int expected[] = { 1, 0, 1, 0, -1, -1 };

    for (size_t i = 0; i < 6; i++) {
        bool truth;

        item = pen_json_item(&root, i);
        assert_int_equal(pen_json_bool(&item, &truth) ? truth : -1, expected[i]);
    }
    (void)state;
}

static void texts_keep_their_nuls_and_escapes_are_undone_once(void **state)
{
    struct pen_json root = parse("{\"a\":\"x\\u0000y\",\"b\":\"\\/\\u003c\\\\n\",\"c\":\"\\ud83d\\ude00\"}");
    struct pen_span span = pen_json_text(&root, "a");

    assert_int_equal(span.size, 3);
    assert_memory_equal(span.data, "x\0y", 3);
    assert_span(pen_json_text(&root, "b"), "/<\\n");
    assert_span(pen_json_text(&root, "c"), "\xF0\x9F\x98\x80");
    (void)state;
}

static void what_is_not_json_is_refused_with_a_reason(void **state)
{
    static const char *const texts[] = {
        "", "   ", "{", "{\"a\":1", "{\"a\":1}}", "{\"a\":1,}", "[1,]", "{a:1}", "{'a':1}", "[NaN]", "[Infinity]", "[-]",
        "[01]", "[1.]", "[tru]", "[nul]", "[\"\\x\"]", "[\"a]", "[\"a\nb\"]", "[\"\\ud800\"]x", "{\"a\" 1}",
        "[18446744073709551616]", "[-9223372036854775809]", "[1e400]", "[\"\xff\"]", "[\"\xc0\xaf\"]", "[\"\xed\xa0\x80\"]",
        "[\"\x01\"]", "{\"a\":1}{\"b\":2}", "[ 218 B blob data ]", "\xEF\xBF", "{\"a\":\xE2\x80\x9Cx\xE2\x80\x9D}",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct pen_json root;
        const char *why = NULL;

        if (try_parse(texts[i], strlen(texts[i]), &root, &why) != UV_EINVAL || why == NULL)
            fail_msg("taken: %s", texts[i]);
    }
    assert_int_equal(pen_json_count(&(struct pen_json){ 0 }), 0);
    parse("{\"still\":\"works\"}");
    (void)state;
}

static void a_nul_inside_the_text_is_refused(void **state)
{
    struct pen_json root;
    const char *why;

    assert_int_equal(try_parse("{\"a\":\"x\0y\"}", 11, &root, &why), UV_EINVAL);
    assert_int_equal(try_parse("{}\0", 3, &root, &why), UV_EINVAL);
    (void)state;
}

static void depth_is_bounded(void **state)
{
    struct pen_json root;
    const char *why;
    char text[2 * 300 + 1];
    struct buf out = { 0 };

    for (int depth = 200; depth <= 300; depth += 100) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        assert_int_equal(try_parse(text, 2 * (size_t)depth, &root, &why), depth == 200 ? 0 : UV_EINVAL);
        if (depth == 200) {
            json_write(&root, &out);
            assert_int_equal(out.size, 400);
        }
    }
    assert_string_equal(why, "it is nested too deep");
    memset(padded, '[', 1000000);
    assert_int_equal(json_parse(json, padded, 1000000, &root, &why), UV_EINVAL);
    buf_free(&out);
    (void)state;
}

static void writing_is_compact_and_reads_back_the_same(void **state)
{
    static const char text[] = " { \"a b\" : [ 1 , -2, 1.5, 18446744073709551615, true, false, null, {}, [] ],\n"
                               " \"t\":\"q\\\"\\\\\\n\\u0001\\u00e9\" , \"t\":2 } ";
    struct pen_json root = parse(text);
    struct buf once = { 0 }, twice = { 0 };

    json_write(&root, &once);
    buf_char(&once, '\0');
    assert_string_equal(once.data, "{\"a b\":[1,-2,1.5,18446744073709551615,true,false,null,{},[]],"
                                   "\"t\":\"q\\\"\\\\\\n\\u0001\xC3\xA9\",\"t\":2}");
    root = parse(once.data);
    json_write(&root, &twice);
    assert_int_equal(twice.size + 1, once.size);
    assert_memory_equal(once.data, twice.data, twice.size);
    buf_free(&once);
    buf_free(&twice);
    (void)state;
}

static void memory_follows_the_texts_and_is_given_back(void **state)
{
    size_t size = 1 << 20;
    struct pen_json root;
    const char *why;

    padded[0] = '"';
    memset(padded + 1, 'x', size - 2);
    padded[size - 1] = '"';
    assert_int_equal(json_parse(json, padded, size, &root, &why), 0);
    assert_int_equal(pen_json_value(&root).size, size - 2);
    assert_true(json_held(json) >= 13 * size && json_held(json) <= json_need(size));
    json_shrink(json, 4096);
    assert_true(json_held(json) <= json_need(4096));
    root = parse("{\"a\":\"b\"}");
    assert_span(pen_json_text(&root, "a"), "b");
    assert_true(json_held(json) <= json_need(4096));
    (void)state;
}

static int setup(void **state)
{
    json = json_new();
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    json_free(json);
    (void)state;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_found_by_name),
        cmocka_unit_test(a_missing_node_answers_everything),
        cmocka_unit_test(case_is_ignored_on_request_and_the_exact_name_wins),
        cmocka_unit_test(the_first_of_repeated_keys_wins),
        cmocka_unit_test(numbers_are_read_from_texts_too),
        cmocka_unit_test(truth_is_read_from_words_in_any_case),
        cmocka_unit_test(texts_keep_their_nuls_and_escapes_are_undone_once),
        cmocka_unit_test(what_is_not_json_is_refused_with_a_reason),
        cmocka_unit_test(a_nul_inside_the_text_is_refused),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(writing_is_compact_and_reads_back_the_same),
        cmocka_unit_test(memory_follows_the_texts_and_is_given_back),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
