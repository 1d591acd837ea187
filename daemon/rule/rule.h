/*
 * rule.h - the data collection rule (DCR) that Sentinel sinks need: its streams, their columns, the tables they end in. And
 * the comparison with one that is deployed.
 *
 * The bounds are Microsoft's, on the structure of data collection rules: input streams are named Custom-…, one data flow
 * takes each, and its output is a table of Microsoft's (Microsoft-…) or a custom one (Custom-…_CL).
 */
#ifndef DAEMON_RULE_H
#define DAEMON_RULE_H

#include "daemon/config/settings.h"
#include "daemon/remote/finding.h"
#include "daemon/schema/schema.h"
#include "sinks/sentinel.h"

#define RULE_STREAMS_MAX (SETTINGS_SINKS_MAX * PEN_KINDS)
#define RULE_OUTPUT_MAX 160

struct rule_stream {
    const char *name;                /* "Custom-PenstockAudit"; of the configuration */
    const char *sink;                /* that brought it, for sentences */
    char output[RULE_OUTPUT_MAX];    /* "Microsoft-ASimAuditEventLogs", "Custom-PenstockUnknown_CL" */
    bool open;                       /* its columns are the records' own: nobody can list them */
    struct table table;              /* where it is not open */
};

struct rule {
    const char *dcr;                 /* immutable id; NULL: no sink yet */
    struct rule_stream *streams[RULE_STREAMS_MAX];
    size_t count;
};

/* What this sink sends of `kinds` (bits). UV_EINVAL with a sentence: it contradicts what another one sends. */
int rule_add(struct rule *rule, const char *sink, const struct sentinel_target *target, const char *schema, unsigned kinds,
             struct pen_error *err);
void rule_free(struct rule *rule);

/* A stream of the service's own, which is never declared. */
bool rule_stream_is_native(const struct rule_stream *stream);
/* Its table is ours to make: "PenstockUnknown_CL"; else NULL. */
const char *rule_stream_table(const struct rule_stream *stream);

/* The deployed rule, as Azure Resource Manager answers; it is not trusted. Every difference that would lose values or rows is a
 * finding; so is, as unknown, what could not be judged. */
void rule_compare(const struct rule *rule, const struct pen_json *deployed, finding_tell tell, void *arg);

#endif
