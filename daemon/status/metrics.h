/*
 * metrics.h - the numbers of status.h for machines: Prometheus' text, status.json, and the page that explains them.
 *
 * Names come from our own code and configuration, but labels and texts are escaped all the same: a sink's trouble quotes the
 * far end.
 */
#ifndef DAEMON_METRICS_H
#define DAEMON_METRICS_H

#include "daemon/base/buf.h"
#include "daemon/status/status.h"

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Prometheus' text format 0.0.4. Samples of a metric stand together, under one HELP and TYPE. */
void metrics_write(const struct status *status, struct buf *out);
/* The same as one JSON object. `reasons` are health's, one sentence a line; "" where there are none. */
void status_json(const struct status *status, const char *reasons, struct buf *out);
/* conf/metrics.md: every metric, what it is, and what to do when it looks wrong. */
void metrics_explain(struct buf *out);

#endif
