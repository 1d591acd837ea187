/*
 * replay_dry.c - see replay_dry.h.
 *
 * A counting sink has the name and the schemas of the one it stands for, and answers every batch with "delivered" on the next
 * turn of the loop. There is one type for each place among the settings, since their names and schemas differ.
 */
#include "daemon/replay/replay_dry.h"

#include "daemon/record/json.h"
#include "daemon/replay/replay_progress.h"
#include "daemon/rule/rule.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH_BYTES 1000000
#define TENANT_ID_BYTES 36           /* a GUID in each row */

struct dry_sink {
    uv_timer_t timer;                /* answers */
    struct pen_batch *batch;         /* one is in flight, at most */
    struct json *json;
    struct buf padded, text;         /* scratch */
    uint64_t messages[PEN_KINDS], bytes[PEN_KINDS], billed[PEN_KINDS];
    bool stopping;
    void (*stopped)(void *arg);
    void *arg;
};

static const struct pen_sink *real_types[SETTINGS_SINKS_MAX];
static struct pen_sink dry_types[SETTINGS_SINKS_MAX];
static struct dry_sink *open_sinks[SETTINGS_SINKS_MAX];
static size_t open_count;

/* ---- What a message weighs ---- */

static size_t column_bytes(const struct pen_json *value, struct buf *text)
{
    switch (pen_json_type(value)) {
    case PEN_JSON_MISSING:
    case PEN_JSON_NULL:
        return 0;
    case PEN_JSON_TEXT:
        return pen_json_value(value).size;
    default:
        text->size = 0;
        json_write(value, text);
        return text->size;
    }
}

static uint64_t billed_bytes(struct dry_sink *dry, struct pen_span message)
{
    uint64_t billed = TENANT_ID_BYTES;
    struct pen_json root;
    const char *why;

    dry->padded.size = 0;
    buf_add(&dry->padded, message.data, message.size);
    buf_reserve(&dry->padded, JSON_PADDING);
    if (json_parse(dry->json, dry->padded.data, dry->padded.size, &root, &why) < 0)
        return billed + message.size;
    for (struct pen_json_iter it = pen_json_each(&root); pen_json_next(&it);)
        billed += column_bytes(&it.value, &dry->text);
    return billed;
}

/* ---- The sink ---- */

static const struct pen_limits *dry_limits(void *self)
{
    static const struct pen_limits limits = {
        .bytes_max = BATCH_BYTES, .messages_max = BATCH_BYTES / 64, .in_flight_max = 1, .by_kind = true, .memory = BATCH_BYTES,
    };

    (void)self;
    return &limits;
}

static int dry_open(void **self, struct pen_host *host, const struct pen_conf *conf, struct pen_error *err)
{
    struct dry_sink *dry = calloc(1, sizeof(*dry));

    (void)conf, (void)err;
    if (dry == NULL || (dry->json = json_new()) == NULL)
        abort();
    uv_timer_init(host->loop, &dry->timer);
    dry->timer.data = dry;
    assert(open_count < SETTINGS_SINKS_MAX);
    open_sinks[open_count++] = dry;
    *self = dry;
    return 0;
}

static void on_answer(uv_timer_t *timer)
{
    struct dry_sink *dry = timer->data;
    struct pen_batch *batch = dry->batch;

    dry->batch = NULL;
    for (uint32_t i = 0; i < batch->count; i++)
        dry->billed[batch->kind] += billed_bytes(dry, pen_batch_message(batch, i));
    dry->messages[batch->kind] += batch->count;
    dry->bytes[batch->kind] += batch->size + 2;
    pen_batch_answer(batch, PEN_DELIVERED, 0, "counted");
    if (dry->stopping)
        dry->stopped(dry->arg);
}

static void dry_submit(void *self, struct pen_batch *batch)
{
    struct dry_sink *dry = self;

    assert(dry->batch == NULL);
    dry->batch = batch;
    uv_timer_start(&dry->timer, on_answer, 0, 0);
}

static void on_stop(uv_timer_t *timer)
{
    struct dry_sink *dry = timer->data;

    dry->stopped(dry->arg);
}

static void dry_stop(void *self, void (*stopped)(void *), void *arg)
{
    struct dry_sink *dry = self;

    dry->stopped = stopped;
    dry->arg = arg;
    dry->stopping = true;
    if (dry->batch == NULL)
        uv_timer_start(&dry->timer, on_stop, 0, 0);
}

static void on_closed(uv_handle_t *handle)
{
    struct dry_sink *dry = handle->data;

    json_free(dry->json);
    buf_free(&dry->padded);
    buf_free(&dry->text);
    free(dry);
}

static void dry_close(void *self)
{
    struct dry_sink *dry = self;

    if (dry != NULL)
        uv_close((uv_handle_t *)&dry->timer, on_closed);
}

void replay_dry(struct settings *settings)
{
    for (unsigned i = 0; i < settings->sink_count; i++) {
        real_types[i] = settings->sinks[i].type;
        dry_types[i] = (struct pen_sink){
            .size = sizeof(struct pen_sink), .name = real_types[i]->name, .options = real_types[i]->options,
            .schemas = real_types[i]->schemas, .limits = dry_limits, .open = dry_open, .submit = dry_submit, .stop = dry_stop,
            .close = dry_close,
        };
        settings->sinks[i].type = &dry_types[i];
    }
}

/* ---- The table ---- */

/* Where Sentinel puts messages of this kind; a Kafka topic keeps them all. */
static void table_name(const struct sink_settings *sink, const struct pen_sink *type, enum pen_kind kind, char *name, size_t size)
{
    const char *schema = sink->schema != NULL ? sink->schema : type->schemas[0];
    struct sentinel_target target;
    struct pen_error err = { 0 };
    struct rule rule = { 0 };
    const char *output = NULL;

    if (type == &sentinel_sink && sentinel_target_read(&target, sink->section, schema, &err) == 0 &&
        rule_add(&rule, sink->name, &target, schema, 1U << kind, &err) == 0 && rule.count > 0)
        output = strchr(rule.streams[0]->output, '-');
    (void)snprintf(name, size, "%s", output != NULL ? output + 1 : kind_words[kind]);
    rule_free(&rule);
}

static void print_kind(const struct sink_settings *sink, const struct pen_sink *type, const struct dry_sink *dry, enum pen_kind kind)
{
    char table[RULE_OUTPUT_MAX], bytes[40], billed[40] = "-";

    table_name(sink, type, kind, table, sizeof(table));
    progress_bytes(bytes, sizeof(bytes), (double)dry->bytes[kind]);
    if (type == &sentinel_sink)
        (void)snprintf(billed, sizeof(billed), "%.6f", (double)dry->billed[kind] / 1e9);
    printf("%-16s  %-28s  %12" PRIu64 "  %10s  %14s\n", sink->name, table, dry->messages[kind], bytes, billed);
}

void replay_dry_print(const struct settings *settings)
{
    printf("%-16s  %-28s  %12s  %10s  %14s\n", "SINK", "TABLE", "MESSAGES", "JSON", "BILLED GB");
    for (size_t i = 0; i < open_count && i < settings->sink_count; i++)
        for (int kind = 0; kind < PEN_KINDS; kind++)
            if (open_sinks[i]->messages[kind] > 0)
                print_kind(&settings->sinks[i], real_types[i], open_sinks[i], (enum pen_kind)kind);
}
