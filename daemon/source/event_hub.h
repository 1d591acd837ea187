/*
 * event_hub.h - the event-hub source from the inside, for the files it is made of.
 *
 * event_hub.c is the contract: settings, start, turns, stop. event_hub_messages.c has the partitions and what is on its way
 * from librdkafka to the pipeline; event_hub_group.c where partitions begin, how they are handed over, what is committed;
 * event_hub_client.c the client of librdkafka: its settings, its troubles, a new login, its end.
 *
 * All of it runs on the loop, but for what is marked as on the pool; librdkafka's callbacks run inside its polls.
 */
#ifndef DAEMON_SOURCE_EVENT_HUB_H
#define DAEMON_SOURCE_EVENT_HUB_H

#include "daemon/remote/kafka_client.h"
#include "daemon/remote/kafka_login.h"
#include "daemon/source/source.h"

#include <sys/queue.h>

#define LOG_EVERY_MS    30000
#define REQUEST_MS      2500         /* one question on the pool: a stop waits for it */

struct waiting;                      /* a message in turn */
struct locate;                       /* partitions that are being located */
struct known;                        /* a place that we know of ourselves */

struct partition {
    TAILQ_ENTRY(partition) entry;
    struct hub *hub;
    char *topic, *key;
    int32_t id;
    struct stream *stream;
    uint64_t stored;                 /* last told to librdkafka, which commits it; UINT64_MAX: nothing yet */
    STAILQ_HEAD(, waiting) waiting;
    bool out;                        /* messages are with the pipeline, or one is being inflated */
    bool leaving;                    /* revoked, and draining */
    bool gone;                       /* given up: freed when what is out has come back */
};

enum hub_state { HUB_OPENED, HUB_RUNNING, HUB_RENEWING, HUB_STOPPED };

struct hub {
    /* settings */
    struct kafka_client client;
    char *topic, *group, *start;
    enum { START_EARLIEST, START_LATEST, START_TIME } start_at;
    int64_t start_ms;                /* START_TIME: since 1970 */

    struct source_host *host;
    enum hub_state state;
    int fd;                          /* an eventfd: librdkafka, or we ourselves, have something to do */
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned handles;
    unsigned jobs;                   /* on the pool */
    void (*stopped)(void *arg);
    void *stopped_arg;
    void (*settled)(void *arg);
    void *settled_arg;

    /* messages */
    TAILQ_HEAD(, partition) partitions;
    size_t waiting_bytes;
    uint64_t polled_ms;
    bool unzipping;
    bool paused;
    bool more;                       /* librdkafka may have messages that it does not wake us for */
    bool held_back;                  /* and its queue may have filled meanwhile */
    uint64_t missing;                /* offsets that were deleted before we read them */
    uint64_t holes;                  /* offsets without a message, which are no loss */
    uint64_t gap_log_after_ms;

    /* group */
    struct locate *locate;           /* partitions given to us, not begun */
    rd_kafka_topic_partition_list_t *revoked;      /* partitions to be given up once drained */
    uint64_t drain_until_ms;
    bool leaving;                    /* atomic: whoever is on the pool should come to an end */
    bool commit_failed;
    struct survey {
        uv_work_t work;
        rd_kafka_topic_partition_list_t *ends;     /* NULL: none runs */
        rd_kafka_resp_err_t error;
        uint64_t next_ms;
    } survey;
    struct known *known;             /* rows of state.db, and what was given up since */
    size_t known_count;

    /* client */
    struct kafka_login *login;
    rd_kafka_t *consumer;
    uint64_t renew_ms;               /* when it is made anew; 0: it need not be */
    struct {                         /* no broker has served us yet */
        uint64_t say_ms;             /* 0: nothing to say */
        rd_kafka_resp_err_t error;
        char why[256];
    } unreached;
    uint64_t log_after_ms, log_held;
    bool trouble, advised;           /* said already; and what to do about it */
    bool heard;                      /* the brokers have served us, once at least */
    uv_work_t reaper;
    bool reaping;                    /* the client belongs to the pool, and its callbacks keep away from us */
};

static inline uint64_t hub_now_ms(const struct hub *hub)
{
    return source_now_ms(hub->host);
}

/* ---- event_hub.c: turns ---- */

void hub_wake(struct hub *hub);                      /* hub_poll() on a later turn */
void hub_note_stopped(struct hub *hub);              /* to be asked when a job has come back */
void hub_close_handles(struct hub *hub);             /* the last of them says settled() */

/* ---- event_hub_messages.c ---- */

struct partition *partition_find(struct hub *hub, const char *topic, int32_t id);    /* one that is ours to read, or NULL */
void partition_new(struct hub *hub, const char *topic, int32_t id, uint64_t offset);
void partition_drop_waiting(struct partition *partition);
void partition_free(struct partition *partition);
char *partition_key(const char *topic, int32_t id);  /* in state.db and in names; the caller's to free */
/* A chunk came back, or the partition is on its way out. Frees it where it is gone. */
void partition_done(struct partition *partition);
void hub_next(struct hub *hub);                      /* messages that have waited for the flow */
void hub_poll(struct hub *hub);                      /* takes what librdkafka has, as far as there is room */
void hub_pause(struct hub *hub, bool pause);
void hub_note_deleted(struct hub *hub, const char *key, uint64_t from, uint64_t to);

/* ---- event_hub_group.c ---- */

void on_rebalance(rd_kafka_t *consumer, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *parts, void *arg);
void on_commit(rd_kafka_t *consumer, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *parts, void *arg);
void hub_store(struct hub *hub);                     /* what is safe by now, to be committed */
void hub_survey(struct hub *hub);                    /* asks where the partitions end */
void hub_group_tick(struct hub *hub);
void hub_group_stop(struct hub *hub);                /* what is on the pool comes to its end by itself */
void hub_group_drop(struct hub *hub);                /* the client goes, and with it all that was assigned to it */
void hub_group_close(struct hub *hub);
void known_note(struct hub *hub, const char *key, uint64_t position);

/* ---- event_hub_client.c ---- */

/* One line until hub_well(), and a second one where what was thought to pass turns out to be ours to mend. */
void hub_trouble(struct hub *hub, rd_kafka_resp_err_t error, const char *why);
void hub_say_unreached(struct hub *hub);             /* when it is time */
void hub_well(struct hub *hub);                      /* the brokers have answered */
int hub_configure(rd_kafka_conf_t *conf, const struct hub *hub, struct pen_error *err);
int hub_connect(struct hub *hub, struct pen_error *err);
void hub_end_unused(struct hub *hub);              /* of open(), where start() never came */
void hub_subscribe(struct hub *hub);
void hub_renew_when_due(struct hub *hub);
void hub_settle(void *self, void (*settled)(void *arg), void *arg);

#endif
