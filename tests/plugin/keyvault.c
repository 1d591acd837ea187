/*
 * keyvault.c - an example of a user's parser: Key Vault's audit log.
 *
 *     cc -shared -fPIC -o keyvault.so keyvault.c        (needs <penstock/parser.h>)
 *
 * Put the shared object into the folder that `[daemon] plugin_dir` names, or try it first:
 *
 *     penstock parse --plugin-dir . PT1H.json
 */
#include "parser.h"

static bool keyvault_claims(const struct pen_record *record)
{
    return pen_span_is(pen_json_text(record->json, "category"), "AuditEvent") &&
           pen_span_is_nocase(pen_span_trim(pen_json_text(record->json, "operationVersion")), "2015-06-01");
}

/* "Success", or the reason in words. */
static struct pen_span keyvault_result(const struct pen_json *json)
{
    if (pen_span_is_nocase(pen_json_text(json, "resultType"), "Success"))
        return PEN_SPAN("Success");
    return PEN_SPAN("Failure");
}

static enum pen_parsed keyvault_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    const struct pen_json *json = record->json;
    struct pen_json properties = pen_json_get(json, "properties");
    struct pen_event *event = pen_out_event(out, PEN_AUDIT);

    (void)self;
    pen_take(event, PEN_TIME_GENERATED, json, "time");
    pen_take(event, PEN_OPERATION, json, "operationName");
    pen_take(event, PEN_SRC_IP_ADDR, json, "callerIpAddress");
    pen_take(event, PEN_OBJECT, json, "resourceId");
    pen_set_text(event, PEN_EVENT_RESULT, keyvault_result(json));
    pen_add_json(event, PEN_SPAN("properties"), &properties);
    if (!pen_is_set(event, PEN_OPERATION))
        pen_out_blame(out, "operationName is missing");
    return pen_out_emit(out, event);
}

static const struct pen_parser keyvault_parser = {
    .size = sizeof(keyvault_parser), .name = "keyvault", .claims = keyvault_claims, .parse = keyvault_parse,
};

PEN_EXPORT const struct pen_parser *pen_parser_v1(void)
{
    return &keyvault_parser;
}
