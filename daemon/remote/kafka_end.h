/*
 * kafka_end.h - the end of a client of librdkafka, waited for, but not for ever.
 *
 * Destroying one joins its threads. A thread may sit in a name lookup; and in librdkafka 2.0 one that served a topic while it was
 * deleted may never end. So it happens on a thread of its own, which is left to the end of the process when its time is over.
 */
#ifndef DAEMON_KAFKA_END_H
#define DAEMON_KAFKA_END_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

/* Destroys the client, without leaving its group: a consumer has been closed before. Blocks for up to `ms`: for the pool. False:
 * the client is not gone yet, so nothing that it was lent may be taken back unless it has given it back itself. */
bool kafka_end(rd_kafka_t *client, uint64_t ms);

#endif
