/*
 * defender_alert.c - alerts of Microsoft Defender for Cloud (and what Graph reports in the same shape): ASIM AlertEvent.
 *
 * One alert comes in several shapes: ARM REST (camelCase under `properties`), continuous export to an Event Hub
 * (PascalCase, no envelope), a SecurityAlert row of Log Analytics (PascalCase, everything complex is JSON text), a record
 * of the Activity Log's category Security (a bag of strings), Graph alerts_v2 and the older Graph alerts. Lookups do not
 * mind the case, so what differs is which name is tried after which.
 *
 * Oddities met: intent is a word, a comma list, or a JSON array as text; remediationSteps an array, JSON text or plain
 * text; entities refer to one another by $id and $ref, in cycles and with ids missing, so they are kept whole and never
 * followed; ConfidenceScore runs from 0 to 1; Graph spells its words in lower case. Assessments, secure scores and
 * compliance results share the hub but are no alerts: they travel as unknown.
 */
#include "parsers/azure.h"

#include <string.h>

/* ---- Claims --------------------------------------------------------------------------------------------------- */

static bool has_text(const struct pen_json *json, const char *name)
{
    return azure_find_text(json, name).size > 0;
}

/* A row of Log Analytics. */
static bool is_row(const struct pen_json *json)
{
    struct pen_span type = azure_find_text(json, "Type");

    return pen_span_is(type, "SecurityAlert") || pen_span_is(type, "AzureActivity");
}

static bool is_graph_alert(const struct pen_json *json)
{
    struct pen_json vendor = pen_json_get(json, "vendorInformation");

    if (has_text(json, "@odata.type"))
        return azure_ends_with(azure_find_text(json, "@odata.type"), "graph.security.alert") ||
               azure_ends_with(azure_find_text(json, "@odata.type"), "graph.alert");
    if (!has_text(json, "id") || !has_text(json, "title") || !has_text(json, "severity"))
        return false;                /* a hunting row of AlertInfo has a title, too, but no id of this name */
    return has_text(json, "providerAlertId") || has_text(json, "serviceSource") ||
           (pen_json_type(&vendor) == PEN_JSON_OBJECT && has_text(&vendor, "provider"));
}

static bool defender_alert_claims(const struct pen_record *record)
{
    const struct pen_json *json = record->json;
    struct pen_json properties, activity;
    struct pen_span type;

    if (json == NULL || pen_json_type(json) != PEN_JSON_OBJECT || azure_flow(json) != AZURE_NO_FLOW)
        return false;
    activity = azure_activity(json);
    if (activity.tree != NULL)
        return azure_activity_is_alert(&activity);
    properties = azure_find(json, "properties");
    type = azure_find_text(json, "type");
    if (azure_ends_with(type, "/alerts") && azure_contains(type, "Microsoft.Security/"))
        return pen_json_type(&properties) == PEN_JSON_OBJECT || pen_json_type(&properties) == PEN_JSON_TEXT;
    return has_text(json, "systemAlertId") || has_text(&properties, "systemAlertId") ||
           (has_text(json, "alertType") && has_text(json, "vendorName")) ||
           pen_span_is(azure_find_text(json, "Type"), "SecurityAlert") || is_graph_alert(json);
}

/* ---- Words ---------------------------------------------------------------------------------------------------- */

static const struct azure_word severities[] = {
    { "Critical", "High" }, { "High", "High" }, { "Medium", "Medium" }, { "Low", "Low" },
    { "Informational", "Informational" }, { "Information", "Informational" }, { "Silent", "Informational" }, { 0 },
};

static const struct azure_word statuses[] = {
    { "New", "Active" }, { "newAlert", "Active" }, { "Active", "Active" }, { "InProgress", "Active" },
    { "In Progress", "Active" }, { "Resolved", "Closed" }, { "Dismissed", "Closed" }, { "Closed", "Closed" }, { 0 },
};

static const struct azure_word verdicts[] = {
    { "truePositive", "True Positive" }, { "falsePositive", "False Positive" },
    { "informationalExpectedActivity", "Benign Positive" }, { "benignPositive", "Benign Positive" },
    { "benign", "Benign Positive" }, { "unknown", "Unknown" }, { 0 },
};

/* ASIM's spelling of the last but one is Microsoft's. */
static const struct azure_word threats[] = {
    { "ransomware", "Ransomware" }, { "phishing", "Phishing" }, { "rootkit", "Rootkit" }, { "spyware", "Spyware" },
    { "trojan", "Trojan" }, { "cryptocoin", "Cryptominor" }, { "crypto coin", "Cryptominor" },
    { "digital currency min", "Cryptominor" }, { "cryptomin", "Cryptominor" }, { "malware", "Malware" }, { 0 },
};

static const struct azure_word indicators[] = {
    { "ip", "Ip" }, { "account", "User" }, { "process", "Process" }, { "registry-key", "Registry" },
    { "registry-value", "Registry" }, { "url", "Url" }, { "host", "Host" }, { "azure-resource", "Cloud Resource" },
    { "amazon-resource", "Cloud Resource" }, { "gcp-resource", "Cloud Resource" },
    { "cloud-application", "Application" }, { "file", "File" }, { "filehash", "File" }, { "mail-message", "Email" },
    { "mailbox", "Mailbox" }, { "host-logon-session", "Logon Session" }, { 0 },
};

/* ---- Lists that come as arrays, as JSON text or as text -------------------------------------------------------- */

struct list {
    char *data;
    size_t size, capacity;
};

static size_t list_bytes(const struct pen_json *items, size_t separator)
{
    struct pen_json_iter it = pen_json_each(items);
    size_t bytes = 0;

    while (pen_json_next(&it))
        bytes += pen_json_value(&it.value).size + separator;
    return bytes;
}

static void list_add(struct list *list, const struct pen_json *items, struct pen_span separator)
{
    struct pen_json_iter it = pen_json_each(items);

    while (pen_json_next(&it)) {
        struct pen_span text = pen_json_value(&it.value);

        if (text.size == 0)
            continue;
        if (list->size > 0) {
            memcpy(list->data + list->size, separator.data, separator.size);
            list->size += separator.size;
        }
        memcpy(list->data + list->size, text.data, text.size);
        list->size += text.size;
    }
}

/* An array of texts only; of anything else the joined text would be a part. */
static bool is_list(const struct pen_json *node)
{
    struct pen_json_iter it = pen_json_each(node);

    if (pen_json_type(node) != PEN_JSON_ARRAY)
        return false;
    while (pen_json_next(&it))
        if (pen_json_type(&it.value) != PEN_JSON_TEXT)
            return false;
    return true;
}

/* The member as an array: itself, or what it holds as JSON text. */
static struct pen_json list_of(struct azure_object *object, const char *name)
{
    struct pen_json node = azure_peek(object, name);
    struct pen_span text = pen_span_trim(pen_json_value(&node));

    if (text.size > 0 && text.data[0] == '[')
        return pen_out_parse(object->out, text);
    return node;
}

/* The texts of one or two members, joined; of a plain text, itself. */
static struct pen_span joined_text(struct azure_object *object, const char *name, const char *more, struct pen_span separator)
{
    struct pen_json first = list_of(object, name), second = { 0 };
    struct list list = { 0 };

    if (more != NULL)
        second = list_of(object, more);
    if (!is_list(&first))
        return azure_text(object, name);
    azure_use(object, name);
    if (is_list(&second))
        azure_use(object, more);
    else
        second = (struct pen_json){ 0 };
    list.data = pen_out_alloc(object->out, list_bytes(&first, separator.size) + list_bytes(&second, separator.size) + 1);
    if (list.data == NULL)
        return (struct pen_span){ 0 };
    list_add(&list, &first, separator);
    list_add(&list, &second, separator);
    return (struct pen_span){ list.data, list.size };
}

/* ---- The mapping ---------------------------------------------------------------------------------------------- */

/* Where an alert's members are: all on one level, or spread over the envelope and its properties. */
struct alert {
    struct azure_object top, bag;
    struct pen_json node;            /* the record proper */
    bool activity;
};

static struct pen_span alert_text(struct alert *alert, const char *const *names)
{
    struct pen_span text = azure_text_of(&alert->bag, names);

    return text.size > 0 ? text : azure_text_of(&alert->top, names);
}

#define ALERT_TEXT(alert, ...) alert_text((alert), (const char *const[]){ __VA_ARGS__, NULL })

static bool alert_take(struct alert *alert, struct pen_event *event, enum pen_field field, const char *const *names)
{
    return azure_take_of(&alert->bag, event, field, names) || azure_take_of(&alert->top, event, field, names);
}

#define ALERT_TAKE(alert, event, field, ...) \
    alert_take((alert), (event), (field), (const char *const[]){ __VA_ARGS__, NULL })

static void set_names(struct pen_event *event, struct alert *alert)
{
    struct pen_span name = ALERT_TEXT(alert, "alertDisplayName", "displayName", "alertName", "title", "eventName");
    struct pen_span type = ALERT_TEXT(alert, "alertType", "detectorId");

    pen_set_text(event, PEN_ALERT_NAME, name.size > 0 ? name : type);
    pen_set_text(event, PEN_EVENT_ORIGINAL_TYPE, type);
    ALERT_TAKE(alert, event, PEN_ALERT_DESCRIPTION, "description", "resultDescription");
    for (const struct azure_word *word = threats; word->from != NULL; word++) {
        if (azure_contains(name, word->from)) {
            azure_set(event, PEN_THREAT_CATEGORY, word->to);
            azure_set(event, PEN_EVENT_SUB_TYPE, "Threat");
            break;
        }
    }
    if (azure_contains(name, "anomal") || azure_contains(name, "unusual"))
        azure_set(event, PEN_EVENT_SUB_TYPE, "Anomaly");
    else if (!pen_is_set(event, PEN_EVENT_SUB_TYPE) && azure_contains(name, "suspicious"))
        azure_set(event, PEN_EVENT_SUB_TYPE, "Suspicious Activity");
}

/* What an activity record is called by its operation: …/alerts/{activate,resolve,dismiss}/action. */
static const char *operation_status(struct pen_span operation)
{
    if (azure_contains(operation, "/resolve/") || azure_contains(operation, "/dismiss/"))
        return "Closed";
    return "Active";
}

static void set_states(struct pen_event *event, struct alert *alert)
{
    struct pen_span severity = ALERT_TEXT(alert, "severity", "alertSeverity", "reportedSeverity");
    struct pen_span status = ALERT_TEXT(alert, "status", "resultType", "activityStatusValue"), verdict;
    struct pen_span operation = alert->activity ? ALERT_TEXT(alert, "operationNameValue", "operationName") : (struct pen_span){ 0 };

    azure_set(event, PEN_EVENT_SEVERITY, azure_word(severities, pen_span_trim(severity)));
    pen_set_text(event, PEN_EVENT_ORIGINAL_SEVERITY, severity);
    pen_set_text(event, PEN_ALERT_ORIGINAL_STATUS, status);
    if (alert->activity)
        azure_set(event, PEN_ALERT_STATUS, operation_status(operation));
    else
        azure_set(event, PEN_ALERT_STATUS, azure_word(statuses, pen_span_trim(status)));
    pen_set_text(event, PEN_OPERATION, operation);
    verdict = azure_find_text(&alert->node, "classification");
    azure_set(event, PEN_ALERT_VERDICT, azure_word(verdicts, verdict));
}

static void set_attack(struct pen_event *event, struct alert *alert)
{
    static const char *const tactics[] = { "intent", "tactics", NULL };
    struct pen_span text = { 0 };

    for (const char *const *name = tactics; *name != NULL && text.size == 0; name++)
        text = joined_text(&alert->bag, *name, NULL, PEN_SPAN(", "));
    if (text.size == 0 && has_text(&alert->node, "serviceSource"))      /* a category is a tactic in alerts_v2 only */
        text = azure_text(&alert->bag, "category");
    if (pen_span_is_nocase(text, "Unknown"))
        pen_add_text(event, PEN_SPAN("intent"), text);
    else
        pen_set_text(event, PEN_ATTACK_TACTICS, text);
    text = joined_text(&alert->bag, "techniques", "subTechniques", PEN_SPAN(", "));
    if (text.size == 0)
        text = joined_text(&alert->bag, "mitreTechniques", NULL, PEN_SPAN(", "));
    pen_set_text(event, PEN_ATTACK_TECHNIQUES, text);
    text = joined_text(&alert->bag, "remediationSteps", NULL, PEN_SPAN("\n"));
    if (text.size == 0)
        text = joined_text(&alert->bag, "recommendedActions", NULL, PEN_SPAN("\n"));
    pen_set_text(event, PEN_ATTACK_REMEDIATION_STEPS, text);
}

static bool set_times(struct pen_event *event, struct alert *alert, const struct pen_record *record)
{
    static const enum pen_field order[] = { PEN_TIME_GENERATED, PEN_EVENT_END_TIME, PEN_EVENT_START_TIME };
    static const char *const names[][10] = {
        { "timeGeneratedUtc", "timeGenerated", "createdDateTime", "time", "eventTimestamp", "eventDateTime", NULL },
        { "endTimeUtc", "endTime", "lastActivityDateTime", NULL },
        { "startTimeUtc", "startTime", "firstActivityDateTime", "eventDateTime", NULL },
    };
    bool known = false, read;
    int64_t ticks = 0, first = 0;

    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        read = false;
        for (const char *const *name = names[i]; *name != NULL && !read; name++) {
            const char *const one[] = { *name, NULL };
            struct pen_json node = azure_peek(&alert->bag, *name);

            if (node.tree == NULL)
                node = azure_peek(&alert->top, *name);
            read = alert_take(alert, event, order[i], one) && pen_time_read(pen_json_value(&node), &ticks);
            read = read || azure_take_count(&alert->bag, event, order[i], *name, &ticks) ||
                   azure_take_count(&alert->top, event, order[i], *name, &ticks);
        }
        if (read && !known) {
            known = true;
            first = ticks;
        }
    }
    if (known && !pen_is_set(event, PEN_TIME_GENERATED))
        pen_set_ticks(event, PEN_TIME_GENERATED, first);
    ALERT_TAKE(alert, event, PEN_ALERT_MODIFIED_TIME, "processingEndTimeUtc", "processingEndTime", "lastUpdateDateTime",
               "lastModifiedDateTime");
    ALERT_TAKE(alert, event, PEN_LOG_TIME, "submissionTimestamp");
    azure_times_fill(event, record, first, known);
    return known;
}

/* The first resource that the alert names; the list itself is kept by azure_keep(), it holds workspaces too. */
static struct pen_span first_resource(struct alert *alert)
{
    static const char *const lists[] = { "resourceIdentifiers", "evidence", NULL };

    for (const char *const *name = lists; *name != NULL; name++) {
        struct pen_json identifiers = list_of(&alert->bag, *name);
        struct pen_json_iter it = pen_json_each(&identifiers);

        while (pen_json_next(&it)) {
            struct pen_span id = azure_find_text(&it.value, "azureResourceId");

            if (id.size == 0)
                id = azure_find_text(&it.value, "resourceId");
            if (id.size > 0 && id.data[0] == '/')
                return id;
        }
    }
    return (struct pen_span){ 0 };
}

static bool is_hostname(struct pen_span text)
{
    if (text.size == 0 || text.size > 61)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return true;
}

/* An Azure VM, or somebody's own server behind Azure Arc: both are named as the host is. */
static bool is_machine(struct pen_span type)
{
    return pen_span_is_nocase(type, "Microsoft.Compute/virtualMachines") ||
           pen_span_is_nocase(type, "Microsoft.HybridCompute/machines");
}

static bool is_path(struct pen_span text)
{
    return text.size > 0 && text.data[0] == '/';
}

static void set_resource(struct pen_event *event, struct alert *alert)
{
    struct pen_span resource = ALERT_TEXT(alert, "azureResourceId"), own = { 0 };
    struct azure_id id, alert_id;

    if (resource.size == 0)
        resource = first_resource(alert);
    own = azure_text(&alert->top, "resourceId");     /* of a row: the victim; in the Activity Log: the alert itself */
    if (resource.size == 0 && !alert->activity)
        resource = own;
    if (pen_set_text(event, PEN_DVC_ID, resource))
        azure_set(event, PEN_DVC_ID_TYPE, "AzureResourceId");
    id = azure_id_split(alert->top.out, resource);
    if (is_machine(id.type) && is_hostname(id.name))
        pen_set_text(event, PEN_DVC_HOSTNAME, id.name);
    if (own.size == 0 && is_path(azure_find_text(&alert->node, "id")))      /* else it is Graph's */
        own = azure_text(&alert->top, "id");
    alert_id = azure_id_split(alert->top.out, own);
    azure_id_set(event, &id);
    ALERT_TAKE(alert, event, PEN_SUBSCRIPTION_ID, "subscriptionId", "azureSubscriptionId");
    if (!pen_is_set(event, PEN_SUBSCRIPTION_ID))
        pen_set_text(event, PEN_SUBSCRIPTION_ID, alert_id.subscription);
    if (!pen_is_set(event, PEN_RESOURCE_GROUP))
        pen_set_text(event, PEN_RESOURCE_GROUP, alert_id.group);
    pen_set_text(event, PEN_DVC_SCOPE_ID, id.subscription);
    pen_set_text(event, PEN_RESOURCE_ID, resource.size > 0 ? resource : own);
    if (resource.size > 0 && own.size > 0 && own.data != resource.data)
        pen_add_text(event, alert->activity ? PEN_SPAN("alertResourceId") : PEN_SPAN("id"), own);
}

/* Entities are kept as they are. Only where there is a single one is it clear what the alert points at. */
static void set_entities(struct pen_event *event, struct alert *alert)
{
    static const char *const names[] = { "entities", "evidence", NULL };
    struct pen_json entities, only;

    for (const char *const *name = names; *name != NULL; name++) {
        entities = list_of(&alert->bag, *name);
        if (pen_json_type(&entities) != PEN_JSON_ARRAY)
            continue;
        azure_use(&alert->bag, *name);
        if (pen_json_count(&entities) > 0)
            pen_set_json(event, PEN_ENTITIES, &entities);
        if (pen_json_count(&entities) == 1) {
            only = pen_json_item(&entities, 0);
            azure_set(event, PEN_INDICATOR_TYPE, azure_word(indicators, azure_find_text(&only, "type")));
        }
        return;
    }
}

static void set_confidence(struct pen_event *event, struct alert *alert)
{
    struct pen_json score = azure_peek(&alert->bag, "confidenceScore");
    double value;

    if (!pen_json_real(&score, &value) || value < 0 || value > 100)
        return;
    pen_set_int(event, PEN_THREAT_CONFIDENCE, (int64_t)(value <= 1 ? value * 100 + 0.5 : value));
    azure_take(&alert->bag, event, PEN_THREAT_ORIGINAL_CONFIDENCE, "confidenceScore");
}

static void set_product(struct pen_event *event, struct alert *alert)
{
    struct azure_object vendor;
    struct pen_span name = ALERT_TEXT(alert, "productName");
    struct pen_json maker;

    if (name.size == 0 && azure_open_member(&vendor, &alert->top, "vendorInformation")) {
        name = azure_text(&vendor, "provider");
        azure_keep(&vendor, event);
    }
    azure_set(event, PEN_EVENT_VENDOR, "Microsoft");
    maker = azure_peek(&alert->bag, "vendorName");
    if (pen_span_is_nocase(pen_json_value(&maker), "Microsoft"))
        azure_use(&alert->bag, "vendorName");
    pen_set_text(event, PEN_EVENT_PRODUCT, name.size > 0 ? name : PEN_SPAN("Microsoft Defender for Cloud"));
    ALERT_TAKE(alert, event, PEN_ALERT_PRODUCT_COMPONENT, "productComponentName", "detectionSource");
}

/* Its own id first; an activity record's event id is the alert's. */
static void set_uid(struct pen_event *event, struct alert *alert)
{
    struct pen_span uid = ALERT_TEXT(alert, "systemAlertId"), name = azure_find_text(&alert->node, "name");

    if (uid.size == 0 && alert->activity)
        uid = ALERT_TEXT(alert, "eventDataId", "correlationId", "operationId");
    else if (uid.size == 0)
        uid = ALERT_TEXT(alert, "name", "id", "vendorOriginalId");
    else if (name.size == uid.size && memcmp(name.data, uid.data, uid.size) == 0)
        azure_use(&alert->top, "name");
    pen_set_text(event, PEN_EVENT_UID, uid);
    pen_set_text(event, PEN_ALERT_ID, uid);
}

/* JSON text in the rows of Log Analytics: as JSON where it is some. */
static void keep_parsed(struct pen_event *event, struct alert *alert, const char *name)
{
    struct pen_json node = azure_peek(&alert->bag, name);

    node = pen_out_parse(alert->bag.out, pen_json_value(&node));
    if (pen_json_type(&node) < PEN_JSON_ARRAY)
        return;
    azure_use(&alert->bag, name);
    if (pen_json_count(&node) > 0)
        pen_add_json(event, (struct pen_span){ name, strlen(name) }, &node);
}

/* In a row of Log Analytics it is the workspace that TenantId names, which stays where it was. */
static void set_tenant(struct pen_event *event, struct alert *alert)
{
    if (!is_row(&alert->node))
        ALERT_TAKE(alert, event, PEN_AZURE_TENANT_ID, "tenantId", "azureTenantId");
}

/* What only the Activity Log's envelope has; provider and type there are those of the alert, not of its victim. */
static void set_activity(struct pen_event *event, struct alert *alert)
{
    if (!azure_take(&alert->top, event, PEN_CATEGORY, "categoryValue"))
        azure_take(&alert->top, event, PEN_CATEGORY, "category");
    azure_take(&alert->top, event, PEN_RESOURCE_GROUP, "resourceGroupName");
    azure_take(&alert->top, event, PEN_RESOURCE_PROVIDER, "resourceProviderName");
    azure_take(&alert->top, event, PEN_RESOURCE_TYPE, "resourceType");
    azure_take(&alert->top, event, PEN_RESULT_SIGNATURE, "subStatus");
}

static enum pen_parsed defender_alert_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    struct pen_event *event = pen_out_event(out, PEN_ALERT);
    struct alert alert = { .node = azure_activity(record->json) };
    bool timed;

    (void)self;
    alert.activity = alert.node.tree != NULL;
    if (!alert.activity)
        alert.node = *record->json;
    if (!azure_open(&alert.top, out, &alert.node)) {
        pen_out_blame(out, "more members than a record may have");
        return PEN_MALFORMED;
    }
    if (!azure_open_properties(&alert.bag, &alert.top))
        alert.bag = alert.top;
    pen_set_int(event, PEN_EVENT_COUNT, 1);
    azure_set(event, PEN_EVENT_TYPE, "Alert");
    azure_set(event, PEN_EVENT_RESULT, "NA");
    set_product(event, &alert);
    set_uid(event, &alert);
    set_names(event, &alert);
    set_states(event, &alert);
    set_attack(event, &alert);
    timed = set_times(event, &alert, record);
    if (alert.activity)
        set_activity(event, &alert);
    set_resource(event, &alert);
    set_entities(event, &alert);
    set_confidence(event, &alert);
    keep_parsed(event, &alert, "extendedProperties");
    keep_parsed(event, &alert, "extendedLinks");
    ALERT_TAKE(&alert, event, PEN_COMPROMISED_ENTITY, "compromisedEntity");
    ALERT_TAKE(&alert, event, PEN_EVENT_REPORT_URL, "alertUri", "alertLink", "alertWebUrl");
    set_tenant(event, &alert);
    ALERT_TAKE(&alert, event, PEN_CORRELATION_ID, "correlationId", "correlationKey");

    azure_keep(&alert.top, event);
    if (alert.bag.members != alert.top.members)
        azure_keep(&alert.bag, event);
    if (alert.node.at != record->json->at)
        azure_keep_envelope(event, out, record->json);
    if (timed)
        return pen_out_emit(out, event);
    pen_out_blame(out, "the alert's time is missing or unreadable: the arrival stands in");
    pen_out_emit(out, event);
    return PEN_PARTLY;
}

const struct pen_parser defender_alert_parser = {
    .size = sizeof(struct pen_parser),
    .name = "defender-alert",
    .claims = defender_alert_claims,
    .parse = defender_alert_parse,
};
