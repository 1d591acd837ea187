/* kafka_probe.h - `penstock check --online` at Kafka and Event Hubs: the `probe` of the sink and of both sources. */
#ifndef DAEMON_KAFKA_PROBE_H
#define DAEMON_KAFKA_PROBE_H

#include "daemon/remote/probe.h"

void kafka_sink_probe(struct probe *probe, const struct pen_conf *conf);
void kafka_source_probe(struct probe *probe, const struct pen_conf *conf);

#endif
