/*
 * file.h - the file source from the inside: its files, for the four files it is made of.
 *
 * file.c has the whole picture, hears what is found, and starts and stops; file_book.c remembers; file_turn.c says whose
 * turn it is; file_reading.c is one reading and what follows from it. All of it is the loop's, but a reader at work.
 */
#ifndef DAEMON_SOURCE_FILE_H
#define DAEMON_SOURCE_FILE_H

#include "daemon/source/finder.h"
#include "daemon/source/reader.h"
#include "daemon/source/source.h"

#include <limits.h>
#include <sys/queue.h>

#define BUSY_MAX 8                   /* chunks out or being filled */
#define PACKED_MAX 4                 /* archives under way: each keeps decoder, chunk and a busy place of its own */
#define UNKNOWN_SIZE UINT64_MAX
#define ATTRS_MAX (256 + 3 * PATH_MAX)

enum file_state { FILE_IDLE, FILE_READY, FILE_READING, FILE_OUT, FILE_PARKED };

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
    uint64_t size;                   /* as last found, for progress */
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
    unsigned busy, open_count, packed_count, failed_count;
    uint32_t sweep;

    uv_timer_t turn;                 /* hands out turns, on a turn of the loop of its own */
    uv_timer_t tick;                 /* runs while anything is waiting */
    unsigned timers;
};

static inline int64_t file_ctime(const struct stat *st)      /* ns */
{
    return (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
}

/* ---- file_book.c: what is known of files ---- */

void file_source_load(struct source_file *source);           /* a file for every row */
struct file *file_alloc(struct source_file *source);
void file_free(struct file *file);
void file_set_failed(struct file *file, bool failed);
uint64_t file_key_new(void);
uint64_t file_position(const struct file *file);
/* NULL: none holds it. */
struct file *file_by_path(struct source_file *source, const char *path);
struct file *file_by_inode(struct source_file *source, const struct stat *st);
/* Whoever held it must find out what became of it. */
void file_take_path(struct file *file, const char *path);
void file_take_inode(struct file *file, uint64_t dev, uint64_t ino);
void file_drop_path(struct file *file);
void file_drop_inode(struct file *file);
void file_open_stream(struct file *file);
/* Has the row say what we know. A file of which nothing was read has no row: it would be read from its start anyway. */
void file_save(struct file *file);
void file_row_write(const struct file *file, char *out);     /* to ATTRS_MAX bytes */
/* False: not readable. Sets the members that are in a row; path takes its path. */
bool file_row_read(struct file *file, const struct cursor *cursor, char *path, size_t capacity);

/* ---- file_turn.c: whose turn it is ---- */

void file_source_kick(struct source_file *source);           /* turns are handed out soon */
void file_ready(struct file *file);
void file_check(struct file *file);                          /* something happened to it, or may have */
void file_idle(struct file *file);                           /* from READING or OUT; goes on where something happened meanwhile */
void file_park(struct file *file);                           /* an archive that found no place among those under way */
void file_wait(struct file *file);                           /* looked at now and then, while it is leaving or short */
void file_close_reader(struct file *file);
void file_drop_chunk(struct file *file);

/* ---- file_reading.c: one reading ---- */

void file_read(struct file *file);                           /* its turn has come */
void file_source_on_chunk(void *self, void *stream_self, struct chunk *chunk, size_t consumed);

/* ---- file.c ---- */

/* Something came to rest while the source closes: perhaps it was the last. */
void file_source_note_at_rest(struct source_file *source);

#endif
