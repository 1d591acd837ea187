/*
 * outlet.h - the daemon's side of one sink: open batches, the window, retry, cutting, bisection, spool, dead letters.
 *
 * Messages go in, and sooner or later every one is delivered, dead or dropped; meanwhile it is held in memory or lies in
 * the spool, and its run is held until it is safe. See the head of outlet.c for the states.
 */
#ifndef DAEMON_OUTLET_H
#define DAEMON_OUTLET_H

#include "daemon/answers.h"
#include "daemon/batch.h"
#include "daemon/ledger.h"
#include "daemon/schema.h"
#include "daemon/settings.h"
#include "daemon/spool.h"

enum outlet_state { OUTLET_OPEN, OUTLET_SPOOLING, OUTLET_PAUSED };

struct outlet_conf {
    const struct sink_settings *settings;
    uv_loop_t *loop;
    struct http *http;
    struct budget *budget;
    const char *state_dir;
    struct reserve *reserve;         /* of the disk, for dead letters; NULL: none */
    const struct keys *keys;         /* NULL: what is written is not encrypted */
    uint64_t life;
    struct spool_place place;
    uint32_t source_count;
    uint32_t stop_ms;
    size_t memory_max;               /* for the sink's libraries */
    bool beside;                     /* a job beside the daemon; see sink.h */
    void (*on_moved)(void *arg);     /* memory was given back, or something came to its end */
    void *arg;
};

struct outlet_counts {
    uint64_t batches, bytes;         /* delivered */
    uint64_t submitted;              /* parts handed to the sink, resends included */
    uint64_t retries, refusals, cuts;
};

int outlet_open(struct outlet **ret, const struct outlet_conf *conf, struct pen_error *err);
/* A message in the outlet's schema. Copied. */
void outlet_add(struct outlet *outlet, enum pen_kind kind, const char *data, size_t size,
                const struct batch_origin *origin);
/* The sink's rule drops it. */
void outlet_drop(struct outlet *outlet, uint32_t source);
/* After a round of outlet_add(): seals, submits or spools what is due. */
void outlet_pump(struct outlet *outlet);
/* Seals what is open now rather than at its flush time. */
void outlet_flush(struct outlet *outlet);
bool outlet_has_open(const struct outlet *outlet);

const char *outlet_name(const struct outlet *outlet);
const struct schema *outlet_schema(const struct outlet *outlet);
const struct sink_settings *outlet_settings(const struct outlet *outlet);
enum outlet_state outlet_state(const struct outlet *outlet);
const struct ledger_row *outlet_ledger(const struct outlet *outlet, uint32_t row);
const struct outlet_counts *outlet_counts(const struct outlet *outlet);
/* All of its own in status.h's terms; texts are lent until the next turn of the loop. */
struct status_sink;
void outlet_see(const struct outlet *outlet, struct status_sink *sink);
/* Bytes of batches that may be in flight at once. */
size_t outlet_window_bytes(const struct outlet *outlet);
const struct spool *outlet_spool(const struct outlet *outlet);
/* Nothing held, nothing spooled. */
bool outlet_is_idle(const struct outlet *outlet);
/* A job of its on the pool has been running since this time (ms of the loop); 0: none. For the watchdog. */
uint64_t outlet_busy_since(const struct outlet *outlet);

/* Delivers what it can within the grace, spools the rest, stops the sink. Then stopped(). */
void outlet_stop(struct outlet *outlet, void (*stopped)(void *arg), void *arg);
void outlet_close(struct outlet *outlet);         /* after stopped(); copes with NULL */

#endif
