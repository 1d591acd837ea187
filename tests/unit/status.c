/* The numbers, shown: as metrics, as JSON, at a terminal. Whatever stands in names and sentences, nothing gets out of its place. */
#include "daemon/record/json.h"
#include "daemon/status/metrics.h"
#include "daemon/status/status_view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define HOSTILE "a\"b\\c\nd\033[31m\xff\xe2\x80\xae<b>"

static struct answers answers;
static struct status_source sources[2];
static struct status_sink sink;
static struct status_route route;
static struct status status;

static int begin(void **state)
{
    (void)state;
    answers = (struct answers){ 0 };
    sources[0] = (struct status_source){ .name = "logs", .type = "file", .records = 7, .newest_ms = 1500, .behind_bytes = 3,
                                         .behind_messages = STATUS_NONE, .state = { MOOD_OK, "reading" } };
    sources[1] = (struct status_source){ .name = "hub", .type = "event-hub", .newest_ms = STATUS_NONE,
                                         .behind_bytes = STATUS_NONE, .behind_messages = 9, .state = { MOOD_IDLE, "idle" },
                                         .numbers = { { "missing", SOURCE_COUNT, 4, "Gone." } }, .number_count = 1 };
    route = (struct status_route){ .source = "logs", .sink = "siem", .taken = 10, .delivered = 4, .dead = 1, .held = 2,
                                   .spooled = 3 };
    sink = (struct status_sink){ .name = "siem", .type = "kafka", .schema = "raw", .flow = OUTLET_PAUSED, .all = route,
                                 .spool_bytes = 5 << 20, .spool_max = 6 << 20, .answers = &answers,
                                 .state = { MOOD_BAD, "spool full" } };
    status = (struct status){ .now_ms = 3600000, .started_ms = 1000, .memory_budget = 64 << 20, .sources = sources,
                              .source_count = 2, .sinks = &sink, .sink_count = 1, .routes = &route, .route_count = 1 };
    return 0;
}

static void has(const struct buf *out, const char *text)
{
    if (memmem(out->data, out->size, text, strlen(text)) == NULL)
        fail_msg("\"%s\" is not in:\n%.*s", text, (int)out->size, out->data);
}

static void has_not(const struct buf *out, const char *text)
{
    if (memmem(out->data, out->size, text, strlen(text)) != NULL)
        fail_msg("\"%s\" is in:\n%.*s", text, (int)out->size, out->data);
}

static void test_metrics(void **state)
{
    struct buf out = { 0 };

    (void)state;
    answers_add(&answers, PEN_RETRY, "status 429, TooMany: busy");
    answers_add(&answers, PEN_RETRY, "status 429, TooMany: busy");
    metrics_write(&status, &out);
    has(&out, "\npenstock_records_read_total{source=\"logs\"} 7\n");
    has(&out, "\npenstock_source_newest_event_timestamp_seconds{source=\"logs\"} 1.500\n");
    has_not(&out, "timestamp_seconds{source=\"hub\"}");
    has(&out, "\npenstock_source_behind_bytes{source=\"logs\"} 3\n");
    has(&out, "\npenstock_source_behind_messages{source=\"hub\"} 9\n");
    has(&out, "\npenstock_messages_delivered_total{source=\"logs\",sink=\"siem\"} 4\n");
    has(&out, "\npenstock_sink_flow{sink=\"siem\"} 2\n");
    has(&out, "\npenstock_sink_answers_total{sink=\"siem\",status=\"429\",outcome=\"retry\"} 2\n");
    has(&out, "\n# HELP penstock_source_missing_total Gone.\n# TYPE penstock_source_missing_total counter\n"
              "penstock_source_missing_total{source=\"hub\"} 4\n");
    buf_free(&out);
}

/* Several sources that count the same: one head, and all samples under it. */
static void test_numbers_stand_together(void **state)
{
    struct buf out = { 0 };

    (void)state;
    sources[0].numbers[0] = sources[1].numbers[0];
    sources[0].number_count = 1;
    metrics_write(&status, &out);
    has(&out, "counter\npenstock_source_missing_total{source=\"logs\"} 4\npenstock_source_missing_total{source=\"hub\"} 4\n");
    buf_free(&out);
}

static void test_labels_are_escaped(void **state)
{
    struct buf out = { 0 };

    (void)state;
    sources[0].name = HOSTILE;
    metrics_write(&status, &out);
    has(&out, "{source=\"a\\\"b\\\\c?d?[31m\xff\xe2\x80\xae<b>\"} 7\n");
    buf_free(&out);
}

static void test_json_is_json(void **state)
{
    struct buf out = { 0 };
    struct json *tree = json_new();
    struct pen_json root, item;
    const char *why;

    (void)state;
    sources[0].name = sink.trouble = HOSTILE;
    answers_add(&answers, PEN_REFUSED, "status 403, no");
    status_json(&status, "one\ntwo \"2\"\n", &out);
    buf_reserve(&out, JSON_PADDING);
    assert_int_equal(json_parse(tree, out.data, out.size, &root, &why), 0);
    item = pen_json_path(&root, "reasons");
    assert_int_equal(pen_json_count(&item), 2);
    item = pen_json_get(&root, "sinks");
    item = pen_json_item(&item, 0);
    assert_true(pen_span_is(pen_json_text(&item, "flow"), "paused"));
    assert_true(pen_span_is(pen_json_text(&item, "trouble"), "a\"b\\c\nd\033[31m\xef\xbf\xbd\xe2\x80\xae<b>"));
    item = pen_json_get(&root, "sources");
    item = pen_json_item(&item, 1);
    assert_true(pen_span_is(pen_json_text(&item, "unit"), "messages"));
    item = pen_json_get(&item, "newest");
    assert_int_equal(pen_json_type(&item), PEN_JSON_MISSING);
    json_free(tree);
    buf_free(&out);
}

/* Through JSON and to the terminal: no escape of it comes from outside. */
static void test_view_does_not_steer_the_terminal(void **state)
{
    struct buf json = { 0 }, out = { 0 };
    struct json *tree = json_new();
    struct pen_json root;
    const char *why;

    (void)state;
    sources[0].name = sink.name = sink.trouble = HOSTILE;
    status_json(&status, HOSTILE, &json);
    buf_reserve(&json, JSON_PADDING);
    assert_int_equal(json_parse(tree, json.data, json.size, &root, &why), 0);
    status_view(&root, &root, VIEW_RATES, &out);
    has_not(&out, "\033");
    has_not(&out, "\xe2\x80\xae");
    has(&out, "spool full");
    has(&out, "5.00M of 6.00M");
    out.size = 0;
    status_view(&root, NULL, VIEW_COLOUR, &out);
    has(&out, "\033[31;1mspool full");
    has_not(&out, "d\033[31m");
    json_free(tree);
    buf_free(&json);
    buf_free(&out);
}

/* How old the newest event is; one whose clock runs ahead is new, and none is none. */
static void test_view_tells_the_lag(void **state)
{
    static const struct {
        uint64_t newest_ms;
        const char *shown;
    } rows[] = { { 3600000 - 40000, "     40s  " }, { 3600000 + 90000, "      0s  " }, { STATUS_NONE, "       -  " } };
    struct json *tree = json_new();
    struct buf json = { 0 }, out = { 0 };
    struct pen_json root;
    const char *why;

    (void)state;
    status.source_count = 1;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        sources[0].newest_ms = rows[i].newest_ms;
        json.size = out.size = 0;
        status_json(&status, "", &json);
        buf_reserve(&json, JSON_PADDING);
        assert_int_equal(json_parse(tree, json.data, json.size, &root, &why), 0);
        status_view(&root, NULL, 0, &out);
        has(&out, rows[i].shown);
    }
    json_free(tree);
    buf_free(&json);
    buf_free(&out);
}

/* A daemon of another version, or no daemon at all: whatever JSON it is, it is shown somehow. */
static void test_view_takes_any_json(void **state)
{
    static const char *const texts[] = { "{}", "[]", "1", "null", "{\"sources\":1,\"sinks\":{\"a\":[]},\"daemon\":\"x\"}",
                                         "{\"sources\":[1,null,\"x\",{}],\"sinks\":[[],{\"name\":1}],\"reasons\":[{}]}" };
    struct json *tree = json_new();
    struct pen_json root;
    struct buf text = { 0 }, out = { 0 };
    const char *why;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        text.size = out.size = 0;
        buf_add(&text, texts[i], strlen(texts[i]));
        buf_reserve(&text, JSON_PADDING);
        assert_int_equal(json_parse(tree, text.data, text.size, &root, &why), 0);
        status_view(&root, &root, VIEW_COLOUR | VIEW_RATES, &out);
        has(&out, "SOURCE");
    }
    json_free(tree);
    buf_free(&text);
    buf_free(&out);
}

/* A far end that makes up statuses fills no memory and no monitoring. */
static void test_answers_are_bounded(void **state)
{
    char why[64];
    uint64_t sum = 0;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(why, sizeof(why), "status S%d: no", i);
        answers_add(&answers, i % 2 ? PEN_RETRY : PEN_REJECTED, why);
    }
    answers_add(&answers, PEN_DELIVERED, NULL);
    answers_add(&answers, PEN_RETRY, "status \"}\n, evil");
    for (uint32_t i = 0; i < answers.count; i++)
        sum += answers.rows[i].count;
    assert_int_equal(sum, 1002);
    assert_true(answers.count <= ANSWERS_MAX);
    assert_string_equal(answers.rows[0].status, "S0");
    assert_string_equal(answers.rows[answers.count - 1].status, "other");
}

/* A counter's name says so, names are Prometheus', every scope has its struct, and rows of one name stand side by side. */
static void test_rows(void **state)
{
    (void)state;
    for (const struct status_row *row = status_rows; row->metric != NULL; row++) {
        assert_int_equal(strspn(row->metric, "abcdefghijklmnopqrstuvwxyz_"), strlen(row->metric));
        assert_true(strncmp(row->metric, "penstock_", 9) == 0 || strncmp(row->metric, "process_", 8) == 0);
        assert_true(row->help != NULL && row->help[strlen(row->help) - 1] == '.');
        assert_null(strpbrk(row->help, "|\\\n"));
        for (const struct status_row *other = status_rows; other < row; other++)
            assert_string_not_equal(other->metric, row->metric);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_metrics, begin),
        cmocka_unit_test_setup(test_numbers_stand_together, begin),
        cmocka_unit_test_setup(test_labels_are_escaped, begin),
        cmocka_unit_test_setup(test_json_is_json, begin),
        cmocka_unit_test_setup(test_view_does_not_steer_the_terminal, begin),
        cmocka_unit_test_setup(test_view_tells_the_lag, begin),
        cmocka_unit_test_setup(test_view_takes_any_json, begin),
        cmocka_unit_test_setup(test_answers_are_bounded, begin),
        cmocka_unit_test_setup(test_rows, begin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
