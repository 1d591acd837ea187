/*
 * arrival.c - the tally, the question, the comparison. See arrival.h.
 *
 * One question at a time: a token, the metrics of rows, the metric of columns, which a service may not know. A turn of
 * the timer that finds one under way does nothing.
 */
#include "sinks/arrival.h"

#include "daemon/base/log.h"
#include "daemon/base/secret.h"
#include "sinks/tally.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#define BEARER "Authorization: Bearer "

struct window {                      /* minutes since 1970, `to` not among them */
    uint64_t from, to;
    uint64_t accepted;               /* rows */
};

struct watch {                       /* of one who has it open, and what it is to be asked with */
    TAILQ_ENTRY(watch) entry;
    const void *who;
    struct http *http;
    struct sentinel_target target;
    uint32_t every_ms;
};

struct arrival {
    LIST_ENTRY(arrival) entry;
    uv_loop_t *loop;
    char *dcr;
    unsigned users;
    struct tally tally;
    TAILQ_HEAD(, watch) watches;     /* the first one's holds */
    bool timed;                      /* the timer is there */
    /* What follows is only used where somebody watches: entra is NULL else. */
    struct http *http;
    struct entra *entra;
    struct sentinel_target target;
    uv_timer_t timer;
    bool asking;
    char *authorization;             /* while asking: the header with the token, once there is one */
    struct http_request *request;    /* while asking: under way */
    struct window window;            /* asked about */
    struct sentinel_counts counts;   /* answered so far */
    unsigned said;                   /* losses that the log has */
    uint64_t unknown_since_ms;       /* of the loop's clock; 0: it is known, or was not asked for yet */
    struct pen_arrival seen;
};

static LIST_HEAD(, arrival) arrivals = LIST_HEAD_INITIALIZER(arrivals);

static uint64_t minute_now(void)
{
    return (uint64_t)time(NULL) / 60;
}

/* ---- The comparison ---- */

enum { LOST_ROWS, LOST_DROPPED, LOST_COLUMNS, LOST_ERRORS, LOSSES };

static const char *const loss_advice[LOSSES] = {
    [LOST_ROWS] = "fewer rows were received than it had accepted: see the table DCRLogErrors, and this machine's "
                  "clock",
    [LOST_DROPPED] = "a transformation drops rows: see transformKql in the rule's data flows, and dcr_compare if that "
                     "is meant",
    [LOST_COLUMNS] = "values are dropped whose columns it does not know: deploy what \"penstock dcr\" prints",
    [LOST_ERRORS] = "a transformation fails, and what it was given is lost: the table DCRLogErrors says why, if the "
                    "rule's diagnostic setting \"Log Errors\" is on",
};

/* The minutes that can be compared at this one; none: from is not before to. */
static struct window window_at(const struct tally *tally, uint64_t minute)
{
    struct window window = { .from = tally->begun, .to = minute - ARRIVAL_SETTLED };

    if (window.from < minute + 1 - TALLY_MINUTES)
        window.from = minute + 1 - TALLY_MINUTES;
    window.accepted = tally_sum(tally, window.from, window.to);
    return window;
}

/* As bits. A count that is not known is negative. */
static unsigned losses_of(const struct window *window, const struct sentinel_counts *counts)
{
    return (unsigned)(counts->received >= 0 && (uint64_t)counts->received < window->accepted) << LOST_ROWS |
        (unsigned)(counts->dropped > 0) << LOST_DROPPED | (unsigned)(counts->columns > 0) << LOST_COLUMNS |
        (unsigned)(counts->errors > 0) << LOST_ERRORS;
}

static void minute_write(char text[static 24], uint64_t minute)
{
    time_t seconds = (time_t)(minute * 60);
    struct tm tm;

    strftime(text, 24, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &tm));
}

static const char *number_or_none(int64_t count)
{
    return count < 0 ? "unknown" : log_number((unsigned long long)count);
}

static void arrival_alarm(const struct arrival *arrival, unsigned losses)
{
    const struct sentinel_counts *counts = &arrival->counts;
    char from[24], to[24], why[1024] = "";
    size_t size = 0;

    for (unsigned i = 0; i < LOSSES; i++)
        if (losses >> i & 1)
            size += (size_t)snprintf(why + size, sizeof(why) - size, "%s%s", size > 0 ? "; " : "", loss_advice[i]);
    minute_write(from, arrival->window.from);
    minute_write(to, arrival->window.to);
    log_line(LOG_ERROR, "not all that the far end accepted has arrived", "dcr", arrival->dcr, "from", from, "to", to,
             "accepted", log_number(arrival->window.accepted), "received", number_or_none(counts->received),
             "dropped", number_or_none(counts->dropped), "columns_dropped", number_or_none(counts->columns),
             "errors", number_or_none(counts->errors), "why", why, NULL);
}

/* A loss is said when it shows first; that there is none any more, when all are over. */
static void arrival_judge(struct arrival *arrival)
{
    const struct sentinel_counts *counts = &arrival->counts;
    unsigned losses = losses_of(&arrival->window, counts);

    if (losses & ~arrival->said)
        arrival_alarm(arrival, losses);
    else if (losses == 0 && arrival->said != 0)
        log_line(LOG_NOTE, "what the far end accepts arrives again", "dcr", arrival->dcr, NULL);
    arrival->said = losses == 0 ? 0 : arrival->said | losses;
    arrival->unknown_since_ms = 0;
    arrival->seen = (struct pen_arrival){             /* negative, not known: UINT64_MAX */
        .accepted = arrival->window.accepted, .received = (uint64_t)counts->received, .dropped = (uint64_t)counts->dropped,
        .columns = (uint64_t)counts->columns, .errors = (uint64_t)counts->errors, .differs = losses != 0,
    };
}

/* ---- The question ---- */

static void arrival_over(struct arrival *arrival)
{
    secret_text_free(arrival->authorization);
    arrival->authorization = NULL;
    arrival->asking = false;
}

/* The numbers that are known stay as they are; what was an alarm is one yet. */
static void arrival_unknown(struct arrival *arrival, const char *why)
{
    if (arrival->unknown_since_ms == 0) {
        log_line(LOG_NOTE, "whether all arrives that the far end accepts is not known", "dcr", arrival->dcr,
                 "why", why, NULL);
        arrival->unknown_since_ms = uv_now(arrival->loop) > 0 ? uv_now(arrival->loop) : 1;
    }
    arrival_over(arrival);
}

static void arrival_failed(struct arrival *arrival, const struct http_answer *answer)
{
    char why[256];

    if (answer->status == 401)
        entra_spoiled(arrival->entra, arrival->authorization + strlen(BEARER));
    if (answer->status == 403)
        snprintf(why, sizeof(why), "status 403: the app needs the role Monitoring Reader on the DCR");
    else if (answer->status == 404)
        snprintf(why, sizeof(why), "status 404: there is no DCR under \"dcr_resource_id\"");
    else if (answer->status == 200)
        snprintf(why, sizeof(why), "the answer holds no count of rows");
    else if (answer->status > 0)
        snprintf(why, sizeof(why), "status %d", answer->status);
    else
        snprintf(why, sizeof(why), "no answer: %.200s", answer->trouble);
    arrival_unknown(arrival, why);
}

static void arrival_ask(struct arrival *arrival, const char *names, http_done done)
{
    const char *headers[] = { arrival->authorization, "Accept: application/json", NULL };
    struct http_ask ask = { .method = "GET", .headers = headers, .conf = arrival->target.http };
    char *url = sentinel_metrics_url(&arrival->target, names, "PT1M", (int64_t)(arrival->window.from - ARRIVAL_EDGE) * 60,
                                     (int64_t)(arrival->window.to + ARRIVAL_EDGE) * 60);

    ask.url = url;
    arrival->request = http_start(arrival->http, &ask, done, arrival);
    free(url);
}

/* A service that does not know this metric says 400: that is no trouble. */
static void on_columns(void *arg, const struct http_answer *answer)
{
    struct arrival *arrival = arg;

    arrival->request = NULL;
    if (answer->status == 200)
        (void)sentinel_metrics_read(&arrival->counts, answer->body);
    arrival_judge(arrival);
    arrival_over(arrival);
}

static void on_rows(void *arg, const struct http_answer *answer)
{
    struct arrival *arrival = arg;

    arrival->request = NULL;
    if (answer->status == 200 && sentinel_metrics_read(&arrival->counts, answer->body) && arrival->counts.received >= 0)
        arrival_ask(arrival, SENTINEL_METRICS_COLUMNS, on_columns);
    else
        arrival_failed(arrival, answer);
}

static void on_token(void *arg, const char *token, bool refused, int64_t retry_after_ms, const char *why)
{
    struct arrival *arrival = arg;

    (void)refused, (void)retry_after_ms;
    if (token == NULL) {
        arrival_unknown(arrival, why);
        return;
    }
    arrival->authorization = secret_text(BEARER "%s", token);
    arrival_ask(arrival, SENTINEL_METRICS_ROWS, on_rows);
}

static void on_timer(uv_timer_t *timer)
{
    struct arrival *arrival = timer->data;
    struct window window = window_at(&arrival->tally, minute_now());

    if (arrival->asking || window.from >= window.to)
        return;
    arrival->asking = true;
    arrival->window = window;
    arrival->counts = (struct sentinel_counts){ -1, -1, -1, -1 };
    entra_token(arrival->entra, on_token, arrival);
}

static bool watch_begin(struct arrival *arrival, const struct watch *watch)
{
    struct pen_error err = { 0 };

    if (entra_new(&arrival->entra, watch->http, arrival->loop, &watch->target.management_entra, &err) < 0) {
        log_line(LOG_WARN, "whether all arrives that the far end accepts will not be known", "dcr", arrival->dcr, "error",
                 err.text, NULL);
        return false;
    }
    arrival->http = watch->http;
    arrival->target = watch->target;
    if (!arrival->timed)
        uv_timer_init(arrival->loop, &arrival->timer);
    arrival->timed = true;
    arrival->timer.data = arrival;
    uv_timer_start(&arrival->timer, on_timer, watch->every_ms, watch->every_ms);
    return true;
}

static void arrival_begin(struct arrival *arrival)
{
    struct watch *watch;

    while (arrival->entra == NULL && (watch = TAILQ_FIRST(&arrival->watches)) != NULL && !watch_begin(arrival, watch)) {
        TAILQ_REMOVE(&arrival->watches, watch, entry);
        free(watch);
    }
}

/* With all that is under way. */
static void arrival_end(struct arrival *arrival)
{
    if (arrival->entra == NULL)
        return;
    if (arrival->request != NULL)
        http_cancel(arrival->request);
    arrival->request = NULL;
    entra_close(arrival->entra);
    arrival->entra = NULL;
    arrival_over(arrival);
    uv_timer_stop(&arrival->timer);
}

void arrival_watch(struct arrival *arrival, const void *who, struct http *http, const struct sentinel_target *target, uint32_t every_ms)
{
    struct watch *watch = malloc(sizeof(*watch));

    assert(watch);
    *watch = (struct watch){ .who = who, .http = http, .target = *target, .every_ms = every_ms };
    TAILQ_INSERT_TAIL(&arrival->watches, watch, entry);
    arrival_begin(arrival);
}

static void arrival_unwatch(struct arrival *arrival, const void *who)
{
    struct watch *watch;

    TAILQ_FOREACH(watch, &arrival->watches, entry)
        if (watch->who == who)
            break;
    if (watch == NULL)
        return;
    if (watch == TAILQ_FIRST(&arrival->watches))
        arrival_end(arrival);
    TAILQ_REMOVE(&arrival->watches, watch, entry);
    free(watch);
    arrival_begin(arrival);
}

/* ---- Whose it is ---- */

struct arrival *arrival_open(uv_loop_t *loop, const char *dcr)
{
    struct arrival *arrival;

    LIST_FOREACH(arrival, &arrivals, entry)
        if (arrival->loop == loop && strcasecmp(arrival->dcr, dcr) == 0)
            break;
    if (arrival == NULL) {
        arrival = calloc(1, sizeof(*arrival));
        assert(arrival);
        arrival->loop = loop;
        arrival->dcr = strdup(dcr);
        assert(arrival->dcr);
        TAILQ_INIT(&arrival->watches);
        tally_begin(&arrival->tally, minute_now());
        arrival->seen = PEN_ARRIVAL_NONE;
        LIST_INSERT_HEAD(&arrivals, arrival, entry);
    }
    arrival->users++;
    return arrival;
}

void arrival_add(struct arrival *arrival, uint32_t rows)
{
    if (arrival != NULL)
        tally_add(&arrival->tally, minute_now(), rows);
}

struct pen_arrival arrival_see(const struct arrival *arrival)
{
    struct pen_arrival seen = arrival != NULL ? arrival->seen : PEN_ARRIVAL_NONE;

    if (arrival != NULL && arrival->unknown_since_ms > 0)
        seen.unknown_ms = uv_now(arrival->loop) - arrival->unknown_since_ms;
    return seen;
}

static void arrival_free(struct arrival *arrival)
{
    free(arrival->dcr);
    free(arrival);
}

static void on_timer_closed(uv_handle_t *timer)
{
    arrival_free(timer->data);
}

void arrival_close(struct arrival *arrival, const void *who)
{
    if (arrival == NULL)
        return;
    arrival_unwatch(arrival, who);
    if (--arrival->users > 0)
        return;
    LIST_REMOVE(arrival, entry);
    if (arrival->timed)
        uv_close((uv_handle_t *)&arrival->timer, on_timer_closed);
    else
        arrival_free(arrival);
}
