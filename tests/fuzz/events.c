/*
 * events.c - what a parser, ours or a user's, may do to an event: any field with any value of its type, any additional
 * field; then every schema writes it. Each message is JSON on one line without a name twice, and the same from a pattern. Then
 * the same once more as two further records, each without one of the operations: what a pattern takes over from one record to the
 * next must not be what differs.
 *
 * Input: 1 byte kind, and which operation is left out; then operations: 1 byte what, 2 bytes which field, 1 byte size, and that
 * many bytes of value.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/schema/pattern.h"

#include <assert.h>
#include <stdlib.h>

#define OPERATIONS_MAX 512

struct made {
    struct event_meta meta;
    struct patterns asim, ocsf;
    unsigned events;
};

static void judge_message(struct patterns *patterns, const struct schema *schema, const struct pen_event *event,
                          const struct event_meta *meta)
{
    struct pen_span message, rest;
    struct buf out = { 0 }, same = { 0 };

    buf_add(&out, "before", 6);      /* a schema appends */
    schema->write(event, meta, &out, NULL);
    message = (struct pen_span){ out.data + 6, out.size - 6 };
    assert(judge_json(message) && judge_line(message, false) && message.data[0] == '{');
    assert(judge_names_differ(message));
    rest = judge_member(message, schema == &asim_schema ? "AdditionalFields" : "unmapped");
    assert(rest.size == 0 || (rest.data[0] == '{' && judge_names_differ(rest)));
    patterns_write(patterns, schema, event, meta, &same);
    assert(same.size == message.size && memcmp(same.data, message.data, same.size) == 0);
    buf_free(&out);
    buf_free(&same);
}

static bool on_event(void *arg, const struct pen_event *event, uint64_t ordinal)
{
    struct made *made = arg;

    assert(ordinal == made->events);
    made->events++;
    judge_message(&made->asim, &asim_schema, event, &made->meta);
    judge_message(&made->ocsf, &ocsf_schema, event, &made->meta);
    return true;
}

/* Names come from JSON, hence are UTF-8; two that are not may look the same once they are written. */
static struct pen_span name_of(struct pen_out *out, struct pen_span bytes)
{
    struct pen_span name = pen_out_copy(out, bytes);

    for (size_t i = 0; i < name.size; i++)
        ((char *)name.data)[i] &= 0x7f;
    return name;
}

/* The value's bytes are what every setter gets, in the form it wants. */
static void operate(struct pen_out *out, struct pen_event *event, uint8_t what, enum pen_field field, struct pen_span value)
{
    struct feed feed = feed_of((const uint8_t *)value.data, value.size);
    struct pen_span name = name_of(out, (struct pen_span){ value.data, value.size / 2 });
    struct pen_span text = { value.data + name.size, value.size - name.size };
    struct pen_json node = pen_out_parse(out, value);
    int64_t number = (int64_t)feed_number(&feed, 8);
    double real;

    memcpy(&real, &number, sizeof(real));
    switch (what % 8) {
    case 0:
        pen_add_text(event, name, text);
        return;
    case 1:
        pen_add_int(event, name, number);
        return;
    case 2:
        pen_add_json(event, pen_json_value(&node).data != NULL ? pen_json_value(&node) : name, &node);
        return;
    case 3:
        pen_unset(event, field);
        assert(!pen_is_set(event, field));
        return;
    case 4:
        (void)pen_out_emit(out, event);
        return;
    case 5:
        if (pen_set_node(event, field, &node))
            assert(pen_is_set(event, field));
        return;
    }
    switch (fields[field].type) {
    case FIELD_TEXT:
        (void)pen_set_text(event, field, value);
        break;
    case FIELD_INT:
    case FIELD_LONG:
        (void)pen_set_int(event, field, number);
        break;
    case FIELD_REAL:
        (void)pen_set_real(event, field, real);
        break;
    case FIELD_BOOL:
        (void)pen_set_bool(event, field, number & 1);
        break;
    case FIELD_TIME:
        if (!pen_set_time(event, field, value))
            (void)pen_set_ticks(event, field, number);
        break;
    case FIELD_IP:
        (void)pen_set_ip(event, field, value);
        break;
    case FIELD_MAC:
        (void)pen_set_mac(event, field, value);
        break;
    case FIELD_JSON:
        (void)pen_set_json(event, field, &node);
        break;
    }
}

static void play(struct pen_out *out, struct made *made, struct feed feed, uint8_t kind, unsigned left_out)
{
    struct pen_event *event;

    made->events = 0;
    out_begin(out, 0);
    event = pen_out_event(out, kind % PEN_KINDS);
    for (unsigned i = 0; feed_left(&feed) > 0 && i < OPERATIONS_MAX; i++) {
        uint8_t what = feed_byte(&feed);
        enum pen_field field = feed_number(&feed, 2) % PEN_FIELDS;
        /* Setters keep the span: it must live as long as the input does. */
        struct pen_span value = feed_span(&feed, feed_byte(&feed));

        if (i != left_out)
            operate(out, event, what, field, value);
    }
    (void)pen_out_emit(out, event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "{\"a\":[1,\"\\u0000\",{\"b\":null}]}";
    static struct made made = {
        .meta = { .id = "00112233445566778899aabbccddeeff-0", .id_size = 34, .received_ticks = 17000000000000000,
                  .source = { "fuzz", 4 }, .parser = "fuzz" },
    };
    static struct pen_out *out;
    static struct json *json;
    struct feed feed = feed_of(data, size);
    uint8_t kind = feed_byte(&feed);
    struct pen_record record = { .raw = { text, sizeof(text) - 1 }, .source = { "fuzz", 4 } };
    struct pen_json root;
    const char *why;
    char *padded;

    if (out == NULL) {
        out = out_new(on_event, &made);
        json = json_new();
    }
    padded = fuzz_copy(record.raw, JSON_PADDING);
    if (json_parse(json, padded, record.raw.size, &root, &why) < 0)
        abort();
    if (kind & 8)
        record.trouble = "it is not JSON";
    else
        record.json = &root;
    made.meta.record = &record;
    play(out, &made, feed, kind, OPERATIONS_MAX);
    play(out, &made, feed, kind, kind >> 4);
    play(out, &made, feed, kind, 16 + (kind >> 4));
    free(padded);
    return 0;
}
