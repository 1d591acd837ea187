/*
 * cursor.h - state.db: how far every stream is safe, and how far every spool is settled. SQLite with WAL and
 * synchronous=FULL; an administrator can open it with the sqlite3 command.
 *
 *   stream(source, key, attrs, position, word, updated)     everything before `position` is safe
 *   spool(sink, segment, offset)                             everything before is settled
 *
 * Every function here blocks; the daemon saves on the pool, one transaction at a time.
 */
#ifndef DAEMON_CURSOR_H
#define DAEMON_CURSOR_H

#include "daemon/disk/spool.h"
#include "daemon/source/source.h"

struct cursors;

int cursors_open(struct cursors **ret, const char *path, struct pen_error *err);
void cursors_close(struct cursors *cursors);      /* copes with NULL */

/* Calls back for every row of the source; texts are lent for the call. */
int cursors_each(struct cursors *cursors, const char *source, void (*each)(void *arg, const struct cursor *cursor),
                 void *arg, struct pen_error *err);
/* Zero where none was saved. */
int cursors_spool_place(struct cursors *cursors, const char *sink, struct spool_place *place, struct pen_error *err);

/* What one tick saves. Texts are owned by the change. */
struct cursor_row {
    char *source, *key, *attrs;
    uint64_t position, word;
    bool forget;                     /* delete the row instead */
};
struct place_row {
    char *sink;
    struct spool_place place;
};
struct cursor_change {
    struct cursor_row *rows;
    size_t row_count, row_capacity;
    struct place_row *places;
    size_t place_count, place_capacity;
};

void cursor_change_row(struct cursor_change *change, const char *source, const struct cursor *cursor, bool forget);
void cursor_change_place(struct cursor_change *change, const char *sink, struct spool_place place);
void cursor_change_clear(struct cursor_change *change);
/* All of it in one transaction, synced; 0, or negative and nothing is changed. */
int cursors_save(struct cursors *cursors, const struct cursor_change *change, struct pen_error *err);

#endif
