/*
 * kafka.c - batches to a Kafka topic, through librdkafka.
 *
 * One idempotent producer with acks=all. A batch's messages are produced without copying (the batch's bytes
 * are lent to us, we lend them on), and each counts as delivered when its delivery report says so, never earlier.
 * librdkafka's threads do no more than make an eventfd readable, and ask kafka_partition.c for a key's partition; everything
 * else happens on the loop.
 *
 * Who is patient? Inside, librdkafka reconnects, follows leaders and resends under sequence numbers without end: its own
 * timeout is off, because a message that timed out alone would be overtaken by those behind it. Our one clock is
 * `timeout`: when the oldest batch has heard nothing for so long, or a report says that our rights or settings are at
 * fault, or the producer dies (a fatal error of idempotence), we give up *everything* outstanding at once, so that the
 * daemon sends it again in its order. Only a message that can never go is answered alone, and its neighbours go on.
 *
 *           submit                  trouble                 all reported, or 2 s          destroyed
 *   READY ──────────▶ (produced) ──────────────▶ PURGING ──────────────────────▶ REAPING ───────────▶ REAPED ──▶ READY
 *
 *   READY    the producer runs (or is made by the next submit); batches are answered one by one, as they are done
 *   PURGING  the producer was told to drop all; reports still come in and are believed; nothing is answered
 *   REAPING  a pool thread destroys it: that joins its threads, which may sit in a name lookup. When all was reported, and
 *            librdkafka therefore holds nothing of ours, this has REAP_MS, and then the producer is left to itself
 *   REAPED   nothing of librdkafka can touch a lent byte any more: every batch is answered, in order
 *
 * Batches submitted meanwhile wait unproduced and share the answer: they are later, and must not overtake. What the far
 * end took but could not tell us any more repeats with the same event id.
 *
 * Believed is the broker alone. librdkafka reports as delivered also what it only concludes to be: where a request failed
 * and the one behind it was taken, it reasons that the broker, which checks sequence numbers, must have had the first. But
 * a broker that knows nothing of a producer (it has just become leader, the topic was made anew) takes any number of it.
 * Messages are then reported as delivered that nobody has. Such a report names no offset: it is answered with RETRY. (The
 * few messages of the second request stay ahead of them; kafka.max.in.flight = 1 rules out even that.)
 *
 * Too large: the broker's max.message.bytes bounds a *record batch* as librdkafka builds it, not a message, and its answer
 * fails all messages in it. Reading that as "each of these is too large" would bury hundreds of good messages. A message
 * of at least batch.size bytes travels alone, so for it the answer is certain. Otherwise batch.size is halved for the next
 * producer and all is sent again; that ends within the broker's bound, where only truly large messages fail.
 * Invalid record: here, too, one fails all. The next producer sends every message alone until those that were outstanding
 * are answered: then it is certain who was meant.
 * In both librdkafka goes on with the requests behind the one that failed, before we hear of it: they may come ahead of what
 * is sent again. (enable.gapless.guarantee would stop it, at the price of a new producer for every bad message.)
 *
 * Memory. The payloads in librdkafka's queue are the lent batches, which the daemon counts. librdkafka adds, per message,
 * its own head with the key (MESSAGE_COST), and a copy of those messages that lie in a request buffer right now. Hence:
 * half of our share is queue.buffering.max.kbytes (no copy can be larger than what is queued), the other half divided
 * by MESSAGE_COST is queue.buffering.max.messages. When the queue is full we hold the rest of the batch and go on when
 * reports have made room.
 */
#include "daemon/base/log.h"
#include "daemon/remote/kafka_client.h"
#include "daemon/remote/kafka_end.h"
#include "daemon/remote/kafka_login.h"
#include "daemon/remote/kafka_probe.h"
#include "sinks/kafka_pace.h"
#include "sinks/kafka_partition.h"
#include "sinks/sink.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MESSAGE_COST    640          /* rd_kafka_msg_t, malloc's share, a key of ordinary length */
#define MESSAGES_MIN    1000
#define BATCH_MESSAGES  10000
#define BATCH_SIZE_MIN  1024
#define RUN_MESSAGES    256          /* handed to librdkafka in one call */
#define EVENTS_PER_TURN 64           /* one event may carry the reports of one request: up to batch.num.messages */
#define TICK_MS         200
#define PURGE_MS        2000
#define REAP_MS         3000
#define STOP_MS         1500         /* the daemon has waited half its stop time already; then we purge, PURGE_MS at most */
#define LOG_EVERY_MS    30000
#define OFFSETLESS_MAX  3            /* producers given up for want of an offset, before a far end is taken to tell none */

/* The default of `timeout`, 90 s, is longer than a throttled Event Hub may take for one reply (60 s) and than most brokers
 * take to restart: what librdkafka bridges by itself repeats nothing. */

enum key { KEY_STREAM, KEY_NONE };

static const char *const key_names[] = { "stream", "none", NULL };

/* One batch on its way. */
struct flight {
    struct flight *next;
    struct pen_batch *batch;
    uint32_t produced;               /* messages handed to librdkafka, or answered for at once */
    uint32_t reported;               /* of those */
    uint32_t delivered;              /* of those */
    rd_kafka_resp_err_t rejected;    /* why the last message was rejected; 0: none was */
    enum pen_outcome outcomes[];     /* PEN_RETRY until a report says otherwise */
};

enum state { READY, PURGING, REAPING, REAPED };

struct kafka {
    /* settings */
    struct kafka_client client;
    char *topic;
    int key;                         /* enum above */
    uint32_t timeout_ms;
    uint64_t batch_bytes;
    int64_t in_flight;

    const char *name;
    uv_loop_t *loop;
    struct kafka_login *login;
    struct pen_limits limits;
    size_t queue_bytes, queue_messages;

    enum state state;
    rd_kafka_t *producer;            /* NULL: to be made */
    rd_kafka_queue_t *queue;         /* the producer's events */
    rd_kafka_topic_t *producer_topic;
    size_t batch_size;               /* of the producer: no record batch of several messages is larger */
    size_t batch_size_max;           /* learned from brokers' answers; SIZE_MAX: nothing yet */
    uint64_t alone;                  /* so many messages still travel one by one */
    bool producer_alone;             /* this producer sends them so */
    struct kafka_pace pace;          /* of this producer */
    bool offsets_told;               /* by this far end, once at least */
    unsigned offsetless;             /* producers given up for want of one */

    struct flight *first, **last;    /* in the order of submission */
    uint64_t heard_ms;               /* when the oldest batch came, or last heard something */
    enum pen_outcome outcome;        /* of what is given up: RETRY or REFUSED */
    char why[512];
    enum pen_outcome trouble;        /* what the last error event means; DELIVERED: there was none since a delivery */
    char trouble_text[440];
    uint64_t log_after_ms, log_held;

    int fd;                          /* eventfd: librdkafka or we ourselves want a turn */
    uv_poll_t poll;
    uv_timer_t timer;
    uv_work_t reaper;
    bool lends;                      /* some of what was produced is not reported: librdkafka may look at it still */
    unsigned handles;                /* open */
    uint64_t stop_by_ms;
    void (*stopped)(void *);         /* set: stop() was called */
    void *stopped_arg;
};

static const struct pen_option kafka_options[] = {
    KAFKA_CLIENT_BROKERS(struct kafka, client, "brokers"),
    { "topic", PEN_TEXT, offsetof(struct kafka, topic), .required = true,
      .help = "Topic (or event hub) to write to; it must exist." },
    { "key", PEN_CHOICE, offsetof(struct kafka, key), .fallback = "stream", .choices = key_names,
      .help = "Message key: the stream's name, which keeps a stream's order in one partition, or none." },
    KAFKA_CLIENT_LOGIN(struct kafka, client),
    { "timeout", PEN_MS, offsetof(struct kafka, timeout_ms), .fallback = "90s", .min = 1000, .max = 900000,
      .help = "Give back what is outstanding when the oldest batch has heard nothing for so long." },
    { "batch_bytes", PEN_BYTES, offsetof(struct kafka, batch_bytes), .fallback = "1000000", .min = 1024,
      .max = 64 << 20, .help = "Largest batch." },
    { "in_flight", PEN_INT, offsetof(struct kafka, in_flight), .fallback = "8", .min = 1, .max = 64,
      .help = "Batches on their way at once; order holds with any number." },
    KAFKA_CLIENT_PAIRS(struct kafka, client),
    { 0 }
};

/* ---- The far end's words --------------------------------------------------------------------------------------- */

/* What an error of a delivery report, or of the client as a whole, means. PEN_TOO_LARGE: the record batch was, see above.
 * What is not here may pass: RETRY. */
static const struct {
    rd_kafka_resp_err_t error;
    enum pen_outcome outcome;
} kafka_outcomes[] = {
    { RD_KAFKA_RESP_ERR_NO_ERROR,                            PEN_DELIVERED },

    { RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,                  PEN_TOO_LARGE },
    { RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,               PEN_TOO_LARGE },
    { RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE,                    PEN_TOO_LARGE },

    { RD_KAFKA_RESP_ERR_INVALID_MSG,                         PEN_REJECTED },
    { RD_KAFKA_RESP_ERR_INVALID_RECORD,                      PEN_REJECTED },
    { RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,                   PEN_REJECTED },
    { RD_KAFKA_RESP_ERR__BAD_MSG,                            PEN_REJECTED },

    { RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,                      PEN_REFUSED },
    { RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,                  PEN_REFUSED },
    { RD_KAFKA_RESP_ERR__AUTHENTICATION,                     PEN_REFUSED },
    { RD_KAFKA_RESP_ERR__SSL,                                PEN_REFUSED },
    { RD_KAFKA_RESP_ERR__INVALID_ARG,                        PEN_REFUSED },
    { RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED,                    PEN_REFUSED },
    { RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE,                PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,               PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,                     PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS,               PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,          PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,        PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM,          PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE,                  PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,          PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_SECURITY_DISABLED,                   PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION,                 PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,      PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE,        PEN_REFUSED },
    { RD_KAFKA_RESP_ERR_INVALID_CONFIG,                      PEN_REFUSED },

    { RD_KAFKA_RESP_ERR__TRANSPORT,                          PEN_RETRY },
    { RD_KAFKA_RESP_ERR__RESOLVE,                            PEN_RETRY },
    { RD_KAFKA_RESP_ERR__MSG_TIMED_OUT,                      PEN_RETRY },
    { RD_KAFKA_RESP_ERR__TIMED_OUT,                          PEN_RETRY },
    { RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE,                    PEN_RETRY },
    { RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,                   PEN_RETRY },
    { RD_KAFKA_RESP_ERR__PURGE_QUEUE,                        PEN_RETRY },
    { RD_KAFKA_RESP_ERR__PURGE_INFLIGHT,                     PEN_RETRY },
    { RD_KAFKA_RESP_ERR__FATAL,                              PEN_RETRY },
    { RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,                   PEN_RETRY },
    { RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,                 PEN_RETRY },
    { RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,        PEN_RETRY },
    { RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,                 PEN_RETRY },
    /* Event Hubs: throttled past the request's time */
    { RD_KAFKA_RESP_ERR_POLICY_VIOLATION,                    PEN_RETRY },
    { RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED,           PEN_RETRY },
};

static enum pen_outcome kafka_outcome(rd_kafka_resp_err_t error)
{
    for (size_t i = 0; i < sizeof(kafka_outcomes) / sizeof(*kafka_outcomes); i++)
        if (kafka_outcomes[i].error == error)
            return kafka_outcomes[i].outcome;
    return PEN_RETRY;
}

/* What a refusal asks of the operator. */
static const char *kafka_mend(rd_kafka_resp_err_t error)
{
    switch (error) {
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
        return "create the topic, or correct `topic`";
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
        return "give the user the right to write to the topic";
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
    case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE:
        return "check mechanism and what it goes with: username and password_file, connection_string_file, or tenant, client "
               "and secret_file";
    case RD_KAFKA_RESP_ERR__SSL:
    case RD_KAFKA_RESP_ERR_SECURITY_DISABLED:
        return "check brokers, security, ca_file, the brokers' certificates and this machine's clock";
    default:
        return "check the kafka. properties: the brokers do not take it so";
    }
}

/* One sentence for people: about which topic, what the client said and, where it is our fault, what to mend. */
static void kafka_explain(char *why, size_t size, const char *topic, rd_kafka_resp_err_t error, const char *said)
{
    bool ours = kafka_outcome(error) == PEN_REFUSED;

    snprintf(why, size, "topic %.*s: %.*s%s%s", 100, topic, 220, said, ours ? "; " : "", ours ? kafka_mend(error) : "");
}

/* ---- Settings -------------------------------------------------------------------------------------------------- */

/* Beside what is kept from the user of any client. */
static const struct kafka_kept kafka_kept[] = {
    { "message.timeout.ms",           "use `timeout`" },
    { "delivery.timeout.ms",          "use `timeout`" },
    { "message.send.max.retries",     "use `timeout`" },
    { "retries",                      "use `timeout`" },
    { "queue.buffering.max.messages", "the memory budget sets it" },
    { "queue.buffering.max.kbytes",   "the memory budget sets it" },
    { "queuing.strategy",             "order is kept" },
    { "transactional.id",             "transactions are not used" },
    { NULL, NULL },
};

/* The promises that a property could break. */
static int kafka_check(const struct kafka *kafka, struct pen_error *err)
{
    const struct pen_pairs *pairs = &kafka->client.pairs;

    for (size_t i = 0; i < pairs->count; i++) {
        const char *key = pairs->keys[i], *value = pairs->values[i];

        if ((strcmp(key, "acks") == 0 || strcmp(key, "request.required.acks") == 0) && strcmp(value, "all") != 0 &&
            strcmp(value, "-1") != 0)
            return pen_error_set(err, UV_EINVAL, "kafka.%s must be all: with less, a broker that fails loses what was "
                                                 "reported as delivered", key);
        if (strcmp(key, "enable.idempotence") == 0 && strcmp(value, "true") != 0)
            return pen_error_set(err, UV_EINVAL, "kafka.%s must be true: without it, order is lost on a resend", key);
    }
    return kafka_client_check(&kafka->client, "brokers", err);
}

static const char *const kafka_defaults[][2] = {
    { "client.id", "penstock" },
    { "enable.idempotence", "true" },
    { "acks", "all" },
    /* Batches come full already: this is the wait of what is left over behind a full request. An idle stream's latency bears up
     * to 20; the longer it is, the more often kafka_pace.h may have a second request filled. */
    { "linger.ms", "15" },
    { "message.timeout.ms", "0" },               /* without end: see above */
    { "socket.keepalive.enable", "true" },
    { "log.queue", "true" },
    { "log.connection.close", "false" },         /* brokers close idle connections: no news */
    { "allow.auto.create.topics", "false" },
    { NULL, NULL },
};

/* Azure's load balancer forgets idle connections after 240 s, and the service wants at least 60 s for a request of an
 * idempotent producer; larger requests than 1 MB cost the connection. */
static const char *const event_hubs_defaults[][2] = {
    { "metadata.max.age.ms", "180000" },
    { "connections.max.idle.ms", "180000" },
    { "request.timeout.ms", "60000" },
    { "message.max.bytes", "1000000" },
    { NULL, NULL },
};

/* Our defaults, then the user's properties, then what nobody may change. */
static int kafka_configure(rd_kafka_conf_t *conf, const struct kafka *kafka, struct pen_error *err)
{
    int r;

    r = kafka_put_table(conf, kafka_defaults, err);
    if (r == 0 && kafka_client_is_event_hubs(&kafka->client))
        r = kafka_put_table(conf, event_hubs_defaults, err);
    if (r == 0)
        r = kafka_client_put_login(conf, &kafka->client, err);
    if (r == 0)
        r = kafka_client_put_pairs(conf, &kafka->client, kafka_kept, err);
    if (r == 0)
        r = kafka_put(conf, "bootstrap.servers", kafka->client.brokers, err);
    if (r == 0)
        r = kafka_put_number(conf, "queue.buffering.max.kbytes", kafka->queue_bytes / 1024, err);
    if (r == 0)
        r = kafka_put_number(conf, "queue.buffering.max.messages", kafka->queue_messages, err);
    if (r == 0 && kafka->batch_size_max < kafka_get_number(conf, "batch.size"))
        r = kafka_put_number(conf, "batch.size", kafka->batch_size_max, err);
    if (r == 0 && kafka->alone > 0)
        r = kafka_put(conf, "batch.num.messages", "1", err);
    return r;
}

/* ---- The producer ---------------------------------------------------------------------------------------------- */

static void kafka_wake(struct kafka *kafka)
{
    uint64_t one = 1;

    if (write(kafka->fd, &one, sizeof(one)) < 0)
        assert(errno == EAGAIN);                 /* full: readable already */
}

/* Secrets are read anew, so that a rotated one is taken up after the refusal it causes. */
static int kafka_connect(struct kafka *kafka, struct pen_error *err)
{
    static const uint64_t one = 1;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char text[256];
    size_t size, message_max;
    uint32_t linger_ms;
    int r;

    r = kafka_configure(conf, kafka, err);
    if (r < 0)
        goto fail;
    size = kafka_get_number(conf, "batch.size");
    message_max = kafka_get_number(conf, "message.max.bytes");
    linger_ms = (uint32_t)kafka_get_number(conf, "linger.ms");
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG |
                                     RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH);
    kafka->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    if (!kafka->producer) {
        r = pen_error_set(err, UV_EINVAL, "%s", text);
        goto fail;
    }
    kafka->batch_size = size;
    kafka_pace_begin(&kafka->pace, size < message_max ? size : message_max, linger_ms);
    kafka->producer_alone = kafka->alone > 0;
    kafka->trouble = PEN_DELIVERED;
    kafka->queue = rd_kafka_queue_get_main(kafka->producer);
    rd_kafka_set_log_queue(kafka->producer, kafka->queue);
    rd_kafka_queue_io_event_enable(kafka->queue, kafka->fd, &one, sizeof(one));
    kafka->producer_topic = kafka->key == KEY_NONE ? rd_kafka_topic_new(kafka->producer, kafka->topic, NULL)
                                                   : kafka_partition_topic(kafka->producer, kafka->topic);
    if (!kafka->producer_topic) {
        r = pen_error_set(err, UV_EINVAL, "topic %s: %s", kafka->topic, rd_kafka_err2str(rd_kafka_last_error()));
        rd_kafka_queue_destroy(kafka->queue);
        kafka->queue = NULL;
        rd_kafka_destroy(kafka->producer);
        kafka->producer = NULL;
        return r;
    }
    kafka_wake(kafka);                           /* for what was queued before we could be told */
    return 0;
fail:
    rd_kafka_conf_destroy(conf);
    return r;
}

static void reap(uv_work_t *work)
{
    struct kafka *kafka = work->data;

    rd_kafka_topic_destroy(kafka->producer_topic);
    if (kafka->lends)
        rd_kafka_destroy(kafka->producer);       /* until it is gone, the bytes are not ours to give back */
    else
        kafka_end(kafka->producer, REAP_MS);
}

static void kafka_turn(struct kafka *kafka);

static void on_reaped(uv_work_t *work, int status)
{
    struct kafka *kafka = work->data;

    assert(status == 0);                         /* nobody cancels it */
    kafka->producer = NULL;
    kafka->state = REAPED;
    kafka_turn(kafka);
}

/* Everything outstanding will be answered with this outcome, when nothing can touch it any more. */
static void kafka_give_up(struct kafka *kafka, enum pen_outcome outcome, const char *why)
{
    if (kafka->state != READY)
        return;
    kafka->outcome = outcome;
    snprintf(kafka->why, sizeof(kafka->why), "%s", why);
    if (kafka->producer) {
        kafka->state = PURGING;
        rd_kafka_purge(kafka->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
                                        RD_KAFKA_PURGE_F_NON_BLOCKING);
        kafka->heard_ms = uv_now(kafka->loop);
    } else {
        kafka->state = REAPED;
    }
    kafka_wake(kafka);
}

/* After a fatal error the producer purges its messages by itself: the error behind that tells whose fault it is. */
static void kafka_give_up_for(struct kafka *kafka, rd_kafka_resp_err_t error)
{
    char text[256], why[512];
    rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(kafka->producer, text, sizeof(text));

    if (fatal)
        error = fatal;
    kafka_explain(why, sizeof(why), kafka->topic, error, fatal ? text : rd_kafka_err2str(error));
    kafka_give_up(kafka, kafka_outcome(error) == PEN_REFUSED ? PEN_REFUSED : PEN_RETRY, why);
}

static bool kafka_is_quiet(const struct kafka *kafka)
{
    for (const struct flight *flight = kafka->first; flight; flight = flight->next)
        if (flight->reported < flight->produced)
            return false;
    return true;
}

static void kafka_reap(struct kafka *kafka)
{
    int r;

    kafka->state = REAPING;
    kafka->lends = !kafka_is_quiet(kafka);
    kafka_login_forget(kafka->login, kafka->trouble == PEN_REFUSED);
    rd_kafka_queue_io_event_enable(kafka->queue, -1, NULL, 0);
    rd_kafka_queue_destroy(kafka->queue);
    kafka->queue = NULL;
    r = uv_queue_work(kafka->loop, &kafka->reaper, reap, on_reaped);
    assert(r == 0);
}

/* ---- Reports --------------------------------------------------------------------------------------------------- */

/* The oldest batch is nearly always the one. */
static struct flight *kafka_flight(const struct kafka *kafka, const enum pen_outcome *outcome)
{
    for (struct flight *flight = kafka->first; flight; flight = flight->next)
        if (outcome >= flight->outcomes && outcome < flight->outcomes + flight->batch->count)
            return flight;
    return NULL;
}

/* A content error fails a whole record batch. Was message i alone in it? If not, see to it that it will be. */
static bool kafka_is_certain(struct kafka *kafka, const struct flight *flight, uint32_t i, rd_kafka_resp_err_t error)
{
    bool large = kafka_outcome(error) == PEN_TOO_LARGE;

    if (kafka->producer_alone || flight->batch->messages[i].size >= kafka->batch_size)
        return true;
    if (kafka->state != READY)
        return false;                            /* its neighbours' report has come first */
    if (large && kafka->batch_size <= BATCH_SIZE_MIN)
        return true;
    if (large) {
        kafka->batch_size_max = kafka->batch_size / 2;
        log_line(LOG_NOTE, "the broker takes smaller record batches only, halving ours", "sink", kafka->name,
                 "batch_size", log_number(kafka->batch_size_max), NULL);
    } else {
        for (const struct flight *f = kafka->first; f; f = f->next)
            kafka->alone += f->produced - f->reported;
    }
    return false;
}

/* The answer for one message: from its delivery report, or from produce() itself (`local`). */
static void kafka_report(struct kafka *kafka, struct flight *flight, uint32_t i, rd_kafka_resp_err_t error, bool local)
{
    enum pen_outcome outcome = kafka_outcome(error);

    switch (outcome) {
    case PEN_DELIVERED:
        flight->delivered++;
        kafka->trouble = PEN_DELIVERED;
        break;
    case PEN_TOO_LARGE:
    case PEN_REJECTED:
        outcome = local || kafka_is_certain(kafka, flight, i, error) ? PEN_REJECTED : PEN_RETRY;
        if (outcome == PEN_REJECTED)
            flight->rejected = error;
        else
            kafka_give_up(kafka, PEN_RETRY, rd_kafka_err2str(error));
        break;
    case PEN_RETRY:
    case PEN_REFUSED:
        kafka_give_up_for(kafka, error);
        outcome = PEN_RETRY;                     /* for now; flight_answer() writes what it is in the end */
        break;
    }
    flight->outcomes[i] = outcome;
    flight->reported++;
    if (flight == kafka->first)
        kafka->heard_ms = uv_now(kafka->loop);
    if (kafka->producer_alone && kafka->alone > 0)
        kafka->alone--;
}

/* Does a report of success come from the broker? A far end that has never told an offset may be one that tells none:
 * after a few rounds it is believed. */
static bool kafka_is_told(struct kafka *kafka, const rd_kafka_message_t *message)
{
    if (message->offset >= 0)
        kafka->offsets_told = true;
    else if (kafka->offsets_told || kafka->offsetless < OFFSETLESS_MAX)
        return false;
    return true;
}

static void kafka_take_reports(struct kafka *kafka, rd_kafka_event_t *event)
{
    const rd_kafka_message_t *message;
    bool first = true;                           /* one event brings the reports of one request */

    while ((message = rd_kafka_event_message_next(event))) {
        const enum pen_outcome *outcome = message->_private;
        struct flight *flight = kafka_flight(kafka, outcome);
        rd_kafka_resp_err_t error = message->err;

        assert(flight);
        kafka_pace_reported(&kafka->pace, message->len + message->key_len, message->partition,
                            first ? rd_kafka_message_latency(message) : -1);
        first = false;
        if (!error && !kafka_is_told(kafka, message)) {
            error = RD_KAFKA_RESP_ERR__INCONSISTENT;
            kafka->offsetless += kafka->state == READY;
            kafka_give_up(kafka, PEN_RETRY, "delivered by inference, without the broker's word: sent again");
        }
        kafka_report(kafka, flight, (uint32_t)(outcome - flight->outcomes), error, false);
    }
}

/* Troubles of the client as a whole. Those that pass are remembered for the answer that may come of them. */
static void kafka_take_error(struct kafka *kafka, rd_kafka_event_t *event)
{
    rd_kafka_resp_err_t error = rd_kafka_event_error(event);

    if (rd_kafka_fatal_error(kafka->producer, NULL, 0)) {    /* the event itself does not tell reliably */
        kafka_give_up_for(kafka, error);
    } else if (error != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        kafka->trouble = kafka_outcome(error) == PEN_REFUSED ? PEN_REFUSED : PEN_RETRY;
        kafka_explain(kafka->trouble_text, sizeof(kafka->trouble_text), kafka->topic, error, rd_kafka_event_error_string(event));
    } else if (kafka->trouble == PEN_REFUSED) {  /* no broker lets us in: waiting helps nobody */
        kafka_give_up(kafka, PEN_REFUSED, kafka->trouble_text);
    }
}

/* librdkafka's own lines, at most one in LOG_EVERY_MS: it says the same for every broker and attempt. */
static void kafka_take_log(struct kafka *kafka, rd_kafka_event_t *event)
{
    const char *facility, *text;
    uint64_t now_ms = uv_now(kafka->loop);
    int level;

    if (rd_kafka_event_log(event, &facility, &text, &level) < 0)
        return;
    if (level <= 6 && now_ms < kafka->log_after_ms) {
        kafka->log_held++;
        return;
    }
    log_line(level <= 4 ? LOG_WARN : level <= 6 ? LOG_NOTE : LOG_TRACE, text, "sink", kafka->name, "facility", facility,
             "held", log_number(kafka->log_held), NULL);
    if (level > 6)
        return;
    kafka->log_after_ms = now_ms + LOG_EVERY_MS;
    kafka->log_held = 0;
}

/* Serves librdkafka's events. It wakes us only when an empty queue fills: what is left over needs another turn. */
static void kafka_drain(struct kafka *kafka)
{
    for (int i = 0; i < EVENTS_PER_TURN; i++) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(kafka->queue, 0);

        if (!event)
            return;
        switch (rd_kafka_event_type(event)) {
        case RD_KAFKA_EVENT_DR:
            kafka_take_reports(kafka, event);
            break;
        case RD_KAFKA_EVENT_ERROR:
            kafka_take_error(kafka, event);
            break;
        case RD_KAFKA_EVENT_LOG:
            kafka_take_log(kafka, event);
            break;
        case RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH:
            kafka_login_refresh(kafka->login, kafka->producer);
            break;
        }
        rd_kafka_event_destroy(event);
    }
    kafka_wake(kafka);
}

/* ---- Batches --------------------------------------------------------------------------------------------------- */

/* Hands over up to `most` messages from flight->produced on, as far as they are of this stream. False: no more now. */
static bool kafka_hand_over(struct kafka *kafka, struct flight *flight, uint32_t stream, int32_t partition, uint32_t most)
{
    const struct pen_batch *batch = flight->batch;
    const char *key = kafka->key == KEY_STREAM ? batch->streams[stream] : NULL;
    size_t key_size = key ? strlen(key) : 0;
    rd_kafka_message_t run[RUN_MESSAGES];
    uint32_t first = flight->produced, count = 0;
    bool room = true;

    assert(most <= RUN_MESSAGES);
    for (uint32_t i = first; i < batch->count && count < most; i++) {
        struct pen_span span = pen_batch_message(batch, i);

        if (batch->messages[i].stream != stream || !kafka_pace_allows(&kafka->pace))
            break;
        run[count++] = (rd_kafka_message_t){ .payload = (void *)(uintptr_t)span.data, .len = span.size,
                                             .key = (void *)(uintptr_t)key, .key_len = key_size,
                                             ._private = &flight->outcomes[i] };
        kafka_pace_produced(&kafka->pace, span.size + key_size);
    }
    rd_kafka_produce_batch(kafka->producer_topic, partition, 0, run, (int)count);
    for (uint32_t i = 0; i < count; i++) {
        if (run[i].err)
            kafka_pace_reported(&kafka->pace, run[i].len + run[i].key_len, -1, -1);
        if (run[i].err == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
            room = false;                        /* for those behind it neither: none overtakes */
            continue;
        }
        flight->produced++;
        if (run[i].err) {
            kafka_report(kafka, flight, first + i, run[i].err, true);
            kafka_wake(kafka);                   /* no report may follow, and we may be inside submit() */
        }
    }
    return room && kafka_pace_allows(&kafka->pace);
}

/* Hands over some messages of one stream: where the first one goes, all of them do. False: no more now. */
static bool kafka_produce_run(struct kafka *kafka, struct flight *flight)
{
    uint32_t stream = flight->batch->messages[flight->produced].stream;
    int32_t partition;

    if (kafka->key == KEY_NONE)
        return kafka_hand_over(kafka, flight, stream, RD_KAFKA_PARTITION_UA, RUN_MESSAGES);
    kafka_partition_ask();
    if (!kafka_hand_over(kafka, flight, stream, RD_KAFKA_PARTITION_UA, 1))
        return false;
    partition = kafka_partition_chosen();
    return partition == RD_KAFKA_PARTITION_UA || kafka->state != READY ||
           kafka_hand_over(kafka, flight, stream, partition, RUN_MESSAGES);
}

/* Produces what is waiting, in order, as far as there is room. */
static void kafka_produce(struct kafka *kafka)
{
    struct pen_error err = { 0 };

    if (!kafka->first || kafka->state != READY)
        return;
    if (kafka->producer && kafka->producer_alone && kafka->alone == 0) {
        if (kafka_is_quiet(kafka))               /* the suspects are through: back to shared record batches */
            kafka_give_up(kafka, PEN_RETRY, "resuming with larger record batches");
        return;
    }
    if (!kafka->producer && kafka_connect(kafka, &err) < 0) {
        kafka_give_up(kafka, PEN_REFUSED, err.text);
        return;
    }
    kafka_pace_turn(&kafka->pace);
    for (struct flight *flight = kafka->first; flight; flight = flight->next)
        while (flight->produced < flight->batch->count)
            if (kafka->state != READY || !kafka_produce_run(kafka, flight))
                return;
}

/* Answers one batch, which the list has let go. */
static void flight_answer(struct flight *flight, enum pen_outcome given_up, const char *why)
{
    struct pen_batch *batch = flight->batch;
    uint32_t rejected = 0;
    char rejection[512];

    for (uint32_t i = 0; i < batch->count; i++) {
        if (flight->outcomes[i] == PEN_RETRY)
            flight->outcomes[i] = given_up;
        rejected += flight->outcomes[i] == PEN_REJECTED;
    }
    snprintf(rejection, sizeof(rejection), "status %s: %s", rd_kafka_err2name(flight->rejected),
             rd_kafka_err2str(flight->rejected));
    if (flight->delivered == batch->count)
        pen_batch_answer(batch, PEN_DELIVERED, 0, "delivered");
    else if (flight->delivered + rejected == 0)
        pen_batch_answer(batch, given_up, 0, why);
    else
        pen_batch_answer_each(batch, flight->outcomes, 0, rejected ? rejection : why);
    free(flight);
}

/* Answers what is done. An answer may bring a new batch at once: it goes to the list's end. */
static void kafka_settle(struct kafka *kafka)
{
    struct flight **link = &kafka->first;

    while (*link) {
        struct flight *flight = *link;

        if (flight->reported < flight->batch->count) {
            link = &flight->next;
            continue;
        }
        if (link == &kafka->first)
            kafka->heard_ms = uv_now(kafka->loop);
        *link = flight->next;
        if (!*link)
            kafka->last = link;
        flight_answer(flight, PEN_RETRY, "");
    }
}

/* Answers all that was submitted until now; READY only afterwards, so that nothing new is produced in between. */
static void kafka_settle_given_up(struct kafka *kafka)
{
    struct flight *flight, *old = kafka->first;

    kafka->first = NULL;
    kafka->last = &kafka->first;
    while ((flight = old)) {
        old = flight->next;
        flight_answer(flight, kafka->outcome, kafka->why);
    }
    kafka->heard_ms = uv_now(kafka->loop);
    kafka->state = READY;
}

static void kafka_close_handles(struct kafka *kafka);

/* Does what there is to do now, in the state there is. */
static void kafka_turn(struct kafka *kafka)
{
    if (kafka->queue)
        kafka_drain(kafka);
    switch (kafka->state) {
    case READY:
        kafka_settle(kafka);
        if (kafka->stopped && !kafka->first)
            kafka_give_up(kafka, PEN_RETRY, "stopping");
        break;
    case PURGING:
        if (kafka_is_quiet(kafka) || uv_now(kafka->loop) >= kafka->heard_ms + PURGE_MS)
            kafka_reap(kafka);
        break;
    case REAPING:
        break;
    case REAPED:
        kafka_settle_given_up(kafka);
        if (kafka->stopped && !kafka->first) {
            kafka_close_handles(kafka);
            return;
        }
        break;
    }
    kafka_produce(kafka);
}

/* ---- Doorways -------------------------------------------------------------------------------------------------- */

static void on_wake(uv_poll_t *poll, int status, int events)
{
    struct kafka *kafka = poll->data;
    uint64_t count;

    (void)status, (void)events;
    if (read(kafka->fd, &count, sizeof(count)) < 0)
        assert(errno == EAGAIN);
    kafka_turn(kafka);
}

/* Ticks while anything is outstanding: one clock for the stall, the purge and the stop. */
static void on_tick(uv_timer_t *timer)
{
    struct kafka *kafka = timer->data;
    uint64_t now_ms = uv_now(kafka->loop);
    char why[512];

    kafka_turn(kafka);                           /* reports may be waiting since before the clock passed */
    if (!kafka->first && kafka->state == READY)
        uv_timer_stop(timer);
    if (!kafka->first || kafka->state != READY)
        return;
    if (kafka->stopped && now_ms >= kafka->stop_by_ms) {
        kafka_give_up(kafka, PEN_RETRY, "stopping, and the brokers have not answered in time");
    } else if (now_ms >= kafka->heard_ms + kafka->timeout_ms) {
        snprintf(why, sizeof(why), "no report from the brokers for %u ms%s%s", kafka->timeout_ms,
                 kafka->trouble == PEN_DELIVERED ? "" : "; last error: ",
                 kafka->trouble == PEN_DELIVERED ? "" : kafka->trouble_text);
        kafka_give_up(kafka, kafka->trouble == PEN_REFUSED ? PEN_REFUSED : PEN_RETRY, why);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct kafka *kafka = handle->data;

    if (--kafka->handles == 0)
        kafka->stopped(kafka->stopped_arg);
}

static void kafka_close_handles(struct kafka *kafka)
{
    uv_close((uv_handle_t *)&kafka->poll, on_closed);
    uv_close((uv_handle_t *)&kafka->timer, on_closed);
}

/* ---- The contract ---------------------------------------------------------------------------------------------- */

static void kafka_close(void *self)
{
    struct kafka *kafka = self;

    if (!kafka)
        return;
    assert(!kafka->first && kafka->handles == 0);
    if (kafka->producer) {                       /* open() failed half-way */
        rd_kafka_queue_destroy(kafka->queue);
        reap(&kafka->reaper);
    }
    kafka_login_close(kafka->login);
    if (kafka->fd >= 0)
        close(kafka->fd);
    free(kafka);
}

static void kafka_set_limits(struct kafka *kafka, size_t memory_max)
{
    size_t message_max = 1000000;                /* librdkafka's message.max.bytes; the queue must hold one of them */

    for (size_t i = 0; i < kafka->client.pairs.count; i++)
        if (strcmp(kafka->client.pairs.keys[i], "message.max.bytes") == 0)
            message_max = strtoull(kafka->client.pairs.values[i], NULL, 10);
    kafka->queue_bytes = memory_max / 2 > message_max + 1024 ? memory_max / 2 : message_max + 1024;
    kafka->queue_messages = memory_max / 2 / MESSAGE_COST;
    if (kafka->queue_messages < MESSAGES_MIN)
        kafka->queue_messages = MESSAGES_MIN;
    kafka->limits = (struct pen_limits){
        .bytes_max = kafka->batch_bytes,
        .messages_max = BATCH_MESSAGES,
        .in_flight_max = (uint32_t)kafka->in_flight,
        .memory = kafka->queue_bytes + kafka->queue_messages * MESSAGE_COST,
    };
}

static int kafka_open(void **self, struct pen_host *host, const struct pen_conf *conf, struct pen_error *err)
{
    struct kafka *kafka = calloc(1, sizeof(*kafka));
    int r;

    if (!kafka)
        return pen_error_set(err, UV_ENOMEM, "out of memory");
    kafka->loop = host->loop;
    kafka->fd = -1;
    kafka->last = &kafka->first;
    kafka->batch_size_max = SIZE_MAX;
    kafka->reaper.data = kafka->poll.data = kafka->timer.data = kafka;
    kafka->name = pen_conf_name(conf);
    r = pen_conf_fill(conf, kafka_options, kafka, err);
    if (r < 0)
        goto fail;
    r = kafka_check(kafka, err);
    if (r < 0)
        goto fail;
    kafka_set_limits(kafka, host->memory_max);
    kafka->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (kafka->fd < 0) {
        r = pen_error_set(err, -errno, "eventfd: %s", strerror(errno));
        goto fail;
    }
    r = kafka_login_new(&kafka->login, &kafka->client, host->http, kafka->loop, err);
    if (r < 0)
        goto fail;
    r = kafka_connect(kafka, err);               /* starts to connect; finds every bad property */
    if (r < 0)
        goto fail;
    r = uv_poll_init(kafka->loop, &kafka->poll, kafka->fd);
    if (r < 0) {
        pen_error_set(err, r, "eventfd: %s", uv_strerror(r));
        goto fail;
    }
    uv_timer_init(kafka->loop, &kafka->timer);
    kafka->handles = 2;
    kafka_client_warn(&kafka->client, "sink", kafka->name);
    uv_poll_start(&kafka->poll, UV_READABLE, on_wake);
    *self = kafka;
    return 0;
fail:
    kafka_close(kafka);
    return r;
}

/* All but the login, whose secret this machine need not have. */
static int kafka_prove(const struct pen_conf *conf, struct pen_error *err)
{
    rd_kafka_conf_t *properties = rd_kafka_conf_new();
    struct kafka kafka = { 0 };
    int r = pen_conf_fill(conf, kafka_options, &kafka, err);

    if (r == 0)
        r = kafka_check(&kafka, err);
    if (r == 0)
        r = kafka_login_check(&kafka.client, err);
    if (r == 0)
        r = kafka_client_put_pairs(properties, &kafka.client, kafka_kept, err);
    rd_kafka_conf_destroy(properties);
    return r;
}

static const struct pen_limits *kafka_limits(void *self)
{
    return &((struct kafka *)self)->limits;
}

static void kafka_submit(void *self, struct pen_batch *batch)
{
    struct kafka *kafka = self;
    struct flight *flight = malloc(sizeof(*flight) + batch->count * sizeof(*flight->outcomes));

    assert(flight && !kafka->stopped);
    *flight = (struct flight){ .batch = batch };
    for (uint32_t i = 0; i < batch->count; i++)
        flight->outcomes[i] = PEN_RETRY;
    if (!kafka->first)
        kafka->heard_ms = uv_now(kafka->loop);
    *kafka->last = flight;
    kafka->last = &flight->next;
    if (!uv_is_active((uv_handle_t *)&kafka->timer))
        uv_timer_start(&kafka->timer, on_tick, TICK_MS, TICK_MS);
    kafka_produce(kafka);
}

/* What is on its way gets STOP_MS to arrive. */
static void kafka_stop(void *self, void (*stopped)(void *), void *arg)
{
    struct kafka *kafka = self;

    assert(!kafka->stopped);
    kafka->stopped = stopped;
    kafka->stopped_arg = arg;
    kafka->stop_by_ms = uv_now(kafka->loop) + STOP_MS;
    uv_timer_start(&kafka->timer, on_tick, TICK_MS, TICK_MS);
    kafka_wake(kafka);
}

static uint64_t kafka_token_ms(void *self)
{
    const struct kafka *kafka = self;

    return kafka_login_life_ms(kafka->login);
}

static const char *const kafka_schemas[] = { "ocsf", "asim", "raw", NULL };

const struct pen_sink kafka_sink = {
    .size = sizeof(struct pen_sink),
    .name = "kafka",
    .options = kafka_options,
    .schemas = kafka_schemas,
    .limits = kafka_limits,
    .open = kafka_open,
    .submit = kafka_submit,
    .stop = kafka_stop,
    .close = kafka_close,
    .prove = kafka_prove,
    .probe = kafka_sink_probe,
    .token_ms = kafka_token_ms,
};
