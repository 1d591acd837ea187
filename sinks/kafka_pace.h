/*
 * kafka_pace.h - how much librdkafka is handed at once, so that its threads sleep while brokers work.
 *
 * An idempotent producer has one request in flight per partition. librdkafka 2.0 waits for its answer asleep, unless a message
 * in the queue behind it has become older than linger.ms: then the broker's thread turns without pause until the answer is
 * there. Behind a full queue that was a third of all CPU of flow logs to Kafka. So the queue is kept short, in one of two ways:
 *
 *   near   answers come soon: somewhat less than two requests' worth per partition is outstanding, one on its way and one that fills meanwhile;
 *          what waits is sent before it is old
 *   far    what would wait for an answer would become old: less than a request's worth per partition is handed over in one
 *          go, which linger.ms sends off, and nothing more until all of it is answered
 *
 * Which of them: by how long the first message of a request takes from produce() to its report. In the first that is two round
 * trips, and all is well while one is shorter than linger.ms; in the second it is linger.ms and one: twice linger.ms is the
 * border of both. Partitions are those of reports. Where messages spread unevenly,
 * or answers come late once, the thread turns for a while: it costs CPU, never a message.
 */
#ifndef SINKS_KAFKA_PACE_H
#define SINKS_KAFKA_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KAFKA_PACE_PARTITIONS 256    /* told apart; more share */

struct kafka_pace {
    size_t request;                  /* bytes of values and keys that fill one */
    int64_t border_us;
    int64_t latency_us;              /* of a request's first message, smoothed; 0: none heard yet */
    size_t outstanding;              /* bytes produced and not yet reported */
    bool open;                       /* far: this turn may produce */
    unsigned partitions;             /* told of by reports; before the first one it is as if there were one */
    uint64_t seen[KAFKA_PACE_PARTITIONS / 64];
};

/* Of a new producer. */
void kafka_pace_begin(struct kafka_pace *pace, size_t request, uint32_t linger_ms);
/* Before the first message of a turn of produce(). */
void kafka_pace_turn(struct kafka_pace *pace);
/* May another message follow in this turn? */
bool kafka_pace_allows(const struct kafka_pace *pace);
void kafka_pace_produced(struct kafka_pace *pace, size_t size);
/* A message of that size, value and key, has its report. partition < 0: not known; latency_us < 0: not the first of a request. */
void kafka_pace_reported(struct kafka_pace *pace, size_t size, int32_t partition, int64_t latency_us);

#endif
