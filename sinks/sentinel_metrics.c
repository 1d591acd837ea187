/*
 * sentinel_metrics.c - what the DCR itself counted in the last hour: rows, and what it lost of them behind a 204.
 *
 * By Azure Monitor's metrics of the rule: GET {rule}/providers/Microsoft.Insights/metrics, which wants
 * Microsoft.Insights/metrics/read (Monitoring Reader has it). RowsReceived_Count, RowsDropped_Count and
 * TransformationErrors_Count are in Microsoft's list of 2025-04; ColumnsDroppedCount is newer, and a name that the service does
 * not know costs the whole request: so it is asked for apart, and not knowing it is no finding.
 */
#include "daemon/json.h"
#include "daemon/probe.h"
#include "sinks/sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define API_VERSION "2018-01-01"

struct hour {
    int64_t received, dropped, errors, columns;    /* columns: -1, the service does not tell */
    int status;                      /* of the last request that failed; 0: none did */
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

static void take_metric(struct hour *hour, const struct pen_json *metric)
{
    struct pen_json name = pen_json_path(metric, "name.value");
    struct pen_span word = pen_json_value(&name);

    if (pen_span_is_nocase(word, "RowsReceived_Count"))
        hour->received = metric_sum(metric, "total");
    else if (pen_span_is_nocase(word, "RowsDropped_Count"))
        hour->dropped = metric_sum(metric, "total");
    else if (pen_span_is_nocase(word, "TransformationErrors_Count"))
        hour->errors = metric_sum(metric, "count");
    else if (pen_span_is_nocase(word, "ColumnsDroppedCount"))
        hour->columns = metric_sum(metric, "total");
}

static void on_answer(void *arg, const struct http_answer *answer)
{
    struct hour *hour = arg;
    struct json *json;
    struct pen_json root, metrics;
    struct pen_json_iter it;
    const char *why;

    hour->status = answer->status;
    hour->reached = answer->status == 200;
    if (!hour->reached)
        return;
    json = json_new();
    hour->reached = json_parse(json, answer->body.data, answer->body.size, &root, &why) == 0;
    if (hour->reached) {
        metrics = pen_json_get(&root, "value");
        for (it = pen_json_each(&metrics); pen_json_next(&it);)
            take_metric(hour, &it.value);
    }
    json_free(json);
}

/* ---- The question ---- */

static void ask(struct probe *probe, const struct sentinel_target *target, const char *token, const char *names, struct hour *hour)
{
    time_t now = time(NULL), before = now - 3600;
    char from[24], to[24], *url, *authorization;
    const char *headers[] = { NULL, "Accept: application/json", NULL };
    struct http_ask request = { .method = "GET", .headers = headers, .conf = target->http };
    struct tm tm;

    strftime(from, sizeof(from), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&before, &tm));
    strftime(to, sizeof(to), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    if (asprintf(&url, "%.*s%s/providers/Microsoft.Insights/metrics?api-version=" API_VERSION "&metricnames=%s"
                 "&aggregation=Total,Count&interval=PT1H&timespan=%s/%s", (int)target->management.size, target->management.data,
                 target->resource_id, names, from, to) < 0 ||
        asprintf(&authorization, "Authorization: Bearer %s", token) < 0)
        abort();
    headers[0] = authorization;
    request.url = url;
    probe_ask(probe, &request, on_answer, hour);
    probe_token_free(authorization);
    free(url);
}

/* ---- What it means ---- */

static void tell(struct probe *probe, const struct hour *hour)
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
    struct hour hour = { .columns = -1 }, apart = { .columns = -1 };
    char *token = target->resource_id != NULL ? probe_token(probe, &target->management_entra) : NULL;

    if (token == NULL)
        return;                                    /* why was told, or is told beside the columns */
    ask(probe, target, token, "RowsReceived_Count,RowsDropped_Count,TransformationErrors_Count", &hour);
    if (hour.reached) {
        ask(probe, target, token, "ColumnsDroppedCount", &apart);
        hour.columns = apart.columns;
        tell(probe, &hour);
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
