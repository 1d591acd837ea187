/*
 * kafka_partition.h - where a key belongs, asked once for many messages.
 *
 * For every message of its own librdkafka takes the topic's lock, looks at two clocks and computes the hash of its key; for an array
 * of messages with a partition of their own it does so once, or not at all. But how many partitions a topic has it tells nobody,
 * except the function that it lets choose one. So ours is that function: it chooses as librdkafka would, and remembers.
 */
#ifndef SINKS_KAFKA_PARTITION_H
#define SINKS_KAFKA_PARTITION_H

#include <librdkafka/rdkafka.h>
#include <stdint.h>

/* The topic, for messages with a key. Each goes where the property `partitioner` of the producer sends it. NULL: the client's
 * last error tells why. */
rd_kafka_topic_t *kafka_partition_topic(rd_kafka_t *producer, const char *name);

/* Before a message is produced without a partition, and after it: the one that was chosen for it. RD_KAFKA_PARTITION_UA: none was,
 * because the topic's partitions are not known yet, or it is not for the key to say. */
void kafka_partition_ask(void);
int32_t kafka_partition_chosen(void);

#endif
