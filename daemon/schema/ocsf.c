/*
 * ocsf.c - events as OCSF 1.8.0: Network Activity 4001, API Activity 6003, Detection Finding 2004, and Base Event 0 for
 * what is unknown.
 *
 * What a class's message holds is a plan: a list of attributes sorted by path, so that walking it opens and closes each
 * nested object once. It is made once per class, out of three tables:
 *
 *   fields.def     a field goes over as it is, to the path in its OCSF column; `own_paths` says where a class differs
 *   ocsf_codes     a word of ours becomes an enumeration's number; an unknown word becomes 99, with the word beside it
 *   ocsf_computed  everything else; both are in ocsf_values.c
 *
 * A path is names parted by dots; `resources[].uid` is an array of one object, `types[]` an array of one value. Where two
 * fields lead to one path the earlier wins and the other stays in `unmapped`.
 *
 * `homes` says which classes have which objects, and which field must be there for the object to be whole: OCSF refuses
 * an endpoint that is but a port. Without it the object's fields stay in `unmapped`, where all goes that found no place.
 * So no message holds an attribute its class does not define, and none loses a field.
 */
#include "daemon/schema/ocsf_inside.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Fields that go over as they are ---- */

/* Where a class has another place than fields.def says. */
static const struct own_path {
    uint32_t kinds;
    enum pen_field field;
    const char *path;
} own_paths[] = {
    { N, PEN_RESOURCE_ID, "network_observation_point.uid" },
    { N, PEN_NIC_MAC, "network_observation_point.mac" },
    { L, PEN_EVENT_ORIGINAL_TYPE, "finding_info.analytic.uid" },
};

/* Objects that not every class has, or that are not whole without one of `needs`. The longest prefix of a path counts. */
#define NEEDS_MAX 5
static const struct home {
    const char *path;
    uint32_t kinds;
    enum pen_field needs[NEEDS_MAX + 1];     /* ends with PEN_FIELDS; none: no condition */
} homes[OCSF_HOMES] = {
    { "actor", A, { PEN_FIELDS } },
    { "actor.user", A, { PEN_ACTOR_USER_ID, PEN_ACTOR_USERNAME, PEN_FIELDS } },
    { "api", A, { PEN_FIELDS } },
    { "app_protocol_name", N, { PEN_FIELDS } },
    { "confidence_score", L, { PEN_FIELDS } },
    { "connection_info", N, { PEN_FIELDS } },
    { "dst_endpoint", N, { PEN_DST_IP_ADDR, PEN_DST_HOSTNAME, PEN_DST_DVC_ID, PEN_FIELDS } },
    { "dst_endpoint", A, { PEN_TARGET_IP_ADDR, PEN_TARGET_HOSTNAME, PEN_FIELDS } },
    { "finding_info", L, { PEN_FIELDS } },
    { "firewall_rule", N, { PEN_NETWORK_RULE_NAME, PEN_FIELDS } },
    { "http_request", A, { PEN_FIELDS } },
    { "network_observation_point", N, { PEN_RESOURCE_ID, PEN_FIELDS } },
    { "policy", N, { PEN_ACL_ID, PEN_FIELDS } },
    { "remediation", L, { PEN_FIELDS } },
    { "resources[]", A | L, { PEN_OBJECT_ID, PEN_RESOURCE_ID, PEN_OBJECT, PEN_COMPROMISED_ENTITY, PEN_FIELDS } },
    { "risk_score", L, { PEN_FIELDS } },
    { "src_endpoint", N, { PEN_SRC_IP_ADDR, PEN_SRC_HOSTNAME, PEN_SRC_DVC_ID, PEN_FIELDS } },
    { "src_endpoint", A, { PEN_FIELDS } },   /* whole in any case: computed */
    { "traffic", N, { PEN_FIELDS } },
};

/* What OCSF says by the class itself: nothing is lost when these go nowhere. */
static const struct { uint32_t kinds; enum pen_field field; } implied[] = {
    { N | L, PEN_EVENT_TYPE },               /* Flow, Alert */
    { ALL, PEN_TIME_GENERATED }, { ALL, PEN_EVENT_VENDOR }, { ALL, PEN_EVENT_PRODUCT },
    { U, PEN_RAW }, { U, PEN_RAW_TEXT },     /* raw_data */
    { N | A | L, PEN_DVC },
    { N, PEN_DVC_ID_TYPE },                  /* an Azure resource's, as all are here */
};

/* ---- The plan ---- */

struct plan ocsf_plans[PEN_KINDS];

static bool path_starts(const char *path, const char *prefix)
{
    size_t size = strlen(prefix);

    return strncmp(path, prefix, size) == 0 && (path[size] == '\0' || path[size] == '.');
}

/* False: the class has no such attribute. *home is the innermost condition on it, or -1. */
static bool home_find(const char *path, enum pen_kind kind, int *home)
{
    size_t longest = 0;
    bool known = false, ours = false;

    *home = -1;
    for (size_t i = 0; i < OCSF_HOMES; i++) {
        if (!path_starts(path, homes[i].path))
            continue;
        known = true;
        if ((homes[i].kinds & 1u << kind) == 0)
            continue;
        ours = true;
        if (homes[i].needs[0] != PEN_FIELDS && strlen(homes[i].path) > longest) {
            longest = strlen(homes[i].path);
            *home = (int)i;
        }
    }
    return ours || !known;
}

/* Cuts the path into the keys and braces that lead to it. */
static void step_compile(struct step *step)
{
    const char *at = step->path, *end;
    struct pen_span name;
    bool array;
    int size;

    for (;; at = end + 1) {
        end = strchrnul(at, '.');
        name = (struct pen_span){ at, (size_t)(end - at) };
        array = name.size > 2 && memcmp(end - 2, "[]", 2) == 0;
        if (array)
            name.size -= 2;
        step->key_at[step->depth] = step->key_size;
        size = snprintf(step->key + step->key_size, KEY_MAX - step->key_size, "\"%.*s\":%s%s", (int)name.size, name.data,
                        array ? "[" : "", *end == '.' ? "{" : "");
        assert(size > 0 && step->key_size + (size_t)size < KEY_MAX);
        step->key_size += (uint32_t)size;
        if (*end == '\0')
            break;
        assert(step->depth < DEPTH_MAX);
        step->in_array[step->depth++] = array;
    }
    step->array_leaf = array;
    step->port = strcmp(at, "port") == 0;
}

static void plan_add(struct plan *plan, enum pen_kind kind, const struct step *step)
{
    struct step *to = &plan->steps[plan->count];

    assert(plan->count < STEPS_MAX);
    *to = *step;
    if (!home_find(to->path, kind, &to->home))
        return;
    if (to->source == STEP_COMPUTED)
        to->home = -1;                       /* it makes the object whole itself */
    to->order = plan->count++;
    step_compile(to);
}

static void plan_add_field(struct plan *plan, enum pen_kind kind, enum pen_field field)
{
    const char *path = fields[field].ocsf;

    for (size_t i = 0; i < COUNT(own_paths); i++)
        if (own_paths[i].field == field && (own_paths[i].kinds & 1u << kind))
            path = own_paths[i].path;
    if (path != NULL)
        plan_add(plan, kind, &(struct step){ .source = STEP_FIELD, .path = path, .field = field });
}

static int by_path(const void *a, const void *b)
{
    const struct step *left = a, *right = b;
    int r = strcmp(left->path, right->path);   /* '.' sorts before all that names are made of: objects stay together */

    return r != 0 ? r : (left->order > right->order) - (left->order < right->order);
}

/* Objects that both are in. */
static uint32_t steps_common(const struct step *left, const struct step *right)
{
    uint32_t depth = 0, size;

    while (depth < left->depth && depth < right->depth) {
        size = left->key_at[depth + 1];
        if (right->key_at[depth + 1] != size || memcmp(left->key, right->key, size) != 0)
            break;
        depth++;
    }
    return depth;
}

static void plan_compile(struct plan *plan, enum pen_kind kind)
{
    struct step *step;

    for (enum pen_field field = 0; field < PEN_FIELDS; field++)
        plan_add_field(plan, kind, field);
    for (size_t i = 0; i < ocsf_code_count; i++) {
        if ((ocsf_codes[i].kinds & 1u << kind) == 0)
            continue;
        plan_add(plan, kind, &(struct step){ .source = STEP_CODE, .path = ocsf_codes[i].path, .code = &ocsf_codes[i] });
        plan_add(plan, kind, &(struct step){ .source = STEP_SIBLING, .path = ocsf_codes[i].sibling, .code = &ocsf_codes[i] });
    }
    for (size_t i = 0; i < ocsf_computed_count; i++)
        if (ocsf_computed[i].kinds & 1u << kind)
            plan_add(plan, kind, &(struct step){ .source = STEP_COMPUTED, .path = ocsf_computed[i].path,
                                                 .computed = &ocsf_computed[i] });
    qsort(plan->steps, plan->count, sizeof(*plan->steps), by_path);
    for (uint32_t i = 1; i < plan->count; i++) {
        step = &plan->steps[i];
        step->common = steps_common(step - 1, step);
        step->path_number = step[-1].path_number + (strcmp(step[-1].path, step->path) != 0);
    }
    for (size_t i = 0; i < COUNT(implied); i++)
        if (implied[i].kinds & 1u << kind)
            plan->implied[implied[i].field / 64] |= UINT64_C(1) << implied[i].field % 64;
}

static void plans_compile(void)
{
    for (int kind = 0; kind < PEN_KINDS; kind++)
        plan_compile(&ocsf_plans[kind], (enum pen_kind)kind);
}
/* ---- Writing ---- */

static void writer_begin(struct writer *writer)
{
    const struct plan *plan = &ocsf_plans[writer->event->kind];

    for (size_t i = 0; i < FIELD_WORDS; i++)
        writer->rest[i] = writer->event->set[i] & ~plan->implied[i];
    for (size_t i = 0; i < OCSF_HOMES; i++) {
        writer->whole[i] = false;
        for (const enum pen_field *field = homes[i].needs; *field != PEN_FIELDS; field++)
            writer->whole[i] |= event_has(writer->event, *field);
    }
}

static void writer_took(struct writer *writer, enum pen_field field)
{
    writer->rest[field / 64] &= ~(UINT64_C(1) << field % 64);
}

/* False where OCSF would refuse the value: it stays in unmapped. */
static bool write_field(struct writer *writer, const struct step *step)
{
    const union value *value = &writer->event->values[step->field];
    enum field_type type = fields[step->field].type;

    if (step->port && !ocsf_port_valid(value->number))
        return false;
    if (type == FIELD_IP && value->text.size > OCSF_IP_MAX)
        return false;
    if (type == FIELD_TIME)
        ocsf_write_ms(writer->out, value->number);
    else
        value_write(writer->out, type, value);
    writer_took(writer, step->field);
    return true;
}

static bool write_code(struct writer *writer, const struct step *step)
{
    int id = ocsf_code_value(step->code, writer->event);

    if (id == OMIT || (id == OTHER && writer->fills))    /* a pattern has no place for the sibling */
        return false;
    if (!writer->fills && id == ocsf_code_id(step->code, writer->event))
        writer_took(writer, step->code->field);
    buf_int(writer->out, id);
    return true;
}

static bool write_sibling(struct writer *writer, const struct step *step)
{
    if (ocsf_code_value(step->code, writer->event) != OTHER)
        return false;
    value_text(writer->out, writer->event->values[step->code->field].text);
    return true;
}

static bool write_computed(struct writer *writer, const struct computed *row)
{
    if (row->text != NULL)
        buf_add(writer->out, row->text, strlen(row->text));
    else if (!row->compute(writer->out, writer->event, writer->meta))
        return false;
    for (uint32_t i = 0; i < row->use_count; i++)
        writer_took(writer, row->uses[i]);
    return true;
}

bool ocsf_write_value(struct writer *writer, const struct step *step)
{
    switch (step->source) {
    case STEP_FIELD:
        return write_field(writer, step);
    case STEP_CODE:
        return write_code(writer, step);
    case STEP_SIBLING:
        return write_sibling(writer, step);
    case STEP_COMPUTED:
        return write_computed(writer, step->computed);
    }
    return false;
}

/* Another has taken the path: a field that says just the same has been said. */
static void drop_equal(struct writer *writer, const struct step *step)
{
    const union value *mine, *theirs;

    if (step->source != STEP_FIELD || writer->last->source != STEP_FIELD || fields[step->field].type != FIELD_TEXT)
        return;
    if (pattern_moves(writer->pattern, step->field) || pattern_moves(writer->pattern, writer->last->field))
        pattern_refuse(writer->pattern);
    mine = &writer->event->values[step->field];
    theirs = &writer->event->values[writer->last->field];
    if (mine->text.size == theirs->text.size && memcmp(mine->text.data, theirs->text.data, mine->text.size) == 0)
        writer_took(writer, step->field);
}

static void close_down_to(struct writer *writer, uint32_t depth)
{
    for (uint32_t i = writer->last->depth; i > depth; i--) {
        buf_char(writer->out, '}');
        if (writer->last->in_array[i - 1])
            buf_char(writer->out, ']');
    }
}

/* `common`: objects shared with the last step written. */
static bool write_step(struct writer *writer, const struct step *step, uint32_t common)
{
    size_t start = writer->out->size, value;
    bool written;

    if (writer->last != NULL) {
        close_down_to(writer, common);
        buf_char(writer->out, ',');
    }
    buf_add(writer->out, step->key + step->key_at[common], step->key_size - step->key_at[common]);
    value = writer->out->size;
    written = ocsf_write_value(writer, step);
    if (writer->pattern != NULL)
        ocsf_note(writer, step, value, written);
    if (!written) {
        writer->out->size = start;
        return false;
    }
    if (step->array_leaf)
        buf_char(writer->out, ']');
    return true;
}

static pthread_once_t plans_once = PTHREAD_ONCE_INIT;

static uint32_t ocsf_write(const struct pen_event *event, const struct event_meta *meta, struct buf *out, struct pattern *pattern)
{
    struct writer writer = { .out = out, .event = event, .meta = meta, .pattern = pattern };
    const struct plan *plan = &ocsf_plans[event->kind];
    const struct step *step;
    uint32_t common = 0;
    size_t start;

    pthread_once(&plans_once, plans_compile);
    if (value_twins_move(event, pattern))
        pattern_refuse(pattern);
    writer_begin(&writer);
    buf_char(out, '{');
    for (step = plan->steps; step < plan->steps + plan->count; step++) {
        common = common < step->common ? common : step->common;
        if (step->source == STEP_FIELD && !event_has(event, step->field))
            continue;
        if (step->home >= 0 && !writer.whole[step->home])
            continue;
        if (writer.last != NULL && writer.last->path_number == step->path_number) {
            drop_equal(&writer, step);
            continue;
        }
        if (write_step(&writer, step, common)) {
            writer.last = step;
            common = step->depth;
        }
    }
    close_down_to(&writer, 0);
    value_drop_twins(event, writer.rest);
    start = out->size;
    BUF_LITERAL(out, ",\"unmapped\":{");
    if (value_write_rest(out, event, writer.rest, NULL, pattern))
        buf_char(out, '}');
    else
        out->size = start;
    buf_char(out, '}');
    return 0;
}

/* ---- As a table: attributes of the top are columns ---- */

/* What the functions of `computed` write there; lists and objects are dynamic. */
static const struct { const char *path; enum column_type type; } computed_columns[] = {
    { "time", COLUMN_LONG }, { "type_uid", COLUMN_LONG }, { "class_uid", COLUMN_INT }, { "category_uid", COLUMN_INT },
    { "activity_id", COLUMN_INT }, { "is_alert", COLUMN_BOOLEAN }, { "message", COLUMN_STRING }, { "raw_data", COLUMN_STRING },
    { "evidences", COLUMN_DYNAMIC }, { "observables", COLUMN_DYNAMIC },
};

static enum column_type step_column(const struct step *step)
{
    size_t i = 0;

    if (step->depth > 0 || step->array_leaf)
        return COLUMN_DYNAMIC;
    switch (step->source) {
    case STEP_FIELD:
        return fields[step->field].type == FIELD_TIME ? COLUMN_LONG : column_of_field(fields[step->field].type);
    case STEP_CODE:
        return COLUMN_INT;
    case STEP_SIBLING:
        return COLUMN_STRING;
    case STEP_COMPUTED:
        while (i < COUNT(computed_columns) && strcmp(computed_columns[i].path, step->path) != 0)
            i++;
        assert(i < COUNT(computed_columns));
        return computed_columns[i].type;
    }
    abort();
}

static void ocsf_table(enum pen_kind kind, struct table *table)
{
    const struct plan *plan = &ocsf_plans[kind];
    char name[KEY_MAX];

    pthread_once(&plans_once, plans_compile);
    *table = (struct table){ .transform = "source | extend TimeGenerated = datetime(1970-01-01) + 1ms * ['time']" };
    for (const struct step *step = plan->steps; step < plan->steps + plan->count; step++) {
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(step->path, ".["), step->path);
        table_add(table, name, step_column(step));
    }
    table_add(table, "unmapped", COLUMN_DYNAMIC);
    table_sort(table);
}

const struct schema ocsf_schema = {
    .name = "ocsf", .write = ocsf_write, .shape = ocsf_shape, .fill = ocsf_fill, .table = ocsf_table,
};
