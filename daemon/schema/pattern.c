/* pattern.c - see pattern.h. */
#include "daemon/schema/pattern.h"

#include <assert.h>

static_assert(PEN_FIELDS < UINT16_MAX / 2, "a field's number and a schema's own word are 16 bits");

#define TEXT_MAX ((size_t)16 * 1024) /* a longer message is not worth the memory: copying is all it costs */

/* ---- What holds still ------------------------------------------------------------------------------------------- */

static void still_add(struct buf *still, enum field_type type, const union value *value, const struct pen_event *event)
{
    switch (type) {
    case FIELD_TEXT:
    case FIELD_IP:
    case FIELD_MAC:
        buf_add(still, (const char *)&value->text.size, sizeof(value->text.size));
        buf_add(still, value->text.data, value->text.size);
        break;
    case FIELD_INT:
    case FIELD_LONG:
    case FIELD_BOOL:
    case FIELD_TIME:
        buf_add(still, (const char *)&value->number, sizeof(value->number));
        break;
    case FIELD_REAL:
        buf_add(still, (const char *)&value->real, sizeof(value->real));
        break;
    case FIELD_JSON:                 /* is not looked into: no other event says the same */
        buf_add(still, (const char *)&event->version, sizeof(event->version));
        break;
    }
}

/* Which fields are set and do not move, what they say, and the additional ones: each with its size or of fixed size, so that two
 * events that differ cannot come to the same. False: it is too much. */
static bool still_write(struct buf *still, const struct pen_event *event, const uint64_t moved[FIELD_WORDS])
{
    still->size = 0;
    for (size_t i = 0; i < FIELD_WORDS; i++) {
        uint64_t word = event->set[i] & ~moved[i];

        buf_add(still, (const char *)&word, sizeof(word));
        for (; word != 0 && still->size <= TEXT_MAX; word &= word - 1) {
            size_t field = i * 64 + (size_t)__builtin_ctzll(word);

            still_add(still, fields[field].type, &event->values[field], event);
        }
    }
    for (uint32_t i = 0; i < event->extra_count && still->size <= TEXT_MAX; i++) {
        const struct extra *extra = &event->extras[i];

        buf_add(still, (const char *)&extra->type, sizeof(extra->type));
        still_add(still, FIELD_TEXT, &(union value){ .text = extra->name }, event);
        still_add(still, extra->type, &extra->value, event);
    }
    return still->size <= TEXT_MAX;
}

static void patterns_drop(struct patterns *patterns)
{
    for (uint32_t i = 0; i < PATTERNS; i++)
        patterns->patterns[i].made = false;
    patterns->last = patterns->next = 0;
}

/* Begins with what is known of every record: each has its own time. */
static void patterns_forget_moves(struct patterns *patterns)
{
    memset(patterns->moved, 0, sizeof(patterns->moved));
    patterns->moved[PEN_LOG_TIME / 64] = UINT64_C(1) << PEN_LOG_TIME % 64;
    patterns_drop(patterns);
}

/* A move that one record's patterns were refused for need not come again. */
static bool patterns_refused(const struct patterns *patterns)
{
    for (uint32_t i = 0; i < PATTERNS; i++)
        if (patterns->patterns[i].made && patterns->patterns[i].refused)
            return true;
    return false;
}

/* Fields that have moved now and had not been seen to. */
static bool patterns_learn(struct patterns *patterns, const struct pen_event *event)
{
    bool news = false;

    for (size_t i = 0; i < FIELD_WORDS && event->emitted; i++) {
        news |= (event->moved[i] & ~patterns->moved[i]) != 0;
        patterns->moved[i] |= event->moved[i];
    }
    return news;
}

/* From now on they serve this event, as it stands since pen_out_event(). */
static void patterns_turn(struct patterns *patterns, const struct schema *schema, const struct pen_event *event, bool news)
{
    struct buf before = patterns->still;

    patterns->useless = !still_write(&patterns->other, event, patterns->moved);
    if (news || patterns->useless || patterns->other.size != before.size ||
        memcmp(patterns->other.data, before.data, before.size) != 0)
        patterns_drop(patterns);
    patterns->still = patterns->other;
    patterns->other = before;
    if (patterns->useless)
        buf_free(&patterns->still);
    patterns->schema = schema;
    patterns->version = event->version;
    patterns->extra_count = event->extra_count;
}

/* False: there is none for this event, and none is to be made. */
static bool patterns_serve(struct patterns *patterns, const struct schema *schema, const struct pen_event *event)
{
    bool known = patterns->version == event->version && patterns->schema == schema, news;

    if (patterns->schema != schema || (!known && patterns_refused(patterns)))
        patterns_forget_moves(patterns);
    news = patterns_learn(patterns, event);
    if (!known || news)
        patterns_turn(patterns, schema, event, news);
    return !patterns->useless && patterns->extra_count == event->extra_count;
}

/* ---- Patterns --------------------------------------------------------------------------------------------------- */

static inline bool same_fields(const uint64_t a[FIELD_WORDS], const uint64_t b[FIELD_WORDS])
{
    uint64_t differ = 0;

    for (size_t i = 0; i < FIELD_WORDS; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}

static struct pattern *patterns_find(struct patterns *patterns, const struct pen_event *event, uint32_t shape)
{
    for (uint32_t i = 0; i < PATTERNS; i++) {
        uint32_t at = (patterns->last + i) % PATTERNS;
        const struct pattern *pattern = &patterns->patterns[at];

        if (pattern->made && pattern->shape == shape && same_fields(pattern->set, event->set)) {
            patterns->last = at;
            return &patterns->patterns[at];
        }
    }
    return NULL;
}

static struct pattern *patterns_begin(struct patterns *patterns, const struct pen_event *event, uint32_t shape,
                                      const struct buf *out)
{
    struct pattern *pattern = &patterns->patterns[patterns->next];

    patterns->last = patterns->next;
    patterns->next = (patterns->next + 1) % PATTERNS;
    pattern->made = true;
    memcpy(pattern->set, event->set, sizeof(event->set));
    memcpy(pattern->moved, patterns->moved, sizeof(patterns->moved));
    pattern->shape = shape;
    pattern->refused = false;
    pattern->stamp.size = 0;
    pattern->hole_count = pattern->digit_count = 0;
    for (size_t i = 0; i < PATTERN_SPELLED; i++)
        pattern->spelled[i].known = false;
    pattern->text.size = 0;
    pattern->copied = out->size;
    return pattern;
}

static void pattern_take(struct pattern *pattern, const struct buf *out, size_t end)
{
    if (pattern->refused)
        return;
    assert(end >= pattern->copied && end <= out->size);
    if (pattern->text.size + (end - pattern->copied) > TEXT_MAX)
        pattern->refused = true;
    else
        buf_add(&pattern->text, out->data + pattern->copied, end - pattern->copied);
}

void pattern_hole(struct pattern *pattern, uint32_t how, uint32_t what, size_t start, const struct buf *out)
{
    if (pattern == NULL || pattern->refused)
        return;
    pattern_take(pattern, out, start);
    if (pattern->hole_count == PATTERN_HOLES) {
        pattern->refused = true;
        return;
    }
    pattern->holes[pattern->hole_count++] = (struct hole){
        .at = (uint32_t)pattern->text.size,
        .what = (uint16_t)what,
        .how = (uint16_t)how,
    };
    pattern->copied = out->size;
}

void pattern_digit(struct pattern *pattern, uint32_t what, const struct buf *out)
{
    if (pattern == NULL || pattern->refused)
        return;
    if (pattern->digit_count == PATTERN_DIGITS) {
        pattern->refused = true;
        return;
    }
    pattern->digits[pattern->digit_count++] = (struct digit){
        .at = (uint32_t)(pattern->text.size + (out->size - 1 - pattern->copied)), .what = what,
    };
}

struct spelled *pattern_spelled(struct pattern *pattern, const struct pattern_words *words)
{
    uint64_t hash = words->sizes, differ;
    struct spelled *spelled;

    for (size_t i = 0; i < PATTERN_WORDS; i++)
        hash = hash * 31 + words->texts[i][0];
    spelled = &pattern->spelled[(hash * UINT64_C(0x9E3779B97F4A7C15) >> 32) % PATTERN_SPELLED];
    differ = spelled->words.sizes ^ words->sizes;
    for (size_t i = 0; i < PATTERN_WORDS; i++)
        differ |= (spelled->words.texts[i][0] ^ words->texts[i][0]) | (spelled->words.texts[i][1] ^ words->texts[i][1]);
    if (differ != 0) {
        spelled->words = *words;
        spelled->known = false;
    }
    return spelled;
}

uint32_t patterns_write(struct patterns *patterns, const struct schema *schema, const struct pen_event *event,
                        const struct event_meta *meta, struct buf *out)
{
    struct pattern *pattern;
    size_t start = out->size;
    uint32_t cut, shape;

    /* Only flows come many to a record. */
    if (schema->fill == NULL || event->kind != PEN_NETWORK || !patterns_serve(patterns, schema, event))
        return schema->write(event, meta, out, NULL);
    shape = schema->shape != NULL ? schema->shape(event) : 0;
    pattern = patterns_find(patterns, event, shape);
    if (pattern != NULL) {
        if (!pattern->refused && schema->fill(pattern, event, meta, out))
            return 0;
        out->size = start;
        return schema->write(event, meta, out, NULL);
    }
    pattern = patterns_begin(patterns, event, shape, out);
    cut = schema->write(event, meta, out, pattern);
    pattern_take(pattern, out, out->size);
    buf_reserve(&pattern->text, PATTERN_STEP);
    pattern->refused |= cut > 0;
    return cut;
}

void patterns_free(struct patterns *patterns)
{
    buf_free(&patterns->still);
    buf_free(&patterns->other);
    for (uint32_t i = 0; i < PATTERNS; i++)
        buf_free(&patterns->patterns[i].text);
}

size_t patterns_held(const struct patterns *patterns)
{
    size_t held = patterns->still.capacity + patterns->other.capacity;

    for (uint32_t i = 0; i < PATTERNS; i++)
        held += patterns->patterns[i].text.capacity;
    return held;
}
