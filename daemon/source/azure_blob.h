/*
 * azure_blob.h - the azure-blob source from the inside: its blobs and places, for the two files it is made of.
 *
 * azure_blob.c decides what is remembered, listed and let go; azure_reader.c reads one blob at a time. A blob at rest is
 * small and has no name: listings bring it again. What it needs for work, struct want, comes and goes with the work.
 */
#ifndef DAEMON_SOURCE_AZURE_BLOB_H
#define DAEMON_SOURCE_AZURE_BLOB_H

#include "daemon/record/unpack.h"
#include "daemon/source/azure_notice.h"
#include "daemon/source/azure_storage.h"
#include "daemon/source/azure_walk.h"
#include "daemon/source/source.h"

#include <sys/queue.h>

#define BLOB_KEY 16                  /* bytes of SHA-256 over container and name */
#define BLOB_PRINT 64                /* bytes before the position, by which a blob is known again */

#define MARK_S 2                     /* times are whole seconds: a mark must lie before what comes in the same one */

enum blob_state {
    BLOB_IDLE,                       /* nothing to read, as far as the last listing told */
    BLOB_READY,                      /* in turn for a slot */
    BLOB_READING,                    /* a request is under way */
    BLOB_UNPACKING,                  /* on the pool */
    BLOB_OUT,                        /* its chunk is with the pipeline */
};

struct blob_print {                  /* of the bytes that end at `at` */
    uint64_t at, hash;
    uint32_t size;                   /* 0: nothing is known */
};

struct want {
    char *name, etag[STORAGE_ETAG_MAX];
    uint64_t size;
    int64_t modified, created;
    enum storage_kind kind;
    struct storage_request *request;
    struct chunk *chunk;             /* what goes to the pipeline */
    uint64_t fetched, asked;         /* the next byte to ask for, of the blob as it lies there; the one last asked for */
    size_t room;                     /* the next chunk's least capacity, after a record that did not fit */
    uint32_t check, checked;         /* bytes of the print to be fetched along, and how many have come */
    char print[BLOB_PRINT];
    unsigned stale;                  /* times in a row that it had changed under the reading */
    unsigned vain;                   /* tries in a row that brought nothing: the service was busy, or refused */
    uint64_t reads;                  /* the source's, at the first of those */
    bool begun;                      /* the members above are set for where to read on */
    bool proved;                     /* the print was found where it was */
    bool final;                      /* its hour is over: what is left over at its end is torn */
    /* of an archive */
    struct unpack *unpack;
    struct chunk *packed;            /* what is fetched of it */
    uint64_t skip;                   /* unpacked bytes that were read in an earlier life */
    uint32_t tail;                   /* bytes in `print`: the last that were passed over */
    bool fresh;                      /* `packed` is not fed yet */
    bool starved;                    /* all that was fed is unpacked */
    bool damaged;                    /* it was said */
};

struct blob {
    TAILQ_ENTRY(blob) turn;          /* READY: ready; IDLE with a stream: settling */
    LIST_ENTRY(blob) entry;          /* of its place */
    struct place *place;
    struct stream *stream;           /* only until all of it is safe */
    struct want *want;               /* NULL while IDLE */
    unsigned char key[BLOB_KEY];
    uint64_t position, word;         /* while there is no stream */
    struct blob_print print;
    uint64_t end_etag, end_size;     /* as it was when read to its end; the ETag's hash, 0: it was not */
    int64_t modified, created;
    int32_t hour;
    uint32_t seen;                   /* in this walk of its place */
    enum blob_state state;
    unsigned has_row : 1;
    unsigned packed : 1;
    unsigned torn : 1;               /* what follows the position is more than closing brackets */
    unsigned failed : 1;             /* said already */
    unsigned anew : 1;               /* other bytes stand there now: from the start, once the old ones are safe */
    unsigned pending : 1;            /* counted in sweep_pending */
};

/* A place (azure_hours.h), or, as source->loose, what lies in none. */
struct place {
    LIST_ENTRY(place) entry;
    TAILQ_ENTRY(place) turn;         /* due, or walking */
    struct blob_source *source;
    char *prefix;
    size_t prefix_size;
    unsigned char key[BLOB_KEY];
    int32_t next;                    /* every hour before it is done with; 0: none is */
    int32_t listed_to;               /* every hour before it is known as of walk_began */
    uint32_t past;                   /* which of the hours before `next` had a blob: hours_miss() */
    int64_t walk_began;              /* seconds */
    int64_t newest;                  /* when a blob was last seen to have changed */
    uint64_t due_ms;
    uint32_t walks, seen;
    enum { PLACE_RESTING, PLACE_DUE, PLACE_WALKING } state;
    bool whole;                      /* this walk sees every hour from next on */
    bool dirty;                      /* something was settled: look whether hours can be let go */
    bool appends;                    /* append blobs were met: of what is appended to them no notice comes */
    LIST_HEAD(, blob) blobs;
    struct walk walk;
};

TAILQ_HEAD(blob_queue, blob);
TAILQ_HEAD(place_queue, place);

struct blob_source {
    /* options */
    char *container, *sas_file, *key_file, *since, *proxy, *ca_file;
    struct entra_conf entra;
    char *queue, *queue_sas_file;
    int auth;
    struct pen_list prefix;
    const char **prefixes;           /* the same, sorted */
    uint32_t poll_ms, rescan_ms, relist_ms, watch_ms, timeout_ms, connect_timeout_ms;
    int64_t parallel;
    uint64_t chunk;

    struct source_host *host;
    struct storage *storage;
    struct notices *notices;         /* NULL without a queue */
    char *container_id;              /* of this container, in keys and rows */
    bool closing;
    void (*stopped)(void *arg);
    void *stopped_arg;
    uv_timer_t turn, tick;
    unsigned timers;

    void *blob_tree, *place_tree;
    LIST_HEAD(, place) places;
    struct place loose;
    unsigned place_count, blob_count, loose_count, walking, walking_whole, busy, ready_count, stream_count;
    struct blob_queue ready, settling;
    struct place_queue due, due_whole, walked;

    struct walk discover, sweep;
    uint64_t discover_due_ms, sweep_due_ms, sweep_started_ms;
    uint32_t discovers, discover_steps;
    bool discovering, sweeping, loose_seen, loose_said;
    unsigned sweep_pending;          /* blobs this page brought that have no row yet */
    bool sweep_page;                 /* a page was told and is not dealt with */
    char *sweep_page_last;           /* its last name */

    /* the source's own row */
    int64_t since_s, late_mark, loose_mark, sweep_began;
    char *sweep_name;
    bool begun;                      /* they are known, from an earlier life or from book_begin() */

    /* of a replay: each place is walked once, and again only for blobs that changed while they were read */
    bool once, drained;
    uint64_t wanted;                 /* bytes to be fetched, of all blobs found */

    uint64_t hold_ms;                /* no request before this */
    uint64_t reads;                  /* that were answered well */
    uint32_t backoff_ms;
    bool busy_said, refused_list, refused_read;
    uint64_t archived, vanished, renewed, locked, unusable;        /* blobs of which something was said */
    uint64_t gaps, hours_missing;    /* hours without a blob, though one was expected: runs of them, and all */
};

static inline bool blob_is_loose(const struct blob *blob)
{
    return blob->place == &blob->place->source->loose;
}

/* Fills the options of an empty one, for those who look at the container without reading it. */
int blob_source_read(struct blob_source *source, const struct pen_conf *conf, struct storage_conf *ret, struct pen_error *err);
/* The same for its queue, where it has one: entered by the same proof. */
struct storage_conf source_queue_conf(const struct blob_source *source);
/* azure_probe.c: the source's `probe`. */
void blob_source_probe(struct probe *probe, const struct pen_conf *conf);

/* ---- azure_book.c: what is remembered ---- */

uint64_t text_hash(const char *text, size_t size);   /* never 0 */
void book_load(struct blob_source *source);
void book_begin(struct blob_source *source);         /* once the service has told the time; then and later */
void book_close(struct blob_source *source);
void source_save(struct blob_source *source);        /* the marks of the sweeps */
struct place *place_meet(struct blob_source *source, const char *name, size_t size);   /* made where it is not known */
void place_save(struct place *place);
void place_forget(struct place *place);              /* without blobs, not walking */
struct blob *blob_find(struct blob_source *source, const char *name);
struct blob *blob_new(struct place *place, const char *name, int32_t hour);
/* Opens the stream where it is not, and has the row say what we know. Only with a want. */
void blob_save(struct blob *blob);
void blob_reset(struct blob *blob);                  /* to its start; the next listing brings it */
void blob_forget(struct blob *blob);                 /* its row too; without stream, all of it safe */
/* The sweep that found it need not wait for it any more: it has a row, or nothing to lose. */
void blob_settled_for_sweep(struct blob *blob);

/* ---- azure_find.c: the walks, and letting go ---- */

void find_start(struct blob_source *source);
void find_turn(struct blob_source *source);
void find_tick(struct blob_source *source);
void find_stop(struct blob_source *source);
bool find_has_room(const struct blob_source *source);             /* for more blobs in turn */
/* Of a blob that somebody else has named. hint: as it is now; false where it is at work, and has changed meanwhile. */
bool find_wants(const struct blob_source *source, const char *name);
bool find_hint(struct blob_source *source, const struct storage_blob *entry);
/* azure_once.c, of a replay: all there is was found; was found, and read. */
bool find_is_whole(const struct blob_source *source);
bool find_is_done(const struct blob_source *source);
void find_again(struct blob_source *source);         /* walks once more what changed under the reading */
void find_note_missing(struct blob *blob);           /* begun by an earlier start, and not listed any more */
void find_hurry(struct blob_source *source);         /* no place rests for longer than a poll */

/* ---- azure_reader.c: one blob at work ---- */

void blob_start(struct blob *blob);                  /* one that is READY; it has a slot from now on */
void blob_take_chunk(struct blob *blob, size_t consumed);
void blob_halt(struct blob *blob);                   /* what can be stopped is; the rest comes to rest by itself */
void blob_want_free(struct blob *blob);
uint64_t blob_position(const struct blob *blob);

/* ---- azure_blob.c: turns ---- */

void source_kick(struct blob_source *source);
bool source_may_fetch(const struct blob_source *source);
void blob_ready(struct blob *blob, const struct storage_blob *entry, bool final);
/* Its slot is free again: at rest, or back in turn. */
void blob_rest(struct blob *blob);
void blob_wait(struct blob *blob, bool first);
void blob_vanish(struct blob *blob);                 /* at rest, and there will be no more of it */
bool source_says(uint64_t *count);
/* What the service said: holds everything where it must. */
void source_heard(struct blob_source *source, const struct storage_answer *answer, bool listing);

#endif
