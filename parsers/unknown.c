/*
 * unknown.c - every record that no parser claims, or that its parser could not read: it travels whole.
 *
 * Security logs are not ours to discard. What is JSON goes as JSON, what is not as text, with the reason. A few fields
 * that most Azure logs share are lifted out so that the records can be found again.
 */
#include "parsers/azure.h"

static bool unknown_claims(const struct pen_record *record)
{
    (void)record;
    return true;
}

static void set_common(struct pen_event *event, struct pen_out *out, const struct pen_json *json)
{
    static const char *const times[] = { "time", "timeStamp", "TimeGenerated", "eventTimestamp", "createdDateTime", NULL };
    struct azure_object object;

    if (!azure_open(&object, out, json))
        return;
    azure_take_of(&object, event, PEN_TIME_GENERATED, times);
    if (!azure_take(&object, event, PEN_CATEGORY, "category"))
        azure_take(&object, event, PEN_CATEGORY, "type");
    azure_take(&object, event, PEN_RESOURCE_ID, "resourceId");
    azure_take(&object, event, PEN_CORRELATION_ID, "correlationId");
    azure_take(&object, event, PEN_AZURE_TENANT_ID, "tenantId");
}

static enum pen_parsed unknown_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    struct pen_event *event = pen_out_event(out, PEN_UNKNOWN);

    (void)self;
    if (record->json != NULL && pen_set_json(event, PEN_RAW, record->json))
        set_common(event, out, record->json);
    else
        pen_set_text(event, PEN_RAW_TEXT, record->raw);
    azure_set(event, PEN_TROUBLE, record->trouble);
    return pen_out_emit(out, event);
}

const struct pen_parser unknown_parser = {
    .size = sizeof(struct pen_parser),
    .name = "unknown",
    .claims = unknown_claims,
    .parse = unknown_parse,
};
