/*
 * value.h - what asim and ocsf share: values as JSON, and the object that takes what has no home of its own.
 */
#ifndef DAEMON_SCHEMA_VALUE_H
#define DAEMON_SCHEMA_VALUE_H

#include "daemon/schema/pattern.h"

/* A text as a JSON string with its quotes; most need no escapes and are copied in one go. */
void value_text(struct buf *out, struct pen_span text);
/* One that needs none and was looked at when it was set: an address, an event's id. */
void value_plain(struct buf *out, struct pen_span text);
/* Any value of that type as JSON: numbers as numbers, times as ISO text, JSON as itself. */
void value_write(struct buf *out, enum field_type type, const union value *value);

/* The same for a hole that is filled as value_write() does it. */
static inline void value_fill(struct buf *out, const struct hole *hole, const struct pen_event *event)
{
    const union value *value = &event->values[hole->what];

    switch (hole->how) {
    case FIELD_INT:
    case FIELD_LONG:
        buf_int(out, value->number);
        break;
    case FIELD_TEXT:
        buf_json_string(out, value->text.data, value->text.size);
        break;
    default:
        value_write(out, (enum field_type)hole->how, value);
        break;
    }
}

/* How a bound counts: a text column by what it says, JSON by what it is written with (quotes and escapes too). */
enum value_measure { VALUE_SAID, VALUE_WRITTEN };

/* Holds the value that stands at `start`, at the end of `out`, to `max` bytes (32 at least): a text is cut on the border of
 * a character, anything else becomes the text of its JSON, cut likewise. True: it was too long. */
bool value_bound(struct buf *out, size_t start, size_t max, enum value_measure measure);

/* Takes out of `rest` what another field says word for word: AdditionalFields.ResourceId beside an equal DvcId is paid
 * for by the byte and tells nothing. Nor does a second one in it. Only fields that are near in meaning are compared. */
void value_drop_twins(const struct pen_event *event, uint64_t rest[FIELD_WORDS]);
/* Whether it may decide otherwise for another event of the pattern, which may be NULL. */
bool value_twins_move(const struct pen_event *event, const struct pattern *pattern);

struct value_limits {
    size_t value_max;                /* bytes that a value of the rest may be written with */
    struct pen_span reserved;        /* a name that stands in the object already */
};

/* `"Name":value` pairs parted by commas, without braces: the fields in `rest` under their column names, then the event's
 * extras under their own. A name that comes again is numbered (name_2, name_3 …). True: something was written. `limits` and
 * `pattern` may be NULL; the holes of the latter are the fields'. */
bool value_write_rest(struct buf *out, const struct pen_event *event, const uint64_t rest[FIELD_WORDS],
                      const struct value_limits *limits, struct pattern *pattern);

#endif
