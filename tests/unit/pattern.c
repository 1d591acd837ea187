/*
 * pattern.c - a message made from a pattern is, byte for byte, the message written anew, whatever a parser changes between two
 * emissions of one event.
 */
#include "daemon/schema/pattern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

struct test {
    struct pen_out *out;
    struct event_meta meta;
    struct pen_record record;
    struct json *json;
    struct pen_json node;
    struct patterns asim, ocsf;
    struct buf fresh, filled;
    uint64_t random;
    unsigned fills;                          /* events that a pattern was there for */
};

static bool fits_one(const struct patterns *patterns, const struct pen_event *event)
{
    const struct pattern *pattern = &patterns->patterns[patterns->last];

    return patterns->version == event->version && pattern->made && !pattern->refused;
}

static void assert_same(struct test *test, struct patterns *patterns, const struct schema *schema,
                        const struct pen_event *event)
{
    uint32_t cut, again;

    test->fresh.size = test->filled.size = 0;
    cut = schema->write(event, &test->meta, &test->fresh, NULL);
    again = patterns_write(patterns, schema, event, &test->meta, &test->filled);
    if (test->fresh.size != test->filled.size || memcmp(test->fresh.data, test->filled.data, test->fresh.size) != 0)
        fail_msg("%s\n%.*s\n%.*s", schema->name, (int)test->fresh.size, test->fresh.data, (int)test->filled.size,
                 test->filled.data);
    assert_int_equal(cut, again);
}

static bool on_event(void *arg, const struct pen_event *event, uint64_t ordinal)
{
    struct test *test = arg;

    test->meta.id_size = (uint32_t)snprintf(test->meta.id, sizeof(test->meta.id), "0123456789abcdef0123456789abcdef-%llu",
                                            (unsigned long long)ordinal);
    assert_same(test, &test->asim, &asim_schema, event);
    assert_same(test, &test->ocsf, &ocsf_schema, event);
    test->fills += fits_one(&test->asim, event);
    return true;
}

static int setup(void **state)
{
    static char text[64 + JSON_PADDING] = "{\"a\":[1,\"\\u0000\",{\"b\":null}]}";
    struct test *test = calloc(1, sizeof(*test));
    const char *why;

    test->out = out_new(on_event, test);
    test->json = json_new();
    json_parse(test->json, text, strlen(text), &test->node, &why);
    test->record.raw = PEN_SPAN("{}");
    test->record.json = &test->node;
    test->meta = (struct event_meta){ .received_ticks = 17847216000000000, .source = PEN_SPAN("flows"),
                                      .record = &test->record, .parser = "test" };
    *state = test;
    return 0;
}

static int teardown(void **state)
{
    struct test *test = *state;

    out_free(test->out);
    json_free(test->json);
    patterns_free(&test->asim);
    patterns_free(&test->ocsf);
    buf_free(&test->fresh);
    buf_free(&test->filled);
    free(test);
    return 0;
}

/* As flow logs do it: the same fields for each tuple, some unset in some. */
static void set_tuple(struct pen_event *event, unsigned i)
{
    bool inbound = i % 3 == 0;

    pen_set_ticks(event, PEN_TIME_GENERATED, 17847216000000000 + 10000000 * (int64_t)(i / 2));
    pen_set_ticks(event, PEN_EVENT_START_TIME, 17847216000000000 + 10000000 * (int64_t)(i / 2));
    pen_set_ticks(event, PEN_EVENT_END_TIME, 17847216000000000 + 10000000 * (int64_t)(i / 2) + i % 2);
    pen_set_ip(event, PEN_SRC_IP_ADDR, i % 5 == 0 ? PEN_SPAN("2001:db8::1") : PEN_SPAN("192.0.2.1"));
    pen_set_text(event, PEN_NETWORK_DIRECTION, inbound ? PEN_SPAN("Inbound") : PEN_SPAN("Outbound"));
    pen_set_text(event, PEN_DVC_ACTION, i % 7 == 0 ? PEN_SPAN("Deny") : PEN_SPAN("Allow"));
    pen_set_text(event, PEN_FLOW_STATE, i % 2 == 0 ? PEN_SPAN("B") : PEN_SPAN("C"));
    pen_set_text(event, PEN_EVENT_SEVERITY, i % 7 == 0 ? PEN_SPAN("Low") : PEN_SPAN("Informational"));
    pen_unset(event, inbound ? PEN_SRC_MAC_ADDR : PEN_DST_MAC_ADDR);
    pen_set_mac(event, inbound ? PEN_DST_MAC_ADDR : PEN_SRC_MAC_ADDR, PEN_SPAN("60:45:BD:00:00:01"));
    if (i % 4 == 0)
        pen_unset(event, PEN_SRC_BYTES);
    else
        pen_set_int(event, PEN_SRC_BYTES, INT64_C(1) << i % 63);
}

static struct pen_event *flow(struct test *test)
{
    struct pen_event *event = pen_out_event(test->out, PEN_NETWORK);

    pen_set_text(event, PEN_EVENT_VENDOR, PEN_SPAN("Microsoft"));
    pen_set_text(event, PEN_EVENT_PRODUCT, PEN_SPAN("NSGFlow"));
    pen_set_text(event, PEN_DVC, PEN_SPAN("NSG \"1\""));
    pen_set_text(event, PEN_DVC_ID, PEN_SPAN("/subscriptions/1"));
    pen_set_text(event, PEN_RESOURCE_ID, PEN_SPAN("/subscriptions/1"));
    pen_set_text(event, PEN_ACL_ID, PEN_SPAN("an acl"));
    pen_set_text(event, PEN_NETWORK_RULE_NAME, PEN_SPAN("UserRule_web"));
    pen_add_text(event, PEN_SPAN("systemId"), PEN_SPAN("a system"));
    return event;
}

static void test_tuples(void **state)
{
    struct test *test = *state;
    struct pen_event *event;

    for (unsigned record = 0; record < 3; record++) {
        out_begin(test->out, 0);
        event = flow(test);
        for (unsigned i = 0; i < 200; i++) {
            set_tuple(event, i);
            if (i % 50 == 49)
                pen_set_text(event, PEN_NETWORK_RULE_NAME, PEN_SPAN("another"));
            assert_int_equal(pen_out_emit(test->out, event), PEN_PARSED);
        }
    }
    assert_true(test->fills > 3 * 150);      /* or this test compares nothing */
}

/* Records of one log: nothing that one says may stand in another's messages, be it one field or one additional field that
 * differs, and be it as long as before. */
static void test_records_alike(void **state)
{
    static const char *const texts[] = { "UserRule_web", "UserRule_dns", "UserRule_w", "a \"rule\"" };
    struct test *test = *state;
    struct pen_event *event;
    unsigned fills;

    for (unsigned record = 0; record < 60; record++) {
        const char *text = texts[record / 3 % 4];

        out_begin(test->out, 0);
        event = flow(test);
        pen_set_ticks(event, PEN_LOG_TIME, 17847216000000000 + 600000000 * (int64_t)record);
        if (record % 20 < 10)
            pen_set_text(event, PEN_DVC, (struct pen_span){ text, strlen(text) });
        else
            pen_add_text(event, PEN_SPAN("more"), (struct pen_span){ text, strlen(text) });
        if (record % 7 == 0)
            pen_add_int(event, PEN_SPAN("number"), record / 14);
        if (record % 30 >= 25)
            pen_add_json(event, PEN_SPAN("json"), &test->node);
        fills = test->fills;
        for (unsigned i = 0; i < 8; i++) {
            set_tuple(event, record + i);
            if (i == 6 && record % 5 == 0)
                pen_add_int(event, PEN_SPAN("odd"), record);
            pen_out_emit(test->out, event);
        }
        assert_true(record == 0 || test->fills >= fills + 6);
    }
}

/* Each of these decides more than its own value, or nearly does. */
static void test_fields_that_lean_on_each_other(void **state)
{
    static const enum pen_field leaning[] = {
        PEN_EVENT_PRODUCT, PEN_DVC, PEN_RESOURCE_ID, PEN_DVC_ID, PEN_EVENT_START_TIME, PEN_EVENT_ORIGINAL_SEVERITY,
        PEN_EVENT_SEVERITY, PEN_EVENT_ORIGINAL_UID, PEN_EVENT_COUNT, PEN_FLOW_STATE, PEN_DVC_ACTION, PEN_SRC_PORT_NUMBER,
        PEN_SRC_IP_ADDR, PEN_DST_IP_ADDR, PEN_NETWORK_PROTOCOL, PEN_NETWORK_DIRECTION, PEN_NETWORK_RULE_NAME,
    };
    static const char *const texts[] = { "NSGFlow", "NSG \"1\"", "/subscriptions/1", "Low", "Critical", "B", "D", "Deny", "odd" };
    struct test *test = *state;

    for (size_t i = 0; i < sizeof(leaning) / sizeof(*leaning); i++) {
        struct pen_event *event;

        out_begin(test->out, 0);
        event = flow(test);
        for (unsigned n = 0; n < 40; n++) {
            const char *text = texts[n % (sizeof(texts) / sizeof(*texts))];

            set_tuple(event, n);
            if (n % 10 == 9)
                pen_unset(event, leaning[i]);
            else if (fields[leaning[i]].type == FIELD_TEXT)
                pen_set_text(event, leaning[i], (struct pen_span){ text, strlen(text) });
            else if (fields[leaning[i]].type == FIELD_INT)
                pen_set_int(event, leaning[i], n % 3 == 0 ? 70000 : n);
            pen_out_emit(test->out, event);
        }
    }
}

static void emit_word(struct test *test, struct pen_event *event, enum pen_field field, const char *word, size_t size)
{
    pen_set_text(event, field, pen_out_copy(test->out, (struct pen_span){ word, size }));
    pen_out_emit(test->out, event);
}

/* A number follows from a word and from no other that looks much like it: one that differs in a byte, or is longer or shorter
 * by one. */
static void test_words_alike(void **state)
{
    static const struct { enum pen_field field; const char *words[4]; } said[] = {
        { PEN_NETWORK_DIRECTION, { "Inbound", "Outbound", "NA", "Local" } },
        { PEN_DVC_ACTION, { "Allow", "Deny", "Reset Source", "Reset" } },
        { PEN_EVENT_RESULT, { "Success", "Failure", "NA", "FAILURE" } },
        { PEN_EVENT_SEVERITY, { "Informational", "Low", "Critical", "high" } },
        { PEN_FLOW_STATE, { "B", "C", "E", "D" } },
    };
    struct test *test = *state;

    for (size_t i = 0; i < sizeof(said) / sizeof(*said); i++) {
        struct pen_event *event;

        out_begin(test->out, 0);
        event = flow(test);
        set_tuple(event, 1);
        for (size_t n = 0; n < 2; n++)               /* that it moves is known before there is a word that has no number */
            emit_word(test, event, said[i].field, said[i].words[n], strlen(said[i].words[n]));
        for (size_t n = 0; n < 4 * 4; n++) {
            const char *word = said[i].words[n % 4];
            size_t size = strlen(word);

            emit_word(test, event, said[i].field, word, size);
            for (size_t at = 0; at <= size; at++) {
                char other[32] = { 0 };

                memcpy(other, word, size);
                other[at] = '_';
                emit_word(test, event, said[i].field, other, size + (at == size));
                other[size] = word[size - 1];
                emit_word(test, event, said[i].field, at < size ? other : word, size + (at < size));
                memset(other, word[0], size + 1);
                emit_word(test, event, said[i].field, other, size + 1);
                emit_word(test, event, said[i].field, word, size - (size > 1));
                emit_word(test, event, said[i].field, word, size);
            }
        }
        assert_true(fits_one(&test->ocsf, event));
    }
}

static uint64_t draw(struct test *test, uint64_t below)
{
    test->random = test->random * 6364136223846793005u + 1442695040888963407u;
    return (test->random >> 33) % below;
}

static struct pen_span draw_text(struct test *test)
{
    static const char odd[] = "a\"b\\c\n\xc3\xa9\xff and more that follows behind it";
    static char far[70000];

    if (far[0] == '\0')
        memset(far, 'x', sizeof(far));
    switch (draw(test, 12)) {
    case 0:
        return (struct pen_span){ odd, draw(test, sizeof(odd)) };
    case 1:
        return (struct pen_span){ far, draw(test, 300) };
    case 2:
        return (struct pen_span){ far, 63900 + draw(test, 200) };
    default:
        return (struct pen_span){ far, 1 + draw(test, 20) };
    }
}

static void change(struct test *test, struct pen_event *event, enum pen_field field)
{
    if (draw(test, 5) == 0) {
        pen_unset(event, field);
        return;
    }
    switch (fields[field].type) {
    case FIELD_TEXT:
        pen_set_text(event, field, draw_text(test));
        break;
    case FIELD_INT:
    case FIELD_LONG:
        pen_set_int(event, field, (int64_t)draw(test, 100000) - 100);
        break;
    case FIELD_REAL:
        pen_set_real(event, field, (double)draw(test, 1000) / 8);
        break;
    case FIELD_BOOL:
        pen_set_bool(event, field, draw(test, 2));
        break;
    case FIELD_TIME:
        pen_set_ticks(event, field, 17847216000000000 + 10000000 * (int64_t)draw(test, 3));
        break;
    case FIELD_IP:
        pen_set_ip(event, field, draw(test, 2) ? PEN_SPAN("10.1.2.3") : PEN_SPAN("fe80::1"));
        break;
    case FIELD_MAC:
        pen_set_mac(event, field, PEN_SPAN("6045BDEC2532"));
        break;
    case FIELD_JSON:
        pen_set_json(event, field, &test->node);
        break;
    }
}

/* A few fields keep moving while others, and what is additional, change now and then. */
static void test_any_change(void **state)
{
    struct test *test = *state;

    for (unsigned record = 0; record < 150; record++) {
        enum pen_field moving[6];
        struct pen_event *event;

        out_begin(test->out, 0);
        event = pen_out_event(test->out, record % 10 == 0 ? (enum pen_kind)draw(test, PEN_KINDS) : PEN_NETWORK);
        for (unsigned i = 0; i < 20; i++)
            change(test, event, (enum pen_field)draw(test, PEN_FIELDS));
        set_tuple(event, record);
        for (unsigned i = 0; i < 6; i++)
            moving[i] = (enum pen_field)draw(test, PEN_FIELDS);
        for (unsigned n = 0; n < 30; n++) {
            for (unsigned i = 0; i < 6; i++)
                change(test, event, moving[i]);
            if (draw(test, 20) == 0)
                pen_add_text(event, draw_text(test), draw_text(test));
            if (draw(test, 20) == 0)
                change(test, event, (enum pen_field)draw(test, PEN_FIELDS));
            if (draw(test, 20) == 0)
                event = pen_out_event(test->out, PEN_NETWORK);
            pen_out_emit(test->out, event);
        }
    }
    assert_true(test->fills > 150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tuples, setup, teardown),
        cmocka_unit_test_setup_teardown(test_records_alike, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fields_that_lean_on_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_words_alike, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_change, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
