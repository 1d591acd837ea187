/*
 * batch.h - the daemon's side of batches: what lies in one, which records it keeps from being forgotten, and the parts in
 * which it is submitted.
 *
 *   run     what one job committed: consecutive records of one stream. The stream's cursor passes a run when it and all
 *           earlier ones are held by nobody.
 *   batch   messages for one sink, one buffer and an index; holds the runs its messages came from until every message is
 *           *safe*: on disk (spool, dead letters), delivered, or dropped by a rule.
 *   part    what a sink is lent: at first the whole batch, after a cut a piece of it.
 *
 * All of it belongs to the loop's thread.
 */
#ifndef DAEMON_BATCH_H
#define DAEMON_BATCH_H

#include "sinks/sink.h"

#include <sys/queue.h>

struct stream;
struct outlet;
struct spool_frame;
struct late_answer;

struct run {
    TAILQ_ENTRY(run) entry;          /* in its stream's list, oldest first */
    struct stream *stream;
    uint64_t position, word;         /* where the cursor goes when it passes this run */
    uint32_t holds;
    void (*on_released)(struct run *run);          /* nobody holds it any more: it is the stream's again */
};

static inline void run_release(struct run *run)
{
    if (--run->holds == 0)
        run->on_released(run);
}

/* Bytes held against the budget: the one number that opens and closes the flow. */
struct budget {
    size_t total, held, peak;
    size_t upper, lower;             /* the two marks */
};

static inline void budget_take(struct budget *budget, size_t size)
{
    budget->held += size;
    if (budget->held > budget->peak)
        budget->peak = budget->held;
}

static inline void budget_give(struct budget *budget, size_t size)
{
    budget->held -= size;
}

struct batch {
    struct budget *budget;
    enum pen_kind kind;
    char *data;
    size_t size, capacity;
    struct pen_message *messages;
    uint32_t count, message_capacity;
    const char **streams;            /* names; the streams' own while runs hold them, else in `names` */
    uint32_t stream_count, stream_capacity;
    struct run **runs;
    uint32_t run_count, run_capacity;
    char *names;                     /* a batch read back from disk owns its streams' names */
    int64_t ticks_min, ticks_max;
    uint64_t opened_ms;              /* when its first message came */
    uint32_t unsafe;                 /* messages that are not safe yet */
    uint32_t parts;                  /* that refer to its bytes */
    uint32_t writing;                /* appends that read it: until they are done, runs and names stay */
};

struct part {
    struct pen_batch lent;           /* what the sink sees; first, so that the two convert */
    TAILQ_ENTRY(part) entry;         /* in one of its outlet's lists */
    struct outlet *outlet;
    struct batch *batch;
    struct pen_message *messages;    /* its own copy of the index with offsets from lent.data, after a cut; else NULL */
    struct spool_frame *frame;       /* where its bytes lie on disk; NULL: only in memory */
    uint64_t order;                  /* place in the outlet's sequence; parts of one batch share it … */
    uint32_t first;                  /* … and stand in the order of their first message */
    uint64_t sealed_ms;
    const char *why;                 /* for the dead letters; owned */
    struct late_answer *late;        /* came while an append still read the part */
    bool flying;                     /* lent to the sink, not answered */
    bool writing;                    /* an append to the spool reads it */
    bool unwritten;                  /* in flight or ready, and to be written all the same */
    bool keep;                       /* stays in memory when it is written */
    bool doubted;                    /* a single message, rejected once where nothing else was delivered either */
};
TAILQ_HEAD(parts, part);

/* An empty batch with room for `bytes` (more than none) of messages; it grows. Counted against the budget. */
struct batch *batch_new(struct budget *budget, enum pen_kind kind, size_t bytes, uint64_t now_ms);
/* Room for one more message of this size? (One is always taken by an empty batch, whose buffer grows if need be.) */
bool batch_fits(const struct batch *batch, size_t size, int64_t ticks, const struct pen_limits *limits);
struct batch_origin {                /* where a message comes from */
    struct run *run;
    const char *stream;              /* name, alive as long as the run */
    uint32_t source;
    uint64_t position;
    int64_t ticks;
};
void batch_add(struct batch *batch, const char *data, size_t size, const struct batch_origin *origin);
/* Nothing more will be added: gives back what it did not need. */
void batch_trim(struct batch *batch);
/* n more of its messages are safe; at the last one the runs are let go. */
void batch_safe(struct batch *batch, uint32_t n);

/* Around an append that reads the batch on the pool. */
void batch_write_begin(struct batch *batch);
void batch_write_end(struct batch *batch);

/* The whole batch as one part. */
struct part *part_new(struct outlet *outlet, struct batch *batch, uint64_t order, uint64_t now_ms);
/* Messages [from, from + count) of a part as a part of their own, same order, frame and time. */
struct part *part_cut(const struct part *part, uint32_t from, uint32_t count, uint64_t id);
/* Drops the part, and its batch with the last one. */
void part_free(struct part *part);
/* The same where its messages are not safe: their runs stay held, so no cursor passes them, and they are read again. */
void part_abandon(struct part *part);
/* Puts it where its order wants it. */
void parts_insert(struct parts *parts, struct part *part);

#endif
