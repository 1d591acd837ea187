/*
 * outlet.h - the daemon's side of one sink: open batches, the window, retry, cutting, bisection, spool, dead letters.
 *
 * Messages go in, and sooner or later every one is delivered, dead or dropped; meanwhile it is held in memory or lies in
 * the spool, and its run is held until it is safe. See the head of outlet.c for the states.
 */
#ifndef DAEMON_OUTLET_H
#define DAEMON_OUTLET_H

#include "daemon/config/settings.h"
#include "daemon/disk/spool.h"
#include "daemon/outlet/answers.h"
#include "daemon/outlet/batch.h"
#include "daemon/outlet/ledger.h"
#include "daemon/schema/schema.h"

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
    const struct pen_beside *beside; /* a job beside the daemon; see sink.h */
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
/* A rule of the user drops so many: the sink's `events =`, a replay's window. */
void outlet_drop(struct outlet *outlet, uint32_t source, uint64_t count);
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
/* Bytes that it takes in any case, once what was prepared has its place: its sink's, and a full window. */
size_t outlet_least_bytes(const struct outlet *outlet);
/* Bytes that the sink's libraries may hold, of the budget. */
size_t outlet_sink_bytes(const struct outlet *outlet);
const struct spool *outlet_spool(const struct outlet *outlet);
/* Nothing held, nothing spooled. */
bool outlet_is_idle(const struct outlet *outlet);
/* A job of its on the pool has been running since this time (ms of the loop); 0: none. For the watchdog. */
uint64_t outlet_busy_since(const struct outlet *outlet);

/* ---- Changing under way: outlet_change.c ---- */

/* Messages in memory alone; of one row, or of all. */
uint64_t outlet_held(const struct outlet *outlet, uint32_t row);
uint64_t outlet_held_all(const struct outlet *outlet);
/* Submitted and not answered. */
uint32_t outlet_flying(const struct outlet *outlet);
/* Seals what is open; what is not delivered after half the stop time, or at once where the far end does not take it, goes to
 * disk. false: as ever again. */
void outlet_drain(struct outlet *outlet, bool drain);
/* Submits nothing more; false: as ever again. */
void outlet_hush(struct outlet *outlet, bool hush);
/* The plugin once more, with other settings, beside the one that goes on. outlet_abandon() stops it again. */
int outlet_prepare(struct outlet *outlet, const struct sink_settings *settings, size_t memory_max, struct pen_error *err);
void outlet_abandon(struct outlet *outlet, void (*abandoned)(void *arg), void *arg);
/* The sink there is answers what is in flight and goes, and what was prepared takes its place. While hushed. */
void outlet_exchange(struct outlet *outlet, void (*exchanged)(void *arg), void *arg);
/* The same sink's settings, of a configuration that lives longer; what follows from them at once. */
void outlet_take(struct outlet *outlet, const struct sink_settings *settings, const struct keys *keys, uint32_t stop_ms);
/* The row is another source's from here on: nothing of the last one may be held or spooled. Its counts join those of earlier
 * lives. */
void outlet_row_renew(struct outlet *outlet, uint32_t row);

/* Delivers what it can within the grace, spools the rest, stops the sink. Then stopped(). */
void outlet_stop(struct outlet *outlet, void (*stopped)(void *arg), void *arg);
void outlet_close(struct outlet *outlet);         /* after stopped(); copes with NULL */

#endif
