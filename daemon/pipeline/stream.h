/*
 * stream.h - streams from the inside: what is read, what is safe, and the saving of both.
 *
 * source.h says what sources may do with a stream; here is the rest, for the pipeline. A stream's runs stand in the order
 * they were read; its cursor passes the released ones at the front, never one behind a held one. The saver writes what has
 * moved into state.db, on the pool, one transaction at a time.
 */
#ifndef DAEMON_STREAM_H
#define DAEMON_STREAM_H

#include "daemon/disk/cursor.h"
#include "daemon/outlet/batch.h"
#include "daemon/source/source.h"

struct stream {
    TAILQ_ENTRY(stream) entry;       /* of its source */
    TAILQ_ENTRY(stream) queued;      /* the pipeline's, for a job */
    TAILQ_ENTRY(stream) unsaved;     /* cursor or attrs differ from state.db */
    struct stream_list *list;
    struct source_host *host;
    void *self;                      /* the source's own */
    char *name;                      /* "source/stream" */
    char *key, *attrs;
    uint64_t position, word;         /* read */
    uint64_t safe_position, safe_word;
    uint64_t end;
    TAILQ_HEAD(, run) runs;
    bool dirty, closed, forget;
    /* the pipeline's */
    struct chunk *chunk;             /* out, with us */
    size_t chunk_at;                 /* bytes of it done with */
    uint32_t chunk_message;          /* and messages */
    uint64_t skip;                   /* events of the record at `position` that are committed */
    bool blamed;                     /* and it is counted as partly read */
    bool big;                        /* its next record needs the budget to itself */
};
TAILQ_HEAD(streams, stream);

/* The streams of one source. */
struct stream_list {
    struct streams streams;
    uint64_t count;
    const char *source;              /* name */
    struct saver *saver;
};

void stream_list_init(struct stream_list *list, const char *source, struct saver *saver);
void stream_list_free(struct stream_list *list);  /* and what their runs still hold back is read again */
struct stream *stream_new(struct stream_list *list, const char *name, const struct cursor *cursor);
/* A run that ends at the stream's position, held once: by the caller, until all of it is handed over. */
struct run *stream_run(struct stream *stream);

struct saver {
    uv_loop_t *loop;
    struct cursors *cursors;
    /* What else is to be saved: the places of the spools. */
    void (*collect)(void *arg, struct cursor_change *change);
    void (*on_saved)(void *arg);
    /* A stream that is all safe: true if its source lets go of it. NULL: none does. */
    bool (*on_rest)(struct stream *stream);
    void *arg;
    /* private */
    struct streams unsaved;
    uv_work_t work;
    struct cursor_change change;
    struct pen_error err;
    int result;
    bool trouble;                    /* said already */
    uint64_t since_ms;               /* a save runs since; 0: none does */
};

void saver_init(struct saver *saver);             /* after the public members are set */
/* Starts a save of what has changed, unless one runs or nothing has; streams that are safe, and closed or at rest, end here. A change
 * that could not be saved is tried again before anything new is collected, so that a full disk does not fill the memory;
 * only the last save, at the stop, takes both. */
void saver_save(struct saver *saver, bool last);
bool saver_is_pending(const struct saver *saver); /* something that was collected is not saved yet */
void saver_free(struct saver *saver);

#endif
