/*
 * vnet_flow.c - virtual network flow logs (flowLogVersion 4): one event per tuple, ASIM NetworkSession of type Flow.
 *
 *   record.flowRecords.flows[] (aclID) . flowGroups[] (rule) . flowTuples[]
 *   1663146003599,10.0.0.6,52.239.184.180,23956,443,6,O,B,NX,0,0,0,0       13 fields
 *
 * ASIM registers NSGFlow as EventProduct and has no name for VNet flow logs, so both go by that name, where Microsoft's
 * own parsers and workbooks look; EventProductVersion tells which one it was.
 *
 * Oddities met: Unix milliseconds, but the docs' prose has seconds (decided by magnitude); the decision is folded into
 * the state (D is denied, B, C, E mean allowed); IANA numbers for protocols; counters of B and D are 0, or empty in the
 * docs; aclID may be a resource id, a GUID, zeros (PlatformRule) or `unspecified`; the keys come in any order.
 */
#include "parsers/flow.h"

#define FIELDS 13

static bool vnet_flow_claims(const struct pen_record *record)
{
    return record->json != NULL && azure_flow(record->json) == AZURE_VNET_FLOW;
}

static const char *vnet_flow_read(struct flow_tuple *tuple)
{
    struct pen_span *fields = tuple->fields;
    const char *why;

    if (tuple->count < FIELDS)
        return "it has fewer than 13 fields";
    if (!flow_read_time(tuple, fields[0]))
        return "the time is no count of milliseconds";
    why = flow_read_ends(tuple, 1);
    if (why == NULL)
        why = flow_read_protocol(tuple, fields[5]);
    if (why == NULL)
        why = flow_read_direction(tuple, fields[6]);
    if (why != NULL)
        return why;
    tuple->state = fields[7];
    if (flow_is_letter(tuple->state, 'd'))
        tuple->decision = FLOW_DENIED;
    else if (flow_is_letter(tuple->state, 'b') || flow_is_letter(tuple->state, 'c') ||
             flow_is_letter(tuple->state, 'e'))
        tuple->decision = FLOW_ALLOWED;              /* of any other state nobody knows */
    tuple->encryption = fields[8];
    tuple->known = FIELDS;
    return flow_read_counters(tuple, 9);
}

static void vnet_flow_describe(struct flow *flow, struct pen_event *event)
{
    struct azure_object *top = &flow->top;
    struct pen_span target = azure_text(top, "targetResourceID"), log = azure_text(top, "flowLogResourceID");
    struct pen_span of_target = azure_id_split(flow->out, target).subscription;
    struct azure_id log_id = azure_id_split(flow->out, log);

    azure_take(top, event, PEN_LOG_TIME, "time");
    azure_take(top, event, PEN_CATEGORY, "category");
    azure_use(top, "operationName");                 /* says no more than the category */
    azure_take(top, event, PEN_FLOW_LOG_GUID, "flowLogGUID");
    flow_take_version(flow, event, top, "flowLogVersion", "VNet");
    if (pen_set_text(event, PEN_DVC_ID, log))
        azure_set(event, PEN_DVC_ID_TYPE, "AzureResourceId");
    pen_set_text(event, PEN_FLOW_LOG_ID, log);
    pen_set_text(event, PEN_RESOURCE_ID, target.size > 0 ? target : log);
    if (!pen_set_text(event, PEN_DVC, log_id.name))
        azure_set(event, PEN_DVC, "VNetFlow");       /* mandatory */
    if (of_target.size == 0)
        of_target = log_id.subscription;
    if (log_id.subscription.size == 0 || azure_is_same(log_id.subscription, of_target))
        log_id.subscription = of_target;             /* in one spelling, or it would be told twice */
    pen_set_text(event, PEN_DVC_SUBSCRIPTION_ID, log_id.subscription);
    pen_set_text(event, PEN_SUBSCRIPTION_ID, of_target);
    azure_keep(top, event);
    azure_keep(&flow->properties, event);
}

static void vnet_flow_emit_acl(struct flow *flow, const struct pen_json *element)
{
    struct pen_json groups = azure_find(element, "flowGroups"), tuples;
    struct pen_json_iter it = pen_json_each(&groups);

    flow->acl = flow_name(flow, element, "aclID");
    flow->group = 0;
    if (pen_json_type(&groups) != PEN_JSON_ARRAY) {
        flow_emit_broken(flow, element, "its flowGroups are no array");
        return;
    }
    for (; !flow->full && pen_json_next(&it); flow->group++) {
        flow_begin_group(flow, element, &it.value);
        flow->rule = flow_name(flow, &it.value, "rule");
        tuples = azure_find(&it.value, "flowTuples");
        if (tuples.tree == NULL)
            flow_emit_broken(flow, &it.value, "flowTuples is missing");
        else
            flow_emit_tuples(flow, &tuples);
    }
}

static enum pen_parsed vnet_flow_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    struct pen_json flows;
    struct pen_json_iter it;
    struct flow flow;

    (void)self;
    flow_begin(&flow, record, out, vnet_flow_read, vnet_flow_describe);
    azure_open_member(&flow.properties, &flow.top, "flowRecords");
    flow_set_mac(&flow, azure_text(&flow.top, "macAddress"));
    flows = azure_peek(&flow.properties, "flows");
    azure_use(&flow.properties, "flows");
    if (pen_json_type(&flows) != PEN_JSON_ARRAY) {
        pen_out_blame(out, "flowRecords.flows is missing or no array, or there are too many other members");
        return PEN_MALFORMED;
    }
    for (it = pen_json_each(&flows); !flow.full && pen_json_next(&it); flow.element++)
        vnet_flow_emit_acl(&flow, &it.value);
    return flow.parsed;
}

const struct pen_parser vnet_flow_parser = {
    .size = sizeof(struct pen_parser),
    .name = "vnet-flow",
    .claims = vnet_flow_claims,
    .parse = vnet_flow_parse,
};
