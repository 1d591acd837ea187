/* kafka_partition.c - see kafka_partition.h. */
#include "sinks/kafka_partition.h"

#include <string.h>

/* The values of `partitioner` that look at the key alone, as far as it is not empty. */
static const struct partitioner {
    const char *name;
    int32_t (*choose)(const rd_kafka_topic_t *topic, const void *key, size_t key_size, int32_t partitions, void *opaque,
                      void *message);
} partitioners[] = {
    { "consistent",        rd_kafka_msg_partitioner_consistent },
    { "consistent_random", rd_kafka_msg_partitioner_consistent_random },
    { "murmur2",           rd_kafka_msg_partitioner_murmur2 },
    { "murmur2_random",    rd_kafka_msg_partitioner_murmur2_random },
    { "fnv1a",             rd_kafka_msg_partitioner_fnv1a },
    { "fnv1a_random",      rd_kafka_msg_partitioner_fnv1a_random },
};

/* The loop's thread hears what it asked; librdkafka's own, which chooses for what came before the topic was known, nothing. */
static _Thread_local int32_t chosen;

static int32_t on_partition(const rd_kafka_topic_t *topic, const void *key, size_t key_size, int32_t partitions, void *opaque,
                            void *message)
{
    const struct partitioner *partitioner = opaque;

    return chosen = partitioner->choose(topic, key, key_size, partitions, NULL, message);
}

rd_kafka_topic_t *kafka_partition_topic(rd_kafka_t *producer, const char *name)
{
    rd_kafka_topic_conf_t *conf = rd_kafka_default_topic_conf_dup(producer);
    char wanted[32];
    size_t size = sizeof(wanted);

    if (rd_kafka_topic_conf_get(conf, "partitioner", wanted, &size) != RD_KAFKA_CONF_OK)
        wanted[0] = 0;
    for (size_t i = 0; i < sizeof(partitioners) / sizeof(*partitioners); i++) {
        if (strcmp(partitioners[i].name, wanted) == 0) {
            rd_kafka_topic_conf_set_partitioner_cb(conf, on_partition);
            rd_kafka_topic_conf_set_opaque(conf, (void *)(uintptr_t)&partitioners[i]);
        }
    }
    return rd_kafka_topic_new(producer, name, conf);
}

void kafka_partition_ask(void)
{
    chosen = RD_KAFKA_PARTITION_UA;
}

int32_t kafka_partition_chosen(void)
{
    return chosen;
}
