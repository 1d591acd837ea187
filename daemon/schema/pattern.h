/*
 * pattern.h - what the messages of flow records have in common, copied instead of written again and again.
 *
 * A flow record becomes thousands of events that differ in a dozen fields, and the next record of the log says the same of
 * its interface, its rule, its resource. So a schema notes, while it writes, where the values of fields that move stand: the
 * holes. What lies between them is the pattern, and the next event that has the same fields set is a copy of it with its holes
 * filled.
 *
 *   {"TimeGenerated":▢,"DstBytes":▢,"DstIpAddr":▢,"Dvc":"NSG-WEB","DvcIdType":"AzureResourceId","EventCount":1, …
 *
 * Within a record the event knows which fields those are: it marks what is touched after its first emission (`moved`). All
 * that were seen to move are remembered, and the time the record was logged is one of them from the start. The others hold
 * still, and what they say is kept: where a further record's event says the same, byte for byte, the patterns serve it, too.
 *
 * A schema that makes numbers of words (inbound is 1, outbound is 2) has no holes for them where they are one digit: the digit
 * stands in the pattern and is put right for each event. What digits a combination of words makes is found out once and kept.
 *
 * What must hold: the bytes are those of write(). A pattern serves one schema, one set of fields that move, one content of all
 * others, one set of fields that are set, and one shape, which is the schema's to tell. A schema refuses where a field that
 * moves decides more than what stands in its own hole.
 */
#ifndef DAEMON_SCHEMA_PATTERN_H
#define DAEMON_SCHEMA_PATTERN_H

#include "daemon/schema/schema.h"

#define PATTERN_HOLES 48
#define PATTERN_STEP 64              /* texts are copied in steps of this size: so much may be read and written past their end */

struct hole {
    uint32_t at;                     /* in the pattern's text: what is written here is not part of it */
    uint16_t what;                   /* a field, as fields.def knows it, or the schema's number for what goes here */
    uint16_t how;                    /* a field's enum field_type: as value_write() does it; from HOLE_OWN on, the schema's word */
};
#define HOLE_OWN 16

/* A time and its text: most events name one instant three times, and all of a record when it was logged. */
struct stamp {
    int64_t ticks;
    uint32_t size;                   /* 0: none yet */
    char text[40];                   /* as it stands in a message; all of it is copied, whatever the size */
};

#define PATTERN_DIGITS 12
#define PATTERN_WORDS 5              /* fields that say one of a few words; which, is the schema's to tell */
#define PATTERN_SPELLED 16           /* combinations of words, each in the place that its hash says */

struct digit {
    uint32_t at;                     /* in the pattern's text */
    uint32_t what;                   /* the schema's number for it */
};

struct pattern_words {
    uint64_t texts[PATTERN_WORDS][2];    /* as words_add() reads them; zeros: not set */
    uint64_t sizes;                      /* a byte each */
};

struct spelled {
    struct pattern_words words;
    char digits[PATTERN_DIGITS];     /* that they make, in the order of the pattern's */
    bool known;                      /* or nobody has asked yet */
};

struct pattern {
    bool made;
    uint64_t set[FIELD_WORDS], moved[FIELD_WORDS];
    uint32_t shape;
    bool refused;                    /* messages like this one are always written anew */
    uint32_t hole_count;
    struct hole holes[PATTERN_HOLES];
    struct stamp stamp;              /* for the schema's use: nothing to begin with */
    uint32_t digit_count;
    struct digit digits[PATTERN_DIGITS];
    struct spelled spelled[PATTERN_SPELLED];
    struct buf text;                 /* without what stood in the holes; PATTERN_STEP bytes of slack behind it */
    size_t copied;                   /* while it is made: up to here of `out` is in the text */
};

/* One worker's, for one schema at a time: tuples come in a few kinds, with counters and without, inbound and outbound. */
#define PATTERNS 8

struct patterns {
    const struct schema *schema;
    uint64_t version;                /* of the event they serve; 0: none */
    bool useless;                    /* it says so much that copying is all it costs */
    uint64_t moved[FIELD_WORDS];     /* fields that move */
    uint32_t extra_count;            /* additional fields of the event: they hold still */
    struct buf still, other;         /* what holds still, in our own words; the same of an event at hand */
    struct pattern patterns[PATTERNS];
    uint32_t last, next;             /* used last; to be given up next */
};

/* schema->write(), by a pattern where there is one. */
uint32_t patterns_write(struct patterns *patterns, const struct schema *schema, const struct pen_event *event,
                        const struct event_meta *meta, struct buf *out);
void patterns_free(struct patterns *patterns);
size_t patterns_held(const struct patterns *patterns);   /* bytes of memory beyond the struct itself */

/* For schemas, which may have NULL for a pattern. `start` to the end of `out` is a value that may differ next time. */
void pattern_hole(struct pattern *pattern, uint32_t how, uint32_t what, size_t start, const struct buf *out);
/* The last byte of `out` is a digit that follows from the words, and from what holds still. */
void pattern_digit(struct pattern *pattern, uint32_t what, const struct buf *out);
/* What these words make, known or to be made known. */
struct spelled *pattern_spelled(struct pattern *pattern, const struct pattern_words *words);

/* The text of a set field as one of the words: it has 1 to WORD_MAX bytes, read as two pieces of eight, of four or of one that
 * overlap (of three bytes the middle one beside them). With its size they tell all of it. */
#define WORD_MAX 16
static inline void words_add(struct pattern_words *words, uint32_t index, struct pen_span text)
{
    uint64_t *to = words->texts[index];

    if (text.size >= 8) {
        memcpy(&to[0], text.data, 8);
        memcpy(&to[1], text.data + text.size - 8, 8);
    } else if (text.size >= 4) {
        uint32_t first, last;

        memcpy(&first, text.data, 4);
        memcpy(&last, text.data + text.size - 4, 4);
        to[0] = first | (uint64_t)last << 32;
    } else {
        to[0] = (unsigned char)text.data[0] | (uint64_t)(unsigned char)text.data[text.size / 2] << 8 |
                (uint64_t)(unsigned char)text.data[text.size - 1] << 16;
    }
    words->sizes |= (uint64_t)text.size << 8 * index;
}

/* The text says those digits from now on. */
static inline void pattern_spell(struct pattern *pattern, const struct spelled *spelled)
{
    for (uint32_t i = 0; i < pattern->digit_count; i++)
        pattern->text.data[pattern->digits[i].at] = spelled->digits[i];
}

static inline void pattern_refuse(struct pattern *pattern)
{
    if (pattern != NULL)
        pattern->refused = true;
}

static inline bool pattern_moves(const struct pattern *pattern, enum pen_field field)
{
    return pattern != NULL && (pattern->moved[field / 64] >> (field % 64) & 1);
}

/* Writes the stamp where it is of this time. */
static inline bool stamp_write(struct buf *out, int64_t ticks, const struct stamp *stamp)
{
    if (ticks != stamp->ticks || stamp->size == 0)
        return false;
    buf_reserve(out, sizeof(stamp->text));
    memcpy(out->data + out->size, stamp->text, sizeof(stamp->text));
    out->size += stamp->size;
    return true;
}

/* Copies a part of the text: what stands between two holes. */
static inline void pattern_copy(const struct pattern *pattern, size_t from, size_t to, struct buf *out)
{
    const char *text = pattern->text.data + from;
    char *at;

    buf_reserve(out, to - from + PATTERN_STEP);
    at = out->data + out->size;
    out->size += to - from;
    for (const char *end = text + (to - from); text < end; text += PATTERN_STEP, at += PATTERN_STEP)
        memcpy(at, text, PATTERN_STEP);
}

#endif
