/* table.c - see table.h. */
#include "daemon/schema/table.h"

#include <assert.h>
#include <stdlib.h>

const char *const column_type_names[COLUMN_TYPES] = {
    [COLUMN_STRING] = "string", [COLUMN_INT] = "int", [COLUMN_LONG] = "long", [COLUMN_REAL] = "real",
    [COLUMN_BOOLEAN] = "boolean", [COLUMN_DATETIME] = "datetime", [COLUMN_DYNAMIC] = "dynamic",
};

const struct table_column *table_find(const struct table *table, struct pen_span name)
{
    for (size_t i = 0; i < table->count; i++)
        if (pen_span_is(name, table->columns[i].name))
            return &table->columns[i];
    return NULL;
}

/* The type that holds what either would. */
static enum column_type column_wider(enum column_type a, enum column_type b)
{
    if (a == b)
        return a;
    return (a == COLUMN_INT && b == COLUMN_LONG) || (a == COLUMN_LONG && b == COLUMN_INT) ? COLUMN_LONG : COLUMN_DYNAMIC;
}

void table_add(struct table *table, const char *name, enum column_type type)
{
    struct table_column *column;

    for (column = table->columns; column < table->columns + table->count; column++)
        if (strcmp(column->name, name) == 0) {
            column->type = column_wider(column->type, type);
            return;
        }
    assert(table->count < TABLE_COLUMNS_MAX && strlen(name) < sizeof(column->name));
    strcpy(column->name, name);
    column->type = type;
    table->count++;
}

static int by_name(const void *a, const void *b)
{
    const struct table_column *left = a, *right = b;
    bool left_time = strcmp(left->name, "TimeGenerated") == 0, right_time = strcmp(right->name, "TimeGenerated") == 0;

    return left_time != right_time ? (left_time ? -1 : 1) : strcmp(left->name, right->name);
}

void table_sort(struct table *table)
{
    qsort(table->columns, table->count, sizeof(*table->columns), by_name);
}

enum column_type column_of_field(enum field_type type)
{
    switch (type) {
    case FIELD_TEXT:
    case FIELD_IP:
    case FIELD_MAC:
        return COLUMN_STRING;
    case FIELD_INT:
        return COLUMN_INT;
    case FIELD_LONG:
        return COLUMN_LONG;
    case FIELD_REAL:
        return COLUMN_REAL;
    case FIELD_BOOL:
        return COLUMN_BOOLEAN;
    case FIELD_TIME:
        return COLUMN_DATETIME;
    case FIELD_JSON:
        return COLUMN_DYNAMIC;
    }
    abort();
}

const char *column_describe(const char *name)
{
    static const char *const words[][2] = {
        { "TimeGenerated", "The event's own time, or its arrival" },
        { "AdditionalFields", "What has no column of its own" },
        { "EventOriginalUid", "Penstock's event id" },
        { "EventProduct", "The product that reported it" },
        { "EventVendor", "The product's vendor" },
        { "RawData", "The record, whole" },
        { "RawText", "The same where it is not JSON" },
        { "Source", "Where it was read, as named in penstock.conf" },
        { "Trouble", "Why it is unknown or damaged" },
        { "metadata", "OCSF: about the event itself; its uid is Penstock's event id" },
        { "unmapped", "OCSF: what has no attribute of its own" },
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        if (strcmp(words[i][0], name) == 0)
            return words[i][1];
    return name;
}
