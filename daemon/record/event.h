/*
 * event.h - the daemon's side of events: what parsers fill through parsers/parser.h and schemas read.
 *
 * An event is a fixed array of slots, one per field, with a bitmap of those set; it lives inside a job and is reset, not
 * freed. A pen_out is what one worker hands to parsers: event, arena, and the function that takes emitted events.
 */
#ifndef DAEMON_EVENT_H
#define DAEMON_EVENT_H

#include "daemon/base/buf.h"
#include "daemon/record/json.h"

enum field_type { FIELD_TEXT, FIELD_INT, FIELD_LONG, FIELD_REAL, FIELD_BOOL, FIELD_TIME, FIELD_IP, FIELD_MAC, FIELD_JSON };

#define TABLE_N (1u << PEN_NETWORK)
#define TABLE_A (1u << PEN_AUDIT)
#define TABLE_L (1u << PEN_ALERT)
#define TABLE_U (1u << PEN_UNKNOWN)

/* One row of fields.def. */
struct field {
    const char *name;                /* ASIM column */
    uint32_t name_size;
    enum field_type type;
    uint32_t tables;                 /* TABLE_* that have the column */
    const char *ocsf, *ecs, *cef;
};
extern const struct field fields[PEN_FIELDS];

union value {
    struct pen_span text;            /* TEXT, IP, MAC */
    int64_t number;                  /* INT, LONG, BOOL, TIME (ticks) */
    double real;
    struct pen_json json;
};

/* An additional field: text, number or JSON under the source's own name. */
struct extra {
    struct pen_span name;
    enum field_type type;            /* FIELD_TEXT, FIELD_LONG or FIELD_JSON */
    union value value;
};

#define FIELD_WORDS ((PEN_FIELDS + 63) / 64)

struct pen_event {
    enum pen_kind kind;
    uint64_t set[FIELD_WORDS];
    uint64_t moved[FIELD_WORDS];     /* set or unset since it was emitted first */
    uint64_t version;                /* of all but what has moved: another one with each pen_out_event(), never 0 */
    bool emitted;                    /* once at least */
    union value values[PEN_FIELDS];
    struct extra *extras;            /* in the out's arena */
    uint32_t extra_count, extra_capacity;
    struct pen_out *out;
};

static inline bool event_has(const struct pen_event *event, enum pen_field field)
{
    return event->set[field / 64] >> (field % 64) & 1;
}

/* What identifies an event wherever it is read: 32 hex digits of SHA-256 over the raw record, '-', its ordinal. */
#define EVENT_ID_MAX (32 + 1 + 20)

struct event_meta {
    char id[EVENT_ID_MAX];           /* not NUL-terminated */
    uint32_t id_size;
    int64_t received_ticks;          /* arrival; stands in for a missing time */
    struct pen_span source;          /* source's name in the configuration */
    const struct pen_record *record;
    const char *parser;              /* name of the parser that made it */
};

/* Takes one emitted event; false: no room, the record is to be parsed again later from this event on. */
typedef bool (*out_emit)(void *arg, const struct pen_event *event, uint64_t ordinal);

/* Texts of one record that may be parsed as JSON; a further one counts as none. */
#define OUT_INNER_MAX 8

struct pen_out {
    struct arena arena;              /* reset per record */
    struct json *inner[OUT_INNER_MAX];   /* for pen_out_parse(): one per text, made on need */
    uint32_t inner_used;             /* of them in this record */
    struct buf scratch;              /* for pen_out_json() */
    struct pen_event event;
    out_emit emit;
    void *emit_arg;
    uint64_t ordinal;                /* of the next event within its record */
    uint64_t skip;                   /* events of this record that an earlier pass has taken */
    bool full;                       /* emit said no room; the rest of this pass is dropped */
    char blame[256];                 /* "" : none */
};

struct pen_out *out_new(out_emit emit, void *emit_arg);
void out_free(struct pen_out *out);
/* Ready for a record whose first `skip` events are already taken. */
void out_begin(struct pen_out *out, uint64_t skip);
/* Bytes of memory it holds now. */
size_t out_held(const struct pen_out *out);

#endif
