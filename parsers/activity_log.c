/*
 * activity_log.c - the Azure Activity Log: who did what to which resource, and what the platform itself reports.
 *
 * One event per record, ASIM AuditEvent. The record comes in six shapes: the export of diagnostic settings, the older
 * export of log profiles (category is the operation's verb), REST (every word an object {value, localizedValue}), the
 * Python SDK's dump of it (snake_case), the webhook of an activity log alert around a REST record, and a row of Log
 * Analytics (AzureActivity: OperationNameValue, CategoryValue, …). azure.c finds the record inside, and its lookups do
 * not mind the spelling, so one mapping serves all.
 *
 * Oddities met: resultType and status come from different families (Start, Started, Accept, In Progress, …);
 * resultSignature is "status.reason" or a bare HTTP code; durationMs is a number or text; properties is an object, JSON
 * text, other text, null or absent; identity may be JSON text; claims carry stray blanks; ids of the role assignment are
 * GUIDs without dashes; callerIpAddress is absent for the platform's own events. Alerts of category Security belong to
 * defender_alert.c.
 */
#include "parsers/azure.h"

#include <string.h>

#define URI "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
#define MS_URI "http://schemas.microsoft.com/identity/claims/"

static bool activity_log_claims(const struct pen_record *record)
{
    struct pen_json activity = azure_activity(record->json);

    return activity.tree != NULL && !azure_activity_is_alert(&activity);
}

/* ---- Result --------------------------------------------------------------------------------------------------- */

/* A start says nothing about how it ends: NA, and the word itself in EventOriginalResultDetails. */
static const struct azure_word results[] = {
    { "Success", "Success" }, { "Succeeded", "Success" }, { "Succeed", "Success" }, { "Completed", "Success" },
    { "Resolved", "Success" }, { "OK", "Success" }, { "Created", "Success" },
    { "Failure", "Failure" }, { "Failed", "Failure" }, { "Fail", "Failure" }, { "Error", "Failure" },
    { "Canceled", "Failure" }, { "Cancelled", "Failure" }, { "Timeout", "Failure" }, { "TimedOut", "Failure" },
    { "Denied", "Failure" }, { "Rejected", "Failure" }, { "Conflict", "Failure" }, { "Forbidden", "Failure" },
    { "Partial", "Partial" }, { "PartiallySucceeded", "Partial" }, { "Partially Succeeded", "Partial" },
    { "PartialSuccess", "Partial" },
    { "Start", "NA" }, { "Started", "NA" }, { "Accept", "NA" }, { "Accepted", "NA" }, { "In Progress", "NA" },
    { "InProgress", "NA" }, { "Active", "NA" }, { "Updated", "NA" }, { "Pending", "NA" }, { "Running", "NA" },
    { 0 },
};

static const struct { const char *reason; int code; } http_reasons[] = {
    { "OK", 200 }, { "Created", 201 }, { "Accepted", 202 }, { "NoContent", 204 }, { "ResetContent", 205 },
    { "PartialContent", 206 }, { "Found", 302 }, { "NotModified", 304 }, { "BadRequest", 400 }, { "Unauthorized", 401 },
    { "PaymentRequired", 402 }, { "Forbidden", 403 }, { "NotFound", 404 }, { "MethodNotAllowed", 405 },
    { "NotAcceptable", 406 }, { "RequestTimeout", 408 }, { "Conflict", 409 }, { "Gone", 410 },
    { "LengthRequired", 411 }, { "PreconditionFailed", 412 }, { "RequestEntityTooLarge", 413 },
    { "UnsupportedMediaType", 415 }, { "UnprocessableEntity", 422 }, { "FailedDependency", 424 },
    { "PreconditionRequired", 428 }, { "TooManyRequests", 429 }, { "InternalServerError", 500 },
    { "NotImplemented", 501 }, { "BadGateway", 502 }, { "ServiceUnavailable", 503 }, { "GatewayTimeout", 504 },
};

/* "409", "Conflict" or "Conflict (HTTP Status Code: 409)" as a number; 0 for what is no HTTP status. */
static int http_code(struct pen_span reason)
{
    static const char label[] = "HTTP Status Code: ";    /* REST's localized form, "OK (HTTP Status Code: 200)" */
    const char *mark;

    reason = pen_span_trim(reason);
    mark = reason.size > 0 ? memmem(reason.data, reason.size, label, sizeof(label) - 1) : NULL;
    if (mark != NULL && reason.data + reason.size - mark >= (ptrdiff_t)sizeof(label) - 1 + 3)
        reason = (struct pen_span){ mark + sizeof(label) - 1, 3 };
    if (reason.size == 3 && reason.data[0] >= '1' && reason.data[0] <= '5' && reason.data[1] >= '0' &&
        reason.data[1] <= '9' && reason.data[2] >= '0' && reason.data[2] <= '9')
        return (reason.data[0] - '0') * 100 + (reason.data[1] - '0') * 10 + (reason.data[2] - '0');
    for (size_t i = 0; i < sizeof(http_reasons) / sizeof(*http_reasons); i++)
        if (pen_span_is_nocase(reason, http_reasons[i].reason))
            return http_reasons[i].code;
    return 0;
}

/* The reason in "Failed.Conflict"; the signature itself where there is no dot; nothing in "Started.". */
static struct pen_span signature_reason(struct pen_span signature)
{
    const char *dot = signature.size > 0 ? memchr(signature.data, '.', signature.size) : NULL;

    if (dot == NULL)
        return signature;
    return (struct pen_span){ dot + 1, signature.size - (size_t)(dot + 1 - signature.data) };
}

/* The status in it; empty where the signature is a bare code. */
static struct pen_span signature_status(struct pen_span signature)
{
    const char *dot = signature.size > 0 ? memchr(signature.data, '.', signature.size) : NULL;

    return dot == NULL ? signature : (struct pen_span){ signature.data, (size_t)(dot - signature.data) };
}

static int set_result(struct pen_event *event, struct azure_object *activity, struct azure_object *properties)
{
    static const char *const statuses[] = { "resultType", "status", "activityStatusValue", NULL };
    static const char *const signatures[] = { "resultSignature", "subStatus", "activitySubstatusValue", NULL };
    struct pen_span status = azure_text_of(activity, statuses), signature = azure_text_of(activity, signatures);
    struct pen_span reason = signature_reason(signature), code = azure_text(properties, "statusCode");
    const char *result = azure_word(results, pen_span_trim(status));
    int http = http_code(reason);

    if (http == 0)
        http = http_code(code);
    else if (code.size > 0 && http_code(code) != http)
        azure_unuse(properties, "statusCode");       /* it contradicts the signature: kept beside it */
    if (result == NULL)
        result = azure_word(results, signature_status(signature));
    if (result == NULL && http >= 200)
        result = http < 400 ? "Success" : "Failure";
    azure_set(event, PEN_EVENT_RESULT, result != NULL ? result : "NA");
    pen_set_text(event, PEN_EVENT_ORIGINAL_RESULT_DETAILS, status.size > 0 ? status : signature);
    pen_set_text(event, PEN_EVENT_RESULT_DETAILS, reason.size > 0 ? reason : code);
    pen_set_text(event, PEN_RESULT_SIGNATURE, signature);
    if (http > 0)
        pen_set_int(event, PEN_HTTP_STATUS, http);
    if (http == 401 || http == 403)
        azure_set(event, PEN_DVC_ACTION, "Deny");
    else if (result != NULL && strcmp(result, "Success") == 0)
        azure_set(event, PEN_DVC_ACTION, "Allow");
    return http;
}

static const struct azure_word severities[] = {
    { "Critical", "High" }, { "Error", "Medium" }, { "Warning", "Low" }, { "Informational", "Informational" },
    { "Information", "Informational" }, { "Verbose", "Informational" }, { "TRACE", "Informational" },
    { "1", "High" }, { "2", "Medium" }, { "3", "Low" }, { "4", "Informational" }, { "5", "Informational" },
    { 0 },
};

static void set_severity(struct pen_event *event, struct azure_object *activity)
{
    struct pen_span level = azure_text(activity, "level");
    const char *severity = azure_word(severities, pen_span_trim(level));

    azure_set(event, PEN_EVENT_SEVERITY, severity != NULL ? severity : "Informational");
    pen_set_text(event, PEN_EVENT_ORIGINAL_SEVERITY, level);
}

/* ---- Operation ------------------------------------------------------------------------------------------------ */

/* What the word before "/action" begins with, and what it does. The first row that fits counts. */
static const struct { const char *begin, *type; } actions[] = {
    { "list", "Read" }, { "get", "Read" }, { "read", "Read" }, { "query", "Read" }, { "export", "Read" },
    { "download", "Read" }, { "show", "Read" }, { "check", "Read" }, { "validate", "Read" },
    { "start", "Start" }, { "powerOn", "Start" }, { "resume", "Start" }, { "restart", "Execute" },
    { "stop", "Stop" }, { "powerOff", "Stop" }, { "deallocate", "Stop" }, { "shutdown", "Stop" }, { "pause", "Stop" },
    { "suspend", "Stop" }, { "hibernate", "Stop" },
    { "enable", "Enable" }, { "disable", "Disable" },
    { "create", "Create" }, { "add", "Create" }, { "delete", "Delete" }, { "remove", "Delete" }, { "purge", "Delete" },
    { "update", "Set" }, { "set", "Set" }, { "regenerate", "Set" }, { "rotate", "Set" }, { "reset", "Set" },
    { "assign", "Set" }, { "elevateAccess", "Set" }, { "write", "Set" }, { "modify", "Set" }, { "append", "Set" },
};

/* The last segment of the path before `end`, which moves to the slash in front of it. */
static struct pen_span segment_before(struct pen_span path, size_t *end)
{
    size_t to = *end, from;

    for (from = to; from > 0 && path.data[from - 1] != '/'; from--)
        ;
    *end = from > 0 ? from - 1 : 0;
    return to > 0 ? (struct pen_span){ path.data + from, to - from } : path;
}

static const char *action_type(struct pen_span action)
{
    for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
        size_t size = strlen(actions[i].begin);

        if (action.size >= size && pen_span_is_nocase((struct pen_span){ action.data, size }, actions[i].begin))
            return actions[i].type;
    }
    return "Execute";
}

/* The platform speaking, not somebody acting: health, recommendations, alert rules. */
static bool is_report(struct pen_span category)
{
    static const struct azure_word reports[] = { { "ServiceHealth", "" }, { "ResourceHealth", "" },
                                                 { "Recommendation", "" }, { "Alert", "" }, { 0 } };

    return azure_word(reports, category) != NULL;
}

static const char *operation_type(struct pen_span operation, struct pen_span category, int http)
{
    size_t end = operation.size;
    struct pen_span verb = segment_before(operation, &end);

    if (is_report(category) || pen_span_is_nocase(category, "Policy"))      /* policies evaluate what others do */
        return "Other";
    if (pen_span_is_nocase(category, "Autoscale"))
        return "Set";
    if (pen_span_is_nocase(verb, "write"))
        return http == 201 ? "Create" : "Set";
    if (pen_span_is_nocase(verb, "delete"))
        return "Delete";
    if (pen_span_is_nocase(verb, "read"))
        return "Read";
    if (pen_span_is_nocase(verb, "action"))
        return action_type(segment_before(operation, &end));
    return "Other";
}

static void set_operation(struct pen_event *event, struct pen_span operation)
{
    const char *slash = operation.size > 0 ? memchr(operation.data, '/', operation.size) : NULL;

    pen_set_text(event, PEN_OPERATION, operation);
    if (slash == NULL)
        return;
    if (pen_set_text(event, PEN_TARGET_APP_NAME,
                     (struct pen_span){ operation.data, (size_t)(slash - operation.data) }))
        azure_set(event, PEN_TARGET_APP_TYPE, "Service");
}

/* ---- Object --------------------------------------------------------------------------------------------------- */

static void set_object(struct pen_event *event, struct azure_object *activity, struct pen_span scope,
                       struct azure_object *properties)
{
    static const char *const groups[] = { "resourceGroupName", "resourceGroup", NULL };
    static const char *const providers[] = { "resourceProviderName", "resourceProviderValue", NULL };
    struct pen_span resource = azure_text(activity, "resourceId"), entity;
    struct azure_id id;

    if (resource.size == 0)
        resource = scope;
    entity = azure_peek(properties, "entity").tree != NULL ? azure_text(properties, "entity") : resource;
    if (resource.size == 0)
        resource = entity;
    else if (entity.size > 0 && !azure_is_same(entity, resource))
        pen_add_text(event, PEN_SPAN("entity"), entity);            /* else it only says the same in another case */
    id = azure_id_split(activity->out, resource);
    azure_take(activity, event, PEN_SUBSCRIPTION_ID, "subscriptionId");
    azure_take_of(activity, event, PEN_RESOURCE_GROUP, groups);
    azure_take_of(activity, event, PEN_RESOURCE_PROVIDER, providers);
    azure_take(activity, event, PEN_RESOURCE_TYPE, "resourceType");
    azure_id_set(event, &id);
    pen_set_text(event, PEN_RESOURCE_ID, resource);
    pen_set_text(event, PEN_OBJECT_ID, resource);
    pen_set_text(event, PEN_ORIGINAL_OBJECT_TYPE, id.type);
    if (!pen_set_text(event, PEN_OBJECT, id.name) && !pen_set_text(event, PEN_OBJECT, resource))
        azure_set(event, PEN_OBJECT, "Azure");                      /* mandatory, and these act on nothing smaller */
    /* "Cloud Resource" is in ASIM's list since 0.1.2; the copy of the tester from 2024 does not know it yet. */
    azure_set(event, PEN_OBJECT_TYPE,
              azure_contains(id.type, "Microsoft.Authorization/policy") ? "Policy Rule" : "Cloud Resource");
}

/* ---- Actor ---------------------------------------------------------------------------------------------------- */

static struct pen_span claim_of(struct azure_object *claims, const char *const *names)
{
    struct pen_span text = { 0 };

    for (; *names != NULL && text.size == 0; names++)
        text = pen_span_trim(azure_text(claims, *names));
    return text;
}

/* Role assignments spell GUIDs as 32 hex digits. */
static struct pen_span guid_with_dashes(struct pen_out *out, struct pen_span text)
{
    struct pen_span guid;

    if (text.size != 32)
        return text;
    guid = pen_out_text(out, "%.8s-%.4s-%.4s-%.4s-%.12s", text.data, text.data + 8, text.data + 12, text.data + 16,
                        text.data + 20);
    return pen_guid_valid(guid) ? guid : text;
}

static void set_username(struct pen_event *event, struct pen_span name)
{
    if (!pen_set_text(event, PEN_ACTOR_USERNAME, name))
        return;
    if (memchr(name.data, '@', name.size) != NULL)
        azure_set(event, PEN_ACTOR_USERNAME_TYPE, "UPN");
    else if (memchr(name.data, '\\', name.size) != NULL)
        azure_set(event, PEN_ACTOR_USERNAME_TYPE, "Windows");
    else
        azure_set(event, PEN_ACTOR_USERNAME_TYPE, "Simple");
}

static void set_user_id(struct pen_event *event, struct pen_span id)
{
    if (pen_set_text(event, PEN_ACTOR_USER_ID, id))
        azure_set(event, PEN_ACTOR_USER_ID_TYPE, pen_guid_valid(id) ? "AADID" : "Other");
}

static const struct azure_word user_types[] = {
    { "User", "Regular" }, { "Member", "Regular" }, { "Guest", "Guest" }, { "ServicePrincipal", "Application" },
    { "app", "Application" }, { "Application", "Application" }, { "Device", "Machine" }, { "Group", "Other" },
    { "ForeignGroup", "Other" }, { 0 },
};

static void set_actor(struct pen_event *event, struct azure_object *activity, struct azure_object *claims,
                      struct azure_object *evidence)
{
    static const char *const names[] = { URI "upn", "upn", URI "name", URI "emailaddress", "preferred_username",
                                         "unique_name", "name", URI "spn", "appid", "azp", MS_URI "objectidentifier",
                                         "oid", NULL };
    static const char *const ids[] = { MS_URI "objectidentifier", "oid", NULL };
    static const char *const tenants[] = { MS_URI "tenantid", "tid", NULL };
    static const char *const apps[] = { "appid", "azp", NULL };
    static const char *const sids[] = { "onprem_sid", NULL }, *const tokens[] = { "uti", NULL };
    static const char *const providers[] = { MS_URI "identityprovider", "idp", "iss", NULL };
    static const char *const kinds[] = { "idtyp", NULL };
    struct pen_span caller = pen_span_trim(azure_text(activity, "caller")), name = claim_of(claims, names);
    struct pen_span principal = azure_text(evidence, "principalId"), kind = azure_text(evidence, "principalType");
    struct pen_span id = claim_of(claims, ids);

    set_username(event, caller.size > 0 ? caller : name);
    if (id.size == 0)
        id = principal.size > 0 ? guid_with_dashes(activity->out, principal) : caller;
    if (id.data != caller.data || pen_guid_valid(caller))
        set_user_id(event, id);
    pen_set_text(event, PEN_ACTOR_USER_SID, claim_of(claims, sids));
    pen_set_text(event, PEN_ACTOR_SCOPE_ID, claim_of(claims, tenants));
    pen_set_text(event, PEN_ACTING_APP_ID, claim_of(claims, apps));
    pen_set_text(event, PEN_SESSION_UID, claim_of(claims, tokens));
    pen_set_text(event, PEN_IDENTITY_PROVIDER, claim_of(claims, providers));

    pen_set_text(event, PEN_ACTOR_TYPE, kind);
    if (kind.size == 0)
        kind = claim_of(claims, kinds);
    pen_set_text(event, PEN_ACTOR_ORIGINAL_USER_TYPE, kind);
    azure_set(event, PEN_ACTOR_USER_TYPE, azure_word(user_types, kind));
}

/* A member that was read and is kept beside its fields; as JSON where it came as JSON text, as the webhook's claims do. */
static void add_whole(struct pen_event *event, struct azure_object *owner, const char *name)
{
    struct pen_json whole = azure_peek(owner, name);

    if (pen_json_type(&whole) == PEN_JSON_TEXT)
        whole = pen_out_parse(owner->out, pen_span_trim(pen_json_value(&whole)));
    pen_add_json(event, (struct pen_span){ name, strlen(name) }, &whole);
}

/* Claims and the evidence are kept whole: what they say beyond the fields (authentication methods, groups, the role's
 * scope) belongs together. */
static struct pen_span set_identity(struct pen_event *event, struct azure_object *activity, struct pen_span *operation)
{
    struct azure_object identity, authorization, evidence, claims;
    struct azure_object *owner = azure_open_member(&identity, activity, "identity") ? &identity : activity;
    struct pen_span scope;

    azure_open_member(&authorization, owner, "authorization");
    azure_open_member(&claims, owner, "claims");
    azure_open_member(&evidence, &authorization, "evidence");
    set_actor(event, activity, &claims, &evidence);
    if (!azure_take(&evidence, event, PEN_ROLE, "role"))
        azure_take(&authorization, event, PEN_ROLE, "role");
    scope = azure_text(&authorization, "scope");
    if (operation->size == 0)
        *operation = azure_text(&authorization, "action");

    if (claims.count > 0)
        add_whole(event, owner, "claims");
    if (authorization.count > 0)
        add_whole(event, owner, "authorization");
    if (owner == &identity)
        azure_keep(&identity, event);
    return scope;
}

static void set_request(struct pen_event *event, struct azure_object *activity)
{
    struct azure_object request;
    struct pen_span ip = azure_text(activity, "callerIpAddress");

    azure_open_member(&request, activity, "httpRequest");
    if (ip.size == 0)
        ip = azure_text(&request, "clientIpAddress");
    if (!azure_ip_set(event, PEN_SRC_IP_ADDR, PEN_SRC_PORT_NUMBER, ip) && ip.size > 0)
        pen_add_text(event, PEN_SPAN("callerIpAddress"), ip);
    azure_take(&request, event, PEN_HTTP_USER_AGENT, "userAgent");
    azure_keep(&request, event);
}

/* ---- The rest ------------------------------------------------------------------------------------------------- */

static void set_message(struct pen_event *event, struct azure_object *activity, struct azure_object *properties,
                        bool failed)
{
    static const char *const descriptions[] = { "resultDescription", "description", NULL };
    struct pen_span description = azure_text_of(activity, descriptions);

    if (failed)
        pen_set_text(event, PEN_RESULT_DESCRIPTION, description);
    if (pen_set_text(event, PEN_EVENT_MESSAGE, description))
        return;
    pen_set_text(event, PEN_EVENT_MESSAGE, azure_text(properties, "title"));
}

/* The policy that spoke: the first of the definitions in `policies`, which is an array as JSON text. */
static void set_policy(struct pen_event *event, struct azure_object *properties)
{
    static const char *const names[] = { "policyDefinitionDisplayName", "policyDefinitionName", NULL };
    struct pen_json policies = azure_peek(properties, "policies"), first;
    struct azure_object policy;

    if (pen_json_type(&policies) == PEN_JSON_TEXT)
        policies = pen_out_parse(properties->out, pen_json_value(&policies));
    first = pen_json_item(&policies, 0);
    if (azure_open(&policy, properties->out, &first))
        pen_set_text(event, PEN_RULE_NAME, azure_text_of(&policy, names));
}

static bool set_times(struct pen_event *event, const struct pen_record *record, struct azure_object *activity)
{
    static const char *const times[] = { "time", "eventTimestamp", "timeStamp", "timeGenerated", NULL };
    static const char *const logged[] = { "submissionTimestamp", "eventSubmissionTimestamp", NULL };
    bool known = false;
    int64_t ticks = 0;

    for (size_t i = 0; times[i] != NULL && !known; i++) {
        struct pen_json time = azure_peek(activity, times[i]);

        known = azure_take(activity, event, PEN_TIME_GENERATED, times[i]) &&
                pen_time_read(pen_json_value(&time), &ticks);
        known = known || azure_take_count(activity, event, PEN_TIME_GENERATED, times[i], &ticks);
    }
    azure_take_of(activity, event, PEN_LOG_TIME, logged);
    azure_times_fill(event, record, ticks, known);
    return known;
}

/* Returns what the record is about. Log profiles wrote the operation's verb as category; properties know better then. */
static struct pen_span set_category(struct pen_event *event, struct azure_object *activity,
                                    struct azure_object *properties)
{
    static const char *const names[] = { "categoryValue", "category", "eventSource", NULL };
    struct pen_span category = azure_text_of(activity, names), inner;
    struct pen_json node = azure_peek(properties, "eventCategory");

    inner = pen_json_value(&node);
    if (inner.size == 0 || azure_is_same(inner, category))
        azure_use(properties, "eventCategory");
    pen_set_text(event, PEN_CATEGORY, category);
    return inner.size > 0 ? inner : category;
}

static enum pen_parsed activity_log_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    struct pen_event *event = pen_out_event(out, PEN_AUDIT);
    struct pen_json node = azure_activity_claimed(record->json);
    struct azure_object activity, properties;
    static const char *const operations[] = { "operationNameValue", "operationName", NULL };    /* a row has both */
    struct pen_span category, operation, scope;
    bool timed;
    int http;

    (void)self;
    if (!azure_open(&activity, out, &node)) {
        pen_out_blame(out, "more members than a record may have");
        return PEN_MALFORMED;
    }
    azure_open_properties(&properties, &activity);

    azure_set(event, PEN_EVENT_VENDOR, "Microsoft");
    azure_set(event, PEN_EVENT_PRODUCT, "Azure");
    pen_set_int(event, PEN_EVENT_COUNT, 1);
    timed = set_times(event, record, &activity);
    category = set_category(event, &activity, &properties);
    operation = azure_text_of(&activity, operations);
    scope = set_identity(event, &activity, &operation);
    set_operation(event, operation);
    set_object(event, &activity, scope, &properties);
    http = set_result(event, &activity, &properties);
    if (is_report(category))
        pen_unset(event, PEN_DVC_ACTION);            /* an outage that is resolved was allowed by nobody */
    if (azure_contains(operation, "/policies/deny/"))
        azure_set(event, PEN_DVC_ACTION, "Deny");
    set_severity(event, &activity);
    azure_set(event, PEN_EVENT_TYPE, operation_type(operation, category, http));
    azure_take(&activity, event, PEN_EVENT_ORIGINAL_SUB_TYPE, "eventName");
    set_request(event, &activity);
    set_message(event, &activity, &properties, http >= 400);
    set_policy(event, &properties);
    azure_take(&activity, event, PEN_CORRELATION_ID, "correlationId");
    azure_take(&activity, event, PEN_DURATION_MS, "durationMs");
    azure_take(&activity, event, PEN_LOCATION, "location");
    if (!pen_span_is(azure_find_text(&node, "Type"), "AzureActivity"))    /* there it is the workspace's */
        azure_take(&activity, event, PEN_AZURE_TENANT_ID, "tenantId");

    azure_keep(&activity, event);
    azure_keep(&properties, event);
    if (node.at != record->json->at)
        azure_keep_envelope(event, out, record->json);
    if (timed)
        return pen_out_emit(out, event);
    pen_out_blame(out, "the event's time is missing or unreadable: the arrival stands in");
    pen_out_emit(out, event);
    return PEN_PARTLY;
}

const struct pen_parser activity_log_parser = {
    .size = sizeof(struct pen_parser),
    .name = "activity-log",
    .claims = activity_log_claims,
    .parse = activity_log_parse,
};
