/* metrics.c - see metrics.h. */
#include "daemon/status/metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <uv.h>

struct label {
    const char *name, *value;
};

/* ---- Prometheus ---- */

/* As the format wants it: backslash, quote and line break are escaped; what cannot be text at all becomes '?'. */
static void label_write(struct buf *out, const struct label *label)
{
    buf_text(out, "%s=\"", label->name);
    for (const char *c = label->value; *c != '\0'; c++) {
        if (*c == '\\' || *c == '"')
            buf_char(out, '\\');
        buf_char(out, (unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c);
    }
    buf_char(out, '"');
}

/* Milliseconds become seconds: that is Prometheus' unit. */
static void sample_write(struct buf *out, const char *name, const struct label *labels, size_t count, enum status_unit unit,
                         uint64_t value)
{
    if (value == STATUS_NONE)
        return;
    buf_text(out, "%s", name);
    for (size_t i = 0; i < count; i++) {
        buf_char(out, i == 0 ? '{' : ',');
        label_write(out, &labels[i]);
    }
    if (count > 0)
        buf_char(out, '}');
    if (unit == STATUS_MS || unit == STATUS_TIME)
        buf_text(out, " %" PRIu64 ".%03" PRIu64 "\n", value / 1000, value % 1000);
    else
        buf_text(out, " %" PRIu64 "\n", value);
}

static bool is_counter(const char *name)
{
    static const char end[] = "_total";
    size_t size = strlen(name);

    return size > sizeof(end) - 1 && strcmp(name + size - (sizeof(end) - 1), end) == 0;
}

static void head_write(struct buf *out, const char *name, const char *help)
{
    buf_text(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, is_counter(name) ? "counter" : "gauge");
}

static void row_write(const struct status *status, const struct status_row *row, struct buf *out)
{
    switch (row->scope) {
    case STATUS_WHOLE:
        sample_write(out, row->metric, NULL, 0, row->unit, status_value(row, status));
        return;
    case STATUS_SOURCE:
        for (uint32_t i = 0; i < status->source_count; i++)
            sample_write(out, row->metric, &(struct label){ "source", status->sources[i].name }, 1, row->unit,
                         status_value(row, &status->sources[i]));
        return;
    case STATUS_SINK:
        for (uint32_t i = 0; i < status->sink_count; i++)
            sample_write(out, row->metric, &(struct label){ "sink", status->sinks[i].name }, 1, row->unit,
                         status_value(row, &status->sinks[i]));
        return;
    case STATUS_ROUTE:
        for (uint32_t i = 0; i < status->route_count; i++) {
            const struct label labels[] = { { "source", status->routes[i].source }, { "sink", status->routes[i].sink } };

            sample_write(out, row->metric, labels, 2, row->unit, status_value(row, &status->routes[i]));
        }
        return;
    case STATUS_ANSWER:
        for (uint32_t i = 0; i < status->sink_count; i++)
            for (uint32_t a = 0; a < status->sinks[i].answers->count; a++) {
                const struct answer_count *answer = &status->sinks[i].answers->rows[a];
                const struct label labels[] = { { "sink", status->sinks[i].name }, { "status", answer->status },
                                                { "outcome", outcome_words[answer->outcome] } };

                sample_write(out, row->metric, labels, 3, row->unit, answer->count);
            }
        return;
    case STATUS_NUMBER:
    case STATUS_PROCESS:
        return;
    }
}

/* penstock_source_NAME, and _total where it only grows. */
static void number_name(const struct source_number *number, char *name, size_t size)
{
    (void)snprintf(name, size, "penstock_source_%s%s", number->name, number->kind == SOURCE_COUNT ? "_total" : "");
}

static const struct source_number *number_find(const struct status_source *source, const char *metric)
{
    char name[128];

    for (size_t n = 0; n < source->number_count; n++) {
        number_name(&source->numbers[n], name, sizeof(name));
        if (strcmp(name, metric) == 0)
            return &source->numbers[n];
    }
    return NULL;
}

/* What several sources count stands together, where the first of them is met. */
static void number_write(const struct status *status, uint32_t first, const struct source_number *number, struct buf *out)
{
    char name[128];

    number_name(number, name, sizeof(name));
    for (uint32_t i = 0; i < first; i++)
        if (number_find(&status->sources[i], name) != NULL)
            return;
    head_write(out, name, number->help);
    for (uint32_t i = first; i < status->source_count; i++)
        if ((number = number_find(&status->sources[i], name)) != NULL)
            sample_write(out, name, &(struct label){ "source", status->sources[i].name }, 1, STATUS_PLAIN, number->value);
}

static void numbers_write(const struct status *status, struct buf *out)
{
    for (uint32_t i = 0; i < status->source_count; i++)
        for (size_t n = 0; n < status->sources[i].number_count; n++)
            number_write(status, i, &status->sources[i].numbers[n], out);
}

/* 0: they cannot be counted. */
static uint64_t open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    const struct dirent *entry;
    uint64_t count = 0;

    if (dir == NULL)
        return 0;
    while ((entry = readdir(dir)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count - 1;                /* the folder itself */
}

static void process_write(const struct status *status, const struct status_row *row, struct buf *out)
{
    struct rusage usage = { 0 };
    struct rlimit limit;
    size_t resident = 0;
    uint64_t count;

    if (strcmp(row->metric, "penstock_build_info") == 0) {
        sample_write(out, row->metric, &(struct label){ "version", PENSTOCK_VERSION }, 1, STATUS_PLAIN, 1);
    } else if (strcmp(row->metric, "process_start_time_seconds") == 0) {
        sample_write(out, row->metric, NULL, 0, STATUS_MS, status->started_ms);
    } else if (strcmp(row->metric, "process_cpu_seconds_total") == 0) {
        (void)getrusage(RUSAGE_SELF, &usage);
        sample_write(out, row->metric, NULL, 0, STATUS_MS,
                     (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
                     (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000);
    } else if (strcmp(row->metric, "process_open_fds") == 0) {
        if ((count = open_fds()) > 0)
            sample_write(out, row->metric, NULL, 0, STATUS_PLAIN, count);
    } else if (strcmp(row->metric, "process_max_fds") == 0) {
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
            sample_write(out, row->metric, NULL, 0, STATUS_PLAIN, limit.rlim_cur);
    } else if (uv_resident_set_memory(&resident) == 0) {
        sample_write(out, row->metric, NULL, 0, STATUS_PLAIN, resident);
    }
}

void metrics_write(const struct status *status, struct buf *out)
{
    for (const struct status_row *row = status_rows; row->metric != NULL; row++) {
        if (row->scope == STATUS_NUMBER)
            continue;
        head_write(out, row->metric, row->help);
        if (row->scope == STATUS_PROCESS)
            process_write(status, row, out);
        else
            row_write(status, row, out);
    }
    numbers_write(status, out);
}

/* ---- JSON ---- */

static void json_text(struct buf *out, const char *key, const char *value)
{
    buf_text(out, "\"%s\":", key);
    if (value != NULL)
        buf_json_string(out, value, strlen(value));
    else
        BUF_LITERAL(out, "null");
}

static void json_time(struct buf *out, const char *key, uint64_t ms)
{
    buf_text(out, "\"%s\":\"", key);
    buf_time(out, (int64_t)ms * 10000);
    buf_char(out, '"');
}

/* The scope's rows, each after a comma; a number that is not known has no member. */
static void json_rows(struct buf *out, enum status_scope scope, const void *struct_)
{
    for (const struct status_row *row = status_rows; row->metric != NULL; row++) {
        uint64_t value;

        if (row->scope != scope || row->key == NULL || (value = status_value(row, struct_)) == STATUS_NONE)
            continue;
        buf_char(out, ',');
        if (row->unit == STATUS_FLOW)
            json_text(out, row->key, flow_words[value]);
        else if (row->unit == STATUS_TIME)
            json_time(out, row->key, value);
        else
            buf_text(out, "\"%s\":%" PRIu64, row->key, value);
    }
}

static void json_state(struct buf *out, const struct status_state *state)
{
    static const char *const moods[] = { "idle", "ok", "warn", "bad" };

    buf_text(out, ",\"mood\":\"%s\",", moods[state->mood]);
    json_text(out, "state", state->word);
}

static void source_json(const struct status_source *source, struct buf *out)
{
    buf_char(out, '{');
    json_text(out, "name", source->name);
    buf_char(out, ',');
    json_text(out, "type", source->type);
    buf_char(out, ',');
    json_text(out, "unit", source->behind_messages != STATUS_NONE ? "messages" : "bytes");
    json_state(out, &source->state);
    json_rows(out, STATUS_SOURCE, source);
    BUF_LITERAL(out, ",\"numbers\":{");
    for (size_t i = 0; i < source->number_count; i++)
        buf_text(out, "%s\"%s\":%" PRIu64, i == 0 ? "" : ",", source->numbers[i].name, source->numbers[i].value);
    BUF_LITERAL(out, "}}");
}

static void sink_json(const struct status_sink *sink, struct buf *out)
{
    buf_char(out, '{');
    json_text(out, "name", sink->name);
    buf_char(out, ',');
    json_text(out, "type", sink->type);
    buf_char(out, ',');
    json_text(out, "schema", sink->schema);
    json_state(out, &sink->state);
    json_rows(out, STATUS_SINK, sink);
    json_rows(out, STATUS_ROUTE, &sink->all);
    buf_char(out, ',');
    json_text(out, "trouble", sink->trouble);
    BUF_LITERAL(out, ",\"answers\":[");
    for (uint32_t i = 0; i < sink->answers->count; i++) {
        const struct answer_count *answer = &sink->answers->rows[i];

        buf_text(out, "%s{\"outcome\":\"%s\",\"status\":\"%s\",\"count\":%" PRIu64 "}", i == 0 ? "" : ",",
                 outcome_words[answer->outcome], answer->status, answer->count);
    }
    BUF_LITERAL(out, "]}");
}

static void route_json(const struct status_route *route, struct buf *out)
{
    buf_char(out, '{');
    json_text(out, "source", route->source);
    buf_char(out, ',');
    json_text(out, "sink", route->sink);
    json_rows(out, STATUS_ROUTE, route);
    buf_char(out, '}');
}

static void reasons_json(const char *reasons, struct buf *out)
{
    BUF_LITERAL(out, ",\"reasons\":[");
    for (bool first = true; *reasons != '\0'; first = false) {
        size_t size = strcspn(reasons, "\n");

        if (!first)
            buf_char(out, ',');
        buf_json_string(out, reasons, size);
        reasons += size + (reasons[size] == '\n');
    }
    buf_char(out, ']');
}

void status_json(const struct status *status, const char *reasons, struct buf *out)
{
    buf_char(out, '{');
    json_time(out, "now", status->now_ms);
    buf_text(out, ",\"ready\":%s", status->ready ? "true" : "false");
    reasons_json(reasons, out);
    BUF_LITERAL(out, ",\"daemon\":{");
    json_text(out, "version", PENSTOCK_VERSION);
    buf_char(out, ',');
    json_time(out, "started", status->started_ms);
    json_rows(out, STATUS_WHOLE, status);
    BUF_LITERAL(out, "},\"sources\":[");
    for (uint32_t i = 0; i < status->source_count; i++) {
        if (i > 0)
            buf_char(out, ',');
        source_json(&status->sources[i], out);
    }
    BUF_LITERAL(out, "],\"sinks\":[");
    for (uint32_t i = 0; i < status->sink_count; i++) {
        if (i > 0)
            buf_char(out, ',');
        sink_json(&status->sinks[i], out);
    }
    BUF_LITERAL(out, "],\"routes\":[");
    for (uint32_t i = 0; i < status->route_count; i++) {
        if (i > 0)
            buf_char(out, ',');
        route_json(&status->routes[i], out);
    }
    BUF_LITERAL(out, "]}\n");
}

/* ---- What they mean ---- */

static const char *row_labels(const struct status_row *row)
{
    switch (row->scope) {
    case STATUS_SOURCE:
    case STATUS_NUMBER:
        return "source";
    case STATUS_ROUTE:
        return "source, sink";
    case STATUS_SINK:
        return "sink";
    case STATUS_ANSWER:
        return "sink, outcome, status";
    case STATUS_WHOLE:
    case STATUS_PROCESS:
        break;
    }
    return strcmp(row->metric, "penstock_build_info") == 0 ? "version" : "";
}

void metrics_explain(struct buf *out)
{
    BUF_LITERAL(out,
        "# Metrics\n\n"
        "What `/metrics` serves, and what to do when a number looks wrong. Written by `conf/manual-update`; a test holds it to the\n"
        "program. Counters begin at 0 with each start. `" STATUS_EARLIER "` in place of a source is what the spool kept of an\n"
        "earlier run, and what sources brought that have left the configuration since.\n\n"
        "| metric | labels | what it is | when it looks wrong |\n"
        "|---|---|---|---|\n");
    for (const struct status_row *row = status_rows; row->metric != NULL; row++)
        buf_text(out, "| `%s` | %s | %s | %s |\n", row->metric, row_labels(row), row->help, row->look != NULL ? row->look : "");
}
