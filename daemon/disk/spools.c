/* spools.c - see spools.h. */
#include "daemon/disk/spools.h"

#include "daemon/disk/cursor.h"
#include "daemon/disk/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *spools_dir(const char *state_dir, const char *sink)
{
    char *dir;

    if (asprintf(&dir, "%s/spool/%s", state_dir, sink) < 0)
        abort();
    return dir;
}

int spools_place(struct spool_place *place, const char *state_dir, const char *sink, struct pen_error *err)
{
    struct cursors *cursors = NULL;
    char *path;
    int r = 0;

    *place = (struct spool_place){ 0 };
    if (asprintf(&path, "%s/state.db", state_dir) < 0)
        abort();
    if (access(path, F_OK) == 0) {                 /* opening would make it */
        r = cursors_open(&cursors, path, err);
        if (r == 0)
            r = cursors_spool_place(cursors, sink, place, err);
    }
    cursors_close(cursors);
    free(path);
    return r;
}

/* ---- Looking ---- */

/* Messages of the segment that were settled before the place. */
static uint64_t settled_before(int dir_fd, struct spool_place place)
{
    struct segment_frame frame = { 0 };
    struct segment_file file;
    uint64_t settled = 0;

    if (place.offset <= SEGMENT_BEGIN || segment_open(&file, dir_fd, place.segment) < 0)
        return 0;
    if (segment_next(&file, place.offset, file.size, true, &frame) == 0 && frame.offset < file.size)
        settled = frame.before;
    else
        settled = segment_measure(&file);
    segment_close(&file);
    return settled;
}

/* Where numbers begin that are not settled. */
static size_t names_begin(const struct segment_names *names, struct spool_place place)
{
    size_t i = 0;

    while (i < names->count && names->at[i].number < place.segment)
        i++;
    return i;
}

static int look_at_ends(struct spool_look *look, int dir_fd, const struct segment_names *names, size_t begin)
{
    struct segment_file file;
    int r;

    for (size_t i = names->count; i > begin && !look->has_header; i--) {
        r = segment_open(&file, dir_fd, names->at[i - 1].number);
        if (r == UV_ENOENT)
            continue;
        if (r < 0)
            return r;
        if (i == names->count) {
            look->next = names->at[i - 1].number + segment_measure(&file);
            look->newest_ticks = file.modified_ticks;
        }
        look->newest = file.header;
        look->has_header = file.has_header;
        segment_close(&file);
    }
    if (segment_open(&file, dir_fd, names->at[begin].number) == 0) {
        look->oldest_ticks = file.has_header ? file.header.made_ticks : file.modified_ticks;
        segment_close(&file);
    }
    return 0;
}

static int look_at_names(struct spool_look *look, int dir_fd, const struct segment_names *names, struct spool_place place)
{
    size_t begin = names_begin(names, place);
    uint64_t settled;
    int r;

    look->aside = names->aside;
    look->bytes = names->other_bytes;
    for (size_t i = 0; i < names->count; i++)
        look->bytes += names->at[i].bytes;
    look->first = look->next = place.segment + (place.offset > 0);
    if (begin == names->count)
        return 0;
    look->segments = names->count - begin;
    look->first = look->next = names->at[begin].number;
    if (names->count > 0)
        look->next = names->at[names->count - 1].number;
    r = look_at_ends(look, dir_fd, names, begin);
    settled = look->first == place.segment ? settled_before(dir_fd, place) : 0;
    look->messages = look->next - look->first > settled ? look->next - look->first - settled : 0;
    return r;
}

int spool_look(struct spool_look *look, const char *dir, struct spool_place place)
{
    int dir_fd = io->openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), r;
    struct segment_names names;

    *look = (struct spool_look){ 0 };
    if (dir_fd < 0)
        return -errno;
    r = segment_names_read(&names, dir_fd);
    if (r == 0) {
        r = look_at_names(look, dir_fd, &names, place);
        segment_names_free(&names);
    }
    io->close(dir_fd);
    return r;
}

int spool_look_fits(const struct spool_look *look, const struct sink_settings *to, struct pen_error *err)
{
    const char *schema = settings_schema(to);

    if (look->messages == 0 || !look->has_header || look->newest.type[0] == '\0' ||
        (strcmp(look->newest.type, to->type->name) == 0 && strcmp(look->newest.schema, schema) == 0))
        return 0;
    return pen_error_set(err, UV_EINVAL, "it holds messages for a sink of type %s in schema %s; %s is of type %s with schema %s",
                         look->newest.type, look->newest.schema, to->name, to->type->name, schema);
}

/* ---- Visiting ---- */

struct visit {
    const struct spool_visitor *visitor;
    const struct keys *keys;
    uint64_t number, at, passed, count;            /* of the segment; messages of it that were met, and that there are */
};

static int visit_frame(struct visit *visit, const struct segment_file *file, const struct segment_frame *frame)
{
    const struct spool_visitor *visitor = visit->visitor;
    struct segment_payload payload;

    switch (segment_load(file, frame, visit->keys, &payload)) {
    case SEGMENT_LOADED:
        visitor->on_frame(visitor->arg, file, frame, &payload);
        segment_payload_free(&payload);
        break;
    case SEGMENT_LOCKED:
        visitor->on_frame(visitor->arg, file, frame, NULL);
        break;
    case SEGMENT_DAMAGED:
        visitor->on_lost(visitor->arg, visit->number, frame->offset, frame->messages);
        break;
    case SEGMENT_TROUBLE:
        return UV_EIO;
    }
    return 0;
}

static int visit_segment(struct visit *visit, const struct segment_file *file)
{
    const struct spool_visitor *visitor = visit->visitor;
    struct segment_frame frame = { .end = visit->at };
    bool met = visit->passed > 0 || visit->at <= SEGMENT_BEGIN;    /* do we know what was before? */
    int r = 0;

    while (r == 0 && visit->passed < visit->count) {
        r = segment_next(file, frame.end, file->size, true, &frame);
        if (r < 0 || frame.offset >= file->size)
            break;
        /* Neither a repeat, nor more than the next segment's name leaves to this one: see spool.c. */
        if (frame.before < visit->passed || (uint64_t)frame.before + frame.messages > visit->count)
            continue;
        if (met && frame.before > visit->passed)
            visitor->on_lost(visitor->arg, visit->number, frame.offset, frame.before - visit->passed);
        r = visit_frame(visit, file, &frame);
        visit->passed = (uint64_t)frame.before + frame.messages;
        met = true;
    }
    if (r == 0 && visit->passed < visit->count)
        visitor->on_lost(visitor->arg, visit->number, file->size, visit->count - visit->passed);
    return r;
}

static int visit_names(struct visit *visit, int dir_fd, const struct segment_names *names, struct spool_place place)
{
    struct segment_file file;
    int r = 0;

    for (size_t i = names_begin(names, place); i < names->count && r == 0; i++) {
        visit->number = names->at[i].number;
        r = segment_open(&file, dir_fd, visit->number);
        if (r == UV_ENOENT) {                      /* delivered meanwhile */
            r = 0;
            continue;
        }
        if (r < 0)
            return r;
        visit->at = visit->number == place.segment ? place.offset : 0;
        visit->passed = 0;
        visit->count = i + 1 < names->count ? names->at[i + 1].number - visit->number : segment_measure(&file);
        r = visit_segment(visit, &file);
        segment_close(&file);
    }
    return r;
}

int spool_visit(const char *dir, struct spool_place place, const struct keys *keys, const struct spool_visitor *visitor)
{
    int dir_fd = io->openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), r;
    struct visit visit = { .visitor = visitor, .keys = keys };
    struct segment_names names;

    if (dir_fd < 0)
        return -errno;
    r = segment_names_read(&names, dir_fd);
    if (r == 0) {
        r = visit_names(&visit, dir_fd, &names, place);
        segment_names_free(&names);
    }
    io->close(dir_fd);
    return r;
}

/* ---- All of them ---- */

struct folders {
    char **names;
    size_t count, capacity;
    int dir_fd;
};

static int on_folder(void *arg, const char *name)
{
    struct folders *folders = arg;
    struct stat st;

    if (io->fstatat(folders->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
        return 0;
    if (folders->count == folders->capacity) {
        folders->capacity = folders->capacity > 0 ? folders->capacity * 2 : 16;
        folders->names = realloc(folders->names, folders->capacity * sizeof(*folders->names));
        if (folders->names == NULL)
            abort();
    }
    folders->names[folders->count] = strdup(name);
    if (folders->names[folders->count++] == NULL)
        abort();
    return 0;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int spools_each(const char *state_dir, int (*each)(void *arg, const char *sink), void *arg)
{
    struct folders folders = { 0 };
    char *dir = spools_dir(state_dir, "");
    int r = 0;

    folders.dir_fd = io->openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    free(dir);
    if (folders.dir_fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (io->list(folders.dir_fd, on_folder, &folders) < 0)
        r = -errno;
    io->close(folders.dir_fd);
    if (folders.count > 0)
        qsort(folders.names, folders.count, sizeof(*folders.names), name_compare);
    for (size_t i = 0; i < folders.count; i++) {
        if (r == 0)
            r = each(arg, folders.names[i]);
        free(folders.names[i]);
    }
    free(folders.names);
    return r;
}

bool spools_is_configured(const struct settings *settings, const char *sink)
{
    for (unsigned i = 0; i < settings->sink_count; i++)
        if (strcmp(settings->sinks[i].name, sink) == 0)
            return true;
    return false;
}

struct orphans {
    const char *state_dir;
    const struct settings *settings;
    void (*each)(void *arg, const char *sink, const struct spool_look *look);
    void *arg;
};

static int on_spool(void *arg, const char *sink)
{
    struct orphans *orphans = arg;
    struct spool_place place;
    struct pen_error err = { 0 };
    struct spool_look look;
    char *dir;

    if (spools_is_configured(orphans->settings, sink))
        return 0;
    dir = spools_dir(orphans->state_dir, sink);
    /* Where the place cannot be read, what it holds at most is said. */
    (void)spools_place(&place, orphans->state_dir, sink, &err);
    if (spool_look(&look, dir, place) == 0 && (look.messages > 0 || look.aside > 0))
        orphans->each(orphans->arg, sink, &look);
    free(dir);
    return 0;
}

void spools_orphans(const char *state_dir, const struct settings *settings,
                    void (*each)(void *arg, const char *sink, const struct spool_look *look), void *arg)
{
    struct orphans orphans = { state_dir, settings, each, arg };

    (void)spools_each(state_dir, on_spool, &orphans);
}
