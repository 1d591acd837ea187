/* azure.c - see azure.h. */
#include "parsers/azure.h"

#include <string.h>
#include <strings.h>

/* JSON text in JSON text: every relay on the way may have quoted it once more. Three levels were seen. */
#define TEXT_DEPTH_MAX 3

/* ---- Objects -------------------------------------------------------------------------------------------------- */

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* Equal, byte for byte. Most names are not, and their length or their ends tell. */
static inline bool is_name(struct pen_span name, const char *wanted, size_t size)
{
    return name.size == size && name.data[0] == wanted[0] && memcmp(name.data, wanted, size) == 0;
}

static inline bool letters_alike(char letter, char wanted)
{
    return ((letter ^ wanted) & ~0x20) == 0 || letter == '_';
}

/* Whether spelled_like() need be asked. */
static inline bool may_be_like(struct pen_span name, const char *wanted, size_t size)
{
    return name.size >= size && letters_alike(name.data[0], wanted[0]) &&
           letters_alike(name.data[name.size - 1], wanted[size - 1]);
}

/* A bit for the letter a name begins with, the same for either case. */
static inline uint32_t initial(char letter)
{
    return UINT32_C(1) << (letter & 31);
}

/* The bits of all lookups that a member of that name could answer: spelled_like() passes over underscores. */
static inline uint32_t initials_of(struct pen_span name)
{
    if (name.size == 0)
        return 0;
    return name.data[0] == '_' ? UINT32_MAX : initial(name.data[0]);
}

/* Equal but for case and underscores, wherever they stand in the name. */
static bool spelled_like(struct pen_span name, const char *wanted)
{
    size_t i;

    for (i = 0; i < name.size; i++) {
        if (name.data[i] == '_' && *wanted != '_')
            continue;
        if (fold(name.data[i]) != fold(*wanted) || *wanted == '\0')
            return false;
        wanted++;
    }
    return *wanted == '\0';
}

static void object_add(struct azure_object *object, struct pen_span name, struct pen_json value)
{
    object->members[object->count++] = (struct azure_member){ name, value, false };
    object->initials |= initials_of(name);
}

bool azure_open(struct azure_object *object, struct pen_out *out, const struct pen_json *node)
{
    struct pen_span text = pen_span_trim(pen_json_value(node));
    struct pen_json root = *node;
    struct pen_json_iter it;
    size_t count;

    *object = (struct azure_object){ .out = out };
    for (int depth = 0; depth < TEXT_DEPTH_MAX && text.size > 0; depth++) {
        if (text.data[0] != '{' && text.data[0] != '"')
            break;
        root = pen_out_parse(out, text);
        text = pen_span_trim(pen_json_value(&root));
    }
    if (pen_json_type(&root) != PEN_JSON_OBJECT)
        return false;
    count = pen_json_count(&root);
    if (count > AZURE_MEMBERS_MAX)
        return false;
    object->members = (struct azure_member *)(void *)pen_out_alloc(out, count * sizeof(*object->members));
    if (object->members == NULL)
        return false;
    for (it = pen_json_each(&root); pen_json_next(&it);)
        object_add(object, it.name, it.value);
    return true;
}

static struct azure_member *object_find(const struct azure_object *object, const char *name)
{
    struct azure_member *alike = NULL;
    size_t size, i;

    if ((object->initials & initial(name[0])) == 0)
        return NULL;                 /* most lookups end here: a record has few of the names that one may have */
    size = strlen(name);
    for (i = 0; i < object->count; i++) {
        struct azure_member *member = &object->members[i];

        if (!may_be_like(member->name, name, size))
            continue;
        if (is_name(member->name, name, size))
            return member;
        if (alike == NULL && spelled_like(member->name, name))
            alike = member;
    }
    return alike;
}

bool azure_open_member(struct azure_object *inner, struct azure_object *object, const char *name)
{
    struct azure_member *member = object_find(object, name);
    struct pen_json none = { 0 };

    if (!azure_open(inner, object->out, member != NULL ? &member->value : &none))
        return false;
    member->used = true;
    return true;
}

bool azure_open_properties(struct azure_object *properties, struct azure_object *record)
{
    struct azure_object inner;
    struct azure_member *nested, *both;

    if (!azure_open_member(properties, record, "properties"))
        return false;
    nested = object_find(properties, "eventProperties");
    if (nested == NULL || !azure_open(&inner, record->out, &nested->value))
        return true;
    both = (struct azure_member *)(void *)pen_out_alloc(record->out, (properties->count + inner.count) * sizeof(*both));
    if (both == NULL)
        return true;
    nested->used = true;
    memcpy(both, properties->members, properties->count * sizeof(*both));
    if (inner.count > 0)
        memcpy(both + properties->count, inner.members, inner.count * sizeof(*both));
    properties->members = both;
    properties->count += inner.count;
    properties->initials |= inner.initials;
    return true;
}

struct pen_json azure_peek(const struct azure_object *object, const char *name)
{
    struct azure_member *member = object_find(object, name);

    return member != NULL ? member->value : (struct pen_json){ 0 };
}

void azure_use(struct azure_object *object, const char *name)
{
    struct azure_member *member = object_find(object, name);

    if (member != NULL)
        member->used = true;
}

void azure_unuse(struct azure_object *object, const char *name)
{
    struct azure_member *member = object_find(object, name);

    if (member != NULL)
        member->used = false;
}

/* The half of {"value":…,"localizedValue":…} that says something; `value` first, as the other depends on who asked. */
static struct pen_json worded(const struct pen_json *node)
{
    struct pen_json half;

    if (pen_json_type(node) != PEN_JSON_OBJECT)
        return *node;
    half = pen_json_get(node, "value");
    if (pen_json_type(&half) <= PEN_JSON_NULL || (pen_json_type(&half) == PEN_JSON_TEXT && pen_json_value(&half).size == 0))
        return azure_find(node, "localizedValue");
    return half;
}

static bool is_worded(const struct pen_json *node)
{
    struct pen_json_iter it;

    if (pen_json_type(node) != PEN_JSON_OBJECT)
        return false;
    for (it = pen_json_each(node); pen_json_next(&it);)
        if (!spelled_like(it.name, "value") && !spelled_like(it.name, "localizedValue"))
            return false;
    return true;
}

struct pen_span azure_text(struct azure_object *object, const char *name)
{
    struct azure_member *member = object_find(object, name);
    struct pen_span none = { 0 };
    struct pen_json node;

    if (member == NULL)
        return none;
    node = is_worded(&member->value) ? worded(&member->value) : member->value;
    switch (pen_json_type(&node)) {
    case PEN_JSON_TEXT:
        member->used = true;
        return pen_json_value(&node);
    case PEN_JSON_BOOL:
    case PEN_JSON_INT:
    case PEN_JSON_UINT:
    case PEN_JSON_REAL:
        member->used = true;
        return pen_out_json(object->out, &node);
    case PEN_JSON_MISSING:
    case PEN_JSON_NULL:
        member->used = true;
        return none;
    case PEN_JSON_ARRAY:
    case PEN_JSON_OBJECT:
        break;
    }
    return none;
}

struct pen_span azure_text_of(struct azure_object *object, const char *const *names)
{
    struct pen_span text = { 0 };

    for (; *names != NULL && text.size == 0; names++)
        text = azure_text(object, *names);
    return text;
}

bool azure_take(struct azure_object *object, struct pen_event *event, enum pen_field field, const char *name)
{
    struct azure_member *member = object_find(object, name);
    struct pen_json node;

    if (member == NULL)
        return false;
    node = is_worded(&member->value) ? worded(&member->value) : member->value;
    member->used = true;
    if (pen_set_node(event, field, &node))
        return true;
    /* Not what the field takes: a leftover after all, unless it says nothing. */
    member->used = pen_json_type(&node) <= PEN_JSON_NULL ||
                   (pen_json_type(&node) == PEN_JSON_TEXT && pen_json_value(&node).size == 0);
    return false;
}

bool azure_take_of(struct azure_object *object, struct pen_event *event, enum pen_field field, const char *const *names)
{
    for (; *names != NULL; names++)
        if (azure_take(object, event, field, *names))
            return true;
    return false;
}

static bool says_something(const struct pen_json *node)
{
    struct pen_json_iter it = pen_json_each(node);
    enum pen_json_type type = pen_json_type(node);

    return type > PEN_JSON_NULL && (type < PEN_JSON_ARRAY || pen_json_next(&it));
}

bool azure_is_same(struct pen_span a, struct pen_span b)
{
    return a.size == b.size && (a.size == 0 || strncasecmp(a.data, b.data, a.size) == 0);
}

/* The other half of a pair whose `value` was used, where it says something else. */
static void keep_localized(const struct azure_object *object, const struct azure_member *member,
                           struct pen_event *event)
{
    struct pen_json value = pen_json_get(&member->value, "value");
    struct pen_json localized = azure_find(&member->value, "localizedValue");
    struct pen_span one = pen_json_value(&value), other = pen_json_value(&localized);

    if (one.size == 0 || other.size == 0 || azure_is_same(one, other))
        return;
    pen_add_text(event, pen_out_text(object->out, "%.*s.localizedValue", (int)member->name.size, member->name.data),
                 other);
}

void azure_keep(const struct azure_object *object, struct pen_event *event)
{
    for (size_t i = 0; i < object->count; i++) {
        const struct azure_member *member = &object->members[i];

        if (member->used && is_worded(&member->value))
            keep_localized(object, member, event);
        if (!member->used && says_something(&member->value))
            pen_add_json(event, member->name, &member->value);
    }
}

struct pen_json azure_find(const struct pen_json *node, const char *name)
{
    struct pen_json_iter it = pen_json_each(node);
    struct pen_json alike = { 0 };
    size_t size = strlen(name);

    while (it.object && pen_json_next(&it)) {
        if (!may_be_like(it.name, name, size))
            continue;
        if (is_name(it.name, name, size))
            return it.value;
        if (alike.tree == NULL && spelled_like(it.name, name))
            alike = it.value;
    }
    return alike;
}

struct pen_span azure_find_text(const struct pen_json *node, const char *name)
{
    struct pen_json member = azure_find(node, name);

    member = worded(&member);
    return pen_json_value(&member);
}

/* ---- Resource ids --------------------------------------------------------------------------------------------- */

/* The next segment between slashes; false at the end. */
static bool segment_next(struct pen_span *rest, struct pen_span *segment)
{
    const char *slash;

    while (rest->size > 0 && rest->data[0] == '/') {
        rest->data++;
        rest->size--;
    }
    if (rest->size == 0)
        return false;
    slash = memchr(rest->data, '/', rest->size);
    segment->data = rest->data;
    segment->size = slash != NULL ? (size_t)(slash - rest->data) : rest->size;
    rest->data += segment->size;
    rest->size -= segment->size;
    return true;
}

/* ns/type[/type…] from what follows the provider: type and name take turns. */
static void id_split_type(struct azure_id *id, struct pen_out *out, struct pen_span rest)
{
    char *type = pen_out_alloc(out, id->provider.size + rest.size + 2);
    struct pen_span segment;
    size_t size = id->provider.size;

    if (type == NULL)
        return;
    memcpy(type, id->provider.data, size);
    while (segment_next(&rest, &segment)) {
        type[size++] = '/';
        memcpy(type + size, segment.data, segment.size);
        size += segment.size;
        if (segment_next(&rest, &segment))
            id->name = segment;
    }
    if (size > id->provider.size)
        id->type = (struct pen_span){ type, size };
}

struct azure_id azure_id_split(struct pen_out *out, struct pen_span id)
{
    struct azure_id parts = { 0 };
    struct pen_span rest = id, behind = { 0 }, segment;

    while (segment_next(&rest, &segment)) {
        if (pen_span_is_nocase(segment, "subscriptions") && parts.provider.size == 0)
            segment_next(&rest, &parts.subscription);
        else if (pen_span_is_nocase(segment, "resourceGroups") && parts.provider.size == 0)
            segment_next(&rest, &parts.group);
        else if (pen_span_is_nocase(segment, "providers") && segment_next(&rest, &parts.provider))
            behind = rest;
    }
    if (parts.provider.size > 0)
        id_split_type(&parts, out, behind);
    else
        parts.name = parts.group.size > 0 ? parts.group : parts.subscription;
    return parts;
}

static void set_if_unset(struct pen_event *event, enum pen_field field, struct pen_span text)
{
    if (!pen_is_set(event, field))
        pen_set_text(event, field, text);
}

void azure_id_set(struct pen_event *event, const struct azure_id *id)
{
    set_if_unset(event, PEN_SUBSCRIPTION_ID, id->subscription);
    set_if_unset(event, PEN_RESOURCE_GROUP, id->group);
    set_if_unset(event, PEN_RESOURCE_PROVIDER, id->provider);
    set_if_unset(event, PEN_RESOURCE_TYPE, id->type);
}

/* ---- Small values --------------------------------------------------------------------------------------------- */

static bool port_read(struct pen_span text, int64_t *port)
{
    *port = 0;
    if (text.size == 0 || text.size > 5)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        *port = *port * 10 + (text.data[i] - '0');
    }
    return *port <= 65535;
}

bool azure_ip_set(struct pen_event *event, enum pen_field ip, enum pen_field port, struct pen_span text)
{
    struct pen_span address, digits;
    const char *colon;
    int64_t number;

    text = pen_span_trim(text);
    if (text.size > 2 && text.data[0] == '[' && text.data[text.size - 1] == ']')
        text = (struct pen_span){ text.data + 1, text.size - 2 };
    if (pen_set_ip(event, ip, text))
        return true;
    colon = text.size > 0 ? memrchr(text.data, ':', text.size) : NULL;
    if (colon == NULL)
        return false;
    address = (struct pen_span){ text.data, (size_t)(colon - text.data) };
    digits = (struct pen_span){ colon + 1, text.size - address.size - 1 };
    if (address.size > 2 && address.data[0] == '[' && address.data[address.size - 1] == ']')
        address = (struct pen_span){ address.data + 1, address.size - 2 };
    else if (pen_ip_version(address) != 4)
        return false;
    return port_read(digits, &number) && pen_set_ip(event, ip, address) && pen_set_int(event, port, number);
}

/* Seconds have 10 digits from 2001 to 2286, milliseconds 13. Other numbers are no times: a guess would be worse. */
static bool count_read(struct pen_span text, int64_t *ticks)
{
    int64_t count = 0;

    if (text.size != 10 && text.size != 13)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        count = count * 10 + (text.data[i] - '0');
    }
    *ticks = count * (text.size == 10 ? 10000000 : 10000);
    return true;
}

bool azure_take_count(struct azure_object *object, struct pen_event *event, enum pen_field field, const char *name,
                      int64_t *ticks)
{
    struct pen_span text = azure_text(object, name);

    if (text.size == 0)
        return false;
    if (count_read(pen_span_trim(text), ticks))
        return pen_set_ticks(event, field, *ticks);
    azure_unuse(object, name);
    return false;
}

void azure_times_fill(struct pen_event *event, const struct pen_record *record, int64_t ticks, bool known)
{
    if (!known)
        ticks = (int64_t)record->received_ms * 10000;
    if (!pen_is_set(event, PEN_EVENT_START_TIME))
        pen_set_ticks(event, PEN_EVENT_START_TIME, ticks);
    if (!pen_is_set(event, PEN_EVENT_END_TIME))
        pen_set_ticks(event, PEN_EVENT_END_TIME, ticks);
}

bool azure_contains(struct pen_span text, const char *word)
{
    size_t size = strlen(word);

    for (size_t i = 0; i + size <= text.size; i++)
        if (fold(text.data[i]) == fold(word[0]) && strncasecmp(text.data + i, word, size) == 0)
            return true;
    return false;
}

bool azure_ends_with(struct pen_span text, const char *end)
{
    size_t size = strlen(end);

    return text.size >= size && strncasecmp(text.data + text.size - size, end, size) == 0;
}

const char *azure_word(const struct azure_word *table, struct pen_span text)
{
    for (; table->from != NULL && text.size > 0; table++)
        if (fold(text.data[0]) == fold(table->from[0]) && pen_span_is_nocase(text, table->from))
            return table->to;
    return NULL;
}

void azure_set(struct pen_event *event, enum pen_field field, const char *text)
{
    if (text != NULL)
        pen_set_text(event, field, (struct pen_span){ text, strlen(text) });
}

/* ---- Whose record it is ---------------------------------------------------------------------------------------- */

/* A record's members, which the questions below look at many times: walked once, as long as they are not more than that. */
#define VIEW_MEMBERS 48
struct view {
    const struct pen_json *json;
    struct azure_object object;
    struct azure_member members[VIEW_MEMBERS];
};

static void view_open(struct view *view, const struct pen_json *json)
{
    struct pen_json_iter it = pen_json_each(json);

    view->json = json;
    view->object = (struct azure_object){ .members = view->members };
    while (it.object && pen_json_next(&it)) {
        if (view->object.count == VIEW_MEMBERS) {
            view->object.members = NULL;
            return;
        }
        object_add(&view->object, it.name, it.value);
    }
}

static struct pen_json view_find(const struct view *view, const char *name)
{
    return view->object.members != NULL ? azure_peek(&view->object, name) : azure_find(view->json, name);
}

static struct pen_span view_text(const struct view *view, const char *name)
{
    struct pen_json member = view_find(view, name);

    member = worded(&member);
    return pen_json_value(&member);
}

/* By category; where that is missing, by operation; where that is missing too, by structure. */
static enum azure_flow view_flow(const struct view *view)
{
    static const struct azure_word nsg[] = { { "NetworkSecurityGroupFlowEvent", "" },
                                             { "NetworkSecurityGroupFlowEvents", "" }, { 0 } };
    struct pen_span word = view_text(view, "category");
    struct pen_json properties, flows;

    if (word.size == 0)
        word = view_text(view, "operationName");
    if (pen_span_is_nocase(word, "FlowLogFlowEvent"))
        return AZURE_VNET_FLOW;
    if (azure_word(nsg, word) != NULL)
        return AZURE_NSG_FLOW;
    if (word.size > 0)
        return AZURE_NO_FLOW;
    flows = view_find(view, "flowRecords");
    if (pen_json_type(&flows) == PEN_JSON_OBJECT)
        return AZURE_VNET_FLOW;
    properties = view_find(view, "properties");
    flows = pen_json_get(&properties, "flows");
    return pen_json_type(&flows) == PEN_JSON_ARRAY ? AZURE_NSG_FLOW : AZURE_NO_FLOW;
}

enum azure_flow azure_flow(const struct pen_json *json)
{
    struct view view;

    view_open(&view, json);
    return view_flow(&view);
}

/* A path that begins with a provider's namespace: Microsoft.Compute/virtualMachines/write. */
static bool is_operation_path(struct pen_span text)
{
    const char *slash = text.size > 0 ? memchr(text.data, '/', text.size) : NULL;

    return slash != NULL && memchr(text.data, '.', (size_t)(slash - text.data)) != NULL;
}

static bool is_category(struct pen_span text)
{
    static const struct azure_word categories[] = {
        { "Administrative", "" }, { "ServiceHealth", "" }, { "ResourceHealth", "" }, { "Alert", "" },
        { "Autoscale", "" }, { "Security", "" }, { "Recommendation", "" }, { "Policy", "" }, { 0 },
    };

    return azure_word(categories, pen_span_trim(text)) != NULL;
}

/* Log profiles wrote the operation's verb there. */
static bool is_verb(struct pen_span text)
{
    static const struct azure_word verbs[] = { { "Write", "" }, { "Delete", "" }, { "Action", "" }, { 0 } };

    return azure_word(verbs, pen_span_trim(text)) != NULL;
}

/* The export shares its schema with every resource log, and many of those have a path for an operation as well: it is
 * the category that tells them apart, and where that is missing, what only the Activity Log has. */
static bool is_only_here(const struct view *view)
{
    struct pen_json properties = view_find(view, "properties"), identity = view_find(view, "identity");
    struct pen_json authorization = azure_find(&identity, "authorization");

    return is_category(azure_find_text(&properties, "eventCategory")) || pen_json_type(&authorization) == PEN_JSON_OBJECT;
}

static bool is_export(const struct view *view)
{
    struct pen_span operation = view_text(view, "operationName");
    struct pen_span category = view_text(view, "category");

    if (operation.size == 0)         /* half the world's logs have a category Security, and Policy Insights has one, too */
        return is_category(category) && is_only_here(view);
    if (!is_operation_path(operation))
        return false;
    if (category.size > 0)
        return is_category(category) || is_verb(category);
    return is_only_here(view);
}

static bool is_rest(const struct view *view)
{
    struct pen_json id = view_find(view, "eventDataId"), time = view_find(view, "eventTimestamp");
    struct pen_json operation = view_find(view, "operationName");

    return id.tree != NULL || (time.tree != NULL && operation.tree != NULL) ||
           pen_span_is(view_text(view, "Type"), "AzureActivity");
}

/* The record in the webhook of an alert rule; missing where there is none. */
static struct pen_json in_webhook(const struct pen_json *json)
{
    struct pen_json activity = pen_json_path(json, "data.context.activityLog");

    return pen_json_type(&activity) == PEN_JSON_OBJECT ? activity : (struct pen_json){ 0 };
}

static bool is_webhook(struct pen_span schema)
{
    return pen_span_is_nocase(schema, "Microsoft.Insights/activityLogs");
}

struct pen_json azure_activity(const struct pen_json *json)
{
    struct pen_json none = { 0 };
    struct view view;

    if (json == NULL || pen_json_type(json) != PEN_JSON_OBJECT)
        return none;
    view_open(&view, json);
    if (view_flow(&view) != AZURE_NO_FLOW)
        return none;
    if (is_webhook(view_text(&view, "schemaId")))
        return in_webhook(json);
    return is_rest(&view) || is_export(&view) ? *json : none;
}

struct pen_json azure_activity_claimed(const struct pen_json *json)
{
    return is_webhook(azure_find_text(json, "schemaId")) ? in_webhook(json) : *json;
}

/* One level of what stands around the record, but for the member that leads on to it. */
static void keep_level(struct pen_event *event, struct pen_out *out, const struct pen_json *node, const char *inner)
{
    struct azure_object level;

    if (!azure_open(&level, out, node)) {
        pen_add_json(event, PEN_SPAN("envelope"), node);
        return;
    }
    azure_use(&level, inner);
    azure_keep(&level, event);
}

void azure_keep_envelope(struct pen_event *event, struct pen_out *out, const struct pen_json *json)
{
    struct pen_json data = pen_json_get(json, "data"), context = pen_json_get(&data, "context");

    keep_level(event, out, json, "data");
    keep_level(event, out, &data, "context");
    keep_level(event, out, &context, "activityLog");
}

bool azure_activity_is_alert(const struct pen_json *activity)
{
    struct pen_span category = azure_find_text(activity, "categoryValue");     /* of a row, which has the old name, too */
    struct pen_json properties;

    if (category.size == 0)
        category = azure_find_text(activity, "category");
    if (category.size == 0)
        category = azure_find_text(activity, "eventSource");       /* the alert webhook's word for it */
    if (category.size == 0 || is_verb(category)) {
        properties = azure_find(activity, "properties");
        category = azure_find_text(&properties, "eventCategory");
    }
    return pen_span_is_nocase(pen_span_trim(category), "Security");
}
