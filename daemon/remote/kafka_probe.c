/*
 * kafka_probe.c - see kafka_probe.h.
 *
 * A client of its own logs in and asks for the topic's metadata: that proves brokers, TLS, login, the topic's name and a right to
 * see it. It joins no group and makes no topic. That a sink may write shows only when something is written.
 */
#include "daemon/remote/kafka_probe.h"

#include "daemon/remote/kafka_end.h"
#include "daemon/remote/kafka_login.h"

#include <stdio.h>
#include <string.h>

#define PATIENCE_MS 15000            /* with brokers that do not answer; a login that is refused is told at once */
#define DOWN_MS 3000                 /* where none of them takes a connection: for a second try */
#define TURN_MS 200
#define END_MS 5000                  /* for a client to come to its end */

struct settings {                    /* the rows that matter here: the others are known to be right */
    struct kafka_client client;
    char *topic;
};
#define ROWS(brokers)                                                                   \
    KAFKA_CLIENT_BROKERS(struct settings, client, brokers),                             \
    { "topic", PEN_TEXT, offsetof(struct settings, topic), .required = true, .help = "" }, \
    KAFKA_CLIENT_LOGIN(struct settings, client),                                        \
    KAFKA_CLIENT_PAIRS(struct settings, client),                                        \
    { 0 }

static const struct pen_option sink_rows[] = { ROWS("brokers") };
static const struct pen_option source_rows[] = { ROWS("bootstrap") };

struct asking {
    struct probe *probe;
    bool sink;
    struct settings set;
    struct kafka_login *login;
    rd_kafka_t *client;
    rd_kafka_resp_err_t error;       /* the last that the client told of, … */
    char said[256];                  /* … in its words */
    bool down;                       /* it could reach none of the brokers */
    bool reported;                   /* the test record's delivery report is there */
};

/* ---- What is wrong ---------------------------------------------------------------------------------------------- */

/* What to change; NULL: it may pass by itself. */
static const char *advice_for(const struct asking *asking, rd_kafka_resp_err_t error)
{
    switch (error) {
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
        return "there is no such topic: create it, or correct `topic`";
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
        return asking->sink ? "give the user the right to write to the topic (Event Hubs: Send)"
                            : "give the user the right to read the topic (Event Hubs: Listen)";
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
    case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE:
        return "the login is refused: check mechanism and what goes with it: username and password_file, "
               "connection_string_file, or tenant, client and secret_file";
    case RD_KAFKA_RESP_ERR__SSL:
        return "TLS fails: check security, ca_file, the brokers' certificates and this machine's clock";
    default:
        return NULL;
    }
}

static void tell_error(struct asking *asking, rd_kafka_resp_err_t error, const char *said)
{
    const char *advice = advice_for(asking, error);

    if (advice == NULL)
        advice = strstr(said, "security.protocol") != NULL ? "set `security` to what the brokers' port expects"
                                                           : "check the brokers' addresses, security and the firewall";
    probe_tell(asking->probe, FINDING_WRONG, "topic %.128s: %s (%.256s)", asking->set.topic, advice, said);
}

/* ---- What the client tells ---------------------------------------------------------------------------------------- */

/* "All are down" follows whatever is wrong with each: the first that says what to change is kept. */
static void on_error(rd_kafka_t *client, int error, const char *said, void *opaque)
{
    struct asking *asking = opaque;

    (void)client;
    asking->down |= error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
    if (asking->error != RD_KAFKA_RESP_ERR_NO_ERROR && (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
                                                        advice_for(asking, asking->error) != NULL))
        return;
    asking->error = (rd_kafka_resp_err_t)error;
    snprintf(asking->said, sizeof(asking->said), "%s", said);
}

static void on_log(const rd_kafka_t *client, int level, const char *facility, const char *text)
{
    (void)client, (void)level, (void)facility, (void)text;         /* on_error() hears of what matters */
}

static void on_token_refresh(rd_kafka_t *client, const char *config, void *opaque)
{
    (void)config;
    kafka_login_refresh(((struct asking *)opaque)->login, client);
}

static void on_report(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque)
{
    struct asking *asking = opaque;

    (void)client;
    asking->reported = true;
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
        probe_tell(asking->probe, FINDING_GOOD, "the test record was taken by the topic %.128s", asking->set.topic);
    else
        tell_error(asking, message->err, rd_kafka_err2str(message->err));
}

/* ---- Asking ------------------------------------------------------------------------------------------------------- */

static int client_configure(rd_kafka_conf_t *conf, struct asking *asking, struct pen_error *err)
{
    static const struct kafka_kept none[] = { { NULL, NULL } };
    int r = kafka_client_put_login(conf, &asking->set.client, err);

    if (r == 0)
        r = kafka_client_put_pairs(conf, &asking->set.client, none, err);
    if (r == 0)
        r = kafka_put(conf, "bootstrap.servers", asking->set.client.brokers, err);
    if (r == 0)
        r = kafka_put(conf, "allow.auto.create.topics", "false", err);
    if (r == 0 && asking->sink)
        r = kafka_put_number(conf, "message.timeout.ms", PATIENCE_MS, err);
    rd_kafka_conf_set_opaque(conf, asking);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_dr_msg_cb(conf, on_report);
    rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf, on_token_refresh);
    return r;
}

static int client_open(struct asking *asking, struct pen_error *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char text[256];
    int r = client_configure(conf, asking, err);

    if (r == 0) {
        asking->client = rd_kafka_new(asking->sink ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER, conf, text, sizeof(text));
        if (asking->client != NULL)
            return 0;
        r = pen_error_set(err, UV_EINVAL, "%s", text);
    }
    rd_kafka_conf_destroy(conf);
    return r;
}

/* Its callbacks, and the loop's, which brings tokens. */
static void turn(struct asking *asking)
{
    (void)rd_kafka_poll(asking->client, TURN_MS);
    (void)uv_run(asking->probe->loop, UV_RUN_NOWAIT);
}

static bool in_time(const struct asking *asking, uint64_t start)
{
    return (uv_hrtime() - start) / 1000000 < (asking->down ? DOWN_MS : PATIENCE_MS);
}

static void judge_topic(struct asking *asking, const struct rd_kafka_metadata *metadata)
{
    const struct rd_kafka_metadata_topic *topic = metadata->topic_cnt == 1 ? &metadata->topics[0] : NULL;

    if (topic == NULL || (topic->partition_cnt == 0 && topic->err == RD_KAFKA_RESP_ERR_NO_ERROR))
        tell_error(asking, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "no partitions");
    else if (topic->partition_cnt == 0 || advice_for(asking, topic->err) != NULL)
        tell_error(asking, topic->err, rd_kafka_err2str(topic->err));
    else
        probe_tell(asking->probe, FINDING_GOOD, "the brokers let us in, and the topic %.128s has %d partition%s",
                   asking->set.topic, topic->partition_cnt, topic->partition_cnt == 1 ? "" : "s");
}

/* True: the topic was told of. */
static bool ask_for_topic(struct asking *asking)
{
    rd_kafka_topic_t *topic = rd_kafka_topic_new(asking->client, asking->set.topic, NULL);
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t error;
    uint64_t start = uv_hrtime();

    if (topic == NULL) {             /* librdkafka refuses some names by itself */
        tell_error(asking, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, rd_kafka_err2str(rd_kafka_last_error()));
        return false;
    }
    do {
        turn(asking);
        error = rd_kafka_metadata(asking->client, 0, topic, &metadata, TURN_MS);
    } while (error != RD_KAFKA_RESP_ERR_NO_ERROR && advice_for(asking, asking->error) == NULL && in_time(asking, start));
    rd_kafka_topic_destroy(topic);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (asking->error != RD_KAFKA_RESP_ERR_NO_ERROR)
            tell_error(asking, asking->error, asking->said);
        else
            tell_error(asking, error, rd_kafka_err2str(error));
        return false;
    }
    judge_topic(asking, metadata);
    rd_kafka_metadata_destroy(metadata);
    return true;
}

static void send_test_record(struct asking *asking)
{
    struct buf message = { 0 };
    rd_kafka_resp_err_t error;

    if (!asking->probe->send_test_record) {
        probe_tell(asking->probe, FINDING_UNKNOWN, "whether the user may write there shows when something is sent: "
                   "--send-test-record sends one marked record");
        return;
    }
    (void)probe_test_record(asking->probe, &message);
    error = rd_kafka_producev(asking->client, RD_KAFKA_V_TOPIC(asking->set.topic), RD_KAFKA_V_VALUE(message.data, message.size),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        tell_error(asking, error, rd_kafka_err2str(error));
    else
        while (!asking->reported)                  /* message.timeout.ms ends it */
            turn(asking);
    buf_free(&message);
}

static void ask(struct asking *asking, const struct pen_conf *conf, const struct pen_option *rows)
{
    struct probe *probe = asking->probe;
    struct pen_error err = { 0 };

    if (pen_conf_fill(conf, rows, &asking->set, &err) < 0 ||
        kafka_login_new(&asking->login, &asking->set.client, probe->http, probe->loop, &err) < 0 ||
        client_open(asking, &err) < 0)
        probe_tell(probe, FINDING_WRONG, "%s", err.text);
    else if (ask_for_topic(asking) && asking->sink)
        send_test_record(asking);
    kafka_login_forget(asking->login, false);
    if (asking->client != NULL)
        (void)kafka_end(asking->client, END_MS);
    kafka_login_close(asking->login);
}

void kafka_sink_probe(struct probe *probe, const struct pen_conf *conf)
{
    ask(&(struct asking){ .probe = probe, .sink = true }, conf, sink_rows);
}

void kafka_source_probe(struct probe *probe, const struct pen_conf *conf)
{
    ask(&(struct asking){ .probe = probe }, conf, source_rows);
}
