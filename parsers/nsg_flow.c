/*
 * nsg_flow.c - NSG flow logs, versions 1 and 2: one event per tuple, ASIM NetworkSession of type Flow.
 *
 *   record.properties.flows[] (rule) . flows[] (mac) . flowTuples[]
 *   1487282421,42.119.146.95,10.1.0.4,51529,5358,T,I,D                     version 1: 8 fields
 *   1724090346,10.1.0.4,20.98.192.237,35620,443,T,O,A,E,1,74,0,0           version 2: 13, times in Unix seconds
 *
 * Oddities met: the counters of a B tuple are empty, which is not zero; a rule without traffic has `flows: []`; the
 * record's own macAddress is missing from old records; `resourceid` is spelled so in the docs; Version is text behind
 * some relays, and tuples may count milliseconds there. The number of fields decides how a tuple is read, not the version
 * that the record claims.
 */
#include "parsers/flow.h"

#define FIELDS_V1 8
#define FIELDS_V2 13

static bool nsg_flow_claims(const struct pen_record *record)
{
    return record->json != NULL && azure_flow(record->json) == AZURE_NSG_FLOW;
}

static const char *nsg_flow_read(struct flow_tuple *tuple)
{
    struct pen_span *fields = tuple->fields;
    const char *why;

    if (tuple->count != FIELDS_V1 && tuple->count < FIELDS_V2)
        return "it has neither 8 fields nor 13";
    if (!flow_read_time(tuple, fields[0]))
        return "the time is no count of seconds";
    why = flow_read_ends(tuple, 1);
    if (why == NULL)
        why = flow_read_protocol(tuple, fields[5]);
    if (why == NULL)
        why = flow_read_direction(tuple, fields[6]);
    if (why != NULL)
        return why;
    if (flow_is_letter(fields[7], 'a'))
        tuple->decision = FLOW_ALLOWED;
    else if (flow_is_letter(fields[7], 'd'))
        tuple->decision = FLOW_DENIED;
    else
        return "the decision is neither A nor D";
    tuple->known = FIELDS_V1;
    if (tuple->count == FIELDS_V1)
        return NULL;
    tuple->known = FIELDS_V2;
    tuple->state = fields[8];
    return flow_read_counters(tuple, 9);
}

static void nsg_flow_describe(struct flow *flow, struct pen_event *event)
{
    struct azure_object *top = &flow->top;
    struct pen_span resource = azure_text(top, "resourceId");
    struct azure_id id = azure_id_split(flow->out, resource);

    azure_take(top, event, PEN_LOG_TIME, "time");
    azure_take(top, event, PEN_CATEGORY, "category");
    azure_use(top, "operationName");                 /* says no more than the category */
    if (flow->mac_differs)
        azure_unuse(top, "macAddress");
    else
        azure_use(top, "macAddress");                /* nor this than the group's own */
    flow_take_version(flow, event, &flow->properties, "Version", "NSG");
    if (pen_set_text(event, PEN_DVC_ID, resource))
        azure_set(event, PEN_DVC_ID_TYPE, "AzureResourceId");
    pen_set_text(event, PEN_RESOURCE_ID, resource);
    if (!pen_set_text(event, PEN_DVC, id.name))
        azure_set(event, PEN_DVC, "NSGFlow");        /* mandatory */
    pen_set_text(event, PEN_DVC_SUBSCRIPTION_ID, id.subscription);
    pen_set_text(event, PEN_SUBSCRIPTION_ID, id.subscription);      /* group, provider and type: see flow.h */
    azure_keep(top, event);
    azure_keep(&flow->properties, event);
}

/* One interface's tuples. */
static void nsg_flow_emit_group(struct flow *flow, const struct pen_json *element, const struct pen_json *group,
                                struct pen_span mac)
{
    struct pen_json tuples = azure_find(group, "flowTuples");
    struct pen_span own = azure_find_text(group, "mac");

    flow_begin_group(flow, element, group);
    flow_set_mac(flow, own.size > 0 ? own : mac);
    if (tuples.tree == NULL)
        flow_emit_broken(flow, group, "flowTuples is missing");
    else
        flow_emit_tuples(flow, &tuples);
}

static void nsg_flow_emit_rule(struct flow *flow, const struct pen_json *element, struct pen_span mac)
{
    struct pen_json groups = azure_find(element, "flows");
    struct pen_json_iter it = pen_json_each(&groups);

    flow->rule = flow_name(flow, element, "rule");
    flow->group = 0;
    if (pen_json_type(&groups) != PEN_JSON_ARRAY) {
        flow_emit_broken(flow, element, "its flows are no array");
        return;
    }
    for (; !flow->full && pen_json_next(&it); flow->group++)
        nsg_flow_emit_group(flow, element, &it.value, mac);
}

static enum pen_parsed nsg_flow_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    struct pen_json flows;
    struct pen_json_iter it;
    struct pen_span mac;
    struct flow flow;

    (void)self;
    flow_begin(&flow, record, out, nsg_flow_read, nsg_flow_describe);
    azure_open_member(&flow.properties, &flow.top, "properties");
    flow.mac_of_record = azure_peek(&flow.top, "macAddress");
    mac = azure_find_text(record->json, "macAddress");
    flows = azure_peek(&flow.properties, "flows");
    azure_use(&flow.properties, "flows");
    if (pen_json_type(&flows) != PEN_JSON_ARRAY) {
        pen_out_blame(out, "properties.flows is missing or no array, or there are too many other members");
        return PEN_MALFORMED;
    }
    for (it = pen_json_each(&flows); !flow.full && pen_json_next(&it); flow.element++)
        nsg_flow_emit_rule(&flow, &it.value, mac);
    return flow.parsed;
}

const struct pen_parser nsg_flow_parser = {
    .size = sizeof(struct pen_parser),
    .name = "nsg-flow",
    .claims = nsg_flow_claims,
    .parse = nsg_flow_parse,
};
