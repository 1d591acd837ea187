/*
 * kafka.c - the Kafka sink against librdkafka's mock cluster.
 *
 * Promises: delivered only on the report; every batch answered once, on a later turn; what is given up is given up in
 * one piece, so that a resend keeps the order; one bad message costs its neighbours nothing; no setting that would break
 * this is taken.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sinks/kafka.c"             /* the table and the guards are not public */

#include "tests/lib/kafka/lender.h"

#include <librdkafka/rdkafka_mock.h>

#define TOPIC      "azure.security"
#define PARTITIONS 4
#define WORDS_MAX  32

enum { API_PRODUCE = 0, API_INIT_PRODUCER_ID = 22 };

struct world {
    uv_loop_t loop;
    struct pen_host host;
    rd_kafka_t *mock_owner;
    rd_kafka_mock_cluster_t *mock;
    const char *words[WORDS_MAX];
    struct pen_conf conf;
    struct pen_error err;
    void *sink;
    bool stopped;
    int32_t homes[3];                /* the partition in which world_read() found a stream's last message */
    unsigned filled[PARTITIONS];     /* how many it found there */
};

static const char *const streams[] = { "files/a", "files/b", "files/c" };

static int world_open(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    lender_log[0] = 0;
    uv_loop_init(&world->loop);
    world->host = (struct pen_host){ .loop = &world->loop, .schema = "ocsf", .memory_max = 8 << 20 };
    rd_kafka_conf_set(conf, "log_level", "2", NULL, 0);      /* it misses brokers; it needs none */
    world->mock_owner = rd_kafka_new(RD_KAFKA_PRODUCER, conf, NULL, 0);
    world->mock = rd_kafka_mock_cluster_new(world->mock_owner, 1);
    rd_kafka_mock_topic_create(world->mock, TOPIC, PARTITIONS, 1);
    world->conf.words = world->words;
    *state = world;
    return 0;
}

static void world_word(struct world *world, const char *key, const char *value)
{
    size_t i = 0;

    while (world->words[i] && strcmp(world->words[i], key) != 0)
        i += 2;
    assert(i + 2 < WORDS_MAX);
    world->words[i] = key;
    world->words[i + 1] = value;
}

static int world_start(struct world *world)
{
    if (!lender_value(&world->conf, "brokers", NULL))
        world_word(world, "brokers", rd_kafka_mock_cluster_bootstraps(world->mock));
    world_word(world, "topic", TOPIC);
    return kafka_sink.open(&world->sink, &world->host, &world->conf, &world->err);
}

static void on_stopped(void *arg)
{
    ((struct world *)arg)->stopped = true;
}

static void world_stop(struct world *world)
{
    kafka_sink.stop(world->sink, on_stopped, world);
    while (!world->stopped)
        uv_run(&world->loop, UV_RUN_ONCE);
    kafka_sink.close(world->sink);
    world->sink = NULL;
}

static int world_close(void **state)
{
    struct world *world = *state;

    if (world->sink)
        world_stop(world);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world->loop), 0);
    rd_kafka_mock_cluster_destroy(world->mock);
    rd_kafka_destroy(world->mock_owner);
    free(world);
    return 0;
}

static struct loan *world_submit(struct world *world, const char *const *texts, const uint32_t *of, uint32_t count)
{
    struct loan *loan = loan_new(texts, of, count, streams);

    loan_submit(loan, &kafka_sink, world->sink);
    assert_false(loan->answer.given);
    return loan;
}

static void world_wait(struct world *world, const struct loan *loan)
{
    while (!loan->answer.given)
        uv_run(&world->loop, UV_RUN_ONCE);
}

/* Many texts "<mark>-<i>", padded to size. Freed with the test's process. */
static const char **texts_new(const char *mark, uint32_t count, size_t size)
{
    const char **texts = calloc(count, sizeof(*texts));

    for (uint32_t i = 0; i < count; i++) {
        char *text = malloc(size + 32);
        int n = snprintf(text, size + 32, "%s-%u", mark, i);

        if ((size_t)n < size)
            memset(text + n, 'x', size - (size_t)n), text[size] = 0;
        texts[i] = text;
    }
    return texts;
}

static void texts_free(const char **texts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        free((void *)(uintptr_t)texts[i]);
    free(texts);
}

/* Everything in the topic, partition by partition: "key=value\n" each. The caller's to free. */
static char *world_read(struct world *world)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(PARTITIONS);
    char *out = calloc(1, 4 << 20), *end = out;
    int ends = 0;
    rd_kafka_t *reader;

    rd_kafka_conf_set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(world->mock), NULL, 0);
    rd_kafka_conf_set(conf, "group.id", "reader", NULL, 0);
    rd_kafka_conf_set(conf, "enable.partition.eof", "true", NULL, 0);
    rd_kafka_conf_set(conf, "auto.offset.reset", "earliest", NULL, 0);
    reader = rd_kafka_new(RD_KAFKA_CONSUMER, conf, NULL, 0);
    for (int32_t i = 0; i < PARTITIONS; i++)
        rd_kafka_topic_partition_list_add(all, TOPIC, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_assign(reader, all);
    while (ends < PARTITIONS) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(reader, 1000);

        if (!message)
            continue;
        if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
            ends++;
        if (!message->err) {
            world->filled[message->partition]++;
            for (size_t s = 0; s < 3; s++)
                if (message->key_len == strlen(streams[s]) && memcmp(message->key, streams[s], message->key_len) == 0)
                    world->homes[s] = message->partition;
            end += sprintf(end, "%.*s=%.*s\n", (int)message->key_len, (char *)message->key,
                           message->len < 40 ? (int)message->len : 40, (char *)message->payload);
        }
        rd_kafka_message_destroy(message);
    }
    rd_kafka_topic_partition_list_destroy(all);
    rd_kafka_consumer_close(reader);
    rd_kafka_destroy(reader);
    return out;
}

static unsigned count_lines(const char *text)
{
    unsigned lines = 0;

    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* ---- Promises -------------------------------------------------------------------------------------------------- */

static void every_error_has_its_outcome(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(kafka_outcomes) / sizeof(*kafka_outcomes); i++) {
        assert_int_equal(kafka_outcome(kafka_outcomes[i].error), kafka_outcomes[i].outcome);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(kafka_outcomes[i].error, kafka_outcomes[j].error);
    }
    assert_int_equal(kafka_outcome(RD_KAFKA_RESP_ERR_UNKNOWN), PEN_RETRY);
    assert_int_equal(kafka_outcome((rd_kafka_resp_err_t)12345), PEN_RETRY);
}

static void batches_are_delivered_in_order_with_their_key(void **state)
{
    static const char *const one[] = { "{\"n\":1}", "{\"n\":2}", "{\"n\":3}" };
    static const char *const two[] = { "{\"n\":4}", "{\"n\":5}" };
    static const uint32_t of_one[] = { 0, 1, 0 }, of_two[] = { 0, 1 };
    struct world *world = *state;
    struct loan *first, *second;
    char *read;

    assert_int_equal(world_start(world), 0);
    first = world_submit(world, one, of_one, 3);
    second = world_submit(world, two, of_two, 2);
    world_wait(world, first);
    world_wait(world, second);
    assert_int_equal(first->answer.outcome, PEN_DELIVERED);
    assert_int_equal(second->answer.outcome, PEN_DELIVERED);
    assert_null(first->answer.each);
    read = world_read(world);
    assert_int_equal(count_lines(read), 5);
    assert_non_null(strstr(read, "files/a={\"n\":1}\nfiles/a={\"n\":3}\nfiles/a={\"n\":4}\n"));
    assert_non_null(strstr(read, "files/b={\"n\":2}\nfiles/b={\"n\":5}\n"));
    assert_string_equal(lender_log, "");         /* a healthy stream logs nothing */
    free(read);
    loan_free(first);
    loan_free(second);
}

typedef int32_t partitioner(const rd_kafka_topic_t *topic, const void *key, size_t key_size, int32_t partitions, void *opaque,
                            void *message);

/* Every stream's messages are in one partition, the chooser's, and in their order: those from before the topic was known, those
 * handed over one by one, and those in runs. */
static void streams_go_where(struct world *world, partitioner *choose)
{
    const char **texts = texts_new("n", 1000, 20);
    struct loan *loans[2];
    uint32_t of[1000];
    char *read;

    for (uint32_t i = 0; i < 1000; i++)
        of[i] = i < 800 ? i / 400 : i % 3;
    assert_int_equal(world_start(world), 0);
    loans[0] = world_submit(world, texts, of, 1000);
    world_wait(world, loans[0]);
    loans[1] = world_submit(world, texts, of, 1000);
    world_wait(world, loans[1]);
    read = world_read(world);
    assert_int_equal(count_lines(read), 2000);
    for (uint32_t s = 0; s < 3; s++) {
        const char *at = read;

        assert_int_equal(world->homes[s], choose(NULL, streams[s], strlen(streams[s]), PARTITIONS, NULL, NULL));
        for (uint32_t i = 0; i < 2000; i++) {
            char line[64];

            if (of[i % 1000] != s)
                continue;
            snprintf(line, sizeof(line), "%s=n-%ux", streams[s], i % 1000);
            at = strstr(at, line);
            assert_non_null(at);
            at++;
        }
    }
    free(read);
    loan_free(loans[0]);
    loan_free(loans[1]);
    texts_free(texts, 1000);
}

static void streams_go_where_any_client_puts_them(void **state)
{
    streams_go_where(*state, rd_kafka_msg_partitioner_consistent_random);
}

static void streams_go_where_java_clients_put_them(void **state)
{
    struct world *world = *state;

    world_word(world, "kafka.partitioner", "murmur2_random");
    streams_go_where(world, rd_kafka_msg_partitioner_murmur2_random);
}

/* Here it is no key that decides: as librdkafka likes. */
static void random_partitions_are_left_to_the_client(void **state)
{
    struct world *world = *state;
    const char **texts = texts_new("n", 1000, 20);
    unsigned used = 0;
    struct loan *loan;
    char *read;

    world_word(world, "kafka.partitioner", "random");
    assert_int_equal(world_start(world), 0);
    loan = world_submit(world, texts, NULL, 1000);
    world_wait(world, loan);
    assert_int_equal(loan->answer.outcome, PEN_DELIVERED);
    read = world_read(world);
    assert_int_equal(count_lines(read), 1000);
    for (int i = 0; i < PARTITIONS; i++)
        used += world->filled[i] > 0;
    assert_int_equal(used, PARTITIONS);
    free(read);
    loan_free(loan);
    texts_free(texts, 1000);
}

static void key_none_sends_no_key(void **state)
{
    static const char *const texts[] = { "{}" };
    struct world *world = *state;
    struct loan *loan;
    char *read;

    world_word(world, "key", "none");
    assert_int_equal(world_start(world), 0);
    loan = world_submit(world, texts, NULL, 1);
    world_wait(world, loan);
    read = world_read(world);
    assert_string_equal(read, "={}\n");
    free(read);
    loan_free(loan);
}

/* The whole road for one row of the table: the broker's answer to a produce request, and what the daemon hears. */
static enum pen_outcome world_answer_to(struct world *world, rd_kafka_resp_err_t error, char *why, size_t size)
{
    static const char *const texts[] = { "{\"alone\":true}" };
    enum pen_outcome outcome;
    struct loan *loan;

    rd_kafka_mock_push_request_errors(world->mock, API_PRODUCE, 1, error);
    loan = world_submit(world, texts, NULL, 1);
    world_wait(world, loan);
    outcome = loan->answer.outcome;
    snprintf(why, size, "%s", loan->answer.why);
    loan_free(loan);
    return outcome;
}

static void permanent_errors_become_refusals(void **state)
{
    static const rd_kafka_resp_err_t errors[] = {
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,            RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS,
        RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE,
    };
    struct world *world = *state;
    char why[512];

    assert_int_equal(world_start(world), 0);
    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        assert_int_equal(world_answer_to(world, errors[i], why, sizeof(why)), PEN_REFUSED);
        assert_non_null(strstr(why, rd_kafka_err2str(errors[i])));
        assert_non_null(strstr(why, "topic " TOPIC ": "));
        assert_non_null(strstr(why, "; "));      /* what to mend */
    }
    assert_int_equal(world_answer_to(world, RD_KAFKA_RESP_ERR_NO_ERROR, why, sizeof(why)), PEN_DELIVERED);
}

static void transient_errors_are_resent_inside(void **state)
{
    static const rd_kafka_resp_err_t errors[] = {
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,        RD_KAFKA_RESP_ERR__TRANSPORT,
    };
    struct world *world = *state;
    char why[512];

    assert_int_equal(world_start(world), 0);
    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
        assert_int_equal(world_answer_to(world, errors[i], why, sizeof(why)), PEN_DELIVERED);
}

static void unknown_topic_is_refused(void **state)
{
    struct world *world = *state;
    char why[512];

    world_word(world, "kafka.topic.metadata.propagation.max.ms", "100");
    world_word(world, "kafka.topic.metadata.refresh.fast.interval.ms", "50");
    rd_kafka_mock_topic_set_error(world->mock, TOPIC, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    assert_int_equal(world_start(world), 0);
    assert_int_equal(world_answer_to(world, 0, why, sizeof(why)), PEN_REFUSED);
    assert_non_null(strstr(why, "nknown topic"));
}

static void producer_without_rights_is_refused_and_made_anew(void **state)
{
    struct world *world = *state;
    char why[512];

    rd_kafka_mock_push_request_errors(world->mock, API_INIT_PRODUCER_ID, 1,
                                      RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED);
    assert_int_equal(world_start(world), 0);
    assert_int_equal(world_answer_to(world, 0, why, sizeof(why)), PEN_REFUSED);
    assert_int_equal(world_answer_to(world, 0, why, sizeof(why)), PEN_DELIVERED);
}

static void large_message_is_rejected_alone(void **state)
{
    struct world *world = *state;
    const char **big = texts_new("big", 1, 1200000);
    const char *texts[] = { "{\"n\":1}", big[0], "{\"n\":3}" };
    struct loan *loan;
    char *read;

    assert_int_equal(world_start(world), 0);
    loan = world_submit(world, texts, NULL, 3);
    world_wait(world, loan);
    assert_int_equal(loan_outcome(loan, 0), PEN_DELIVERED);
    assert_int_equal(loan_outcome(loan, 1), PEN_REJECTED);
    assert_int_equal(loan_outcome(loan, 2), PEN_DELIVERED);
    assert_string_equal(loan->answer.why, "status MSG_SIZE_TOO_LARGE: Broker: Message size too large");
    read = world_read(world);
    assert_int_equal(count_lines(read), 2);
    free(read);
    loan_free(loan);
    loan = world_submit(world, &texts[1], NULL, 1);      /* nothing reaches librdkafka: still answered, on a later turn */
    world_wait(world, loan);
    assert_int_equal(loan_outcome(loan, 0), PEN_REJECTED);
    loan_free(loan);
    texts_free(big, 1);
}

/* max.message.bytes fails the record batch: its messages are innocent. */
static void large_record_batch_is_narrowed_not_rejected(void **state)
{
    struct world *world = *state;
    const char **texts = texts_new("n", 100, 3000);
    struct loan *loan;

    assert_int_equal(world_start(world), 0);
    rd_kafka_mock_push_request_errors(world->mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    loan = world_submit(world, texts, NULL, 100);
    world_wait(world, loan);
    assert_int_equal(loan_outcome(loan, 0), PEN_RETRY);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_not_equal(loan_outcome(loan, i), PEN_REJECTED);
    loan_free(loan);
    assert_int_equal(((struct kafka *)world->sink)->batch_size_max, 500000);
    loan = world_submit(world, texts, NULL, 100);
    world_wait(world, loan);
    assert_int_equal(loan->answer.outcome, PEN_DELIVERED);
    assert_int_equal(((struct kafka *)world->sink)->batch_size, 500000);
    loan_free(loan);
    texts_free(texts, 100);
}

static void message_as_large_as_a_record_batch_is_rejected(void **state)
{
    struct world *world = *state;
    const char **texts = texts_new("n", 1, 3000);
    struct loan *loan;

    world_word(world, "kafka.batch.size", "2000");
    assert_int_equal(world_start(world), 0);
    rd_kafka_mock_push_request_errors(world->mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    loan = world_submit(world, texts, NULL, 1);
    world_wait(world, loan);
    assert_int_equal(loan->answer.outcome, PEN_REJECTED);
    loan_free(loan);
    texts_free(texts, 1);
}

static void invalid_record_is_found_among_its_neighbours(void **state)
{
    struct world *world = *state;
    const char **texts = texts_new("n", 20, 20);
    struct loan *loan;
    char *read;

    assert_int_equal(world_start(world), 0);
    rd_kafka_mock_push_request_errors(world->mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_INVALID_RECORD);
    loan = world_submit(world, texts, NULL, 20);
    world_wait(world, loan);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(loan_outcome(loan, i), PEN_RETRY);
    loan_free(loan);
    /* alone now: the third one fails, and only it */
    rd_kafka_mock_push_request_errors(world->mock, API_PRODUCE, 3, 0, 0, RD_KAFKA_RESP_ERR_INVALID_RECORD);
    loan = world_submit(world, texts, NULL, 20);
    world_wait(world, loan);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(loan_outcome(loan, i), i == 2 ? PEN_REJECTED : PEN_DELIVERED);
    loan_free(loan);
    read = world_read(world);
    assert_int_equal(count_lines(read), 19);
    free(read);
    /* the suspects are through: after one more hand-over, record batches are shared again */
    do {
        loan = world_submit(world, texts, NULL, 20);
        world_wait(world, loan);
        if (loan->answer.outcome != PEN_RETRY)
            break;
        loan_free(loan);
    } while (true);
    assert_int_equal(loan->answer.outcome, PEN_DELIVERED);
    assert_false(((struct kafka *)world->sink)->producer_alone);
    loan_free(loan);
    texts_free(texts, 20);
}

/* Lets the loop run for a while: the linger passes, and what was submitted is on its way. */
static void world_run(struct world *world, uint64_t ms)
{
    uint64_t end_ms = uv_now(&world->loop) + ms;

    while (uv_now(&world->loop) < end_ms)
        uv_run(&world->loop, UV_RUN_ONCE);
}

/* One request is refused, and the next, on its way already, is taken: what librdkafka concludes of the first is untrue.
 * Returns the outcomes of both, and expects that one more try brings everything there. */
static void world_infer(struct world *world, struct loan *loans[2])
{
    static const char *const first[] = { "{\"n\":1}" }, *const second[] = { "{\"n\":2}", "{\"n\":3}" };

    rd_kafka_mock_broker_set_rtt(world->mock, 1, 400);
    rd_kafka_mock_push_request_errors(world->mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
    loans[0] = world_submit(world, first, NULL, 1);
    world_run(world, 100);
    loans[1] = world_submit(world, second, NULL, 2);
    world_wait(world, loans[0]);
    world_wait(world, loans[1]);
    rd_kafka_mock_broker_set_rtt(world->mock, 1, 0);
}

static void delivery_without_an_offset_is_not_believed(void **state)
{
    static const char *const texts[] = { "{\"n\":0}" };
    struct world *world = *state;
    struct loan *loans[2], *loan;
    char why[512], *read;

    assert_int_equal(world_start(world), 0);
    assert_int_equal(world_answer_to(world, 0, why, sizeof(why)), PEN_DELIVERED);    /* a producer is there, and known */
    world_infer(world, loans);
    assert_int_equal(loan_outcome(loans[0], 0), PEN_RETRY);
    read = world_read(world);
    assert_null(strstr(read, "\"n\":1"));        /* or this test tells nothing */
    free(read);
    loan_free(loans[0]);
    loan_free(loans[1]);
    loan = world_submit(world, texts, NULL, 1);
    world_wait(world, loan);
    assert_int_equal(loan->answer.outcome, PEN_DELIVERED);
    loan_free(loan);
}

/* Where no report ever names an offset, messages must get through all the same. */
static void far_end_without_offsets_is_believed_in_the_end(void **state)
{
    const rd_kafka_message_t told = { .offset = 7 }, untold = { .offset = RD_KAFKA_OFFSET_INVALID };
    struct kafka kafka = { 0 };

    (void)state;
    assert_false(kafka_is_told(&kafka, &untold));
    kafka.offsetless = OFFSETLESS_MAX;
    assert_true(kafka_is_told(&kafka, &untold));
    assert_true(kafka_is_told(&kafka, &told));
    assert_false(kafka_is_told(&kafka, &untold));
}

/* The broker is gone: after `timeout` all come back as RETRY, in order; when it is there again, all go. */
static void outage_gives_everything_back_in_order(void **state)
{
    static const char *const texts[] = { "{\"n\":1}", "{\"n\":2}" };
    struct world *world = *state;
    struct loan *loans[3];

    world_word(world, "timeout", "1s");
    world_word(world, "kafka.reconnect.backoff.max.ms", "100");
    assert_int_equal(world_start(world), 0);
    rd_kafka_mock_broker_set_down(world->mock, 1);
    for (int i = 0; i < 3; i++)
        loans[i] = world_submit(world, texts, NULL, 2);
    for (int i = 0; i < 3; i++) {
        world_wait(world, loans[i]);
        assert_int_equal(loans[i]->answer.outcome, PEN_RETRY);
        assert_non_null(strstr(loans[i]->answer.why, "1000 ms"));
        loan_free(loans[i]);
    }
    rd_kafka_mock_broker_set_up(world->mock, 1);
    for (int i = 0; i < 3; i++)
        loans[i] = world_submit(world, texts, NULL, 2);
    for (int i = 0; i < 3; i++) {
        world_wait(world, loans[i]);
        assert_int_equal(loans[i]->answer.outcome, PEN_DELIVERED);
        loan_free(loans[i]);
    }
}

static void full_queue_holds_and_goes_on(void **state)
{
    struct world *world = *state;
    const char **texts = texts_new("n", 5000, 200);
    struct loan *loans[4];
    char *read, *at;

    world->host.memory_max = 1;                  /* as little as it takes: MESSAGES_MIN messages at once */
    assert_int_equal(world_start(world), 0);
    for (int i = 0; i < 4; i++)
        loans[i] = world_submit(world, texts, NULL, 5000);
    for (int i = 0; i < 4; i++) {
        world_wait(world, loans[i]);
        assert_int_equal(loans[i]->answer.outcome, PEN_DELIVERED);
        loan_free(loans[i]);
    }
    read = world_read(world);
    assert_int_equal(count_lines(read), 20000);
    at = read;
    for (int i = 0; i < 20000; i++) {            /* one stream, one partition: in order */
        char expected[64];
        int n = snprintf(expected, sizeof(expected), "files/a=n-%dx", i % 5000);

        assert_memory_equal(at, expected, n);
        at = strchr(at, '\n') + 1;
    }
    free(read);
    texts_free(texts, 5000);
}

static void limits_are_the_settings(void **state)
{
    struct world *world = *state;
    const struct pen_limits *limits;

    world_word(world, "batch_bytes", "500000");
    world_word(world, "in_flight", "3");
    assert_int_equal(world_start(world), 0);
    limits = kafka_sink.limits(world->sink);
    assert_int_equal(limits->bytes_max, 500000);
    assert_int_equal(limits->in_flight_max, 3);
    assert_true(limits->memory <= world->host.memory_max);
    assert_false(limits->by_kind);
}

static void stop_delivers_what_is_on_its_way(void **state)
{
    static const char *const texts[] = { "{\"n\":1}" };
    struct world *world = *state;
    struct loan *loan;

    assert_int_equal(world_start(world), 0);
    loan = world_submit(world, texts, NULL, 1);
    world_stop(world);
    assert_true(loan->answer.given);
    assert_int_equal(loan->answer.outcome, PEN_DELIVERED);
    loan_free(loan);
}

static void stop_is_bounded_when_the_broker_is_gone(void **state)
{
    static const char *const texts[] = { "{\"n\":1}" };
    struct world *world = *state;
    uint64_t start_ms;
    struct loan *loan;

    assert_int_equal(world_start(world), 0);
    rd_kafka_mock_broker_set_down(world->mock, 1);
    loan = world_submit(world, texts, NULL, 1);
    start_ms = uv_now(&world->loop);
    world_stop(world);
    assert_true(loan->answer.given);
    assert_int_equal(loan->answer.outcome, PEN_RETRY);
    assert_true(uv_now(&world->loop) - start_ms < 8000);
    loan_free(loan);
}

/* librdkafka 2.0 may wait for ever for a thread of its own. */
static uv_sem_t end_may_go_on, ended;
static bool hold_end;

void rd_kafka_destroy_flags(rd_kafka_t *rk, int flags)
{
    void (*really)(rd_kafka_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_destroy_flags");
    bool held = hold_end;

    if (held)
        uv_sem_wait(&end_may_go_on);
    really(rk, flags);
    if (held)
        uv_sem_post(&ended);
}

static void stop_does_not_wait_for_a_producer_that_never_ends(void **state)
{
    static const char *const texts[] = { "m-0" };
    struct world *world = *state;
    struct loan *loan;

    uv_sem_init(&end_may_go_on, 0);
    uv_sem_init(&ended, 0);
    assert_int_equal(world_start(world), 0);
    loan = world_submit(world, texts, NULL, 1);
    world_wait(world, loan);
    assert_int_equal(loan->answer.outcome, PEN_DELIVERED);
    loan_free(loan);
    hold_end = true;
    world_stop(world);
    hold_end = false;
    uv_sem_post(&end_may_go_on);
    uv_sem_wait(&ended);                         /* it ends after all, and without us */
    uv_sem_destroy(&ended);
    uv_sem_destroy(&end_may_go_on);
}

/* A sink that was shut out while idle must not let the first batch wait for the whole timeout. */
static void idle_producer_that_died_is_made_anew(void **state)
{
    struct world *world = *state;
    char why[512];

    rd_kafka_mock_push_request_errors(world->mock, API_INIT_PRODUCER_ID, 1,
                                      RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED);
    assert_int_equal(world_start(world), 0);
    while (((struct kafka *)world->sink)->producer)
        uv_run(&world->loop, UV_RUN_ONCE);
    assert_int_equal(world_answer_to(world, 0, why, sizeof(why)), PEN_DELIVERED);
}

static struct loan *late;

static void on_answer_submit_and_stop(struct loan *loan)
{
    struct world *world = loan->arg;

    loan_submit(late, &kafka_sink, world->sink);
    kafka_sink.stop(world->sink, on_stopped, world);
}

/* An answer may bring the next batch at once, and even the end. */
static void submit_and_stop_from_inside_an_answer(void **state)
{
    static const char *const texts[] = { "{\"n\":1}" };
    struct world *world = *state;
    struct loan *loan = loan_new(texts, NULL, 1, streams);

    late = loan_new(texts, NULL, 1, streams);
    loan->on_answer = on_answer_submit_and_stop;
    loan->arg = world;
    assert_int_equal(world_start(world), 0);
    rd_kafka_mock_push_request_errors(world->mock, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    loan_submit(loan, &kafka_sink, world->sink);
    while (!world->stopped)
        uv_run(&world->loop, UV_RUN_ONCE);
    assert_int_equal(loan->answer.outcome, PEN_REFUSED);
    assert_int_equal(late->answer.outcome, PEN_DELIVERED);
    kafka_sink.close(world->sink);
    world->sink = NULL;
    loan_free(loan);
    loan_free(late);
}

/* ---- Settings -------------------------------------------------------------------------------------------------- */

static void refused_settings_name_the_culprit(void **state)
{
    static const struct {
        const char *key, *value, *word;
    } rows[] = {
        { "kafka.acks", "1", "acks" },
        { "kafka.acks", "0", "acks" },
        { "kafka.request.required.acks", "1", "acks" },
        { "kafka.enable.idempotence", "false", "idempotence" },
        { "kafka.message.timeout.ms", "5", "timeout" },
        { "kafka.queue.buffering.max.messages", "5", "memory" },
        { "kafka.sasl.password", "hunter2", "password_file" },
        { "kafka.plugin.library.paths", "x.so", "plugin.library.paths" },
        { "kafka.compresion.codec", "lz4", "compresion.codec" },
        { "kafka.compression.codec", "lz5", "compression.codec" },
        { "kafka.max.in.flight", "6", "max.in.flight" },
        { "username", "joe", "password_file" },
        { "password_file", "/nowhere", "username" },
        { "connection_string_file", "/nowhere", "/nowhere" },
        { "security", "sasl", "security" },
        { "brokers", "acme.servicebus.windows.net:9093", "connection_string_file" },
    };
    struct world *world = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        memset(world->words, 0, sizeof(world->words));
        world_word(world, rows[i].key, rows[i].value);
        assert_true(world_start(world) < 0);
        assert_null(world->sink);
        assert_non_null(strstr(world->err.text, rows[i].word));
        assert_null(strstr(world->err.text, "hunter2"));
    }
}

static void allowed_settings_pass_through(void **state)
{
    struct world *world = *state;

    world_word(world, "kafka.acks", "-1");
    world_word(world, "kafka.compression.codec", "lz4");
    world_word(world, "kafka.linger.ms", "50");
    assert_int_equal(world_start(world), 0);
}

static void switched_off_verification_is_told(void **state)
{
    struct world *world = *state;

    world_word(world, "brokers", "127.0.0.1:1");
    world_word(world, "security", "ssl");
    world_word(world, "kafka.enable.ssl.certificate.verification", "false");
    assert_int_equal(world_start(world), 0);
    assert_non_null(strstr(lender_log, "<4>brokers are not verified"));
}

static const char *secret_file(const char *content)
{
    static char path[64];
    FILE *file;

    strcpy(path, "/tmp/penstock-test-XXXXXX");
    file = fdopen(mkstemp(path), "w");
    fputs(content, file);
    fclose(file);
    return path;
}

static const char *conf_text(const rd_kafka_conf_t *conf, const char *key)
{
    static char text[256];
    size_t size = sizeof(text);

    assert_int_equal(rd_kafka_conf_get(conf, key, text, &size), RD_KAFKA_CONF_OK);
    return text;
}

/* The tested profile for Event Hubs: what Azure asks for, and what it does not take. */
static void connection_string_brings_the_event_hubs_profile(void **state)
{
    const char *path = secret_file("Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=s\n");
    struct world *world = *state;
    struct kafka kafka = { .batch_size_max = SIZE_MAX };
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    world_word(world, "brokers", "acme.servicebus.windows.net:9093");
    world_word(world, "topic", "hub");
    world_word(world, "connection_string_file", path);
    assert_int_equal(pen_conf_fill(&world->conf, kafka_options, &kafka, &world->err), 0);
    kafka_set_limits(&kafka, 8 << 20);
    assert_int_equal(kafka_check(&kafka, &world->err), 0);
    assert_int_equal(kafka_configure(conf, &kafka, &world->err), 0);
    assert_string_equal(conf_text(conf, "security.protocol"), "sasl_ssl");
    assert_string_equal(conf_text(conf, "sasl.mechanism"), "PLAIN");
    assert_string_equal(conf_text(conf, "sasl.username"), "$ConnectionString");
    assert_int_equal(strncmp(conf_text(conf, "sasl.password"), "Endpoint=sb://acme", 18), 0);
    assert_string_equal(conf_text(conf, "metadata.max.age.ms"), "180000");
    assert_string_equal(conf_text(conf, "connections.max.idle.ms"), "180000");
    assert_string_equal(conf_text(conf, "request.timeout.ms"), "60000");
    assert_string_equal(conf_text(conf, "socket.keepalive.enable"), "true");
    assert_string_equal(conf_text(conf, "acks"), "-1");
    rd_kafka_conf_destroy(conf);
    world_word(world, "kafka.compression.codec", "lz4");
    assert_int_equal(pen_conf_fill(&world->conf, kafka_options, &kafka, &world->err), 0);
    assert_int_equal(kafka_check(&kafka, &world->err), UV_EINVAL);
    assert_non_null(strstr(world->err.text, "gzip"));
    unlink(path);
}

static void connection_string_must_look_like_one(void **state)
{
    const char *path = secret_file("s3cret-but-no-connection-string\n");
    struct world *world = *state;

    world_word(world, "connection_string_file", path);
    assert_int_equal(world_start(world), UV_EINVAL);
    assert_non_null(strstr(world->err.text, path));
    assert_null(strstr(world->err.text, "s3cret"));
    unlink(path);
}

#define PROMISE(name) cmocka_unit_test_setup_teardown(name, world_open, world_close)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_has_its_outcome),
        PROMISE(batches_are_delivered_in_order_with_their_key),
        PROMISE(streams_go_where_any_client_puts_them),
        PROMISE(streams_go_where_java_clients_put_them),
        PROMISE(random_partitions_are_left_to_the_client),
        PROMISE(key_none_sends_no_key),
        PROMISE(permanent_errors_become_refusals),
        PROMISE(transient_errors_are_resent_inside),
        PROMISE(unknown_topic_is_refused),
        PROMISE(producer_without_rights_is_refused_and_made_anew),
        PROMISE(large_message_is_rejected_alone),
        PROMISE(large_record_batch_is_narrowed_not_rejected),
        PROMISE(message_as_large_as_a_record_batch_is_rejected),
        PROMISE(invalid_record_is_found_among_its_neighbours),
        PROMISE(delivery_without_an_offset_is_not_believed),
        cmocka_unit_test(far_end_without_offsets_is_believed_in_the_end),
        PROMISE(outage_gives_everything_back_in_order),
        PROMISE(full_queue_holds_and_goes_on),
        PROMISE(limits_are_the_settings),
        PROMISE(stop_delivers_what_is_on_its_way),
        PROMISE(stop_is_bounded_when_the_broker_is_gone),
        PROMISE(stop_does_not_wait_for_a_producer_that_never_ends),
        PROMISE(idle_producer_that_died_is_made_anew),
        PROMISE(submit_and_stop_from_inside_an_answer),
        PROMISE(refused_settings_name_the_culprit),
        PROMISE(allowed_settings_pass_through),
        PROMISE(switched_off_verification_is_told),
        PROMISE(connection_string_brings_the_event_hubs_profile),
        PROMISE(connection_string_must_look_like_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
