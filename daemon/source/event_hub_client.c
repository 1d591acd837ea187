/*
 * event_hub_client.c - the client of librdkafka: what it is told, what goes wrong with it, a new login, its end.
 *
 * Trouble is said once, with what a person can do about it where he can. A login that is refused, and an error from which
 * librdkafka does not recover, end the client; a new one is made after RENEW_MS, with its secret read again.
 *
 * At the stop the client lives on until settle(), in its group, to commit what becomes safe meanwhile. Its last commit and
 * the leaving of the group have SETTLE_MS, whatever the brokers do.
 */
#include "daemon/source/event_hub.h"

#include "daemon/base/log.h"
#include "daemon/remote/kafka_end.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RENEW_MS        30000
#define UNREACHED_MS    5000
#define UNUSED_MS       500          /* for the end of one that never joined */
#define SETTLE_MS       3000         /* for the last commit and for leaving the group */
/* librdkafka's own queue of fetched messages. A message in it costs 400 bytes more than it counts. */
#define QUEUED_KBYTES   2048
#define QUEUED_MESSAGES 5000
#define FETCH_BYTES     (1u << 20)   /* one answer of a broker; more where a single message is larger */

/* ---- Trouble, said once ----------------------------------------------------------------------------------------- */

/* What a person can mend. What is not here passes by itself. */
static const struct {
    rd_kafka_resp_err_t error;
    const char *advice;
} hub_advice[] = {
    { RD_KAFKA_RESP_ERR__AUTHENTICATION, "the login is refused: renew the secret's file; the key needs the right to listen" },
    { RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
      "the login is refused: renew the secret's file; the key needs the right to listen" },
    { RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM, "the brokers do not know this `mechanism`" },
    { RD_KAFKA_RESP_ERR__SSL, "TLS fails: set `ca_file` to the authority that signed the brokers' certificates; if it is, they "
                              "have expired, or this machine's clock is wrong" },
    { RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "no right to read `topic`: grant Listen (Event Hubs) or Read" },
    { RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, "no right to use `group`: grant Read on it" },
    { RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "the cluster does not let this user in: grant it Describe and Read, or mend the login" },
    { RD_KAFKA_RESP_ERR_INVALID_GROUP_ID, "`group` is no name that a consumer group may have there: choose another" },
    { RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL, "other members of `group` use another way to share partitions" },
    { RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "there is no such topic: make it, or mend `topic`" },
    { RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, "there is no such topic: make it, or mend `topic`" },
    { RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, "`topic` is no name that a topic may have: mend it" },
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

static void hub_alarm(struct hub *hub, const char *advice, rd_kafka_resp_err_t error, const char *why)
{
    hub->advised = true;
    log_line(LOG_ERROR, advice, "source", source_name(hub->host), "topic", hub->topic, "group", hub->group, "error",
             rd_kafka_err2name(error), "why", why, NULL);
}

/* A broker that is away comes back; but where none was ever there, that is most likely ours to mend. Not at once: whether an
 * error that tells more comes before or behind is chance. */
static void hub_note_unreached(struct hub *hub, rd_kafka_resp_err_t error, const char *why)
{
    if (error != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        hub->unreached.error = error;
        snprintf(hub->unreached.why, sizeof(hub->unreached.why), "%s", why);
    } else if (!hub->heard && hub->unreached.say_ms == 0) {
        hub->unreached.say_ms = hub_now_ms(hub) + UNREACHED_MS;
    }
}

void hub_say_unreached(struct hub *hub)
{
    if (hub->unreached.say_ms == 0 || hub->advised || hub_now_ms(hub) < hub->unreached.say_ms)
        return;
    hub_alarm(hub, hub->unreached.error == RD_KAFKA_RESP_ERR__RESOLVE
              ? "a broker's name has no address: mend `bootstrap`, or this machine's DNS"
              : "no broker can be reached: mend `bootstrap` (Event Hubs: port 9093), or let us through the firewall",
              hub->unreached.error, hub->unreached.why);
}

void hub_trouble(struct hub *hub, rd_kafka_resp_err_t error, const char *why)
{
    const char *advice = advice_for(hub, error, why);

    if (hub->renew_ms == 0 && (is_login(error) || error == RD_KAFKA_RESP_ERR__FATAL))
        hub->renew_ms = hub_now_ms(hub) + RENEW_MS;
    if (advice == NULL)
        hub_note_unreached(hub, error, why);
    if (hub->trouble && (advice == NULL || hub->advised))
        return;
    hub->trouble = true;
    source_trouble(hub->host);
    if (is_login(error) && error != RD_KAFKA_RESP_ERR__SSL && kafka_client_has_tokens(&hub->client))
        advice = "the login is refused: check `tenant`, `client`, `secret_file` and `scope`; the app needs the role Azure "
                 "Event Hubs Data Receiver";
    if (advice != NULL)
        hub_alarm(hub, advice, error, why);
    else
        log_line(LOG_WARN, "the brokers are busy or away, trying on", "source", source_name(hub->host), "error",
                 rd_kafka_err2name(error), "why", why, NULL);
}

void hub_well(struct hub *hub)
{
    if (hub->trouble)
        log_line(LOG_NOTE, "the brokers serve us again", "source", source_name(hub->host), NULL);
    hub->trouble = hub->advised = false;
    hub->heard = true;
    hub->renew_ms = hub->unreached.say_ms = 0;
}

/* ---- What it tells us ------------------------------------------------------------------------------------------- */

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

    if (hub->reaping || (level <= 6 && hub_now_ms(hub) < hub->log_after_ms)) {
        hub->log_held++;
        return;
    }
    log_line(level <= 4 ? LOG_WARN : level <= 6 ? LOG_NOTE : LOG_TRACE, text, "source", source_name(hub->host), "facility",
             facility, "held", log_number(hub->log_held), NULL);
    if (level > 6)
        return;
    hub->log_after_ms = hub_now_ms(hub) + LOG_EVERY_MS;
    hub->log_held = 0;
}

/* ---- What it is told -------------------------------------------------------------------------------------------- */

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
int hub_configure(rd_kafka_conf_t *conf, const struct hub *hub, struct pen_error *err)
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

int hub_connect(struct hub *hub, struct pen_error *err)
{
    static const uint64_t one = 1;
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
    return 0;
fail:
    rd_kafka_conf_destroy(conf);
    return r;
}

/* Joins the group. Not before we are there to answer it: a member that says nothing holds up all others. */
void hub_subscribe(struct hub *hub)
{
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);

    rd_kafka_topic_partition_list_add(topics, hub->topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_subscribe(hub->consumer, topics);
    rd_kafka_topic_partition_list_destroy(topics);
}

/* It is about to go: nothing of it may write to an fd that will be another file's. */
static void hub_be_silent(struct hub *hub)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(hub->consumer);

    rd_kafka_queue_io_event_enable(queue, -1, NULL, 0);
    rd_kafka_queue_destroy(queue);
}

/* On the loop, which must not wait until a thread of it is back from a name lookup. */
void hub_end_unused(struct hub *hub)
{
    hub_be_silent(hub);
    kafka_end(hub->consumer, UNUSED_MS);
    hub->consumer = NULL;
}

static void hub_disconnect(struct hub *hub, bool refused)
{
    hub_be_silent(hub);
    kafka_login_forget(hub->login, refused);
    hub->reaping = true;
    hub->reaper.data = hub;
    hub->jobs++;
}

/* ---- A new login ------------------------------------------------------------------------------------------------ */

static void on_reap(uv_work_t *work)
{
    struct hub *hub = work->data;

    kafka_end(hub->consumer, SETTLE_MS);
}

static void hub_connect_again(struct hub *hub)
{
    struct pen_error err = { 0 };

    hub->state = HUB_RUNNING;
    hub->renew_ms = 0;
    if (hub_connect(hub, &err) == 0) {
        hub_subscribe(hub);
        return;
    }
    log_line(LOG_ERROR, "no connection can be set up: mend what `why` names, it is tried again", "source", source_name(hub->host), "why", err.text, NULL);
    hub->renew_ms = hub_now_ms(hub) + RENEW_MS;
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
    if (hub->jobs > 0)
        return;
    hub_group_drop(hub);
    if (hub->consumer == NULL) {
        hub_connect_again(hub);
        return;
    }
    hub->state = HUB_RENEWING;
    hub->paused = hub->held_back = false;
    hub_disconnect(hub, hub->advised);
    uv_queue_work(source_loop(hub->host), &hub->reaper, on_reap, on_reaped);
}

void hub_renew_when_due(struct hub *hub)
{
    if (hub->renew_ms > 0 && hub_now_ms(hub) >= hub->renew_ms)
        hub_renew(hub);
}

/* ---- The last commit -------------------------------------------------------------------------------------------- */

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

/* Closing commits the last offsets and leaves the group at once, so that others need not wait for our session's end. Brokers
 * that do not answer have SETTLE_MS: then the client, whose end would have to wait for them, is left to the end of the
 * process. Messages may still come until it is closed: they are not ours any more, and rd_kafka_queue_poll_callback(), which takes
 * no messages, would end the process over one. */
static void on_settle_work(uv_work_t *work)
{
    struct hub *hub = work->data;
    uint64_t end_ms = uv_hrtime() / 1000000 + SETTLE_MS;
    rd_kafka_message_t *message;
    rd_kafka_queue_t *queue;
    rd_kafka_error_t *error;

    hub_answer_rebalance(hub);
    queue = rd_kafka_queue_new(hub->consumer);
    error = rd_kafka_consumer_close_queue(hub->consumer, queue);
    if (error != NULL)
        rd_kafka_error_destroy(error);             /* fatal, and closed thereby */
    else
        while (!rd_kafka_consumer_closed(hub->consumer) && ms_until(end_ms) > 0)
            if ((message = rd_kafka_consume_queue(queue, 50)) != NULL)
                rd_kafka_message_destroy(message);
    rd_kafka_queue_destroy(queue);
    if (error != NULL || rd_kafka_consumer_closed(hub->consumer))
        kafka_end(hub->consumer, SETTLE_MS);
}

static void on_settled(uv_work_t *work, int status)
{
    struct hub *hub = work->data;

    (void)status;
    hub->jobs--;
    hub->consumer = NULL;
    hub_close_handles(hub);
}

void hub_settle(void *self, void (*settled)(void *arg), void *arg)
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
