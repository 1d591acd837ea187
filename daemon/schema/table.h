/*
 * table.h - what a schema writes, as a table: the columns that a far end must declare, and their types.
 *
 * The ingestion API drops a value whose column is not declared, and one that does not fit its column's type, without a word.
 * So there is one list of columns, made by the schema that writes them: `penstock dcr` prints it, and what is deployed is
 * compared with it. Types are named as stream declarations of a data collection rule name them (Microsoft's page on the
 * structure of data collection rules).
 */
#ifndef DAEMON_TABLE_H
#define DAEMON_TABLE_H

#include "daemon/record/event.h"

enum column_type {
    COLUMN_STRING, COLUMN_INT, COLUMN_LONG, COLUMN_REAL, COLUMN_BOOLEAN, COLUMN_DATETIME, COLUMN_DYNAMIC, COLUMN_TYPES
};
extern const char *const column_type_names[COLUMN_TYPES];

struct table_column {
    char name[46];                   /* at most 45 characters, as Azure wants */
    enum column_type type;
};

#define TABLE_COLUMNS_MAX 500        /* of one table, Azure's bound */

struct table {
    const char *home;                /* Microsoft's table of these columns; NULL: a custom one */
    const char *transform;           /* KQL that makes rows of the table of the messages; "source" takes them as they are */
    struct table_column columns[TABLE_COLUMNS_MAX];
    size_t count;
};

/* A key that messages may have. One that comes again takes the wider type. */
void table_add(struct table *table, const char *name, enum column_type type);
/* TimeGenerated first, then by name. */
void table_sort(struct table *table);
const struct table_column *table_find(const struct table *table, struct pen_span name);    /* or NULL */
/* How a field's values are written in ASIM. */
enum column_type column_of_field(enum field_type type);
/* What it holds, in a few words, for the custom tables that want a description of each column. */
const char *column_describe(const char *name);

#endif
