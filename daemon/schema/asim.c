/*
 * asim.c - events as rows of Microsoft Sentinel's ASIM tables: one JSON object per event, its keys the columns.
 *
 *   PEN_NETWORK  ASimNetworkSessionLogs   NetworkSession 0.2.7
 *   PEN_AUDIT    ASimAuditEventLogs       AuditEvent 0.1.2
 *   PEN_ALERT    ASimAlertEventLogs       AlertEvent 0.1
 *   PEN_UNKNOWN  our own table            TimeGenerated datetime, RawData dynamic, RawText string, Trouble string,
 *                                         EventOriginalUid string, EventProduct string, EventVendor string, Source string,
 *                                         AdditionalFields dynamic
 *
 * The ingestion API loses what has no column, without a word: so a field whose column the event's table lacks goes to
 * AdditionalFields under the same name, and so do the extras. EventSchema is no physical column (Sentinel's own parsers add
 * it at query time) and goes nowhere.
 *
 * The writer sets what no parser can know or all would repeat: TimeGenerated (the event's time, or the arrival), EventCount,
 * EventStartTime and EventEndTime, EventSchemaVersion, Dvc (the product: a cloud source has no device), EventUid of
 * alerts, mandatory words that the record lacks, and EventOriginalUid, which holds Penstock's event id, so that a query can drop repeats. An id that the source gave
 * the event is kept as EventOriginalUid of AdditionalFields.
 *
 * A value may have 64 KB; what is longer the service cuts without a word. So it is cut here, on the border of a character,
 * and AdditionalFields.PenstockCut says which columns were, and how long they had been: {"EventMessage":70000}. JSON that is
 * too long becomes the text of its beginning. Should AdditionalFields itself be too long, its longest members are cut in the
 * same way; were it so many members that no cut helps, their text stands cut in AdditionalFields.PenstockRest.
 *
 * Flow logs make this the hottest code of the daemon: each field's key stands ready to be copied, set fields are found by
 * their bits, and addresses, which were checked when they were set, are not looked at again.
 */
#include "daemon/schema/schema.h"
#include "daemon/schema/value.h"

#include <assert.h>

#define VALUE_MAX 64000              /* bytes; the documented 64 KB, read strictly */

#define MEMBERS_MAX (VALUE_MAX / 6)  /* more than so many, shortest, have no room in one value */

/* One column: a cache line. The key is copied whole and then cut to size, since a copy of fixed size is a few moves. */
#define KEY_MAX 48
struct column {
    char key[KEY_MAX];               /* ,"SrcIpAddr": */
    uint32_t key_size;
    uint32_t tables;
    enum field_type type;
};

#define N TABLE_N
#define A TABLE_A
#define L TABLE_L
#define U TABLE_U
static const struct column columns[PEN_FIELDS] = {
#define FIELD(id, type, name, tables, ocsf, ecs, cef) \
    { ",\"" name "\":", sizeof(",\"" name "\":") - 1, tables, FIELD_##type },
#include "parsers/fields.def"
#undef FIELD
};
#undef N
#undef A
#undef L
#undef U

static void write_key(struct buf *out, enum pen_field field)
{
    buf_reserve(out, KEY_MAX);
    memcpy(out->data + out->size, columns[field].key, KEY_MAX);
    out->size += columns[field].key_size;
}

static void write_ticks(struct buf *out, int64_t ticks, const struct stamp *stamp)
{
    if (stamp_write(out, ticks, stamp))
        return;
    buf_char(out, '"');
    buf_time(out, ticks);
    buf_char(out, '"');
}

/* Writes the event's time and keeps its text in the stamp. */
static void write_stamp(struct buf *out, int64_t ticks, struct stamp *stamp)
{
    size_t start = out->size;

    buf_reserve(out, sizeof(stamp->text));
    memset(out->data + start, 0, sizeof(stamp->text));
    buf_char(out, '"');
    buf_time(out, ticks);
    buf_char(out, '"');
    stamp->ticks = ticks;
    stamp->size = (uint32_t)(out->size - start);
    assert(stamp->size <= sizeof(stamp->text));
    memcpy(stamp->text, out->data + start, sizeof(stamp->text));
}

static inline void write_whole(struct buf *out, enum field_type type, const union value *value, const struct stamp *stamp)
{
    if (type == FIELD_TIME)
        write_ticks(out, value->number, stamp);
    else
        value_write(out, type, value);
}

/* The columns that were too long, and what they said before, in bytes. */
struct cuts {
    uint32_t count;
    struct { enum pen_field field; size_t size; } columns[PEN_FIELDS];
};

static void write_value(struct buf *out, const struct pen_event *event, enum pen_field field, const struct stamp *stamp,
                        struct cuts *cuts)
{
    enum field_type type = columns[field].type;
    size_t start = out->size, size;

    write_whole(out, type, &event->values[field], stamp);
    size = out->size - start;
    if (size <= VALUE_MAX || !value_bound(out, start, VALUE_MAX, type == FIELD_JSON ? VALUE_WRITTEN : VALUE_SAID))
        return;
    cuts->columns[cuts->count].field = field;
    cuts->columns[cuts->count++].size = type == FIELD_TEXT ? event->values[field].text.size : size;
}

/* The columns of the event's own table; what has none is marked in `rest`. */
static void write_columns(struct buf *out, const struct pen_event *event, const struct stamp *stamp,
                          const uint64_t set[FIELD_WORDS], uint64_t rest[FIELD_WORDS], struct cuts *cuts,
                          struct pattern *pattern)
{
    const uint32_t table = 1u << event->kind;
    size_t start;

    for (size_t i = 0; i < FIELD_WORDS; i++) {
        rest[i] = 0;
        for (uint64_t word = set[i]; word != 0; word &= word - 1) {
            enum pen_field field = (enum pen_field)(i * 64 + (size_t)__builtin_ctzll(word));

            if ((columns[field].tables & table) == 0) {
                rest[i] |= word & -word;
                continue;
            }
            write_key(out, field);
            start = out->size;
            write_value(out, event, field, stamp, cuts);
            if (pattern_moves(pattern, field))
                pattern_hole(pattern, columns[field].type, field, start, out);
        }
    }
}

static void field_clear(uint64_t set[FIELD_WORDS], enum pen_field field)
{
    set[field / 64] &= ~(UINT64_C(1) << field % 64);
}

static void field_copy(uint64_t set[FIELD_WORDS], const uint64_t from[FIELD_WORDS], enum pen_field field)
{
    set[field / 64] |= from[field / 64] & UINT64_C(1) << field % 64;
}

static int64_t time_or(const struct pen_event *event, enum pen_field field, int64_t otherwise)
{
    return event_has(event, field) ? event->values[field].number : otherwise;
}

/* Mandatory columns, and what to say where the record did not: a row without them is no row of its schema. */
static const struct mandatory {
    uint32_t tables;
    enum pen_field field;
    struct pen_span text;
} mandatory[] = {
    { TABLE_N, PEN_EVENT_TYPE, { "NetworkSession", 14 } },
    { TABLE_A, PEN_EVENT_TYPE, { "Other", 5 } },
    { TABLE_L, PEN_EVENT_TYPE, { "Alert", 5 } },
    { TABLE_N | TABLE_A, PEN_EVENT_RESULT, { "NA", 2 } },
    { TABLE_N | TABLE_A | TABLE_L, PEN_EVENT_VENDOR, { "Microsoft", 9 } },
    { TABLE_N | TABLE_A | TABLE_L, PEN_EVENT_PRODUCT, { "Azure", 5 } },
    { TABLE_A, PEN_OPERATION, { "Unknown", 7 } },
    { TABLE_A, PEN_OBJECT, { "Unknown", 7 } },
};

static void write_mandatory(struct buf *out, const struct pen_event *event)
{
    for (size_t i = 0; i < sizeof(mandatory) / sizeof(*mandatory); i++) {
        if (event_has(event, mandatory[i].field) || (mandatory[i].tables & 1u << event->kind) == 0)
            continue;
        write_key(out, mandatory[i].field);
        value_plain(out, mandatory[i].text);
    }
}

/* Columns that ASIM wants of every event and the parser has left to us. */
static void write_common(struct buf *out, const struct pen_event *event, const struct stamp *stamp)
{
    static const char *const versions[PEN_KINDS] = {
        [PEN_NETWORK] = ",\"EventSchemaVersion\":\"0.2.7\"",
        [PEN_AUDIT] = ",\"EventSchemaVersion\":\"0.1.2\"",
        [PEN_ALERT] = ",\"EventSchemaVersion\":\"0.1\"",
    };
    int64_t start = time_or(event, PEN_EVENT_START_TIME, stamp->ticks);

    if (!event_has(event, PEN_EVENT_COUNT))
        BUF_LITERAL(out, ",\"EventCount\":1");
    if (!event_has(event, PEN_EVENT_START_TIME)) {
        write_key(out, PEN_EVENT_START_TIME);
        write_ticks(out, start, stamp);
    }
    if (!event_has(event, PEN_EVENT_END_TIME)) {
        write_key(out, PEN_EVENT_END_TIME);
        write_ticks(out, start, stamp);
    }
    if (event->kind == PEN_NETWORK && !event_has(event, PEN_DVC)) {
        size_t dvc;

        write_key(out, PEN_DVC);
        dvc = out->size;
        value_text(out, event_has(event, PEN_EVENT_PRODUCT) ? event->values[PEN_EVENT_PRODUCT].text : PEN_SPAN("Azure"));
        (void)value_bound(out, dvc, VALUE_MAX, VALUE_SAID);
    }
    write_mandatory(out, event);
    buf_add(out, versions[event->kind], strlen(versions[event->kind]));
}

/* What else is a hole, beside fields that moved. */
enum { HOLE_TIME = HOLE_OWN, HOLE_ID };

static void write_ids(struct buf *out, const struct pen_event *event, const struct event_meta *meta, struct pattern *pattern)
{
    struct pen_span id = { meta->id, meta->id_size };
    size_t start;

    write_key(out, PEN_EVENT_ORIGINAL_UID);
    start = out->size;
    value_plain(out, id);
    pattern_hole(pattern, HOLE_ID, 0, start, out);
    if (event->kind == PEN_ALERT && !event_has(event, PEN_EVENT_UID)) {
        write_key(out, PEN_EVENT_UID);
        value_plain(out, id);
    }
}

/* Where a table has no Dvc column, a Dvc that only repeats the product tells nothing. */
static bool dvc_is_product(const struct pen_event *event)
{
    struct pen_span dvc = event->values[PEN_DVC].text, product = event->values[PEN_EVENT_PRODUCT].text;

    return event_has(event, PEN_DVC) && event_has(event, PEN_EVENT_PRODUCT) && dvc.size == product.size &&
           memcmp(dvc.data, product.data, dvc.size) == 0;
}

/* "PenstockCut":{"EventMessage":70000}; `additional` is the size that AdditionalFields had, or 0. */
static void write_cuts(struct buf *out, const struct cuts *cuts, size_t additional)
{
    BUF_LITERAL(out, "\"PenstockCut\":{");
    for (uint32_t i = 0; i < cuts->count; i++) {
        buf_add(out, columns[cuts->columns[i].field].key + (i == 0), columns[cuts->columns[i].field].key_size - (i == 0));
        buf_int(out, (int64_t)cuts->columns[i].size);
    }
    if (additional > 0) {
        if (cuts->count > 0)
            buf_char(out, ',');
        BUF_LITERAL(out, "\"AdditionalFields\":");
        buf_int(out, (int64_t)additional);
    }
    buf_char(out, '}');
}

/* AdditionalFields of an event that was cut somewhere, from its brace on; `size` is what it had without that news. Each
 * round allows a member half as much. True: it was cut, too, and says so. */
static bool write_additional_cut(struct buf *out, const struct pen_event *event, const uint64_t rest[FIELD_WORDS],
                                 const struct cuts *cuts, size_t size)
{
    struct value_limits limits = { .value_max = VALUE_MAX, .reserved = PEN_SPAN("PenstockCut") };
    struct buf members = { 0 };
    size_t brace = out->size, start;
    bool cut = size > VALUE_MAX;

    if (event->extra_count > MEMBERS_MAX)
        limits.value_max = 0;
    for (; limits.value_max >= 32; limits.value_max /= 2, cut = true) {
        out->size = brace;
        buf_char(out, '{');
        write_cuts(out, cuts, cut ? size : 0);
        buf_char(out, ',');
        if (!value_write_rest(out, event, rest, &limits, NULL))
            out->size--;
        buf_char(out, '}');
        if (out->size - brace <= VALUE_MAX)
            return cut;
    }
    out->size = brace;
    buf_char(out, '{');
    write_cuts(out, cuts, size);
    (void)value_write_rest(&members, event, rest, NULL, NULL);
    BUF_LITERAL(out, ",\"PenstockRest\":");
    start = out->size;
    buf_json_string(out, members.data, members.size);
    (void)value_bound(out, start, VALUE_MAX - (start - brace) - 1, VALUE_WRITTEN);
    buf_char(out, '}');
    buf_free(&members);
    return true;
}

static bool write_additional(struct buf *out, const struct pen_event *event, const uint64_t rest[FIELD_WORDS],
                             const struct cuts *cuts, struct pattern *pattern)
{
    size_t start = out->size, brace, size = 0;

    BUF_LITERAL(out, ",\"AdditionalFields\":{");
    brace = out->size - 1;
    if (value_write_rest(out, event, rest, NULL, pattern)) {
        buf_char(out, '}');
        size = out->size - brace;
    } else if (cuts->count == 0) {
        out->size = start;
    }
    if (cuts->count == 0 && size <= VALUE_MAX)
        return false;
    pattern_refuse(pattern);
    out->size = brace;
    return write_additional_cut(out, event, rest, cuts, size);
}

/* No field that moves decides more than what its own column says. */
static bool asim_is_steady(const struct pen_event *event, const struct pattern *pattern)
{
    return event_has(event, PEN_EVENT_START_TIME) && event_has(event, PEN_EVENT_END_TIME) &&
           !pattern_moves(pattern, PEN_EVENT_PRODUCT) && !value_twins_move(event, pattern);
}

static int64_t asim_time(const struct pen_event *event, const struct event_meta *meta)
{
    return time_or(event, PEN_TIME_GENERATED, time_or(event, PEN_EVENT_START_TIME, meta->received_ticks));
}

static uint32_t asim_write(const struct pen_event *event, const struct event_meta *meta, struct buf *out,
                           struct pattern *pattern)
{
    uint64_t set[FIELD_WORDS], rest[FIELD_WORDS];
    size_t start;
    struct stamp stamp;
    struct cuts cuts;

    cuts.count = 0;                  /* alone: the rest is large, and hardly ever used */
    memcpy(set, event->set, sizeof(set));
    field_clear(set, PEN_TIME_GENERATED);
    field_clear(set, PEN_EVENT_ORIGINAL_UID);
    if (event->kind != PEN_NETWORK && dvc_is_product(event))
        field_clear(set, PEN_DVC);

    if (!asim_is_steady(event, pattern))
        pattern_refuse(pattern);
    BUF_LITERAL(out, "{\"TimeGenerated\":");
    start = out->size;
    write_stamp(out, asim_time(event, meta), &stamp);
    pattern_hole(pattern, HOLE_TIME, 0, start, out);
    write_columns(out, event, &stamp, set, rest, &cuts, pattern);
    field_copy(rest, event->set, PEN_EVENT_ORIGINAL_UID);
    if (event->kind != PEN_UNKNOWN) {
        write_common(out, event, &stamp);
    } else {
        BUF_LITERAL(out, ",\"Source\":");
        value_text(out, meta->source);
    }
    write_ids(out, event, meta, pattern);
    value_drop_twins(event, rest);
    cuts.count += write_additional(out, event, rest, &cuts, pattern);
    buf_char(out, '}');
    return cuts.count;
}

/* The event's own time, or the last other one: that at which the record was logged. */
static void fill_time(struct buf *out, int64_t ticks, const struct stamp *own, struct pattern *pattern)
{
    if (!stamp_write(out, ticks, own) && !stamp_write(out, ticks, &pattern->stamp))
        write_stamp(out, ticks, &pattern->stamp);
}

/* A message as short as one value may be holds none that is too long. */
static bool asim_fill(struct pattern *pattern, const struct pen_event *event, const struct event_meta *meta,
                      struct buf *out)
{
    size_t start = out->size, from = 0;
    struct stamp stamp = { .size = 0 };

    for (uint32_t i = 0; i < pattern->hole_count; i++) {
        const struct hole *hole = &pattern->holes[i];

        pattern_copy(pattern, from, hole->at, out);
        from = hole->at;
        switch (hole->how) {
        case HOLE_TIME:
            write_stamp(out, asim_time(event, meta), &stamp);
            break;
        case HOLE_ID:
            value_plain(out, (struct pen_span){ meta->id, meta->id_size });
            break;
        case FIELD_TIME:
            fill_time(out, event->values[hole->what].number, &stamp, pattern);
            break;
        default:
            value_fill(out, hole, event);
            break;
        }
    }
    pattern_copy(pattern, from, pattern->text.size, out);
    return out->size - start <= VALUE_MAX;
}

/* What write_columns(), write_common(), write_ids() and write_additional() may write for this kind, and nothing else. */
static void asim_table(enum pen_kind kind, struct table *table)
{
    static const char *const homes[PEN_KINDS] = {
        [PEN_NETWORK] = "ASimNetworkSessionLogs", [PEN_AUDIT] = "ASimAuditEventLogs", [PEN_ALERT] = "ASimAlertEventLogs",
    };

    *table = (struct table){ .home = homes[kind], .transform = "source" };
    for (size_t i = 0; i < PEN_FIELDS; i++)
        if (fields[i].tables & 1u << kind)
            table_add(table, fields[i].name, column_of_field(fields[i].type));
    table_add(table, kind == PEN_UNKNOWN ? "Source" : "EventSchemaVersion", COLUMN_STRING);
    table_add(table, fields[PEN_EVENT_ORIGINAL_UID].name, COLUMN_STRING);
    table_add(table, "AdditionalFields", COLUMN_DYNAMIC);
    table_sort(table);
}

const struct schema asim_schema = { .name = "asim", .write = asim_write, .fill = asim_fill, .table = asim_table };
