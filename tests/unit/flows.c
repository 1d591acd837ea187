/* nsg-flow, vnet-flow: one event per tuple; a tuple that cannot be read costs itself only. */
#include "tests/unit/parsers.h"

#define NSG(tuples) \
    "{\"time\":\"2026-11-22T09:00:06.8944384Z\",\"systemId\":\"s1\",\"macAddress\":\"6045BDEC2532\"," \
    "\"category\":\"NetworkSecurityGroupFlowEvent\",\"operationName\":\"NetworkSecurityGroupFlowEvents\"," \
    "\"resourceId\":\"/SUBSCRIPTIONS/S/RESOURCEGROUPS/G/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/N\"," \
    "\"properties\":{\"Version\":2,\"flows\":[{\"rule\":\"UserRule_a\",\"flows\":[{\"mac\":\"6045BDEC2532\",\"flowTuples\":[" tuples "]}]}]}}"

#define VNET(tuples) \
    "{\"time\":\"2026-11-22T09:00:52.5625085Z\",\"flowLogVersion\":4,\"flowLogGUID\":\"g1\",\"macAddress\":\"00224871C205\"," \
    "\"category\":\"FlowLogFlowEvent\",\"operationName\":\"FlowLogFlowEvent\"," \
    "\"flowLogResourceID\":\"/SUBSCRIPTIONS/S/RESOURCEGROUPS/W/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/W/FLOWLOGS/F\"," \
    "\"targetResourceID\":\"/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v\"," \
    "\"flowRecords\":{\"flows\":[{\"aclID\":\"acl\",\"flowGroups\":[{\"rule\":\"r\",\"flowTuples\":[" tuples "]}]}]}}"

static void a_version_1_tuple_has_no_counters(void **state)
{
    EXPECT(NSG("\"1487282421,42.119.146.95,10.1.0.4,51529,5358,T,I,D\""), "nsg-flow",
           "kind=network", "EventType=Flow", "EventVendor=Microsoft", "EventProduct=NSGFlow", "EventCount=1",
           "TimeGenerated=2017-02-16T22:00:21Z", "EventStartTime=2017-02-16T22:00:21Z", "EventEndTime=2017-02-16T22:00:21Z",
           "SrcIpAddr=42.119.146.95", "DstIpAddr=10.1.0.4", "SrcPortNumber=51529", "DstPortNumber=5358", "NetworkProtocol=TCP",
           "NetworkProtocolVersion=IPv4", "NetworkDirection=Inbound", "DvcAction=Deny", "EventResult=Failure",
           "EventSeverity=Low", "DstMacAddr=60:45:BD:EC:25:32", "NetworkRuleName=UserRule_a", "Dvc=N", "DvcIdType=AzureResourceId",
           "DvcSubscriptionId=S", "LogTime=2026-11-22T09:00:06.8944384Z", "+systemId=s1", "EventProductVersion=NSG flow log 2",
           "!SrcMacAddr", "!SrcBytes", "!DstBytes", "!NetworkBytes", "!FlowState");
    (void)state;
}

static void empty_counters_are_not_zero(void **state)
{
    EXPECT(NSG("\"1724090350,10.1.0.4,20.42.73.216,51236,443,T,O,A,B,,,,\""), "nsg-flow", "FlowState=B", "DvcAction=Allow",
           "EventResult=Success", "EventSeverity=Informational", "SrcMacAddr=60:45:BD:EC:25:32", "!DstMacAddr", "!SrcBytes",
           "!SrcPackets", "!NetworkBytes");
    EXPECT(NSG("\"1724090350,10.1.0.4,20.42.73.216,51236,443,U,O,A,E,0,0,0,0\""), "nsg-flow", "FlowState=E", "SrcBytes=0",
           "DstPackets=0", "NetworkBytes=0", "NetworkProtocol=UDP", "NetworkProtocolNumber=17");
    EXPECT(NSG("\"1724090350,10.1.0.4,20.42.73.216,51236,443,T,O,A,C,9,4817,3,\""), "nsg-flow", "SrcPackets=9", "SrcBytes=4817",
           "DstPackets=3", "NetworkPackets=12", "!DstBytes", "!NetworkBytes");
    (void)state;
}

static void seconds_and_milliseconds_are_told_apart(void **state)
{
    EXPECT(NSG("\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\""), "nsg-flow", "TimeGenerated=2017-02-16T22:00:21Z");
    EXPECT(NSG("\"1487282421123,10.0.0.1,10.0.0.2,1,2,T,I,A\""), "nsg-flow", "TimeGenerated=2017-02-16T22:00:21.123Z");
    EXPECT(VNET("\"1487282421,10.0.0.1,10.0.0.2,1,2,6,I,B,NX,,,,\""), "vnet-flow", "TimeGenerated=2017-02-16T22:00:21Z");
    EXPECT(VNET("\"1487282421123,10.0.0.1,10.0.0.2,1,2,6,I,B,NX,,,,\""), "vnet-flow", "TimeGenerated=2017-02-16T22:00:21.123Z");
    (void)state;
}

static void nothing_of_one_tuple_stays_for_the_next(void **state)
{
    struct parsed parsed = parse_text(NSG("\"1724090346,10.1.0.4,20.98.192.237,35620,443,T,O,A,E,1,74,2,80\","
                                          "\"1724090347,2001:db8::1,2001:db8::2,,,U,I,D\""));
    const char *second;

    assert_int_equal(parsed.events, 2);
    second = strstr(parsed.text.data, "--\n") + 3;
    assert_null(strstr(second, "SrcBytes"));
    assert_null(strstr(second, "FlowState"));
    assert_null(strstr(second, "SrcMacAddr"));
    assert_null(strstr(second, "PortNumber"));
    assert_non_null(strstr(second, "NetworkProtocolVersion=IPv6\n"));
    assert_non_null(strstr(second, "DstMacAddr=60:45:BD:EC:25:32\n"));
    assert_non_null(strstr(second, "NetworkProtocol=UDP\n"));
    assert_non_null(strstr(second, "DvcAction=Deny\n"));
    parsed_free(&parsed);
    (void)state;
}

static void a_broken_tuple_costs_itself_only(void **state)
{
    static const char *const broken[] = {
        "\"\"", "\"1487282421\"", "\"x,10.1.0.4,10.1.0.5,1,2,T,I,A\"", "\"1487282421,<ip>,10.1.0.5,1,2,T,I,A\"",
        "\"1487282421,10.1.0.4,10.1.0.999,1,2,T,I,A\"", "\"1487282421,10.1.0.4,10.1.0.5,65536,2,T,I,A\"",
        "\"1487282421,10.1.0.4,10.1.0.5,1,-2,T,I,A\"", "\"1487282421,10.1.0.4,10.1.0.5,1,2,T,X,A\"",
        "\"1487282421,10.1.0.4,10.1.0.5,1,2,T,I,Q\"", "\"1487282421,10.1.0.4,10.1.0.5,1,2,T,I,A,E,1,74\"",
        "\"1487282421,10.1.0.4,10.1.0.5,1,2,T,I,A,E,1,seven,0,0\"", "7", "null", "{\"a\":1}", "[]",
        "\"-03-20T18:45:26\"", "\"99999999999999999999,10.1.0.4,10.1.0.5,1,2,T,I,A\"",
    };

    for (size_t i = 0; i < sizeof(broken) / sizeof(*broken); i++) {
        char tuples[512], record[2048];
        struct parsed parsed;

        snprintf(tuples, sizeof(tuples), "\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\",%s,\"1487282422,10.0.0.3,10.0.0.4,3,4,U,O,A\"", broken[i]);
        snprintf(record, sizeof(record), NSG("%s"), tuples);
        parsed = parse_text(record);
        if (parsed.events != 3 || parsed.result != PEN_PARTLY)
            fail_msg("%s: %zu events", broken[i], parsed.events);
        assert_non_null(strstr(parsed.blame, "flows[0] group 0 tuple 1: "));
        assert_line(&parsed, "kind=unknown");
        assert_line(&parsed, "SrcIpAddr=10.0.0.1");
        assert_line(&parsed, "SrcIpAddr=10.0.0.3");
        assert_line(&parsed, "Category=NetworkSecurityGroupFlowEvent");
        parsed_free(&parsed);
    }
    EXPECT(NSG("\"1487282421,bad\""), "nsg-flow", "RawText=1487282421,bad", "TimeGenerated=2026-11-22T09:00:06.8944384Z",
           "Trouble=flows[0] group 0 tuple 0: it has neither 8 fields nor 13");
    (void)state;
}

/* A counter of any size, and one that has some other byte at any place. */
static void a_counter_is_digits_and_nothing_else(void **state)
{
    static const char digits[] = "908172635443210987", others[] = "/:-+. x\x7F\xC3";
    char tuple[128], line[64], record[2048];
    struct parsed parsed;

    for (int size = 1; size <= 18; size++) {
        snprintf(tuple, sizeof(tuple), "\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A,E,1,%.*s,3,4\"", size, digits);
        snprintf(record, sizeof(record), NSG("%s"), tuple);
        snprintf(line, sizeof(line), "SrcBytes=%.*s", size, digits);
        parsed = parse_text(record);
        assert_line(&parsed, line);
        parsed_free(&parsed);
        for (size_t other = 0; other < sizeof(others) - 1; other++) {
            for (int at = 0; at < size; at++) {
                snprintf(tuple, sizeof(tuple), "\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A,E,1,%.*s%c%.*s,3,4\"", at, digits,
                         others[other], size - at - 1, digits + at + 1);
                snprintf(record, sizeof(record), NSG("%s"), tuple);
                parsed = parse_text(record);
                if (parsed.parser == nsg_flow_parser.name)       /* half a character is no JSON */
                    assert_non_null(strstr(parsed.blame, "a counter is no number"));
                parsed_free(&parsed);
            }
        }
    }
    (void)state;
}

/* One address that is none is said first, whatever else is wrong behind it; in the first tuple as in another. */
static void an_address_comes_before_what_stands_behind_it(void **state)
{
    EXPECT(NSG("\"1487282421,10.0.0.1,10.0.0.2.3,1,99999,T,Q,Q\""), "nsg-flow",
           "Trouble=flows[0] group 0 tuple 0: the destination is no IP address");
    EXPECT(NSG("\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\",\"1487282421,10.0.0.x,10.0.0.2.3,1,2,T,I,A\""), "nsg-flow",
           "Trouble=flows[0] group 0 tuple 1: the source is no IP address");
    EXPECT(NSG("\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\",\"1487282421,10.0.0.3,,1,2,T,I,A\""), "nsg-flow",
           "Trouble=flows[0] group 0 tuple 1: the destination is no IP address");
    EXPECT(NSG("\"x,10.0.0.x,10.0.0.2,1,2,T,I,A\""), "nsg-flow", "Trouble=flows[0] group 0 tuple 0: the time is no count of seconds");
    (void)state;
}

static void a_broken_part_of_the_structure_costs_itself_only(void **state)
{
    struct parsed parsed = parse_text(
        "{\"category\":\"NetworkSecurityGroupFlowEvent\",\"properties\":{\"Version\":\"1\",\"flows\":[7,{\"rule\":\"a\"},"
        "{\"rule\":\"b\",\"flows\":[{\"mac\":\"x\"},{\"flowTuples\":\"no array\"},{\"mac\":\"not a mac\",\"new\":1,\"flowTuples\":"
        "[\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\"]},{\"mac\":\"6045BDEC2532\",\"flowTuples\":[\"1487282422,10.0.0.1,10.0.0.2,1,2,T,I,A\"]}]},"
        "{\"rule\":\"c\",\"flows\":[]}]}}");

    assert_string_equal(parsed.parser, "nsg-flow");
    assert_int_equal(parsed.events, 6);
    assert_int_equal(parsed.result, PEN_PARTLY);
    assert_line(&parsed, "RawData=7");
    assert_line(&parsed, "RawData={\"rule\":\"a\"}");
    assert_line(&parsed, "RawText=no array");
    assert_line(&parsed, "+macAddress=not a mac");
    assert_line(&parsed, "+new=1");
    assert_line(&parsed, "FlowLogVersion=1");
    assert_line(&parsed, "Dvc=NSGFlow");
    assert_null(strstr(strstr(parsed.text.data, "+new=1") + 1, "+new=1"));
    assert_line(&parsed, "DstMacAddr=60:45:BD:EC:25:32");
    parsed_free(&parsed);
    (void)state;
}

static void what_is_no_mac_is_kept_with_its_own_group_only(void **state)
{
    struct parsed parsed = parse_text(
        "{\"category\":\"NetworkSecurityGroupFlowEvent\",\"macAddress\":\"6045BDEC2599\",\"properties\":{\"flows\":[{\"rule\":\"b\",\"flows\":["
        "{\"mac\":\"zzzzzzzzzzzz\",\"flowTuples\":[\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\",\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\"]},"
        "{\"mac\":\"60-45-BD-EC-25-32\",\"flowTuples\":[\"1487282422,10.0.0.1,10.0.0.2,1,2,T,O,A\"]},"
        "{\"mac\":\"6045BDEC2533\",\"flowTuples\":[\"1487282422,10.0.0.1,10.0.0.2,1,2,T,O,A\"]}]}]}}");
    const char *third;

    assert_int_equal(parsed.events, 4);
    assert_line(&parsed, "+macAddress=zzzzzzzzzzzz");
    assert_line(&parsed, "+macAddress=6045BDEC2599");
    third = strstr(strstr(parsed.text.data, "--\n") + 3, "--\n") + 3;
    assert_null(strstr(third, "zzzz"));
    assert_non_null(strstr(third, "SrcMacAddr=60:45:BD:EC:25:32\n"));
    assert_non_null(strstr(third, "SrcMacAddr=60:45:BD:EC:25:33\n"));
    parsed_free(&parsed);
    (void)state;
}

/* Nor may it depend on the groups before: a second pass over the record does not see them. */
static void the_records_own_mac_is_kept_where_the_groups_is_another(void **state)
{
    static const char own[] = "{\"mac\":\"6045BDEC2532\",\"flowTuples\":[\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\"]}";
    static const char other[] = "{\"mac\":\"3022BDEC2532\",\"flowTuples\":[\"1487282421,10.0.0.1,10.0.0.3,1,2,T,I,A\"]}";
    char text[1024];

    (void)state;
    for (int first = 0; first < 2; first++) {
        struct parsed parsed;
        const char *second;

        snprintf(text, sizeof text, "{\"category\":\"NetworkSecurityGroupFlowEvent\",\"macAddress\":\"6045BDEC2532\","
                 "\"properties\":{\"flows\":[{\"rule\":\"r\",\"flows\":[%s,%s]}]}}", first ? other : own, first ? own : other);
        parsed = parse_text(text);
        assert_int_equal(parsed.events, 2);
        second = strstr(parsed.text.data, "--\n") + 3;
        assert_true((strstr(second, "+macAddress=6045BDEC2532") != NULL) == (first == 0));
        parsed_free(&parsed);
    }
}

static void no_traffic_is_no_event(void **state)
{
    struct parsed parsed = parse_text("{\"category\":\"NetworkSecurityGroupFlowEvent\",\"properties\":{\"flows\":[{\"rule\":\"a\",\"flows\":[]}]}}");

    assert_int_equal(parsed.events, 0);
    assert_int_equal(parsed.result, PEN_PARSED);
    parsed_free(&parsed);
    (void)state;
}

static void a_record_without_flows_is_malformed(void **state)
{
    static const char *const records[] = {
        "{\"category\":\"NetworkSecurityGroupFlowEvent\"}", "{\"category\":\"NetworkSecurityGroupFlowEvent\",\"properties\":null}",
        "{\"category\":\"NetworkSecurityGroupFlowEvent\",\"properties\":{\"flows\":{}}}", "{\"category\":\"FlowLogFlowEvent\"}",
        "{\"category\":\"FlowLogFlowEvent\",\"flowRecords\":{\"flows\":\"none\"}}", "{\"category\":\"FlowLogFlowEvent\",\"flowRecords\":[]}",
    };

    for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++) {
        struct parsed parsed = parse_text(records[i]);

        assert_int_equal(parsed.result, PEN_MALFORMED);
        assert_int_equal(parsed.events, 1);
        assert_line(&parsed, "kind=unknown");
        assert_non_null(strstr(parsed.text.data, "Trouble="));
        parsed_free(&parsed);
    }
    (void)state;
}

static void a_vnet_tuple_is_mapped(void **state)
{
    EXPECT(VNET("\"1663146003599,10.0.0.6,52.239.184.180,23956,443,6,O,B,NX,0,0,0,0\""), "vnet-flow", "kind=network",
           "EventProduct=NSGFlow", "EventProductVersion=VNet flow log 4", "FlowLogVersion=4", "FlowLogGuid=g1", "AclId=acl",
           "NetworkRuleName=r", "TimeGenerated=2022-09-14T09:00:03.599Z", "NetworkProtocol=TCP", "NetworkDirection=Outbound",
           "DvcAction=Allow", "EventResult=Success", "FlowState=B", "FlowEncryption=NX", "SrcBytes=0", "NetworkBytes=0", "Dvc=F",
           "SrcMacAddr=00:22:48:71:C2:05", "SubscriptionId=s", "DvcSubscriptionId=s",
           "!ResourceGroup", "!ResourceProvider", "!ResourceType", "!+");
    (void)state;
}

static void vnet_times_are_told_by_magnitude(void **state)
{
    EXPECT(VNET("\"1663146003,10.0.0.6,10.0.0.7,1,2,6,O,B,NX,,,,\""), "vnet-flow", "TimeGenerated=2022-09-14T09:00:03Z", "!SrcBytes");
    EXPECT(VNET("\"1663146003999,10.0.0.6,10.0.0.7,1,2,6,O,B,NX,,,,\""), "vnet-flow", "TimeGenerated=2022-09-14T09:00:03.999Z");
    (void)state;
}

static void protocols_get_iana_keywords(void **state)
{
    static const struct { const char *number, *line; } cases[] = {
        { "6", "NetworkProtocol=TCP" }, { "17", "NetworkProtocol=UDP" }, { "1", "NetworkProtocol=ICMP" },
        { "50", "NetworkProtocol=ESP" }, { "58", "NetworkProtocol=IPv6-ICMP" }, { "47", "NetworkProtocol=GRE" },
        { "T", "NetworkProtocol=TCP" }, { "253", "NetworkProtocolNumber=253" }, { "Z", "+protocol=Z" }, { "300", "+protocol=300" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char record[2048];

        snprintf(record, sizeof(record), VNET("\"1663146003599,10.0.0.6,10.0.0.7,0,0,%s,O,B,NX,0,0,0,0\""), cases[i].number);
        EXPECT(record, "vnet-flow", cases[i].line);
    }
    (void)state;
}

static void the_vnet_state_holds_the_decision(void **state)
{
    EXPECT(VNET("\"1663146003599,10.0.0.6,10.0.0.7,1,2,17,I,D,NX,0,0,0,0\""), "vnet-flow", "DvcAction=Deny", "EventResult=Failure",
           "EventSeverity=Low", "DstMacAddr=00:22:48:71:C2:05");
    EXPECT(VNET("\"1663146003599,10.0.0.6,10.0.0.7,1,2,17,I,Q,X,0,0,0,0\""), "vnet-flow", "!DvcAction=", "EventResult=NA", "FlowState=Q");
    (void)state;
}

static void every_word_of_encryption_passes(void **state)
{
    static const char *const words[] = { "X", "NX", "NX_HW_NOT_SUPPORTED", "NX_SW_NOT_READY", "NX_NOT_ACCEPTED", "NX_NOT_SUPPORTED",
                                         "NX_LOCAL_DST", "NX_FALLBACK", "NX_SOMETHING_NEW" };

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        char record[2048], line[64];

        snprintf(record, sizeof(record), VNET("\"1663146003599,10.0.0.6,10.0.0.7,1,2,6,O,C,%s,1,2,3,4\""), words[i]);
        snprintf(line, sizeof(line), "FlowEncryption=%s", words[i]);
        EXPECT(record, "vnet-flow", line);
    }
    (void)state;
}

static void further_columns_are_kept(void **state)
{
    struct parsed parsed = parse_text(VNET("\"1663146003599,10.0.0.6,10.0.0.7,1,2,6,O,C,NX,1,2,3,4,5,6,7,8,9\","
                                           "\"1663146003600,10.0.0.8,10.0.0.7,1,2,6,O,C,NX,1,2,3,4\""));

    assert_int_equal(parsed.events, 2);
    assert_line(&parsed, "+flowTuple=1663146003599,10.0.0.6,10.0.0.7,1,2,6,O,C,NX,1,2,3,4,5,6,7,8,9");
    assert_null(strstr(strstr(parsed.text.data, "+flowTuple") + 1, "+flowTuple"));
    parsed_free(&parsed);
    (void)state;
}

static void keys_come_in_any_order_and_case(void **state)
{
    EXPECT("{\"flowRecords\":{\"flows\":[{\"flowGroups\":[{\"flowTuples\":[\"1663146003599,10.0.0.6,10.0.0.7,1,2,6,O,C,NX,1,2,3,4\"],"
           "\"rule\":\"r\"}],\"aclID\":\"unspecified\"}],\"more\":1},\"time\":\"2026-11-22T09:00:52.5625085+00:00\",\"FlowLogResourceId\":\"/x\"}",
           "vnet-flow", "AclId=unspecified", "NetworkRuleName=r", "DvcId=/x", "LogTime=2026-11-22T09:00:52.5625085Z", "+more=1");
    EXPECT("{\"resourceid\":\"/subscriptions/S/resourceGroups/G/providers/A.B/nsgs/N\",\"properties\":{\"Version\":1,\"flows\":"
           "[{\"rule\":\"r\",\"flows\":[{\"flowTuples\":[\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\"]}]}]}}", "nsg-flow", "Dvc=N");
    (void)state;
}

static void names_may_look_like_numbers(void **state)
{
    EXPECT("{\"flowRecords\":{\"flows\":[{\"aclID\":7,\"flowGroups\":[{\"rule\":100,"
           "\"flowTuples\":[\"1663146003599,10.0.0.6,10.0.0.7,1,2,6,O,C,NX,1,2,3,4\"]}]}]}}",
           "vnet-flow", "AclId=7", "NetworkRuleName=100");
    EXPECT("{\"properties\":{\"Version\":1,\"flows\":"
           "[{\"rule\":100,\"flows\":[{\"flowTuples\":[\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\"]}]}]}}", "nsg-flow",
           "NetworkRuleName=100");
    EXPECT("{\"properties\":{\"Version\":1,\"flows\":"
           "[{\"rule\":null,\"flows\":[{\"flowTuples\":[\"1487282421,10.0.0.1,10.0.0.2,1,2,T,I,A\"]}]}]}}", "nsg-flow",
           "!NetworkRuleName");
    (void)state;
}

/* The hot path: no memory per tuple, or a record of a million tuples would outgrow its budget. */
static bool on_count(void *arg, const struct pen_event *event, uint64_t ordinal)
{
    (void)event;
    (void)ordinal;
    ++*(size_t *)arg;
    return true;
}

static void tuples_take_no_memory(void **state)
{
    size_t count = 0, held[2];

    for (int pass = 0; pass < 2; pass++) {
        struct buf record = { 0 };
        struct json *json = json_new();
        struct pen_out *out = out_new(on_count, &count);
        struct pen_json root;
        struct pen_record lent = { .json = &root };
        const char *why;

        BUF_LITERAL(&record, "{\"category\":\"FlowLogFlowEvent\",\"macAddress\":\"00224871C205\",\"flowRecords\":{\"flows\":[{\"flowGroups\":[{\"flowTuples\":[");
        for (int i = 0; i < (pass == 0 ? 1 : 5000); i++)
            buf_text(&record, "%s\"1663146003599,10.0.0.6,10.0.0.7,1,2,6,%c,C,NX,1,2,3,4\"", i > 0 ? "," : "", i % 2 ? 'I' : 'O');
        BUF_LITERAL(&record, "]}]}]}}");
        buf_reserve(&record, JSON_PADDING);
        assert_int_equal(json_parse(json, record.data, record.size, &root, &why), 0);
        out_begin(out, 0);
        assert_int_equal(vnet_flow_parser.parse(NULL, &lent, out), PEN_PARSED);
        held[pass] = out_held(out);
        out_free(out);
        json_free(json);
        buf_free(&record);
    }
    assert_int_equal(count, 5001);
    assert_int_equal(held[0], held[1]);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_version_1_tuple_has_no_counters),
        cmocka_unit_test(empty_counters_are_not_zero),
        cmocka_unit_test(seconds_and_milliseconds_are_told_apart),
        cmocka_unit_test(nothing_of_one_tuple_stays_for_the_next),
        cmocka_unit_test(a_broken_tuple_costs_itself_only),
        cmocka_unit_test(a_counter_is_digits_and_nothing_else),
        cmocka_unit_test(an_address_comes_before_what_stands_behind_it),
        cmocka_unit_test(a_broken_part_of_the_structure_costs_itself_only),
        cmocka_unit_test(what_is_no_mac_is_kept_with_its_own_group_only),
        cmocka_unit_test(the_records_own_mac_is_kept_where_the_groups_is_another),
        cmocka_unit_test(no_traffic_is_no_event),
        cmocka_unit_test(a_record_without_flows_is_malformed),
        cmocka_unit_test(a_vnet_tuple_is_mapped),
        cmocka_unit_test(vnet_times_are_told_by_magnitude),
        cmocka_unit_test(protocols_get_iana_keywords),
        cmocka_unit_test(the_vnet_state_holds_the_decision),
        cmocka_unit_test(every_word_of_encryption_passes),
        cmocka_unit_test(further_columns_are_kept),
        cmocka_unit_test(keys_come_in_any_order_and_case),
        cmocka_unit_test(names_may_look_like_numbers),
        cmocka_unit_test(tuples_take_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
