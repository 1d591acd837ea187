/*
 * source.h - what a source is, and what the pipeline offers it. Everything here runs on the loop's thread.
 *
 * A source finds streams (files, blobs, partitions), opens each at its cursor, and offers its bytes chunk by chunk. One
 * chunk of a stream is out at a time; on_chunk() gives it back and says how much of it is done with. The source then puts
 * the rest at the start of the next chunk and reads on behind it. It keeps nothing of a stream at its end: when there is
 * no more to read it drops the rest, and reads it again from stream's `position` when the stream has grown (so that the
 * two last bytes of a PT1H.json may change).
 *
 *        stream_open ──▶ idle ──stream_offer──▶ out ──on_chunk──▶ idle ──stream_close──▶ gone once all of it is safe
 *
 * Flow: a source reads only while flow_is_open(); on_flow() tells it that the flow has opened again. Chunks already out
 * are given back in either case.
 */
#ifndef DAEMON_SOURCE_H
#define DAEMON_SOURCE_H

#include "daemon/record/json.h"

#include <uv.h>

struct source_host;                  /* the pipeline's side of one source */
struct stream;
struct http;
struct probe;
struct window;

/* Bytes of a stream. capacity is what may be filled; JSON_PADDING more bytes are allocated behind it. */
struct chunk {
    char *data;
    size_t size, capacity;
    uint64_t offset;                 /* of data[0] in the stream */
    bool final;                      /* nothing will ever follow: what is left over is torn, not unfinished */
    bool unseen;                     /* given back, at the stop, before all of it was looked at: what is left over says nothing */
    /* Messages of a queue, end to end; `offset` is the number of the first. Each is framed by itself, what is left over at its
     * end is torn, its records all stand at its number, and behind it the stream's position is that number + 1, however many
     * bytes it has. Numbers rise; some may be missing between two. */
    struct chunk_message {
        uint64_t number;
        size_t end;                  /* in data; the next one begins there */
    } *messages;
    uint32_t message_count, message_max;           /* 0: a run of bytes */
};

/* Taken from the budget, which it may overdraw by one chunk per stream at work. Never NULL. */
struct chunk *chunk_take(struct source_host *host, size_t capacity);
/* One for at least one message; chunk_add() copies one behind those that are there. */
struct chunk *chunk_take_messages(struct source_host *host, size_t capacity, uint32_t message_max);
void chunk_add(struct chunk *chunk, uint64_t number, const void *data, size_t size);
void chunk_drop(struct source_host *host, struct chunk *chunk);

/* A stream's row in state.db. */
struct cursor {
    const char *key;                 /* unique within its source, chosen by the source, stable over restarts */
    const char *attrs;               /* the source's own: what it needs to know the stream again; "" where nothing */
    uint64_t position;               /* everything before it is safe */
    uint64_t word;                   /* framer's word at position */
};

/* All rows of this source, as they are when it starts; the texts are lent for the call. */
void source_each_cursor(struct source_host *host, void (*each)(void *arg, const struct cursor *cursor), void *arg);

/* name is for people and for keys of messages ("/srv/…/PT1H.json"); the pipeline puts the source's name before it. Opens
 * at cursor->position with cursor->word; texts are copied. `self` comes back in on_chunk(). */
struct stream *stream_open(struct source_host *host, const char *name, const struct cursor *cursor, void *self);
/* The end of the last whole record that was read (not yet safe, maybe), and the word there: where to read on. */
uint64_t stream_position(const struct stream *stream);
/* Everything before it is safe: delivered, dead, dropped by a rule, or on disk and synced. */
uint64_t stream_safe_position(const struct stream *stream);
/* Hands the chunk over; data[0] must be at stream_position(), a first message there or behind. Only while no other chunk of
 * the stream is out. */
void stream_offer(struct stream *stream, struct chunk *chunk);
/* True: all that was read of it is safe, and here is its cursor. Only then may it be closed and be opened again later: two
 * streams of one key must not be about at once, or the elder's cursor would be saved over the younger's. */
bool stream_is_safe(const struct stream *stream, uint64_t *position, uint64_t *word);
/* New attrs, saved with the next cursor save; copied. */
void stream_set_attrs(struct stream *stream, const char *attrs);
/* Newest known size of the stream in bytes of the source, for lag; 0 where unknown. */
void stream_set_end(struct stream *stream, uint64_t end);
/* Nothing more will be offered; not while a chunk is out. With `forget`, its row goes as soon as all of it is safe. */
void stream_close(struct stream *stream, bool forget);

/* What a source's libraries may hold for good; for open(). */
void source_reserve(struct source_host *host, size_t size);
/* What it keeps to know its streams again has become so much more, or less. It narrows the budget for what is under way. */
void source_keep(struct source_host *host, ptrdiff_t size);
bool flow_is_open(const struct source_host *host);
uv_loop_t *source_loop(struct source_host *host);
const char *source_name(const struct source_host *host);
uint64_t source_now_ms(struct source_host *host);           /* the loop's clock */
struct http *source_http(struct source_host *host);         /* daemon/remote/http.h: the process's one */
/* Replay: read what is there to its end, take an end of file as final, then call source_drained() once. */
bool source_is_once(const struct source_host *host);
void source_drained(struct source_host *host);
/* Replay: the event times that are asked for. What cannot hold one of them need not be opened; NULL: all are. */
const struct window *source_window(const struct source_host *host);
/* For counters: a stream that could not be read (permission, I/O). Repeats are the source's to sum up. */
void source_trouble(struct source_host *host);
/* For /readyz: the far end can, or cannot, be read, or one of its files, as its last word has it. One that cannot for
 * stalled_after is called stalled, for as long as that lasts. */
void source_is_ailing(struct source_host *host, bool ailing);

/* What only one type of source counts. Names are one word, static, and never change their meaning: the log's counters have
 * them, with `newest` and `behind`, and whatever else shows counters takes them from here too. */
#define SOURCE_NUMBERS_MAX 12
struct source_number {
    const char *name;
    enum { SOURCE_COUNT, SOURCE_LEVEL } kind;      /* grows since the start; goes up and down */
    uint64_t value;
    const char *help;                              /* one sentence, static */
};

/* How far a replay is, in bytes: unpacked, as far as that can be guessed. */
struct source_progress {
    uint64_t done, total;
    bool whole;                      /* all there is was found: the total stands */
};

struct source_type {
    const char *name;                /* the value of `type =` */
    const struct pen_option *options;
    /* A reload opens a source beside the one of the same name whose place it takes: nothing is read, joined or asked of the
     * host's cursors before start(). One that was never started is stopped and closed like any other, but not settled. */
    int  (*open)(void **self, struct source_host *host, const struct pen_conf *conf, struct pen_error *err);
    void (*start)(void *self);
    /* The chunk is the source's again. consumed: bytes of it done with; the rest starts at the new stream_position().
     * consumed == 0 with bytes left: not one whole record in it, bring at least twice as much, unless it was all. */
    void (*on_chunk)(void *self, void *stream_self, struct chunk *chunk, size_t consumed);
    void (*on_flow)(void *self);     /* the flow is open again */
    void (*stop)(void *self, void (*stopped)(void *arg), void *arg);   /* close handles; no chunk is out any more */
    /* After the sinks have stopped, before close(): what is safe now will not get any safer. For a source whose far end
     * keeps the cursors. settled() comes on a later turn. NULL: nothing to do. */
    void (*settle)(void *self, void (*settled)(void *arg), void *arg);
    void (*close)(void *self);       /* after stopped() and settled(); accepts NULL */
    /* All of the stream is safe and its row about to be saved as `at` says. True: the stream is gone, and the source opens it
     * there again when there is more: of a hundred thousand files few are at work. NULL: never. */
    bool (*on_rest)(void *self, void *stream_self, const struct cursor *at);
    /* As a sink's: what is wrong with the settings that single rows cannot tell. May be NULL. */
    int  (*prove)(const struct pen_conf *conf, struct pen_error *err);
    /* Fills in what only this type counts, always the same names in the same order; returns how many. May be NULL. */
    size_t (*numbers)(void *self, struct source_number numbers[SOURCE_NUMBERS_MAX]);
    /* `check --online`: asks the far end whether it would let us read (daemon/remote/probe.h). May be NULL. */
    void (*probe)(struct probe *probe, const struct pen_conf *conf);
    /* Whether, and how far, it can be replayed: NULL where it keeps no archive. */
    void (*progress)(void *self, struct source_progress *progress);
    /* As a sink's. */
    uint64_t (*token_ms)(void *self);
    bool by_message;                 /* its streams are queues: positions and ends count messages, not bytes */
};

extern const struct source_type file_source, azure_blob_source, event_hub_source, kafka_source;

#endif
