/* event: setters take what fits and nothing else, additional fields keep the rest, emission counts and can stop. */
#include "daemon/record/event.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pen_out *out;
static struct pen_event *event;
static struct json *json;
static uint64_t emitted[16], emitted_count, room;

static bool on_emit(void *arg, const struct pen_event *e, uint64_t ordinal)
{
    (void)arg;
    assert_ptr_equal(e, event);
    if (emitted_count == room)
        return false;
    emitted[emitted_count++] = ordinal;
    return true;
}

static int setup(void **state)
{
    out = out_new(on_emit, NULL);
    out_begin(out, 0);
    event = pen_out_event(out, PEN_AUDIT);
    json = json_new();
    emitted_count = 0;
    room = 16;
    (void)state;
    return 0;
}

static int teardown(void **state)
{
    json_free(json);
    out_free(out);
    (void)state;
    return 0;
}

static struct pen_span span(const char *text)
{
    return (struct pen_span){ text, strlen(text) };
}

static struct pen_json parse(const char *text)
{
    static char padded[4096];
    struct pen_json root;
    const char *why;

    snprintf(padded, sizeof(padded) - JSON_PADDING, "%s", text);
    assert_int_equal(json_parse(json, padded, strlen(padded), &root, &why), 0);
    return root;
}

static void assert_field(enum pen_field field, const char *text)
{
    assert_true(pen_is_set(event, field));
    assert_int_equal(event->values[field].text.size, strlen(text));
    assert_memory_equal(event->values[field].text.data, text, strlen(text));
}

static void every_form_of_time_is_read(void **state)
{
    static const struct { const char *text, *expected; } cases[] = {
        { "2026-11-22T09:00:01.2345670Z", "2026-11-22T09:00:01.2345670Z" },
        { "2026-11-22T09:00:01Z", "2026-11-22T09:00:01Z" },
        { "2025-12-22T08:46:29.678707399Z", "2025-12-22T08:46:29.6787073Z" },
        { "2026-11-22T09:00:01.5+00:00", "2026-11-22T09:00:01.500Z" },
        { "2026-11-22T09:00:01+05:30", "2026-11-22T03:30:01Z" },
        { "2026-01-01T00:30:00-0800", "2026-01-01T08:30:00Z" },
        { "2026-11-22T09:00:01.25", "2026-11-22T09:00:01.250Z" },
        { "2026-11-22T9:59:27.958Z", "2026-11-22T09:59:27.958Z" },
        { "3/7/2018 2:23:51 PM", "2018-03-07T14:23:51Z" },
        { "12/31/2018 12:00:00 AM", "2018-12-31T00:00:00Z" },
        { "12/31/2018 12:05:00 PM", "2018-12-31T12:05:00Z" },
        { "10/3/2026 2:22:31 PM", "2026-10-03T14:22:31Z" }, { "10/13/2026 2:22:31 PM", "2026-10-13T14:22:31Z" },
        { "1/23/2026 2:22:31 PM", "2026-01-23T14:22:31Z" },
        { "03/07/2018 14:23:51", "2018-03-07T14:23:51Z" },
        { "03/07/2018 14:23:51 +01:00", "2018-03-07T13:23:51Z" },
        { "2026-11-22 09:00:01.123456789", "2026-11-22T09:00:01.1234567Z" },
        { "2026/11/22 09:00:01.1234567", "2026-11-22T09:00:01.1234567Z" },
        { "Fri, 21 Jul 2017 01:00:51 GMT", "2017-07-21T01:00:51Z" },
        { "2024-02-29T23:59:59Z", "2024-02-29T23:59:59Z" },
        { "2000-02-29T00:00:00Z", "2000-02-29T00:00:00Z" },
        { "1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.9999999Z" },
        { " 2026-11-22T09:00:01Z ", "2026-11-22T09:00:01Z" },
        { "9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.9999999Z" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct buf buf = { 0 };
        int64_t ticks;

        if (!pen_time_read(span(cases[i].text), &ticks))
            fail_msg("not read: %s", cases[i].text);
        buf_time(&buf, ticks);
        buf_char(&buf, '\0');
        assert_string_equal(buf.data, cases[i].expected);
        buf_free(&buf);
    }
    (void)state;
}

static void what_is_no_time_is_not_guessed_at(void **state)
{
    static const char *const texts[] = {
        "", "now", "2026-11-22", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T09:60:00Z",
        "2026-11-22T09:00:60Z", "2026-11-22T09:00:01.Z", "2026-11-22T09:00:01Zx", "2026-11-22T09:00:01+15:00",
        "2026-11-22T09:00:01+01:60", "2026-11-22X09:00:01Z", "2026-11/22T09:00:01Z", "13/31/2018 1:00:00 AM",
        "3/7/2018 13:00:00 PM", "3/7/2018 0:00:00 AM", "1700000000", "1700000000000000", "2026-11-22T09:00:01.1.1Z",
        "Fri, 21 Foo 2017 01:00:51 GMT", "0000-01-01T00:00:00Z", "-026-11-22T09:00:01Z", "<null>",
    };
    int64_t ticks;

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        if (pen_time_read(span(texts[i]), &ticks))
            fail_msg("read: %s", texts[i]);
    assert_false(pen_time_read((struct pen_span){ 0 }, &ticks));
    (void)state;
}

static void the_time_that_means_none_sets_nothing(void **state)
{
    assert_false(pen_set_time(event, PEN_TIME_GENERATED, span("0001-01-01T00:00:00Z")));
    assert_false(pen_set_time(event, PEN_TIME_GENERATED, span("1/1/0001 12:00:00 AM")));
    assert_false(pen_is_set(event, PEN_TIME_GENERATED));
    assert_true(pen_set_time(event, PEN_TIME_GENERATED, span("0002-01-01T00:00:00Z")));
    (void)state;
}

static void addresses_are_proved(void **state)
{
    static const struct { const char *text; int version; } cases[] = {
        { "192.0.2.1", 4 }, { "0.0.0.0", 4 }, { "255.255.255.255", 4 }, { "2001:db8::1", 6 }, { "::", 6 },
        { "::ffff:192.0.2.1", 6 }, { "256.0.0.1", 0 }, { "1.2.3", 0 }, { "1.2.3.4.5", 0 }, { "01.2.3.4", 0 },
        { "1.2.3.4:80", 0 }, { "[::1]:80", 0 }, { "10.0.0.0/8", 0 }, { "X.X.X.X", 0 }, { "<null>", 0 }, { "", 0 },
        { " 1.2.3.4", 0 }, { "fe80::1%eth0", 0 }, { "12345::", 0 }, { "1..2.3", 0 }, { "1.2.3.4.", 0 },
        { "f409edeb-4d29-44b5-9763-ee9348ad91bb", 0 }, { "0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0", 0 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        if (pen_ip_version(span(cases[i].text)) != cases[i].version)
            fail_msg("%s", cases[i].text);
    assert_int_equal(pen_ip_version((struct pen_span){ "::1\0", 4 }), 0);
    assert_true(pen_set_ip(event, PEN_SRC_IP_ADDR, span("192.0.2.1")));
    assert_false(pen_set_ip(event, PEN_SRC_IP_ADDR, span("<null>")));
    assert_field(PEN_SRC_IP_ADDR, "192.0.2.1");
    (void)state;
}

/* Addresses, and what is one byte away from them, by chance but always the same. */
static void addresses_are_those_of_inet_pton(void **state)
{
    static const char bytes[] = "0123456789.. :a\x80\xb1\xae\0";
    static const unsigned numbers[] = { 0, 1, 9, 10, 99, 100, 199, 249, 250, 255, 256, 259, 260, 300, 999, 1000 };
    struct in_addr address;
    uint64_t seed = 20261122;
    unsigned right = 0;

    for (unsigned i = 0; i < 300000; i++) {
        char text[32];
        uint64_t chance = seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        size_t size = (size_t)snprintf(text, sizeof(text), "%u.%u.%u.%u", numbers[chance >> 60], numbers[chance >> 56 & 15],
                                       (unsigned)(chance >> 48 & 255), (unsigned)(chance >> 40 & 255));
        bool valid;

        if (chance >> 39 & 1)
            text[(chance >> 32 & 127) % size] = bytes[(chance >> 24 & 255) % (sizeof(bytes) - 1)];
        valid = strlen(text) == size && inet_pton(AF_INET, text, &address) == 1;
        right += valid;
        if ((pen_ip_version((struct pen_span){ text, size }) == 4) != valid)
            fail_msg("%s", text);
    }
    assert_true(right > 50000 && right < 250000);
    (void)state;
}

static void macs_get_their_colons_and_keep_their_case(void **state)
{
    static const char *const bad[] = { "", "6045BDEC253", "6045BDEC25322", "6045BDEC253G", "604:5BDEC2532", "60:45:BD:EC:25:",
                                       ":6045BDEC2532", "6045BDEC2532:" };

    assert_true(pen_set_mac(event, PEN_SRC_MAC_ADDR, span("6045BDec2532")));
    assert_field(PEN_SRC_MAC_ADDR, "60:45:BD:ec:25:32");
    assert_true(pen_set_mac(event, PEN_SRC_MAC_ADDR, span("60-45-bd-ec-25-33")));
    assert_field(PEN_SRC_MAC_ADDR, "60:45:bd:ec:25:33");
    assert_true(pen_set_mac(event, PEN_SRC_MAC_ADDR, span("6045.bdec.2534")));
    assert_field(PEN_SRC_MAC_ADDR, "60:45:bd:ec:25:34");
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(pen_set_mac(event, PEN_DST_MAC_ADDR, span(bad[i])));
    (void)state;
}

static void taking_follows_the_field_and_keeps_what_does_not_fit(void **state)
{
    struct pen_json root = parse("{\"n\":\"78\",\"big\":3000000000,\"t\":12,\"b\":true,\"ip\":\"1.2.3.4:80\",\"o\":{\"x\":1},"
                                 "\"null\":null,\"empty\":\"\",\"time\":\"soon\"}");

    assert_true(pen_take(event, PEN_DURATION_MS, &root, "n"));
    assert_int_equal(event->values[PEN_DURATION_MS].number, 78);
    assert_true(pen_take(event, PEN_OPERATION, &root, "t"));
    assert_field(PEN_OPERATION, "12");
    assert_true(pen_take(event, PEN_OBJECT, &root, "b"));
    assert_field(PEN_OBJECT, "true");
    assert_false(pen_take(event, PEN_OBJECT_ID, &root, "null"));
    assert_false(pen_take(event, PEN_OBJECT_ID, &root, "empty"));
    assert_false(pen_take(event, PEN_OBJECT_ID, &root, "missing"));
    assert_int_equal(event->extra_count, 0);

    assert_false(pen_take(event, PEN_RULE_NUMBER, &root, "big"));
    assert_false(pen_take(event, PEN_SRC_IP_ADDR, &root, "ip"));
    assert_false(pen_take(event, PEN_OBJECT_ID, &root, "o"));
    assert_false(pen_take(event, PEN_TIME_GENERATED, &root, "time"));
    assert_int_equal(event->extra_count, 4);
    assert_int_equal(event->extras[1].type, FIELD_TEXT);
    assert_memory_equal(event->extras[1].name.data, "ip", 2);
    assert_memory_equal(event->extras[1].value.text.data, "1.2.3.4:80", 10);
    assert_int_equal(event->extras[2].type, FIELD_JSON);
    (void)state;
}

static void thousands_of_additional_fields_are_kept_in_order(void **state)
{
    for (int i = 0; i < 5000; i++)
        pen_add_int(event, pen_out_text(out, "k%d", i), i);
    assert_int_equal(event->extra_count, 5000);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(event->extras[i].value.number, i);
    pen_out_event(out, PEN_ALERT);
    assert_int_equal(event->extra_count, 0);
    (void)state;
}

static void a_fresh_event_has_nothing_set(void **state)
{
    for (int field = 0; field < PEN_FIELDS; field++)
        if (fields[field].type == FIELD_TEXT)
            assert_true(pen_set_text(event, (enum pen_field)field, span("x")));
    pen_unset(event, PEN_OPERATION);
    assert_false(pen_is_set(event, PEN_OPERATION));
    assert_true(pen_is_set(event, PEN_OBJECT));
    pen_out_event(out, PEN_NETWORK);
    for (int field = 0; field < PEN_FIELDS; field++)
        assert_false(pen_is_set(event, (enum pen_field)field));
    (void)state;
}

static void emission_skips_what_was_taken_and_stops_when_full(void **state)
{
    out_begin(out, 2);
    room = 3;
    for (int i = 0; i < 5; i++)
        assert_int_equal(pen_out_emit(out, event), PEN_PARSED);
    assert_int_equal(pen_out_emit(out, event), PEN_PARTLY);
    assert_true(out->full);
    assert_int_equal(pen_out_emit(out, event), PEN_PARTLY);
    assert_int_equal(emitted_count, 3);
    assert_int_equal(emitted[0], 2);
    assert_int_equal(emitted[2], 4);
    assert_int_equal(out->ordinal, 5);
    assert_string_equal(out->blame, "");
    (void)state;
}

static void the_first_blame_is_kept(void **state)
{
    pen_out_blame(out, "tuple %d is short", 7);
    pen_out_blame(out, "another");
    assert_string_equal(out->blame, "tuple 7 is short");
    out_begin(out, 0);
    assert_string_equal(out->blame, "");
    pen_out_blame(out, "a plugin's \x1b[2J\n");
    assert_string_equal(out->blame, "a plugin's ?[2J?");
    out_begin(out, 0);
    (void)state;
}

static void inner_json_lives_until_the_record_is_done(void **state)
{
    struct pen_json first = pen_out_parse(out, span("[\"Persistence\"]")), second = pen_out_parse(out, span("{\"a\":2}"));
    struct pen_json none = pen_out_parse(out, span("{broken"));
    struct pen_json item = pen_json_item(&first, 0);

    assert_null(none.tree);
    assert_memory_equal(pen_json_value(&item).data, "Persistence", 11);
    assert_int_equal(pen_json_count(&second), 1);
    for (int i = 2; i < OUT_INNER_MAX; i++)
        assert_non_null(pen_out_parse(out, span("{}")).tree);
    assert_null(pen_out_parse(out, span("{}")).tree);
    assert_memory_equal(pen_json_value(&item).data, "Persistence", 11);
    out_begin(out, 0);
    assert_non_null(pen_out_parse(out, span("{}")).tree);
    assert_null(pen_out_parse(out, (struct pen_span){ 0 }).tree);
    (void)state;
}

static void texts_of_parsers_live_in_the_arena(void **state)
{
    struct pen_json root = parse("{\"a\":[1,\"x\"]}");
    struct pen_span text = pen_out_json(out, &root), copy = pen_out_copy(out, span("copy"));

    assert_int_equal(text.size, 13);
    assert_memory_equal(text.data, "{\"a\":[1,\"x\"]}", 13);
    assert_memory_equal(copy.data, "copy", 4);
    assert_null(pen_out_copy(out, (struct pen_span){ 0 }).data);
    assert_null(pen_out_alloc(out, SIZE_MAX));
    (void)state;
}

static void guids_and_spans(void **state)
{
    assert_true(pen_guid_valid(span("f409edeb-4d29-44b5-9763-EE9348AD91BB")));
    assert_false(pen_guid_valid(span("2468adf0-8211-44e3-95xq-85137af64708")));
    assert_false(pen_guid_valid(span("c08846-d352-42ad-a4b6-9a542d28ad2a")));
    assert_false(pen_guid_valid(span("")));
    assert_true(pen_span_is(pen_span_trim(span(" admin@contoso.com\t")), "admin@contoso.com"));
    assert_int_equal(pen_span_trim(span("  ")).size, 0);
    assert_true(pen_span_is_nocase(span("WRITE"), "write"));
    assert_false(pen_span_is((struct pen_span){ 0 }, ""));
    (void)state;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_form_of_time_is_read),
        TEST(what_is_no_time_is_not_guessed_at),
        TEST(the_time_that_means_none_sets_nothing),
        TEST(addresses_are_proved),
        TEST(addresses_are_those_of_inet_pton),
        TEST(macs_get_their_colons_and_keep_their_case),
        TEST(taking_follows_the_field_and_keeps_what_does_not_fit),
        TEST(thousands_of_additional_fields_are_kept_in_order),
        TEST(a_fresh_event_has_nothing_set),
        TEST(emission_skips_what_was_taken_and_stops_when_full),
        TEST(the_first_blame_is_kept),
        TEST(inner_json_lives_until_the_record_is_done),
        TEST(texts_of_parsers_live_in_the_arena),
        TEST(guids_and_spans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
