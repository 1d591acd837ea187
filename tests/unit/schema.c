/*
 * schema.c - every event becomes one line of valid JSON that says all the event says, whatever its texts hold.
 *
 * The rules of ASIM and OCSF themselves are held by tests/scenario/test_rules.py over real and generated records; here
 * stand the writers' own promises: types, fallbacks, names that repeat, objects that would be half, nothing lost.
 */
#include "daemon/schema/schema.h"
#include "daemon/schema/value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#define NOON INT64_C(17847216000000000)      /* 2026-07-22T12:00:00Z */

static bool nobody_takes(void *arg, const struct pen_event *event, uint64_t ordinal)
{
    (void)arg, (void)event, (void)ordinal;
    return true;
}

struct test {
    struct pen_out *out;
    struct json *json;
    struct buf text;
    struct pen_record record;
    struct event_meta meta;
    uint32_t cut;                            /* what the schema told of its last message */
};

static int setup(void **state)
{
    struct test *test = calloc(1, sizeof(*test));

    test->out = out_new(nobody_takes, NULL);
    out_begin(test->out, 0);
    test->json = json_new();
    test->record.raw = PEN_SPAN("{\"a\":\n 1}");
    memcpy(test->meta.id, "0123456789abcdef0123456789abcdef-7", 34);
    test->meta.id_size = 34;
    test->meta.received_ticks = NOON;
    test->meta.source = PEN_SPAN("flows");
    test->meta.record = &test->record;
    test->meta.parser = "test";
    *state = test;
    return 0;
}

static int teardown(void **state)
{
    struct test *test = *state;

    out_free(test->out);
    json_free(test->json);
    buf_free(&test->text);
    free(test);
    return 0;
}

/* Written and read back; one line, or the test fails. */
static struct pen_json written(struct test *test, const struct schema *schema, const struct pen_event *event)
{
    struct pen_json root = { 0 };
    const char *why = "";

    test->text.size = 0;
    test->cut = schema->write(event, &test->meta, &test->text, NULL);
    assert_null(memchr(test->text.data, '\n', test->text.size));
    buf_reserve(&test->text, JSON_PADDING);
    if (json_parse(test->json, test->text.data, test->text.size, &root, &why) != 0)
        fail_msg("%s: %.*s", why, (int)test->text.size, test->text.data);
    return root;
}

static void assert_text(const struct pen_json *root, const char *path, const char *want)
{
    struct pen_json node = pen_json_path(root, path);
    struct pen_span got = pen_json_value(&node);

    if (!pen_span_is(got, want))
        fail_msg("%s is \"%.*s\", not \"%s\"", path, (int)got.size, got.data, want);
}

static void assert_int(const struct pen_json *root, const char *path, int64_t want)
{
    struct pen_json node = pen_json_path(root, path);
    int64_t got = 0;

    assert_int_equal(pen_json_type(&node), PEN_JSON_INT);
    assert_true(pen_json_int(&node, &got));
    if (got != want)
        fail_msg("%s is %lld, not %lld", path, (long long)got, (long long)want);
}

static void assert_missing(const struct pen_json *root, const char *path)
{
    struct pen_json node = pen_json_path(root, path);

    if (pen_json_type(&node) != PEN_JSON_MISSING)
        fail_msg("%s is there", path);
}

static struct pen_event *flow(struct test *test)
{
    struct pen_event *event = pen_out_event(test->out, PEN_NETWORK);

    pen_set_ticks(event, PEN_TIME_GENERATED, NOON + 12345678);
    pen_set_text(event, PEN_EVENT_VENDOR, PEN_SPAN("Microsoft"));
    pen_set_text(event, PEN_EVENT_PRODUCT, PEN_SPAN("NSGFlow"));
    pen_set_text(event, PEN_EVENT_TYPE, PEN_SPAN("Flow"));
    pen_set_text(event, PEN_EVENT_RESULT, PEN_SPAN("Success"));
    pen_set_text(event, PEN_EVENT_SEVERITY, PEN_SPAN("Informational"));
    pen_set_ip(event, PEN_SRC_IP_ADDR, PEN_SPAN("192.0.2.1"));
    pen_set_ip(event, PEN_DST_IP_ADDR, PEN_SPAN("2001:db8::1"));
    pen_set_int(event, PEN_SRC_PORT_NUMBER, 1025);
    pen_set_int(event, PEN_DST_PORT_NUMBER, 443);
    pen_set_mac(event, PEN_DST_MAC_ADDR, PEN_SPAN("6045BDEC2532"));
    pen_set_text(event, PEN_NETWORK_PROTOCOL, PEN_SPAN("TCP"));
    pen_set_text(event, PEN_NETWORK_DIRECTION, PEN_SPAN("Inbound"));
    pen_set_text(event, PEN_NETWORK_RULE_NAME, PEN_SPAN("UserRule_web"));
    pen_set_text(event, PEN_DVC_ACTION, PEN_SPAN("Allow"));
    pen_set_text(event, PEN_FLOW_STATE, PEN_SPAN("C"));
    pen_set_int(event, PEN_SRC_BYTES, INT64_C(9000000000));
    return event;
}

static void test_asim_types_and_fallbacks(void **state)
{
    struct test *test = *state;
    struct pen_event *event = flow(test);
    struct pen_json root;

    pen_set_bool(event, PEN_TCP_FLAGS_SYN, true);
    pen_set_real(event, PEN_SRC_GEO_LATITUDE, -0.5);
    root = written(test, &asim_schema, event);
    assert_text(&root, "TimeGenerated", "2026-07-22T12:00:01.2345678Z");
    assert_text(&root, "EventStartTime", "2026-07-22T12:00:01.2345678Z");
    assert_text(&root, "EventEndTime", "2026-07-22T12:00:01.2345678Z");
    assert_int(&root, "EventCount", 1);
    assert_int(&root, "SrcBytes", INT64_C(9000000000));
    assert_int(&root, "SrcPortNumber", 1025);
    assert_text(&root, "DstMacAddr", "60:45:BD:EC:25:32");
    assert_text(&root, "EventSchemaVersion", "0.2.7");
    assert_text(&root, "EventOriginalUid", "0123456789abcdef0123456789abcdef-7");
    assert_text(&root, "Dvc", "NSGFlow");
    assert_missing(&root, "EventSchema");
    assert_text(&root, "AdditionalFields.FlowState", "C");
    assert_missing(&root, "FlowState");
    assert_non_null(memmem(test->text.data, test->text.size, "\"TcpFlagsSyn\":true", 18));
    assert_non_null(memmem(test->text.data, test->text.size, "\"SrcGeoLatitude\":-0.5", 21));
}

static void test_asim_what_is_set_stays(void **state)
{
    struct test *test = *state;
    struct pen_event *event = flow(test);
    struct pen_json root;

    pen_unset(event, PEN_TIME_GENERATED);
    pen_unset(event, PEN_FLOW_STATE);
    pen_set_ticks(event, PEN_EVENT_START_TIME, NOON - 10000000);
    pen_set_ticks(event, PEN_EVENT_END_TIME, NOON - 5000000);
    pen_set_int(event, PEN_EVENT_COUNT, 3);
    pen_set_text(event, PEN_DVC, PEN_SPAN("gateway"));
    root = written(test, &asim_schema, event);
    assert_text(&root, "TimeGenerated", "2026-07-22T11:59:59Z");
    assert_text(&root, "EventEndTime", "2026-07-22T11:59:59.500Z");
    assert_int(&root, "EventCount", 3);
    assert_text(&root, "Dvc", "gateway");
    assert_missing(&root, "AdditionalFields");
    pen_unset(event, PEN_EVENT_START_TIME);
    root = written(test, &asim_schema, event);
    assert_text(&root, "TimeGenerated", "2026-07-22T12:00:00Z");
}

/* A column that another table has is no column here; a source's own id does not displace ours. */
static void test_asim_other_tables_columns_are_additional(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
    struct pen_json root;

    pen_set_text(event, PEN_EVENT_PRODUCT, PEN_SPAN("Azure"));
    pen_set_text(event, PEN_DVC, PEN_SPAN("Azure"));
    pen_set_text(event, PEN_OPERATION, PEN_SPAN("Microsoft.X/y/write"));
    pen_set_text(event, PEN_EVENT_ORIGINAL_UID, PEN_SPAN("theirs"));
    pen_set_text(event, PEN_NETWORK_RULE_NAME, PEN_SPAN("no column"));
    root = written(test, &asim_schema, event);
    assert_text(&root, "Operation", "Microsoft.X/y/write");
    assert_text(&root, "EventOriginalUid", "0123456789abcdef0123456789abcdef-7");
    assert_text(&root, "AdditionalFields.EventOriginalUid", "theirs");
    assert_text(&root, "AdditionalFields.NetworkRuleName", "no column");
    assert_missing(&root, "NetworkRuleName");
    assert_missing(&root, "Dvc");
    assert_missing(&root, "AdditionalFields.Dvc");
    assert_text(&root, "EventSchemaVersion", "0.1.2");
    pen_set_text(event, PEN_DVC, PEN_SPAN("firewall-1"));
    root = written(test, &asim_schema, event);
    assert_text(&root, "AdditionalFields.Dvc", "firewall-1");
}

static void test_asim_unknown_has_its_own_columns_only(void **state)
{
    static const char *const columns[] = { "TimeGenerated", "RawData", "RawText", "Trouble", "EventOriginalUid",
                                           "EventProduct", "EventVendor", "Source", "AdditionalFields" };
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_UNKNOWN);
    struct json *inner = json_new();
    struct pen_json node = { 0 }, root;
    struct pen_json_iter it;
    const char *why;
    char text[] = "{\"a\":[1,\"x\"]}                                                                ";

    assert_int_equal(json_parse(inner, text, 13, &node, &why), 0);
    pen_set_json(event, PEN_RAW, &node);
    pen_set_text(event, PEN_TROUBLE, PEN_SPAN("no parser claims it"));
    pen_set_text(event, PEN_EVENT_VENDOR, PEN_SPAN("Microsoft"));
    pen_set_text(event, PEN_EVENT_PRODUCT, PEN_SPAN("Azure"));
    pen_set_text(event, PEN_CATEGORY, PEN_SPAN("Strange"));
    root = written(test, &asim_schema, event);
    assert_text(&root, "Source", "flows");
    assert_text(&root, "AdditionalFields.Category", "Strange");
    assert_non_null(memmem(test->text.data, test->text.size, "\"RawData\":{\"a\":[1,\"x\"]}", 23));
    for (it = pen_json_each(&root); pen_json_next(&it);) {
        bool known = false;

        for (size_t i = 0; i < sizeof(columns) / sizeof(*columns); i++)
            known |= pen_span_is(it.name, columns[i]);
        assert_true(known);
    }
    json_free(inner);
}

/* Every value at its own key, however names repeat. */
static void assert_extras(struct test *test, const struct schema *schema, const char *rest, size_t count)
{
    struct pen_json root = written(test, schema, &test->out->event), object = pen_json_path(&root, rest);
    struct pen_json_iter it, other;
    size_t found = 0, same;

    for (it = pen_json_each(&object); pen_json_next(&it); found++) {
        same = 0;
        for (other = pen_json_each(&object); pen_json_next(&other);)
            same += other.name.size == it.name.size && memcmp(other.name.data, it.name.data, it.name.size) == 0;
        assert_int_equal(same, 1);
    }
    if (found != count)
        fail_msg("%zu members, not %zu: %.*s", found, count, (int)test->text.size, test->text.data);
}

static void test_repeated_extras_are_numbered(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
    struct pen_json root;
    char name[16];

    pen_set_text(event, PEN_CATEGORY, PEN_SPAN("Administrative"));
    pen_add_text(event, PEN_SPAN("Category"), PEN_SPAN("mine"));
    pen_add_text(event, PEN_SPAN("a"), PEN_SPAN("one"));
    pen_add_text(event, PEN_SPAN("a_2"), PEN_SPAN("taken"));
    pen_add_int(event, PEN_SPAN("a"), 2);
    root = written(test, &asim_schema, event);
    assert_text(&root, "AdditionalFields.Category", "Administrative");
    assert_text(&root, "AdditionalFields.Category_2", "mine");
    assert_text(&root, "AdditionalFields.a", "one");
    assert_text(&root, "AdditionalFields.a_2", "taken");
    assert_int(&root, "AdditionalFields.a_3", 2);
    assert_extras(test, &asim_schema, "AdditionalFields", 5);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "b_%d", i % 90);
        pen_add_int(event, pen_out_copy(test->out, (struct pen_span){ name, strlen(name) }), i);
        pen_add_int(event, PEN_SPAN("b"), i);
    }
    assert_extras(test, &asim_schema, "AdditionalFields", 605);
    assert_extras(test, &ocsf_schema, "unmapped", 604);     /* Category is metadata.log_name there */
}

/* A hundred thousand equal keys must cost no more than sorting them. */
static void test_hostile_extras_end(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);

    for (int i = 0; i < 100000; i++)
        pen_add_int(event, PEN_SPAN("k"), i);
    written(test, &ocsf_schema, event);
    assert_non_null(memmem(test->text.data, test->text.size, "\"k_100000\":99999", 16));
    written(test, &asim_schema, event);
    assert_int_equal(test->cut, 1);          /* 1.7 MB: see below */
}

/* value_text() looks at sixteen bytes at once; the plain writer looks at each. */
static void test_texts_are_alike_at_every_place(void **state)
{
    char text[4200];
    struct buf fast = { 0 }, plain = { 0 };

    (void)state;
    memset(text, 'x', sizeof(text));
    for (size_t size = 0; size < 50; size++)
        for (size_t at = 0; at < size; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                text[at] = (char)byte;
                fast.size = plain.size = 0;
                value_text(&fast, (struct pen_span){ text, size });
                buf_json_string(&plain, text, size);
                assert_int_equal(fast.size, plain.size);
                assert_memory_equal(fast.data, plain.data, fast.size);
            }
            text[at] = 'x';
        }
    for (size_t size = 4000; size < sizeof(text); size++) {      /* over the edge of a buffer's first piece */
        buf_free(&fast);
        value_text(&fast, (struct pen_span){ text, size });
        assert_int_equal(fast.size, size + 2);
    }
    buf_free(&fast);
    buf_free(&plain);
}

static void test_texts_are_escaped(void **state)
{
    static const char nasty[] = "a\"b\\c\n\t\x01\x7f\xff\xed\xa0\x80 \xc3\xa9";
    struct test *test = *state;
    struct pen_event *event = flow(test);
    struct pen_json root;
    char name[] = "key \"\n\xff";

    pen_set_text(event, PEN_NETWORK_RULE_NAME, (struct pen_span){ nasty, sizeof(nasty) - 1 });
    pen_add_text(event, (struct pen_span){ name, sizeof(name) - 1 }, PEN_SPAN("x"));
    pen_add_text(event, (struct pen_span){ name, sizeof(name) - 1 }, PEN_SPAN("y"));
    root = written(test, &asim_schema, event);
    assert_text(&root, "NetworkRuleName",
                "a\"b\\c\n\t\x01\x7f\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xc3\xa9");
    assert_text(&root, "AdditionalFields.key \"\n\xef\xbf\xbd_2", "y");
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "firewall_rule.name",
                "a\"b\\c\n\t\x01\x7f\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xc3\xa9");
}

/* Each byte alone, at each place of words of each length: the quick look must see what the careful one sees. */
static void test_every_byte_at_every_place(void **state)
{
    struct test *test = *state;
    struct pen_event *event = flow(test);
    char text[25];

    for (int i = 0; i < 256 * 25; i++) {
        int byte = i % 256;
        size_t size = 1 + (size_t)i / 256;

        for (size_t at = 0; at < size; at++) {
            struct buf want = { 0 };

            memset(text, 'x', sizeof(text));
            text[at] = (char)byte;
            if (at > 0)
                text[at - 1] = '~';
            pen_set_text(event, PEN_EVENT_MESSAGE, (struct pen_span){ text, size });
            test->text.size = 0;
            asim_schema.write(event, &test->meta, &test->text, NULL);
            BUF_LITERAL(&want, "\"EventMessage\":");
            buf_json_string(&want, text, size);
            BUF_LITERAL(&want, ",");
            assert_non_null(memmem(test->text.data, test->text.size, want.data, want.size));
            buf_free(&want);
        }
    }
}

static void test_ocsf_flow(void **state)
{
    struct test *test = *state;
    struct pen_event *event = flow(test);
    struct pen_json root = written(test, &ocsf_schema, event);

    assert_int(&root, "class_uid", 4001);
    assert_int(&root, "category_uid", 4);
    assert_int(&root, "activity_id", 6);
    assert_int(&root, "type_uid", 400106);
    assert_int(&root, "time", (NOON + 12345678) / 10000);
    assert_int(&root, "severity_id", 1);
    assert_int(&root, "status_id", 1);
    assert_int(&root, "action_id", 1);
    assert_int(&root, "disposition_id", 1);
    assert_int(&root, "connection_info.direction_id", 1);
    assert_text(&root, "connection_info.protocol_name", "tcp");
    assert_text(&root, "src_endpoint.ip", "192.0.2.1");
    assert_int(&root, "dst_endpoint.port", 443);
    assert_int(&root, "traffic.bytes_out", INT64_C(9000000000));
    assert_text(&root, "metadata.uid", "0123456789abcdef0123456789abcdef-7");
    assert_text(&root, "metadata.version", "1.8.0");
    assert_text(&root, "cloud.provider", "Azure");
    assert_missing(&root, "unmapped");
}

static void test_ocsf_denied_flow_is_refused(void **state)
{
    struct test *test = *state;
    struct pen_event *event = flow(test);
    struct pen_json root;

    pen_set_text(event, PEN_FLOW_STATE, PEN_SPAN("B"));
    pen_set_text(event, PEN_DVC_ACTION, PEN_SPAN("Deny"));
    root = written(test, &ocsf_schema, event);
    assert_int(&root, "activity_id", 5);
    assert_int(&root, "type_uid", 400105);
    assert_int(&root, "action_id", 2);
    assert_text(&root, "unmapped.FlowState", "B");           /* 5 does not say it */
}

static void test_ocsf_unknown_words_are_other(void **state)
{
    struct test *test = *state;
    struct pen_event *event = flow(test);
    struct pen_json root;

    pen_set_text(event, PEN_FLOW_STATE, PEN_SPAN("Z"));
    pen_set_text(event, PEN_EVENT_SEVERITY, PEN_SPAN("Odd"));
    pen_set_text(event, PEN_EVENT_RESULT, PEN_SPAN("Partial"));
    root = written(test, &ocsf_schema, event);
    assert_int(&root, "activity_id", 99);
    assert_text(&root, "activity_name", "Z");
    assert_int(&root, "type_uid", 400199);
    assert_int(&root, "severity_id", 99);
    assert_text(&root, "severity", "Odd");
    assert_int(&root, "status_id", 99);
    assert_text(&root, "status", "Partial");
    assert_missing(&root, "unmapped");
}

/* An endpoint that is but a port, a traffic that has no class: to unmapped, whole objects only. */
static void test_ocsf_no_half_objects(void **state)
{
    struct test *test = *state;
    struct pen_event *event = flow(test);
    struct pen_json root;

    pen_unset(event, PEN_SRC_IP_ADDR);
    pen_set_text(event, PEN_HTTP_USER_AGENT, PEN_SPAN("curl"));
    root = written(test, &ocsf_schema, event);
    assert_missing(&root, "src_endpoint");
    assert_int(&root, "unmapped.SrcPortNumber", 1025);
    assert_text(&root, "unmapped.HttpUserAgent", "curl");
    assert_missing(&root, "http_request");
    pen_unset(event, PEN_DST_IP_ADDR);
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "src_endpoint.svc_name", "NSGFlow");  /* the class demands one end */
    assert_missing(&root, "dst_endpoint");
    assert_text(&root, "unmapped.DstMacAddr", "60:45:BD:EC:25:32");
    pen_set_ip(event, PEN_SRC_IP_ADDR, PEN_SPAN("192.0.2.1"));
    pen_set_int(event, PEN_SRC_PORT_NUMBER, 70000);
    root = written(test, &ocsf_schema, event);
    assert_missing(&root, "src_endpoint.port");
    assert_int(&root, "unmapped.SrcPortNumber", 70000);
}

static void test_ocsf_audit(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
    struct pen_json root = written(test, &ocsf_schema, event), list;

    /* nothing known: still whole */
    assert_int(&root, "class_uid", 6003);
    assert_text(&root, "api.operation", "Unknown");
    assert_text(&root, "actor.invoked_by", "Azure");
    assert_text(&root, "src_endpoint.svc_name", "Azure");
    assert_text(&root, "metadata.product.name", "Azure");
    assert_int(&root, "time", NOON / 10000);

    pen_set_text(event, PEN_EVENT_TYPE, PEN_SPAN("Set"));
    pen_set_int(event, PEN_HTTP_STATUS, 201);
    pen_set_text(event, PEN_ACTOR_USERNAME, PEN_SPAN("a@example.com"));
    pen_set_text(event, PEN_ACTOR_USER_TYPE, PEN_SPAN("Regular"));
    pen_set_ip(event, PEN_SRC_IP_ADDR, PEN_SPAN("2001:db8::7"));
    pen_set_text(event, PEN_OBJECT_ID, PEN_SPAN("/subscriptions/x"));
    pen_set_text(event, PEN_RESOURCE_ID, PEN_SPAN("/subscriptions/x"));
    pen_set_text(event, PEN_RESOURCE_GROUP, PEN_SPAN("rg"));
    pen_set_text(event, PEN_OPERATION, PEN_SPAN("Microsoft.X/y/write"));
    pen_set_text(event, PEN_SUBSCRIPTION_ID, PEN_SPAN("x"));
    root = written(test, &ocsf_schema, event);
    assert_int(&root, "type_uid", 600301);
    assert_text(&root, "actor.user.name", "a@example.com");
    assert_int(&root, "actor.user.type_id", 1);
    assert_missing(&root, "actor.invoked_by");
    assert_missing(&root, "src_endpoint.svc_name");
    assert_int(&root, "cloud.account.type_id", 13);
    list = pen_json_get(&root, "resources");
    list = pen_json_item(&list, 0);
    assert_text(&list, "uid", "/subscriptions/x");
    assert_text(&list, "group.name", "rg");
    assert_missing(&root, "unmapped.ResourceId");            /* said once is enough */
    pen_set_text(event, PEN_RESOURCE_ID, PEN_SPAN("/subscriptions/y"));
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "unmapped.ResourceId", "/subscriptions/y");
}

/* The platform's own events speak of other services' resources: the service is that of the operation. */
static void test_ocsf_the_service_is_the_operations(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
    struct pen_json root;

    pen_set_text(event, PEN_RESOURCE_PROVIDER, PEN_SPAN("MICROSOFT.COMPUTE"));
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "api.service.name", "MICROSOFT.COMPUTE");
    assert_text(&root, "src_endpoint.svc_name", "MICROSOFT.COMPUTE");
    pen_set_text(event, PEN_TARGET_APP_NAME, PEN_SPAN("Microsoft.ResourceHealth"));
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "api.service.name", "Microsoft.ResourceHealth");
    assert_text(&root, "src_endpoint.svc_name", "Microsoft.ResourceHealth");
    assert_text(&root, "actor.invoked_by", "Microsoft.ResourceHealth");
    assert_text(&root, "unmapped.ResourceProvider", "MICROSOFT.COMPUTE");
}

static void test_ocsf_alert(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_ALERT);
    struct pen_json root, list, item;

    pen_set_text(event, PEN_ALERT_NAME, PEN_SPAN("Bad thing"));
    pen_set_text(event, PEN_EVENT_ORIGINAL_TYPE, PEN_SPAN("VM_EICAR"));
    pen_set_text(event, PEN_ALERT_ORIGINAL_STATUS, PEN_SPAN("Dismissed"));
    pen_set_text(event, PEN_ALERT_STATUS, PEN_SPAN("Closed"));
    pen_set_text(event, PEN_ATTACK_TACTICS, PEN_SPAN("Persistence, Execution,"));
    pen_set_text(event, PEN_ATTACK_TECHNIQUES, PEN_SPAN("Local Groups (T1069.001),T1059,Odd"));
    root = written(test, &ocsf_schema, event);
    assert_int(&root, "type_uid", 200403);
    assert_int(&root, "status_id", 3);
    assert_text(&root, "message", "Bad thing");
    assert_text(&root, "finding_info.title", "Bad thing");
    assert_text(&root, "finding_info.uid", "0123456789abcdef0123456789abcdef-7");
    assert_text(&root, "finding_info.analytic.uid", "VM_EICAR");
    assert_int(&root, "finding_info.analytic.type_id", 1);
    list = pen_json_path(&root, "finding_info.attacks");
    assert_int_equal(pen_json_count(&list), 5);
    item = pen_json_item(&list, 1);
    assert_text(&item, "tactic.name", "Execution");
    item = pen_json_item(&list, 2);
    assert_text(&item, "sub_technique.uid", "T1069.001");
    assert_text(&item, "sub_technique.name", "Local Groups");
    item = pen_json_item(&list, 3);
    assert_text(&item, "technique.uid", "T1059");
    item = pen_json_item(&list, 4);
    assert_text(&item, "technique.name", "Odd");
}

/* The Activity Log's levels come as numbers, too; Defender's numbers follow no scale that is known. */
static void test_ocsf_critical_in_every_spelling(void **state)
{
    static const struct { enum pen_kind kind; const char *word; int id; } cases[] = {
        { PEN_AUDIT, "Critical", 5 }, { PEN_AUDIT, "critical", 5 }, { PEN_AUDIT, "1", 5 }, { PEN_AUDIT, "2", 4 },
        { PEN_ALERT, "CRITICAL", 5 }, { PEN_ALERT, "1", 4 },
    };
    struct test *test = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct pen_event *event = pen_out_event(test->out, cases[i].kind);
        struct pen_json root;

        pen_set_text(event, PEN_EVENT_SEVERITY, PEN_SPAN("High"));
        pen_set_text(event, PEN_EVENT_ORIGINAL_SEVERITY, (struct pen_span){ cases[i].word, strlen(cases[i].word) });
        root = written(test, &ocsf_schema, event);
        assert_int(&root, "severity_id", cases[i].id);
    }
}

static void test_ocsf_alert_states_of_other_feeds(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_ALERT);
    struct pen_json root;

    pen_set_text(event, PEN_ALERT_ORIGINAL_STATUS, PEN_SPAN("Unknown"));
    root = written(test, &ocsf_schema, event);
    assert_int(&root, "status_id", 0);
    assert_int(&root, "activity_id", 0);
    assert_int(&root, "type_uid", 200400);
    pen_set_text(event, PEN_ALERT_ORIGINAL_STATUS, PEN_SPAN("newAlert"));    /* Graph's older alerts */
    root = written(test, &ocsf_schema, event);
    assert_int(&root, "status_id", 1);
    assert_int(&root, "type_uid", 200401);
}

/* Masked addresses are none: what is called an IP address must be one. */
static void test_ocsf_observables_are_what_they_say(void **state)
{
    static const char entities[] = "[{\"Type\":\"ip\",\"Address\":\"X.X.X.X\"},{\"Type\":\"ip\",\"Address\":\"2001:db8::1\"}]";
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_ALERT);
    struct pen_json root, list, item, json = pen_out_parse(test->out, PEN_SPAN(entities));

    pen_set_json(event, PEN_ENTITIES, &json);
    root = written(test, &ocsf_schema, event);
    list = pen_json_get(&root, "observables");
    assert_int_equal(pen_json_count(&list), 1);
    item = pen_json_item(&list, 0);
    assert_text(&item, "value", "2001:db8::1");
    list = pen_json_get(&root, "evidences");
    assert_int_equal(pen_json_count(&list), 2);
}

static void test_ocsf_unknown_keeps_the_record(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_UNKNOWN);
    struct pen_json root;

    pen_set_text(event, PEN_TROUBLE, PEN_SPAN("not JSON"));
    root = written(test, &ocsf_schema, event);
    assert_int(&root, "class_uid", 0);
    assert_int(&root, "type_uid", 0);
    assert_text(&root, "raw_data", "{\"a\":\n 1}");
    assert_text(&root, "unmapped.Trouble", "not JSON");
    pen_set_text(event, PEN_RAW_TEXT, PEN_SPAN("one tuple"));
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "raw_data", "one tuple");             /* not the thousand beside it */
    assert_missing(&root, "unmapped.RawText");
}

static void test_asim_mandatory_words(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
    struct pen_json root = written(test, &asim_schema, event);

    assert_text(&root, "EventType", "Other");
    assert_text(&root, "EventResult", "NA");
    assert_text(&root, "Operation", "Unknown");
    assert_text(&root, "Object", "Unknown");
    event = pen_out_event(test->out, PEN_NETWORK);
    root = written(test, &asim_schema, event);
    assert_text(&root, "EventType", "NetworkSession");
    assert_text(&root, "Dvc", "Azure");
    assert_missing(&root, "Operation");
    event = pen_out_event(test->out, PEN_ALERT);
    root = written(test, &asim_schema, event);
    assert_text(&root, "EventType", "Alert");
    assert_text(&root, "EventUid", "0123456789abcdef0123456789abcdef-7");
    assert_missing(&root, "EventResult");
}

static void test_raw_is_one_line(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_UNKNOWN);
    struct pen_json node = { 0 }, root;

    test->record.raw = PEN_SPAN(" {\"a\" :\r\n [1,\n\"x\\n\"]}\n");
    test->record.json = &node;
    written(test, &raw_schema, event);
    assert_int_equal(test->text.size, 17);
    assert_memory_equal(test->text.data, "{\"a\" : [1,\"x\\n\"]}", 17);
    test->record.json = NULL;
    test->record.raw = PEN_SPAN("half a rec\xff");
    test->record.trouble = "a string is not closed";
    root = written(test, &raw_schema, event);
    assert_text(&root, "RawText", "half a rec\xef\xbf\xbd");
    assert_text(&root, "Trouble", "a string is not closed");
}

/* Every field at once, in every kind: valid JSON, and in ASIM every field is found again. */
static void test_every_field_in_every_kind(void **state)
{
    struct test *test = *state;
    struct pen_json root, additional;
    struct pen_event *event;

    for (int kind = 0; kind < PEN_KINDS; kind++) {
        event = pen_out_event(test->out, (enum pen_kind)kind);
        for (enum pen_field field = 0; field < PEN_FIELDS; field++) {
            switch (fields[field].type) {
            case FIELD_TEXT:
                pen_set_text(event, field, (struct pen_span){ fields[field].name, fields[field].name_size });
                break;
            case FIELD_INT:
            case FIELD_LONG: pen_set_int(event, field, 7); break;
            case FIELD_REAL: pen_set_real(event, field, 0.5); break;
            case FIELD_BOOL: pen_set_bool(event, field, true); break;
            case FIELD_TIME: pen_set_ticks(event, field, NOON); break;
            case FIELD_IP: pen_set_ip(event, field, PEN_SPAN("192.0.2.1")); break;
            case FIELD_MAC: pen_set_mac(event, field, PEN_SPAN("001122334455")); break;
            case FIELD_JSON: break;
            }
        }
        written(test, &ocsf_schema, event);
        root = written(test, &asim_schema, event);
        additional = pen_json_get(&root, "AdditionalFields");
        for (enum pen_field field = 0; field < PEN_FIELDS; field++) {
            struct pen_json node = pen_json_get(&root, fields[field].name);

            if (fields[field].type == FIELD_JSON || (field == PEN_DVC && kind != PEN_NETWORK))
                continue;
            if ((fields[field].tables & 1u << kind) == 0)
                node = pen_json_get(&additional, fields[field].name);
            if (pen_json_type(&node) == PEN_JSON_MISSING)
                fail_msg("%s is lost", fields[field].name);
        }
    }
}

/* What a column says already is not paid for again; what only looks alike stays. */
static void test_twins_are_said_once(void **state)
{
    struct test *test = *state;
    struct pen_event *event = flow(test);
    struct pen_json root;

    pen_set_text(event, PEN_DVC_ID, PEN_SPAN("/subscriptions/x"));
    pen_set_text(event, PEN_RESOURCE_ID, PEN_SPAN("/subscriptions/x"));
    root = written(test, &asim_schema, event);
    assert_text(&root, "DvcId", "/subscriptions/x");
    assert_missing(&root, "AdditionalFields.ResourceId");
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "network_observation_point.uid", "/subscriptions/x");
    assert_missing(&root, "unmapped.DvcId");
    pen_set_text(event, PEN_RESOURCE_ID, PEN_SPAN("/subscriptions/X"));
    root = written(test, &asim_schema, event);
    assert_text(&root, "AdditionalFields.ResourceId", "/subscriptions/X");
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "unmapped.DvcId", "/subscriptions/x");
    /* Where neither has a place of its own, one of them stays. */
    pen_set_text(event, PEN_FLOW_LOG_ID, PEN_SPAN("/subscriptions/x"));
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "unmapped.FlowLogResourceId", "/subscriptions/x");
    assert_missing(&root, "unmapped.DvcId");
    pen_set_text(event, PEN_FLOW_LOG_ID, PEN_SPAN("/subscriptions/Y"));
    root = written(test, &ocsf_schema, event);
    assert_text(&root, "unmapped.FlowLogResourceId", "/subscriptions/Y");
    assert_text(&root, "unmapped.DvcId", "/subscriptions/x");
}

/* ---- Values that are too long ---- */

#define LONG 200000

static struct pen_span long_text(struct test *test, const char *unit)
{
    char *text = malloc(LONG);
    size_t size = strlen(unit), at = 0;
    struct pen_span span;

    for (; at + size <= LONG; at += size)
        memcpy(text + at, unit, size);
    span = pen_out_copy(test->out, (struct pen_span){ text, at });
    free(text);
    return span;
}

/* Bytes that a value is written with. */
static size_t written_size(const struct pen_json *node)
{
    struct buf buf = { 0 };
    size_t size;

    json_write(node, &buf);
    size = buf.size;
    buf_free(&buf);
    return size;
}

/* Whatever it is made of, a text is cut to the last whole character that fits, and its length before is told. */
static void test_asim_long_texts_are_cut(void **state)
{
    static const struct { const char *unit; size_t left; } cases[] = {
        { "x", 64000 }, { "\xc3\xa9", 64000 }, { "\xe2\x82\xac", 63999 }, { "\xf0\x9f\x92\xa7", 64000 }, { "\"", 64000 },
        { "\x01", 64000 }, { "\n\xe2\x82\xac", 64000 }, { "a\xf0\x9f\x92\xa7", 64000 }, { "\x7f\xc3\xa9\\", 64000 },
        { "\xff", 63999 },              /* becomes U+FFFD, three bytes */
    };
    struct test *test = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
        struct pen_span text = long_text(test, cases[i].unit), got;
        struct pen_json root, node;

        pen_set_text(event, PEN_EVENT_MESSAGE, text);
        root = written(test, &asim_schema, event);
        assert_int_equal(test->cut, 1);
        node = pen_json_path(&root, "EventMessage");
        got = pen_json_value(&node);
        if (got.size != cases[i].left)
            fail_msg("case %zu: %zu bytes are left", i, got.size);
        if (strcmp(cases[i].unit, "\xff") != 0)
            assert_memory_equal(got.data, text.data, got.size);
        assert_int(&root, "AdditionalFields.PenstockCut.EventMessage", (int64_t)text.size);
    }
}

/* One byte less is not touched, one more is. */
static void test_asim_the_border_of_a_cut(void **state)
{
    struct test *test = *state;

    for (size_t size = 63999; size <= 64001; size++) {
        struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
        struct pen_json root;

        pen_set_text(event, PEN_EVENT_MESSAGE, (struct pen_span){ long_text(test, "\"").data, size });
        root = written(test, &asim_schema, event);
        assert_int_equal(test->cut, size > 64000);
        if (size <= 64000)
            assert_missing(&root, "AdditionalFields");
    }
}

/* JSON that is too long becomes a text: what is left of it is its beginning, and fits with all its escapes. */
static void test_asim_long_json_becomes_text(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_UNKNOWN);
    struct buf text = { 0 };
    struct pen_json node, root;
    struct pen_span got;

    buf_char(&text, '[');
    while (text.size < LONG)
        BUF_LITERAL(&text, "{\"name\":\"\xc3\xa9\"},");
    text.data[text.size - 1] = ']';
    node = pen_out_parse(test->out, pen_out_copy(test->out, (struct pen_span){ text.data, text.size }));
    assert_true(pen_set_json(event, PEN_RAW, &node));
    root = written(test, &asim_schema, event);
    assert_int_equal(test->cut, 1);
    node = pen_json_path(&root, "RawData");
    assert_int_equal(pen_json_type(&node), PEN_JSON_TEXT);
    assert_in_range(written_size(&node), 63990, 64000);
    got = pen_json_value(&node);
    assert_memory_equal(got.data, text.data, got.size);
    assert_int(&root, "AdditionalFields.PenstockCut.RawData", (int64_t)text.size);
    buf_free(&text);
}

/* AdditionalFields as a whole fits: its longest members give way, the short ones stay as they are. */
static void test_asim_long_additional_fields(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
    struct pen_json root, node;
    char name[16];

    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof(name), "long%d", i);
        pen_add_text(event, pen_out_copy(test->out, (struct pen_span){ name, strlen(name) }), long_text(test, "\xc3\xa9\""));
    }
    pen_add_int(event, PEN_SPAN("short"), 7);
    pen_add_text(event, PEN_SPAN("PenstockCut"), PEN_SPAN("of the record's own"));
    pen_set_text(event, PEN_EVENT_MESSAGE, long_text(test, "m"));
    root = written(test, &asim_schema, event);
    assert_int_equal(test->cut, 2);
    node = pen_json_path(&root, "AdditionalFields");
    assert_in_range(written_size(&node), 16000, 64000);
    assert_int(&root, "AdditionalFields.short", 7);
    assert_int(&root, "AdditionalFields.PenstockCut.EventMessage", LONG);
    assert_text(&root, "AdditionalFields.PenstockCut_2", "of the record's own");
    node = pen_json_path(&root, "AdditionalFields.PenstockCut.AdditionalFields");
    assert_int_equal(pen_json_type(&node), PEN_JSON_INT);
}

/* It fits by itself, but not with the news of another column's cut: then it gives way, and that is told as well. */
static void test_asim_no_room_for_the_news(void **state)
{
    struct test *test = *state;

    for (size_t size = 63900; size <= 63990; size += 30) {     /* of the member's text */
        struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
        struct pen_json root, node;
        struct pen_span text;

        pen_add_text(event, PEN_SPAN("m"), (struct pen_span){ long_text(test, "x").data, size });
        pen_set_text(event, PEN_EVENT_MESSAGE, long_text(test, "m"));
        root = written(test, &asim_schema, event);
        node = pen_json_path(&root, "AdditionalFields.m");
        text = pen_json_value(&node);
        assert_int_equal(test->cut, text.size == size ? 1 : 2);
        if (text.size < size)
            assert_int(&root, "AdditionalFields.PenstockCut.AdditionalFields", (int64_t)(size + strlen("{\"m\":\"\"}")));
        node = pen_json_path(&root, "AdditionalFields");
        assert_in_range(written_size(&node), 16000, 64000);
    }
}

static void test_asim_too_many_additional_fields(void **state)
{
    struct test *test = *state;
    struct pen_event *event = pen_out_event(test->out, PEN_AUDIT);
    struct pen_json root, node;
    char name[16];

    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof(name), "name%d", i);
        pen_add_int(event, pen_out_copy(test->out, (struct pen_span){ name, strlen(name) }), i);
    }
    root = written(test, &asim_schema, event);
    assert_int_equal(test->cut, 1);
    node = pen_json_path(&root, "AdditionalFields");
    assert_in_range(written_size(&node), 63990, 64000);
    node = pen_json_path(&root, "AdditionalFields.PenstockRest");
    assert_memory_equal(pen_json_value(&node).data, "\"name0\":0,\"name1\":1,", 20);
}

static void test_schema_find(void **state)
{
    (void)state;
    for (size_t i = 0; schema_names[i] != NULL; i++)
        assert_string_equal(schema_find(schema_names[i])->name, schema_names[i]);
    assert_null(schema_find("asi"));
    assert_null(schema_find(""));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_asim_types_and_fallbacks),
        TEST(test_asim_what_is_set_stays),
        TEST(test_asim_mandatory_words),
        TEST(test_asim_other_tables_columns_are_additional),
        TEST(test_asim_unknown_has_its_own_columns_only),
        TEST(test_repeated_extras_are_numbered),
        TEST(test_hostile_extras_end),
        TEST(test_texts_are_alike_at_every_place),
        TEST(test_texts_are_escaped),
        TEST(test_every_byte_at_every_place),
        TEST(test_ocsf_flow),
        TEST(test_ocsf_denied_flow_is_refused),
        TEST(test_ocsf_unknown_words_are_other),
        TEST(test_ocsf_no_half_objects),
        TEST(test_ocsf_audit),
        TEST(test_ocsf_the_service_is_the_operations),
        TEST(test_ocsf_alert),
        TEST(test_ocsf_critical_in_every_spelling),
        TEST(test_ocsf_alert_states_of_other_feeds),
        TEST(test_ocsf_observables_are_what_they_say),
        TEST(test_ocsf_unknown_keeps_the_record),
        TEST(test_raw_is_one_line),
        TEST(test_every_field_in_every_kind),
        TEST(test_twins_are_said_once),
        TEST(test_asim_long_texts_are_cut),
        TEST(test_asim_the_border_of_a_cut),
        TEST(test_asim_long_json_becomes_text),
        TEST(test_asim_long_additional_fields),
        TEST(test_asim_no_room_for_the_news),
        TEST(test_asim_too_many_additional_fields),
        TEST(test_schema_find),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
