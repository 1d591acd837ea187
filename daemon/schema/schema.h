/*
 * schema.h - how an event is written for a far end: `asim`, `ocsf`, `raw`.
 *
 * A schema is a pure function from an event to the bytes of one message. It appends to `out` and never fails: what
 * cannot be expressed goes to the schema's place for the rest (AdditionalFields, unmapped).
 */
#ifndef DAEMON_SCHEMA_H
#define DAEMON_SCHEMA_H

#include "daemon/record/event.h"
#include "daemon/schema/table.h"

struct pattern;

struct schema {
    const char *name;
    bool per_record;                 /* one message per record, not per event: write() sees its first event only */
    /* Tells how many of the event's fields were cut, because the far end would have cut them without a word. Where there is a
     * pattern to be made of the message (pattern.h), it is told what may differ next time. */
    uint32_t (*write)(const struct pen_event *event, const struct event_meta *meta, struct buf *out, struct pattern *pattern);
    /* What sets events apart that a pattern must not serve together, beside the fields that are set; NULL: nothing. */
    uint32_t (*shape)(const struct pen_event *event);
    /* Writes the same from a pattern; false, with `out` in any state, where it cannot. NULL: the schema makes none. */
    bool (*fill)(struct pattern *pattern, const struct pen_event *event, const struct event_meta *meta, struct buf *out);
    /* Every key that write() may put at the top of a message of this kind. NULL: any, they are the record's own. */
    void (*table)(enum pen_kind kind, struct table *table);
};

extern const struct schema asim_schema, ocsf_schema, raw_schema;

/* By name, or NULL. */
const struct schema *schema_find(const char *name);
/* The names, NULL-ended, for messages to people. */
extern const char *const schema_names[];

#endif
