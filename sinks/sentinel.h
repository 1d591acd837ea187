/*
 * sentinel.h - the Sentinel sink seen from outside: where it is set to deliver, and what its far end's answers mean. For
 * those who look at the far end without being the sink: `penstock dcr`, `penstock check --online`, the comparison at start.
 */
#ifndef SINKS_SENTINEL_H
#define SINKS_SENTINEL_H

#include "daemon/remote/entra.h"
#include "sinks/sink.h"

struct sentinel_target {             /* texts belong to the configuration */
    const char *endpoint;            /* https://HOST, maybe with a slash behind it */
    const char *dcr;                 /* immutable id */
    const char *streams[PEN_KINDS];  /* of the DCR, where messages of a kind go */
    const char *resource_id;         /* of the DCR, in Azure Resource Manager; NULL: not set */
    struct pen_span management;      /* Azure Resource Manager's address, https://HOST */
    struct entra_conf entra;         /* for tokens of the ingestion API, … */
    struct entra_conf management_entra;                            /* … and of Azure Resource Manager */
    struct http_conf http;
};

/* By the settings of a [sink NAME] section of this type, for messages in that schema. */
int sentinel_target_read(struct sentinel_target *ret, const struct pen_conf *conf, const char *schema,
                         struct pen_error *err);
/* sentinel_probe.c: the sink's `probe`. */
void sentinel_probe(struct probe *probe, const struct pen_conf *conf);
/* sentinel_metrics.c: findings about what the DCR counted, and lost, in the last hour. */
void sentinel_metrics(struct probe *probe, const struct sentinel_target *target);

/* ---- What the DCR itself counts: sentinel_metrics.c ---- */

struct sentinel_counts {             /* sums; negative: not told */
    int64_t received, dropped, errors, columns;
};
/* Names for one request. The second is newer, and a name that the service does not know costs the whole request. */
#define SENTINEL_METRICS_ROWS "RowsReceived_Count,RowsDropped_Count,TransformationErrors_Count"
#define SENTINEL_METRICS_COLUMNS "ColumnsDroppedCount"
/* To be freed. From and to: seconds since 1970; interval: "PT1M", "PT1H". */
char *sentinel_metrics_url(const struct sentinel_target *target, const char *names, const char *interval, int64_t from, int64_t to);
/* Fills in what the answer holds; false: it is no answer. Padding behind the body as http.h says. */
bool sentinel_metrics_read(struct sentinel_counts *counts, struct pen_span body);

/* The ingestion API's answer to a post of one message: the outcome, and one sentence for people that begins with the status. */
enum pen_outcome sentinel_judge(char why[static 512], const struct http_answer *answer, const char *stream);

#endif
