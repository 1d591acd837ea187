/*
 * raw.c - the record as it was read, on one line.
 *
 * A raw line break inside valid JSON can only stand between tokens, so dropping CR and LF changes nothing but the look.
 * What is not JSON travels as text, with the reason: {"RawText":"…","Trouble":"…"}.
 */
#include "daemon/schema/schema.h"

static void raw_write_json(struct pen_span raw, struct buf *out)
{
    const char *end = raw.data + raw.size;

    buf_reserve(out, raw.size);
    for (const char *at = raw.data; at < end; at++)
        if (*at != '\n' && *at != '\r')
            out->data[out->size++] = *at;
}

static uint32_t raw_write(const struct pen_event *event, const struct event_meta *meta, struct buf *out, struct pattern *pattern)
{
    const struct pen_record *record = meta->record;
    const char *trouble = record->trouble != NULL ? record->trouble : "not JSON";
    struct pen_span raw = pen_span_trim(record->raw);

    (void)event, (void)pattern;
    if (record->json != NULL) {
        raw_write_json(raw, out);
        return 0;
    }
    BUF_LITERAL(out, "{\"RawText\":");
    buf_json_string(out, record->raw.data, record->raw.size);
    BUF_LITERAL(out, ",\"Trouble\":");
    buf_json_string(out, trouble, strlen(trouble));
    buf_char(out, '}');
    return 0;
}

const struct schema raw_schema = { .name = "raw", .per_record = true, .write = raw_write };
