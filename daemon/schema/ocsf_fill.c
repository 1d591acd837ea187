/*
 * ocsf_fill.c - flows by patterns: which values of a message may differ next time, and the next message made of it.
 */
#include "daemon/schema/ocsf_inside.h"

/* How a hole is filled that is no value as value_write() has it: first the fields, then steps of the plan, by their index. */
enum {
    HOLE_MS = HOLE_OWN,                      /* a time */
    HOLE_IP, HOLE_PORT,                      /* in the bounds that write_field() holds them to */
    HOLE_ID,
    HOLE_PROTOCOL,
    HOLE_STEP,                               /* any other */
};

/* Fields whose words a flow's codes are made of, and which move from tuple to tuple. */
static const enum pen_field spoken[PATTERN_WORDS] = {
    PEN_NETWORK_DIRECTION, PEN_DVC_ACTION, PEN_EVENT_RESULT, PEN_EVENT_SEVERITY, PEN_FLOW_STATE,
};

static bool is_spoken(enum pen_field field)
{
    for (size_t i = 0; i < COUNT(spoken); i++)
        if (spoken[i] == field)
            return true;
    return false;
}

/* Does a field move that ocsf_code_value() asks, whatever the code? */
static bool code_moves(const struct pattern *pattern, const struct code *code)
{
    return pattern_moves(pattern, code->field) || pattern_moves(pattern, PEN_DVC_ACTION) ||
           pattern_moves(pattern, PEN_HTTP_STATUS) || pattern_moves(pattern, PEN_EVENT_ORIGINAL_SEVERITY);
}

/* Is it made of nothing but spoken words and of what holds still? */
static bool code_is_spoken(const struct pattern *pattern, const struct code *code)
{
    return (is_spoken(code->field) || !pattern_moves(pattern, code->field)) &&
           !pattern_moves(pattern, PEN_HTTP_STATUS) && !pattern_moves(pattern, PEN_EVENT_ORIGINAL_SEVERITY);
}

/* The code of a step, or the one that type_uid ends with; NULL: neither. */
static const struct code *step_code(const struct step *step, enum pen_kind kind)
{
    if (step->source == STEP_COMPUTED && step->computed->compute == ocsf_compute_type_uid)
        return ocsf_activity_code(kind);
    return step->source == STEP_CODE ? step->code : NULL;
}

/* A number of one digit, or none: -1. */
static int code_digit(const struct code *code, const struct pen_event *event)
{
    int id = ocsf_code_value(code, event);

    return id >= 0 && id <= 9 ? id : -1;
}

/* True: there is no hole. A code that holds still is part of the text, and so is a digit that is put right there. */
static bool step_note_code(const struct writer *writer, const struct step *step, uint32_t what)
{
    const struct code *code = step_code(step, writer->event->kind);

    if (code == NULL)
        return false;
    if (!code_moves(writer->pattern, code))
        return true;
    if (!code_is_spoken(writer->pattern, code) || code_digit(code, writer->event) < 0)
        return false;
    pattern_digit(writer->pattern, what, writer->out);
    return true;
}

/* Of the computed values that a flow has: what follows from its kind alone, from a field's being there, or from one field. */
static bool computed_moves(const struct pattern *pattern, const struct computed *row)
{
    if (row->compute == NULL || row->compute == ocsf_compute_class_uid || row->compute == ocsf_compute_category_uid ||
        row->compute == ocsf_compute_account_type)
        return false;
    if (row->compute == ocsf_compute_product)
        return pattern_moves(pattern, PEN_EVENT_PRODUCT);
    if (row->compute == ocsf_compute_vendor)
        return pattern_moves(pattern, PEN_EVENT_VENDOR);
    return true;
}

static uint32_t field_hole(const struct step *step)
{
    switch (fields[step->field].type) {
    case FIELD_TIME:
        return HOLE_MS;
    case FIELD_IP:
        return HOLE_IP;
    default:
        return step->port ? HOLE_PORT : fields[step->field].type;
    }
}

void ocsf_note(const struct writer *writer, const struct step *step, size_t start, bool written)
{
    uint32_t how = HOLE_STEP, what = (uint32_t)(step - ocsf_plans[writer->event->kind].steps);

    switch (step->source) {
    case STEP_FIELD:
        if (!pattern_moves(writer->pattern, step->field))
            return;
        how = field_hole(step);
        what = step->field;
        break;
    case STEP_CODE:
        if (step_note_code(writer, step, what))
            return;
        break;
    case STEP_SIBLING:
        if (written && code_moves(writer->pattern, step->code))
            pattern_refuse(writer->pattern);
        return;
    case STEP_COMPUTED:
        if (!written || !computed_moves(writer->pattern, step->computed))
            return;                          /* in a flow, it is for want of a field that there is none */
        if (step_note_code(writer, step, what))
            return;
        if (step->computed->compute == ocsf_compute_uid)
            how = HOLE_ID;
        if (step->computed->compute == ocsf_compute_protocol_name)
            how = HOLE_PROTOCOL;
        if (step->computed->compute == ocsf_compute_time && ocsf_time_field(writer->event) != PEN_FIELDS) {
            how = HOLE_MS;
            what = ocsf_time_field(writer->event);
        }
        break;
    }
    if (written)
        pattern_hole(writer->pattern, how, what, start, writer->out);
    else if (step->source == STEP_FIELD)
        pattern_refuse(writer->pattern);
}

/* A state that gives way to the action stays in unmapped: such flows have patterns of their own. The severities, which give way,
 * too, are twins: where they move there is no pattern. */
uint32_t ocsf_shape(const struct pen_event *event)
{
    return event_is(event, PEN_DVC_ACTION, PEN_SPAN("Deny")) &&
           ocsf_code_id(&ocsf_codes[0], event) != ocsf_code_value(&ocsf_codes[0], event);
}

/* Keeps the text, too. */
static void write_ms_stamp(struct buf *out, int64_t ticks, struct stamp *stamp)
{
    size_t start = out->size;

    buf_reserve(out, sizeof(stamp->text));
    ocsf_write_ms(out, ticks);
    stamp->ticks = ticks;
    stamp->size = (uint32_t)(out->size - start);
    memcpy(stamp->text, out->data + start, stamp->size);
}

/* The first time of the event is its own, which others may repeat; what differs is likely to be when the record was logged. */
static void fill_ms(struct buf *out, int64_t ticks, struct stamp *own, struct pattern *pattern)
{
    if (!stamp_write(out, ticks, own) && !stamp_write(out, ticks, &pattern->stamp))
        write_ms_stamp(out, ticks, own->size == 0 ? own : &pattern->stamp);
}

static bool fill_step(struct buf *out, uint32_t step, const struct pen_event *event, const struct event_meta *meta)
{
    struct writer writer = { .out = out, .event = event, .meta = meta, .fills = true };

    return ocsf_write_value(&writer, &ocsf_plans[event->kind].steps[step]);
}

static inline bool fill_hole(struct buf *out, const struct hole *hole, struct stamp *own, struct pattern *pattern,
                             const struct pen_event *event, const struct event_meta *meta)
{
    const union value *value = hole->how < HOLE_ID ? &event->values[hole->what] : NULL;

    switch (hole->how) {
    case HOLE_MS:
        fill_ms(out, value->number, own, pattern);
        return true;
    case HOLE_IP:
        value_plain(out, value->text);
        return value->text.size <= OCSF_IP_MAX;
    case HOLE_PORT:
        buf_int(out, value->number);
        return ocsf_port_valid(value->number);
    case HOLE_ID:
        value_plain(out, (struct pen_span){ meta->id, meta->id_size });
        return true;
    case HOLE_PROTOCOL:
        return ocsf_compute_protocol_name(out, event, meta);
    case HOLE_STEP:
        return fill_step(out, hole->what, event, meta);
    default:
        value_fill(out, hole, event);
        return true;
    }
}

/* False: one is more than a digit, or nothing at all. */
static bool spell(struct spelled *spelled, const struct pattern *pattern, const struct pen_event *event)
{
    for (uint32_t i = 0; i < pattern->digit_count; i++) {
        int digit = code_digit(step_code(&ocsf_plans[event->kind].steps[pattern->digits[i].what], event->kind), event);

        if (digit < 0)
            return false;
        spelled->digits[i] = (char)('0' + digit);
    }
    spelled->known = true;
    return true;
}

static bool fill_digits(struct pattern *pattern, const struct pen_event *event)
{
    struct pattern_words words = { .sizes = 0 };
    struct spelled *spelled;

    for (uint32_t i = 0; i < PATTERN_WORDS; i++) {
        struct pen_span text = event->values[spoken[i]].text;

        if (!event_has(event, spoken[i]))
            continue;
        if (text.size == 0 || text.size > WORD_MAX)
            return false;
        words_add(&words, i, text);
    }
    spelled = pattern_spelled(pattern, &words);
    if (!spelled->known && !spell(spelled, pattern, event))
        return false;
    pattern_spell(pattern, spelled);
    return true;
}

bool ocsf_fill(struct pattern *pattern, const struct pen_event *event, const struct event_meta *meta, struct buf *out)
{
    size_t from = 0;
    struct stamp own = { .size = 0 };

    if (!fill_digits(pattern, event))
        return false;
    for (uint32_t i = 0; i < pattern->hole_count; i++) {
        const struct hole *hole = &pattern->holes[i];

        pattern_copy(pattern, from, hole->at, out);
        from = hole->at;
        if (!fill_hole(out, hole, &own, pattern, event, meta))
            return false;
    }
    pattern_copy(pattern, from, pattern->text.size, out);
    return true;
}
