/* rule.c - see rule.h. */
#include "daemon/rule.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

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
