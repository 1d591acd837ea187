/*
 * status.h - all that there is to see of a running pipeline, as plain numbers, and one table that says what each of them is.
 *
 * pipeline_see() fills the structs; everything that shows them walks the table: the counters in the log, the metrics,
 * status.json (and so the page, `penstock status` and `top`), conf/metrics.md. A new number is a member, a row, and the
 * line that fills it.
 */
#ifndef DAEMON_STATUS_H
#define DAEMON_STATUS_H

#include "daemon/outlet/outlet.h"
#include "daemon/source/source.h"

#define STATUS_NONE UINT64_MAX       /* this number is not known, or not this source's: it is shown nowhere */

/* How a source or a sink is, in one word. */
enum status_mood { MOOD_IDLE, MOOD_OK, MOOD_WARN, MOOD_BAD };
struct status_state {
    enum status_mood mood;
    const char *word;
};

struct status_source {
    const char *name, *type;
    uint64_t records, events, unknown, malformed, partly, oversize, cut;
    uint64_t bytes;                  /* of chunks done with */
    uint64_t outside;                /* a replay's: events that its window left out */
    struct source_progress progress; /* a replay's */
    uint64_t streams, troubles;
    uint64_t newest_ms;              /* newest event time accepted, since 1970 */
    uint64_t behind_bytes;           /* known to be there and not safe yet: either bytes … */
    uint64_t behind_messages;        /* … or messages of a queue */
    uint64_t unread;                 /* the part of it that was not even read */
    uint64_t stalled_ms;             /* health's: for so long nothing was read though there is something */
    uint64_t token_ms;               /* that its token lives yet */
    bool ailing;                     /* it, or some of it, cannot be read */
    struct status_state state;       /* health's */
    struct source_number numbers[SOURCE_NUMBERS_MAX];              /* what only this type counts */
    size_t number_count;
};

/* Where messages of one source are, for one sink. */
struct status_route {
    const char *source, *sink;
    uint64_t taken, delivered, dead, dropped, held, spooled;
};

struct status_sink {
    const char *name, *type, *schema;
    const char *trouble;             /* what the far end's last answer said that was not "delivered"; NULL: all is well */
    uint64_t flow;                   /* enum outlet_state */
    uint64_t refused;                /* 1: the far end refuses us, or rejects every message: a human must act */
    uint64_t hold_ms;                /* until the next try */
    uint64_t waiting;                /* 1: something is to be sent */
    uint64_t batches, bytes, submitted, retries, refusals, cuts;
    uint64_t in_flight, in_turn;     /* batches: submitted, and ready to be */
    uint64_t spool_bytes, spool_max, damaged;
    uint64_t dead_bytes, dead_max;   /* of the dead letters' file */
    uint64_t token_ms;               /* that its token lives yet */
    struct pen_arrival arrival;
    uint64_t stalled_ms;             /* health's: for so long nothing came to its end though something waits */
    uint64_t paused_ms;              /* health's: for so long the spool has taken nothing and the sources wait */
    struct status_state state;       /* health's */
    struct status_route all;         /* the sum of its routes */
    const struct answers *answers;
};

struct status {
    uint64_t now_ms, started_ms;     /* since 1970 */
    uint64_t memory_held, memory_peak, memory_budget;
    uint64_t flow;                   /* enum outlet_state: open or paused */
    uint64_t jobs, workers;
    uint64_t unsaved;                /* 1: the cursors could not be saved */
    uint64_t ready;                  /* health's: 1 */
    uint64_t config_loaded_ms;       /* reload's: when the configuration in effect was read, since 1970 */
    uint64_t config_good;            /* reload's: 1; 0: the last reload failed, and the configuration from before goes on */
    uint64_t reloads;                /* reload's: that have ended */
    struct status_source *sources;
    uint32_t source_count;
    struct status_sink *sinks;
    uint32_t sink_count;
    struct status_route *routes;     /* for each sink its sources and, where there is any, what earlier lives left */
    uint32_t route_count;
};

/* Takes the arrays and fills them; texts are the pipeline's. Everything is as of one turn of the loop. */
struct pipeline;
void pipeline_see(const struct pipeline *pipeline, struct status *status);
void status_free(struct status *status);

/* ---- What each number is ---- */

enum status_scope { STATUS_WHOLE, STATUS_SOURCE, STATUS_ROUTE, STATUS_SINK,
                    STATUS_ANSWER, STATUS_NUMBER, STATUS_PROCESS /* rows for the page: whoever writes these knows them */ };
enum status_unit {
    STATUS_PLAIN,                    /* a count, bytes, 0 or 1 */
    STATUS_MS,                       /* a duration; a metric has it in seconds */
    STATUS_TIME,                     /* ms since 1970 */
    STATUS_FLOW,                     /* enum outlet_state */
};

struct status_row {
    enum status_scope scope;
    const char *line;                /* the log line that has it; NULL: none */
    const char *key;                 /* there and in status.json; NULL: neither */
    const char *metric;              /* its name there; NULL: none. A counter's ends with "_total" */
    enum status_unit unit;
    size_t at;                       /* of its uint64_t in the scope's struct */
    const char *help;                /* what it is: one sentence */
    const char *look;                /* what to do when it looks wrong; NULL: nothing */
};
extern const struct status_row status_rows[];                      /* ends with an empty row; metrics of a name stand together */

static inline uint64_t status_value(const struct status_row *row, const void *scope)
{
    return *(const uint64_t *)((const char *)scope + row->at);
}

extern const char *const flow_words[];                             /* by enum outlet_state */
/* What spools hold from an earlier run has lost the name of its source; and sources may have left the configuration. */
#define STATUS_EARLIER "(earlier)"

/* ---- For people ---- */

/* One log line per source, per source and sink, per sink, and one for the whole. */
void status_log(const struct status *status);
/* One sentence for `systemctl status`. */
void status_sentence(const struct status *status, char *out, size_t size);

#endif
