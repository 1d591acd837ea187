/* defender-alert: one alert in its several shapes gives one event. */
#include "tests/unit/parsers.h"

#define P "defender-alert"
#define VM "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm1"

static void every_shape_gives_the_same_alert(void **state)
{
    static const char *const shapes[] = {
        /* ARM REST */
        "{\"id\":\"/subscriptions/s/providers/Microsoft.Security/locations/x/alerts/u1\",\"name\":\"u1\","
        "\"type\":\"Microsoft.Security/Locations/alerts\",\"properties\":{\"systemAlertId\":\"u1\",\"alertType\":\"VM_X\","
        "\"alertDisplayName\":\"Suspicious process\",\"description\":\"text\",\"severity\":\"High\",\"status\":\"Active\","
        "\"intent\":\"Execution\",\"startTimeUtc\":\"2026-11-22T09:00:00Z\",\"endTimeUtc\":\"2026-11-22T09:01:00Z\","
        "\"timeGeneratedUtc\":\"2026-11-22T09:02:00Z\",\"processingEndTimeUtc\":\"2026-11-22T09:03:00Z\","
        "\"compromisedEntity\":\"vm1\",\"resourceIdentifiers\":[{\"type\":\"LogAnalytics\",\"workspaceId\":\"w\"},"
        "{\"type\":\"AzureResource\",\"azureResourceId\":\"" VM "\"}],\"remediationSteps\":[\"one\",\"two\"],\"vendorName\":\"Microsoft\","
        "\"productName\":\"Microsoft Defender for Cloud\",\"alertUri\":\"https://x\",\"extendedProperties\":{\"Process Path\":\"c\"},"
        "\"entities\":[{\"type\":\"ip\",\"address\":\"192.0.2.1\"}]}}",
        /* continuous export */
        "{\"SystemAlertId\":\"u1\",\"AlertType\":\"VM_X\",\"AlertDisplayName\":\"Suspicious process\",\"Description\":\"text\","
        "\"Severity\":\"High\",\"Status\":\"New\",\"Intent\":\"Execution\",\"StartTimeUtc\":\"2026-11-22T09:00:00Z\","
        "\"EndTimeUtc\":\"2026-11-22T09:01:00Z\",\"TimeGenerated\":\"2026-11-22T09:02:00Z\",\"ProcessingEndTime\":\"2026-11-22T09:03:00Z\","
        "\"CompromisedEntity\":\"vm1\",\"AzureResourceId\":\"" VM "\",\"RemediationSteps\":[\"one\",\"two\"],\"VendorName\":\"Microsoft\","
        "\"ProductName\":\"Microsoft Defender for Cloud\",\"AlertUri\":\"https://x\",\"ExtendedProperties\":{\"Process Path\":\"c\"},"
        "\"ExtendedLinks\":null,\"Entities\":[{\"Type\":\"ip\",\"Address\":\"192.0.2.1\"}]}",
        /* a row of Log Analytics */
        "{\"Type\":\"SecurityAlert\",\"SystemAlertId\":\"u1\",\"AlertType\":\"VM_X\",\"DisplayName\":\"Suspicious process\","
        "\"AlertName\":\"Suspicious process\",\"Description\":\"text\",\"AlertSeverity\":\"High\",\"Status\":\"InProgress\","
        "\"Tactics\":\"Execution\",\"StartTime\":\"2026-11-22T09:00:00Z\",\"EndTime\":\"2026-11-22T09:01:00Z\","
        "\"TimeGenerated\":\"2026-11-22T09:02:00Z\",\"ProcessingEndTime\":\"2026-11-22T09:03:00Z\",\"CompromisedEntity\":\"vm1\","
        "\"ResourceId\":\"" VM "\",\"RemediationSteps\":\"[\\\"one\\\",\\\"two\\\"]\",\"VendorName\":\"Microsoft\",\"ProductName\":"
        "\"Microsoft Defender for Cloud\",\"AlertLink\":\"https://x\",\"ExtendedProperties\":\"{\\\"Process Path\\\":\\\"c\\\"}\","
        "\"Entities\":\"[{\\\"Type\\\":\\\"ip\\\",\\\"Address\\\":\\\"192.0.2.1\\\"}]\"}",
    };

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        EXPECT(shapes[i], P, "kind=alert", "EventType=Alert", "EventVendor=Microsoft", "EventCount=1",
               "EventProduct=Microsoft Defender for Cloud", "EventUid=u1", "AlertId=u1", "EventOriginalType=VM_X",
               "AlertName=Suspicious process", "AlertDescription=text", "EventSeverity=High", "EventOriginalSeverity=High",
               "AlertStatus=Active", "AttackTactics=Execution", "EventStartTime=2026-11-22T09:00:00Z",
               "EventEndTime=2026-11-22T09:01:00Z", "TimeGenerated=2026-11-22T09:02:00Z", "ProcessingEndTime=2026-11-22T09:03:00Z",
               "CompromisedEntity=vm1", "DvcId=" VM, "DvcIdType=AzureResourceId", "DvcHostname=vm1", "ResourceId=" VM,
               "SubscriptionId=s", "ResourceGroup=g", "AttackRemediationSteps=one", "EventReportUrl=https://x",
               "EventSubType=Suspicious Activity", "IndicatorType=Ip", "!+vendorName", "!+VendorName");
    EXPECT(shapes[0], P, "+extendedProperties={\"Process Path\":\"c\"}", "Entities=[{\"type\":\"ip\",\"address\":\"192.0.2.1\"}]", "!+name=");
    EXPECT(shapes[2], P, "+extendedProperties={\"Process Path\":\"c\"}", "Entities=[{\"Type\":\"ip\",\"Address\":\"192.0.2.1\"}]");
    (void)state;
}

static void an_activity_record_of_category_security_is_an_alert(void **state)
{
    static const char *const shapes[] = {
        "{\"eventTimestamp\":\"2026-11-22T09:00:00Z\",\"eventDataId\":\"u1\",\"category\":{\"value\":\"Security\"},"
        "\"operationName\":{\"value\":\"Microsoft.Security/locations/alerts/activate/action\"},\"eventName\":{\"value\":\"Title\"},"
        "\"status\":{\"value\":\"Active\"},\"level\":\"Informational\",\"resourceId\":\"/subscriptions/s/providers/Microsoft.Security/locations/l/alerts/a\","
        "\"properties\":{\"severity\":\"Low\",\"compromisedEntity\":\"e\",\"intent\":\"[\\\"Persistence\\\",\\\"Impact\\\"]\","
        "\"remediationSteps\":\"[\\\"do\\\"]\"}}",
        "{\"time\":\"2026-11-22T09:00:00Z\",\"correlationId\":\"u1\",\"category\":\"Security\",\"resultType\":\"Active\","
        "\"operationName\":\"Microsoft.Security/locations/alerts/activate/action\",\"properties\":{\"eventCategory\":\"Security\","
        "\"eventName\":\"Title\",\"Severity\":\"Low\",\"compromisedEntity\":\"e\",\"intent\":\"Persistence, Impact\",\"remediationSteps\":\"do\"}}",
        /* Newer exports nest what says something. */
        "{\"time\":\"2026-11-22T09:00:00Z\",\"correlationId\":\"u1\",\"category\":\"Security\",\"resultType\":\"Active\","
        "\"operationName\":\"Microsoft.Security/locations/alerts/activate/action\",\"properties\":{\"eventCategory\":\"Security\","
        "\"eventName\":\"Title\",\"eventProperties\":{\"severity\":\"Low\",\"compromisedEntity\":\"e\","
        "\"intent\":\"[\\\"Persistence\\\",\\\"Impact\\\"]\",\"remediationSteps\":\"[\\\"do\\\"]\"}}}",
    };

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        EXPECT(shapes[i], P, "kind=alert", "EventUid=u1", "AlertName=Title", "EventSeverity=Low", "AttackTactics=Persistence, Impact",
               "AttackRemediationSteps=do", "CompromisedEntity=e", "AlertStatus=Active", "AlertOriginalStatus=Active",
               "EventProduct=Microsoft Defender for Cloud", "TimeGenerated=2026-11-22T09:00:00Z", "Category=Security");
    EXPECT("{\"eventTimestamp\":\"2026-11-22T09:00:00Z\",\"eventDataId\":\"u1\",\"category\":{\"value\":\"Security\"},"
           "\"operationName\":{\"value\":\"Microsoft.Security/locations/alerts/dismiss/action\"},\"status\":{\"value\":\"Active\"}}", P,
           "AlertStatus=Closed", "AlertOriginalStatus=Active");
    EXPECT("{\"schemaId\":\"Microsoft.Insights/activityLogs\",\"data\":{\"status\":\"Activated\",\"context\":{\"activityLog\":{"
           "\"eventTimestamp\":\"2026-11-22T09:00:00Z\",\"eventDataId\":\"u1\",\"eventSource\":\"Security\",\"status\":\"Active\","
           "\"properties\":{\"severity\":\"High\"}}}}}", P, "EventUid=u1", "EventSeverity=High", "AlertOriginalStatus=Active",
           "+schemaId=Microsoft.Insights/activityLogs", "+status=Activated");
    (void)state;
}

static void times_may_be_counts(void **state)
{
    EXPECT("{\"VendorName\":\"Microsoft\",\"AlertType\":\"X\",\"SystemAlertId\":\"i\",\"StartTimeUtc\":1795338001,"
           "\"EndTimeUtc\":\"1795338002500\",\"TimeGenerated\":1795338003000}", P, "EventStartTime=2026-11-22T09:00:01Z",
           "EventEndTime=2026-11-22T09:00:02.500Z", "TimeGenerated=2026-11-22T09:00:03Z", "!+StartTimeUtc");
    (void)state;
}

static void graph_alerts_are_mapped(void **state)
{
    EXPECT("{\"@odata.type\":\"#microsoft.graph.security.alert\",\"id\":\"g1\",\"providerAlertId\":\"p1\",\"status\":\"inProgress\","
           "\"severity\":\"medium\",\"classification\":\"truePositive\",\"serviceSource\":\"microsoftDefenderForCloud\","
           "\"detectionSource\":\"microsoftDefenderForServers\",\"productName\":\"Microsoft Defender for Cloud\",\"title\":\"T\","
           "\"description\":\"D\",\"recommendedActions\":\"R\",\"category\":\"Execution\",\"mitreTechniques\":[\"T1059\"],"
           "\"createdDateTime\":\"2026-11-22T09:02:00Z\",\"lastUpdateDateTime\":\"2026-11-22T09:03:00Z\",\"alertWebUrl\":\"https://x\","
           "\"firstActivityDateTime\":\"2026-11-22T09:00:00Z\",\"lastActivityDateTime\":\"2026-11-22T09:01:00Z\","
           "\"evidence\":[{\"@odata.type\":\"#microsoft.graph.security.azureResourceEvidence\",\"resourceId\":\"" VM "\"}],\"tenantId\":\"t\"}",
           P, "EventUid=g1", "AlertName=T", "AlertDescription=D", "EventSeverity=Medium", "AlertStatus=Active", "AlertVerdict=True Positive",
           "AttackTactics=Execution", "AttackTechniques=T1059", "AttackRemediationSteps=R", "DvcId=" VM, "AzureTenantId=t",
           "EventStartTime=2026-11-22T09:00:00Z", "TimeGenerated=2026-11-22T09:02:00Z", "ProductComponentName=microsoftDefenderForServers",
           "+providerAlertId=p1", "+serviceSource=microsoftDefenderForCloud");
    EXPECT("{\"id\":\"o1\",\"title\":\"T\",\"severity\":\"high\",\"status\":\"newAlert\",\"eventDateTime\":\"2026-11-22T09:00:00Z\","
           "\"azureSubscriptionId\":\"s\",\"vendorInformation\":{\"provider\":\"ASC\",\"vendor\":\"Microsoft\"}}", P, "EventUid=o1",
           "EventProduct=ASC", "SubscriptionId=s", "AlertStatus=Active", "EventSeverity=High");
    /* What the older alerts call a category is no tactic, and their id is no resource's. */
    EXPECT("{\"id\":\"o1\",\"title\":\"T\",\"severity\":\"high\",\"eventDateTime\":\"2026-11-22T09:00:00Z\",\"category\":\"Suspicious_Activity\","
           "\"vendorInformation\":{\"provider\":\"ASC\"}}", P, "+category=Suspicious_Activity", "!AttackTactics", "!ResourceId");
    (void)state;
}

static void a_machine_gives_its_name(void **state)
{
    EXPECT("{\"SystemAlertId\":\"u\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\",\"AzureResourceId\":\"/subscriptions/s/resourceGroups/g/"
           "providers/Microsoft.HybridCompute/machines/srv-01\"}", P, "DvcHostname=srv-01");
    EXPECT("{\"SystemAlertId\":\"u\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\",\"AzureResourceId\":\"/subscriptions/s/resourceGroups/g/"
           "providers/Microsoft.Storage/storageAccounts/st\"}", P, "!DvcHostname");
    (void)state;
}

static void a_row_has_json_as_text_and_a_workspace_for_a_tenant(void **state)
{
    EXPECT("{\"Type\":\"SecurityAlert\",\"SystemAlertId\":\"u\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\",\"TenantId\":\"w\","
           "\"ExtendedLinks\":\"[{\\\"Href\\\":\\\"h\\\"}]\",\"ExtendedProperties\":\"{\\\"k\\\":1}\"}", P,
           "+extendedLinks=[{\"Href\":\"h\"}]", "+extendedProperties={\"k\":1}", "+TenantId=w", "!AzureTenantId");
    EXPECT("{\"Type\":\"SecurityAlert\",\"SystemAlertId\":\"u\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\",\"ExtendedLinks\":\"[]\"}", P,
           "!+ExtendedLinks", "!+extendedLinks");
    (void)state;
}

static void words_outside_the_vocabularies_are_kept_and_not_guessed(void **state)
{
    EXPECT("{\"SystemAlertId\":\"u\",\"Severity\":\"3\",\"Status\":\"Strange\",\"Intent\":\"Unknown\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\"}",
           P, "EventOriginalSeverity=3", "AlertOriginalStatus=Strange", "+intent=Unknown", "!EventSeverity", "!AlertStatus", "!AttackTactics");
    EXPECT("{\"SystemAlertId\":\"u\",\"Status\":\"Dismissed\",\"ConfidenceScore\":0.87,\"VendorName\":\"Contoso\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\"}",
           P, "AlertStatus=Closed", "ThreatConfidence=87", "ThreatOriginalConfidence=0.87", "+VendorName=Contoso", "EventVendor=Microsoft");
    (void)state;
}

static void entities_may_refer_to_themselves(void **state)
{
    EXPECT("{\"SystemAlertId\":\"u\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\",\"Entities\":[{\"$id\":\"1\",\"Type\":\"host\",\"self\":{\"$ref\":\"1\"}},"
           "{\"$ref\":\"9\"},{\"$id\":\"1\",\"Type\":\"brand-new\"}]}", P,
           "Entities=[{\"$id\":\"1\",\"Type\":\"host\",\"self\":{\"$ref\":\"1\"}},{\"$ref\":\"9\"},{\"$id\":\"1\",\"Type\":\"brand-new\"}]",
           "!IndicatorType");
    EXPECT("{\"SystemAlertId\":\"u\",\"TimeGenerated\":\"2026-11-22T09:00:00Z\",\"Entities\":\"[broken\",\"ExtendedProperties\":\"{broken\","
           "\"RemediationSteps\":\"[broken\",\"ResourceIdentifiers\":\"x\"}", P, "+Entities=[broken", "+ExtendedProperties={broken",
           "AttackRemediationSteps=[broken", "+ResourceIdentifiers=x", "!Entities=");
    (void)state;
}

static void a_missing_time_falls_back(void **state)
{
    struct parsed parsed = parse_text("{\"SystemAlertId\":\"u\",\"EndTimeUtc\":\"2026-11-22T09:01:00Z\"}");

    assert_int_equal(parsed.result, PEN_PARSED);
    assert_line(&parsed, "TimeGenerated=2026-11-22T09:01:00Z");
    assert_line(&parsed, "EventStartTime=2026-11-22T09:01:00Z");
    parsed_free(&parsed);
    parsed = parse_text("{\"SystemAlertId\":\"u\",\"TimeGenerated\":\"0001-01-01T00:00:00Z\"}");
    assert_int_equal(parsed.result, PEN_PARTLY);
    assert_line(&parsed, "EventStartTime=2026-09-21T14:13:20Z");
    assert_line(&parsed, "+TimeGenerated=0001-01-01T00:00:00Z");
    parsed_free(&parsed);
    (void)state;
}

static void findings_that_are_no_alerts_stay_unknown(void **state)
{
    static const char *const types[] = {
        "Microsoft.Security/assessments", "Microsoft.Security/assessments/subAssessments", "Microsoft.Security/secureScores",
        "Microsoft.Security/secureScores/secureScoreControls",
        "Microsoft.Security/regulatoryComplianceStandards/regulatoryComplianceControls/regulatoryComplianceAssessments",
    };

    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        char record[512];

        snprintf(record, sizeof(record), "{\"Type\":\"%s\",\"Id\":\"/x\",\"Properties\":{\"Status\":{\"Code\":\"Unhealthy\"},\"severity\":\"High\"}}", types[i]);
        EXPECT(record, "unknown", "kind=unknown");
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_gives_the_same_alert),
        cmocka_unit_test(an_activity_record_of_category_security_is_an_alert),
        cmocka_unit_test(times_may_be_counts),
        cmocka_unit_test(graph_alerts_are_mapped),
        cmocka_unit_test(a_machine_gives_its_name),
        cmocka_unit_test(a_row_has_json_as_text_and_a_workspace_for_a_tenant),
        cmocka_unit_test(words_outside_the_vocabularies_are_kept_and_not_guessed),
        cmocka_unit_test(entities_may_refer_to_themselves),
        cmocka_unit_test(a_missing_time_falls_back),
        cmocka_unit_test(findings_that_are_no_alerts_stay_unknown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
