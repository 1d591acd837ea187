/*
 * reader.h - the blocking half of the file source: is this still our file, and what comes next in it?
 *
 * Runs on a worker thread, one reading per file at a time, and shares nothing with the loop meanwhile.
 *
 * A file is known again by its prints: hashes over bytes *before* the position, which are those already delivered. They
 * never change in a log that only grows, not even in a PT1H.json whose last two bytes do, since a position is never past
 * the last whole record. So wherever the prints hold, going on behind them neither loses nor repeats anything, whatever
 * the file is called now and whatever inode it has.
 */
#ifndef DAEMON_SOURCE_READER_H
#define DAEMON_SOURCE_READER_H

#include "daemon/record/unpack.h"

#include <sys/stat.h>

#define PRINT_HEAD 1024
#define PRINT_TAIL 256

struct prints {
    uint64_t head, tail;             /* hashes */
    uint64_t tail_at;                /* where the tail's bytes end */
    uint16_t head_size, tail_size;   /* head: of the bytes from 0; both 0: nothing is known */
};

/* An open file. */
struct reader {
    int fd;
    struct unpack *unpack;
    uint64_t next;                   /* position behind the last byte read */
    char head[PRINT_HEAD], tail[PRINT_TAIL];
    uint16_t head_size, tail_size;
};

enum place {                         /* where our file is */
    PLACE_SAME,                      /* at its path */
    PLACE_MOVED,                     /* at new_path */
    PLACE_REPLACED,                  /* its path leads to a new file that holds all we have read: it goes on in there */
    PLACE_LOST,                      /* under no name we know, but open */
    PLACE_GONE,                      /* under no name we know */
};

enum content {
    CONTENT_SAME,
    CONTENT_SHORT,                   /* shorter than what we have read; as far as can be told the same */
    CONTENT_OTHER,                   /* other bytes stand where ours were */
};

struct reading {
    /* in */
    const char *path;
    const char *hint;                /* another path where it was seen, or NULL */
    uint64_t dev, ino;
    struct prints prints;
    uint64_t position;
    bool check;                      /* look whether the path still leads here, even if a reader is open */
    uint64_t known_size;             /* nothing is read of a file that still has this size; UINT64_MAX: none has */
    bool skip;                       /* read nothing: find the end of the last record (start = end) */
    struct reader *reader;           /* in and out; NULL: not open */
    char *data;                      /* where to read to; `have` bytes are there already */
    size_t have, capacity;
    /* out */
    enum place place;
    char *new_path;                  /* PLACE_MOVED: the taker's to free */
    bool path_taken;                 /* the path leads to another file, path_st, than ours */
    struct stat path_st;
    enum content content;
    struct stat st;                  /* before the reading: what changes later is seen later */
    size_t size;                     /* bytes in data now, `have` included */
    uint64_t skipped_to;
    bool end;                        /* the end of the file, for now */
    bool changed;                    /* it was written while it was read: look again */
    int trouble;                     /* negative: nothing above can be relied on, except bytes read before damage */
    struct pen_error err;
};

void reader_run(struct reading *reading);
/* The bytes at `offset` are done with: takes them into the prints. */
void reader_note(struct reader *reader, const char *data, size_t size, uint64_t offset, struct prints *prints);
bool reader_is_packed(const struct reader *reader);
void reader_close(struct reader *reader);                          /* copes with NULL */

#endif
