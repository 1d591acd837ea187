/*
 * work.h - the pure pipeline: bytes of one stream in, messages in every schema out.
 *
 * One work_run() is one job: it frames a chunk, parses each record once, lets the claiming parser make events, and writes
 * each event once per distinct schema. No I/O, no shared state: a `struct worker` belongs to one thread at a time, the
 * plan is read-only. The daemon runs jobs on libuv's pool, `penstock parse` calls work_run() directly.
 */
#ifndef DAEMON_WORK_H
#define DAEMON_WORK_H

#include "daemon/record/framer.h"
#include "daemon/schema/schema.h"

#define WORK_SCHEMAS_MAX 8

struct window;
struct plugin;                           /* a shared object that holds a user's parser */

struct work_parser {
    const struct pen_parser *parser;
    void *self;
    struct plugin *plugin;               /* NULL: built in */
};

/* What is done to a source's records; one per source, built at start, then read-only. */
struct work_plan {
    const struct work_parser *parsers;   /* asked in this order, users' own first; the last one is `unknown` */
    size_t parser_count;
    const struct schema *schemas[WORK_SCHEMAS_MAX];
    size_t schema_count;
    struct pen_span source;
    size_t record_max;                   /* bytes of one record */
    size_t big_record;                   /* a record above this needs `big_allowed`, for its JSON tree's sake */
    size_t output_max;                   /* per schema: a run stops after the message that passes this */
    const struct window *window;         /* events outside of it become no messages; NULL: none is */
};

struct work_message {
    uint32_t offset, size;               /* in its schema's bytes */
    enum pen_kind kind;
    uint64_t position;                   /* of its record in the stream */
    int64_t ticks;                       /* the event's time (arrival where it has none) */
};

struct work_messages {                   /* one schema's output of one run */
    struct buf bytes;                    /* messages end to end, nothing between */
    struct work_message *index;
    size_t count, capacity;
    uint64_t outside;                    /* messages that the window left out */
};

/* A record that did not become what it should: for the log and for `parse`'s stderr. Never holds contents. */
struct work_fault {
    uint64_t position;
    char why[224];
};
#define WORK_FAULTS_MAX 16               /* kept per run; fault_count counts them all */

struct work_counts {
    uint64_t records;                    /* pieces the framer handed out, oversize ones included */
    uint64_t events;                     /* emitted (per event, not per schema) */
    uint64_t unknown;                    /* records that travel as unknown */
    uint64_t malformed;                  /* records not JSON, refused by their parser, torn; included in unknown */
    uint64_t partly;                     /* records of which some part could not be read */
    uint64_t oversize;                   /* records past record_max: their beginning travels as unknown */
    uint64_t outside;                    /* of the events, those that the window left out */
    uint64_t cut;                        /* messages with a field that a schema had to cut (per schema) */
};

enum work_end {
    WORK_ALL,                            /* every whole record of the chunk is done */
    WORK_FULL,                           /* stopped at output_max: run again from `consumed`, with `skip` */
    WORK_BIG,                            /* stopped before a record above big_record: run again with big_allowed */
};

struct worker;                           /* a thread's own: JSON tree, arena, event, output buffers */

struct worker *worker_new(void);
void worker_free(struct worker *worker);
size_t worker_held(const struct worker *worker);          /* bytes of memory, for the budget */
void worker_shrink(struct worker *worker);                /* give back what ordinary records do not need */

struct work {
    /* in */
    const struct work_plan *plan;
    const char *data;                    /* JSON_PADDING readable bytes follow it */
    size_t size;
    uint64_t offset;                     /* of data[0] in the stream */
    uint64_t word;                       /* framer's */
    uint64_t skip;                       /* events of the first record already taken by the run before */
    bool blamed;                         /* that record is counted as partly read already */
    uint64_t received_ms;
    bool final;
    bool whole;                          /* all its records stand at `place`, wherever their bytes are */
    uint64_t place;
    bool adds;                           /* messages, counts and faults come behind those of the run before, which ended
                                          * with WORK_ALL under the same plan */
    bool big_allowed;
    /* out */
    enum work_end end;
    size_t consumed;                     /* bytes of data done with */
    uint64_t word_after;
    uint64_t skip_after;                 /* nonzero only with WORK_FULL, or with WORK_BIG at that same record */
    bool blamed_after;                   /* goes with skip_after */
    struct work_messages *messages;      /* [plan->schema_count]; the worker's, valid until its next run */
    struct work_counts counts;
    struct work_fault faults[WORK_FAULTS_MAX];
    size_t fault_count;                  /* may exceed WORK_FAULTS_MAX */
};

void work_run(struct worker *worker, struct work *work);

/* The built-in parsers in the order they are asked, NULL-ended. */
extern const struct pen_parser *const builtin_parsers[];
/* Opens the plan's parsers: all built-in ones and the shared objects of plugin_dir (NULL: none) for "auto", or the named
 * one alone, with `unknown` last in either case. */
int work_plan_open(struct work_plan *plan, const char *parser, const char *plugin_dir, struct pen_error *err);
void work_plan_close(struct work_plan *plan);

#endif
