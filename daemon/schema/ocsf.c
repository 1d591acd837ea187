/*
 * ocsf.c - events as OCSF 1.8.0: Network Activity 4001, API Activity 6003, Detection Finding 2004, and Base Event 0 for
 * what is unknown.
 *
 * What a class's message holds is a plan: a list of attributes sorted by path, so that walking it opens and closes each
 * nested object once. It is made once per class, out of three tables:
 *
 *   fields.def  a field goes over as it is, to the path in its OCSF column; `own_paths` says where a class differs
 *   codes       a word of ours becomes an enumeration's number; an unknown word becomes 99, with the word beside it
 *   computed    everything else
 *
 * A path is names parted by dots; `resources[].uid` is an array of one object, `types[]` an array of one value. Where two
 * fields lead to one path the earlier wins and the other stays in `unmapped`.
 *
 * `homes` says which classes have which objects, and which field must be there for the object to be whole: OCSF refuses
 * an endpoint that is but a port. Without it the object's fields stay in `unmapped`, where all goes that found no place.
 * So no message holds an attribute its class does not define, and none loses a field.
 */
#include "daemon/schema/schema.h"
#include "daemon/schema/value.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define N TABLE_N
#define A TABLE_A
#define L TABLE_L
#define U TABLE_U
#define ALL (N | A | L | U)
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static const uint32_t class_uids[PEN_KINDS] = {
    [PEN_UNKNOWN] = 0, [PEN_NETWORK] = 4001, [PEN_AUDIT] = 6003, [PEN_ALERT] = 2004,
};

/* ---- Fields that go over as they are ---- */

/* Where a class has another place than fields.def says. */
static const struct own_path {
    uint32_t kinds;
    enum pen_field field;
    const char *path;
} own_paths[] = {
    { N, PEN_RESOURCE_ID, "network_observation_point.uid" },
    { N, PEN_NIC_MAC, "network_observation_point.mac" },
    { L, PEN_EVENT_ORIGINAL_TYPE, "finding_info.analytic.uid" },
};

/* Objects that not every class has, or that are not whole without one of `needs`. The longest prefix of a path counts. */
#define NEEDS_MAX 5
static const struct home {
    const char *path;
    uint32_t kinds;
    enum pen_field needs[NEEDS_MAX + 1];     /* ends with PEN_FIELDS; none: no condition */
} homes[] = {
    { "actor", A, { PEN_FIELDS } },
    { "actor.user", A, { PEN_ACTOR_USER_ID, PEN_ACTOR_USERNAME, PEN_FIELDS } },
    { "api", A, { PEN_FIELDS } },
    { "app_protocol_name", N, { PEN_FIELDS } },
    { "confidence_score", L, { PEN_FIELDS } },
    { "connection_info", N, { PEN_FIELDS } },
    { "dst_endpoint", N, { PEN_DST_IP_ADDR, PEN_DST_HOSTNAME, PEN_DST_DVC_ID, PEN_FIELDS } },
    { "dst_endpoint", A, { PEN_TARGET_IP_ADDR, PEN_TARGET_HOSTNAME, PEN_FIELDS } },
    { "finding_info", L, { PEN_FIELDS } },
    { "firewall_rule", N, { PEN_NETWORK_RULE_NAME, PEN_FIELDS } },
    { "http_request", A, { PEN_FIELDS } },
    { "network_observation_point", N, { PEN_RESOURCE_ID, PEN_FIELDS } },
    { "policy", N, { PEN_ACL_ID, PEN_FIELDS } },
    { "remediation", L, { PEN_FIELDS } },
    { "resources[]", A | L, { PEN_OBJECT_ID, PEN_RESOURCE_ID, PEN_OBJECT, PEN_COMPROMISED_ENTITY, PEN_FIELDS } },
    { "risk_score", L, { PEN_FIELDS } },
    { "src_endpoint", N, { PEN_SRC_IP_ADDR, PEN_SRC_HOSTNAME, PEN_SRC_DVC_ID, PEN_FIELDS } },
    { "src_endpoint", A, { PEN_FIELDS } },   /* whole in any case: computed */
    { "traffic", N, { PEN_FIELDS } },
};

/* What OCSF says by the class itself: nothing is lost when these go nowhere. */
static const struct { uint32_t kinds; enum pen_field field; } implied[] = {
    { N | L, PEN_EVENT_TYPE },               /* Flow, Alert */
    { ALL, PEN_TIME_GENERATED }, { ALL, PEN_EVENT_VENDOR }, { ALL, PEN_EVENT_PRODUCT },
    { U, PEN_RAW }, { U, PEN_RAW_TEXT },     /* raw_data */
    { N | A | L, PEN_DVC },
    { N, PEN_DVC_ID_TYPE },                  /* an Azure resource's, as all are here */
};

/* ---- Words that become numbers ---- */

struct word {
    struct pen_span text;                    /* an empty one ends the list */
    int id;
};
#define WORD(text, id) { { text, sizeof(text) - 1 }, id }
#define WORDS_END { { NULL, 0 }, 0 }
#define OTHER 99
#define OMIT (-1)

static const struct word severities[] = {
    WORD("Informational", 1), WORD("Low", 2), WORD("Medium", 3), WORD("High", 4), WORD("Critical", 5), WORDS_END,
};
static const struct word results[] = { WORD("Success", 1), WORD("Failure", 2), WORD("NA", 0), WORDS_END };
static const struct word flow_states[] = { WORD("B", 1), WORD("C", 6), WORD("E", 2), WORD("D", 5), WORDS_END };
static const struct word audit_types[] = {
    WORD("Create", 1), WORD("Read", 2), WORD("Set", 3), WORD("Delete", 4), WORDS_END,
};
static const struct word directions[] = {
    WORD("Inbound", 1), WORD("Outbound", 2), WORD("Local", 3), WORD("NA", 0), WORDS_END,
};
static const struct word ip_versions[] = { WORD("IPv4", 4), WORD("IPv6", 6), WORDS_END };
static const struct word actions[] = {
    WORD("Allow", 1), WORD("Deny", 2), WORD("Drop", 2), WORD("Drop ICMP", 2), WORD("Reset", 2), WORD("Reset Source", 2),
    WORD("Reset Destination", 2), WORD("Encrypt", 4), WORD("Decrypt", 4), WORDS_END,
};
static const struct word dispositions[] = {
    WORD("Allow", 1), WORD("Deny", 2), WORD("Drop", 6), WORD("Drop ICMP", 6), WORD("Reset", 21), WORD("Reset Source", 21),
    WORD("Reset Destination", 21), WORDS_END,
};
static const struct word user_types[] = {
    WORD("Regular", 1), WORD("Guest", 1), WORD("Admin", 2), WORD("System", 3), WORD("Service", 4), WORD("Service Principal", 4),
    WORD("Application", 4), WORDS_END,
};
static const struct word alert_states[] = {
    WORD("New", 1), WORD("Active", 1), WORD("InProgress", 2), WORD("In Progress", 2), WORD("Dismissed", 3), WORD("Resolved", 4),
    WORD("Closed", 4), WORD("newAlert", 1), WORD("Unknown", 0), WORDS_END,
};
/* Defender sends an alert again when it has changed. */
static const struct word alert_activities[] = {
    WORD("New", 1), WORD("Active", 1), WORD("InProgress", 2), WORD("In Progress", 2), WORD("Dismissed", 3), WORD("Resolved", 3),
    WORD("Closed", 3), WORD("newAlert", 1), WORD("Unknown", 0), WORDS_END,
};

static const struct code {
    uint32_t kinds;
    enum pen_field field;
    const char *path, *sibling;              /* the sibling takes the source's word where the number is 99 */
    const struct word *words;
    int absent;                              /* where the field is not set; OMIT: no attribute */
} codes[] = {
    /* the activities first, in the kinds' order: type_uid is made of them */
    { N, PEN_FLOW_STATE, "activity_id", "activity_name", flow_states, 6 },
    { A, PEN_EVENT_TYPE, "activity_id", "activity_name", audit_types, 0 },
    { L, PEN_ALERT_ORIGINAL_STATUS, "activity_id", "activity_name", alert_activities, 1 },
    { ALL, PEN_EVENT_SEVERITY, "severity_id", "severity", severities, 0 },
    { N | A, PEN_EVENT_RESULT, "status_id", "status", results, OMIT },
    { L, PEN_ALERT_ORIGINAL_STATUS, "status_id", "status", alert_states, OMIT },
    { L, PEN_ALERT_STATUS, "status_id", "status", alert_states, OMIT },
    { N, PEN_NETWORK_DIRECTION, "connection_info.direction_id", "connection_info.direction", directions, 0 },
    { N, PEN_NETWORK_PROTOCOL_VERSION, "connection_info.protocol_ver_id", "connection_info.protocol_ver", ip_versions, OMIT },
    { N, PEN_DVC_ACTION, "action_id", "action", actions, OMIT },
    { N, PEN_DVC_ACTION, "disposition_id", "disposition", dispositions, OMIT },
    { A, PEN_ACTOR_USER_TYPE, "actor.user.type_id", "actor.user.type", user_types, OMIT },
};

static struct pen_span event_text(const struct pen_event *event, enum pen_field field)
{
    return event_has(event, field) ? event->values[field].text : (struct pen_span){ NULL, 0 };
}

static inline bool event_is(const struct pen_event *event, enum pen_field field, struct pen_span text)
{
    return event_has(event, field) && event->values[field].text.size == text.size &&
           memcmp(event->values[field].text.data, text.data, text.size) == 0;
}

/* Equal but for case; nearly always it is the very word. Letters that are the same but for case differ in that bit at most. */
static inline bool word_is(const struct word *word, struct pen_span text)
{
    return word->text.size == text.size && ((word->text.data[0] ^ text.data[0]) & ~0x20) == 0 &&
           (memcmp(word->text.data, text.data, text.size) == 0 || strncasecmp(word->text.data, text.data, text.size) == 0);
}

static int code_id(const struct code *code, const struct pen_event *event)
{
    struct pen_span text;

    if (!event_has(event, code->field))
        return code->absent;
    text = event->values[code->field].text;
    for (const struct word *word = code->words; word->text.size > 0; word++)
        if (word_is(word, text))
            return word->id;
    return OTHER;
}

/* ASIM has no Critical, the source's own word tells. The Activity Log counts its levels, too: 1 is Critical. */
static bool is_critical(const struct pen_event *event)
{
    struct pen_span word = event_text(event, PEN_EVENT_ORIGINAL_SEVERITY);

    return pen_span_is_nocase(word, "Critical") || (event->kind == PEN_AUDIT && pen_span_is(word, "1"));
}

/* Where a word alone does not tell: a refused flow is logged as one that begins (B), and a write that answers 201 Created
 * made something. */
static int code_value(const struct code *code, const struct pen_event *event)
{
    int id = code_id(code, event);

    if (code->words == flow_states && event_is(event, PEN_DVC_ACTION, PEN_SPAN("Deny")))
        return 5;
    if (code->words == audit_types && id == 3 && event_has(event, PEN_HTTP_STATUS) &&
        event->values[PEN_HTTP_STATUS].number == 201)
        return 1;
    if (code->words == severities && is_critical(event))
        return 5;
    return id;
}

/* ---- Everything else: each writes one value and says whether there was one ---- */

typedef bool (*compute)(struct buf *out, const struct pen_event *event, const struct event_meta *meta);

/* Ticks to OCSF's integer milliseconds, rounded down before 1970 as after. */
static void write_ms(struct buf *out, int64_t ticks)
{
    buf_int(out, ticks / 10000 - (ticks % 10000 < 0));
}

static bool compute_text(struct buf *out, struct pen_span text)
{
    if (text.size == 0)
        return false;
    value_text(out, text);
    return true;
}

static const struct code *activity_code(enum pen_kind kind)
{
    static const struct code *const rows[PEN_KINDS] = {
        [PEN_NETWORK] = &codes[0], [PEN_AUDIT] = &codes[1], [PEN_ALERT] = &codes[2],
    };

    return rows[kind];
}

static bool compute_type_uid(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    const struct code *code = activity_code(event->kind);

    (void)meta;
    buf_int(out, (int64_t)class_uids[event->kind] * 100 + (code != NULL ? code_value(code, event) : 0));
    return true;
}

static bool compute_class_uid(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    buf_int(out, class_uids[event->kind]);
    return true;
}

static bool compute_category_uid(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    buf_int(out, class_uids[event->kind] / 1000);
    return true;
}

/* PEN_FIELDS: the event has no time of its own. */
static enum pen_field time_field(const struct pen_event *event)
{
    if (event_has(event, PEN_TIME_GENERATED))
        return PEN_TIME_GENERATED;
    return event_has(event, PEN_EVENT_START_TIME) ? PEN_EVENT_START_TIME : PEN_FIELDS;
}

static bool compute_time(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    enum pen_field field = time_field(event);

    write_ms(out, field != PEN_FIELDS ? event->values[field].number : meta->received_ticks);
    return true;
}

static bool compute_uid(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)event;
    return compute_text(out, (struct pen_span){ meta->id, meta->id_size });
}

static bool compute_product(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    return compute_text(out, event_text(event, PEN_EVENT_PRODUCT)) || compute_text(out, PEN_SPAN("Azure"));
}

static bool compute_vendor(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    return compute_text(out, event_text(event, PEN_EVENT_VENDOR));
}

static bool compute_account_type(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    if (!event_has(event, PEN_SUBSCRIPTION_ID))
        return false;
    BUF_LITERAL(out, "13");
    return true;
}

/* OCSF has no words for protocols but IANA's in lower case. */
static bool compute_protocol_name(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    size_t start = out->size;

    (void)meta;
    if (!compute_text(out, event_text(event, PEN_NETWORK_PROTOCOL)))
        return false;
    for (size_t i = start; i < out->size; i++)
        if (out->data[i] >= 'A' && out->data[i] <= 'Z')
            out->data[i] += 'a' - 'A';
    return true;
}

/* An operation by nobody is an operation by the service itself: that of the operation, which need not be the resource's
 * (Microsoft.ResourceHealth speaks of a Microsoft.Compute machine). */
static struct pen_span emitter(const struct pen_event *event)
{
    static const enum pen_field names[] = { PEN_TARGET_APP_NAME, PEN_RESOURCE_PROVIDER, PEN_EVENT_PRODUCT };

    for (size_t i = 0; i < COUNT(names); i++)
        if (event_text(event, names[i]).size > 0)
            return event_text(event, names[i]);
    return PEN_SPAN("Azure");
}

static bool compute_invoked_by(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    if (event_has(event, PEN_ACTOR_USER_ID) || event_has(event, PEN_ACTOR_USERNAME) ||
        event_has(event, PEN_ACTING_APP_ID) || event_has(event, PEN_ACTING_APP_NAME) || event_has(event, PEN_SESSION_UID))
        return false;
    return compute_text(out, emitter(event));
}

/* Audit: the class demands a source. Network: it demands one end at least. */
static bool compute_src_svc_name(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    if (event_has(event, PEN_SRC_IP_ADDR) || event_has(event, PEN_SRC_HOSTNAME) || event_has(event, PEN_SRC_DVC_ID))
        return false;
    return compute_text(out, emitter(event));
}

static bool compute_only_end(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    if (event_has(event, PEN_DST_IP_ADDR) || event_has(event, PEN_DST_HOSTNAME) || event_has(event, PEN_DST_DVC_ID))
        return false;
    return compute_src_svc_name(out, event, meta);
}

static bool compute_operation(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    return compute_text(out, event_text(event, PEN_EVENT_ORIGINAL_TYPE)) || compute_text(out, PEN_SPAN("Unknown"));
}

static bool compute_alert_message(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    return compute_text(out, event_text(event, PEN_ALERT_NAME));
}

static bool compute_first_seen(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    if (!event_has(event, PEN_EVENT_START_TIME))
        return false;
    write_ms(out, event->values[PEN_EVENT_START_TIME].number);
    return true;
}

static bool compute_last_seen(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    if (!event_has(event, PEN_EVENT_END_TIME))
        return false;
    write_ms(out, event->values[PEN_EVENT_END_TIME].number);
    return true;
}

static bool compute_analytic_type(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    if (!event_has(event, PEN_EVENT_ORIGINAL_TYPE) && !event_has(event, PEN_RULE_NAME))
        return false;
    BUF_LITERAL(out, "1");
    return true;
}

/* The next of a comma list, trimmed; empty at the end. */
static struct pen_span list_next(struct pen_span *list)
{
    struct pen_span item;
    const char *comma;

    while (list->size > 0) {
        comma = memchr(list->data, ',', list->size);
        item = (struct pen_span){ list->data, comma != NULL ? (size_t)(comma - list->data) : list->size };
        list->data += item.size + (comma != NULL);
        list->size -= item.size + (comma != NULL);
        item = pen_span_trim(item);
        if (item.size > 0)
            return item;
    }
    return (struct pen_span){ NULL, 0 };
}

/* `Local Groups (T1069.001)`, `T1069.001` or plain words, as a technique with name and uid. */
static void write_technique(struct buf *out, struct pen_span item)
{
    const char *open = item.size > 0 && item.data[item.size - 1] == ')' ? memrchr(item.data, '(', item.size) : NULL;
    struct pen_span name = item, uid = { NULL, 0 };

    if (open != NULL) {
        name = pen_span_trim((struct pen_span){ item.data, (size_t)(open - item.data) });
        uid = pen_span_trim((struct pen_span){ open + 1, item.size - (size_t)(open - item.data) - 2 });
    } else if (item.size > 1 && item.data[0] == 'T' && item.data[1] >= '0' && item.data[1] <= '9') {
        name = uid;
        uid = item;
    }
    if (name.size == 0 && uid.size == 0)
        name = item;
    if (uid.size > 0 && memchr(uid.data, '.', uid.size) != NULL)
        BUF_LITERAL(out, "{\"sub_technique\":{");
    else
        BUF_LITERAL(out, "{\"technique\":{");
    if (name.size > 0) {
        BUF_LITERAL(out, "\"name\":");
        value_text(out, name);
    }
    if (uid.size > 0) {
        if (name.size > 0)
            buf_char(out, ',');
        BUF_LITERAL(out, "\"uid\":");
        value_text(out, uid);
    }
    BUF_LITERAL(out, "}}");
}

static bool compute_attacks(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    struct pen_span tactics = event_text(event, PEN_ATTACK_TACTICS);
    struct pen_span techniques = event_text(event, PEN_ATTACK_TECHNIQUES), item;
    size_t start = out->size;

    (void)meta;
    buf_char(out, '[');
    while ((item = list_next(&tactics)).size > 0) {
        BUF_LITERAL(out, "{\"tactic\":{\"name\":");
        value_text(out, item);
        BUF_LITERAL(out, "}},");
    }
    while ((item = list_next(&techniques)).size > 0) {
        write_technique(out, item);
        buf_char(out, ',');
    }
    if (out->size == start + 1)
        return false;
    out->data[out->size - 1] = ']';
    return true;
}

static bool compute_evidences(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    struct pen_json entities = event->values[PEN_ENTITIES].json;
    struct pen_json_iter it;
    size_t start = out->size;

    (void)meta;
    if (!event_has(event, PEN_ENTITIES))
        return false;
    buf_char(out, '[');
    if (pen_json_type(&entities) == PEN_JSON_ARRAY) {
        for (it = pen_json_each(&entities); pen_json_next(&it);) {
            BUF_LITERAL(out, "{\"data\":");
            json_write(&it.value, out);
            BUF_LITERAL(out, "},");
        }
    } else {
        BUF_LITERAL(out, "{\"data\":");
        json_write(&entities, out);
        BUF_LITERAL(out, "},");
    }
    if (out->size == start + 1)
        return false;
    out->data[out->size - 1] = ']';
    return true;
}

static void write_observable(struct buf *out, const char *name, int type_id, const char *type, struct pen_span value)
{
    if (value.size == 0)
        return;
    BUF_LITERAL(out, "{\"name\":\"");
    buf_add(out, name, strlen(name));
    BUF_LITERAL(out, "\",\"type\":\"");
    buf_add(out, type, strlen(type));
    BUF_LITERAL(out, "\",\"type_id\":");
    buf_int(out, type_id);
    BUF_LITERAL(out, ",\"value\":");
    value_text(out, value);
    BUF_LITERAL(out, "},");
}

#define OBSERVABLE_IP 2

/* What an analyst searches an entity by. */
static const struct { const char *type, *member, *name; int type_id; const char *caption; } entity_keys[] = {
    { "ip", "Address", "evidences.data.Address", OBSERVABLE_IP, "IP Address" },
    { "host", "HostName", "evidences.data.HostName", 1, "Hostname" },
    { "account", "Name", "evidences.data.Name", 4, "User Name" },
    { "url", "Url", "evidences.data.Url", 6, "URL String" },
    { "file", "Name", "evidences.data.Name", 7, "File Name" },
    { "filehash", "Value", "evidences.data.Value", 8, "Hash" },
    { "process", "CommandLine", "evidences.data.CommandLine", 13, "Command Line" },
    { "azure-resource", "ResourceId", "evidences.data.ResourceId", 10, "Resource UID" },
};

static void write_entity_observables(struct buf *out, const struct pen_event *event)
{
    struct pen_json_iter it;

    if (!event_has(event, PEN_ENTITIES))
        return;
    for (it = pen_json_each(&event->values[PEN_ENTITIES].json); pen_json_next(&it);) {
        struct pen_json type = pen_json_get_nocase(&it.value, "type"), member;

        for (size_t i = 0; i < sizeof(entity_keys) / sizeof(*entity_keys); i++) {
            if (!pen_span_is_nocase(pen_json_value(&type), entity_keys[i].type))
                continue;
            member = pen_json_get_nocase(&it.value, entity_keys[i].member);
            if (entity_keys[i].type_id == OBSERVABLE_IP && pen_ip_version(pen_json_value(&member)) == 0)
                continue;                    /* masked, or a name: nothing that an address could be matched with */
            write_observable(out, entity_keys[i].name, entity_keys[i].type_id, entity_keys[i].caption,
                             pen_json_value(&member));
        }
    }
}

/* Not for flows: two addresses at fixed paths need no index, and it would cost every tuple 150 bytes. */
static bool compute_observables(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    size_t start = out->size;

    (void)meta;
    buf_char(out, '[');
    if (event->kind == PEN_AUDIT) {
        write_observable(out, "src_endpoint.ip", OBSERVABLE_IP, "IP Address", event_text(event, PEN_SRC_IP_ADDR));
        write_observable(out, "actor.user.name", 4, "User Name", event_text(event, PEN_ACTOR_USERNAME));
    }
    write_observable(out, "resources.uid", 10, "Resource UID",
                     event_text(event, event_has(event, PEN_OBJECT_ID) ? PEN_OBJECT_ID : PEN_RESOURCE_ID));
    write_entity_observables(out, event);
    if (out->size == start + 1)
        return false;
    out->data[out->size - 1] = ']';
    return true;
}

/* The part that is unknown, which may be one tuple of a large record, as text; the record itself where that is all of it. */
static bool compute_raw_data(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    const struct pen_json *raw = &event->values[PEN_RAW].json, *root = meta->record->json;
    struct buf text = { 0 };

    if (event_has(event, PEN_RAW_TEXT))
        return compute_text(out, event->values[PEN_RAW_TEXT].text);
    if (!event_has(event, PEN_RAW) || (root != NULL && raw->tree == root->tree && raw->at == root->at))
        return compute_text(out, meta->record->raw);
    if (pen_json_type(raw) == PEN_JSON_TEXT)
        return compute_text(out, pen_json_value(raw));
    json_write(raw, &text);
    value_text(out, (struct pen_span){ text.data, text.size });
    buf_free(&text);
    return true;
}

/* `uses` are the fields it has written in full. A text instead of a function stands as it is. */
#define USES_MAX 2
static const struct computed {
    uint32_t kinds;
    const char *path;
    compute compute;
    const char *text;
    enum pen_field uses[USES_MAX];
    uint32_t use_count;
} computed[] = {
    { U, "activity_id", NULL, "0", { 0 }, 0 },
    { ALL, "type_uid", compute_type_uid, NULL, { 0 }, 0 },
    { ALL, "class_uid", compute_class_uid, NULL, { 0 }, 0 },
    { ALL, "category_uid", compute_category_uid, NULL, { 0 }, 0 },
    { ALL, "time", compute_time, NULL, { 0 }, 0 },
    { ALL, "metadata.version", NULL, "\"1.8.0\"", { 0 }, 0 },
    { N, "metadata.profiles", NULL, "[\"cloud\",\"security_control\"]", { 0 }, 0 },
    { A | L | U, "metadata.profiles", NULL, "[\"cloud\"]", { 0 }, 0 },
    { ALL, "metadata.uid", compute_uid, NULL, { 0 }, 0 },
    { ALL, "metadata.product.name", compute_product, NULL, { 0 }, 0 },
    { ALL, "metadata.product.vendor_name", compute_vendor, NULL, { 0 }, 0 },
    { ALL, "cloud.provider", NULL, "\"Azure\"", { 0 }, 0 },
    { ALL, "cloud.account.type_id", compute_account_type, NULL, { 0 }, 0 },
    { N, "connection_info.protocol_name", compute_protocol_name, NULL, { PEN_NETWORK_PROTOCOL }, 1 },
    { A, "actor.invoked_by", compute_invoked_by, NULL, { 0 }, 0 },
    { A, "src_endpoint.svc_name", compute_src_svc_name, NULL, { 0 }, 0 },
    { N, "src_endpoint.svc_name", compute_only_end, NULL, { 0 }, 0 },
    { A, "api.operation", compute_operation, NULL, { 0 }, 0 },
    { L, "message", compute_alert_message, NULL, { 0 }, 0 },
    { L, "is_alert", NULL, "true", { 0 }, 0 },
    { L, "finding_info.uid", compute_uid, NULL, { 0 }, 0 },
    { L, "finding_info.first_seen_time", compute_first_seen, NULL, { 0 }, 0 },
    { L, "finding_info.last_seen_time", compute_last_seen, NULL, { 0 }, 0 },
    { L, "finding_info.analytic.type_id", compute_analytic_type, NULL, { 0 }, 0 },
    { L, "finding_info.attacks", compute_attacks, NULL, { PEN_ATTACK_TACTICS, PEN_ATTACK_TECHNIQUES }, 2 },
    { L, "evidences", compute_evidences, NULL, { PEN_ENTITIES }, 1 },
    { A | L, "observables", compute_observables, NULL, { 0 }, 0 },
    { U, "raw_data", compute_raw_data, NULL, { 0 }, 0 },
};

/* ---- The plan ---- */

#define DEPTH_MAX 4
#define KEY_MAX 96
#define STEPS_MAX 192

/* One attribute of a class. */
struct step {
    const char *path;
    enum { STEP_FIELD, STEP_CODE, STEP_SIBLING, STEP_COMPUTED } source;
    uint32_t order;                          /* in which it was added: the earlier wins */
    enum pen_field field;
    const struct code *code;
    const struct computed *computed;
    int home;                                /* index in homes, or -1 */
    uint32_t path_number;                    /* equal for steps of one path */
    uint32_t depth;                          /* objects around it */
    uint32_t common;                         /* of those, shared with the step before */
    bool array_leaf;
    bool in_array[DEPTH_MAX];                /* each object around it: one of an array? */
    bool port;                               /* 0 to 65535, or no port */
    uint32_t key_at[DEPTH_MAX + 1];          /* where in key the text from each depth on starts */
    uint32_t key_size;
    char key[KEY_MAX];                       /* "a":{"b":{"c": */
};

struct plan {
    struct step steps[STEPS_MAX];
    uint32_t count;
    uint64_t implied[FIELD_WORDS];
};
static struct plan plans[PEN_KINDS];

static bool path_starts(const char *path, const char *prefix)
{
    size_t size = strlen(prefix);

    return strncmp(path, prefix, size) == 0 && (path[size] == '\0' || path[size] == '.');
}

/* False: the class has no such attribute. *home is the innermost condition on it, or -1. */
static bool home_find(const char *path, enum pen_kind kind, int *home)
{
    size_t longest = 0;
    bool known = false, ours = false;

    *home = -1;
    for (size_t i = 0; i < COUNT(homes); i++) {
        if (!path_starts(path, homes[i].path))
            continue;
        known = true;
        if ((homes[i].kinds & 1u << kind) == 0)
            continue;
        ours = true;
        if (homes[i].needs[0] != PEN_FIELDS && strlen(homes[i].path) > longest) {
            longest = strlen(homes[i].path);
            *home = (int)i;
        }
    }
    return ours || !known;
}

/* Cuts the path into the keys and braces that lead to it. */
static void step_compile(struct step *step)
{
    const char *at = step->path, *end;
    struct pen_span name;
    bool array;
    int size;

    for (;; at = end + 1) {
        end = strchrnul(at, '.');
        name = (struct pen_span){ at, (size_t)(end - at) };
        array = name.size > 2 && memcmp(end - 2, "[]", 2) == 0;
        if (array)
            name.size -= 2;
        step->key_at[step->depth] = step->key_size;
        size = snprintf(step->key + step->key_size, KEY_MAX - step->key_size, "\"%.*s\":%s%s", (int)name.size, name.data,
                        array ? "[" : "", *end == '.' ? "{" : "");
        assert(size > 0 && step->key_size + (size_t)size < KEY_MAX);
        step->key_size += (uint32_t)size;
        if (*end == '\0')
            break;
        assert(step->depth < DEPTH_MAX);
        step->in_array[step->depth++] = array;
    }
    step->array_leaf = array;
    step->port = strcmp(at, "port") == 0;
}

static void plan_add(struct plan *plan, enum pen_kind kind, const struct step *step)
{
    struct step *to = &plan->steps[plan->count];

    assert(plan->count < STEPS_MAX);
    *to = *step;
    if (!home_find(to->path, kind, &to->home))
        return;
    if (to->source == STEP_COMPUTED)
        to->home = -1;                       /* it makes the object whole itself */
    to->order = plan->count++;
    step_compile(to);
}

static void plan_add_field(struct plan *plan, enum pen_kind kind, enum pen_field field)
{
    const char *path = fields[field].ocsf;

    for (size_t i = 0; i < COUNT(own_paths); i++)
        if (own_paths[i].field == field && (own_paths[i].kinds & 1u << kind))
            path = own_paths[i].path;
    if (path != NULL)
        plan_add(plan, kind, &(struct step){ .source = STEP_FIELD, .path = path, .field = field });
}

static int by_path(const void *a, const void *b)
{
    const struct step *left = a, *right = b;
    int r = strcmp(left->path, right->path);   /* '.' sorts before all that names are made of: objects stay together */

    return r != 0 ? r : (left->order > right->order) - (left->order < right->order);
}

/* Objects that both are in. */
static uint32_t steps_common(const struct step *left, const struct step *right)
{
    uint32_t depth = 0, size;

    while (depth < left->depth && depth < right->depth) {
        size = left->key_at[depth + 1];
        if (right->key_at[depth + 1] != size || memcmp(left->key, right->key, size) != 0)
            break;
        depth++;
    }
    return depth;
}

static void plan_compile(struct plan *plan, enum pen_kind kind)
{
    struct step *step;

    for (enum pen_field field = 0; field < PEN_FIELDS; field++)
        plan_add_field(plan, kind, field);
    for (size_t i = 0; i < COUNT(codes); i++) {
        if ((codes[i].kinds & 1u << kind) == 0)
            continue;
        plan_add(plan, kind, &(struct step){ .source = STEP_CODE, .path = codes[i].path, .code = &codes[i] });
        plan_add(plan, kind, &(struct step){ .source = STEP_SIBLING, .path = codes[i].sibling, .code = &codes[i] });
    }
    for (size_t i = 0; i < COUNT(computed); i++)
        if (computed[i].kinds & 1u << kind)
            plan_add(plan, kind, &(struct step){ .source = STEP_COMPUTED, .path = computed[i].path,
                                                 .computed = &computed[i] });
    qsort(plan->steps, plan->count, sizeof(*plan->steps), by_path);
    for (uint32_t i = 1; i < plan->count; i++) {
        step = &plan->steps[i];
        step->common = steps_common(step - 1, step);
        step->path_number = step[-1].path_number + (strcmp(step[-1].path, step->path) != 0);
    }
    for (size_t i = 0; i < COUNT(implied); i++)
        if (implied[i].kinds & 1u << kind)
            plan->implied[implied[i].field / 64] |= UINT64_C(1) << implied[i].field % 64;
}

static void plans_compile(void)
{
    for (int kind = 0; kind < PEN_KINDS; kind++)
        plan_compile(&plans[kind], (enum pen_kind)kind);
}

/* ---- Writing ---- */

struct writer {
    struct buf *out;
    const struct pen_event *event;
    const struct event_meta *meta;
    struct pattern *pattern;                 /* to be made, or NULL */
    bool fills;                              /* from a pattern */
    const struct step *last;                 /* written; its objects are open */
    uint64_t rest[FIELD_WORDS];              /* fields that have found no place yet */
    bool whole[COUNT(homes)];                /* which conditions hold for this event */
};

static void writer_begin(struct writer *writer)
{
    const struct plan *plan = &plans[writer->event->kind];

    for (size_t i = 0; i < FIELD_WORDS; i++)
        writer->rest[i] = writer->event->set[i] & ~plan->implied[i];
    for (size_t i = 0; i < COUNT(homes); i++) {
        writer->whole[i] = false;
        for (const enum pen_field *field = homes[i].needs; *field != PEN_FIELDS; field++)
            writer->whole[i] |= event_has(writer->event, *field);
    }
}

static void writer_took(struct writer *writer, enum pen_field field)
{
    writer->rest[field / 64] &= ~(UINT64_C(1) << field % 64);
}

#define IP_MAX 40                            /* bytes that OCSF has for an address */

static inline bool port_valid(int64_t number)
{
    return number >= 0 && number <= 65535;
}

/* False where OCSF would refuse the value: it stays in unmapped. */
static bool write_field(struct writer *writer, const struct step *step)
{
    const union value *value = &writer->event->values[step->field];
    enum field_type type = fields[step->field].type;

    if (step->port && !port_valid(value->number))
        return false;
    if (type == FIELD_IP && value->text.size > IP_MAX)
        return false;
    if (type == FIELD_TIME)
        write_ms(writer->out, value->number);
    else
        value_write(writer->out, type, value);
    writer_took(writer, step->field);
    return true;
}

static bool write_code(struct writer *writer, const struct step *step)
{
    int id = code_value(step->code, writer->event);

    if (id == OMIT || (id == OTHER && writer->fills))    /* a pattern has no place for the sibling */
        return false;
    if (!writer->fills && id == code_id(step->code, writer->event))
        writer_took(writer, step->code->field);
    buf_int(writer->out, id);
    return true;
}

static bool write_sibling(struct writer *writer, const struct step *step)
{
    if (code_value(step->code, writer->event) != OTHER)
        return false;
    value_text(writer->out, writer->event->values[step->code->field].text);
    return true;
}

static bool write_computed(struct writer *writer, const struct computed *row)
{
    if (row->text != NULL)
        buf_add(writer->out, row->text, strlen(row->text));
    else if (!row->compute(writer->out, writer->event, writer->meta))
        return false;
    for (uint32_t i = 0; i < row->use_count; i++)
        writer_took(writer, row->uses[i]);
    return true;
}

static bool write_value(struct writer *writer, const struct step *step)
{
    switch (step->source) {
    case STEP_FIELD:
        return write_field(writer, step);
    case STEP_CODE:
        return write_code(writer, step);
    case STEP_SIBLING:
        return write_sibling(writer, step);
    case STEP_COMPUTED:
        return write_computed(writer, step->computed);
    }
    return false;
}

/* Another has taken the path: a field that says just the same has been said. */
static void drop_equal(struct writer *writer, const struct step *step)
{
    const union value *mine, *theirs;

    if (step->source != STEP_FIELD || writer->last->source != STEP_FIELD || fields[step->field].type != FIELD_TEXT)
        return;
    if (pattern_moves(writer->pattern, step->field) || pattern_moves(writer->pattern, writer->last->field))
        pattern_refuse(writer->pattern);
    mine = &writer->event->values[step->field];
    theirs = &writer->event->values[writer->last->field];
    if (mine->text.size == theirs->text.size && memcmp(mine->text.data, theirs->text.data, mine->text.size) == 0)
        writer_took(writer, step->field);
}

static void close_down_to(struct writer *writer, uint32_t depth)
{
    for (uint32_t i = writer->last->depth; i > depth; i--) {
        buf_char(writer->out, '}');
        if (writer->last->in_array[i - 1])
            buf_char(writer->out, ']');
    }
}

/* How a hole is filled that is no value as value_write() has it: first the fields, then steps of the plan, by their index. */
enum {
    HOLE_MS = HOLE_OWN,                      /* a time */
    HOLE_IP, HOLE_PORT,                      /* in the bounds that write_field() holds them to */
    HOLE_ID,
    HOLE_PROTOCOL,
    HOLE_STEP,                               /* any other */
};

/* Fields whose words a flow's codes are made of, and which move from tuple to tuple. */
static const enum pen_field spoken[PATTERN_WORDS] = {
    PEN_NETWORK_DIRECTION, PEN_DVC_ACTION, PEN_EVENT_RESULT, PEN_EVENT_SEVERITY, PEN_FLOW_STATE,
};

static bool is_spoken(enum pen_field field)
{
    for (size_t i = 0; i < COUNT(spoken); i++)
        if (spoken[i] == field)
            return true;
    return false;
}

/* Does a field move that code_value() asks, whatever the code? */
static bool code_moves(const struct pattern *pattern, const struct code *code)
{
    return pattern_moves(pattern, code->field) || pattern_moves(pattern, PEN_DVC_ACTION) ||
           pattern_moves(pattern, PEN_HTTP_STATUS) || pattern_moves(pattern, PEN_EVENT_ORIGINAL_SEVERITY);
}

/* Is it made of nothing but spoken words and of what holds still? */
static bool code_is_spoken(const struct pattern *pattern, const struct code *code)
{
    return (is_spoken(code->field) || !pattern_moves(pattern, code->field)) &&
           !pattern_moves(pattern, PEN_HTTP_STATUS) && !pattern_moves(pattern, PEN_EVENT_ORIGINAL_SEVERITY);
}

/* The code of a step, or the one that type_uid ends with; NULL: neither. */
static const struct code *step_code(const struct step *step, enum pen_kind kind)
{
    if (step->source == STEP_COMPUTED && step->computed->compute == compute_type_uid)
        return activity_code(kind);
    return step->source == STEP_CODE ? step->code : NULL;
}

/* A number of one digit, or none: -1. */
static int code_digit(const struct code *code, const struct pen_event *event)
{
    int id = code_value(code, event);

    return id >= 0 && id <= 9 ? id : -1;
}

/* True: there is no hole. A code that holds still is part of the text, and so is a digit that is put right there. */
static bool step_note_code(const struct writer *writer, const struct step *step, uint32_t what)
{
    const struct code *code = step_code(step, writer->event->kind);

    if (code == NULL)
        return false;
    if (!code_moves(writer->pattern, code))
        return true;
    if (!code_is_spoken(writer->pattern, code) || code_digit(code, writer->event) < 0)
        return false;
    pattern_digit(writer->pattern, what, writer->out);
    return true;
}

/* Of the computed values that a flow has: what follows from its kind alone, from a field's being there, or from one field. */
static bool computed_moves(const struct pattern *pattern, const struct computed *row)
{
    if (row->compute == NULL || row->compute == compute_class_uid || row->compute == compute_category_uid ||
        row->compute == compute_account_type)
        return false;
    if (row->compute == compute_product)
        return pattern_moves(pattern, PEN_EVENT_PRODUCT);
    if (row->compute == compute_vendor)
        return pattern_moves(pattern, PEN_EVENT_VENDOR);
    return true;
}

static uint32_t field_hole(const struct step *step)
{
    switch (fields[step->field].type) {
    case FIELD_TIME:
        return HOLE_MS;
    case FIELD_IP:
        return HOLE_IP;
    default:
        return step->port ? HOLE_PORT : fields[step->field].type;
    }
}

/* Notes a value that may differ next time. Whether there is a value must not change: fill() and ocsf_shape() see to that. */
static void step_note(const struct writer *writer, const struct step *step, size_t start, bool written)
{
    uint32_t how = HOLE_STEP, what = (uint32_t)(step - plans[writer->event->kind].steps);

    switch (step->source) {
    case STEP_FIELD:
        if (!pattern_moves(writer->pattern, step->field))
            return;
        how = field_hole(step);
        what = step->field;
        break;
    case STEP_CODE:
        if (step_note_code(writer, step, what))
            return;
        break;
    case STEP_SIBLING:
        if (written && code_moves(writer->pattern, step->code))
            pattern_refuse(writer->pattern);
        return;
    case STEP_COMPUTED:
        if (!written || !computed_moves(writer->pattern, step->computed))
            return;                          /* in a flow, it is for want of a field that there is none */
        if (step_note_code(writer, step, what))
            return;
        if (step->computed->compute == compute_uid)
            how = HOLE_ID;
        if (step->computed->compute == compute_protocol_name)
            how = HOLE_PROTOCOL;
        if (step->computed->compute == compute_time && time_field(writer->event) != PEN_FIELDS) {
            how = HOLE_MS;
            what = time_field(writer->event);
        }
        break;
    }
    if (written)
        pattern_hole(writer->pattern, how, what, start, writer->out);
    else if (step->source == STEP_FIELD)
        pattern_refuse(writer->pattern);
}

/* `common`: objects shared with the last step written. */
static bool write_step(struct writer *writer, const struct step *step, uint32_t common)
{
    size_t start = writer->out->size, value;
    bool written;

    if (writer->last != NULL) {
        close_down_to(writer, common);
        buf_char(writer->out, ',');
    }
    buf_add(writer->out, step->key + step->key_at[common], step->key_size - step->key_at[common]);
    value = writer->out->size;
    written = write_value(writer, step);
    if (writer->pattern != NULL)
        step_note(writer, step, value, written);
    if (!written) {
        writer->out->size = start;
        return false;
    }
    if (step->array_leaf)
        buf_char(writer->out, ']');
    return true;
}

static pthread_once_t plans_once = PTHREAD_ONCE_INIT;

static uint32_t ocsf_write(const struct pen_event *event, const struct event_meta *meta, struct buf *out, struct pattern *pattern)
{
    struct writer writer = { .out = out, .event = event, .meta = meta, .pattern = pattern };
    const struct plan *plan = &plans[event->kind];
    const struct step *step;
    uint32_t common = 0;
    size_t start;

    pthread_once(&plans_once, plans_compile);
    if (value_twins_move(event, pattern))
        pattern_refuse(pattern);
    writer_begin(&writer);
    buf_char(out, '{');
    for (step = plan->steps; step < plan->steps + plan->count; step++) {
        common = common < step->common ? common : step->common;
        if (step->source == STEP_FIELD && !event_has(event, step->field))
            continue;
        if (step->home >= 0 && !writer.whole[step->home])
            continue;
        if (writer.last != NULL && writer.last->path_number == step->path_number) {
            drop_equal(&writer, step);
            continue;
        }
        if (write_step(&writer, step, common)) {
            writer.last = step;
            common = step->depth;
        }
    }
    close_down_to(&writer, 0);
    value_drop_twins(event, writer.rest);
    start = out->size;
    BUF_LITERAL(out, ",\"unmapped\":{");
    if (value_write_rest(out, event, writer.rest, NULL, pattern))
        buf_char(out, '}');
    else
        out->size = start;
    buf_char(out, '}');
    return 0;
}

/* A state that gives way to the action stays in unmapped: such flows have patterns of their own. The severities, which give way,
 * too, are twins: where they move there is no pattern. */
static uint32_t ocsf_shape(const struct pen_event *event)
{
    return event_is(event, PEN_DVC_ACTION, PEN_SPAN("Deny")) && code_id(&codes[0], event) != code_value(&codes[0], event);
}

/* Keeps the text, too. */
static void write_ms_stamp(struct buf *out, int64_t ticks, struct stamp *stamp)
{
    size_t start = out->size;

    buf_reserve(out, sizeof(stamp->text));
    write_ms(out, ticks);
    stamp->ticks = ticks;
    stamp->size = (uint32_t)(out->size - start);
    memcpy(stamp->text, out->data + start, stamp->size);
}

/* The first time of the event is its own, which others may repeat; what differs is likely to be when the record was logged. */
static void fill_ms(struct buf *out, int64_t ticks, struct stamp *own, struct pattern *pattern)
{
    if (!stamp_write(out, ticks, own) && !stamp_write(out, ticks, &pattern->stamp))
        write_ms_stamp(out, ticks, own->size == 0 ? own : &pattern->stamp);
}

static bool fill_step(struct buf *out, uint32_t step, const struct pen_event *event, const struct event_meta *meta)
{
    struct writer writer = { .out = out, .event = event, .meta = meta, .fills = true };

    return write_value(&writer, &plans[event->kind].steps[step]);
}

static inline bool fill_hole(struct buf *out, const struct hole *hole, struct stamp *own, struct pattern *pattern,
                             const struct pen_event *event, const struct event_meta *meta)
{
    const union value *value = hole->how < HOLE_ID ? &event->values[hole->what] : NULL;

    switch (hole->how) {
    case HOLE_MS:
        fill_ms(out, value->number, own, pattern);
        return true;
    case HOLE_IP:
        value_plain(out, value->text);
        return value->text.size <= IP_MAX;
    case HOLE_PORT:
        buf_int(out, value->number);
        return port_valid(value->number);
    case HOLE_ID:
        value_plain(out, (struct pen_span){ meta->id, meta->id_size });
        return true;
    case HOLE_PROTOCOL:
        return compute_protocol_name(out, event, meta);
    case HOLE_STEP:
        return fill_step(out, hole->what, event, meta);
    default:
        value_fill(out, hole, event);
        return true;
    }
}

/* False: one is more than a digit, or nothing at all. */
static bool spell(struct spelled *spelled, const struct pattern *pattern, const struct pen_event *event)
{
    for (uint32_t i = 0; i < pattern->digit_count; i++) {
        int digit = code_digit(step_code(&plans[event->kind].steps[pattern->digits[i].what], event->kind), event);

        if (digit < 0)
            return false;
        spelled->digits[i] = (char)('0' + digit);
    }
    spelled->known = true;
    return true;
}

static bool fill_digits(struct pattern *pattern, const struct pen_event *event)
{
    struct pattern_words words = { .sizes = 0 };
    struct spelled *spelled;

    for (uint32_t i = 0; i < PATTERN_WORDS; i++) {
        struct pen_span text = event->values[spoken[i]].text;

        if (!event_has(event, spoken[i]))
            continue;
        if (text.size == 0 || text.size > WORD_MAX)
            return false;
        words_add(&words, i, text);
    }
    spelled = pattern_spelled(pattern, &words);
    if (!spelled->known && !spell(spelled, pattern, event))
        return false;
    pattern_spell(pattern, spelled);
    return true;
}

static bool ocsf_fill(struct pattern *pattern, const struct pen_event *event, const struct event_meta *meta,
                      struct buf *out)
{
    size_t from = 0;
    struct stamp own = { .size = 0 };

    if (!fill_digits(pattern, event))
        return false;
    for (uint32_t i = 0; i < pattern->hole_count; i++) {
        const struct hole *hole = &pattern->holes[i];

        pattern_copy(pattern, from, hole->at, out);
        from = hole->at;
        if (!fill_hole(out, hole, &own, pattern, event, meta))
            return false;
    }
    pattern_copy(pattern, from, pattern->text.size, out);
    return true;
}

/* ---- As a table: attributes of the top are columns ---- */

/* What the functions of `computed` write there; lists and objects are dynamic. */
static const struct { const char *path; enum column_type type; } computed_columns[] = {
    { "time", COLUMN_LONG }, { "type_uid", COLUMN_LONG }, { "class_uid", COLUMN_INT }, { "category_uid", COLUMN_INT },
    { "activity_id", COLUMN_INT }, { "is_alert", COLUMN_BOOLEAN }, { "message", COLUMN_STRING }, { "raw_data", COLUMN_STRING },
    { "evidences", COLUMN_DYNAMIC }, { "observables", COLUMN_DYNAMIC },
};

static enum column_type step_column(const struct step *step)
{
    size_t i = 0;

    if (step->depth > 0 || step->array_leaf)
        return COLUMN_DYNAMIC;
    switch (step->source) {
    case STEP_FIELD:
        return fields[step->field].type == FIELD_TIME ? COLUMN_LONG : column_of_field(fields[step->field].type);
    case STEP_CODE:
        return COLUMN_INT;
    case STEP_SIBLING:
        return COLUMN_STRING;
    case STEP_COMPUTED:
        while (i < COUNT(computed_columns) && strcmp(computed_columns[i].path, step->path) != 0)
            i++;
        assert(i < COUNT(computed_columns));
        return computed_columns[i].type;
    }
    abort();
}

static void ocsf_table(enum pen_kind kind, struct table *table)
{
    const struct plan *plan = &plans[kind];
    char name[KEY_MAX];

    pthread_once(&plans_once, plans_compile);
    *table = (struct table){ .transform = "source | extend TimeGenerated = datetime(1970-01-01) + 1ms * ['time']" };
    for (const struct step *step = plan->steps; step < plan->steps + plan->count; step++) {
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(step->path, ".["), step->path);
        table_add(table, name, step_column(step));
    }
    table_add(table, "unmapped", COLUMN_DYNAMIC);
    table_sort(table);
}

const struct schema ocsf_schema = {
    .name = "ocsf", .write = ocsf_write, .shape = ocsf_shape, .fill = ocsf_fill, .table = ocsf_table,
};
