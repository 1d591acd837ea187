/*
 * All parsers together: each real record is claimed by the one parser it belongs to, nothing of it is lost, what ASIM
 * demands is there in ASIM's words, and hostile input costs its own record at most.
 */
#include "tests/unit/parsers.h"

#include <glob.h>

/* ---- Real records --------------------------------------------------------------------------------------------- */

struct folder {
    const char *name, *parser;
    size_t records, events;          /* fewest that must come out, so that a test of nothing fails */
};

/* The mandatory fields of each kind; TimeGenerated is the writer's to fill in. */
static const char *const mandatory[][10] = {
    { NULL },
    { "EventCount=", "EventStartTime=", "EventEndTime=", "EventType=", "EventResult=", "EventProduct=", "EventVendor=", "Dvc=", NULL },
    { "EventCount=", "EventStartTime=", "EventEndTime=", "EventType=", "EventResult=", "EventProduct=", "EventVendor=", "Operation=", "Object=", NULL },
    { "EventCount=", "EventStartTime=", "EventEndTime=", "EventType=", "EventProduct=", "EventVendor=", "EventUid=", NULL },
};

static void check_mandatory(const struct parsed *parsed, const char *path)
{
    const char *at = parsed->text.data, *end;

    for (; (end = strstr(at, "\n--\n")) != NULL; at = end + 4) {
        for (size_t kind = 0; kind < 4; kind++) {
            char head[32];

            snprintf(head, sizeof(head), "kind=%s\n", kind_names[kind]);
            if (strncmp(at, head, strlen(head)) != 0)
                continue;
            for (size_t i = 0; mandatory[kind][i] != NULL; i++) {
                char line[64];
                const char *found;

                snprintf(line, sizeof(line), "\n%s", mandatory[kind][i]);
                found = strstr(at, line);
                if (found == NULL || found >= end)
                    fail_msg("%s: no %s", path, mandatory[kind][i]);
            }
        }
    }
}

static void on_record(void *arg, const char *path, struct parsed *parsed)
{
    struct folder *folder = arg;
    bool text = strstr(path, ".txt") != NULL;       /* not JSON as published */

    if (folder->parser != NULL && !text && strcmp(parsed->parser, folder->parser) != 0 && strstr(path, "security") == NULL &&
        strstr(path, "assessment") == NULL)
        fail_msg("%s claimed %s", parsed->parser, path);
    if (text)
        assert_line(parsed, "kind=unknown");
    assert_int_not_equal(parsed->result, PEN_MALFORMED);
    check_mandatory(parsed, path);
    folder->records++;
    folder->events += parsed->events;
}

static void real_records_go_to_their_parser(void **state)
{
    static const struct folder folders[] = {
        { "activity-log", "activity-log", 20, 20 }, { "nsg-flow", "nsg-flow", 8, 150 }, { "vnet-flow", "vnet-flow", 12, 200 },
        { "defender", "defender-alert", 3, 3 }, { "aks", "unknown", 3, 3 }, { "application-gateway", "unknown", 5, 5 },
        { "defender-xdr", "unknown", 5, 5 }, { "entra", "unknown", 5, 5 }, { "firewall", "unknown", 3, 3 },
        { "front-door", "unknown", 3, 3 }, { "key-vault", "unknown", 5, 5 }, { "storage", "unknown", 5, 5 },
    };

    for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
        struct folder seen = { .parser = folders[i].parser };
        char pattern[128];
        glob_t files;

        snprintf(pattern, sizeof(pattern), "samples/%s/*", folders[i].name);
        assert_int_equal(glob(pattern, 0, NULL, &files), 0);
        for (size_t j = 0; j < files.gl_pathc; j++)
            sample_each(files.gl_pathv[j], on_record, &seen);
        globfree(&files);
        if (seen.records < folders[i].records || seen.events < folders[i].events)
            fail_msg("%s: %zu records, %zu events", folders[i].name, seen.records, seen.events);
    }
    (void)state;
}

/* Every text and number of the record must be found somewhere in what came out. */
static void check_nothing_lost(const struct pen_json *node, const struct parsed *parsed, const char *path)
{
    struct pen_json_iter it = pen_json_each(node);
    struct pen_span text = pen_json_value(node), trimmed = pen_span_trim(text);
    struct buf written = { 0 };

    while (pen_json_next(&it))
        check_nothing_lost(&it.value, parsed, path);
    if (trimmed.size == 0 || trimmed.data[0] == '{' || trimmed.data[0] == '[' || pen_guid_valid(trimmed))
        return;                      /* JSON text may come out in another spelling */
    json_write(node, &written);
    if (memmem(parsed->text.data, parsed->text.size, text.data, text.size) == NULL &&
        memmem(parsed->text.data, parsed->text.size, written.data + 1, written.size - 2) == NULL &&
        memmem(parsed->text.data, parsed->text.size, trimmed.data, trimmed.size > 18 ? 18 : trimmed.size) == NULL)
        fail_msg("%s: lost %.*s", path, (int)text.size, text.data);
    buf_free(&written);
}

static void what_only_looks_like_ours_is_left_alone(void **state)
{
    static const char *const records[] = {
        "{\"@odata.context\":\"https://management.azure.com/$metadata\",\"timestamp\":\"2026-11-22T09:00:00Z\",\"resourceId\":\"/x\","
        "\"complianceState\":\"NonCompliant\",\"category\":\"Policy\"}",
        "{\"time\":\"2026-11-22T09:00:00Z\",\"category\":\"Security\",\"level\":\"Error\",\"message\":\"logon failed\"}",
        "{\"time\":\"2026-11-22T09:00:00Z\",\"category\":\"Alert\",\"properties\":{\"a\":1}}",
        "{\"Timestamp\":\"2026-11-22T09:00:00Z\",\"AlertId\":\"a\",\"Title\":\"t\",\"Severity\":\"High\","
        "\"ServiceSource\":\"Microsoft Defender for Endpoint\",\"Category\":\"x\"}",
        "{\"@odata.type\":\"#microsoft.graph.security.incident\",\"id\":\"1\",\"title\":\"t\",\"severity\":\"high\",\"serviceSource\":\"x\"}",
        "{\"@odata.type\":\"#microsoft.graph.security.alertEvidence\",\"id\":\"1\"}",
    };

    for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++)
        EXPECT(records[i], "unknown", "kind=unknown");
    (void)state;
}

static void nothing_of_a_real_record_is_lost(void **state)
{
    static const char *const paths[] = {
        "samples/activity-log/docs2018-rest-administrative.json", "samples/activity-log/panther-policy-audit.json",
        "samples/activity-log/docs2018-rest-autoscale.json", "samples/activity-log/docs2018-rest-security.json",
        "samples/activity-log/mdc-security-alert-activated.json", "samples/activity-log/panther-role-assignment.json",
        "samples/defender/restspec-arm-alert.json", "samples/activity-log/docs2018-alert-webhook-servicehealth.json",
        "samples/activity-log/panther-elevateaccess-operationname-object.json",
    };

    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        struct buf file = file_read(paths[i]);
        struct json *json = json_new();
        struct parsed parsed = parse_bytes(file.data, file.size);
        struct pen_json root;
        const char *why;

        buf_reserve(&file, JSON_PADDING);
        assert_int_equal(json_parse(json, file.data, file.size, &root, &why), 0);
        assert_string_not_equal(parsed.parser, "unknown");
        check_nothing_lost(&root, &parsed, paths[i]);
        parsed_free(&parsed);
        json_free(json);
        buf_free(&file);
    }
    (void)state;
}

/* ---- The oddities of real data -------------------------------------------------------------------------------- */

static void pseudo_json_with_single_quotes_travels_as_text(void **state)
{
    EXPECT("{'time':'2026-11-22T09:00:00Z','category':'Administrative'}", "unknown", "kind=unknown",
           "RawText={'time':'2026-11-22T09:00:00Z','category':'Administrative'}", "!RawData");
    (void)state;
}

static void unquoted_content_travels_as_text(void **state)
{
    EXPECT("{\"a\":[ 218 B blob data ]}", "unknown", "RawText={\"a\":[ 218 B blob data ]}");
    EXPECT("{\"requestbody\":\"{\"Id\":\"x\"}\"}", "unknown", "RawText={\"requestbody\":\"{\"Id\":\"x\"}\"}");
    (void)state;
}

static void a_raw_line_break_in_a_string_is_refused_with_its_reason(void **state)
{
    struct parsed parsed = parse_text("{\"a\":\"x\ny\"}");

    assert_non_null(strstr(parsed.text.data, "Trouble=a string holds a raw control character or line break"));
    parsed_free(&parsed);
    (void)state;
}

static void numbers_beyond_64_bits_keep_their_digits(void **state)
{
    EXPECT("{\"SystemAlertId\":\"u\",\"n\":123456789012345678901234567890}", "unknown",
           "RawText={\"SystemAlertId\":\"u\",\"n\":123456789012345678901234567890}",
           "Trouble=a number is malformed or beyond 64 bits");
    EXPECT("{\"SystemAlertId\":\"u\",\"n\":18446744073709551615,\"TimeGenerated\":\"2026-11-22T09:00:00Z\"}", "defender-alert",
           "+n=18446744073709551615");
    (void)state;
}

static void keys_that_differ_in_case_are_both_kept(void **state)
{
    EXPECT("{\"SystemAlertId\":\"u\",\"severity\":\"Low\",\"Severity\":\"High\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\"}",
           "defender-alert", "EventSeverity=Low", "+Severity=High");
    (void)state;
}

static void repeated_keys_are_all_kept_and_the_first_counts(void **state)
{
    EXPECT("{\"SystemAlertId\":\"u\",\"Severity\":\"Low\",\"Severity\":\"High\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\"}",
           "defender-alert", "EventSeverity=Low", "+Severity=High");
    (void)state;
}

static void bytes_are_data(void **state)
{
    EXPECT("{\"SystemAlertId\":\"u\",\"Description\":\"a\xC2\xA0\xE2\x80\x93 \\u003cb\\u003e \\/ \",\"TimeGenerated\":\"2026-11-22T09:00:00Z\"}",
           "defender-alert", "AlertDescription=a\xC2\xA0\xE2\x80\x93 <b> / ");
    (void)state;
}

static void unknown_records_can_be_found_again(void **state)
{
    EXPECT("{\"timeStamp\":\"2026-11-22T09:00:00+00:00\",\"category\":\"ApplicationGatewayAccessLog\",\"resourceId\":\"/x\"}", "unknown",
           "TimeGenerated=2026-11-22T09:00:00Z", "Category=ApplicationGatewayAccessLog", "ResourceId=/x",
           "RawData={\"timeStamp\":\"2026-11-22T09:00:00+00:00\",\"category\":\"ApplicationGatewayAccessLog\",\"resourceId\":\"/x\"}");
    EXPECT("{\"time\":\"3/7/2018 2:23:51 PM\",\"category\":\"RiskyUsers\"}", "unknown", "TimeGenerated=2018-03-07T14:23:51Z");
    EXPECT("[1,2]", "unknown", "RawData=[1,2]");
    EXPECT("just a line", "unknown", "RawText=just a line");
    EXPECT("null", "unknown", "RawText=null");
    (void)state;
}

/* ---- Hostile input -------------------------------------------------------------------------------------------- */

static void survive(const char *data, size_t size)
{
    struct parsed parsed = parse_bytes(data, size);

    assert_true(parsed.events >= 1 || parsed.result == PEN_PARSED || parsed.result == PEN_MALFORMED);
    parsed_free(&parsed);
}

static void deep_nesting_is_survived(void **state)
{
    static const char *const heads[] = { "{\"category\":\"Administrative\",\"operationName\":\"A.B/c\",\"properties\":",
                                         "{\"SystemAlertId\":\"u\",\"Entities\":", "{\"category\":\"FlowLogFlowEvent\",\"flowRecords\":" };

    for (size_t i = 0; i < 3; i++) {
        for (int depth = 100; depth <= 100000; depth *= 10) {
            struct buf buf = { 0 };

            buf_text(&buf, "%s", heads[i]);
            for (int j = 0; j < depth; j++)
                BUF_LITERAL(&buf, "{\"a\":");
            buf_char(&buf, '1');
            for (int j = 0; j < depth; j++)
                buf_char(&buf, '}');
            buf_char(&buf, '}');
            survive(buf.data, buf.size);
            buf_free(&buf);
        }
    }
    (void)state;
}

static void long_texts_and_many_keys_are_survived(void **state)
{
    struct buf buf = { 0 };
    struct parsed parsed;

    BUF_LITERAL(&buf, "{\"SystemAlertId\":\"");
    for (int i = 0; i < 1 << 20; i++)
        buf_char(&buf, 'x');
    BUF_LITERAL(&buf, "\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\"");
    for (int i = 0; i < 5000; i++)
        buf_text(&buf, ",\"key%d\":%d", i, i);
    buf_char(&buf, '}');
    parsed = parse_bytes(buf.data, buf.size);
    assert_string_equal(parsed.parser, "defender-alert");
    assert_line(&parsed, "+key4999=4999");
    assert_true(parsed.text.size > 1 << 20);
    parsed_free(&parsed);
    buf_free(&buf);
    (void)state;
}

/* Members cost far more memory than their bytes: beyond a bound the record, or the part, travels whole. */
static void hundreds_of_thousands_of_keys_are_not_opened(void **state)
{
    static const char *const heads[] = { "{\"SystemAlertId\":\"u\"", "{\"category\":\"Administrative\",\"operationName\":\"A.B/c\"",
                                         "{\"category\":\"FlowLogFlowEvent\"", "{\"category\":\"NetworkSecurityGroupFlowEvent\"",
                                         "{\"time\":\"2026-11-22T09:00:00Z\"" };

    for (size_t i = 0; i < sizeof(heads) / sizeof(*heads); i++) {
        struct buf buf = { 0 };
        struct parsed parsed;

        buf_text(&buf, "%s", heads[i]);
        for (int j = 0; j < 200000; j++)
            BUF_LITERAL(&buf, ",\"k\":1");
        buf_char(&buf, '}');
        parsed = parse_bytes(buf.data, buf.size);
        assert_int_equal(parsed.events, 1);
        assert_line(&parsed, "kind=unknown");
        assert_true(parsed.text.size > buf.size);
        parsed_free(&parsed);
        buf_free(&buf);
    }
    (void)state;
}

static void invalid_utf8_and_nuls_travel_as_text(void **state)
{
    struct parsed parsed = parse_bytes("{\"SystemAlertId\":\"\xFF\0\"}", 21);

    assert_string_equal(parsed.parser, "unknown");
    assert_int_equal(parsed.events, 1);
    parsed_free(&parsed);
    (void)state;
}

/* Each member of a good record in turn becomes each kind of wrong value. */
static void any_member_may_be_of_any_type(void **state)
{
    static const char *const wrong[] = { "null", "true", "-1", "1e300", "\"\"", "\"x\"", "[]", "[null]", "{}", "{\"value\":{}}", "[[[\"\"]]]",
                                         "{\"a\":{\"b\":[]}}", "\"{\"", "\"[\\\"a\\\",1]\"", "\"{\\\"a\\\":1}\"" };
    static const char *const names[] = {
        "time", "resourceId", "operationName", "category", "resultType", "resultSignature", "durationMs", "callerIpAddress",
        "correlationId", "identity", "claims", "authorization", "evidence", "level", "location", "properties", "tenantId", "caller",
        "httpRequest", "status", "subStatus", "eventName", "systemAlertId", "severity", "intent", "techniques", "subTechniques",
        "entities", "extendedProperties", "remediationSteps", "resourceIdentifiers", "timeGenerated", "startTimeUtc",
        "confidenceScore", "vendorInformation", "flowRecords", "flows", "macAddress", "policies", "eventProperties", "entity",
    };
    static const char *const bases[] = {
        "\"eventDataId\":\"e\",\"eventTimestamp\":\"2026-11-22T09:00:00Z\"", "\"category\":\"Administrative\",\"operationName\":\"A.B/c\"",
        "\"SystemAlertId\":\"u\"", "\"category\":\"NetworkSecurityGroupFlowEvent\"", "\"category\":\"FlowLogFlowEvent\"",
        "\"type\":\"Microsoft.Security/Locations/alerts\"", "\"schemaId\":\"Microsoft.Insights/activityLogs\"", "\"category\":\"Security\"",
    };

    for (size_t base = 0; base < sizeof(bases) / sizeof(*bases); base++) {
        for (size_t name = 0; name < sizeof(names) / sizeof(*names); name++) {
            for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
                char record[1024];

                snprintf(record, sizeof(record), "{\"%s\":%s,%s}", names[name], wrong[i], bases[base]);
                survive(record, strlen(record));
                snprintf(record, sizeof(record), "{%s,\"properties\":{\"%s\":%s},\"identity\":{\"%s\":%s}}", bases[base],
                         names[name], wrong[i], names[name], wrong[i]);
                survive(record, strlen(record));
            }
        }
    }
    (void)state;
}

/* A record cut off at each byte, and one with each byte changed, from a fixed seed. */
static void damage_anywhere_is_survived(void **state)
{
    static const char *const paths[] = { "samples/activity-log/panther-policy-audit.json", "samples/defender/restspec-arm-alert.json",
                                         "samples/vnet-flow/docs-sample-v4.json" };
    uint32_t seed = 7;

    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        struct buf file = file_read(paths[i]);

        for (size_t cut = 0; cut < file.size; cut += 7)
            survive(file.data, cut);
        for (size_t at = 0; at < file.size; at += 5) {
            char old = file.data[at];

            seed = seed * 1664525 + 1013904223;
            file.data[at] = (char)(seed >> 24);
            survive(file.data, file.size);
            file.data[at] = old;
        }
        buf_free(&file);
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_records_go_to_their_parser),
        cmocka_unit_test(what_only_looks_like_ours_is_left_alone),
        cmocka_unit_test(nothing_of_a_real_record_is_lost),
        cmocka_unit_test(pseudo_json_with_single_quotes_travels_as_text),
        cmocka_unit_test(unquoted_content_travels_as_text),
        cmocka_unit_test(a_raw_line_break_in_a_string_is_refused_with_its_reason),
        cmocka_unit_test(numbers_beyond_64_bits_keep_their_digits),
        cmocka_unit_test(keys_that_differ_in_case_are_both_kept),
        cmocka_unit_test(repeated_keys_are_all_kept_and_the_first_counts),
        cmocka_unit_test(bytes_are_data),
        cmocka_unit_test(unknown_records_can_be_found_again),
        cmocka_unit_test(deep_nesting_is_survived),
        cmocka_unit_test(long_texts_and_many_keys_are_survived),
        cmocka_unit_test(hundreds_of_thousands_of_keys_are_not_opened),
        cmocka_unit_test(invalid_utf8_and_nuls_travel_as_text),
        cmocka_unit_test(any_member_may_be_of_any_type),
        cmocka_unit_test(damage_anywhere_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
