/*
 * dead.h - the dead letters of one sink: messages that can never be delivered as they are, in `dead/SINK.jsonl` below the
 * state folder. The head of dead.c shows a line.
 *
 * A letter keeps the message whole, as the far end refused it; that is what can be sent again once the far end is mended.
 * The record it was made of is not at hand any more when the far end answers: the message may come from a spool that
 * outlived its file. Stream and position say where the record is; what the schema had no column for is in the message as
 * well (AdditionalFields, unmapped), and of an unknown record the message holds all.
 *
 * Nothing in the file is deleted or sent again but by `penstock dead`.
 */
#ifndef DAEMON_DEAD_H
#define DAEMON_DEAD_H

#include "daemon/outlet/batch.h"

struct dead_stamp {                  /* what a letter says beyond its part */
    const char *sink, *schema;
    int64_t ticks;                   /* now */
};

/* Blocking; for the pool. Appends every message of the parts (part->why is the reason) and syncs. 0, or negative and then
 * the file ends where it did: UV_EAGAIN while a command rewrites it, UV_EFBIG where it would pass bytes_max. */
int dead_append(const char *path, const struct dead_stamp *stamp, struct part *const *parts, uint32_t count,
                uint64_t bytes_max);

/* ---- Reading: letter by letter, in the memory of the longest one ---- */

#define DEAD_ID_SIZE 17              /* 16 hex digits and the NUL */

/* The texts are lent until the next letter is read. */
struct dead_letter {
    uint64_t offset, end;            /* its line is bytes [offset, end) of the file, line break included */
    uint64_t line;                   /* counted from 1 */
    char id[DEAD_ID_SIZE];           /* the first 64 bits of SHA-256 over the line; "" where it is too long to be read */
    const char *damage;              /* what is wrong with the line; NULL: nothing, and the rest is set */
    struct pen_span text;            /* the whole line, without its line break */
    struct pen_span head;            /* of it, up to the comma before the message */
    struct pen_span time, sink, schema, kind, status, reason, stream, message;
    uint64_t position;
    int64_t ticks;                   /* of the message's event */
};

struct dead_file;
/* The file as it is now, between two appends; what is appended later is not seen. */
int dead_open(struct dead_file **ret, const char *path);
/* 1 and a letter, 0 at the end, or negative. */
int dead_next(struct dead_file *file, struct dead_letter *letter);
void dead_close(struct dead_file *file);          /* copes with NULL */

/* Blocking. Writes the file anew without the letters that drops() names, and with those of the file `more` (NULL: none)
 * behind them; all that was appended meanwhile stays. Either the whole change is on disk, or nothing has changed. `read`
 * is the file that decisions were made on, or NULL: UV_ECANCELED where another one lies there now. */
int dead_rewrite(const char *path, const struct dead_file *read, bool (*drops)(void *arg, const struct dead_letter *letter),
                 void *arg, const char *more);

#endif
