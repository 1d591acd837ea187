/* cursor.c - see cursor.h. */
#include "daemon/disk/cursor.h"

#include "daemon/disk/io.h"
#include "daemon/disk/vfs.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

static const char cursors_schema[] =
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"
    "CREATE TABLE IF NOT EXISTS stream(source TEXT NOT NULL, key TEXT NOT NULL, attrs TEXT NOT NULL,"
    " position INTEGER NOT NULL, word INTEGER NOT NULL, updated INTEGER NOT NULL,"
    " PRIMARY KEY(source, key)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS spool(sink TEXT PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL)"
    " WITHOUT ROWID;"
    "PRAGMA user_version=1;";

enum statement { STREAM_PUT, STREAM_DROP, STREAM_EACH, SPOOL_PUT, SPOOL_GET, BEGIN, COMMIT, ROLLBACK, STATEMENTS };

static const char *const statements[STATEMENTS] = {
    [STREAM_PUT] = "INSERT INTO stream VALUES(?1,?2,?3,?4,?5,?6) ON CONFLICT(source,key) DO UPDATE SET"
                   " attrs=?3, position=?4, word=?5, updated=?6",
    [STREAM_DROP] = "DELETE FROM stream WHERE source=?1 AND key=?2",
    [STREAM_EACH] = "SELECT key, attrs, position, word FROM stream WHERE source=?1",
    [SPOOL_PUT] = "INSERT INTO spool VALUES(?1,?2,?3) ON CONFLICT(sink) DO UPDATE SET segment=?2, offset=?3",
    [SPOOL_GET] = "SELECT segment, offset FROM spool WHERE sink=?1",
    [BEGIN] = "BEGIN IMMEDIATE", [COMMIT] = "COMMIT", [ROLLBACK] = "ROLLBACK",
};

struct cursors {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENTS];
};

static int cursors_trouble(struct cursors *cursors, const char *doing, struct pen_error *err)
{
    return pen_error_set(err, sqlite3_errcode(cursors->db) == SQLITE_FULL ? UV_ENOSPC : UV_EIO,
                         "state.db: %s: %s", doing, sqlite3_errmsg(cursors->db));
}

int cursors_open(struct cursors **ret, const char *path, struct pen_error *err)
{
    struct cursors *cursors = calloc(1, sizeof(*cursors));
    int r;

    if (cursors == NULL)
        abort();
    if (sqlite3_open_v2(path, &cursors->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs_name()) != SQLITE_OK) {
        r = pen_error_set(err, UV_EIO, "%s: %s", path, sqlite3_errmsg(cursors->db));
        goto fail;
    }
    sqlite3_busy_timeout(cursors->db, 5000);       /* an administrator may be looking */
    if (sqlite3_exec(cursors->db, cursors_schema, NULL, NULL, NULL) != SQLITE_OK) {
        r = cursors_trouble(cursors, "cannot be set up", err);
        goto fail;
    }
    for (int i = 0; i < STATEMENTS; i++) {
        if (sqlite3_prepare_v3(cursors->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &cursors->statements[i],
                               NULL) != SQLITE_OK) {
            r = cursors_trouble(cursors, "is not one of ours", err);
            goto fail;
        }
    }
    *ret = cursors;
    return 0;
fail:
    cursors_close(cursors);
    return r;
}

void cursors_close(struct cursors *cursors)
{
    if (cursors == NULL)
        return;
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(cursors->statements[i]);
    sqlite3_close(cursors->db);
    free(cursors);
}

int cursors_each(struct cursors *cursors, const char *source, void (*each)(void *arg, const struct cursor *cursor),
                 void *arg, struct pen_error *err)
{
    sqlite3_stmt *statement = cursors->statements[STREAM_EACH];
    int step;

    sqlite3_bind_text(statement, 1, source, -1, SQLITE_STATIC);
    while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
        struct cursor cursor = {
            .key = (const char *)sqlite3_column_text(statement, 0),
            .attrs = (const char *)sqlite3_column_text(statement, 1),
            .position = (uint64_t)sqlite3_column_int64(statement, 2),
            .word = (uint64_t)sqlite3_column_int64(statement, 3),
        };

        each(arg, &cursor);
    }
    sqlite3_reset(statement);
    return step == SQLITE_DONE ? 0 : cursors_trouble(cursors, "cursors cannot be read", err);
}

int cursors_spool_place(struct cursors *cursors, const char *sink, struct spool_place *place, struct pen_error *err)
{
    sqlite3_stmt *statement = cursors->statements[SPOOL_GET];
    int step;

    *place = (struct spool_place){ 0 };
    sqlite3_bind_text(statement, 1, sink, -1, SQLITE_STATIC);
    step = sqlite3_step(statement);
    if (step == SQLITE_ROW) {
        place->segment = (uint64_t)sqlite3_column_int64(statement, 0);
        place->offset = (uint64_t)sqlite3_column_int64(statement, 1);
    }
    sqlite3_reset(statement);
    return step == SQLITE_ROW || step == SQLITE_DONE ? 0 : cursors_trouble(cursors, "places cannot be read", err);
}

static char *copied(const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL)
        abort();
    return copy;
}

static void *grown(void *array, size_t *capacity, size_t count, size_t item)
{
    if (count < *capacity)
        return array;
    *capacity = *capacity > 0 ? *capacity * 2 : 16;
    array = realloc(array, *capacity * item);
    if (array == NULL)
        abort();
    return array;
}

void cursor_change_row(struct cursor_change *change, const char *source, const struct cursor *cursor, bool forget)
{
    change->rows = grown(change->rows, &change->row_capacity, change->row_count, sizeof(*change->rows));
    change->rows[change->row_count++] = (struct cursor_row){
        .source = copied(source), .key = copied(cursor->key), .attrs = copied(cursor->attrs),
        .position = cursor->position, .word = cursor->word, .forget = forget,
    };
}

void cursor_change_place(struct cursor_change *change, const char *sink, struct spool_place place)
{
    change->places = grown(change->places, &change->place_capacity, change->place_count, sizeof(*change->places));
    change->places[change->place_count++] = (struct place_row){ copied(sink), place };
}

void cursor_change_clear(struct cursor_change *change)
{
    for (size_t i = 0; i < change->row_count; i++) {
        free(change->rows[i].source);
        free(change->rows[i].key);
        free(change->rows[i].attrs);
    }
    for (size_t i = 0; i < change->place_count; i++)
        free(change->places[i].sink);
    free(change->rows);
    free(change->places);
    *change = (struct cursor_change){ 0 };
}

static bool stepped(sqlite3_stmt *statement)
{
    int step = sqlite3_step(statement);

    sqlite3_reset(statement);
    return step == SQLITE_DONE;
}

static bool cursors_put_row(struct cursors *cursors, const struct cursor_row *row, int64_t now)
{
    sqlite3_stmt *statement = cursors->statements[row->forget ? STREAM_DROP : STREAM_PUT];

    sqlite3_bind_text(statement, 1, row->source, -1, SQLITE_STATIC);
    sqlite3_bind_text(statement, 2, row->key, -1, SQLITE_STATIC);
    if (!row->forget) {
        sqlite3_bind_text(statement, 3, row->attrs, -1, SQLITE_STATIC);
        sqlite3_bind_int64(statement, 4, (sqlite3_int64)row->position);
        sqlite3_bind_int64(statement, 5, (sqlite3_int64)row->word);
        sqlite3_bind_int64(statement, 6, now);
    }
    return stepped(statement);
}

static bool cursors_put_place(struct cursors *cursors, const struct place_row *row)
{
    sqlite3_stmt *statement = cursors->statements[SPOOL_PUT];

    sqlite3_bind_text(statement, 1, row->sink, -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)row->place.segment);
    sqlite3_bind_int64(statement, 3, (sqlite3_int64)row->place.offset);
    return stepped(statement);
}

int cursors_save(struct cursors *cursors, const struct cursor_change *change, struct pen_error *err)
{
    bool good = stepped(cursors->statements[BEGIN]);
    int r;

    if (!good)
        return cursors_trouble(cursors, "cannot be written", err);
    for (size_t i = 0; i < change->row_count && good; i++)
        good = cursors_put_row(cursors, &change->rows[i], io_now_ticks() / 10000000);
    for (size_t i = 0; i < change->place_count && good; i++)
        good = cursors_put_place(cursors, &change->places[i]);
    if (good && stepped(cursors->statements[COMMIT]))
        return 0;
    r = cursors_trouble(cursors, "cannot be written", err);
    stepped(cursors->statements[ROLLBACK]);
    return r;
}
