/*
 * ocsf_inside.h - what the parts of the OCSF schema share: the plan of each class (ocsf.c), the values that it makes
 * (ocsf_values.c), and messages by patterns (ocsf_fill.c).
 */
#ifndef DAEMON_SCHEMA_OCSF_INSIDE_H
#define DAEMON_SCHEMA_OCSF_INSIDE_H

#include "daemon/schema/schema.h"
#include "daemon/schema/value.h"

#define N TABLE_N
#define A TABLE_A
#define L TABLE_L
#define U TABLE_U
#define ALL (N | A | L | U)
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/* ---- Words that become numbers ---- */

struct word {
    struct pen_span text;                    /* an empty one ends the list */
    int id;
};
#define OTHER 99
#define OMIT (-1)

struct code {
    uint32_t kinds;
    enum pen_field field;
    const char *path, *sibling;              /* the sibling takes the source's word where the number is 99 */
    const struct word *words;
    int absent;                              /* where the field is not set; OMIT: no attribute */
};

extern const struct code ocsf_codes[];
extern const size_t ocsf_code_count;

static inline struct pen_span event_text(const struct pen_event *event, enum pen_field field)
{
    return event_has(event, field) ? event->values[field].text : (struct pen_span){ NULL, 0 };
}

static inline bool event_is(const struct pen_event *event, enum pen_field field, struct pen_span text)
{
    return event_has(event, field) && event->values[field].text.size == text.size &&
           memcmp(event->values[field].text.data, text.data, text.size) == 0;
}

/* The number of the field's word alone, and the one that is said where that does not tell. */
int ocsf_code_id(const struct code *code, const struct pen_event *event);
int ocsf_code_value(const struct code *code, const struct pen_event *event);
/* The one that type_uid ends with. */
const struct code *ocsf_activity_code(enum pen_kind kind);

/* ---- Values of no single field ---- */

/* Writes one value, or answers false where there is none. */
typedef bool compute(struct buf *out, const struct pen_event *event, const struct event_meta *meta);

/* `uses` are the fields it has written in full. A text instead of a function stands as it is. */
#define USES_MAX 2
struct computed {
    uint32_t kinds;
    const char *path;
    compute *compute;
    const char *text;
    enum pen_field uses[USES_MAX];
    uint32_t use_count;
};

extern const struct computed ocsf_computed[];
extern const size_t ocsf_computed_count;

/* Those that a pattern may know more of. */
compute ocsf_compute_type_uid, ocsf_compute_class_uid, ocsf_compute_category_uid, ocsf_compute_account_type, ocsf_compute_time,
    ocsf_compute_uid, ocsf_compute_product, ocsf_compute_vendor, ocsf_compute_protocol_name;

/* Ticks to OCSF's integer milliseconds, rounded down before 1970 as after. */
void ocsf_write_ms(struct buf *out, int64_t ticks);
/* The field that `time` is taken from; PEN_FIELDS: the event has no time of its own. */
enum pen_field ocsf_time_field(const struct pen_event *event);

/* ---- The plan ---- */

#define OCSF_HOMES 19                        /* conditions: see `homes` */
#define DEPTH_MAX 4
#define KEY_MAX 96
#define STEPS_MAX 192

/* One attribute of a class. */
struct step {
    const char *path;
    enum { STEP_FIELD, STEP_CODE, STEP_SIBLING, STEP_COMPUTED } source;
    uint32_t order;                          /* in which it was added: the earlier wins */
    enum pen_field field;
    const struct code *code;
    const struct computed *computed;
    int home;                                /* index in homes, or -1 */
    uint32_t path_number;                    /* equal for steps of one path */
    uint32_t depth;                          /* objects around it */
    uint32_t common;                         /* of those, shared with the step before */
    bool array_leaf;
    bool in_array[DEPTH_MAX];                /* each object around it: one of an array? */
    bool port;                               /* 0 to 65535, or no port */
    uint32_t key_at[DEPTH_MAX + 1];          /* where in key the text from each depth on starts */
    uint32_t key_size;
    char key[KEY_MAX];                       /* "a":{"b":{"c": */
};

struct plan {
    struct step steps[STEPS_MAX];
    uint32_t count;
    uint64_t implied[FIELD_WORDS];
};
extern struct plan ocsf_plans[PEN_KINDS];        /* made with the first message */

/* ---- Writing ---- */

struct writer {
    struct buf *out;
    const struct pen_event *event;
    const struct event_meta *meta;
    struct pattern *pattern;                 /* to be made, or NULL */
    bool fills;                              /* from a pattern */
    const struct step *last;                 /* written; its objects are open */
    uint64_t rest[FIELD_WORDS];              /* fields that have found no place yet */
    bool whole[OCSF_HOMES];                  /* which conditions hold for this event */
};

#define OCSF_IP_MAX 40                       /* bytes that OCSF has for an address */

static inline bool ocsf_port_valid(int64_t number)
{
    return number >= 0 && number <= 65535;
}

/* One step's value; false: there is none, and perhaps a part of one is written. */
bool ocsf_write_value(struct writer *writer, const struct step *step);

/* ---- Patterns ---- */

/* Notes a value that was written from `start` on, or was not, and may differ next time. Whether there is a value must not
 * change: ocsf_fill() and ocsf_shape() see to that. */
void ocsf_note(const struct writer *writer, const struct step *step, size_t start, bool written);
uint32_t ocsf_shape(const struct pen_event *event);
bool ocsf_fill(struct pattern *pattern, const struct pen_event *event, const struct event_meta *meta, struct buf *out);

#endif
