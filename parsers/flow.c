/* flow.c - see flow.h. */
#include "parsers/flow.h"

#include <endian.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define TICKS_A_SECOND INT64_C(10000000)

/* ---- Reading tuples ------------------------------------------------------------------------------------------- */

bool flow_read_number(struct pen_span text, int64_t *number)
{
    int64_t value = 0;

    if (text.size == 0 || text.size > 18)            /* 18 digits always fit */
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (text.data[i] - '0');
    }
    *number = value;
    return true;
}

/* Seconds have 10 digits until the year 2286, milliseconds had 12 from 1973 on. */
bool flow_read_time(struct flow_tuple *tuple, struct pen_span text)
{
    int64_t number;

    if (!flow_read_number(text, &number) || number > INT64_C(99999999999999))
        return false;
    tuple->ticks = number < INT64_C(100000000000) ? number * TICKS_A_SECOND : number * (TICKS_A_SECOND / 1000);
    return true;
}

#define EACH_BYTE(byte) ((uint64_t)(byte) * UINT64_C(0x0101010101010101))

/* The same for a field that may be of any size, which no processor foresees. Up to eight digits are the end of the eight bytes
 * that end with it, where the tuple has as many; so there is no loop. Neighbours are put together: digits, pairs, fours. */
static bool field_read_number(const struct flow_tuple *tuple, size_t field, int64_t *number)
{
    struct pen_span text = tuple->fields[field];
    const char *end = text.data + text.size;
    uint64_t word;

    if (text.size == 0 || text.size > 8 || end - tuple->fields[0].data < 8)
        return flow_read_number(text, number);
    memcpy(&word, end - 8, 8);
    word = (le64toh(word) ^ EACH_BYTE('0')) & UINT64_MAX << 8 * (8 - text.size);
    if (((word + EACH_BYTE(0x7F - 9)) | word) & EACH_BYTE(0x80))
        return false;
    word = (word * 10 + (word >> 8)) & UINT64_C(0x00FF00FF00FF00FF);
    word = (word * 100 + (word >> 16)) & UINT64_C(0x0000FFFF0000FFFF);
    *number = (int64_t)((word * 10000 + (word >> 32)) & UINT32_MAX);
    return true;
}

/* Empty is "not given", which is not zero. */
static bool field_read_given(const struct flow_tuple *tuple, size_t field, int64_t *number)
{
    *number = FLOW_NOT_GIVEN;
    return tuple->fields[field].size == 0 || field_read_number(tuple, field, number);
}

static const char source_is_none[] = "the source is no IP address", destination_is_none[] = "the destination is no IP address";

/* The addresses are looked at where they are set, which is dear enough once: see ends_trouble(). */
const char *flow_read_ends(struct flow_tuple *tuple, size_t first)
{
    tuple->src_ip = tuple->fields[first];
    tuple->dst_ip = tuple->fields[first + 1];
    if (!field_read_given(tuple, first + 2, &tuple->src_port) || tuple->src_port > 65535)
        return "the source port is none";
    if (!field_read_given(tuple, first + 3, &tuple->dst_port) || tuple->dst_port > 65535)
        return "the destination port is none";
    return NULL;
}

/* What is wrong with the addresses, if anything is. It goes before what a format finds wrong behind them. */
static const char *ends_trouble(const struct flow_tuple *tuple)
{
    if (pen_ip_version(tuple->src_ip) == 0)
        return source_is_none;
    if (pen_ip_version(tuple->dst_ip) == 0)
        return destination_is_none;
    return NULL;
}

const char *flow_read_direction(struct flow_tuple *tuple, struct pen_span word)
{
    tuple->inbound = flow_is_letter(word, 'i');
    return tuple->inbound || flow_is_letter(word, 'o') ? NULL : "the direction is neither I nor O";
}

const char *flow_read_protocol(struct flow_tuple *tuple, struct pen_span word)
{
    tuple->protocol_text = word;
    if (flow_is_letter(word, 't'))
        tuple->protocol = 6;
    else if (flow_is_letter(word, 'u'))
        tuple->protocol = 17;
    else if (!flow_read_number(word, &tuple->protocol) || tuple->protocol > 255)
        tuple->protocol = FLOW_NOT_GIVEN;            /* a new letter: the flow is a flow all the same */
    return NULL;
}

const char *flow_read_counters(struct flow_tuple *tuple, size_t first)
{
    for (size_t i = 0; i < FLOW_COUNTERS; i++)
        if (!field_read_given(tuple, first + i, &tuple->counters[i]))
            return "a counter is no number";
    return NULL;
}

static void tuple_add(struct flow_tuple *tuple, const char **from, const char *to)
{
    if (tuple->count < FLOW_FIELDS_MAX)
        tuple->fields[tuple->count] = (struct pen_span){ *from, (size_t)(to - *from) };
    tuple->count++;
    *from = to + 1;
}

/* A bit for each of sixteen bytes that is a comma. */
static inline unsigned commas_of_16(const char *at)
{
#ifdef __SSE2__
    __m128i bytes = _mm_loadu_si128((const __m128i *)at);

    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(',')));
#else
    unsigned commas = 0;

    for (unsigned i = 0; i < 16; i++)
        commas |= (unsigned)(at[i] == ',') << i;
    return commas;
#endif
}

/* The same from `at` on, where fewer may be left. */
static inline unsigned commas_of_next(struct pen_span text, size_t at)
{
    size_t left = text.size - at;
    char few[16] = { 0 };

    if (left >= 16)
        return commas_of_16(text.data + at);
    if (text.size >= 16)             /* the last sixteen, without those before `at` */
        return commas_of_16(text.data + text.size - 16) >> (16 - left);
    memcpy(few, text.data, text.size);
    return commas_of_16(few);
}

/* Fields are a few bytes long: a search for each comma by itself would cost more than looking at all bytes once. The commas of
 * 64 bytes are known before the first is used: nearly a whole tuple's, whose number the processor can foresee. */
static void tuple_split(struct flow_tuple *tuple, struct pen_span text)
{
    const char *from = text.data;

    tuple->count = 0;
    for (size_t at = 0; at < text.size; at += 64) {
        uint64_t commas = 0;

        for (size_t i = 0; i < 64 && at + i < text.size; i += 16)
            commas |= (uint64_t)commas_of_next(text, at + i) << i;
        for (; commas != 0; commas &= commas - 1)
            tuple_add(tuple, &from, text.data + at + __builtin_ctzll(commas));
    }
    tuple_add(tuple, &from, text.data + text.size);
}

/* What a format may have no word of. The rest is for tuple_split() and the format to set: it is too large to be cleared for
 * each tuple. */
static void tuple_begin(struct flow_tuple *tuple)
{
    tuple->decision = FLOW_UNDECIDED;
    tuple->src_ip = tuple->dst_ip = (struct pen_span){ 0 };
    tuple->state = tuple->encryption = (struct pen_span){ 0 };
    for (size_t i = 0; i < FLOW_COUNTERS; i++)
        tuple->counters[i] = FLOW_NOT_GIVEN;
}

/* ---- IANA's protocol numbers ---------------------------------------------------------------------------------- */

static const char *const protocols[256] = {
    [0] = "HOPOPT", [1] = "ICMP", [2] = "IGMP", [3] = "GGP", [4] = "IPv4", [5] = "ST", [6] = "TCP", [7] = "CBT",
    [8] = "EGP", [9] = "IGP", [12] = "PUP", [17] = "UDP", [20] = "HMP", [22] = "XNS-IDP", [27] = "RDP", [28] = "IRTP",
    [29] = "ISO-TP4", [33] = "DCCP", [36] = "XTP", [41] = "IPv6", [43] = "IPv6-Route", [44] = "IPv6-Frag",
    [45] = "IDRP", [46] = "RSVP", [47] = "GRE", [48] = "DSR", [50] = "ESP", [51] = "AH", [55] = "MOBILE",
    [57] = "SKIP", [58] = "IPv6-ICMP", [59] = "IPv6-NoNxt", [60] = "IPv6-Opts", [80] = "ISO-IP", [81] = "VMTP",
    [88] = "EIGRP", [89] = "OSPFIGP", [92] = "MTP", [93] = "AX.25", [94] = "IPIP", [97] = "ETHERIP", [98] = "ENCAP",
    [103] = "PIM", [108] = "IPComp", [112] = "VRRP", [113] = "PGM", [115] = "L2TP", [124] = "ISIS over IPv4",
    [132] = "SCTP", [133] = "FC", [135] = "Mobility Header", [136] = "UDPLite", [137] = "MPLS-in-IP", [138] = "manet",
    [139] = "HIP", [140] = "Shim6", [141] = "WESP", [142] = "ROHC",
};

/* ---- Events --------------------------------------------------------------------------------------------------- */

void flow_begin(struct flow *flow, const struct pen_record *record, struct pen_out *out, flow_read read,
                flow_describe describe)
{
    *flow = (struct flow){ .out = out, .record = record, .read = read, .describe = describe, .parsed = PEN_PARSED };
    azure_open(&flow->top, out, record->json);
}

static bool is_bare_mac(struct pen_span text)
{
    static const char hex[] = "0123456789abcdefABCDEF";

    for (size_t i = 0; i < text.size; i++)
        if (memchr(hex, text.data[i], sizeof(hex) - 1) == NULL)
            return false;
    return text.size == 12;
}

static bool mac_differs(const struct flow *flow, struct pen_span mac)
{
    struct pen_span other = pen_json_value(&flow->mac_of_record);

    if (other.data == NULL)
        return flow->mac_of_record.tree != NULL;
    return !azure_is_same(other, mac);
}

/* A MAC is made ready once, so that setting it for each tuple copies nothing. */
void flow_set_mac(struct flow *flow, struct pen_span mac)
{
    bool bad = !is_bare_mac(mac), differs = mac_differs(flow, mac);
    char *plain = bad ? NULL : pen_out_alloc(flow->out, 17);

    flow->mac = mac;
    flow->mac_at = PEN_FIELDS;
    if (plain != NULL) {
        for (size_t i = 0; i < 17; i++)
            plain[i] = i % 3 == 2 ? ':' : mac.data[i - i / 3];
        flow->mac = (struct pen_span){ plain, 17 };
    }
    /* What is to be said of a bad or of another MAC is of this group only. */
    if (bad || flow->mac_bad || differs != flow->mac_differs)
        flow->event = NULL;
    flow->mac_bad = bad;
    flow->mac_differs = differs;
}

void flow_take_version(struct flow *flow, struct pen_event *event, struct azure_object *object, const char *name,
                       const char *kind)
{
    struct pen_span version = azure_text(object, name);

    azure_take(object, event, PEN_FLOW_LOG_VERSION, name);
    pen_set_text(event, PEN_EVENT_PRODUCT_VERSION,
                 pen_out_text(flow->out, "%s flow log%s%.*s", kind, version.size > 0 ? " " : "",
                              (int)(version.size < 16 ? version.size : 16), version.size > 0 ? version.data : ""));
}

static bool is_structure(struct pen_span name)
{
    static const struct azure_word names[] = { { "rule", "" }, { "flows", "" }, { "mac", "" }, { "flowTuples", "" },
                                               { "flowGroups", "" }, { "aclID", "" }, { 0 } };

    return azure_word(names, name) != NULL;
}

static bool has_more(const struct pen_json *node)
{
    struct pen_json_iter it = pen_json_each(node);

    while (pen_json_next(&it))
        if (!is_structure(it.name))
            return true;
    return false;
}

static void event_add_more(struct pen_event *event, const struct pen_json *node)
{
    struct pen_json_iter it = pen_json_each(node);

    while (pen_json_next(&it))
        if (!is_structure(it.name))
            pen_add_json(event, it.name, &it.value);
}

struct pen_span flow_name(const struct flow *flow, const struct pen_json *node, const char *name)
{
    struct pen_json member = azure_find(node, name);
    enum pen_json_type type = pen_json_type(&member);

    return type > PEN_JSON_NULL && type < PEN_JSON_TEXT ? pen_out_json(flow->out, &member) : pen_json_value(&member);
}

void flow_begin_group(struct flow *flow, const struct pen_json *element, const struct pen_json *group)
{
    bool odd = has_more(element) || has_more(group);

    flow->element_node = *element;
    flow->group_node = *group;
    if (odd || flow->odd)
        flow->event = NULL;
    flow->odd = odd;
}

/* A MAC that is none is kept as it was written. */
static void event_add_bad_mac(struct pen_event *event, struct pen_span mac)
{
    if (mac.size > 0 && !pen_set_mac(event, PEN_NIC_MAC, mac))
        pen_add_text(event, PEN_SPAN("macAddress"), mac);
    pen_unset(event, PEN_NIC_MAC);   /* a good one is on one of the two ends */
}

static void flow_event_make(struct flow *flow)
{
    struct pen_event *event = pen_out_event(flow->out, PEN_NETWORK);

    flow->event = event;
    flow->mac_at = PEN_FIELDS;
    flow->version = 0;
    azure_set(event, PEN_EVENT_VENDOR, "Microsoft");
    azure_set(event, PEN_EVENT_PRODUCT, "NSGFlow");  /* ASIM registers no name for VNet flow logs; see vnet_flow.c */
    azure_set(event, PEN_EVENT_TYPE, "Flow");
    pen_set_int(event, PEN_EVENT_COUNT, 1);
    flow->describe(flow, event);
    event_add_bad_mac(event, flow->mac);
    if (flow->odd) {
        event_add_more(event, &flow->element_node);
        event_add_more(event, &flow->group_node);
    }
}

static void set_or_unset_text(struct pen_event *event, enum pen_field field, struct pen_span text)
{
    if (!pen_set_text(event, field, text))
        pen_unset(event, field);
}

static void set_or_unset_int(struct pen_event *event, enum pen_field field, int64_t number)
{
    if (number == FLOW_NOT_GIVEN || !pen_set_int(event, field, number))
        pen_unset(event, field);
}

static int64_t sum(int64_t there, int64_t back)
{
    return there == FLOW_NOT_GIVEN || back == FLOW_NOT_GIVEN ? FLOW_NOT_GIVEN : there + back;
}

static void event_set_counters(struct pen_event *event, const int64_t *counters)
{
    set_or_unset_int(event, PEN_SRC_PACKETS, counters[0]);
    set_or_unset_int(event, PEN_SRC_BYTES, counters[1]);
    set_or_unset_int(event, PEN_DST_PACKETS, counters[2]);
    set_or_unset_int(event, PEN_DST_BYTES, counters[3]);
    set_or_unset_int(event, PEN_NETWORK_PACKETS, sum(counters[0], counters[2]));
    set_or_unset_int(event, PEN_NETWORK_BYTES, sum(counters[1], counters[3]));
}

static void event_set_decision(struct pen_event *event, enum flow_decision decision)
{
    bool denied = decision == FLOW_DENIED;

    pen_set_text(event, PEN_EVENT_SEVERITY, denied ? PEN_SPAN("Low") : PEN_SPAN("Informational"));
    if (decision == FLOW_UNDECIDED) {
        pen_unset(event, PEN_DVC_ACTION);
        pen_set_text(event, PEN_EVENT_RESULT, PEN_SPAN("NA"));
        return;
    }
    pen_set_text(event, PEN_DVC_ACTION, denied ? PEN_SPAN("Deny") : PEN_SPAN("Allow"));
    pen_set_text(event, PEN_EVENT_RESULT, denied ? PEN_SPAN("Failure") : PEN_SPAN("Success"));
}

/* The interface is the VM's: at the receiving end of what comes in. */
static void event_set_mac(struct pen_event *event, struct flow *flow, bool inbound)
{
    enum pen_field here = inbound ? PEN_DST_MAC_ADDR : PEN_SRC_MAC_ADDR;

    if (flow->mac_at == here)
        return;                      /* the tuple before had it there, too */
    flow->mac_at = here;
    pen_unset(event, inbound ? PEN_SRC_MAC_ADDR : PEN_DST_MAC_ADDR);
    if (!pen_set_mac(event, here, flow->mac))
        pen_unset(event, here);
}

static void event_set_protocol(struct pen_event *event, const struct flow_tuple *tuple)
{
    const char *name = tuple->protocol == FLOW_NOT_GIVEN ? NULL : protocols[tuple->protocol];

    set_or_unset_int(event, PEN_PROTOCOL_NUMBER, tuple->protocol);
    if (name != NULL)
        azure_set(event, PEN_NETWORK_PROTOCOL, name);
    else
        pen_unset(event, PEN_NETWORK_PROTOCOL);
}

/* NULL, or what is wrong with an address; the event is of no use then. */
static const char *event_set_ends(struct pen_event *event, struct flow *flow, const struct flow_tuple *tuple)
{
    int version = memchr(tuple->src_ip.data, ':', tuple->src_ip.size) != NULL ? 6 : 4;

    if (!pen_set_ip(event, PEN_SRC_IP_ADDR, tuple->src_ip))
        return source_is_none;
    if (!pen_set_ip(event, PEN_DST_IP_ADDR, tuple->dst_ip))
        return destination_is_none;
    set_or_unset_int(event, PEN_SRC_PORT_NUMBER, tuple->src_port);
    set_or_unset_int(event, PEN_DST_PORT_NUMBER, tuple->dst_port);
    if (flow->version != version)                    /* hardly ever: it is no field that moves */
        pen_set_text(event, PEN_NETWORK_PROTOCOL_VERSION, version == 6 ? PEN_SPAN("IPv6") : PEN_SPAN("IPv4"));
    flow->version = version;
    return NULL;
}

static const char *event_set_tuple(struct flow *flow, const struct flow_tuple *tuple)
{
    struct pen_event *event = flow->event;
    const char *why = event_set_ends(event, flow, tuple);

    if (why != NULL)
        return why;
    set_or_unset_text(event, PEN_NETWORK_RULE_NAME, flow->rule);
    set_or_unset_text(event, PEN_ACL_ID, flow->acl);
    pen_set_ticks(event, PEN_TIME_GENERATED, tuple->ticks);
    pen_set_ticks(event, PEN_EVENT_START_TIME, tuple->ticks);
    pen_set_ticks(event, PEN_EVENT_END_TIME, tuple->ticks);
    pen_set_text(event, PEN_NETWORK_DIRECTION, tuple->inbound ? PEN_SPAN("Inbound") : PEN_SPAN("Outbound"));
    event_set_protocol(event, tuple);
    event_set_decision(event, tuple->decision);
    event_set_mac(event, flow, tuple->inbound);
    set_or_unset_text(event, PEN_FLOW_STATE, tuple->state);
    set_or_unset_text(event, PEN_FLOW_ENCRYPTION, tuple->encryption);
    event_set_counters(event, tuple->counters);
    return NULL;
}

/* A member of the record for a broken piece. It doesn't count as used: the events of good tuples may have to keep it. */
static bool broken_take(const struct flow *flow, struct pen_event *event, enum pen_field field, const char *name)
{
    struct pen_json member = azure_peek(&flow->top, name);

    return pen_set_node(event, field, &member);
}

void flow_emit_broken(struct flow *flow, const struct pen_json *piece, const char *why)
{
    struct pen_event *event = pen_out_event(flow->out, PEN_UNKNOWN);
    struct pen_span text = pen_json_value(piece);

    pen_out_blame(flow->out, "flows[%zu] group %zu tuple %zu: %s", flow->element, flow->group, flow->tuple, why);
    flow->parsed = PEN_PARTLY;
    flow->event = NULL;
    if (!pen_set_text(event, PEN_RAW_TEXT, text))
        pen_set_json(event, PEN_RAW, piece);
    pen_set_text(event, PEN_TROUBLE,
                 pen_out_text(flow->out, "flows[%zu] group %zu tuple %zu: %s", flow->element, flow->group, flow->tuple, why));
    broken_take(flow, event, PEN_TIME_GENERATED, "time");
    broken_take(flow, event, PEN_CATEGORY, "category");
    if (!broken_take(flow, event, PEN_RESOURCE_ID, "resourceId"))
        broken_take(flow, event, PEN_RESOURCE_ID, "targetResourceID");
    pen_set_text(event, PEN_NETWORK_RULE_NAME, flow->rule);
    flow->full = pen_out_emit(flow->out, event) != PEN_PARSED;
}

/* What the columns do not cover. True: the event carries it now, and must not be used for another tuple. */
static bool event_add_oddities(struct flow *flow, const struct flow_tuple *tuple, struct pen_span text)
{
    bool strange = tuple->protocol == FLOW_NOT_GIVEN && tuple->protocol_text.size > 0;

    if (strange)
        pen_add_text(flow->event, PEN_SPAN("protocol"), tuple->protocol_text);
    if (tuple->count > tuple->known)
        pen_add_text(flow->event, PEN_SPAN("flowTuple"), text);
    return strange || tuple->count > tuple->known;
}

/* NULL: the addresses alone may still be none, and where an event is to be made for them they are not. */
static const char *flow_read_tuple(const struct flow *flow, struct flow_tuple *tuple, struct pen_span text)
{
    const char *why, *ends;

    tuple_begin(tuple);
    tuple_split(tuple, text);
    why = flow->read(tuple);
    if (tuple->src_ip.data == NULL || (why == NULL && flow->event != NULL))
        return why;
    ends = ends_trouble(tuple);
    return ends != NULL ? ends : why;
}

static void flow_emit_tuple(struct flow *flow, const struct pen_json *node)
{
    struct flow_tuple tuple;
    struct pen_span text = pen_json_value(node);
    const char *why = "it is no text";
    bool odd;

    if (text.data != NULL)
        why = flow_read_tuple(flow, &tuple, text);
    if (why == NULL) {
        if (flow->event == NULL)
            flow_event_make(flow);
        why = event_set_tuple(flow, &tuple);
    }
    if (why != NULL) {
        flow_emit_broken(flow, node, why);
        return;
    }
    odd = event_add_oddities(flow, &tuple, text);
    flow->full = pen_out_emit(flow->out, flow->event) != PEN_PARSED;
    if (odd)
        flow->event = NULL;
}

void flow_emit_tuples(struct flow *flow, const struct pen_json *tuples)
{
    struct pen_json_iter it = pen_json_each(tuples);

    flow->tuple = 0;
    if (pen_json_type(tuples) != PEN_JSON_ARRAY) {
        flow_emit_broken(flow, tuples, "flowTuples is no array");
        return;
    }
    for (; !flow->full && pen_json_next(&it); flow->tuple++)
        if (!pen_out_skip(flow->out))          /* one event a tuple, be it readable or not */
            flow_emit_tuple(flow, &it.value);
}
