/*
 * value.c - see value.h.
 *
 * Names of extras come from the record, so they are hostile: a record may repeat one key ten thousand times, or hold `a`,
 * `a` and `a_2`. Up to a handful of extras are compared each with each; beyond that, or when one repeats, they are sorted, so
 * that numbering them costs n log n whatever the names are.
 */
#include "daemon/schema/value.h"

#include <assert.h>
#include <stdlib.h>

void value_text(struct buf *out, struct pen_span text)
{
    buf_json_string(out, text.data, text.size);
}

void value_plain(struct buf *out, struct pen_span text)
{
    char *at;

    buf_reserve(out, text.size + 2);
    at = out->data + out->size;
    *at = '"';
    at = buf_put(at + 1, text.data, text.size);
    *at = '"';
    out->size += text.size + 2;
}

void value_write(struct buf *out, enum field_type type, const union value *value)
{
    switch (type) {
    case FIELD_TEXT:
        value_text(out, value->text);
        break;
    case FIELD_IP:
    case FIELD_MAC:
        value_plain(out, value->text);
        break;
    case FIELD_INT:
    case FIELD_LONG:
        buf_int(out, value->number);
        break;
    case FIELD_REAL:
        buf_real(out, value->real);
        break;
    case FIELD_BOOL:
        if (value->number != 0)
            BUF_LITERAL(out, "true");
        else
            BUF_LITERAL(out, "false");
        break;
    case FIELD_TIME:
        buf_char(out, '"');
        buf_time(out, value->number);
        buf_char(out, '"');
        break;
    case FIELD_JSON:
        json_write(&value->json, out);
        break;
    }
}

/* ---- Values that are too long ---- */

/* The bytes of one character in a JSON string that we have written: an escape, or UTF-8. */
static size_t unit_size(const char *at)
{
    unsigned char c = (unsigned char)*at;

    if (c == '\\')
        return at[1] == 'u' ? 6 : 2;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* How much of a written text goes into `max` bytes. Only control characters are written as escapes: each says one byte. */
static size_t text_part(const char *text, size_t size, size_t max, enum value_measure measure)
{
    size_t at = 0, sum = 0, unit;

    for (; at < size; at += unit) {
        unit = unit_size(text + at);
        sum += measure == VALUE_SAID && text[at] == '\\' ? 1 : unit;
        if (sum > max)
            break;
    }
    return at;
}

bool value_bound(struct buf *out, size_t start, size_t max, enum value_measure measure)
{
    bool text = out->data[start] == '"';
    size_t size, part;

    if (out->size - start <= max)
        return false;
    if (!text) {
        struct buf json = { 0 };

        buf_add(&json, out->data + start, out->size - start);
        out->size = start;
        buf_json_string(out, json.data, json.size);
        buf_free(&json);
    }
    size = out->size - start - 2;
    part = text_part(out->data + start + 1, size, measure == VALUE_WRITTEN ? max - 2 : max, measure);
    if (text && part == size)
        return false;
    out->size = start + 1 + part;
    buf_char(out, '"');
    return true;
}

/* ---- Twins ---- */

/* Where neither has a place of its own, the first one stays. The pairs join no field with itself by way of others: so one of all
 * that say the same is always left. */
static const struct { enum pen_field a, b; } twins[] = {
    { PEN_RESOURCE_ID, PEN_DVC_ID }, { PEN_RESOURCE_ID, PEN_OBJECT_ID }, { PEN_FLOW_LOG_ID, PEN_DVC_ID },
    { PEN_SUBSCRIPTION_ID, PEN_DVC_SUBSCRIPTION_ID }, { PEN_SUBSCRIPTION_ID, PEN_DVC_SCOPE_ID },
    { PEN_COMPROMISED_ENTITY, PEN_DVC_HOSTNAME }, { PEN_RESOURCE_TYPE, PEN_ORIGINAL_OBJECT_TYPE },
    { PEN_RESOURCE_PROVIDER, PEN_TARGET_APP_NAME }, { PEN_ACTOR_TYPE, PEN_ACTOR_ORIGINAL_USER_TYPE },
    { PEN_RESULT_DESCRIPTION, PEN_EVENT_MESSAGE }, { PEN_RESULT_SIGNATURE, PEN_EVENT_RESULT_DETAILS },
    { PEN_RESULT_SIGNATURE, PEN_EVENT_ORIGINAL_RESULT_DETAILS }, { PEN_ALERT_ID, PEN_EVENT_UID },
    { PEN_EVENT_ORIGINAL_SEVERITY, PEN_EVENT_SEVERITY }, { PEN_ALERT_STATUS, PEN_ALERT_ORIGINAL_STATUS },
};

bool value_twins_move(const struct pen_event *event, const struct pattern *pattern)
{
    for (size_t i = 0; i < sizeof(twins) / sizeof(*twins); i++)
        if (event_has(event, twins[i].a) && event_has(event, twins[i].b) &&
            (pattern_moves(pattern, twins[i].a) || pattern_moves(pattern, twins[i].b)))
            return true;
    return false;
}

static bool rest_has(const uint64_t rest[FIELD_WORDS], enum pen_field field)
{
    return rest[field / 64] >> (field % 64) & 1;
}

void value_drop_twins(const struct pen_event *event, uint64_t rest[FIELD_WORDS])
{
    for (size_t i = 0; i < sizeof(twins) / sizeof(*twins); i++) {
        enum pen_field a = twins[i].a, b = twins[i].b, gone = rest_has(rest, b) ? b : a;

        if (!event_has(event, a) || !event_has(event, b) || !rest_has(rest, gone))
            continue;
        if (event->values[a].text.size != event->values[b].text.size ||
            memcmp(event->values[a].text.data, event->values[b].text.data, event->values[a].text.size) != 0)
            continue;
        rest[gone / 64] &= ~(UINT64_C(1) << gone % 64);
    }
}

/* ---- The rest ---- */

#define FEW 32

struct member {
    struct pen_span name;
    uint32_t order;                  /* fields before extras, each in their own order */
    uint32_t number;                 /* 0: the name as it is; else name_number */
};

static int span_compare(struct pen_span a, struct pen_span b)
{
    size_t size = a.size < b.size ? a.size : b.size;
    int r = size > 0 ? memcmp(a.data, b.data, size) : 0;

    return r != 0 ? r : (a.size > b.size) - (a.size < b.size);
}

static int by_name(const void *a, const void *b)
{
    const struct member *left = a, *right = b;
    int r = span_compare(left->name, right->name);

    return r != 0 ? r : (left->order > right->order) - (left->order < right->order);
}

static int by_order(const void *a, const void *b)
{
    const struct member *left = a, *right = b;

    return (left->order > right->order) - (left->order < right->order);
}

static bool members_repeat(const struct member *members, size_t count)
{
    if (count > FEW)
        return true;                 /* maybe: let the sort tell */
    for (size_t i = 1; i < count; i++)
        for (size_t j = 0; j < i; j++)
            if (members[i].name.size == members[j].name.size && span_compare(members[i].name, members[j].name) == 0)
                return true;
    return false;
}

/* Is `stem_number` the name of a member? They are sorted by name. */
static bool members_have(const struct member *members, size_t count, struct pen_span stem, uint32_t number,
                         struct buf *scratch)
{
    size_t low = 0, high = count, middle;
    int r;

    scratch->size = 0;
    buf_add(scratch, stem.data, stem.size);
    buf_char(scratch, '_');
    buf_int(scratch, number);
    while (low < high) {
        middle = low + (high - low) / 2;
        r = span_compare(members[middle].name, (struct pen_span){ scratch->data, scratch->size });
        if (r == 0)
            return true;
        if (r < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* Two stems cannot make the same numbered name: `a_2` as a stem would be `a_2_2`, and `a_2` itself is looked for. */
static void members_number(struct member *members, size_t count)
{
    struct buf scratch = { 0 };
    uint32_t number = 1;

    qsort(members, count, sizeof(*members), by_name);
    for (size_t i = 1; i < count; i++) {
        if (span_compare(members[i].name, members[i - 1].name) != 0) {
            number = 1;
            continue;
        }
        do
            number++;
        while (members_have(members, count, members[i].name, number, &scratch));
        members[i].number = number;
    }
    qsort(members, count, sizeof(*members), by_order);
    buf_free(&scratch);
}

static void member_write_name(struct buf *out, const struct member *member)
{
    value_text(out, member->name);
    if (member->number > 0) {
        out->size--;                 /* into the quotes */
        buf_char(out, '_');
        buf_int(out, member->number);
        buf_char(out, '"');
    }
    buf_char(out, ':');
}

static void write_value(struct buf *out, enum field_type type, const union value *value, const struct value_limits *limits)
{
    size_t start = out->size;

    value_write(out, type, value);
    if (limits != NULL)
        (void)value_bound(out, start, limits->value_max, VALUE_WRITTEN);
}

static void write_fields(struct buf *out, const struct pen_event *event, const uint64_t rest[FIELD_WORDS],
                         const struct value_limits *limits, struct pattern *pattern)
{
    size_t start;

    for (size_t i = 0; i < FIELD_WORDS; i++) {
        for (uint64_t word = rest[i]; word != 0; word &= word - 1) {
            size_t id = i * 64 + (size_t)__builtin_ctzll(word);

            buf_char(out, '"');
            buf_add(out, fields[id].name, fields[id].name_size);
            BUF_LITERAL(out, "\":");
            start = out->size;
            write_value(out, fields[id].type, &event->values[id], limits);
            if (pattern_moves(pattern, (enum pen_field)id))
                pattern_hole(pattern, fields[id].type, (uint32_t)id, start, out);
            buf_char(out, ',');
        }
    }
}

static void write_extras(struct buf *out, const struct pen_event *event, const uint64_t rest[FIELD_WORDS],
                         const struct value_limits *limits)
{
    struct member few[1 + PEN_FIELDS + FEW], *members = few;
    size_t count = 0, field_count;

    if (limits != NULL)
        few[count++] = (struct member){ limits->reserved, 0, 0 };
    for (size_t i = 0; i < FIELD_WORDS; i++)
        for (uint64_t word = rest[i]; word != 0; word &= word - 1) {
            size_t id = i * 64 + (size_t)__builtin_ctzll(word);

            few[count] = (struct member){ { fields[id].name, fields[id].name_size }, (uint32_t)count, 0 };
            count++;
        }
    field_count = count;
    if (event->extra_count > FEW) {
        members = calloc(field_count + event->extra_count, sizeof(*members));
        if (members == NULL)
            abort();
        memcpy(members, few, field_count * sizeof(*members));
    }
    for (size_t i = 0; i < event->extra_count; i++, count++)
        members[count] = (struct member){ event->extras[i].name, (uint32_t)count, 0 };
    if (members_repeat(members, count))
        members_number(members, count);
    for (size_t i = 0; i < event->extra_count; i++) {
        assert(members[field_count + i].order == field_count + i);
        member_write_name(out, &members[field_count + i]);
        write_value(out, event->extras[i].type, &event->extras[i].value, limits);
        buf_char(out, ',');
    }
    if (members != few)
        free(members);
}

bool value_write_rest(struct buf *out, const struct pen_event *event, const uint64_t rest[FIELD_WORDS],
                      const struct value_limits *limits, struct pattern *pattern)
{
    size_t start = out->size;

    write_fields(out, event, rest, limits, pattern);
    if (event->extra_count > 0)
        write_extras(out, event, rest, limits);
    if (out->size == start)
        return false;
    out->size--;                     /* the last comma */
    return true;
}
