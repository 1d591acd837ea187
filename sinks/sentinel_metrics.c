/*
 * sentinel_metrics.c - what the DCR itself counted: rows, and what it lost of them behind a 204. In the last hour, for
 * `check --online`; arrival.c asks for its own minutes.
 *
 * By Azure Monitor's metrics of the rule: GET {rule}/providers/Microsoft.Insights/metrics, which wants
 * Microsoft.Insights/metrics/read (Monitoring Reader has it). RowsReceived_Count, RowsDropped_Count and
 * TransformationErrors_Count are in Microsoft's list of 2025-04; ColumnsDroppedCount is newer, and a name that the service does
 * not know costs the whole request: so it is asked for apart, and not knowing it is no finding.
 */
#include "daemon/record/json.h"
#include "daemon/remote/probe.h"
#include "sinks/sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define API_VERSION "2018-01-01"

struct hour {
    struct sentinel_counts counts;
    int status;                      /* of the answer; 0: there was none */
    bool reached;
};

/* ---- The answer ---- */

/* The sum of one aggregation ("total", "count") over all the metric's points. */
static int64_t metric_sum(const struct pen_json *metric, const char *aggregation)
{
    struct pen_json series = pen_json_get(metric, "timeseries"), data, value;
    struct pen_json_iter line, point;
    double sum = 0, number;

    for (line = pen_json_each(&series); pen_json_next(&line);) {
        data = pen_json_get(&line.value, "data");
        for (point = pen_json_each(&data); pen_json_next(&point);) {
            value = pen_json_get(&point.value, aggregation);
            if (pen_json_real(&value, &number) && number > 0)
                sum += number;
        }
    }
    return sum < 1e15 ? (int64_t)sum : INT64_C(1000000000000000);
}

static void take_metric(struct sentinel_counts *counts, const struct pen_json *metric)
{
    struct pen_json name = pen_json_path(metric, "name.value");
    struct pen_span word = pen_json_value(&name);

    if (pen_span_is_nocase(word, "RowsReceived_Count"))
        counts->received = metric_sum(metric, "total");
    else if (pen_span_is_nocase(word, "RowsDropped_Count"))
        counts->dropped = metric_sum(metric, "total");
    else if (pen_span_is_nocase(word, "TransformationErrors_Count"))
        counts->errors = metric_sum(metric, "count");
    else if (pen_span_is_nocase(word, "ColumnsDroppedCount"))
        counts->columns = metric_sum(metric, "total");
}

bool sentinel_metrics_read(struct sentinel_counts *counts, struct pen_span body)
{
    struct json *json = json_new();
    struct pen_json root, metrics;
    struct pen_json_iter it;
    const char *why;
    bool good = json_parse(json, body.data, body.size, &root, &why) == 0;

    if (good) {
        metrics = pen_json_get(&root, "value");
        for (it = pen_json_each(&metrics); pen_json_next(&it);)
            take_metric(counts, &it.value);
    }
    json_free(json);
    return good;
}

static void on_answer(void *arg, const struct http_answer *answer)
{
    struct hour *hour = arg;

    hour->status = answer->status;
    hour->reached = answer->status == 200 && sentinel_metrics_read(&hour->counts, answer->body);
}

/* ---- The question ---- */

static void time_write(char text[static 24], int64_t seconds)
{
    time_t time = (time_t)seconds;
    struct tm tm;

    strftime(text, 24, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&time, &tm));
}

char *sentinel_metrics_url(const struct sentinel_target *target, const char *names, const char *interval, int64_t from, int64_t to)
{
    char first[24], last[24], *url;

    time_write(first, from);
    time_write(last, to);
    if (asprintf(&url, "%.*s%s/providers/Microsoft.Insights/metrics?api-version=" API_VERSION "&metricnames=%s"
                 "&aggregation=Total,Count&interval=%s&timespan=%s/%s", (int)target->management.size, target->management.data,
                 target->resource_id, names, interval, first, last) < 0)
        abort();
    return url;
}

static void ask(struct probe *probe, const struct sentinel_target *target, const char *token, const char *names, struct hour *hour)
{
    int64_t now = (int64_t)time(NULL);
    char *url = sentinel_metrics_url(target, names, "PT1H", now - 3600, now), *authorization;
    const char *headers[] = { NULL, "Accept: application/json", NULL };
    struct http_ask request = { .method = "GET", .url = url, .headers = headers, .conf = target->http };

    if (asprintf(&authorization, "Authorization: Bearer %s", token) < 0)
        abort();
    headers[0] = authorization;
    probe_ask(probe, &request, on_answer, hour);
    probe_token_free(authorization);
    free(url);
}

/* ---- What it means ---- */

static void tell(struct probe *probe, const struct sentinel_counts *hour)
{
    if (hour->errors > 0)
        probe_tell(probe, FINDING_WRONG, "in the last hour the DCR's transformation failed %lld times, and what it was given is "
                   "lost: the table DCRLogErrors says why, if the rule's diagnostic setting \"Log Errors\" is on",
                   (long long)hour->errors);
    if (hour->columns > 0)
        probe_tell(probe, FINDING_WRONG, "in the last hour the DCR dropped %lld values whose columns it does not know: deploy what "
                   "\"penstock dcr\" prints", (long long)hour->columns);
    if (hour->dropped > 0)
        probe_tell(probe, FINDING_UNKNOWN, "in the last hour the DCR dropped %lld of %lld rows: all is well if a transformation of "
                   "yours is meant to", (long long)hour->dropped, (long long)hour->received);
    else if (hour->errors == 0 && hour->columns <= 0)
        probe_tell(probe, FINDING_GOOD, "in the last hour the DCR received %lld rows, and lost nothing that it knows of",
                   (long long)hour->received);
}

void sentinel_metrics(struct probe *probe, const struct sentinel_target *target)
{
    struct hour hour = { .counts.columns = -1 }, apart = hour;   /* a metric without points may be missing: 0 */
    char *token = target->resource_id != NULL ? probe_token(probe, &target->management_entra) : NULL;

    if (token == NULL)
        return;                                    /* why was told, or is told beside the columns */
    ask(probe, target, token, SENTINEL_METRICS_ROWS, &hour);
    if (hour.reached) {
        ask(probe, target, token, SENTINEL_METRICS_COLUMNS, &apart);
        hour.counts.columns = apart.counts.columns;
        tell(probe, &hour.counts);
    } else if (hour.status == 403) {
        probe_tell(probe, FINDING_UNKNOWN, "what the DCR counted in the last hour was not looked at (status 403): the app needs the "
                   "role Monitoring Reader on the DCR");
    } else {
        probe_tell(probe, FINDING_UNKNOWN, "what the DCR counted in the last hour was not looked at: %.*s %s (status %d)",
                   (int)target->management.size, target->management.data,
                   hour.status == 0 ? "did not answer" : "gave no answer of use", hour.status);
    }
    probe_token_free(token);
}
