/*
 * file.c - the file source: many files, a few of them open, fewer being read.
 *
 * The finder says where files are, the reader (on libuv's pool) says whether a file is still ours and brings its bytes;
 * here on the loop it is decided whose turn it is.
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
#include "daemon/glob.h"
#include "daemon/log.h"
#include "daemon/source.h"
#include "daemon/source/finder.h"
#include "daemon/source/reader.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <time.h>

#define BUSY_MAX 8                   /* chunks out or being filled */
#define PACKED_MAX 4                 /* archives under way: each keeps decoder, chunk and a busy place of its own */
#define SLICE_TURNS 64               /* chunks a file may read while others wait to be opened */
#define SETTLE_MS 5000               /* a file that got shorter may be in the middle of being written again */
#define UNKNOWN_SIZE UINT64_MAX
#define FILE_BYTES (sizeof(struct file) + 96)      /* and two nodes of trees, and what the heap adds; its path comes on top */
#define ATTRS_MAX (256 + 3 * PATH_MAX)

enum file_state { FILE_IDLE, FILE_READY, FILE_READING, FILE_OUT, FILE_PARKED };
enum file_start { START_BEGINNING, START_END };

struct file {
    TAILQ_ENTRY(file) turn;          /* READY: ready_open or ready_closed; PARKED: parked; IDLE and open: open_idle */
    LIST_ENTRY(file) all;
    TAILQ_ENTRY(file) wait;          /* waiting: rotated away, lost or short */
    struct source_file *source;
    char *path;
    char *hint;                      /* also seen here */
    struct stream *stream;           /* NULL until there is something to say about it */
    struct reader *reader;
    struct chunk *chunk;             /* READING, OUT; READY or PARKED: the rest of an archive under way */
    uint64_t key, position, word;    /* position and word: until the stream is open */
    uint64_t dev, ino;
    struct prints prints;
    uint64_t end_size;               /* UNKNOWN_SIZE: not known to be at its end */
    int64_t end_ctime;               /* ns */
    int64_t gone;                    /* second since when, or 0 */
    uint64_t quiet_ms;               /* loop time since which nothing happened to a waiting file */
    uint64_t short_size;
    size_t want;                     /* next chunk's least capacity, after a record that did not fit */
    uint32_t sweep;                  /* seen in this one */
    uint32_t turns;                  /* chunks read since it was opened */
    enum file_state state;
    unsigned by_path : 1, by_inode : 1;   /* in the trees */
    unsigned waiting : 1;
    unsigned dirty : 1;              /* something happened: check when its turn comes */
    unsigned again : 1;              /* something happened while it was at work */
    unsigned leaving : 1;            /* rotated away or deleted: final when quiet for final_after */
    unsigned lost : 1;               /* open, under no name */
    unsigned final : 1;              /* what is read now is all there will ever be */
    unsigned at_end : 1;             /* the chunk that is out reached the end */
    unsigned unnoted : 1;            /* a chunk is out: the prints do not know of it yet */
    unsigned is_short : 1;           /* shorter than what was read; since quiet_ms */
    unsigned skip : 1;               /* start = end */
    unsigned packed : 1;             /* counted in packed_count */
    unsigned failed : 1;             /* said already; tried again with every sweep */
};

TAILQ_HEAD(file_queue, file);

struct file_job {
    uv_work_t work;
    struct file *file;
    char *hint;
    struct reading reading;
};

struct source_file {
    /* options */
    struct pen_list path, exclude;
    uint32_t rescan_ms, final_after_ms, forget_after_ms;
    int64_t open_max, watches_max;
    uint64_t chunk;
    int start;
    bool links;

    struct source_host *host;
    struct glob *glob, *exclude_glob;
    struct finder_conf finder_conf;
    struct finder *finder;
    bool closing, finder_stopped, drained, swept, had_rows;
    void (*stopped)(void *arg);
    void *stopped_arg;

    LIST_HEAD(, file) files;
    void *path_tree, *inode_tree;
    struct file_queue ready_open, ready_closed, parked, open_idle, waiting;
    bool closed_next;                /* the next turn is for a file that must be opened, if there is room */
    unsigned busy, open_count, packed_count;
    uint32_t sweep;

    uv_timer_t turn;                 /* hands out turns, on a turn of the loop of its own */
    uv_timer_t tick;                 /* runs while anything is waiting */
    unsigned timers;
};

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

static void source_kick(struct source_file *source);
static void source_wait_for(struct source_file *source, struct file *file);

/* ---- Small things ---------------------------------------------------------------------------------------------- */

static void file_log(const struct file *file, enum log_level level, const char *msg)
{
    log_line(level, msg, "source", source_name(file->source->host), "path", file->path, "position",
             log_number(file->stream != NULL ? stream_position(file->stream) : file->position), NULL);
}

static uint64_t file_position(const struct file *file)
{
    return file->stream != NULL ? stream_position(file->stream) : file->position;
}

static int64_t stat_ctime(const struct stat *st)
{
    return (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
}

static int path_compare(const void *a, const void *b)
{
    return strcmp(((const struct file *)a)->path, ((const struct file *)b)->path);
}

static int inode_compare(const void *a, const void *b)
{
    const struct file *left = a, *right = b;

    if (left->dev != right->dev)
        return left->dev < right->dev ? -1 : 1;
    return left->ino < right->ino ? -1 : left->ino > right->ino;
}

static struct file *file_by_path(struct source_file *source, const char *path)
{
    struct file key = { .path = (char *)path }, **found = tfind(&key, &source->path_tree, path_compare);

    return found != NULL ? *found : NULL;
}

static struct file *file_by_inode(struct source_file *source, const struct stat *st)
{
    struct file key = { .dev = st->st_dev, .ino = st->st_ino };
    struct file **found = tfind(&key, &source->inode_tree, inode_compare);

    return found != NULL ? *found : NULL;
}

static void file_drop_path(struct file *file)
{
    if (file->by_path)
        tdelete(file, &file->source->path_tree, path_compare);
    file->by_path = false;
}

static void file_drop_inode(struct file *file)
{
    if (file->by_inode)
        tdelete(file, &file->source->inode_tree, inode_compare);
    file->by_inode = false;
}

static void file_set_path(struct file *file, const char *path)
{
    ptrdiff_t before = file->path != NULL ? (ptrdiff_t)strlen(file->path) : 0;
    char *copy = strdup(path);

    source_keep(file->source->host, (ptrdiff_t)strlen(path) - before);
    free(file->path);
    file->path = copy;
}

/* Takes the path; whoever held it must find out what became of it. */
static void file_take_path(struct file *file, const char *path)
{
    struct file *holder = file_by_path(file->source, path);

    if (holder != NULL && holder != file)
        file_drop_path(holder);
    file_drop_path(file);
    file_set_path(file, path);
    tsearch(file, &file->source->path_tree, path_compare);
    file->by_path = true;
}

static void file_take_inode(struct file *file, uint64_t dev, uint64_t ino)
{
    struct stat st = { .st_dev = dev, .st_ino = ino };
    struct file *holder = file_by_inode(file->source, &st);

    if (holder != NULL && holder != file)
        file_drop_inode(holder);
    file_drop_inode(file);
    file->dev = dev;
    file->ino = ino;
    tsearch(file, &file->source->inode_tree, inode_compare);
    file->by_inode = true;
}

static uint64_t key_new(void)
{
    uint64_t key;

    while (getrandom(&key, sizeof key, 0) != sizeof key)
        ;
    return key;
}

/* ---- Rows ------------------------------------------------------------------------------------------------------ */

static void path_escape(char *out, const char *path)
{
    for (; *path != '\0'; path++) {
        unsigned char c = (unsigned char)*path;

        if (c > 0x20 && c < 0x7f && c != '%')
            *out++ = (char)c;
        else
            out += sprintf(out, "%%%02X", c);
    }
    *out = '\0';
}

static bool path_unescape(char *out, size_t capacity, const char *text)
{
    size_t size = 0;

    for (; *text != '\0'; text++) {
        unsigned code;

        if (size + 1 >= capacity)
            return false;
        if (*text == '%') {
            if (sscanf(text + 1, "%2x", &code) != 1 || code == 0 || text[1] == '\0' || text[2] == '\0')
                return false;
            out[size++] = (char)code;
            text += 2;
        } else {
            out[size++] = *text;
        }
    }
    out[size] = '\0';
    return size > 0 && out[0] == '/';
}

static void file_attrs(const struct file *file, char *out)
{
    uint64_t end_size = file->unnoted ? UNKNOWN_SIZE : file->end_size;
    int size = snprintf(out, 256, "v1 %" PRIu64 ":%" PRIu64 " %u:%016" PRIx64 " %" PRIu64 ":%u:%016" PRIx64
                        " %" PRIu64 ":%" PRId64 " %" PRId64 " ", file->dev, file->ino, file->prints.head_size,
                        file->prints.head, file->prints.tail_at, file->prints.tail_size, file->prints.tail, end_size,
                        file->end_ctime, file->gone);

    path_escape(out + size, file->path);
}

static void file_open_stream(struct file *file, const char *attrs)
{
    char key[17];

    snprintf(key, sizeof key, "%016" PRIx64, file->key);
    file->stream = stream_open(file->source->host, file->path,
                               &(struct cursor){ .key = key, .attrs = "", .position = file->position, .word = file->word },
                               file);
    stream_set_attrs(file->stream, attrs);
}

/* Has the row say what we know. A file of which nothing was read has no row: it would be read from its start anyway. */
static void file_save(struct file *file)
{
    char attrs[ATTRS_MAX];

    if (file->stream == NULL && file->position == 0 && file->prints.head_size == 0)
        return;
    file_attrs(file, attrs);
    if (file->stream == NULL)
        file_open_stream(file, attrs);
    else
        stream_set_attrs(file->stream, attrs);
}

static struct file *file_alloc(struct source_file *source)
{
    struct file *file = calloc(1, sizeof *file);

    file->source = source;
    file->end_size = UNKNOWN_SIZE;
    LIST_INSERT_HEAD(&source->files, file, all);
    source_keep(source->host, (ptrdiff_t)FILE_BYTES);
    return file;
}

static void file_free(struct file *file)
{
    struct source_file *source = file->source;

    file_drop_path(file);
    file_drop_inode(file);
    if (file->waiting)
        TAILQ_REMOVE(&source->waiting, file, wait);
    LIST_REMOVE(file, all);
    reader_close(file->reader);
    if (file->chunk != NULL)
        chunk_drop(source->host, file->chunk);
    free(file->hint);
    source_keep(source->host, -(ptrdiff_t)(FILE_BYTES + (file->path != NULL ? strlen(file->path) : 0)));
    free(file->path);
    free(file);
}

static bool row_read(struct file *file, const struct cursor *cursor, char *path, size_t capacity)
{
    unsigned head_size, tail_size;
    int at = 0;

    if (sscanf(cursor->key, "%16" SCNx64, &file->key) != 1 ||
        sscanf(cursor->attrs, "v1 %" SCNu64 ":%" SCNu64 " %u:%" SCNx64 " %" SCNu64 ":%u:%" SCNx64 " %" SCNu64 ":%" SCNd64
               " %" SCNd64 " %n", &file->dev, &file->ino, &head_size, &file->prints.head, &file->prints.tail_at, &tail_size,
               &file->prints.tail, &file->end_size, &file->end_ctime, &file->gone, &at) != 10 || at == 0)
        return false;
    if (head_size > PRINT_HEAD || tail_size > PRINT_TAIL || tail_size > file->prints.tail_at)
        return false;
    file->prints.head_size = (uint16_t)head_size;
    file->prints.tail_size = (uint16_t)tail_size;
    file->position = cursor->position;
    file->word = cursor->word;
    /* Read to its end, but not all of it safe: the rest must be read again. */
    if (file->position != file->prints.tail_at)
        file->end_size = UNKNOWN_SIZE;
    return path_unescape(path, capacity, cursor->attrs + at);
}

static void on_row(void *arg, const struct cursor *cursor)
{
    struct source_file *source = arg;
    struct file *file = file_alloc(source), *holder;
    char path[PATH_MAX];

    source->had_rows = true;
    if (!row_read(file, cursor, path, sizeof path)) {
        log_line(LOG_WARN, "a row of the state is not readable: its file will be read from the start", "source",
                 source_name(source->host), "key", cursor->key, NULL);
        file_free(file);
        return;
    }
    /* Two rows may name one path, one of a file that is gone: that one steps back. */
    holder = file_by_path(source, path);
    if (holder == NULL || (holder->gone != 0 && file->gone == 0))
        file_take_path(file, path);
    else
        file_set_path(file, path);
    if (file_by_inode(source, &(struct stat){ .st_dev = file->dev, .st_ino = file->ino }) == NULL || file->gone == 0)
        file_take_inode(file, file->dev, file->ino);
}

/* ---- Turns ----------------------------------------------------------------------------------------------------- */

static void source_note_drained(struct source_file *source);

static void file_ready(struct file *file)
{
    struct source_file *source = file->source;

    assert(file->state != FILE_READY);
    if (file->state == FILE_IDLE && file->reader != NULL)
        TAILQ_REMOVE(&source->open_idle, file, turn);
    file->state = FILE_READY;
    if (file->reader != NULL)
        TAILQ_INSERT_TAIL(&source->ready_open, file, turn);
    else
        TAILQ_INSERT_TAIL(&source->ready_closed, file, turn);
    source_kick(source);
}

/* Something happened to it, or may have. */
static void file_check(struct file *file)
{
    if (file->state == FILE_READING || file->state == FILE_OUT)
        file->again = true;
    else
        file->dirty = true;
    if (file->state == FILE_IDLE)
        file_ready(file);
}

static void file_close_reader(struct file *file)
{
    struct source_file *source = file->source;

    if (file->reader == NULL)
        return;
    if (file->state == FILE_IDLE)
        TAILQ_REMOVE(&source->open_idle, file, turn);
    reader_close(file->reader);
    file->reader = NULL;
    source->open_count--;
}

static void file_drop_chunk(struct file *file)
{
    if (file->chunk != NULL)
        chunk_drop(file->source->host, file->chunk);
    file->chunk = NULL;
}

/* The next archive that waits may try: it parks again if no place is free after all. */
static void source_unpark(struct source_file *source)
{
    struct file *file = TAILQ_FIRST(&source->parked);

    if (file == NULL || source->packed_count >= PACKED_MAX)
        return;
    TAILQ_REMOVE(&source->parked, file, turn);
    file_ready(file);
}

static void file_idle(struct file *file)
{
    struct source_file *source = file->source;
    bool again = file->again;

    file_drop_chunk(file);
    source->packed_count -= file->packed;
    file->packed = false;
    source_unpark(source);
    file->state = FILE_IDLE;
    file->again = false;
    /* An archive read again must be unpacked from its start in any case. */
    if (file->reader != NULL) {
        TAILQ_INSERT_TAIL(&source->open_idle, file, turn);
        if (reader_is_packed(file->reader) && !file->lost)
            file_close_reader(file);
    }
    if (again)
        file_check(file);
    source_kick(source);
}

/* Makes room for another open file: the one idle for longest is closed. One that could never be opened again is finished
 * first, which takes a turn. */
static void source_close_one(struct source_file *source)
{
    struct file *file;

    TAILQ_FOREACH(file, &source->open_idle, turn)
        if (!file->lost) {
            file_close_reader(file);
            return;
        }
    file = TAILQ_FIRST(&source->open_idle);
    if (file != NULL) {
        file->final = true;
        file_check(file);
    }
}

static void on_read_done(uv_work_t *work, int status);

static void on_read(uv_work_t *work)
{
    struct file_job *job = work->data;

    reader_run(&job->reading);
}

static void job_free(struct file_job *job)
{
    free(job->reading.new_path);
    free(job->hint);
    free(job);
}

static void file_read(struct file *file)
{
    struct source_file *source = file->source;
    struct file_job *job = calloc(1, sizeof *job);
    size_t capacity = file->want > source->chunk ? file->want : source->chunk;

    if (file->chunk == NULL) {
        file->chunk = chunk_take(source->host, capacity);
        file->chunk->size = 0;
        file->chunk->offset = file_position(file);
    }
    if (file->reader == NULL) {
        source->open_count++;
        file->turns = 0;
    }
    file->turns++;
    source->busy++;
    file->state = FILE_READING;
    *job = (struct file_job){ .file = file, .hint = file->hint, .reading = {
        .path = file->path, .hint = file->hint, .dev = file->dev, .ino = file->ino, .prints = file->prints,
        .position = file_position(file), .check = file->dirty && (!file->lost || file->hint != NULL), .skip = file->skip,
        .known_size = file->lost && !file->final ? file->end_size : UNKNOWN_SIZE, .reader = file->reader, .data = file->chunk->data, .have = file->chunk->size, .capacity = file->chunk->capacity,
    } };
    job->work.data = job;
    file->hint = NULL;
    file->dirty = false;
    uv_queue_work(source_loop(source->host), &job->work, on_read, on_read_done);
}

/* Files that are open and files that must be opened take turns; the latter only while there is room. */
static struct file *source_next(struct source_file *source)
{
    struct file *open = TAILQ_FIRST(&source->ready_open), *closed = TAILQ_FIRST(&source->ready_closed);

    if (closed != NULL && source->open_count >= source->open_max) {
        source_close_one(source);
        open = TAILQ_FIRST(&source->ready_open);
        if (source->open_count >= source->open_max)
            closed = NULL;
    }
    source->closed_next = !source->closed_next;
    return open == NULL || (closed != NULL && source->closed_next) ? closed : open;
}

static void on_turn(uv_timer_t *timer)
{
    struct source_file *source = timer->data;
    struct file *file;

    if (source->closing)
        return;
    while (source->busy < BUSY_MAX && flow_is_open(source->host) && (file = source_next(source)) != NULL) {
        if (file->reader != NULL)
            TAILQ_REMOVE(&source->ready_open, file, turn);
        else
            TAILQ_REMOVE(&source->ready_closed, file, turn);
        file_read(file);
    }
    source_note_drained(source);
}

static void source_kick(struct source_file *source)
{
    if (!source->closing && !uv_is_active((uv_handle_t *)&source->turn))
        uv_timer_start(&source->turn, on_turn, 0, 0);
}

static void source_note_drained(struct source_file *source)
{
    if (!source_is_once(source->host) || source->drained || !source->swept || source->busy > 0 ||
        !TAILQ_EMPTY(&source->ready_open) || !TAILQ_EMPTY(&source->ready_closed) || !TAILQ_EMPTY(&source->parked))
        return;
    source->drained = true;
    source_drained(source->host);
}

/* ---- What a reading found -------------------------------------------------------------------------------------- */

static void file_new(struct source_file *source, const char *path, const struct stat *st)
{
    struct file *file = file_alloc(source);

    file->key = key_new();
    file->sweep = source->sweep;
    file->skip = source->start == START_END && !source->had_rows && !source->swept;
    file->final = source_is_once(source->host);
    file_take_path(file, path);
    file_take_inode(file, st->st_dev, st->st_ino);
    file_ready(file);
}

/* Whatever was at this position before, it is another file's now: what we have of it is safe, or will be. */
static void file_begin_anew(struct file *file)
{
    if (file->stream != NULL || file->position > 0) {
        file_log(file, LOG_NOTE, "file was written anew: reading it from its start");
        file_save(file);
        stream_close(file->stream, true);
    }
    file->stream = NULL;
    file->key = key_new();
    file->position = file->word = 0;
    file->prints = (struct prints){ 0 };
    file->end_size = UNKNOWN_SIZE;
    file->is_short = false;
}

static void file_gone(struct file *file)
{
    if (file->gone == 0)
        file->gone = time(NULL);
    file->lost = file->leaving = file->final = false;
    file->end_size = UNKNOWN_SIZE;
    file_save(file);
}

static void file_lose(struct file *file)
{
    if (!file->lost)
        file->quiet_ms = source_now_ms(file->source->host);
    file->lost = file->leaving = true;
    source_wait_for(file->source, file);
}

static void file_move(struct file *file, const char *path)
{
    file_take_path(file, path);
    file->lost = false;
    file->leaving = true;
    file->quiet_ms = source_now_ms(file->source->host);
    source_wait_for(file->source, file);
    file_save(file);
}

/* True: goes on. Paths that turn out to lead to other files than we thought are looked at anew. */
static bool file_place(struct file *file, const struct reading *reading)
{
    struct source_file *source = file->source;
    char *path = strdup(file->path);
    bool held = file->by_path;
    enum place place = reading->place;
    struct file *rival = file_by_path(source, file->path);

    /* What begins like ours belongs to somebody else already: our bytes are safe there, and we are nowhere. */
    if (place == PLACE_REPLACED && rival != NULL && rival != file)
        place = PLACE_GONE;
    switch (place) {
    case PLACE_SAME:
        if (file->gone != 0)
            file_take_inode(file, file->dev, file->ino);
        file->gone = 0;
        break;
    case PLACE_MOVED:
        rival = file_by_inode(source, &(struct stat){ .st_dev = file->dev, .st_ino = file->ino });
        if (rival != NULL && rival != file && strcmp(rival->path, reading->new_path) == 0) {
            file_drop_path(file);
            file_gone(file);
            break;
        }
        file->gone = 0;
        rival = file_by_path(source, reading->new_path);
        file_move(file, reading->new_path);
        file_take_inode(file, file->dev, file->ino);
        if (rival != NULL && rival != file)
            file_check(rival);
        break;
    case PLACE_REPLACED:
        if (reading->prints.head_size > 0 && reading->path_st.st_ino != file->ino)
            file_log(file, LOG_NOTE, "file was replaced by one that begins with all we have read: reading on in it");
        file->gone = 0;
        file->lost = file->leaving = false;
        file_take_inode(file, reading->path_st.st_dev, reading->path_st.st_ino);
        file_save(file);
        break;
    case PLACE_LOST:
        file_drop_path(file);
        file_lose(file);
        break;
    case PLACE_GONE:
        if (reading->path_taken)
            file_drop_path(file);
        file_gone(file);
        break;
    }
    /* The name that was ours may have a new file, made before or since we looked: events about it were taken for ours. */
    if (held && file_by_path(source, path) == NULL)
        finder_look(source->finder, path);
    /* Our inode was seen there, but it is not our file: somebody else's, then, and not ours to be asked for again. A file
     * that is only gone keeps its inode, since one may look between two renames and find it nowhere. */
    if (reading->hint != NULL && (place == PLACE_LOST || place == PLACE_GONE)) {
        file_drop_inode(file);
        finder_look(source->finder, reading->hint);
    } else if (reading->hint != NULL && place != PLACE_SAME && file_by_path(source, reading->hint) == NULL) {
        finder_look(source->finder, reading->hint);
    }
    free(path);
    return file->gone == 0;
}

static void file_fail(struct file *file, const struct reading *reading)
{
    if (!file->failed) {
        log_line(LOG_WARN, "cannot read a file: tried again with every rescan", "source", source_name(file->source->host),
                 "path", file->path, "error", uv_strerror(reading->trouble), NULL);
        source_trouble(file->source->host);
    }
    file->failed = true;
    file->end_size = UNKNOWN_SIZE;
}

/* Shorter than what was read: either truncated, or a copy of it is being written over it. Time tells. */
static void file_short(struct file *file, const struct stat *st)
{
    uint64_t now_ms = source_now_ms(file->source->host);
    uint64_t settle_ms = file->source->final_after_ms < SETTLE_MS ? file->source->final_after_ms : SETTLE_MS;

    if (!file->is_short || file->short_size != (uint64_t)st->st_size) {
        file->is_short = true;
        file->short_size = (uint64_t)st->st_size;
        file->quiet_ms = now_ms;
    }
    if (source_is_once(file->source->host) || file->lost || now_ms - file->quiet_ms >= settle_ms) {
        file_begin_anew(file);
        file->again = true;
    } else {
        source_wait_for(file->source, file);
    }
}

/* A damaged archive is as long as its good part, until it changes. */
static void file_damaged(struct file *file, struct reading *reading)
{
    log_line(LOG_WARN, "an archive is damaged: it is read up to there", "source", source_name(file->source->host), "path",
             file->path, "position", log_number(file_position(file)), "error", reading->err.text, NULL);
    source_trouble(file->source->host);
    reading->trouble = 0;
    reading->end = true;
}

static void file_skipped(struct file *file, uint64_t position)
{
    file->skip = false;
    file->position = position;
    reader_note(file->reader, "", 0, position, &file->prints);
    file_save(file);
}

static void file_offer(struct file *file, const struct reading *reading)
{
    struct chunk *chunk = file->chunk;

    file->unnoted = true;
    if (file->stream == NULL) {
        char attrs[ATTRS_MAX];

        file_attrs(file, attrs);
        file_open_stream(file, attrs);
    }
    chunk->size = reading->size;
    chunk->offset = stream_position(file->stream);
    chunk->final = reading->end && !reading->changed && file->final;
    file->at_end = reading->end;
    stream_set_end(file->stream, reader_is_packed(file->reader) ? 0 : (uint64_t)reading->st.st_size);
    file->state = FILE_OUT;
    stream_offer(file->stream, chunk);
}

/* At its end, and all of it offered: what is left is unfinished, or two brackets. */
static void file_ended(struct file *file)
{
    if (file->final && !source_is_once(file->source->host)) {
        file->final = file->leaving = false;
        if (file->lost) {
            file_close_reader(file);
            file_gone(file);
        }
    }
    file_idle(file);
}

static void file_take_reading(struct file *file, struct reading *reading)
{
    struct source_file *source = file->source;

    if (reading->trouble == 0 || reading->size > reading->have)
        file->failed = false;
    if (!file_place(file, reading)) {
        file_close_reader(file);
        file_idle(file);
        return;
    }
    if (reading->content == CONTENT_SHORT) {
        file_short(file, &reading->st);
        file_idle(file);
        return;
    }
    file->is_short = false;
    if (reading->content == CONTENT_OTHER) {
        file_begin_anew(file);
        file->again = true;
        file_idle(file);
        return;
    }
    if (file->skip)
        file_skipped(file, reading->skipped_to);
    /* What comes later shows as another size or time. A file that still grows is not over. */
    if (file->final && !source_is_once(source->host) && !source->closing &&
        file->end_size != (uint64_t)reading->st.st_size)
        file->final = false;
    if (reading->end || reading->skip) {
        if (file->end_size != (uint64_t)reading->st.st_size)
            file->quiet_ms = source_now_ms(source->host);
        file->end_size = reading->changed ? UNKNOWN_SIZE : (uint64_t)reading->st.st_size;
        file->end_ctime = stat_ctime(&reading->st);
    }
    if (reading->changed)
        file->again = true;
    if (reader_is_packed(file->reader) && !file->packed && !reading->end) {
        if (source->packed_count >= PACKED_MAX) {
            file_drop_chunk(file);
            file_close_reader(file);
            file->state = FILE_PARKED;
            TAILQ_INSERT_TAIL(&source->parked, file, turn);
            return;
        }
        file->packed = true;
        source->packed_count++;
    }
    if (reading->size > 0) {
        source->busy++;
        file_offer(file, reading);
    } else {
        file_save(file);
        file_ended(file);
    }
}

static void source_note_at_rest(struct source_file *source);

static void on_read_done(uv_work_t *work, int status)
{
    struct file_job *job = work->data;
    struct file *file = job->file;
    struct source_file *source = file->source;
    struct reading *reading = &job->reading;

    if (file->reader == NULL && reading->reader == NULL)
        source->open_count--;
    file->reader = reading->reader;
    source->busy--;
    file->state = FILE_OUT;          /* neither idle nor ready until it is decided */
    if (source->closing) {
        job_free(job);
        source_note_at_rest(source);
        return;
    }
    assert(status == 0);
    if (reading->trouble < 0 && reading->size > reading->have) {
        /* Damage behind good bytes: they go first, and the damage is met again. */
        reading->end = false;
        file_take_reading(file, reading);
    } else if (reading->trouble == UV_EINVAL && reading->reader != NULL) {
        file_damaged(file, reading);
        file_take_reading(file, reading);
    } else if (reading->trouble < 0) {
        file_fail(file, reading);
        file_close_reader(file);
        file_idle(file);
    } else {
        file_take_reading(file, reading);
    }
    job_free(job);
    source_kick(source);
}

static void file_source_on_chunk(void *self, void *stream_self, struct chunk *chunk, size_t consumed)
{
    struct source_file *source = self;
    struct file *file = stream_self;
    size_t rest = chunk->size - consumed;

    assert(file->state == FILE_OUT && file->chunk == chunk && consumed <= chunk->size);
    source->busy--;
    file->unnoted = false;
    if (consumed > 0)
        reader_note(file->reader, chunk->data, consumed, chunk->offset, &file->prints);
    assert(stream_position(file->stream) == chunk->offset + consumed);
    file->want = consumed == 0 && !file->at_end ? chunk->capacity * 2 : 0;
    if (consumed > 0 || file->at_end)
        file_save(file);
    if (source->closing) {
        file_drop_chunk(file);
        source_note_at_rest(source);
        return;
    }
    if (file->at_end) {
        file_ended(file);
        return;
    }
    if (file->packed) {
        /* An archive cannot go back to the rest: it is kept, in a larger chunk if it filled this one. */
        struct chunk *next = file->want > 0 ? chunk_take(source->host, file->want) : chunk;

        memmove(next->data, chunk->data + consumed, rest);
        if (next != chunk)
            chunk_drop(source->host, chunk);
        next->size = rest;
        file->chunk = next;
    } else {
        file_drop_chunk(file);
    }
    file->dirty |= file->again;
    file->again = false;
    if (file->turns >= SLICE_TURNS && !TAILQ_EMPTY(&source->ready_closed) && !file->packed && !file->lost &&
        source->open_count >= source->open_max)
        file_close_reader(file);
    file_ready(file);
}

/* ---- What the finder says -------------------------------------------------------------------------------------- */

static void file_hint(struct file *file, const char *path)
{
    free(file->hint);
    file->hint = strdup(path);
    file_check(file);
}

static bool file_is_as_read(const struct file *file, const struct stat *st)
{
    return file->end_size == (uint64_t)st->st_size && file->end_ctime == stat_ctime(st) && !file->failed && file->gone == 0;
}

static void on_found(void *arg, const char *path, const struct stat *st)
{
    struct source_file *source = arg;
    struct file *holder = file_by_path(source, path), *owner = file_by_inode(source, st);

    if (holder != NULL)
        holder->sweep = source->sweep;
    if (owner != NULL)
        owner->sweep = source->sweep;
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
    source_kick(source);
}

/* ---- Waiting --------------------------------------------------------------------------------------------------- */

static void file_tick(struct file *file, uint64_t now_ms)
{
    if (file->state != FILE_IDLE)
        return;
    if (file->leaving && !file->is_short && now_ms - file->quiet_ms >= file->source->final_after_ms)
        file->final = true;
    if (file->lost || file->is_short || file->final)
        file_check(file);
}

static void on_tick(uv_timer_t *timer)
{
    struct source_file *source = timer->data;
    struct file *file, *next;

    if (source->closing)
        return;
    for (file = TAILQ_FIRST(&source->waiting); file != NULL; file = next) {
        next = TAILQ_NEXT(file, wait);
        if (file->leaving || file->is_short) {
            file_tick(file, source_now_ms(source->host));
        } else {
            TAILQ_REMOVE(&source->waiting, file, wait);
            file->waiting = false;
        }
    }
    if (TAILQ_EMPTY(&source->waiting))
        uv_timer_stop(&source->tick);
}

static void source_wait_for(struct source_file *source, struct file *file)
{
    uint64_t tick_ms = source->final_after_ms < 4000 ? source->final_after_ms / 4 + 1 : 1000;

    if (file->waiting)
        return;
    file->waiting = true;
    TAILQ_INSERT_TAIL(&source->waiting, file, wait);
    if (!uv_is_active((uv_handle_t *)&source->tick))
        uv_timer_start(&source->tick, on_tick, tick_ms, tick_ms);
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

static const struct finder_events file_finder_events = {
    .found = on_found, .absent = on_absent, .changed = on_changed, .sweeping = on_sweeping, .swept = on_swept,
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
    source_each_cursor(source->host, on_row, source);
    source->finder_conf = (struct finder_conf){
        .loop = source_loop(source->host), .source = source_name(source->host), .glob = source->glob,
        .exclude = source->exclude_glob, .links = source->links, .once = source_is_once(source->host),
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
    source_kick(self);
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
static void source_note_at_rest(struct source_file *source)
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
    source_note_at_rest(source);
}

const struct source_type file_source = {
    .name = "file", .options = file_options, .open = file_source_open, .start = file_source_start,
    .on_chunk = file_source_on_chunk, .on_flow = file_source_on_flow, .stop = file_source_stop, .close = file_source_close,
    .on_rest = file_source_on_rest,
};
