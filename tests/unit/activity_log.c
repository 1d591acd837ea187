/* activity-log: one mapping for every shape of the Activity Log, and a tolerance for each oddity that was met. */
#include "tests/unit/parsers.h"

#define P "activity-log"
#define ID "/SUBSCRIPTIONS/00000000-0000-0000-0000-00000000000A/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.COMPUTE/DISKS/D1"

/* An export record with these members besides time, operation and category. */
#define EXPORT(operation, rest) \
    "{\"time\":\"2026-11-22T09:00:01.2345670Z\",\"resourceId\":\"" ID "\",\"operationName\":\"" operation "\"," \
    "\"category\":\"Administrative\"" rest "}"

static void an_export_record_is_mapped(void **state)
{
    EXPECT(EXPORT("MICROSOFT.COMPUTE/DISKS/DELETE",
                  ",\"RoleLocation\":\"West Europe\",\"resultType\":\"Start\",\"resultSignature\":\"Started.\",\"durationMs\":\"0\","
                  "\"callerIpAddress\":\"192.0.2.7\",\"correlationId\":\"c1\",\"identity\":{\"authorization\":{\"scope\":\"/x\","
                  "\"evidence\":{\"role\":\"Owner\",\"principalType\":\"User\","
                  "\"principalId\":\"95fdefa0a7b847b969df046862c9a979\"}},\"claims\":{\"name\":\"A User\",\"appid\":\"a\"}},"
                  "\"level\":\"Information\",\"location\":\"global\",\"properties\":{\"eventCategory\":\"Administrative\","
                  "\"entity\":\"" ID "\",\"hierarchy\":\"t/mg/s\"},\"tenantId\":\"t1\""), P,
           "kind=audit", "EventVendor=Microsoft", "EventProduct=Azure", "EventCount=1", "EventType=Delete", "EventResult=NA",
           "EventOriginalResultDetails=Start", "ResultSignature=Started.", "EventSeverity=Informational", "DurationMs=0",
           "TimeGenerated=2026-11-22T09:00:01.2345670Z", "EventStartTime=2026-11-22T09:00:01.2345670Z",
           "EventEndTime=2026-11-22T09:00:01.2345670Z", "SrcIpAddr=192.0.2.7", "CorrelationId=c1", "Object=D1",
           "ObjectId=" ID, "ObjectType=Cloud Resource", "Operation=MICROSOFT.COMPUTE/DISKS/DELETE",
           "TargetAppName=MICROSOFT.COMPUTE", "TargetAppType=Service", "ActorUsername=A User", "ActorUsernameType=Simple",
           "ActorUserId=95fdefa0-a7b8-47b9-69df-046862c9a979", "ActorUserIdType=AADID", "ActorUserType=Regular",
           "ActingAppId=a", "AuthorizationRole=Owner", "SubscriptionId=00000000-0000-0000-0000-00000000000A",
           "ResourceGroup=RG", "ResourceProvider=MICROSOFT.COMPUTE", "ResourceType=MICROSOFT.COMPUTE/DISKS",
           "Location=global", "AzureTenantId=t1", "+RoleLocation=West Europe", "+hierarchy=t/mg/s", "!+entity=",
           "!+eventCategory=", "!DvcAction=");
    (void)state;
}

static void verbs_become_event_types(void **state)
{
    static const struct { const char *operation, *rest, *type; } cases[] = {
        { "A.B/c/write", ",\"resultSignature\":\"Succeeded.Created\"", "Create" },
        { "A.B/c/write", ",\"resultSignature\":\"201\"", "Create" },
        { "A.B/c/WRITE", ",\"resultSignature\":\"Succeeded.OK\"", "Set" },
        { "A.B/c/write", ",\"properties\":{\"statusCode\":\"Created\"}", "Create" },
        { "A.B/c/write", "", "Set" }, { "A.B/c/delete", "", "Delete" }, { "A.B/c/read", "", "Read" },
        { "A.B/c/listKeys/action", "", "Read" }, { "A.B/c/LISTACCOUNTSAS/ACTION", "", "Read" },
        { "A.B/c/start/action", "", "Start" }, { "A.B/c/powerOff/action", "", "Stop" },
        { "A.B/c/deallocate/action", "", "Stop" }, { "A.B/c/restart/action", "", "Execute" },
        { "A.B/c/runCommand/action", "", "Execute" }, { "A.B/c/regenerateKey/action", "", "Set" },
        { "A.B/elevateAccess/action", "", "Set" }, { "A.B/c/enable/action", "", "Enable" },
        { "A.B/c/disableX/action", "", "Disable" }, { "A.B/c/purge/action", "", "Delete" },
        { "A.B/c/odd", "", "Other" }, { "A.B/action", "", "Execute" }, { "A.B/c/", "", "Other" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char record[512], line[64];

        snprintf(record, sizeof(record), "{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"Administrative\",\"operationName\":\"%s\"%s}",
                 cases[i].operation, cases[i].rest);
        snprintf(line, sizeof(line), "EventType=%s", cases[i].type);
        EXPECT(record, P, line);
    }
    (void)state;
}

static void results_of_every_family_are_read(void **state)
{
    static const struct { const char *rest, *result; } cases[] = {
        { "\"resultType\":\"Success\"", "Success" }, { "\"resultType\":\"Succeeded\"", "Success" },
        { "\"resultType\":\"Failure\",\"resultSignature\":\"Failed.Conflict\"", "Failure" },
        { "\"resultType\":\"Failed\"", "Failure" }, { "\"resultType\":\"Accept\"", "NA" },
        { "\"resultType\":\"Accepted\"", "NA" }, { "\"resultType\":\"Started\"", "NA" },
        { "\"resultType\":\"In Progress\"", "NA" }, { "\"resultType\":\"Active\"", "NA" },
        { "\"resultType\":\"Resolved\"", "Success" }, { "\"resultType\":\"something new\"", "NA" },
        { "\"resultSignature\":\"Failed.Forbidden\"", "Failure" }, { "\"resultSignature\":\"200\"", "Success" },
        { "\"resultSignature\":403", "Failure" }, { "\"resultType\":\"\",\"resultSignature\":\"Succeeded.\"", "Success" },
        { "\"status\":{\"value\":\"Failed\",\"localizedValue\":\"Fehlgeschlagen\"}", "Failure" },
        { "\"status\":{\"value\":null},\"subStatus\":{\"value\":\"OK\"}", "Success" },
        { "\"status\":\"Succeeded\"", "Success" }, { "\"resultType\":null", "NA" }, { "\"resultType\":{\"x\":1}", "NA" },
        { "\"resultType\":[]", "NA" }, { "\"properties\":{\"statusCode\":\"BadRequest\"}", "Failure" },
        { "\"resultType\":\"PartiallySucceeded\"", "Partial" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char record[512], line[64];

        snprintf(record, sizeof(record), "{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"Administrative\",\"operationName\":\"A.B/c/write\",%s}",
                 cases[i].rest);
        snprintf(line, sizeof(line), "EventResult=%s", cases[i].result);
        EXPECT(record, P, line);
    }
    EXPECT(EXPORT("A.B/c/write", ",\"resultType\":\"Failure\",\"resultSignature\":\"Failed.Forbidden\",\"resultDescription\":\"no\""),
           P, "HttpStatusCode=403", "DvcAction=Deny", "EventResultDetails=Forbidden", "EventMessage=no", "ResultDescription=no");
    /* what the properties say in other words is said once; what contradicts is kept */
    EXPECT(EXPORT("A.B/c/write", ",\"resultSignature\":\"Failed.Conflict\",\"properties\":{\"statusCode\":\"409\"}"),
           P, "HttpStatusCode=409", "EventResultDetails=Conflict", "!+statusCode");
    EXPECT(EXPORT("A.B/c/write", ",\"resultSignature\":\"Succeeded.OK\",\"properties\":{\"statusCode\":\"Forbidden\"}"),
           P, "HttpStatusCode=200", "EventResultDetails=OK", "+statusCode=Forbidden");
    (void)state;
}

static void levels_are_words_or_numbers_in_either_case_of_key(void **state)
{
    static const struct { const char *level, *severity; } cases[] = {
        { "\"level\":\"Critical\"", "High" }, { "\"level\":\"Error\"", "Medium" }, { "\"level\":\"Warning\"", "Low" },
        { "\"Level\":4", "Informational" }, { "\"Level\":\"2\"", "Medium" }, { "\"LEVEL\":\"warning\"", "Low" },
        { "\"level\":null", "Informational" }, { "\"level\":\"strange\"", "Informational" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char record[512], line[64];

        snprintf(record, sizeof(record), "{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"Policy\",\"operationName\":\"A.B/c/action\",%s}",
                 cases[i].level);
        snprintf(line, sizeof(line), "EventSeverity=%s", cases[i].severity);
        EXPECT(record, P, line, "EventType=Other");
    }
    (void)state;
}

/* Relays and stores make counts of dates; by the digits it is told what they count. */
static void times_may_be_counts(void **state)
{
    static const struct { const char *time, *line; } cases[] = {
        { "1795338001", "TimeGenerated=2026-11-22T09:00:01Z" }, { "\"1795338001\"", "EventStartTime=2026-11-22T09:00:01Z" },
        { "1795338001234", "TimeGenerated=2026-11-22T09:00:01.234Z" }, { "\"1795338001234\"", "!+time" },
        { "179533800", "+time=179533800" }, { "\"17953380012\"", "+time=17953380012" },
        { "1795338001.5", "+time=1795338001.5" }, { "-179533800", "+time=-179533800" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char record[512];

        snprintf(record, sizeof(record), "{\"time\":%s,\"category\":\"Administrative\",\"operationName\":\"A.B/c/write\"}",
                 cases[i].time);
        EXPECT(record, P, cases[i].line);
    }
    EXPECT("{\"eventTimestamp\":1795338001234,\"operationName\":{\"value\":\"A.B/c/write\"},\"eventDataId\":\"e\"}", P,
           "TimeGenerated=2026-11-22T09:00:01.234Z", "!+eventTimestamp");
    (void)state;
}

static void text_in_text_is_opened(void **state)
{
    EXPECT(EXPORT("A.B/c/write", ",\"properties\":\"\\\"{\\\\\\\"statusCode\\\\\\\":\\\\\\\"Created\\\\\\\"}\\\"\""), P,
           "HttpStatusCode=201", "EventType=Create", "!+properties");
    EXPECT(EXPORT("A.B/c/write", ",\"identity\":\"\\\"just a name\\\"\""), P, "+identity=\"just a name\"", "!ActorUsername");
    (void)state;
}

static void rest_sdk_and_export_give_the_same_event(void **state)
{
    static const char *const shapes[] = {
        "{\"eventTimestamp\":\"2026-11-22T09:00:01Z\",\"operationName\":{\"value\":\"A.B/c/write\",\"localizedValue\":\"Write c\"},"
        "\"category\":{\"value\":\"Administrative\"},\"status\":{\"value\":\"Succeeded\"},\"subStatus\":{\"value\":\"Created\"},"
        "\"caller\":\"u@x.org\",\"resourceId\":\"/subscriptions/s/resourceGroups/g/providers/A.B/c/n\",\"level\":\"Warning\","
        "\"httpRequest\":{\"clientIpAddress\":\"2001:db8::1\",\"method\":\"PUT\"},\"submissionTimestamp\":\"2026-11-22T09:01:00Z\"}",
        "{\"event_timestamp\":\"2026-11-22T09:00:01Z\",\"operation_name\":{\"value\":\"A.B/c/write\",\"localized_value\":\"Write c\"},"
        "\"category\":{\"value\":\"Administrative\"},\"status\":{\"value\":\"Succeeded\"},\"sub_status\":{\"value\":\"Created\"},"
        "\"caller\":\"u@x.org\",\"resource_id\":\"/subscriptions/s/resourceGroups/g/providers/A.B/c/n\",\"level\":\"Warning\","
        "\"http_request\":{\"client_ip_address\":\"2001:db8::1\",\"method\":\"PUT\"},\"submission_timestamp\":\"2026-11-22T09:01:00Z\"}",
        "{\"schemaId\":\"Microsoft.Insights/activityLogs\",\"data\":{\"status\":\"Activated\",\"context\":{\"activityLog\":{"
        "\"eventTimestamp\":\"2026-11-22T09:00:01Z\",\"operationName\":\"A.B/c/write\",\"eventSource\":\"Administrative\","
        "\"status\":\"Succeeded\",\"subStatus\":\"Created\",\"caller\":\"u@x.org\",\"level\":\"Warning\","
        "\"resourceId\":\"/subscriptions/s/resourceGroups/g/providers/A.B/c/n\",\"submissionTimestamp\":\"2026-11-22T09:01:00Z\","
        "\"httpRequest\":\"{\\\"clientIpAddress\\\":\\\"2001:db8::1\\\",\\\"method\\\":\\\"PUT\\\"}\"}}}}",
    };

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        EXPECT(shapes[i], P, "TimeGenerated=2026-11-22T09:00:01Z", "LogTime=2026-11-22T09:01:00Z", "EventType=Create",
               "EventResult=Success", "ActorUsername=u@x.org", "ActorUsernameType=UPN", "SrcIpAddr=2001:db8::1", "+method=PUT",
               "Category=Administrative", "EventSeverity=Low", "SubscriptionId=s", "ResourceGroup=g", "Object=n",
               "ResourceType=A.B/c", "Operation=A.B/c/write", "HttpStatusCode=201");
    EXPECT(shapes[0], P, "+operationName.localizedValue=Write c");
    EXPECT(shapes[2], P, "+status=Activated");
    (void)state;
}

static void what_the_platform_reports_was_allowed_by_nobody(void **state)
{
    EXPECT("{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"ResourceHealth\",\"resultType\":\"Resolved\","
           "\"operationName\":\"Microsoft.Resourcehealth/healthevent/Resolved/action\"}", P, "EventType=Other", "EventResult=Success",
           "!DvcAction");
    (void)state;
}

static void a_row_of_log_analytics_is_one_too(void **state)
{
    EXPECT("{\"TenantId\":\"w\",\"Type\":\"AzureActivity\",\"TimeGenerated\":\"2026-11-22T09:00:01Z\",\"Level\":\"Error\","
           "\"OperationName\":\"Create c\",\"OperationNameValue\":\"A.B/c/write\",\"CategoryValue\":\"Administrative\","
           "\"ActivityStatusValue\":\"Failure\",\"ActivitySubstatusValue\":\"Conflict\",\"Caller\":\"u@x.org\","
           "\"CallerIpAddress\":\"192.0.2.7\",\"ResourceGroup\":\"rg\",\"EventDataId\":\"e\",\"Claims\":\"{\\\"oid\\\":\\\"o\\\"}\","
           "\"_ResourceId\":\"/subscriptions/s/resourcegroups/rg/providers/A.B/c/n\",\"EventSubmissionTimestamp\":\"2026-11-22T09:01:00Z\"}",
           P, "TimeGenerated=2026-11-22T09:00:01Z", "LogTime=2026-11-22T09:01:00Z", "Operation=A.B/c/write", "EventType=Set",
           "EventResult=Failure", "HttpStatusCode=409", "Category=Administrative", "ActorUsername=u@x.org", "SrcIpAddr=192.0.2.7",
           "Object=n", "ResourceGroup=rg", "EventSeverity=Medium", "+TenantId=w", "+OperationName=Create c", "!AzureTenantId");
    EXPECT("{\"Type\":\"AzureActivity\",\"TimeGenerated\":\"2026-11-22T09:00:01Z\",\"OperationNameValue\":\"Microsoft.Security/locations/"
           "alerts/activate/action\",\"CategoryValue\":\"Security\",\"ActivityStatusValue\":\"Active\",\"Properties\":"
           "\"{\\\"severity\\\":\\\"High\\\"}\"}", "defender-alert", "EventSeverity=High", "AlertStatus=Active", "Category=Security");
    EXPECT("{\"eventTimestamp\":\"2026-11-22T09:00:01Z\",\"eventDataId\":\"e\",\"authorization\":{\"action\":\"A.B/c/delete\"}}", P,
           "Operation=A.B/c/delete", "EventType=Delete");
    (void)state;
}

static void the_halves_of_a_pair_may_be_null(void **state)
{
    EXPECT("{\"eventDataId\":\"e\",\"eventTimestamp\":\"2026-11-22T09:00:01Z\",\"operationName\":{\"value\":null,\"localizedValue\":\"Write\"},"
           "\"category\":{\"value\":\"Administrative\",\"localizedValue\":null},\"status\":{\"value\":null,\"localizedValue\":null},"
           "\"subStatus\":{},\"eventName\":null}", P, "Operation=Write", "Category=Administrative", "EventResult=NA",
           "!EventOriginalSubType=", "Object=Azure");
    EXPECT("{\"eventDataId\":\"e\",\"eventTimestamp\":\"2026-11-22T09:00:01Z\",\"operationName\":{\"value\":\"A.B/c/write\"},"
           "\"status\":{\"value\":\"Failed\"},\"subStatus\":{\"value\":\"\",\"localizedValue\":\"Conflict (HTTP Status Code: 409)\"},"
           "\"eventName\":{\"value\":\"\",\"localizedValue\":\"\"}}", P, "HttpStatusCode=409", "EventResult=Failure",
           "EventResultDetails=Conflict (HTTP Status Code: 409)", "!EventOriginalSubType=");
    (void)state;
}

static void properties_of_any_kind_fail_nothing(void **state)
{
    EXPECT(EXPORT("A.B/c/write", ",\"properties\":null"), P, "!+properties");
    EXPECT(EXPORT("A.B/c/write", ",\"properties\":\"{\\\"statusCode\\\":\\\"OK\\\",\\\"x\\\":\\\"y\\\"}\""), P, "HttpStatusCode=200", "+x=y");
    EXPECT(EXPORT("A.B/c/write", ",\"properties\":\"free text\""), P, "+properties=free text");
    EXPECT(EXPORT("A.B/c/write", ",\"properties\":\"{'single':'quoted'}\""), P, "+properties={'single':'quoted'}");
    EXPECT(EXPORT("A.B/c/write", ",\"properties\":[1,2]"), P, "+properties=[1,2]");
    EXPECT(EXPORT("A.B/c/write", ",\"properties\":7"), P, "+properties=7");
    EXPECT(EXPORT("A.B/c/write", ",\"properties\":{\"flag\":\"True\",\"real\":true,\"errorInfo\":\"a\",\"ErrorInfo\":\"b\",\"eventCategory\":\"Policy\"}"),
           P, "+flag=True", "+real=true", "+errorInfo=a", "+ErrorInfo=b", "+eventCategory=Policy", "Category=Administrative");
    EXPECT(EXPORT("A.B/c/write", ",\"properties\":{\"requestbody\":\"{\\\"Id\\\":1}\",\"responseBody\":{\"a\":1}}"), P,
           "+requestbody={\"Id\":1}", "+responseBody={\"a\":1}");
    (void)state;
}

/* Health events come with their properties flat or nested, sometimes nested as JSON text. */
static void nested_properties_are_as_good_as_flat_ones(void **state)
{
    static const char *const shapes[] = {
        EXPORT("A.B/c/action", ",\"properties\":{\"title\":\"T\",\"stage\":\"Active\",\"policies\":[{\"policyDefinitionName\":\"p\"}]}"),
        EXPORT("A.B/c/action", ",\"properties\":{\"eventProperties\":{\"title\":\"T\",\"stage\":\"Active\","
                               "\"policies\":[{\"policyDefinitionName\":\"p\"}]}}"),
        EXPORT("A.B/c/action", ",\"properties\":{\"eventProperties\":\"{\\\"title\\\":\\\"T\\\",\\\"stage\\\":\\\"Active\\\","
                               "\\\"policies\\\":[{\\\"policyDefinitionName\\\":\\\"p\\\"}]}\"}"),
    };

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        EXPECT(shapes[i], P, "EventMessage=T", "+stage=Active", "RuleName=p", "!+eventProperties", "!+title");
    EXPECT(EXPORT("A.B/c/action", ",\"properties\":{\"stage\":\"outer\",\"eventProperties\":{\"stage\":\"inner\"}}"), P,
           "+stage=outer", "+stage=inner");
    EXPECT(EXPORT("A.B/c/action", ",\"properties\":{\"eventProperties\":\"none\"}"), P, "+eventProperties=none");
    (void)state;
}

static void identity_of_any_kind_fails_nothing(void **state)
{
    EXPECT(EXPORT("A.B/c/write", ",\"identity\":null"), P, "!ActorUsername");
    EXPECT(EXPORT("A.B/c/write", ",\"identity\":\"A Name\""), P, "+identity=A Name");
    EXPECT(EXPORT("A.B/c/write", ",\"identity\":\"{\\\"claims\\\":{\\\"upn\\\":\\\" u@x.org\\\"},\\\"more\\\":1}\""), P,
           "ActorUsername=u@x.org", "+more=1");
    EXPECT(EXPORT("A.B/c/write", ",\"claims\":\" {\\\"upn\\\":\\\"u@x.org\\\"}\""), P, "ActorUsername=u@x.org",
           "+claims={\"upn\":\"u@x.org\"}");
    EXPECT(EXPORT("A.B/c/write", ",\"identity\":{\"authorization\":[{\"action\":\"a\"}],\"claims\":\"odd\"}"), P,
           "+authorization=[{\"action\":\"a\"}]", "+claims=odd");
    EXPECT(EXPORT("A.B/c/write", ",\"identity\":{\"claims\":{\"idtyp\":\"app\",\"appid\":\"12345678-9abc-4ef0-8123-456789abcdef\","
                  "\"http://schemas.microsoft.com/identity/claims/objectidentifier\":\"12345678-9abc-4ef0-8123-456789abcde0\"}}"),
           P, "ActorUserType=Application", "ActorUsername=12345678-9abc-4ef0-8123-456789abcdef", "ActorUsernameType=Simple",
           "ActorUserId=12345678-9abc-4ef0-8123-456789abcde0", "ActorUserIdType=AADID");
    (void)state;
}

static void addresses_are_typed_only_when_they_are_some(void **state)
{
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"192.0.2.1:443\""), P, "SrcIpAddr=192.0.2.1", "SrcPortNumber=443");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"[2001:db8::1]:443\""), P, "SrcIpAddr=2001:db8::1", "SrcPortNumber=443");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"[2001:db8::1]\""), P, "SrcIpAddr=2001:db8::1", "!SrcPortNumber");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"[]\""), P, "+callerIpAddress=[]", "!SrcIpAddr");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"0.0.0.0\""), P, "SrcIpAddr=0.0.0.0");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"X.X.X.X\""), P, "+callerIpAddress=X.X.X.X", "!SrcIpAddr");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"<null>\""), P, "+callerIpAddress=<null>", "!SrcIpAddr");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"10.0.0.0/8\""), P, "+callerIpAddress=10.0.0.0/8", "!SrcIpAddr");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"192.0.2.1:99999\""), P, "+callerIpAddress=192.0.2.1:99999", "!SrcIpAddr");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":\"\""), P, "!+callerIpAddress", "!SrcIpAddr");
    EXPECT(EXPORT("A.B/c/write", ",\"callerIpAddress\":{\"a\":1}"), P, "+callerIpAddress={\"a\":1}", "!SrcIpAddr");
    (void)state;
}

static void resource_ids_of_any_form_are_split(void **state)
{
#define WITH_ID(id) "{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"Administrative\",\"operationName\":\"A.B/c/write\",\"resourceId\":" id "}"
    EXPECT(WITH_ID("\"/SUBSCRIPTIONS/S/resourcegroups/g/providers/A.B/c/n/providers/Microsoft.Authorization/locks/L\""), P,
           "SubscriptionId=S", "ResourceGroup=g", "ResourceProvider=Microsoft.Authorization",
           "ResourceType=Microsoft.Authorization/locks", "Object=L");
    EXPECT(WITH_ID("\"/subscriptions/s\""), P, "SubscriptionId=s", "Object=s", "!ResourceProvider=");
    EXPECT(WITH_ID("\"/providers/Microsoft.Authorization\""), P, "ResourceProvider=Microsoft.Authorization", "!SubscriptionId=");
    EXPECT(WITH_ID("\"/providers/Microsoft.Management/managementGroups/mg\""), P, "Object=mg");
    EXPECT(WITH_ID("\"/subscriptions/s/resourceGroups/g/providers/A.B/sites/n/config/web\""), P, "ResourceType=A.B/sites/config",
           "Object=web");
    EXPECT(WITH_ID("\"//subscriptions//s/resourceGroups/\""), P, "SubscriptionId=s");
    EXPECT(WITH_ID("\"///\""), P, "Object=///");
    EXPECT(WITH_ID("\"{subscriptionId}\""), P, "ResourceId={subscriptionId}");
    EXPECT(WITH_ID("null"), P, "Object=Azure");
    EXPECT(WITH_ID("7"), P, "ResourceId=7");
    (void)state;
}

static void a_time_that_cannot_be_read_costs_the_time_only(void **state)
{
    struct parsed parsed = parse_text("{\"time\":\"soon\",\"category\":\"Administrative\",\"operationName\":\"A.B/c/write\"}");

    assert_int_equal(parsed.result, PEN_PARTLY);
    assert_line(&parsed, "+time=soon");
    assert_line(&parsed, "EventStartTime=2026-09-21T14:13:20Z");
    assert_no_line(&parsed, "TimeGenerated=");
    parsed_free(&parsed);
    (void)state;
}

static void numbers_and_texts_stand_for_each_other(void **state)
{
    EXPECT(EXPORT("A.B/c/write", ",\"durationMs\":2826"), P, "DurationMs=2826");
    EXPECT(EXPORT("A.B/c/write", ",\"durationMs\":\"78\""), P, "DurationMs=78");
    EXPECT(EXPORT("A.B/c/write", ",\"durationMs\":\"long\""), P, "+durationMs=long", "!DurationMs");
    EXPECT(EXPORT("A.B/c/write", ",\"correlationId\":12"), P, "CorrelationId=12");
    EXPECT(EXPORT("A.B/c/write", ",\"correlationId\":{\"a\":1}"), P, "+correlationId={\"a\":1}");
    (void)state;
}

static void a_denying_policy_is_named(void **state)
{
    EXPECT("{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"Policy\",\"operationName\":\"MICROSOFT.AUTHORIZATION/POLICIES/DENY/ACTION\","
           "\"resultType\":\"Failure\",\"level\":\"Error\",\"properties\":{\"policies\":\"[{\\\"policyDefinitionName\\\":\\\"deny-public-ip\\\"}]\"}}",
           P, "RuleName=deny-public-ip", "DvcAction=Deny", "EventResult=Failure", "EventSeverity=Medium");
    EXPECT("{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"Policy\",\"operationName\":\"A.B/POLICIES/audit/ACTION\","
           "\"properties\":{\"policies\":\"[broken\"}}", P, "+policies=[broken", "!RuleName=");
    (void)state;
}

static void resource_logs_are_left_alone(void **state)
{
    EXPECT("{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"kube-audit\",\"operationName\":\"Microsoft.ContainerService/managedClusters/diagnosticLogs/Read\"}",
           "unknown", "Category=kube-audit");
    EXPECT("{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"AuditEvent\",\"operationName\":\"VaultGet\"}", "unknown", "kind=unknown");
    EXPECT("{\"time\":\"2026-11-22T09:00:01Z\",\"category\":\"Policy\",\"operationName\":\"Update policy\"}", "unknown", "kind=unknown");
    EXPECT("{\"time\":\"2026-11-22T09:00:01Z\",\"operationName\":\"A.B/c/write\",\"identity\":{\"authorization\":[{}]}}", "unknown", "kind=unknown");
    EXPECT("{\"time\":\"2026-11-22T09:00:01Z\",\"operationName\":\"A.B/c/write\",\"identity\":{\"authorization\":{\"action\":\"x\"}}}", P, "kind=audit");
    EXPECT("{\"time\":\"2026-11-22T09:00:01Z\",\"operationName\":\"A.B/c/write\",\"properties\":{\"eventCategory\":\"Administrative\"}}", P, "kind=audit");
    EXPECT("{\"schemaId\":\"Microsoft.Insights/activityLogs\",\"data\":null}", "unknown", "kind=unknown");
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_export_record_is_mapped),
        cmocka_unit_test(verbs_become_event_types),
        cmocka_unit_test(results_of_every_family_are_read),
        cmocka_unit_test(levels_are_words_or_numbers_in_either_case_of_key),
        cmocka_unit_test(times_may_be_counts),
        cmocka_unit_test(text_in_text_is_opened),
        cmocka_unit_test(rest_sdk_and_export_give_the_same_event),
        cmocka_unit_test(what_the_platform_reports_was_allowed_by_nobody),
        cmocka_unit_test(a_row_of_log_analytics_is_one_too),
        cmocka_unit_test(the_halves_of_a_pair_may_be_null),
        cmocka_unit_test(properties_of_any_kind_fail_nothing),
        cmocka_unit_test(nested_properties_are_as_good_as_flat_ones),
        cmocka_unit_test(identity_of_any_kind_fails_nothing),
        cmocka_unit_test(addresses_are_typed_only_when_they_are_some),
        cmocka_unit_test(resource_ids_of_any_form_are_split),
        cmocka_unit_test(a_time_that_cannot_be_read_costs_the_time_only),
        cmocka_unit_test(numbers_and_texts_stand_for_each_other),
        cmocka_unit_test(a_denying_policy_is_named),
        cmocka_unit_test(resource_logs_are_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
