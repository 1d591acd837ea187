/*
 * The columns that a schema tells of are those that it writes: no key is missing, none too many, and each value fits its
 * column's type. Events that hold every field, none, and each field alone, of every kind.
 */
#include "daemon/schema/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

static bool nobody_takes(void *arg, const struct pen_event *event, uint64_t ordinal)
{
    (void)arg, (void)event, (void)ordinal;
    return true;
}

struct test {
    struct pen_out *out;
    struct json *json, *record_json;
    struct pen_json root, list;
    struct buf text, given;
    struct pen_record record;
    struct event_meta meta;
    struct table table;
    bool seen[TABLE_COLUMNS_MAX];
};

static int setup(void **state)
{
    static const char given[] = "{\"list\":[{\"Type\":\"ip\",\"Address\":\"192.0.2.1\"}]}";
    struct test *test = calloc(1, sizeof(*test));
    const char *why;

    test->out = out_new(nobody_takes, NULL);
    out_begin(test->out, 0);
    test->json = json_new();
    test->record_json = json_new();
    buf_add(&test->given, given, sizeof(given) - 1);
    buf_reserve(&test->given, JSON_PADDING);
    assert_int_equal(json_parse(test->record_json, test->given.data, test->given.size, &test->root, &why), 0);
    test->list = pen_json_get(&test->root, "list");
    test->record.raw = (struct pen_span){ test->given.data, test->given.size };
    test->record.json = &test->root;
    memcpy(test->meta.id, "0123456789abcdef0123456789abcdef-7", 34);
    test->meta.id_size = 34;
    test->meta.received_ticks = INT64_C(17847216000000000);
    test->meta.source = PEN_SPAN("flows");
    test->meta.record = &test->record;
    test->meta.parser = "test";
    *state = test;
    return 0;
}

static int teardown(void **state)
{
    struct test *test = *state;

    out_free(test->out);
    json_free(test->json);
    json_free(test->record_json);
    buf_free(&test->text);
    buf_free(&test->given);
    free(test);
    return 0;
}

/* The largest of its type, so that a column too narrow is seen. */
static void set(struct test *test, struct pen_event *event, enum pen_field field)
{
    switch (fields[field].type) {
    case FIELD_TEXT:
        pen_set_text(event, field, PEN_SPAN("no word of any list"));
        break;
    case FIELD_INT:
        pen_set_int(event, field, INT32_MAX);
        break;
    case FIELD_LONG:
        pen_set_int(event, field, INT64_MAX);
        break;
    case FIELD_REAL:
        pen_set_real(event, field, 0.5);
        break;
    case FIELD_BOOL:
        pen_set_bool(event, field, true);
        break;
    case FIELD_TIME:
        pen_set_ticks(event, field, test->meta.received_ticks);
        break;
    case FIELD_IP:
        pen_set_ip(event, field, PEN_SPAN("192.0.2.1"));
        break;
    case FIELD_MAC:
        pen_set_mac(event, field, PEN_SPAN("60:45:bd:ec:25:32"));
        break;
    case FIELD_JSON:
        pen_set_json(event, field, &test->list);
        break;
    }
    assert_true(pen_is_set(event, field));
}

static bool fits(const struct pen_json *value, enum column_type type)
{
    enum pen_json_type json = pen_json_type(value);
    int64_t number;

    switch (type) {
    case COLUMN_STRING:
        return json == PEN_JSON_TEXT;
    case COLUMN_INT:
        return json == PEN_JSON_INT && pen_json_int(value, &number) && number >= INT32_MIN && number <= INT32_MAX;
    case COLUMN_LONG:
        return json == PEN_JSON_INT;
    case COLUMN_REAL:
        return json == PEN_JSON_REAL || json == PEN_JSON_INT;
    case COLUMN_BOOLEAN:
        return json == PEN_JSON_BOOL;
    case COLUMN_DATETIME:
        return json == PEN_JSON_TEXT && pen_time_read(pen_json_value(value), &number);
    case COLUMN_DYNAMIC:
        return true;
    case COLUMN_TYPES:
        break;
    }
    return false;
}

static void write_and_look(struct test *test, const struct schema *schema, const struct pen_event *event)
{
    const struct table_column *column;
    struct pen_json root;
    struct pen_json_iter it;
    const char *why = "";

    test->text.size = 0;
    schema->write(event, &test->meta, &test->text, NULL);
    buf_reserve(&test->text, JSON_PADDING);
    if (json_parse(test->json, test->text.data, test->text.size, &root, &why) != 0)
        fail_msg("%s: %.*s", why, (int)test->text.size, test->text.data);
    for (it = pen_json_each(&root); pen_json_next(&it);) {
        column = table_find(&test->table, it.name);
        if (column == NULL)
            fail_msg("%s, kind %d: %.*s has no column", schema->name, event->kind, (int)it.name.size, it.name.data);
        if (!fits(&it.value, column->type))
            fail_msg("%s, kind %d: %s is no %s", schema->name, event->kind, column->name, column_type_names[column->type]);
        test->seen[column - test->table.columns] = true;
    }
}

static void kind_is_told(struct test *test, const struct schema *schema, enum pen_kind kind)
{
    struct pen_event *event;

    schema->table(kind, &test->table);
    memset(test->seen, 0, sizeof(test->seen));
    write_and_look(test, schema, pen_out_event(test->out, kind));
    event = pen_out_event(test->out, kind);
    for (size_t field = 0; field < PEN_FIELDS; field++)
        set(test, event, (enum pen_field)field);
    write_and_look(test, schema, event);
    for (size_t field = 0; field < PEN_FIELDS; field++) {
        event = pen_out_event(test->out, kind);
        set(test, event, (enum pen_field)field);
        write_and_look(test, schema, event);
    }
    for (size_t i = 0; i < test->table.count; i++)
        if (!test->seen[i])
            fail_msg("%s, kind %d: nothing ever writes %s", schema->name, kind, test->table.columns[i].name);
}

static void test_columns_are_what_is_written(void **state)
{
    const struct schema *schema;

    for (size_t i = 0; schema_names[i] != NULL; i++) {
        schema = schema_find(schema_names[i]);
        for (int kind = 0; schema->table != NULL && kind < PEN_KINDS; kind++)
            kind_is_told(*state, schema, (enum pen_kind)kind);
    }
}

static void test_tables_are_in_order(void **state)
{
    struct test *test = *state;

    asim_schema.table(PEN_UNKNOWN, &test->table);
    assert_string_equal(test->table.columns[0].name, "TimeGenerated");
    for (size_t i = 2; i < test->table.count; i++)
        assert_true(strcmp(test->table.columns[i - 1].name, test->table.columns[i].name) < 0);
    assert_null(test->table.home);
}

static void test_a_column_of_two_types_takes_the_wider(void **state)
{
    struct table *table = &((struct test *)*state)->table;

    *table = (struct table){ 0 };
    table_add(table, "a", COLUMN_INT);
    table_add(table, "a", COLUMN_LONG);
    table_add(table, "b", COLUMN_INT);
    table_add(table, "b", COLUMN_STRING);
    assert_int_equal(table->count, 2);
    assert_int_equal(table_find(table, PEN_SPAN("a"))->type, COLUMN_LONG);
    assert_int_equal(table_find(table, PEN_SPAN("b"))->type, COLUMN_DYNAMIC);
    assert_null(table_find(table, PEN_SPAN("c")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_columns_are_what_is_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tables_are_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_column_of_two_types_takes_the_wider, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
