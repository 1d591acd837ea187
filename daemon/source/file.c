/*
 * file.c - the file source: many files, a few of them open, fewer being read.
 *
 * The finder says where files are, the reader (on libuv's pool) says whether a file is still ours and brings its bytes;
 * here on the loop it is decided whose turn it is (file_turn.c), and what follows from a reading (file_reading.c).
 * file_book.c remembers.
 *
 *                                    ┌─────────── more to read, or changed meanwhile ──────────────┐
 *                                    ▼                                                             │
 *   row or found ──▶ IDLE ──▶ READY (in turn) ──▶ READING (on the pool) ──▶ OUT (with the pipeline)┤
 *                     ▲                                 │        │                                 │
 *                     │                                 │        └──▶ PARKED (packed, no slot)     │
 *                     └──────── nothing new ────────────┴──────────── at its end ──────────────────┘
 *
 *   IDLE     nothing to read as of end_size and end_ctime. When all of it is safe its stream goes, too (on_rest): no memory
 *            but struct file; perhaps an fd, while there is room, so that a file which is rotated away can be read to its end.
 *   READING  the worker owns file->reader and the chunk; the loop touches neither.
 *   OUT      the pipeline has the chunk.
 *
 * A file's row is { random key, position, word, attrs }, attrs being what reader.h needs to know it again:
 *
 *   v1 DEV:INO HEADSIZE:HEAD TAILAT:TAILSIZE:TAIL ENDSIZE:ENDCTIME GONE PATH
 *
 * END is the file as it was when it had been read to its end (a restart need not even open it), GONE the second since
 * when it is under no name, or 0; PATH is percent-escaped. Everything in attrs may be newer than the row's position: the
 * prints are about bytes read, the position about bytes safe, and both hold in the same file. Who dies between two saves
 * reads some bytes twice. END counts only where the position has come as far as the prints; so it is not said before
 * the prints have: while the last chunk is OUT, the row knows of no end.
 *
 * Where it must guess it reads again rather than skip, and says so.
 *
 * What can be lost, as far as we know:
 *
 *   - a file deleted, or renamed over, before it was first opened, or while it was closed: a backlog, a paused flow, more
 *     files than open_max, or no daemon running. A rotation needs to keep as many old files as cover that time.
 *   - a file renamed into another folder that no pattern matches, while it was closed.
 *   - bytes written between our last reading and a truncation (copytruncate).
 *   - the unread rest of a file that was deleted when the new file at its path is no shorter and begins with all we had read.
 *   - of a deleted file: what was unread when the daemon stopped, and what is written after it was quiet for final_after.
 */
#include "daemon/source/file.h"

#include "daemon/base/log.h"
#include "daemon/source/glob.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum file_start { START_BEGINNING, START_END };

static const char *const start_choices[] = { "beginning", "end", NULL };

static const struct pen_option file_options[] = {
    { "path", PEN_LIST, offsetof(struct source_file, path), .required = true,
      .help = "Files to read: absolute patterns with *, ?, [...] and ** for any number of folders." },
    { "exclude", PEN_LIST, offsetof(struct source_file, exclude), .help = "Files and folders to leave out." },
    { "start", PEN_CHOICE, offsetof(struct source_file, start), .fallback = "beginning", .choices = start_choices,
      .help = "Where to begin in files that are there at the very first start; later files are read whole." },
    { "rescan", PEN_MS, offsetof(struct source_file, rescan_ms), .fallback = "60s", .min = 10, .max = 86400000,
      .help = "How often all folders are looked through; changes are normally heard of at once." },
    { "final_after", PEN_MS, offsetof(struct source_file, final_after_ms), .fallback = "5m", .min = 10, .max = 86400000,
      .help = "A file rotated away or deleted that is quiet for so long is over: its torn last record is taken as it is." },
    { "forget_after", PEN_MS, offsetof(struct source_file, forget_after_ms), .fallback = "7d", .min = 10,
      .max = 4000000000, .help = "How long the place in a file that is gone is kept." },
    { "open_max", PEN_INT, offsetof(struct source_file, open_max), .fallback = "256", .min = BUSY_MAX, .max = 65536,
      .help = "Files held open at once." },
    { "watches", PEN_INT, offsetof(struct source_file, watches_max), .fallback = "4096", .min = 0, .max = 1000000,
      .help = "Folders watched for changes at once, the most recently changed ones; the others wait for the rescan." },
    { "chunk", PEN_BYTES, offsetof(struct source_file, chunk), .fallback = "256K", .min = 4096, .max = 16777216,
      .help = "Bytes read at once from one file." },
    { "links", PEN_BOOL, offsetof(struct source_file, links), .fallback = "yes", .help = "Follow symbolic links." },
    { 0 }
};

/* ---- What the finder says -------------------------------------------------------------------------------------- */

static void file_new(struct source_file *source, const char *path, const struct stat *st)
{
    struct file *file = file_alloc(source);

    file->key = file_key_new();
    file->sweep = source->sweep;
    file->skip = source->start == START_END && !source->had_rows && !source->swept && !source_is_once(source->host);
    file->size = (uint64_t)st->st_size;
    file_take_path(file, path);
    file_take_inode(file, st->st_dev, st->st_ino);
    file_ready(file);
}

static void file_hint(struct file *file, const char *path)
{
    free(file->hint);
    file->hint = strdup(path);
    file_check(file);
}

static bool file_is_as_read(const struct file *file, const struct stat *st)
{
    return file->end_size == (uint64_t)st->st_size && file->end_ctime == file_ctime(st) && !file->failed && file->gone == 0;
}

static void on_found(void *arg, const char *path, const struct stat *st)
{
    struct source_file *source = arg;
    struct file *holder = file_by_path(source, path), *owner = file_by_inode(source, st);

    if (holder != NULL)
        holder->sweep = source->sweep;
    if (owner != NULL) {
        owner->sweep = source->sweep;
        owner->size = (uint64_t)st->st_size;
    }
    if (holder != NULL && holder == owner) {
        if (!file_is_as_read(holder, st))
            file_check(holder);
        return;
    }
    /* Which of them it is, the bytes must tell. */
    if (owner != NULL)
        file_hint(owner, path);
    if (holder != NULL)
        file_check(holder);
    if (owner == NULL && holder == NULL)
        file_new(source, path, st);
}

static void on_absent(void *arg, const char *path)
{
    struct file *file = file_by_path(arg, path);

    if (file != NULL && file->gone == 0)
        file_check(file);
}

static bool on_changed(void *arg, const char *path)
{
    struct file *file = file_by_path(arg, path);

    if (file != NULL)
        file_check(file);
    return file != NULL;
}

static void on_missed(void *arg)
{
    struct source_file *source = arg;

    source_trouble(source->host);
}

static void on_sweeping(void *arg)
{
    struct source_file *source = arg;

    source->sweep++;
}

static void file_forget(struct file *file)
{
    file_save(file);
    if (file->stream != NULL)
        stream_close(file->stream, true);
    file_close_reader(file);
    file_free(file);
}

static void on_swept(void *arg)
{
    struct source_file *source = arg;
    int64_t now = time(NULL);
    struct file *file, *next;

    if (!source->swept && LIST_EMPTY(&source->files))
        log_line(LOG_NOTE, "no file matches `path` yet; what comes will be read", "source", source_name(source->host), NULL);
    source->swept = true;
    for (file = LIST_FIRST(&source->files); file != NULL; file = next) {
        next = LIST_NEXT(file, all);
        if (file->gone == 0 && file->sweep != source->sweep && !file->lost)
            file_check(file);
        if (file->gone != 0 && file->state == FILE_IDLE && !file->waiting &&
            (now - file->gone) * 1000 >= (int64_t)source->forget_after_ms)
            file_forget(file);
    }
    file_source_kick(source);
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

static const struct finder_events file_finder_events = {
    .found = on_found, .absent = on_absent, .changed = on_changed, .sweeping = on_sweeping, .swept = on_swept,
    .missed = on_missed,
};

static void file_source_close(void *self)
{
    struct source_file *source = self;
    struct file *file;

    if (source == NULL)
        return;
    while ((file = LIST_FIRST(&source->files)) != NULL)
        file_free(file);
    finder_free(source->finder);
    glob_free(source->glob);
    glob_free(source->exclude_glob);
    free(source);
}

static int file_source_open(void **self, struct source_host *host, const struct pen_conf *conf, struct pen_error *err)
{
    struct source_file *source = calloc(1, sizeof *source);
    int r;

    source->host = host;
    LIST_INIT(&source->files);
    TAILQ_INIT(&source->ready_open);
    TAILQ_INIT(&source->ready_closed);
    TAILQ_INIT(&source->parked);
    TAILQ_INIT(&source->open_idle);
    TAILQ_INIT(&source->waiting);
    r = pen_conf_fill(conf, file_options, source, err);
    if (r < 0)
        goto fail;
    r = glob_new(&source->glob, &source->path, err);
    if (r < 0)
        goto fail;
    if (source->exclude.count > 0)
        r = glob_new(&source->exclude_glob, &source->exclude, err);
    if (r < 0)
        goto fail;
    *self = source;
    return 0;
fail:
    file_source_close(source);
    return r;
}

static void file_source_start(void *self)
{
    struct source_file *source = self;

    uv_timer_init(source_loop(source->host), &source->turn);
    uv_timer_init(source_loop(source->host), &source->tick);
    source->turn.data = source->tick.data = source;
    source->timers = 2;
    file_source_load(source);
    source->finder_conf = (struct finder_conf){
        .loop = source_loop(source->host), .source = source_name(source->host), .glob = source->glob,
        .exclude = source->exclude_glob, .links = source->links, .once = source_is_once(source->host), .window = source_window(source->host),
        .rescan_ms = source->rescan_ms, .watches_max = (size_t)source->watches_max,
    };
    source->finder = finder_new(&source->finder_conf, &file_finder_events, source);
    finder_start(source->finder);
}

/* Nobody works at it, and its row says all we know: as after a restart. */
static bool file_source_on_rest(void *self, void *stream_self, const struct cursor *at)
{
    struct file *file = stream_self;

    (void)self;
    if (file->state != FILE_IDLE)
        return false;
    file->stream = NULL;
    file->position = at->position;
    file->word = at->word;
    return true;
}

static void file_source_on_flow(void *self)
{
    file_source_kick(self);
}

static void source_note_stopped(struct source_file *source)
{
    struct file *file;

    if (source->timers > 0 || !source->finder_stopped)
        return;
    LIST_FOREACH(file, &source->files, all) {
        file_drop_chunk(file);
        if (file->stream != NULL)
            stream_close(file->stream, false);
        file->stream = NULL;
    }
    source->stopped(source->stopped_arg);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct source_file *source = handle->data;

    source->timers--;
    source_note_stopped(source);
}

/* Nothing is on the pool or with the pipeline any more: the last handle may go, and stopped() follows on a later turn. */
void file_source_note_at_rest(struct source_file *source)
{
    if (source->busy == 0)
        uv_close((uv_handle_t *)&source->turn, on_timer_closed);
}

static void on_finder_stopped(void *arg)
{
    struct source_file *source = arg;

    source->finder_stopped = true;
    source_note_stopped(source);
}

static void file_source_stop(void *self, void (*stopped)(void *arg), void *arg)
{
    struct source_file *source = self;

    source->closing = true;
    if (source->finder == NULL) {                  /* never started: there is nothing to wait for */
        stopped(arg);
        return;
    }
    source->stopped = stopped;
    source->stopped_arg = arg;
    uv_timer_stop(&source->turn);
    uv_close((uv_handle_t *)&source->tick, on_timer_closed);
    finder_stop(source->finder, on_finder_stopped);
    file_source_note_at_rest(source);
}

/* ---- How far a replay is ---------------------------------------------------------------------------------------- */

#define UNPACKED_GUESS 10.0          /* bytes of a byte of archive, before one was read */

/* Before it is opened its name is all there is to go by: good enough for a guess. */
static bool file_is_archive(const struct file *file)
{
    const char *dot = strrchr(file->path, '.');

    return dot != NULL && (strcmp(dot, ".gz") == 0 || strcmp(dot, ".zst") == 0);
}

/* What cannot be read is done with, too. */
static bool file_is_done(const struct file *file)
{
    return file->failed || (file->end_size != UNKNOWN_SIZE && file->state == FILE_IDLE);
}

/* What archives became so far tells what the others will become. */
static double source_ratio(const struct source_file *source)
{
    uint64_t packed = 0, unpacked = 0;
    const struct file *file;

    LIST_FOREACH(file, &source->files, all)
        if (file_is_archive(file) && file_is_done(file)) {
            packed += file->size;
            unpacked += file_position(file);
        }
    return packed > 0 && unpacked > 0 ? (double)unpacked / (double)packed : UNPACKED_GUESS;
}

static void file_source_progress(void *self, struct source_progress *progress)
{
    const struct source_file *source = self;
    double ratio = source_ratio(source);
    const struct file *file;

    *progress = (struct source_progress){ .whole = source->swept };
    LIST_FOREACH(file, &source->files, all) {
        uint64_t size = file_is_archive(file) ? (uint64_t)((double)file->size * ratio) : file->size;
        uint64_t position = file_position(file);

        if (file_is_done(file) && file_is_archive(file))
            size = position;
        progress->total += size;
        progress->done += file_is_done(file) || position > size ? size : position;
    }
}

const struct source_type file_source = {
    .name = "file", .options = file_options, .open = file_source_open, .start = file_source_start,
    .on_chunk = file_source_on_chunk, .on_flow = file_source_on_flow, .stop = file_source_stop, .close = file_source_close,
    .on_rest = file_source_on_rest, .progress = file_source_progress,
};
