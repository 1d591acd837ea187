/*
 * mock_kafka.c - librdkafka's mock cluster as a program of its own: a Kafka that is there in a blink, for the demo.
 *
 *     mock-kafka TOPIC…        prints the brokers' addresses as one line, lives until standard input ends
 *
 * It keeps 5 MB a partition in memory and forgets the oldest beyond that: enough to show, not to test for losses.
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <unistd.h>

enum { BROKERS = 1, PARTITIONS = 4 };

static void wait_for_end_of_input(void)
{
    char bytes[256];

    while (read(STDIN_FILENO, bytes, sizeof(bytes)) > 0)
        ;
}

int main(int argc, char **argv)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    /* The handle around the cluster has no brokers of its own and would remark on it. */
    rd_kafka_conf_set(conf, "log_level", "3", NULL, 0);
    rd_kafka_t *kafka = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
    rd_kafka_mock_cluster_t *cluster = kafka ? rd_kafka_mock_cluster_new(kafka, BROKERS) : NULL;

    if (!cluster) {
        fprintf(stderr, "mock-kafka: no cluster%s%s\n", kafka ? "" : ": ", kafka ? "" : why);
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        rd_kafka_resp_err_t err = rd_kafka_mock_topic_create(cluster, argv[i], PARTITIONS, 1);

        if (err) {
            fprintf(stderr, "mock-kafka: topic %s: %s\n", argv[i], rd_kafka_err2str(err));
            return 1;
        }
    }
    printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
    fflush(stdout);
    wait_for_end_of_input();
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(kafka);
    return 0;
}
