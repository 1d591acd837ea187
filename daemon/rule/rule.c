/* rule.c - see rule.h. */
#include "daemon/rule/rule.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define NAMES_TOLD 12                /* columns that one sentence names */

/* ---- What is needed -------------------------------------------------------------------------------------------- */

bool rule_stream_is_native(const struct rule_stream *stream)
{
    return strncmp(stream->name, "Microsoft-", 10) == 0;
}

const char *rule_stream_table(const struct rule_stream *stream)
{
    return strncmp(stream->output, "Custom-", 7) == 0 ? stream->output + 7 : NULL;
}

/* A custom table is named like its stream; a table's name takes letters, digits and underscores. */
static void stream_set_output(struct rule_stream *stream)
{
    size_t size = strlen(stream->name);
    bool ends = size > 3 && strcmp(stream->name + size - 3, "_CL") == 0;
    int r;

    if (rule_stream_is_native(stream))
        r = snprintf(stream->output, sizeof(stream->output), "%s", stream->name);
    else if (stream->table.home != NULL)
        r = snprintf(stream->output, sizeof(stream->output), "Microsoft-%s", stream->table.home);
    else
        r = snprintf(stream->output, sizeof(stream->output), "%s%s", stream->name, ends ? "" : "_CL");
    assert(r > 0 && (size_t)r < sizeof(stream->output));
    for (char *at = strchr(stream->output, '-') + 1; *at != '\0'; at++)
        if (!isalnum((unsigned char)*at))
            *at = '_';
}

static struct rule_stream *stream_new(const char *name, const char *sink, const struct schema *schema, enum pen_kind kind)
{
    struct rule_stream *stream = calloc(1, sizeof(*stream));

    if (stream == NULL)
        abort();
    stream->name = name;
    stream->sink = sink;
    stream->open = schema->table == NULL;
    if (!stream->open)
        schema->table(kind, &stream->table);
    stream_set_output(stream);
    return stream;
}

static struct rule_stream *rule_find(const struct rule *rule, const char *name)
{
    for (size_t i = 0; i < rule->count; i++)
        if (strcmp(rule->streams[i]->name, name) == 0)
            return rule->streams[i];
    return NULL;
}

/* Two that send to one stream must send the same. */
static bool stream_is_same(const struct rule_stream *a, const struct rule_stream *b)
{
    if (a->open || b->open)
        return a->open && b->open;
    return strcmp(a->output, b->output) == 0 && strcmp(a->table.transform, b->table.transform) == 0 &&
           a->table.count == b->table.count &&
           memcmp(a->table.columns, b->table.columns, a->table.count * sizeof(*a->table.columns)) == 0;
}

static int rule_add_stream(struct rule *rule, struct rule_stream *stream, struct pen_error *err)
{
    const struct rule_stream *other = rule_find(rule, stream->name);

    if (other == NULL) {
        assert(rule->count < RULE_STREAMS_MAX);
        rule->streams[rule->count++] = stream;
        return 0;
    }
    if (!stream_is_same(other, stream))
        pen_error_set(err, UV_EINVAL, "the stream %.128s would take events of two kinds or schemas (sinks %.64s and %.64s), but "
                      "has one set of columns and one table: give each a stream of its own", stream->name, other->sink,
                      stream->sink);
    free(stream);
    return err->code;
}

int rule_add(struct rule *rule, const char *sink, const struct sentinel_target *target, const char *schema, unsigned kinds,
             struct pen_error *err)
{
    /* In the order in which people think of them. */
    static const enum pen_kind order[] = { PEN_NETWORK, PEN_AUDIT, PEN_ALERT, PEN_UNKNOWN };
    int r = 0;

    if (rule->dcr != NULL && strcasecmp(rule->dcr, target->dcr) != 0)
        return pen_error_set(err, UV_EINVAL, "the Sentinel sinks deliver to more than one DCR: choose one sink with --sink");
    rule->dcr = target->dcr;
    err->code = 0;
    for (size_t i = 0; i < sizeof(order) / sizeof(*order) && r == 0; i++)
        if (kinds & 1u << order[i])
            r = rule_add_stream(rule, stream_new(target->streams[order[i]], sink, schema_find(schema), order[i]), err);
    return r;
}

void rule_free(struct rule *rule)
{
    for (size_t i = 0; i < rule->count; i++)
        free(rule->streams[i]);
    *rule = (struct rule){ 0 };
}

/* ---- What is deployed ------------------------------------------------------------------------------------------ */

struct comparison {
    struct pen_json declarations, flows;
    finding_tell tell;
    void *arg;
};

__attribute__((format(printf, 3, 4)))
static void told(const struct comparison *comparison, enum finding finding, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    finding_say(comparison->tell, comparison->arg, finding, format, args);
    va_end(args);
}

/* The column's type as declared there, or an empty span. */
static struct pen_span declared_type(const struct pen_json *columns, const char *name)
{
    struct pen_json_iter it;

    for (it = pen_json_each(columns); pen_json_next(&it);)
        if (pen_span_is(pen_json_text(&it.value, "name"), name))
            return pen_json_text(&it.value, "type");
    return (struct pen_span){ NULL, 0 };
}

/* "A, B, C and 4 more" */
static void names_add(struct buf *names, size_t count, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void names_add(struct buf *names, size_t count, const char *format, ...)
{
    char text[256];
    va_list args;

    if (count >= NAMES_TOLD)
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buf_text(names, "%s%s", count == 0 ? "" : ", ", text);
}

static void names_end(struct buf *names, size_t count)
{
    if (count > NAMES_TOLD)
        buf_text(names, " and %zu more", count - NAMES_TOLD);
    buf_char(names, '\0');
}

static void compare_columns(const struct comparison *comparison, const struct rule_stream *stream,
                            const struct pen_json *columns)
{
    struct buf missing = { 0 }, other = { 0 };
    size_t missing_count = 0, other_count = 0;
    const struct table_column *column;
    struct pen_span type;
    const char *want;

    for (column = stream->table.columns; column < stream->table.columns + stream->table.count; column++) {
        type = declared_type(columns, column->name);
        want = column_type_names[column->type];
        if (type.data == NULL)
            names_add(&missing, missing_count++, "%s (%s)", column->name, want);
        else if (!pen_span_is_nocase(type, want))
            names_add(&other, other_count++, "%s is %.*s and should be %s", column->name,
                      (int)(type.size < 20 ? type.size : 20), type.data, want);
    }
    names_end(&missing, missing_count);
    names_end(&other, other_count);
    if (missing_count > 0)
        told(comparison, FINDING_WRONG, "the DCR's stream %s does not declare %zu of the columns that are sent, and drops their "
             "values without an error: %s; deploy what \"penstock dcr\" prints", stream->name, missing_count, missing.data);
    if (other_count > 0)
        told(comparison, FINDING_WRONG, "the DCR's stream %s declares %zu of the columns with another type, and may drop their "
             "values without an error: %s; deploy what \"penstock dcr\" prints", stream->name, other_count, other.data);
    if (missing_count + other_count == 0)
        told(comparison, FINDING_GOOD, "stream %s declares all %zu columns that are sent", stream->name, stream->table.count);
    buf_free(&missing);
    buf_free(&other);
}

/* The data flow that takes the stream, or missing. */
static struct pen_json flow_of(const struct comparison *comparison, const char *stream)
{
    struct pen_json_iter flow, name;
    struct pen_json names;

    for (flow = pen_json_each(&comparison->flows); pen_json_next(&flow);) {
        names = pen_json_get(&flow.value, "streams");
        for (name = pen_json_each(&names); pen_json_next(&name);)
            if (pen_span_is(pen_json_value(&name.value), stream))
                return flow.value;
    }
    return (struct pen_json){ 0 };
}

static void compare_flow(const struct comparison *comparison, const struct rule_stream *stream)
{
    struct pen_json flow = flow_of(comparison, stream->name), stages = pen_json_get(&flow, "transform");
    struct pen_span output = pen_json_text(&flow, "outputStream"), transform = pen_json_text(&flow, "transformKql");

    if (pen_json_type(&flow) == PEN_JSON_MISSING) {
        told(comparison, FINDING_WRONG, "no data flow of the DCR takes the stream %s, so its rows reach no table: deploy what "
             "\"penstock dcr\" prints", stream->name);
        return;
    }
    if (stream->open || rule_stream_is_native(stream))
        return;
    if (!pen_span_is(output, stream->output))
        told(comparison, FINDING_UNKNOWN, "the DCR sends the stream %s to %.*s, and not to %s: whether that table has its "
             "columns was not checked", stream->name, (int)(output.size < 128 ? output.size : 128), output.data,
             stream->output);
    if ((transform.data != NULL && !pen_span_is(pen_span_trim(transform), stream->table.transform)) ||
        pen_json_type(&stages) != PEN_JSON_MISSING)
        told(comparison, FINDING_UNKNOWN, "the DCR has a transformation of its own for the stream %s: what it keeps was not "
             "checked", stream->name);
    else if (transform.data == NULL && strcmp(stream->table.transform, "source") != 0)
        told(comparison, FINDING_WRONG, "the DCR's data flow of the stream %s needs the transformation %s: without it rows have "
             "no time", stream->name, stream->table.transform);
}

static void compare_stream(const struct comparison *comparison, const struct rule_stream *stream)
{
    struct pen_json declared = pen_json_get(&comparison->declarations, stream->name);
    struct pen_json columns = pen_json_get(&declared, "columns");

    if (!rule_stream_is_native(stream) && pen_json_type(&columns) != PEN_JSON_ARRAY) {
        told(comparison, FINDING_WRONG, "the DCR has no stream %s, so posts to it are refused: deploy what \"penstock dcr\" "
             "prints, or name the stream that it has", stream->name);
        return;
    }
    if (stream->open)
        told(comparison, FINDING_UNKNOWN, "what goes to the stream %s are records as they were read: whether its columns are "
             "all of theirs cannot be checked", stream->name);
    else if (!rule_stream_is_native(stream))
        compare_columns(comparison, stream, &columns);
    compare_flow(comparison, stream);
}

void rule_compare(const struct rule *rule, const struct pen_json *deployed, finding_tell tell, void *arg)
{
    struct pen_json properties = pen_json_get(deployed, "properties");
    struct comparison comparison = {
        .declarations = pen_json_get(&properties, "streamDeclarations"), .flows = pen_json_get(&properties, "dataFlows"),
        .tell = tell, .arg = arg,
    };
    struct pen_span id = pen_json_text(&properties, "immutableId");

    if (pen_json_type(&properties) != PEN_JSON_OBJECT) {
        told(&comparison, FINDING_UNKNOWN, "what Azure Resource Manager answered is no data collection rule");
        return;
    }
    if (id.data != NULL && !pen_span_is_nocase(id, rule->dcr))
        told(&comparison, FINDING_WRONG, "dcr_resource_id names the rule %.*s, but \"dcr\" is %s: one of them is another rule's",
             (int)(id.size < 64 ? id.size : 64), id.data, rule->dcr);
    for (size_t i = 0; i < rule->count; i++)
        compare_stream(&comparison, rule->streams[i]);
}
