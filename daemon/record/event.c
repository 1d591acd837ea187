/*
 * event.c - events from the daemon's side and what parsers do to them: setters, additional fields, emission.
 *
 * A setter answers false for a value that is missing or does not fit, and touches nothing. A field and a setter of
 * different types are a bug in a parser, hence asserted. Reading times stands in time.c.
 */
#include "daemon/record/event.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define N TABLE_N
#define A TABLE_A
#define L TABLE_L
#define U TABLE_U
const struct field fields[PEN_FIELDS] = {
#define FIELD(id, type, name, tables, ocsf, ecs, cef) \
    [PEN_##id] = { name, sizeof(name) - 1, FIELD_##type, tables, ocsf, ecs, cef },
#include "parsers/fields.def"
#undef FIELD
};
#undef N
#undef A
#undef L
#undef U

/* ---- Out ------------------------------------------------------------------------------------------------------ */

/* What one parser may ask for at once; far above any record, far below what could hurt arithmetic. */
#define OUT_ALLOC_MAX ((size_t)1 << 30)
/* Trees of inner texts beyond this are given back when the record is done. */
#define OUT_INNER_KEPT ((size_t)16 * 1024)

struct pen_out *out_new(out_emit emit, void *emit_arg)
{
    struct pen_out *out = calloc(1, sizeof(*out));

    if (out == NULL)
        abort();
    out->emit = emit;
    out->emit_arg = emit_arg;
    out->event.out = out;
    return out;
}

void out_free(struct pen_out *out)
{
    if (out == NULL)
        return;
    for (size_t i = 0; i < OUT_INNER_MAX && out->inner[i] != NULL; i++)
        json_free(out->inner[i]);
    arena_free(&out->arena);
    buf_free(&out->scratch);
    free(out);
}

/* As if it had never been emitted. */
static void event_renew(struct pen_event *event)
{
    event->version++;
    event->emitted = false;
}

void out_begin(struct pen_out *out, uint64_t skip)
{
    for (uint32_t i = 0; i < out->inner_used; i++)
        json_shrink(out->inner[i], OUT_INNER_KEPT);
    out->inner_used = 0;
    if (out->scratch.capacity > OUT_INNER_KEPT)
        buf_free(&out->scratch);
    arena_reset(&out->arena);
    out->event.extras = NULL;
    out->event.extra_count = out->event.extra_capacity = 0;
    event_renew(&out->event);
    out->ordinal = 0;
    out->skip = skip;
    out->full = false;
    out->blame[0] = '\0';
}

size_t out_held(const struct pen_out *out)
{
    size_t held = sizeof(*out) + out->arena.held + out->scratch.capacity;

    for (size_t i = 0; i < OUT_INNER_MAX && out->inner[i] != NULL; i++)
        held += json_held(out->inner[i]);
    return held;
}

struct pen_event *pen_out_event(struct pen_out *out, enum pen_kind kind)
{
    struct pen_event *event = &out->event;

    assert(kind < PEN_KINDS);
    event->kind = kind;
    memset(event->set, 0, sizeof(event->set));
    event->extra_count = 0;
    event_renew(event);
    return event;
}

enum pen_parsed pen_out_emit(struct pen_out *out, struct pen_event *event)
{
    if (out->full)
        return PEN_PARTLY;           /* nobody's fault: the record comes again, from this event on */
    if (out->ordinal >= out->skip && !out->emit(out->emit_arg, event, out->ordinal)) {
        out->full = true;
        return PEN_PARTLY;
    }
    out->ordinal++;
    if (!event->emitted) {
        event->emitted = true;
        memset(event->moved, 0, sizeof(event->moved));
    }
    return PEN_PARSED;
}

bool pen_out_skip(struct pen_out *out)
{
    if (out->full || out->ordinal >= out->skip)
        return false;
    out->ordinal++;
    return true;
}

void pen_out_blame(struct pen_out *out, const char *format, ...)
{
    va_list args;

    if (out->blame[0] != '\0')
        return;
    va_start(args, format);
    vsnprintf(out->blame, sizeof(out->blame), format, args);
    va_end(args);
    text_clean(out->blame);
}

char *pen_out_alloc(struct pen_out *out, size_t size)
{
    return size > OUT_ALLOC_MAX ? NULL : arena_alloc(&out->arena, size);
}

struct pen_span pen_out_copy(struct pen_out *out, struct pen_span span)
{
    char *copy = span.data == NULL ? NULL : pen_out_alloc(out, span.size);

    if (copy == NULL)
        return (struct pen_span){ 0 };
    memcpy(copy, span.data, span.size);
    return (struct pen_span){ copy, span.size };
}

struct pen_span pen_out_text(struct pen_out *out, const char *format, ...)
{
    va_list args, again;
    char *text;
    int size;

    va_start(args, format);
    va_copy(again, args);
    size = vsnprintf(NULL, 0, format, again);
    va_end(again);
    text = size < 0 ? NULL : pen_out_alloc(out, (size_t)size + 1);
    if (text != NULL)
        vsnprintf(text, (size_t)size + 1, format, args);
    va_end(args);
    return text == NULL ? (struct pen_span){ 0 } : (struct pen_span){ text, (size_t)size };
}

struct pen_span pen_out_json(struct pen_out *out, const struct pen_json *node)
{
    if (node->tree == NULL)
        return (struct pen_span){ 0 };
    out->scratch.size = 0;
    json_write(node, &out->scratch);
    return pen_out_copy(out, (struct pen_span){ out->scratch.data, out->scratch.size });
}

struct pen_json pen_out_parse(struct pen_out *out, struct pen_span text)
{
    struct pen_json root = { 0 };
    const char *why;
    char *padded;

    if (text.size == 0 || out->inner_used == OUT_INNER_MAX)
        return root;
    padded = pen_out_alloc(out, text.size + JSON_PADDING);
    if (padded == NULL)
        return root;
    memcpy(padded, text.data, text.size);
    memset(padded + text.size, 0, JSON_PADDING);
    if (out->inner[out->inner_used] == NULL)
        out->inner[out->inner_used] = json_new();
    if (json_parse(out->inner[out->inner_used], padded, text.size, &root, &why) == 0)
        out->inner_used++;
    return root;
}

/* ---- Setters -------------------------------------------------------------------------------------------------- */

static union value *event_slot(struct pen_event *event, enum pen_field field)
{
    const uint64_t bit = UINT64_C(1) << (field % 64);

    event->set[field / 64] |= bit;
    event->moved[field / 64] |= bit;
    return &event->values[field];
}

bool pen_set_text(struct pen_event *event, enum pen_field field, struct pen_span text)
{
    assert(fields[field].type == FIELD_TEXT);
    if (text.size == 0)
        return false;
    event_slot(event, field)->text = text;
    return true;
}

bool pen_set_int(struct pen_event *event, enum pen_field field, int64_t value)
{
    assert(fields[field].type == FIELD_INT || fields[field].type == FIELD_LONG);
    if (fields[field].type == FIELD_INT && (value < INT32_MIN || value > INT32_MAX))
        return false;
    event_slot(event, field)->number = value;
    return true;
}

bool pen_set_real(struct pen_event *event, enum pen_field field, double value)
{
    assert(fields[field].type == FIELD_REAL);
    if (!__builtin_isfinite(value))
        return false;
    event_slot(event, field)->real = value;
    return true;
}

bool pen_set_bool(struct pen_event *event, enum pen_field field, bool value)
{
    assert(fields[field].type == FIELD_BOOL);
    event_slot(event, field)->number = value;
    return true;
}

bool pen_set_time(struct pen_event *event, enum pen_field field, struct pen_span text)
{
    int64_t ticks;

    return pen_time_read(text, &ticks) && pen_set_ticks(event, field, ticks);
}

/* .NET's DateTime.MinValue and all of its year 0001 mean "no value" in Azure's logs. */
#define TICKS_YEAR_0002 (INT64_C(-718797) * 86400 * 10000000)

bool pen_set_ticks(struct pen_event *event, enum pen_field field, int64_t ticks)
{
    assert(fields[field].type == FIELD_TIME);
    if (ticks < TICKS_YEAR_0002)
        return false;
    event_slot(event, field)->number = ticks;
    return true;
}

/* Eight bytes in one word, the first one lowest. Both answer with 0x80 in each byte that is one. */
#define EACH_BYTE(c) ((uint64_t)(c) * UINT64_C(0x0101010101010101))

static inline uint64_t bytes_that_are(uint64_t word, char c)
{
    uint64_t other = word ^ EACH_BYTE(c);

    return ~(((other & EACH_BYTE(0x7F)) + EACH_BYTE(0x7F)) | other) & EACH_BYTE(0x80);
}

static inline uint64_t bytes_that_are_digits(uint64_t word)
{
    uint64_t plain = word & EACH_BYTE(0x7F);

    return (plain + EACH_BYTE(0x80 - '0')) & ~(plain + EACH_BYTE(0x7F - '9')) & ~word & EACH_BYTE(0x80);
}

/* A bit for each byte that has its 0x80. */
static inline unsigned bytes_bits(uint64_t word)
{
    return (unsigned)((word >> 7) * UINT64_C(0x0102040810204080) >> 56);
}

/* A text of 7 to 15 bytes in two words, with zeros behind it. */
static inline void ip4_load(struct pen_span text, uint64_t *low, uint64_t *high)
{
    uint32_t first, last;

    if (text.size == 7) {
        memcpy(&first, text.data, 4);
        memcpy(&last, text.data + 3, 4);
        *low = le32toh(first) | (uint64_t)le32toh(last) << 24;
        *high = 0;
        return;
    }
    memcpy(low, text.data, 8);
    memcpy(high, text.data + text.size - 8, 8);
    *low = le64toh(*low);
    *high = text.size == 8 ? 0 : le64toh(*high) >> 8 * (16 - text.size);
}

/* Four numbers up to 255 without leading zeros: what inet_pton() takes, at a fraction of its price. Where the dots stand is
 * anyone's guess, the processor's too: so there is no branch on it. Digits compare as the numbers that they write. */
static bool ip4_valid(struct pen_span text)
{
    static const uint32_t least[4] = { 0, '0', '1' << 8 | '0', '1' << 16 | '0' << 8 | '0' };
    static const uint32_t most = '2' << 16 | '5' << 8 | '5';
    uint64_t low, high;
    unsigned dots, ends, start = 0, parts = 0;
    bool bad = false;

    if (text.size < 7 || text.size > 15)
        return false;
    ip4_load(text, &low, &high);
    dots = bytes_bits(bytes_that_are(low, '.')) | bytes_bits(bytes_that_are(high, '.')) << 8;
    if ((dots | bytes_bits(bytes_that_are_digits(low)) | bytes_bits(bytes_that_are_digits(high)) << 8) != (1u << text.size) - 1)
        return false;
    for (ends = dots | 1u << text.size; ends != 0; ends &= ends - 1, parts++) {
        unsigned end = (unsigned)__builtin_ctz(ends), size = end - start;
        uint32_t number;

        if (size < 1 || size > 3)
            return false;
        number = (uint32_t)(((unsigned __int128)high << 64 | low) >> 8 * start);
        number = __builtin_bswap32(number) >> 8 * (4 - size);
        bad |= (number < least[size]) | (number > most);
        start = end + 1;
    }
    return !bad && parts == 4;
}

int pen_ip_version(struct pen_span text)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr binary;

    if (text.size == 0 || text.size >= sizeof(address))
        return 0;
    if (ip4_valid(text))
        return 4;
    if (memchr(text.data, ':', text.size) == NULL || memchr(text.data, '\0', text.size) != NULL)
        return 0;
    memcpy(address, text.data, text.size);
    address[text.size] = '\0';
    return inet_pton(AF_INET6, address, &binary) == 1 ? 6 : 0;
}

bool pen_set_ip(struct pen_event *event, enum pen_field field, struct pen_span text)
{
    assert(fields[field].type == FIELD_IP);
    if (pen_ip_version(text) == 0)
        return false;
    event_slot(event, field)->text = text;
    return true;
}

/* The twelve digits of a MAC, whatever stands between them (":", "-" or "."); false where there are not twelve. */
static bool mac_digits(struct pen_span text, char digits[12])
{
    size_t count = 0;

    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];

        if (isxdigit((unsigned char)c)) {
            if (count == 12)
                return false;
            digits[count++] = c;
        } else if ((c != ':' && c != '-' && c != '.') || count == 0 || count == 12 || count % 2 != 0) {
            return false;
        }
    }
    return count == 12;
}

/* As the field holds it: aa:bb:cc:dd:ee:ff. Such a text is set as it is, without a copy or another look. */
static bool mac_is_plain(struct pen_span text)
{
    bool plain = text.size == 17;

    for (size_t i = 0; i < 17 && plain; i++)
        plain = i % 3 == 2 ? text.data[i] == ':' : isxdigit((unsigned char)text.data[i]) != 0;
    return plain;
}

bool pen_set_mac(struct pen_event *event, enum pen_field field, struct pen_span text)
{
    char digits[12], *plain;

    assert(fields[field].type == FIELD_MAC);
    if (!mac_is_plain(text)) {
        if (!mac_digits(text, digits))
            return false;
        plain = arena_alloc(&event->out->arena, 17);
        for (size_t i = 0; i < 12; i++)
            plain[i + i / 2] = digits[i];
        for (size_t i = 2; i < 17; i += 3)
            plain[i] = ':';
        text = (struct pen_span){ plain, 17 };
    }
    event_slot(event, field)->text = text;
    return true;
}

bool pen_set_json(struct pen_event *event, enum pen_field field, const struct pen_json *node)
{
    assert(fields[field].type == FIELD_JSON);
    if (pen_json_type(node) <= PEN_JSON_NULL)
        return false;
    event_slot(event, field)->json = *node;
    return true;
}

void pen_unset(struct pen_event *event, enum pen_field field)
{
    const uint64_t bit = UINT64_C(1) << (field % 64);

    event->set[field / 64] &= ~bit;
    event->moved[field / 64] |= bit;
}

bool pen_is_set(const struct pen_event *event, enum pen_field field)
{
    return event_has(event, field);
}

/* A scalar as text: itself, or a number or truth value in JSON's words. Structures are none. */
static struct pen_span take_text(struct pen_event *event, const struct pen_json *member)
{
    switch (pen_json_type(member)) {
    case PEN_JSON_TEXT:
        return pen_json_value(member);
    case PEN_JSON_BOOL:
    case PEN_JSON_INT:
    case PEN_JSON_UINT:
    case PEN_JSON_REAL:
        return pen_out_json(event->out, member);
    case PEN_JSON_MISSING:
    case PEN_JSON_NULL:
    case PEN_JSON_ARRAY:
    case PEN_JSON_OBJECT:
        break;
    }
    return (struct pen_span){ 0 };
}

bool pen_set_node(struct pen_event *event, enum pen_field field, const struct pen_json *node)
{
    struct pen_span text = pen_json_value(node);
    int64_t number;
    double real;
    bool truth;

    switch (fields[field].type) {
    case FIELD_TEXT:
        return pen_set_text(event, field, take_text(event, node));
    case FIELD_INT:
    case FIELD_LONG:
        return pen_json_int(node, &number) && pen_set_int(event, field, number);
    case FIELD_REAL:
        return pen_json_real(node, &real) && pen_set_real(event, field, real);
    case FIELD_BOOL:
        return pen_json_bool(node, &truth) && pen_set_bool(event, field, truth);
    case FIELD_TIME:
        return pen_set_time(event, field, text);
    case FIELD_IP:
        return pen_set_ip(event, field, text);
    case FIELD_MAC:
        return pen_set_mac(event, field, text);
    case FIELD_JSON:
        return pen_set_json(event, field, node);
    }
    return false;
}

bool pen_take(struct pen_event *event, enum pen_field field, const struct pen_json *node, const char *name)
{
    struct pen_json member = pen_json_get(node, name);
    struct pen_span text = pen_json_value(&member);

    if (pen_set_node(event, field, &member))
        return true;
    if (pen_json_type(&member) > PEN_JSON_NULL && !(text.data != NULL && text.size == 0))
        pen_add_json(event, (struct pen_span){ name, strlen(name) }, &member);
    return false;
}

/* ---- Additional fields ---------------------------------------------------------------------------------------- */

static struct extra *extra_add(struct pen_event *event, struct pen_span name, enum field_type type)
{
    struct extra *extra;

    if (event->extra_count == event->extra_capacity) {
        uint32_t capacity = event->extra_capacity == 0 ? 64 : event->extra_capacity * 2;
        struct extra *grown = arena_alloc(&event->out->arena, capacity * sizeof(*grown));

        if (event->extra_count > 0)
            memcpy(grown, event->extras, event->extra_count * sizeof(*grown));
        event->extras = grown;
        event->extra_capacity = capacity;
    }
    extra = &event->extras[event->extra_count++];
    extra->name = name;
    extra->type = type;
    return extra;
}

void pen_add_text(struct pen_event *event, struct pen_span name, struct pen_span text)
{
    if (text.data != NULL)
        extra_add(event, name, FIELD_TEXT)->value.text = text;
}

void pen_add_int(struct pen_event *event, struct pen_span name, int64_t value)
{
    extra_add(event, name, FIELD_LONG)->value.number = value;
}

void pen_add_json(struct pen_event *event, struct pen_span name, const struct pen_json *node)
{
    if (pen_json_type(node) == PEN_JSON_TEXT)
        pen_add_text(event, name, pen_json_value(node));
    else if (pen_json_type(node) != PEN_JSON_MISSING)
        extra_add(event, name, FIELD_JSON)->value.json = *node;
}

/* ---- Texts ---------------------------------------------------------------------------------------------------- */

bool pen_span_is(struct pen_span span, const char *text)
{
    return span.data != NULL && span.size == strlen(text) && memcmp(span.data, text, span.size) == 0;
}

bool pen_span_is_nocase(struct pen_span span, const char *text)
{
    return span.data != NULL && span.size == strlen(text) && strncasecmp(span.data, text, span.size) == 0;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct pen_span pen_span_trim(struct pen_span span)
{
    while (span.size > 0 && is_blank(span.data[0])) {
        span.data++;
        span.size--;
    }
    while (span.size > 0 && is_blank(span.data[span.size - 1]))
        span.size--;
    return span;
}

bool pen_guid_valid(struct pen_span text)
{
    if (text.size != 36)
        return false;
    for (size_t i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? text.data[i] != '-' : !isxdigit((unsigned char)text.data[i]))
            return false;
    }
    return true;
}
