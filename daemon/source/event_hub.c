/*
 * event_hub.c - reads an Azure event hub through its Kafka endpoint, or a topic of any Kafka, through librdkafka.
 *
 * A partition is a stream, a message's offset its position; each message is one chunk, framed by itself: `{"records":[…]}`,
 * a single record, an array, or any of these in gzip.
 *
 * Whose cursor? The consumer group's committed offsets, because partitions move between the daemons of a group. An offset
 * is committed when everything before it is safe: every sink has answered, or the spool has it synced. We store such offsets
 * with librdkafka, which commits them: every second, when a partition is given up, and at the end. The stream's row in
 * state.db is only asked where the group has forgotten its offset (brokers do after a week without a daemon, and when the topic
 * is deleted), and tells a topic that we have read before from one that is new to us.
 *
 *   assigned ──▶ locating (pool: committed offsets, bounds) ──▶ reading ──revoked──▶ draining ──▶ handed over
 *
 *   locating  decides where each partition begins, in partition_begin(); nothing is read from anywhere by default. A place
 *             that the group did not have is committed before the first message is asked for: whoever comes after us, if we
 *             die now, begins there and not at a later "latest"
 *   draining  nothing more is offered; what is out gets DRAIN_MS to become safe, its offsets are committed, and the partition
 *             is given up. What was not safe by then is read again by the next owner, with the same event ids. Partitions
 *             that stay (assignment is cooperative) go on meanwhile.
 *
 * Flow. One message of a partition is out at a time; a few wait behind it, counted in the budget. Beyond WAITING_MAX, or while
 * the flow is closed, librdkafka is not asked for more; when that lasts, partitions are paused and it is asked all the same,
 * since a consumer that does not poll is put out of its group. Pausing throws away what was fetched ahead, at most
 * QUEUED_KBYTES and one answer of each broker; resuming goes on behind the last message that we took.
 *
 * librdkafka 2.0 has a habit to know about: a fetcher that found its queue full sleeps for up to a second, whatever happens to
 * the queue meanwhile. Any request to the partition's leader wakes it. So when the queue has run dry after we let it fill, we
 * ask for the partitions' ends at once (hub_survey), which we do from time to time in any case, for the lag.
 *
 * What cannot be seen: a topic that was deleted and made anew while no daemon ran, and has grown past our offset since. And a
 * partition that has no leader at all holds back those that were given to us together with it.
 */
#include "daemon/kafka_client.h"
#include "daemon/kafka_login.h"
#include "daemon/log.h"
#include "daemon/source.h"
#include "daemon/unpack.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#define TICK_MS         200
#define DRAIN_MS        10000
#define RELOCATE_MS     2000
#define PAUSE_MS        2500         /* far below max.poll.interval.ms */
#define RENEW_MS        30000        /* a client whose login was refused is made anew, with its secret read again */
#define REQUEST_MS      2500         /* one question on the pool: a stop waits for it */
#define SURVEY_MS       10000
#define SETTLE_MS       3000         /* for the last commit and for leaving the group */
#define LOG_EVERY_MS    30000
#define POLLS_PER_TURN  256
#define WAITING_MAX     ((size_t)1 << 20)
/* librdkafka's own queue of fetched messages. A message in it costs 400 bytes more than it counts. */
#define QUEUED_KBYTES   2048
#define QUEUED_MESSAGES 5000
#define FETCH_BYTES     (1u << 20)   /* one answer of a broker; more where a single message is larger */
#define CLIENT_MEMORY   ((size_t)8 << 20)
#define INFLATED_MAX    ((size_t)16 << 20)

struct waiting {
    STAILQ_ENTRY(waiting) entry;
    struct chunk *chunk;
    bool packed;
};

struct partition {
    TAILQ_ENTRY(partition) entry;
    struct hub *hub;
    char *topic, *key;
    int32_t id;
    struct stream *stream;
    uint64_t stored;                 /* last told to librdkafka, which commits it; UINT64_MAX: nothing yet */
    STAILQ_HEAD(, waiting) waiting;
    bool out;                        /* a message is with the pipeline, or being inflated */
    bool leaving;                    /* revoked, and draining */
    bool gone;                       /* given up: freed when the message that is out has come back */
};

/* Where partitions begin, asked on the pool. */
struct locate {
    uv_work_t work;
    struct hub *hub;
    rd_kafka_t *consumer;
    enum { LOCATE_ASK, LOCATE_COMMIT } step;
    rd_kafka_topic_partition_list_t *parts;        /* with the group's offsets, then with those we begin at */
    rd_kafka_topic_partition_list_t *low, *high;
    rd_kafka_topic_partition_list_t *times;        /* with the offsets of start_ms; NULL: not asked */
    rd_kafka_topic_partition_list_t *fresh;        /* those of `parts` that the group does not have */
    rd_kafka_resp_err_t error;
    uint64_t again_ms;               /* 0: the pool is at it */
};

struct bounds { int64_t low, high; };

struct unzip {
    uv_work_t work;
    struct partition *partition;
    struct chunk *packed;
    char *plain;
    size_t size;
    const char *why;                 /* NULL: it went well */
};

enum hub_state { HUB_OPENED, HUB_RUNNING, HUB_RENEWING, HUB_STOPPED };

struct hub {
    /* settings */
    struct kafka_client client;
    char *topic, *group, *start;

    struct source_host *host;
    struct kafka_login *login;
    enum hub_state state;
    enum { START_EARLIEST, START_LATEST, START_TIME } start_at;
    int64_t start_ms;
    rd_kafka_t *consumer;
    int fd;
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned handles;
    TAILQ_HEAD(, partition) partitions;
    size_t waiting_bytes;
    struct locate *locate;           /* partitions given to us, not begun */
    rd_kafka_topic_partition_list_t *revoked;      /* partitions to be given up once drained */
    uint64_t drain_until_ms;
    uint64_t polled_ms, renew_ms;
    unsigned jobs;                   /* on the pool */
    bool leaving;                    /* atomic: whoever is on the pool should come to an end */
    bool unzipping;
    bool paused, commit_failed;
    bool more;                       /* librdkafka may have messages that it does not wake us for */
    bool held_back;                  /* and its queue may have filled meanwhile */
    struct survey {
        uv_work_t work;
        rd_kafka_topic_partition_list_t *ends;     /* NULL: none runs */
        rd_kafka_resp_err_t error;
        uint64_t next_ms;
    } survey;
    uint64_t missing;                /* offsets that were deleted before we read them */
    uint64_t log_after_ms, log_held, gap_log_after_ms;
    bool trouble, advised;           /* said already; and what to do about it */
    bool heard;                      /* the brokers have served us, once at least */
    struct known {                   /* rows of state.db, and what was given up since */
        char *key;
        uint64_t position;
    } *known;
    size_t known_count;
    uv_work_t reaper;
    bool reaping;                    /* the client belongs to the pool, and its callbacks keep away from us */
    void (*stopped)(void *arg);
    void *stopped_arg;
    void (*settled)(void *arg);
    void *settled_arg;
};

static const struct pen_option hub_options[] = {
    KAFKA_CLIENT_BROKERS(struct hub, client, "bootstrap"),
    { "topic", PEN_TEXT, offsetof(struct hub, topic), .required = true, .help = "Event hub, or topic, to read." },
    { "group", PEN_TEXT, offsetof(struct hub, group), .fallback = "penstock",
      .help = "Consumer group: daemons of one group share the partitions. Event Hubs makes it by itself." },
    { "start", PEN_TEXT, offsetof(struct hub, start), .fallback = "earliest",
      .help = "Where a group that is new begins: earliest, latest, or a time such as 2026-11-22T09:00:00Z." },
    KAFKA_CLIENT_LOGIN(struct hub, client),
    KAFKA_CLIENT_PAIRS(struct hub, client),
    { 0 }
};

static void hub_poll(struct hub *hub);
static void partition_done(struct partition *partition);
static void hub_note_stopped(struct hub *hub);

static uint64_t now_ms(const struct hub *hub)
{
    return source_now_ms(hub->host);
}

static void hub_wake(struct hub *hub)
{
    uint64_t one = 1;

    if (write(hub->fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN);                   /* full: readable already */
}

/* ---- Trouble, said once -------------------------------------------------------------------------------------------- */

/* What a person can mend. What is not here passes by itself. */
static const struct {
    rd_kafka_resp_err_t error;
    const char *advice;
} hub_advice[] = {
    { RD_KAFKA_RESP_ERR__AUTHENTICATION, "the login is refused: renew the secret's file; the key needs the right to listen" },
    { RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
      "the login is refused: renew the secret's file; the key needs the right to listen" },
    { RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM, "the brokers do not know this `mechanism`" },
    { RD_KAFKA_RESP_ERR__SSL, "TLS fails: set `ca_file` to the authority that signed the brokers' certificates" },
    { RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "no right to read `topic`: grant Listen (Event Hubs) or Read" },
    { RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, "no right to use `group`: grant Read on it" },
    { RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "the cluster does not let this user in" },
    { RD_KAFKA_RESP_ERR_INVALID_GROUP_ID, "`group` is no name for a consumer group there" },
    { RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL, "other members of `group` use another way to share partitions" },
    { RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "there is no such topic: make it, or mend `topic`" },
    { RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, "there is no such topic: make it, or mend `topic`" },
    { RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, "`topic` is no name for a topic" },
};

static const char *advice_for(const struct hub *hub, rd_kafka_resp_err_t error, const char *why)
{
    /* TLS on one side only has no error of its own; librdkafka guesses it, in words, and also where a broker goes down
     * amid a handshake. Brokers that have served us are believed to speak as we do. */
    if (hub->heard && (error == RD_KAFKA_RESP_ERR__TRANSPORT ||
                       (error == RD_KAFKA_RESP_ERR__SSL && strstr(why, "certificate") == NULL)))
        return NULL;
    if (error == RD_KAFKA_RESP_ERR__TRANSPORT && strstr(why, "security.protocol") != NULL)
        return "the brokers do not speak like this: set `security` to what their port expects, such as sasl_ssl or ssl";
    if (error == RD_KAFKA_RESP_ERR__SSL && strstr(why, "certificate") == NULL)
        return "the brokers do not speak TLS with us: set `security` to what their port expects, or mend `bootstrap`";
    for (size_t i = 0; i < sizeof(hub_advice) / sizeof(*hub_advice); i++)
        if (hub_advice[i].error == error)
            return hub_advice[i].advice;
    return NULL;
}

static bool is_login(rd_kafka_resp_err_t error)
{
    return error == RD_KAFKA_RESP_ERR__AUTHENTICATION || error == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED ||
        error == RD_KAFKA_RESP_ERR__SSL;
}

/* One line until all is well again, and a second one where what was thought to pass turns out to be ours to mend. */
static void hub_trouble(struct hub *hub, rd_kafka_resp_err_t error, const char *why)
{
    const char *advice = advice_for(hub, error, why);

    if (hub->renew_ms == 0 && (is_login(error) || error == RD_KAFKA_RESP_ERR__FATAL))
        hub->renew_ms = now_ms(hub) + RENEW_MS;
    if (hub->trouble && (advice == NULL || hub->advised))
        return;
    hub->trouble = true;
    hub->advised = advice != NULL;
    source_trouble(hub->host);
    if (is_login(error) && error != RD_KAFKA_RESP_ERR__SSL && kafka_client_has_tokens(&hub->client))
        advice = "the login is refused: check `tenant`, `client`, `secret_file` and `scope`; the app needs the role Azure "
                 "Event Hubs Data Receiver";
    if (advice != NULL)
        log_line(LOG_ERROR, advice, "source", source_name(hub->host), "topic", hub->topic, "group", hub->group, "error",
                 rd_kafka_err2name(error), "why", why, NULL);
    else
        log_line(LOG_WARN, "the brokers are busy or away, trying on", "source", source_name(hub->host), "error",
                 rd_kafka_err2name(error), "why", why, NULL);
}

static void hub_well(struct hub *hub)
{
    if (hub->trouble)
        log_line(LOG_NOTE, "the brokers serve us again", "source", source_name(hub->host), NULL);
    hub->trouble = hub->advised = false;
    hub->heard = true;
    hub->renew_ms = 0;
}

/* ---- Partitions ---------------------------------------------------------------------------------------------------- */

static struct partition *partition_find(struct hub *hub, const char *topic, int32_t id)
{
    struct partition *partition;

    TAILQ_FOREACH(partition, &hub->partitions, entry)
        if (partition->id == id && !partition->leaving && strcmp(partition->topic, topic) == 0)
            return partition;
    return NULL;
}

static char *partition_key(const char *topic, int32_t id)
{
    char *key;

    if (asprintf(&key, "%s/%" PRId32, topic, id) < 0)
        abort();
    return key;
}

static void partition_open_stream(struct partition *partition, uint64_t offset)
{
    struct cursor cursor = { .key = partition->key, .attrs = "", .position = offset };

    partition->stream = stream_open(partition->hub->host, partition->key, &cursor, partition);
    partition->stored = UINT64_MAX;
}

static void partition_new(struct hub *hub, const char *topic, int32_t id, uint64_t offset)
{
    struct partition *partition = calloc(1, sizeof(*partition));

    if (partition == NULL || (partition->topic = strdup(topic)) == NULL)
        abort();
    partition->hub = hub;
    partition->id = id;
    partition->key = partition_key(topic, id);
    STAILQ_INIT(&partition->waiting);
    TAILQ_INSERT_TAIL(&hub->partitions, partition, entry);
    partition_open_stream(partition, offset);
}

static void partition_drop_waiting(struct partition *partition)
{
    struct waiting *waiting;

    while ((waiting = STAILQ_FIRST(&partition->waiting)) != NULL) {
        STAILQ_REMOVE_HEAD(&partition->waiting, entry);
        partition->hub->waiting_bytes -= waiting->chunk->capacity;
        chunk_drop(partition->hub->host, waiting->chunk);
        free(waiting);
    }
}

static void partition_free(struct partition *partition)
{
    partition_drop_waiting(partition);
    TAILQ_REMOVE(&partition->hub->partitions, partition, entry);
    free(partition->topic);
    free(partition->key);
    free(partition);
}

/* Now, and also where it is a step back, which librdkafka would not take by itself. */
static void partition_commit(const struct partition *partition)
{
    rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(1);

    rd_kafka_topic_partition_list_add(parts, partition->topic, partition->id)->offset =
        (int64_t)stream_safe_position(partition->stream);
    rd_kafka_commit(partition->hub->consumer, parts, 1);
    rd_kafka_topic_partition_list_destroy(parts);
}

static const char messages_deleted[] = "messages were deleted before we read them: a longer retention keeps them, or more "
                                       "daemons in the group are faster";

/* The broker gave us an offset that is not the next one. Holes that compaction or transactions leave are no news. */
static void partition_note_jump(struct partition *partition, uint64_t offset)
{
    struct hub *hub = partition->hub;
    uint64_t expected = stream_position(partition->stream);
    int64_t low = -1, high;

    if (offset < expected) {
        log_line(LOG_ERROR, "the partition begins anew: its topic was deleted and made again, or cut short; reading from its "
                 "beginning", "source", source_name(hub->host), "partition", partition->key, "expected",
                 log_number(expected), "offset", log_number(offset), NULL);
        stream_close(partition->stream, false);
        partition_open_stream(partition, offset);
        partition_commit(partition);
        return;
    }
    rd_kafka_get_watermark_offsets(hub->consumer, partition->topic, partition->id, &low, &high);
    if (low >= 0 && (uint64_t)low <= expected)
        return;
    hub->missing += (low >= 0 && (uint64_t)low < offset ? (uint64_t)low : offset) - expected;
    if (now_ms(hub) < hub->gap_log_after_ms)
        return;
    hub->gap_log_after_ms = now_ms(hub) + LOG_EVERY_MS;
    log_line(LOG_ERROR, messages_deleted, "source", source_name(hub->host), "partition", partition->key, "from",
             log_number(expected), "to", log_number(offset), NULL);
}

static void partition_offer(struct partition *partition, struct chunk *chunk)
{
    if (chunk->offset != stream_position(partition->stream))
        partition_note_jump(partition, chunk->offset);
    partition->out = true;
    stream_offer(partition->stream, chunk);
}

/* ---- gzip ---------------------------------------------------------------------------------------------------------- */

static void on_unzip_work(uv_work_t *work);
static void on_unzipped(uv_work_t *work, int status);

static void partition_next(struct partition *partition)
{
    struct hub *hub = partition->hub;
    struct waiting *waiting = STAILQ_FIRST(&partition->waiting);
    struct unzip *unzip;

    if (partition->out || partition->leaving || hub->state != HUB_RUNNING || waiting == NULL)
        return;
    if (waiting->packed && (hub->unzipping || !flow_is_open(hub->host)))
        return;                                    /* one at a time, since nobody knows what comes out */
    STAILQ_REMOVE_HEAD(&partition->waiting, entry);
    hub->waiting_bytes -= waiting->chunk->capacity;
    if (!waiting->packed) {
        partition_offer(partition, waiting->chunk);
    } else {
        unzip = calloc(1, sizeof(*unzip));
        if (unzip == NULL)
            abort();
        unzip->partition = partition;
        unzip->packed = waiting->chunk;
        unzip->work.data = unzip;
        partition->out = hub->unzipping = true;
        hub->jobs++;
        uv_queue_work(source_loop(hub->host), &unzip->work, on_unzip_work, on_unzipped);
    }
    free(waiting);
}

/* What comes out is bounded, whatever goes in. */
static void on_unzip_work(uv_work_t *work)
{
    struct unzip *unzip = work->data;
    size_t capacity = unzip->packed->size * 4 + 4096;
    struct pen_error err = { 0 };
    struct unpack *unpack;
    ssize_t got;

    unzip->plain = malloc(capacity);
    if (unzip->plain == NULL || unpack_new_fed(&unpack, unzip->packed->data, unzip->packed->size, &err) < 0)
        abort();
    do {
        if (unzip->size == capacity) {
            capacity *= 2;
            unzip->plain = realloc(unzip->plain, capacity);
            if (unzip->plain == NULL)
                abort();
        }
        got = unpack_read(unpack, unzip->plain + unzip->size, capacity - unzip->size, &err);
        unzip->size += got > 0 ? (size_t)got : 0;
    } while (got > 0 && unzip->size < INFLATED_MAX);
    if (got < 0 || !unpack_complete(unpack))
        unzip->why = got > 0 ? "it holds more than 16 MiB" : "it is damaged or cut off";
    unpack_free(unpack);
}

/* Those that may have waited for the only unzip, or for the flow. */
static void hub_next(struct hub *hub)
{
    struct partition *partition;

    TAILQ_FOREACH(partition, &hub->partitions, entry)
        partition_next(partition);
}

static void on_unzipped(uv_work_t *work, int status)
{
    struct unzip *unzip = work->data;
    struct partition *partition = unzip->partition;
    struct hub *hub = partition->hub;
    struct chunk *chunk = unzip->packed, *plain;

    (void)status;
    hub->jobs--;
    partition->out = hub->unzipping = false;
    if (unzip->why != NULL) {
        log_line(LOG_WARN, "a gzip message cannot be unpacked; it travels as it is", "source", source_name(hub->host),
                 "partition", partition->key, "offset", log_number(chunk->offset), "why", unzip->why, NULL);
    } else {
        plain = chunk_take(hub->host, unzip->size);
        memcpy(plain->data, unzip->plain, unzip->size);
        plain->size = unzip->size;
        plain->offset = chunk->offset;
        plain->whole = true;
        chunk_drop(hub->host, chunk);
        chunk = plain;
    }
    if (partition->leaving || hub->state != HUB_RUNNING) {
        chunk_drop(hub->host, chunk);
        partition_done(partition);
    } else {
        partition_offer(partition, chunk);
    }
    free(unzip->plain);
    free(unzip);
    hub_next(hub);
    hub_note_stopped(hub);
}

/* ---- Messages ------------------------------------------------------------------------------------------------------ */

static bool hub_wants(const struct hub *hub)
{
    return hub->state == HUB_RUNNING && flow_is_open(hub->host) && hub->waiting_bytes < WAITING_MAX;
}

static void hub_take(struct hub *hub, const rd_kafka_message_t *message)
{
    struct partition *partition = partition_find(hub, rd_kafka_topic_name(message->rkt), message->partition);
    const unsigned char *payload = message->payload;
    struct waiting *waiting;

    if (partition == NULL)                         /* given up meanwhile: its next owner reads it */
        return;
    hub_well(hub);
    waiting = malloc(sizeof(*waiting));
    if (waiting == NULL)
        abort();
    waiting->chunk = chunk_take(hub->host, message->len);
    if (message->len > 0)                          /* a tombstone has no payload, and a place like any other */
        memcpy(waiting->chunk->data, payload, message->len);
    waiting->chunk->size = message->len;
    waiting->chunk->offset = (uint64_t)message->offset;
    waiting->chunk->whole = true;
    waiting->packed = message->len > 2 && payload[0] == 0x1f && payload[1] == 0x8b;
    hub->waiting_bytes += waiting->chunk->capacity;
    STAILQ_INSERT_TAIL(&partition->waiting, waiting, entry);
    partition_next(partition);
}

static void hub_take_event(struct hub *hub, rd_kafka_message_t *message)
{
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        hub->paused = false;                       /* or it would not be here: pause again */
        hub_take(hub, message);
    } else if (message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        hub_trouble(hub, message->err, rd_kafka_message_errstr(message));
    }
    rd_kafka_message_destroy(message);
}

static void hub_pause(struct hub *hub, bool pause)
{
    rd_kafka_topic_partition_list_t *parts;

    if (rd_kafka_assignment(hub->consumer, &parts) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    if (pause)
        rd_kafka_pause_partitions(hub->consumer, parts);
    else
        rd_kafka_resume_partitions(hub->consumer, parts);
    rd_kafka_topic_partition_list_destroy(parts);
    hub->paused = pause;
}

static void hub_survey(struct hub *hub);

/* Callbacks (rebalance, commits, errors, log lines) run inside rd_kafka_consumer_poll(). */
static void hub_poll(struct hub *hub)
{
    rd_kafka_message_t *message;

    if (hub->state != HUB_RUNNING || hub->consumer == NULL)
        return;
    if (hub->paused && hub_wants(hub))
        hub_pause(hub, false);
    if (!hub->paused && !hub_wants(hub) && now_ms(hub) - hub->polled_ms > PAUSE_MS)
        hub_pause(hub, true);
    for (int i = 0; i < POLLS_PER_TURN && (hub->paused || hub_wants(hub)); i++) {
        hub->polled_ms = now_ms(hub);
        message = rd_kafka_consumer_poll(hub->consumer, 0);
        if (message == NULL) {
            hub->more = false;
            if (hub->held_back)
                hub_survey(hub);
            hub->held_back = false;
            return;
        }
        hub_take_event(hub, message);
    }
    hub->more = true;
    if (hub_wants(hub))
        hub_wake(hub);                             /* the others get their turn, then we go on */
    else
        hub->held_back = true;
}

/* ---- Commits ------------------------------------------------------------------------------------------------------- */

/* What is safe by now is stored with librdkafka, which commits it every second and when a partition is given up, but never
 * amid a rebalance: a commit that meets the group between two generations costs the whole assignment. */
static void hub_store(struct hub *hub)
{
    rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(8);
    struct partition *partition;

    TAILQ_FOREACH(partition, &hub->partitions, entry) {
        uint64_t safe = stream_safe_position(partition->stream);

        if (partition->gone || safe == partition->stored)
            continue;
        rd_kafka_topic_partition_list_add(parts, partition->topic, partition->id)->offset = (int64_t)safe;
        partition->stored = safe;
    }
    if (parts->cnt > 0)
        rd_kafka_offsets_store(hub->consumer, parts);
    rd_kafka_topic_partition_list_destroy(parts);
}

/* The group has gone on without us, as librdkafka tells by the partitions that it takes: nothing to try again for. */
static bool is_too_late(rd_kafka_resp_err_t error)
{
    return error == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID || error == RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION ||
        error == RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS || error == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID ||
        error == RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST;
}

/* librdkafka tries again by itself. */
static void on_commit(rd_kafka_t *consumer, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *parts, void *arg)
{
    struct hub *hub = arg;

    (void)consumer, (void)parts;
    if (hub->reaping || error == RD_KAFKA_RESP_ERR__NO_OFFSET)
        return;
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        hub_well(hub);
    else if (!hub->commit_failed && !hub->trouble && !is_too_late(error))
        log_line(LOG_WARN, "offsets could not be committed, trying on: after a crash now, more would repeat", "source",
                 source_name(hub->host), "error", rd_kafka_err2name(error), NULL);
    hub->commit_failed = error != RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ---- Given to us: where to begin ------------------------------------------------------------------------------------ */

static void locate_free(struct locate *locate)
{
    rd_kafka_topic_partition_list_t *lists[] = { locate->parts, locate->low, locate->high, locate->times, locate->fresh };

    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        if (lists[i] != NULL)
            rd_kafka_topic_partition_list_destroy(lists[i]);
    free(locate);
}

/* A list's offsets at a time, in milliseconds or one of -2 (the beginning) and -1 (the end). Blocks. */
static rd_kafka_resp_err_t offsets_ask(rd_kafka_t *consumer, rd_kafka_topic_partition_list_t *parts, int64_t time)
{
    rd_kafka_resp_err_t error;

    for (int i = 0; i < parts->cnt; i++)
        parts->elems[i].offset = time;
    error = rd_kafka_offsets_for_times(consumer, parts, REQUEST_MS);
    for (int i = 0; i < parts->cnt && error == 0; i++)
        error = parts->elems[i].err;
    return error;
}

/* rd_kafka_commit() with an end. */
static rd_kafka_resp_err_t offsets_commit(rd_kafka_t *consumer, const rd_kafka_topic_partition_list_t *parts)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(consumer);
    rd_kafka_resp_err_t error = rd_kafka_commit_queue(consumer, parts, queue, NULL, NULL);
    rd_kafka_event_t *event = error == 0 ? rd_kafka_queue_poll(queue, REQUEST_MS) : NULL;

    if (error == 0)
        error = event != NULL ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
    if (event != NULL)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    return error;
}

static bool hub_is_leaving(const struct hub *hub)
{
    return __atomic_load_n(&hub->leaving, __ATOMIC_RELAXED);
}

static void locate_ask(struct locate *locate)
{
    struct hub *hub = locate->hub;

    locate->error = rd_kafka_committed(locate->consumer, locate->parts, REQUEST_MS);
    for (int i = 0; i < locate->parts->cnt && locate->error == 0; i++)
        locate->error = locate->parts->elems[i].err;
    if (locate->error == 0 && !hub_is_leaving(hub))
        locate->error = offsets_ask(locate->consumer, locate->low, -2);
    if (locate->error == 0 && !hub_is_leaving(hub))
        locate->error = offsets_ask(locate->consumer, locate->high, -1);
    if (locate->error == 0 && !hub_is_leaving(hub) && locate->times != NULL)
        locate->error = offsets_ask(locate->consumer, locate->times, hub->start_ms);
    for (int i = 0; i < locate->parts->cnt && locate->error == 0; i++)
        if (locate->low->elems[i].offset < 0 || locate->high->elems[i].offset < locate->low->elems[i].offset)
            locate->error = RD_KAFKA_RESP_ERR__PARTIAL;
}

static void on_locate_work(uv_work_t *work)
{
    struct locate *locate = work->data;

    if (locate->step == LOCATE_ASK)
        locate_ask(locate);
    else
        locate->error = offsets_commit(locate->consumer, locate->fresh);
}

static void on_located(uv_work_t *work, int status);

static void hub_locate(struct hub *hub)
{
    struct locate *locate = hub->locate;

    locate->again_ms = 0;
    hub->jobs++;
    uv_queue_work(source_loop(hub->host), &locate->work, on_locate_work, on_located);
}

static struct known *known_find(const struct hub *hub, const char *key)
{
    for (size_t i = 0; i < hub->known_count; i++)
        if (strcmp(hub->known[i].key, key) == 0)
            return &hub->known[i];
    return NULL;
}

/* How far we have read: of use only where the group has no offset, and a place too early then is better than a guess. */
static void known_note(struct hub *hub, const char *key, uint64_t position)
{
    struct known *known = known_find(hub, key);

    if (known == NULL) {
        hub->known = realloc(hub->known, (hub->known_count + 1) * sizeof(*hub->known));
        if (hub->known == NULL)
            abort();
        known = &hub->known[hub->known_count++];
        known->key = strdup(key);
        if (known->key == NULL)
            abort();
    }
    known->position = position;
}

/* For a partition that neither the group nor we have read before. */
static int64_t hub_start(const struct hub *hub, const struct bounds *bounds, int64_t at_time)
{
    switch (hub->start_at) {
    case START_EARLIEST:
        return bounds->low;
    case START_LATEST:
        return bounds->high;
    case START_TIME:
        return at_time >= bounds->low && at_time <= bounds->high ? at_time : bounds->high;   /* none: younger than all */
    }
    return bounds->low;
}

/* The one place that decides where a partition begins. */
static int64_t partition_begin(struct hub *hub, const char *key, int64_t committed, const struct bounds *bounds,
                               int64_t at_time)
{
    const struct known *known = known_find(hub, key);
    int64_t place = committed >= 0 ? committed : known != NULL ? (int64_t)known->position : hub_start(hub, bounds, at_time);

    if (place >= bounds->low && place <= bounds->high)
        return place;
    if (place > bounds->high) {
        log_line(LOG_ERROR, "the partition ends before our place: its topic was deleted and made again; reading from its "
                 "beginning", "source", source_name(hub->host), "partition", key, "place",
                 log_number((unsigned long long)place), "end", log_number((unsigned long long)bounds->high), NULL);
    } else {
        hub->missing += (uint64_t)(bounds->low - place);
        log_line(LOG_ERROR, messages_deleted, "source", source_name(hub->host), "partition", key, "from",
                 log_number((unsigned long long)place), "to", log_number((unsigned long long)bounds->low), NULL);
    }
    return bounds->low;
}

static void kafka_failed(struct hub *hub, rd_kafka_error_t *error)
{
    if (error == NULL)
        return;
    hub_trouble(hub, rd_kafka_error_code(error), rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
}

/* What was asked is here: where each partition begins, and what of that the group does not know yet. */
static void locate_decide(struct locate *locate)
{
    struct hub *hub = locate->hub;

    locate->fresh = rd_kafka_topic_partition_list_new(locate->parts->cnt);
    for (int i = 0; i < locate->parts->cnt; i++) {
        rd_kafka_topic_partition_t *part = &locate->parts->elems[i];
        struct bounds bounds = { locate->low->elems[i].offset, locate->high->elems[i].offset };
        char *key = partition_key(part->topic, part->partition);
        int64_t place = partition_begin(hub, key, part->offset, &bounds,
                                        locate->times != NULL ? locate->times->elems[i].offset : -1);

        if (place != part->offset)
            rd_kafka_topic_partition_list_add(locate->fresh, part->topic, part->partition)->offset = place;
        part->offset = place;
        free(key);
    }
}

static void locate_done(struct locate *locate)
{
    struct hub *hub = locate->hub;

    for (int i = 0; i < locate->parts->cnt; i++)
        partition_new(hub, locate->parts->elems[i].topic, locate->parts->elems[i].partition,
                      (uint64_t)locate->parts->elems[i].offset);
    kafka_failed(hub, rd_kafka_incremental_assign(hub->consumer, locate->parts));
    if (hub->paused)
        hub_pause(hub, true);
    hub->locate = NULL;
    hub->survey.next_ms = 0;
    locate_free(locate);
    hub_well(hub);
    hub_wake(hub);
}

static void on_located(uv_work_t *work, int status)
{
    struct locate *locate = work->data;
    struct hub *hub = locate->hub;

    (void)status;
    hub->jobs--;
    if (hub->state != HUB_RUNNING) {               /* hub_settle() gives librdkafka the answer that it waits for */
        hub->locate = NULL;
        locate_free(locate);
        hub_note_stopped(hub);
    } else if (locate->error != 0 && !(locate->step == LOCATE_COMMIT && is_too_late(locate->error))) {
        locate->again_ms = now_ms(hub) + RELOCATE_MS;
        hub_trouble(hub, locate->error, "where our partitions begin cannot be asked");
    } else if (locate->step == LOCATE_COMMIT) {
        locate_done(locate);
    } else {
        locate_decide(locate);
        if (locate->fresh->cnt == 0) {
            locate_done(locate);
        } else {
            locate->step = LOCATE_COMMIT;
            hub_locate(hub);
        }
    }
}

static void hub_assigned(struct hub *hub, const rd_kafka_topic_partition_list_t *parts)
{
    struct locate *locate = calloc(1, sizeof(*locate));

    assert(hub->locate == NULL);                   /* librdkafka waits for our answer before it says more */
    if (locate == NULL)
        abort();
    locate->hub = hub;
    locate->consumer = hub->consumer;
    locate->work.data = locate;
    locate->parts = rd_kafka_topic_partition_list_copy(parts);
    locate->low = rd_kafka_topic_partition_list_copy(parts);
    locate->high = rd_kafka_topic_partition_list_copy(parts);
    if (hub->start_at == START_TIME)
        locate->times = rd_kafka_topic_partition_list_copy(parts);
    hub->locate = locate;
    if (parts->cnt > 0)
        hub_locate(hub);
    else
        locate_done(locate);
}

/* ---- Where the partitions end --------------------------------------------------------------------------------------- */

static void on_survey_work(uv_work_t *work)
{
    struct hub *hub = work->data;

    hub->survey.error = offsets_ask(hub->consumer, hub->survey.ends, -1);
}

static void on_surveyed(uv_work_t *work, int status)
{
    struct hub *hub = work->data;
    rd_kafka_topic_partition_list_t *ends = hub->survey.ends;
    struct partition *partition;

    (void)status;
    hub->jobs--;
    hub->survey.ends = NULL;
    for (int i = 0; i < ends->cnt && hub->survey.error == 0 && hub->state == HUB_RUNNING; i++) {
        partition = partition_find(hub, ends->elems[i].topic, ends->elems[i].partition);
        if (partition != NULL && ends->elems[i].offset >= 0)
            stream_set_end(partition->stream, (uint64_t)ends->elems[i].offset);
    }
    if (hub->survey.error == 0 && hub->state == HUB_RUNNING)
        hub_well(hub);
    rd_kafka_topic_partition_list_destroy(ends);
    hub_note_stopped(hub);
}

static void hub_survey(struct hub *hub)
{
    struct survey *survey = &hub->survey;
    const struct partition *partition;

    if (survey->ends != NULL)
        return;
    survey->next_ms = now_ms(hub) + SURVEY_MS;
    survey->ends = rd_kafka_topic_partition_list_new(8);
    TAILQ_FOREACH(partition, &hub->partitions, entry)
        if (!partition->leaving)
            rd_kafka_topic_partition_list_add(survey->ends, partition->topic, partition->id);
    if (survey->ends->cnt == 0) {
        rd_kafka_topic_partition_list_destroy(survey->ends);
        survey->ends = NULL;
        return;
    }
    survey->work.data = hub;
    hub->jobs++;
    uv_queue_work(source_loop(hub->host), &survey->work, on_survey_work, on_surveyed);
}

/* ---- Taken from us -------------------------------------------------------------------------------------------------- */

static void hub_give_up(struct hub *hub)
{
    rd_kafka_topic_partition_list_t *parts = hub->revoked;
    struct partition *partition, *next;

    hub->revoked = NULL;
    hub_store(hub);
    kafka_failed(hub, rd_kafka_incremental_unassign(hub->consumer, parts));
    rd_kafka_topic_partition_list_destroy(parts);
    for (partition = TAILQ_FIRST(&hub->partitions); partition != NULL; partition = next) {
        next = TAILQ_NEXT(partition, entry);
        if (!partition->leaving)
            continue;
        known_note(hub, partition->key, stream_safe_position(partition->stream));
        partition->gone = true;
        partition_done(partition);
    }
}

/* Gives the revoked partitions up as soon as all that was read of them is safe, or time is over. */
static void hub_drain(struct hub *hub)
{
    const struct partition *partition;

    if (hub->revoked == NULL)
        return;
    TAILQ_FOREACH(partition, &hub->partitions, entry)
        if (partition->leaving && !partition->gone && now_ms(hub) < hub->drain_until_ms &&
            (partition->out || stream_safe_position(partition->stream) < stream_position(partition->stream)))
            return;
    hub_give_up(hub);
}

static void hub_revoked(struct hub *hub, const rd_kafka_topic_partition_list_t *parts)
{
    bool lost = rd_kafka_assignment_lost(hub->consumer);

    assert(hub->revoked == NULL);
    hub->revoked = rd_kafka_topic_partition_list_copy(parts);
    for (int i = 0; i < parts->cnt; i++) {
        struct partition *partition = partition_find(hub, parts->elems[i].topic, parts->elems[i].partition);

        if (partition == NULL)
            continue;
        partition->leaving = true;
        partition_drop_waiting(partition);
    }
    hub->drain_until_ms = lost ? 0 : now_ms(hub) + DRAIN_MS;
    hub_drain(hub);
}

static void on_rebalance(rd_kafka_t *consumer, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t *parts, void *arg)
{
    struct hub *hub = arg;

    if (hub->reaping) {                            /* on the pool, while it closes: the loop's things are not ours to touch */
        rd_kafka_error_t *failed = error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
            ? rd_kafka_incremental_assign(consumer, parts) : rd_kafka_incremental_unassign(consumer, parts);

        if (failed != NULL)
            rd_kafka_error_destroy(failed);
        return;
    }
    if (parts->cnt > 0)
        log_line(LOG_NOTE, error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS ? "partitions are given to us" :
                 "partitions are taken from us", "source", source_name(hub->host), "topic", hub->topic, "partitions",
                 log_number((unsigned)parts->cnt), NULL);
    if (error == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
        hub_assigned(hub, parts);
    else
        hub_revoked(hub, parts);
}

/* A message came back; or the partition is on its way out. */
static void partition_done(struct partition *partition)
{
    struct hub *hub = partition->hub;

    if (partition->out)
        return;
    if (partition->gone) {
        stream_close(partition->stream, false);
        partition_free(partition);
    } else if (!partition->leaving) {
        partition_next(partition);
    }
    if (hub->more && hub_wants(hub)) {
        hub->more = false;
        hub_wake(hub);
    }
}

/* ---- The client ----------------------------------------------------------------------------------------------------- */

static void on_error(rd_kafka_t *consumer, int error, const char *why, void *arg)
{
    struct hub *hub = arg;

    (void)consumer;
    if (!hub->reaping)
        hub_trouble(hub, (rd_kafka_resp_err_t)error, why);
}

static void on_token_refresh(rd_kafka_t *consumer, const char *config, void *arg)
{
    struct hub *hub = arg;

    (void)config;
    if (!hub->reaping)
        kafka_login_refresh(hub->login, consumer);
}

/* librdkafka's own lines, at most one in LOG_EVERY_MS: it says the same for every broker and attempt. */
static void on_log(const rd_kafka_t *consumer, int level, const char *facility, const char *text)
{
    struct hub *hub = rd_kafka_opaque(consumer);

    if (hub->reaping || (level <= 6 && now_ms(hub) < hub->log_after_ms)) {
        hub->log_held++;
        return;
    }
    log_line(level <= 4 ? LOG_WARN : level <= 6 ? LOG_NOTE : LOG_TRACE, text, "source", source_name(hub->host), "facility",
             facility, "held", log_number(hub->log_held), NULL);
    if (level > 6)
        return;
    hub->log_after_ms = now_ms(hub) + LOG_EVERY_MS;
    hub->log_held = 0;
}

static const char *const hub_defaults[][2] = {
    { "client.id", "penstock" },
    { "enable.auto.commit", "true" },            /* of what we store: */
    { "enable.auto.offset.store", "false" },
    { "auto.commit.interval.ms", "1000" },
    { "auto.offset.reset", "earliest" },         /* for offsets deleted while we read; where we begin, we say ourselves */
    { "partition.assignment.strategy", "cooperative-sticky" },
    { "session.timeout.ms", "30000" },           /* Event Hubs: 6 s to 300 s */
    { "fetch.message.max.bytes", "262144" },     /* of one partition, in one answer; more where a message is larger */
    { "allow.auto.create.topics", "false" },
    { "socket.keepalive.enable", "true" },
    { "check.crcs", "true" },
    { "log.queue", "true" },
    { NULL, NULL },
};

/* Azure's load balancer forgets idle connections after 240 s. */
static const char *const event_hubs_defaults[][2] = {
    { "metadata.max.age.ms", "180000" },
    { "connections.max.idle.ms", "180000" },
    { NULL, NULL },
};

static const struct kafka_kept hub_kept[] = {
    { "group.id",                      "use `group`" },
    { "enable.auto.commit",            "offsets are committed when their records are safe" },
    { "enable.auto.offset.store",      "offsets are committed when their records are safe" },
    { "auto.offset.reset",             "use `start`" },
    { "partition.assignment.strategy", "partitions are handed over one by one" },
    { "queued.max.messages.kbytes",    "the memory budget sets it" },
    { "queued.min.messages",           "the memory budget sets it" },
    { "fetch.max.bytes",               "the memory budget sets it" },
    { "enable.partition.eof",          "ends are no news" },
    { NULL, NULL },
};

/* Our defaults, then the user's properties, then what nobody may change. */
static int hub_configure(rd_kafka_conf_t *conf, const struct hub *hub, struct pen_error *err)
{
    int r;

    r = kafka_put_table(conf, hub_defaults, err);
    if (r == 0 && kafka_client_is_event_hubs(&hub->client))
        r = kafka_put_table(conf, event_hubs_defaults, err);
    if (r == 0)
        r = kafka_client_put_pairs(conf, &hub->client, hub_kept, err);
    if (r == 0)
        r = kafka_put(conf, "bootstrap.servers", hub->client.brokers, err);
    if (r == 0)
        r = kafka_put(conf, "group.id", hub->group, err);
    if (r == 0)
        r = kafka_put_number(conf, "queued.max.messages.kbytes", QUEUED_KBYTES, err);
    if (r == 0)
        r = kafka_put_number(conf, "queued.min.messages", QUEUED_MESSAGES, err);
    if (r == 0 && kafka_get_number(conf, "message.max.bytes") < FETCH_BYTES)
        r = kafka_put_number(conf, "fetch.max.bytes", FETCH_BYTES, err);
    return r;
}

static int hub_connect(struct hub *hub, struct pen_error *err)
{
    static const uint64_t one = 1;
    rd_kafka_topic_partition_list_t *topics;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_queue_t *queue;
    char text[256];
    int r;

    r = hub_configure(conf, hub, err);
    if (r == 0)
        r = kafka_client_put_login(conf, &hub->client, err);
    if (r < 0)
        goto fail;
    rd_kafka_conf_set_opaque(conf, hub);
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rd_kafka_conf_set_offset_commit_cb(conf, on_commit);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf, on_token_refresh);
    hub->consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
    if (hub->consumer == NULL) {
        r = pen_error_set(err, UV_EINVAL, "%s", text);
        goto fail;
    }
    rd_kafka_poll_set_consumer(hub->consumer);
    queue = rd_kafka_queue_get_consumer(hub->consumer);
    rd_kafka_set_log_queue(hub->consumer, queue);
    rd_kafka_queue_io_event_enable(queue, hub->fd, &one, sizeof(one));
    rd_kafka_queue_destroy(queue);
    topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, hub->topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_subscribe(hub->consumer, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    return 0;
fail:
    rd_kafka_conf_destroy(conf);
    return r;
}

/* It is about to go: nothing of it may write to an fd that will be another file's. */
static void hub_disconnect(struct hub *hub, bool refused)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(hub->consumer);

    rd_kafka_queue_io_event_enable(queue, -1, NULL, 0);
    rd_kafka_queue_destroy(queue);
    kafka_login_forget(hub->login, refused);
    hub->reaping = true;
    hub->reaper.data = hub;
    hub->jobs++;
}

/* ---- The client's end ----------------------------------------------------------------------------------------------- */

struct ending {
    rd_kafka_t *client;
    uv_mutex_t lock;
    uv_cond_t ended;
    bool done, left;                 /* whoever comes second frees it */
};

static void ending_free(struct ending *ending)
{
    uv_cond_destroy(&ending->ended);
    uv_mutex_destroy(&ending->lock);
    free(ending);
}

static void *ending_run(void *arg)
{
    struct ending *ending = arg;
    bool left;

    rd_kafka_destroy_flags(ending->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    uv_mutex_lock(&ending->lock);
    ending->done = true;
    left = ending->left;
    uv_cond_signal(&ending->ended);
    uv_mutex_unlock(&ending->lock);
    if (left)
        ending_free(ending);
    return NULL;
}

/* On the pool. librdkafka 2.0 joins its threads, and where a topic was deleted while they served it one of them may never
 * end: so this happens on a thread of its own, which is left to the end of the process when its time is over. */
static void client_end(rd_kafka_t *client, uint64_t ms)
{
    struct ending *ending = calloc(1, sizeof(*ending));
    uint64_t end = uv_hrtime() + ms * 1000000, now;
    pthread_t thread;
    bool done;

    if (ending == NULL || uv_mutex_init(&ending->lock) != 0 || uv_cond_init(&ending->ended) != 0)
        abort();
    ending->client = client;
    if (pthread_create(&thread, NULL, ending_run, ending) != 0)
        abort();
    pthread_detach(thread);
    uv_mutex_lock(&ending->lock);
    while (!ending->done && (now = uv_hrtime()) < end)
        uv_cond_timedwait(&ending->ended, &ending->lock, end - now);
    done = ending->done;
    ending->left = !done;
    uv_mutex_unlock(&ending->lock);
    if (done)
        ending_free(ending);
}

/* ---- A new login ---------------------------------------------------------------------------------------------------- */

static void on_reap(uv_work_t *work)
{
    struct hub *hub = work->data;

    client_end(hub->consumer, SETTLE_MS);
}

static void hub_connect_again(struct hub *hub)
{
    struct pen_error err = { 0 };

    hub->state = HUB_RUNNING;
    hub->renew_ms = 0;
    if (hub_connect(hub, &err) == 0)
        return;
    log_line(LOG_ERROR, "no connection can be made", "source", source_name(hub->host), "why", err.text, NULL);
    hub->renew_ms = now_ms(hub) + RENEW_MS;
}

static void on_reaped(uv_work_t *work, int status)
{
    struct hub *hub = work->data;

    (void)status;
    hub->consumer = NULL;
    hub->reaping = false;
    hub->jobs--;
    if (hub->state == HUB_RENEWING)
        hub_connect_again(hub);
    hub_note_stopped(hub);
}

/* The client with the refused login goes, and with it what was assigned to it. */
static void hub_renew(struct hub *hub)
{
    struct partition *partition, *next;

    if (hub->jobs > 0)
        return;
    if (hub->locate != NULL)
        locate_free(hub->locate);
    hub->locate = NULL;
    if (hub->consumer == NULL) {
        hub_connect_again(hub);
        return;
    }
    for (partition = TAILQ_FIRST(&hub->partitions); partition != NULL; partition = next) {
        next = TAILQ_NEXT(partition, entry);
        known_note(hub, partition->key, stream_safe_position(partition->stream));
        partition->leaving = partition->gone = true;
        partition_drop_waiting(partition);
        partition_done(partition);
    }
    if (hub->revoked != NULL)
        rd_kafka_topic_partition_list_destroy(hub->revoked);
    hub->revoked = NULL;
    hub->state = HUB_RENEWING;
    hub->paused = hub->held_back = false;
    hub_disconnect(hub, hub->advised);
    uv_queue_work(source_loop(hub->host), &hub->reaper, on_reap, on_reaped);
}

/* ---- Time ----------------------------------------------------------------------------------------------------------- */

static void on_tick(uv_timer_t *timer)
{
    struct hub *hub = timer->data;

    if (hub->state != HUB_RUNNING)
        return;
    if (hub->renew_ms > 0 && now_ms(hub) >= hub->renew_ms)
        hub_renew(hub);
    if (hub->state != HUB_RUNNING || hub->consumer == NULL)
        return;
    hub_poll(hub);
    if (hub->locate != NULL && hub->locate->again_ms > 0 && now_ms(hub) >= hub->locate->again_ms)
        hub_locate(hub);
    hub_drain(hub);
    if (now_ms(hub) >= hub->survey.next_ms)
        hub_survey(hub);
    hub_store(hub);
}

static void on_wake(uv_poll_t *poll, int status, int events)
{
    struct hub *hub = poll->data;
    uint64_t count;

    (void)status;
    (void)events;
    if (read(hub->fd, &count, sizeof(count)) < 0)
        assert(errno == EAGAIN);
    hub_poll(hub);
}

/* ---- The contract --------------------------------------------------------------------------------------------------- */

static int hub_read_start(struct hub *hub, struct pen_error *err)
{
    int64_t ticks;

    if (strcmp(hub->start, "earliest") == 0) {
        hub->start_at = START_EARLIEST;
    } else if (strcmp(hub->start, "latest") == 0) {
        hub->start_at = START_LATEST;
    } else if (pen_time_read((struct pen_span){ hub->start, strlen(hub->start) }, &ticks)) {
        hub->start_at = START_TIME;
        hub->start_ms = ticks / 10000;
    } else {
        return pen_error_set(err, UV_EINVAL, "start: expected earliest, latest or a time such as 2026-11-22T09:00:00Z");
    }
    return 0;
}

/* All but the login, whose secret this machine need not have. */
static int hub_prove(const struct pen_conf *conf, struct pen_error *err)
{
    rd_kafka_conf_t *properties = rd_kafka_conf_new();
    struct hub hub = { 0 };
    int r = pen_conf_fill(conf, hub_options, &hub, err);

    if (r == 0)
        r = hub_read_start(&hub, err);
    if (r == 0)
        r = kafka_client_check(&hub.client, err);
    if (r == 0)
        r = kafka_login_check(&hub.client, err);
    if (r == 0)
        r = hub_configure(properties, &hub, err);
    rd_kafka_conf_destroy(properties);
    return r;
}

static void hub_close(void *self)
{
    struct hub *hub = self;
    struct partition *partition;

    if (hub == NULL)
        return;
    assert(hub->jobs == 0 && hub->handles == 0);
    while ((partition = TAILQ_FIRST(&hub->partitions)) != NULL)
        partition_free(partition);
    if (hub->consumer != NULL)                     /* open() failed half-way, or nobody called start() */
        rd_kafka_destroy_flags(hub->consumer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    if (hub->revoked != NULL)
        rd_kafka_topic_partition_list_destroy(hub->revoked);
    for (size_t i = 0; i < hub->known_count; i++)
        free(hub->known[i].key);
    free(hub->known);
    kafka_login_close(hub->login);
    if (hub->fd >= 0)
        close(hub->fd);
    free(hub);
}

static int hub_open(void **self, struct source_host *host, const struct pen_conf *conf, struct pen_error *err)
{
    struct hub *hub = calloc(1, sizeof(*hub));
    int r;

    if (hub == NULL)
        abort();
    hub->host = host;
    hub->fd = -1;
    TAILQ_INIT(&hub->partitions);
    r = hub_prove(conf, err);
    if (r == 0)
        r = pen_conf_fill(conf, hub_options, hub, err);
    if (r == 0)
        r = hub_read_start(hub, err);
    if (r < 0)
        goto fail;
    hub->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (hub->fd < 0) {
        r = pen_error_set(err, -errno, "eventfd: %s", strerror(errno));
        goto fail;
    }
    r = kafka_login_new(&hub->login, &hub->client, source_http(host), source_loop(host), err);
    if (r < 0)
        goto fail;
    r = hub_connect(hub, err);                     /* begins to connect; finds a secret that cannot be read */
    if (r < 0)
        goto fail;
    source_reserve(host, CLIENT_MEMORY);
    *self = hub;
    return 0;
fail:
    hub_close(hub);
    return r;
}

static void on_known(void *arg, const struct cursor *cursor)
{
    known_note(arg, cursor->key, cursor->position);
}

static void hub_on_start(void *self)
{
    struct hub *hub = self;

    source_each_cursor(hub->host, on_known, hub);
    kafka_client_warn(&hub->client, "source", source_name(hub->host));
    hub->state = HUB_RUNNING;
    hub->poll.data = hub->timer.data = hub;
    uv_poll_init(source_loop(hub->host), &hub->poll, hub->fd);
    uv_timer_init(source_loop(hub->host), &hub->timer);
    hub->handles = 2;
    uv_poll_start(&hub->poll, UV_READABLE, on_wake);
    uv_timer_start(&hub->timer, on_tick, TICK_MS, TICK_MS);
    hub_wake(hub);
}

static void hub_on_chunk(void *self, void *stream_self, struct chunk *chunk, size_t consumed)
{
    struct hub *hub = self;
    struct partition *partition = stream_self;

    (void)consumed;                                /* all of it, unless we stop: then it is read again */
    chunk_drop(hub->host, chunk);
    partition->out = false;
    partition_done(partition);
}

static void hub_on_flow(void *self)
{
    hub_next(self);
    hub_wake(self);
}

static void hub_note_stopped(struct hub *hub)
{
    void (*stopped)(void *arg) = hub->stopped;

    if (hub->state != HUB_STOPPED || hub->jobs > 0 || stopped == NULL)
        return;
    hub->stopped = NULL;
    stopped(hub->stopped_arg);
}

/* The client lives on until settle(): it must stay in its group to commit what becomes safe meanwhile. */
static void hub_stop(void *self, void (*stopped)(void *arg), void *arg)
{
    struct hub *hub = self;
    struct partition *partition;

    hub->stopped = stopped;
    hub->stopped_arg = arg;
    TAILQ_FOREACH(partition, &hub->partitions, entry)
        partition_drop_waiting(partition);
    if (hub->locate != NULL && hub->locate->again_ms > 0) {
        locate_free(hub->locate);
        hub->locate = NULL;
    }
    if (hub->handles > 0)
        uv_timer_stop(&hub->timer);
    __atomic_store_n(&hub->leaving, true, __ATOMIC_RELAXED);
    hub->state = HUB_STOPPED;
    hub_note_stopped(hub);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct hub *hub = handle->data;

    if (--hub->handles == 0)
        hub->settled(hub->settled_arg);
}

static void hub_close_handles(struct hub *hub)
{
    uv_close((uv_handle_t *)&hub->poll, on_handle_closed);
    uv_close((uv_handle_t *)&hub->timer, on_handle_closed);
}

static int ms_until(uint64_t end_ms)
{
    uint64_t now = uv_hrtime() / 1000000;

    return now < end_ms ? (int)(end_ms - now) : 0;
}

/* librdkafka waits for the answer to each change it has told us of, and would wait for ever. */
static void hub_answer_rebalance(struct hub *hub)
{
    rd_kafka_topic_partition_list_t *none = rd_kafka_topic_partition_list_new(0);
    rd_kafka_error_t *error = hub->revoked != NULL ? rd_kafka_incremental_unassign(hub->consumer, hub->revoked)
                                                   : rd_kafka_incremental_assign(hub->consumer, none);

    if (error != NULL)
        rd_kafka_error_destroy(error);
    rd_kafka_topic_partition_list_destroy(none);
}

/* Closing commits the last offsets and leaves the group at once, so that others need not wait for our session's end. Brokers that do not
 * answer have SETTLE_MS: then the client, whose end would have to wait for them, is left to the end of the process. */
static void on_settle_work(uv_work_t *work)
{
    struct hub *hub = work->data;
    uint64_t end_ms = uv_hrtime() / 1000000 + SETTLE_MS;
    rd_kafka_queue_t *queue;
    rd_kafka_error_t *error;

    hub_answer_rebalance(hub);
    queue = rd_kafka_queue_new(hub->consumer);
    error = rd_kafka_consumer_close_queue(hub->consumer, queue);
    if (error != NULL)
        rd_kafka_error_destroy(error);             /* fatal, and closed thereby */
    else
        while (!rd_kafka_consumer_closed(hub->consumer) && ms_until(end_ms) > 0)
            rd_kafka_queue_poll_callback(queue, 50);
    rd_kafka_queue_destroy(queue);
    if (error != NULL || rd_kafka_consumer_closed(hub->consumer))
        client_end(hub->consumer, SETTLE_MS);
}

static void on_settled(uv_work_t *work, int status)
{
    struct hub *hub = work->data;

    (void)status;
    hub->jobs--;
    hub->consumer = NULL;
    hub_close_handles(hub);
}

static void hub_settle(void *self, void (*settled)(void *arg), void *arg)
{
    struct hub *hub = self;

    hub->settled = settled;
    hub->settled_arg = arg;
    if (hub->consumer == NULL) {
        hub_close_handles(hub);
        return;
    }
    hub_store(hub);
    hub_disconnect(hub, false);
    uv_queue_work(source_loop(hub->host), &hub->reaper, on_settle_work, on_settled);
}

static size_t hub_numbers(void *self, struct source_number numbers[SOURCE_NUMBERS_MAX])
{
    const struct hub *hub = self;
    const struct partition *partition;
    uint64_t partitions = 0;
    size_t count = 0;

    TAILQ_FOREACH(partition, &hub->partitions, entry)
        partitions += !partition->leaving;
    numbers[count++] = (struct source_number){ "partitions", SOURCE_LEVEL, partitions, "Partitions that are ours to read." };
    numbers[count++] = (struct source_number){ "waiting", SOURCE_LEVEL, hub->waiting_bytes, "Bytes of messages in turn." };
    numbers[count++] = (struct source_number){ "missing", SOURCE_COUNT, hub->missing,
                                               "Messages that were deleted before they were read." };
    return count;
}

const struct source_type event_hub_source = {
    .name = "event-hub", .options = hub_options, .open = hub_open, .start = hub_on_start, .on_chunk = hub_on_chunk,
    .on_flow = hub_on_flow, .stop = hub_stop, .settle = hub_settle, .close = hub_close, .prove = hub_prove,
    .numbers = hub_numbers,
};

/* The same under the name that users of another Kafka look for. */
const struct source_type kafka_source = {
    .name = "kafka", .options = hub_options, .open = hub_open, .start = hub_on_start, .on_chunk = hub_on_chunk,
    .on_flow = hub_on_flow, .stop = hub_stop, .settle = hub_settle, .close = hub_close, .prove = hub_prove,
    .numbers = hub_numbers,
};
