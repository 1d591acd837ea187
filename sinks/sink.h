/*
 * sink.h - what a sink is: it takes batches and gives answers.
 *
 * A sink translates and has no patience of its own. Retry, backoff, cutting, bisection, spooling and dead letters live
 * in the daemon (daemon/outlet/outlet_answers.c), once. Its heart is the small table from what the far end said to the outcomes.
 * Everything here is called on the loop's thread.
 */
#ifndef PEN_SINK_H
#define PEN_SINK_H

#include "parsers/parser.h"

#include <uv.h>

enum pen_outcome {
    PEN_DELIVERED,                   /* the far end has taken them over */
    PEN_RETRY,                       /* not now; not before delay_ms, if the far end named one (0: it did not) */
    PEN_TOO_LARGE,                   /* the daemon cuts the batch in two and comes back */
    PEN_REJECTED,                    /* this will never go: the daemon bisects, one message goes to the dead letters */
    PEN_REFUSED,                     /* we, not the batch, are at fault (rights, configuration): hold, alarm, retry slowly */
};

struct pen_message {
    uint32_t offset;                 /* of its bytes in batch->data */
    uint32_t size;
    uint32_t stream;                 /* index into batch->streams */
    uint32_t source;                 /* index into the daemon's sources; UINT32_MAX: of an earlier life (spool) */
    uint64_t position;               /* of its record in the stream */
    int64_t ticks;                   /* its event's time, 100 ns since 1970 */
};

/* Consecutive messages of one kind, lent read-only from submit() until the answer. Messages lie in `data` in their
 * order, each pair parted by one comma, so that '[' + data + ']' is a JSON array of them. */
struct pen_batch {
    const char *data;
    size_t size;                     /* from the first byte of the first message to the last of the last */
    const struct pen_message *messages;   /* offsets count from data */
    uint32_t count;                  /* at least 1 */
    enum pen_kind kind;
    const char *const *streams;      /* names of the streams, "source/stream" */
    bool replayed;                   /* read back from the spool; what a sink has to share goes to live ones first */
    uint64_t id;                     /* for log lines; a resend keeps it, a part gets a new one */
    void *sink_data;                 /* the sink's own while the batch is lent */
};

/* Every submitted batch is answered exactly once, on a later turn of the loop, never inside submit(). `why` is one
 * sentence for people (status, code, the far end's words; no secrets), copied. Where the far end gave a status it begins
 * with it, "status 400, …" or "status INVALID_RECORD: …": that word has a place of its own in the dead letters. */
void pen_batch_answer(struct pen_batch *batch, enum pen_outcome outcome, uint32_t delay_ms, const char *why);
/* One outcome per message; PEN_TOO_LARGE is not among them. */
void pen_batch_answer_each(struct pen_batch *batch, const enum pen_outcome *outcomes, uint32_t delay_ms,
                           const char *why);

static inline struct pen_span pen_batch_message(const struct pen_batch *batch, uint32_t i)
{
    return (struct pen_span){ batch->data + batch->messages[i].offset, batch->messages[i].size };
}

/* The far end's own bounds: a batch is sealed before it would pass one. Read once after open(). */
struct pen_limits {
    size_t bytes_max;                /* of data; the sink has taken off what it adds itself */
    uint32_t messages_max;
    int64_t span_ticks_max;          /* newest minus oldest time in one batch; 0: no bound */
    uint32_t in_flight_max;          /* batches submitted and not answered; 1 keeps strict order */
    bool by_kind;                    /* true: one batch holds one kind only */
    size_t memory;                   /* what the sink's libraries may hold besides the lent batches */
};

/* What a far end that counts for itself says of what it accepted; UINT64_MAX: not known. */
struct pen_arrival {
    uint64_t accepted;               /* rows, by its answers, … */
    uint64_t received;               /* … and, of the same minutes, by its own count, others' rows among them */
    uint64_t dropped, columns, errors;             /* rows and values that it dropped, and transformations that failed */
    uint64_t differs;                /* 1: something was lost */
    uint64_t unknown_ms;             /* for so long it could not be asked; 0: it could */
};
#define PEN_ARRIVAL_NONE (struct pen_arrival){ UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX }

struct http;                         /* daemon/remote/http.h: curl on the loop, one for the process */
struct probe;

/* A job beside the daemon (replay, resend): of what a far end allots both it takes the smaller half, and gives way where the
 * daemon's use of it, as far as is known, leaves less. */
struct pen_beside {
    uint64_t requests_a_minute, bytes_a_minute;    /* the daemon's, now */
};

/* What the daemon lends a sink for its life. */
struct pen_host {
    uv_loop_t *loop;
    struct http *http;
    const char *schema;              /* name of the schema this sink's messages are written in */
    size_t memory_max;               /* the sink's share of the budget for its libraries */
    const struct pen_beside *beside; /* NULL: the daemon itself */
};

struct pen_sink {
    uint32_t size;                   /* sizeof(struct pen_sink) where it was compiled */
    const char *name;                /* "sentinel": the value of `type =` */
    const struct pen_option *options;
    const char *const *schemas;      /* the schemas it takes, NULL-ended; the first is its default */
    const struct pen_limits *(*limits)(void *self);
    /* A reload opens a sink beside the one of the same name whose place it takes; that one is stopped before this is lent
     * anything. */
    int  (*open)(void **self, struct pen_host *host, const struct pen_conf *conf, struct pen_error *err);
    void (*submit)(void *self, struct pen_batch *batch);           /* never blocks, never fails */
    void (*stop)(void *self, void (*stopped)(void *), void *arg);  /* answer all in flight first (RETRY is an answer) */
    void (*close)(void *self);       /* only after stopped(); accepts NULL */
    /* What is wrong with the settings that single rows cannot tell; the sentence begins with the key. Neither network nor
     * secrets: `check` asks it on any machine. open() may count on it. May be NULL. */
    int  (*prove)(const struct pen_conf *conf, struct pen_error *err);
    /* `check --online`: asks the far end whether it would take what is sent, and sends nothing without being told to
     * (daemon/remote/probe.h). May be NULL. */
    void (*probe)(struct probe *probe, const struct pen_conf *conf);
    /* Milliseconds that its token lives yet, for those who look; UINT64_MAX: it uses none. May be NULL. */
    uint64_t (*token_ms)(void *self);
    /* What its far end counted, for those who look. May be NULL. */
    struct pen_arrival (*arrival)(void *self);
};

extern const struct pen_sink sentinel_sink;
extern const struct pen_sink kafka_sink;

#endif
