/*
 * outlet_inside.h - an outlet from the inside: what it has in hand, for the six files it is made of.
 *
 * outlet.c has the whole picture and decides what is sealed, submitted, spilled; outlet_answers.c says what an answer means;
 * outlet_spool.c takes parts to the disk and back; outlet_life.c opens, stops and closes; outlet_change.c changes it under way; outlet_see.c tells what there is
 * to see. All of it is the loop's: on the pool, a job touches nothing but itself.
 */
#ifndef DAEMON_OUTLET_INSIDE_H
#define DAEMON_OUTLET_INSIDE_H

#include "daemon/outlet/burial.h"
#include "daemon/outlet/outlet.h"

/* The plugin's side, opened. A reload puts another in its place. */
struct outlet_sink {
    const struct pen_sink *type;
    const struct schema *schema;
    struct pen_host host;
    void *self;
    struct pen_limits limits;
};

struct outlet {
    struct outlet_conf conf;
    const struct sink_settings *settings;
    char *name;                                    /* its own: a job on the pool may still use it when the settings change */
    struct outlet_sink *sink;
    const struct schema *schema;                   /* the sink's */
    struct pen_limits limits;                      /* the sink's */
    enum outlet_state state;
    struct batch *open[PEN_KINDS];
    size_t room[PEN_KINDS];                        /* for the bytes of the next batch: as much as the last one had, and a little more */
    struct parts inbox, ready, flying;
    uint32_t ready_count, flying_count;
    uint32_t late_count;                           /* parts that are answered, but still being written */
    uint64_t order;
    uint64_t hold_until_ms;                        /* the sink is backing off */
    uint32_t backoff_ms;
    struct {
        bool said;                                 /* and not yet that it is back */
        uint32_t retries;                          /* since the last line */
        uint32_t interval_ms;
        uint64_t say_at_ms;                        /* not before, however often it comes and goes */
        uint64_t last_ms;
    } away;
    bool refused[PEN_KINDS];                       /* alarmed already: one kind's stream may lack where others do not */
    uint32_t dead_in_a_row;                        /* rejected to the last message, and nothing delivered since */
    bool doubting;                                 /* alarmed already */
    struct burial burial;
    struct spool *spool;
    /* The disk in trouble. Each for itself: on a full disk nothing can be appended, and reading is what makes room. */
    uint64_t append_hold_until_ms, read_hold_until_ms;
    bool append_trouble, read_trouble;             /* said already */
    struct ledger_row *ledger;
    struct outlet_counts counts;
    struct answers answers;
    char trouble[256];                             /* the last answer that was not "delivered", for people; "" since one was */
    uv_timer_t timer;
    /* one job of each at a time */
    struct outlet_append {
        uv_work_t work;
        struct spool_append *append;
        struct part *parts[SPOOL_APPEND_MAX];
        uint32_t count;
        uint64_t since_ms;
    } append;
    struct outlet_read {
        uv_work_t work;
        struct spool_read *read;
        uint64_t since_ms;
    } read;
    /* changing: outlet_change.c */
    struct outlet_sink *next;                      /* opened beside, and not yet in its place; NULL: none */
    bool hushed;                                   /* nothing is submitted */
    bool draining;                                 /* all in memory is to be delivered, or on disk from deliver_until_ms on */
    /* stopping */
    bool stopping, sink_stopping, stopped;
    uint64_t deliver_until_ms, give_up_ms;
    void (*on_stopped)(void *arg);                 /* of the outlet; while it changes, of one of its two sinks */
    void *stopped_arg;
};

static inline uint64_t outlet_now_ms(const struct outlet *outlet)
{
    return uv_now(outlet->conf.loop);
}

/* Puts the part where its turn is, for the sink to be lent it. */
void outlet_ready_add(struct outlet *outlet, struct part *part);
/* Messages [from, from + count) of the part come to their end. The frame is gone after its last message. */
void outlet_part_end(struct part *part, uint32_t from, uint32_t count, enum ledger_place end);
/* The part lies in the spool, synced. */
void outlet_part_on_disk(struct part *part);
/* Says it, and is in that state. */
void outlet_enter(struct outlet *outlet, enum outlet_state state, const char *why);
bool outlet_has_jobs(const struct outlet *outlet);             /* that run on the pool */
/* OPEN to SPOOLING. */
void outlet_spill(struct outlet *outlet);

/* outlet_answers.c */
void outlet_open_burial(struct outlet *outlet);
/* The append that read the part is done: now its answer, part->late, counts. The part may be gone. */
void outlet_part_answer_late(struct part *part);

/* outlet_spool.c */
/* What the settings say of it. */
struct spool_conf outlet_spool_conf(const struct outlet *outlet);
int outlet_open_spool(struct outlet *outlet, struct pen_error *err);
void outlet_start_append(struct outlet *outlet);  /* each if it may start now, and if there is anything for it */
void outlet_start_read(struct outlet *outlet);

/* outlet_life.c */
int outlet_sink_open(struct outlet_sink **ret, const struct outlet *outlet, const struct sink_settings *settings,
                     struct pen_error *err);
void outlet_sink_close(struct outlet_sink *sink); /* after it has stopped; copes with NULL */
void outlet_sink_take(struct outlet *outlet, struct outlet_sink *sink);    /* as the one it has */
/* A far end that takes messages gets half of stop_wait to take the last ones; one that does not is not waited for. */
void outlet_set_grace(struct outlet *outlet);
/* The pump's last word while the outlet stops. Stops the sink once nothing more can be done. */
void outlet_stop_on(struct outlet *outlet);

#endif
