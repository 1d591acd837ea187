/*
 * ocsf_values.c - what OCSF wants said in its own way: words of ours as its numbers, and values that no single field holds.
 */
#include "daemon/schema/ocsf_inside.h"

#include <strings.h>

static const uint32_t class_uids[PEN_KINDS] = {
    [PEN_UNKNOWN] = 0, [PEN_NETWORK] = 4001, [PEN_AUDIT] = 6003, [PEN_ALERT] = 2004,
};

/* ---- Words that become numbers ---- */

#define WORD(text, id) { { text, sizeof(text) - 1 }, id }
#define WORDS_END { { NULL, 0 }, 0 }

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

const struct code ocsf_codes[] = {
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
const size_t ocsf_code_count = COUNT(ocsf_codes);

/* Equal but for case; nearly always it is the very word. Letters that are the same but for case differ in that bit at most. */
static inline bool word_is(const struct word *word, struct pen_span text)
{
    return word->text.size == text.size && ((word->text.data[0] ^ text.data[0]) & ~0x20) == 0 &&
           (memcmp(word->text.data, text.data, text.size) == 0 || strncasecmp(word->text.data, text.data, text.size) == 0);
}

int ocsf_code_id(const struct code *code, const struct pen_event *event)
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
int ocsf_code_value(const struct code *code, const struct pen_event *event)
{
    int id = ocsf_code_id(code, event);

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

void ocsf_write_ms(struct buf *out, int64_t ticks)
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

const struct code *ocsf_activity_code(enum pen_kind kind)
{
    static const struct code *const rows[PEN_KINDS] = {
        [PEN_NETWORK] = &ocsf_codes[0], [PEN_AUDIT] = &ocsf_codes[1], [PEN_ALERT] = &ocsf_codes[2],
    };

    return rows[kind];
}

bool ocsf_compute_type_uid(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    const struct code *code = ocsf_activity_code(event->kind);

    (void)meta;
    buf_int(out, (int64_t)class_uids[event->kind] * 100 + (code != NULL ? ocsf_code_value(code, event) : 0));
    return true;
}

bool ocsf_compute_class_uid(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    buf_int(out, class_uids[event->kind]);
    return true;
}

bool ocsf_compute_category_uid(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    buf_int(out, class_uids[event->kind] / 1000);
    return true;
}

enum pen_field ocsf_time_field(const struct pen_event *event)
{
    if (event_has(event, PEN_TIME_GENERATED))
        return PEN_TIME_GENERATED;
    return event_has(event, PEN_EVENT_START_TIME) ? PEN_EVENT_START_TIME : PEN_FIELDS;
}

bool ocsf_compute_time(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    enum pen_field field = ocsf_time_field(event);

    ocsf_write_ms(out, field != PEN_FIELDS ? event->values[field].number : meta->received_ticks);
    return true;
}

bool ocsf_compute_uid(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)event;
    return compute_text(out, (struct pen_span){ meta->id, meta->id_size });
}

bool ocsf_compute_product(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    return compute_text(out, event_text(event, PEN_EVENT_PRODUCT)) || compute_text(out, PEN_SPAN("Azure"));
}

bool ocsf_compute_vendor(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    return compute_text(out, event_text(event, PEN_EVENT_VENDOR));
}

bool ocsf_compute_account_type(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    if (!event_has(event, PEN_SUBSCRIPTION_ID))
        return false;
    BUF_LITERAL(out, "13");
    return true;
}

/* OCSF has no words for protocols but IANA's in lower case. */
bool ocsf_compute_protocol_name(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
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
    ocsf_write_ms(out, event->values[PEN_EVENT_START_TIME].number);
    return true;
}

static bool compute_last_seen(struct buf *out, const struct pen_event *event, const struct event_meta *meta)
{
    (void)meta;
    if (!event_has(event, PEN_EVENT_END_TIME))
        return false;
    ocsf_write_ms(out, event->values[PEN_EVENT_END_TIME].number);
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

const struct computed ocsf_computed[] = {
    { U, "activity_id", NULL, "0", { 0 }, 0 },
    { ALL, "type_uid", ocsf_compute_type_uid, NULL, { 0 }, 0 },
    { ALL, "class_uid", ocsf_compute_class_uid, NULL, { 0 }, 0 },
    { ALL, "category_uid", ocsf_compute_category_uid, NULL, { 0 }, 0 },
    { ALL, "time", ocsf_compute_time, NULL, { 0 }, 0 },
    { ALL, "metadata.version", NULL, "\"1.8.0\"", { 0 }, 0 },
    { N, "metadata.profiles", NULL, "[\"cloud\",\"security_control\"]", { 0 }, 0 },
    { A | L | U, "metadata.profiles", NULL, "[\"cloud\"]", { 0 }, 0 },
    { ALL, "metadata.uid", ocsf_compute_uid, NULL, { 0 }, 0 },
    { ALL, "metadata.product.name", ocsf_compute_product, NULL, { 0 }, 0 },
    { ALL, "metadata.product.vendor_name", ocsf_compute_vendor, NULL, { 0 }, 0 },
    { ALL, "cloud.provider", NULL, "\"Azure\"", { 0 }, 0 },
    { ALL, "cloud.account.type_id", ocsf_compute_account_type, NULL, { 0 }, 0 },
    { N, "connection_info.protocol_name", ocsf_compute_protocol_name, NULL, { PEN_NETWORK_PROTOCOL }, 1 },
    { A, "actor.invoked_by", compute_invoked_by, NULL, { 0 }, 0 },
    { A, "src_endpoint.svc_name", compute_src_svc_name, NULL, { 0 }, 0 },
    { N, "src_endpoint.svc_name", compute_only_end, NULL, { 0 }, 0 },
    { A, "api.operation", compute_operation, NULL, { 0 }, 0 },
    { L, "message", compute_alert_message, NULL, { 0 }, 0 },
    { L, "is_alert", NULL, "true", { 0 }, 0 },
    { L, "finding_info.uid", ocsf_compute_uid, NULL, { 0 }, 0 },
    { L, "finding_info.first_seen_time", compute_first_seen, NULL, { 0 }, 0 },
    { L, "finding_info.last_seen_time", compute_last_seen, NULL, { 0 }, 0 },
    { L, "finding_info.analytic.type_id", compute_analytic_type, NULL, { 0 }, 0 },
    { L, "finding_info.attacks", compute_attacks, NULL, { PEN_ATTACK_TACTICS, PEN_ATTACK_TECHNIQUES }, 2 },
    { L, "evidences", compute_evidences, NULL, { PEN_ENTITIES }, 1 },
    { A | L, "observables", compute_observables, NULL, { 0 }, 0 },
    { U, "raw_data", compute_raw_data, NULL, { 0 }, 0 },
};
const size_t ocsf_computed_count = COUNT(ocsf_computed);
