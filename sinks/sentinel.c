/*
 * sentinel.c - Microsoft Sentinel, by the Logs Ingestion API.
 *
 * A batch is posted as one JSON array to the DCR's stream for its kind. Its way, one post per batch in flight:
 *
 *     FREE --submit--> PACKING --on_packed--> QUOTA --on_granted--> TOKEN --on_token--> SENDING --on_answer--> FREE, answered
 *                      gzip on the pool       the DCR's               ^   entra           |
 *                                                                     '---- first 401 ----'
 *
 * PACKING also where nothing is compressed: so every answer falls on a later turn. A post that would be refused is not made:
 * what is too long for a call goes back to be cut, and what is too much for a minute waits in QUOTA. What the far end says is turned into
 * an outcome by the two tables below and nowhere else.
 *
 * The API keeps no ids: a post that was taken but whose answer got lost is posted again, and its rows come twice with the
 * same event id. That is why stop() gives posts on the wire a moment to be answered before it hands them back.
 */
#include "sinks/sentinel.h"
#include "daemon/remote/credential.h"
#include "daemon/remote/entra.h"
#include "daemon/remote/http.h"
#include "daemon/record/json.h"
#include "daemon/base/secret.h"
#include "sinks/arrival.h"
#include "sinks/quota.h"

#include <assert.h>
#include <isa-l/igzip_lib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SENTINEL_WIRE_MAX   1048576  /* bytes on the wire: what the gateway's 413 says of Content-Length */
#define SENTINEL_BATCH_MAX  (32 * 1024 * 1024)                 /* the service unpacks up to 50 MiB, found in the field */
#define SENTINEL_SMALLEST   50       /* bytes; no event of a schema is shorter */
#define SENTINEL_RESET_SIZE (512 * 1024)   /* the gateway resets the line under uploads it finds too long */
#define SENTINEL_STOP_MS    1500     /* for posts on the wire, at stop */
#define SENTINEL_POSTS_MAX  16
#define SENTINEL_CURL_HELD  (192 * 1024)   /* what one transfer holds inside curl and TLS, about */
#define SENTINEL_BEARER     "Authorization: Bearer "
#define SENTINEL_GUID_MAX   37

/* ---- Settings -------------------------------------------------------------------------------------------------- */

struct sentinel_settings {
    char *endpoint, *dcr;
    struct entra_conf entra;
    char *stream_network, *stream_audit, *stream_alert, *stream_unknown, *stream_raw;
    char *dcr_resource_id, *management;
    bool compress;
    int64_t in_flight;
    uint64_t batch_bytes, post_bytes, bytes_a_minute;
    int64_t requests_a_minute;
    uint32_t dcr_compare_ms, span_ms, timeout_ms, connect_timeout_ms;
    char *proxy, *ca_file;
};

#define ROW(member) offsetof(struct sentinel_settings, member)

static const struct pen_option sentinel_options[] = {
    { "endpoint", PEN_URL, ROW(endpoint), .required = true,
      .help = "The DCR's own logsIngestion endpoint, or a data collection endpoint: https://HOST." },
    { "dcr", PEN_TEXT, ROW(dcr), .required = true,
      .help = "The DCR's immutable id: dcr- and 32 hex digits (properties.immutableId, not its name)." },
    ENTRA_AUTH_ROW(struct sentinel_settings, entra),
    ENTRA_ROWS(struct sentinel_settings, entra),
    { "stream_network", PEN_TEXT, ROW(stream_network), .fallback = "Custom-PenstockNetworkSession",
      .help = "The DCR's stream for network sessions." },
    { "stream_audit", PEN_TEXT, ROW(stream_audit), .fallback = "Custom-PenstockAudit",
      .help = "The DCR's stream for audit events." },
    { "stream_alert", PEN_TEXT, ROW(stream_alert), .fallback = "Custom-PenstockAlert",
      .help = "The DCR's stream for alerts." },
    { "stream_unknown", PEN_TEXT, ROW(stream_unknown), .fallback = "Custom-PenstockUnknown",
      .help = "The DCR's stream for records that no parser knows." },
    { "stream_raw", PEN_TEXT, ROW(stream_raw), .fallback = "Custom-PenstockRaw",
      .help = "The one stream for all kinds where schema = raw." },
    { "dcr_resource_id", PEN_TEXT, ROW(dcr_resource_id),
      .help = "The DCR's resource id, /subscriptions/…/dataCollectionRules/NAME: what it declares is then compared at start, "
              "and by check --online, with what is sent. The app needs the role Monitoring Reader on the DCR for it." },
    { "dcr_compare", PEN_MS, ROW(dcr_compare_ms), .fallback = "5m", .max = 3600 * 1000,
      .help = "With dcr_resource_id, how often the DCR's own count of rows is compared with what it accepted; 0 for never." },
    { "management", PEN_URL, ROW(management),
      .help = "Where dcr_resource_id is looked up, where cloud does not say it: https://HOST of Azure Resource Manager." },
    { "compress", PEN_BOOL, ROW(compress), .fallback = "yes", .help = "Gzip the posts." },
    { "in_flight", PEN_INT, ROW(in_flight), .fallback = "1", .min = 1, .max = SENTINEL_POSTS_MAX,
      .help = "Posts under way at once; 1 keeps events in order." },
    { "batch_bytes", PEN_BYTES, ROW(batch_bytes), .fallback = "999998", .min = 1024, .max = SENTINEL_BATCH_MAX,
      .help = "Largest batch, in bytes of JSON before compression. The default is the documented 1 MB, less two brackets; the "
              "service seems to take more of what is compressed, up to post_bytes." },
    { "post_bytes", PEN_BYTES, ROW(post_bytes), .fallback = "1000000", .min = 1024, .max = SENTINEL_WIRE_MAX,
      .help = "Largest post as it goes over the wire; a batch that compresses to more is cut in two." },
    { "requests_a_minute", PEN_INT, ROW(requests_a_minute), .fallback = "12000", .max = 1000000,
      .help = "Posts to the DCR in any minute, of all sinks that name it; 0 for no bound." },
    { "bytes_a_minute", PEN_BYTES, ROW(bytes_a_minute), .fallback = "2000000000", .max = INT64_C(1) << 40,
      .help = "Bytes of JSON to the DCR in any minute, of all sinks that name it; 0 for no bound." },
    { "span", PEN_MS, ROW(span_ms), .max = 24 * 3600 * 1000,
      .help = "Longest time between the events of one post; 30m for Auxiliary and Lake tables, 0 for no bound." },
    { "timeout", PEN_MS, ROW(timeout_ms), .fallback = "30s", .min = 1000, .max = 300 * 1000,
      .help = "Longest wait for one answer." },
    { "connect_timeout", PEN_MS, ROW(connect_timeout_ms), .fallback = "10s", .min = 500, .max = 60 * 1000,
      .help = "Longest wait for a connection." },
    { "proxy", PEN_TEXT, ROW(proxy),
      .help = "HTTP proxy, http://HOST:PORT; \"none\" for none; without the row, as the environment's https_proxy says." },
    { "ca_file", PEN_PATH, ROW(ca_file), .help = "PEM file of the CAs to trust in place of the system's." },
    { 0 }
};

/* ---- What the far end says, and what that means ---------------------------------------------------------------- */

struct verdict {
    enum pen_outcome outcome;
    const char *advice;
};

/* By status; the first row that holds it. */
static const struct {
    int from, to;
    struct verdict verdict;
} sentinel_statuses[] = {
    { 200, 299, { PEN_DELIVERED, "taken" } },
    { 300, 399, { PEN_REFUSED, "the far end redirects: `endpoint` is not the address of a DCR or a data collection "
                               "endpoint" } },
    { 400, 400, { PEN_REJECTED, "the far end cannot read this: not the JSON, or not the columns, that the stream "
                                "declares" } },
    { 401, 401, { PEN_REFUSED, "the far end does not take our tokens: check tenant, and cloud or scope" } },
    { 403, 403, { PEN_REFUSED, "the app may not write here: give it the role Monitoring Metrics Publisher on the DCR "
                               "(a new assignment takes up to 30 minutes)" } },
    { 404, 404, { PEN_REFUSED, "no such endpoint, DCR or stream: compare `endpoint`, `dcr` and the stream's name with "
                               "the DCR" } },
    { 405, 405, { PEN_REFUSED, "posts are not taken there: `endpoint` is not the address of a DCR or a data collection "
                               "endpoint" } },
    { 407, 407, { PEN_REFUSED, "the proxy wants to know who we are: it must let this machine through" } },
    { 408, 408, { PEN_RETRY, "the far end waited too long for us" } },
    { 410, 410, { PEN_REFUSED, "the endpoint or the DCR is gone" } },
    { 413, 413, { PEN_TOO_LARGE, "too large for one call" } },
    { 415, 415, { PEN_REJECTED, "the far end does not take JSON, or gzip, there: try compress = no" } },
    { 425, 425, { PEN_RETRY, "too early" } },
    { 429, 429, { PEN_RETRY, "the DCR's limit of requests or bytes per minute is reached" } },
    { 400, 499, { PEN_REJECTED, "the far end refuses this batch" } },
    { 500, 599, { PEN_RETRY, "the far end is in trouble" } },
};

/* Where no answer came, by the kind of failure. */
static const struct verdict sentinel_failures[] = {
    [HTTP_ANSWERED]  = { PEN_RETRY, "an answer that makes no sense" },
    [HTTP_UNUSABLE]  = { PEN_REFUSED, "check endpoint, proxy and ca_file" },
    [HTTP_UNTRUSTED] = { PEN_REFUSED, "the far end's certificate is not trusted: check endpoint, ca_file, this machine's "
                                      "clock, and who is in between" },
    [HTTP_UNREACHED] = { PEN_RETRY, "the far end cannot be reached" },
    [HTTP_SLOW]      = { PEN_RETRY, "the far end did not answer in time" },
    [HTTP_BROKEN]    = { PEN_RETRY, "the connection was lost before an answer" },
};
static const struct verdict sentinel_reset = { PEN_TOO_LARGE, "the connection was reset under a large upload" };

static struct verdict sentinel_verdict(const struct http_answer *answer, size_t posted, uint32_t count)
{
    for (size_t i = 0; i < sizeof(sentinel_statuses) / sizeof(sentinel_statuses[0]); i++)
        if (answer->status >= sentinel_statuses[i].from && answer->status <= sentinel_statuses[i].to)
            return sentinel_statuses[i].verdict;
    /* A single message is not cut: it would go to the dead letters for what may be a passing fault of the network. */
    if (answer->failure == HTTP_BROKEN && posted > SENTINEL_RESET_SIZE && count > 1)
        return sentinel_reset;
    return sentinel_failures[answer->failure];
}

/* The far end's own code, from the header or from {"error":{"code":…}}. Its message stays out: it may quote records. */
static void sentinel_code(const struct http_answer *answer, char code[static 64])
{
    struct json *json;
    struct pen_json root;
    struct pen_span text;
    const char *why;

    snprintf(code, 64, "%.*s", 63, answer->error_code ? answer->error_code : "");
    if (code[0] || answer->body.size == 0)
        return;
    json = json_new();
    if (json_parse(json, answer->body.data, answer->body.size, &root, &why) == 0) {
        root = pen_json_path(&root, "error.code");
        text = pen_json_value(&root);
        for (size_t i = 0, n = 0; i < text.size && n < 63; i++)
            if ((text.data[i] | 32) >= 'a' && (text.data[i] | 32) <= 'z')
                code[n++] = text.data[i], code[n] = '\0';
    }
    json_free(json);
}

/* One sentence for people: "status 403, OperationFailed, request 1f3c…: the app may not write here: … (stream …)". */
static void sentinel_explain(char why[static 512], const struct http_answer *answer, const char *advice, const char *stream)
{
    char code[64];

    if (answer->status == 0) {
        snprintf(why, 512, "%.*s: %.*s", 200, answer->trouble, 250, advice);
        return;
    }
    sentinel_code(answer, code);
    snprintf(why, 512, "status %d%s%s%s%s: %.*s (stream %.*s)", answer->status, code[0] ? ", " : "", code,
             answer->request_id ? ", request " : "", answer->request_id ? answer->request_id : "", 180, advice, 80, stream);
}

/* ---- The sink and its posts ------------------------------------------------------------------------------------ */

enum post_state { POST_FREE, POST_PACKING, POST_QUOTA, POST_TOKEN, POST_SENDING };

struct post {
    struct sentinel *sentinel;
    enum post_state state;
    struct pen_batch *batch;         /* NULL when FREE */
    uv_work_t work;
    struct isal_zstream deflate;
    uint8_t *deflate_buf;
    char *body;                      /* room for body_max() */
    size_t body_size;                /* 0: it is longer than a post may be */
    bool gzipped;
    struct quota_claim claim;        /* waits while in QUOTA */
    char *authorization;             /* the header with the token; NULL until there is one */
    struct http_request *request;    /* while SENDING */
    bool spoiled_one;                /* one 401 was answered with a new token already */
};

struct sentinel {
    struct sentinel_settings set;
    struct pen_host *host;
    struct http_conf http_conf;
    struct entra *entra;
    struct quota *quota;
    struct arrival *arrival;         /* NULL: a job beside the daemon */
    struct pen_limits limits;
    const char *streams[PEN_KINDS];  /* of the DCR */
    char *urls[PEN_KINDS];
    struct post *posts;              /* [set.in_flight] */
    unsigned busy;                   /* of them, not FREE */
    uv_timer_t timer;                /* at stop */
    bool stopping;
    bool stop_due;                   /* the grace is over: hand back what comes */
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void on_stop(uv_timer_t *timer);

static void post_answer(struct post *post, enum pen_outcome outcome, int64_t delay_ms, const char *why)
{
    struct sentinel *sentinel = post->sentinel;
    struct pen_batch *batch = post->batch;

    secret_text_free(post->authorization);
    post->authorization = NULL;
    post->batch = NULL;
    post->state = POST_FREE;
    sentinel->busy--;
    if (sentinel->stopping && sentinel->busy == 0)
        uv_timer_start(&sentinel->timer, on_stop, 0, 0);
    pen_batch_answer(batch, outcome, delay_ms > 0 ? (uint32_t)delay_ms : 0, why);   /* may submit the next one */
}

/* ---- PACKING: '[' + data + ']', on the pool -------------------------------------------------------------------- */

static size_t body_max(const struct sentinel_settings *set)
{
    return set->batch_bytes + 2 < set->post_bytes ? set->batch_bytes + 2 : set->post_bytes;
}

/* False: it would not become smaller, or not small enough. */
static bool post_deflate(struct post *post)
{
    struct isal_zstream *deflate = &post->deflate;
    const struct pen_batch *batch = post->batch;
    const struct pen_span parts[] = { PEN_SPAN("["), { batch->data, batch->size }, PEN_SPAN("]") };

    isal_deflate_init(deflate);
    deflate->level = 1;
    deflate->level_buf = post->deflate_buf;
    deflate->level_buf_size = ISAL_DEF_LVL1_DEFAULT;
    deflate->gzip_flag = IGZIP_GZIP;
    deflate->next_out = (uint8_t *)post->body;
    deflate->avail_out = (uint32_t)(batch->size + 1 < post->sentinel->set.post_bytes ? batch->size + 1
                                                                                    : post->sentinel->set.post_bytes);
    for (int i = 0; i < 3; i++) {
        deflate->next_in = (uint8_t *)parts[i].data;
        deflate->avail_in = (uint32_t)parts[i].size;
        deflate->end_of_stream = i == 2;
        if (isal_deflate(deflate) != COMP_OK || deflate->avail_in > 0)
            return false;
    }
    /* It may hold all of the input and have had no room for all that becomes of it. */
    if (deflate->internal_state.state != ZSTATE_END)
        return false;
    post->body_size = deflate->total_out;
    return true;
}

static void post_copy(struct post *post)
{
    const struct pen_batch *batch = post->batch;

    post->body[0] = '[';
    memcpy(post->body + 1, batch->data, batch->size);
    post->body[batch->size + 1] = ']';
    post->body_size = batch->size + 2;
}

static void on_pack(uv_work_t *work)
{
    struct post *post = work->data;

    const struct sentinel_settings *set = &post->sentinel->set;

    post->body_size = 0;
    post->gzipped = false;
    if (post->batch->size > set->batch_bytes)
        return;
    post->gzipped = set->compress && post_deflate(post);
    if (!post->gzipped && post->batch->size + 2 <= set->post_bytes)
        post_copy(post);
}

static void post_want_quota(struct post *post);

static void post_too_long(struct post *post)
{
    const struct sentinel_settings *set = &post->sentinel->set;
    char why[160];

    if (post->batch->count > 1)
        snprintf(why, sizeof(why), "longer than batch_bytes or post_bytes: %zu bytes", post->batch->size);
    else
        snprintf(why, sizeof(why), "an event of %zu bytes: the API takes no such long one (batch_bytes = %llu, post_bytes = %llu)",
                 post->batch->size, (unsigned long long)set->batch_bytes, (unsigned long long)set->post_bytes);
    post_answer(post, PEN_TOO_LARGE, 0, why);
}

static void on_packed(uv_work_t *work, int status)
{
    struct post *post = work->data;

    assert(status == 0);                           /* never cancelled */
    if (post->sentinel->stop_due)
        post_answer(post, PEN_RETRY, 0, "stopping");
    else if (post->body_size == 0)
        post_too_long(post);
    else
        post_want_quota(post);
}

/* ---- QUOTA ----------------------------------------------------------------------------------------------------- */

static void post_want_token(struct post *post);

static void on_granted(struct quota_claim *claim)
{
    post_want_token((struct post *)((char *)claim - offsetof(struct post, claim)));
}

static void post_want_quota(struct post *post)
{
    post->state = POST_QUOTA;
    post->claim = (struct quota_claim){
        .bytes = post->batch->size + 2, .replayed = post->batch->replayed, .granted = on_granted,
    };
    if (quota_ask(post->sentinel->quota, &post->claim))
        post_want_token(post);
}

/* ---- TOKEN ----------------------------------------------------------------------------------------------------- */

static void post_send(struct post *post);

static void on_token(void *arg, const char *token, bool refused, int64_t retry_after_ms, const char *why)
{
    struct post *post = arg;

    if (post->state != POST_TOKEN)                 /* handed back by stop() meanwhile */
        return;
    if (!token) {
        post_answer(post, refused ? PEN_REFUSED : PEN_RETRY, retry_after_ms, why);
        return;
    }
    secret_text_free(post->authorization);
    post->authorization = secret_text(SENTINEL_BEARER "%s", token);
    post_send(post);
}

static void post_want_token(struct post *post)
{
    post->state = POST_TOKEN;
    entra_token(post->sentinel->entra, on_token, post);
}

/* ---- SENDING --------------------------------------------------------------------------------------------------- */

/* A random GUID; the far end's support asks for it. */
static void sentinel_guid(char guid[static SENTINEL_GUID_MAX])
{
    uint8_t b[16];
    int r = uv_random(NULL, NULL, b, sizeof(b), 0, NULL);

    assert(r == 0);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(guid, SENTINEL_GUID_MAX, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static void on_answer(void *arg, const struct http_answer *answer)
{
    struct post *post = arg;
    struct verdict verdict = sentinel_verdict(answer, post->body_size, post->batch->count);
    char why[512];

    post->request = NULL;
    if (answer->status == 401 && !post->spoiled_one) {
        post->spoiled_one = true;
        quota_charge(post->sentinel->quota, post->claim.bytes);
        entra_spoiled(post->sentinel->entra, post->authorization + strlen(SENTINEL_BEARER));
        post_want_token(post);
        return;
    }
    if (verdict.outcome == PEN_DELIVERED)
        arrival_add(post->sentinel->arrival, post->batch->count);
    sentinel_explain(why, answer, verdict.advice, post->sentinel->streams[post->batch->kind]);
    /* A Retry-After beside a refusal is nobody's promise, and must not keep us out once the refusal is mended. */
    post_answer(post, verdict.outcome, verdict.outcome == PEN_RETRY ? answer->retry_after_ms : 0, why);
}

static void post_send(struct post *post)
{
    struct sentinel *sentinel = post->sentinel;
    char guid[SENTINEL_GUID_MAX], id[64];
    const char *headers[5] = { post->authorization, "Content-Type: application/json", id };
    struct http_ask ask = {
        .method = "POST", .url = sentinel->urls[post->batch->kind], .headers = headers,
        .body = { post->body, post->body_size }, .conf = sentinel->http_conf,
    };

    sentinel_guid(guid);
    snprintf(id, sizeof(id), "x-ms-client-request-id: %s", guid);
    if (post->gzipped)
        headers[3] = "Content-Encoding: gzip";
    post->state = POST_SENDING;
    post->request = http_start(sentinel->host->http, &ask, on_answer, post);
}

/* ---- The contract ---------------------------------------------------------------------------------------------- */

static const struct pen_limits *sentinel_limits(void *self)
{
    return &((struct sentinel *)self)->limits;
}

static void sentinel_submit(void *self, struct pen_batch *batch)
{
    struct sentinel *sentinel = self;
    struct post *post = sentinel->posts;
    int r;

    /* An empty body would be answered with a 500 for ever. */
    assert(batch->count > 0 && batch->size > 0 && batch->kind < PEN_KINDS);
    assert(!sentinel->stopping && sentinel->busy < sentinel->set.in_flight);
    while (post->state != POST_FREE)
        post++;
    sentinel->busy++;
    post->state = POST_PACKING;
    post->batch = batch;
    post->spoiled_one = false;
    r = uv_queue_work(sentinel->host->loop, &post->work, on_pack, on_packed);
    assert(r == 0);
}

static void post_hand_back(struct post *post)
{
    if (post->state == POST_SENDING) {
        http_cancel(post->request);
        post->request = NULL;
        post_answer(post, PEN_RETRY, 0, "stopping; the far end may have taken it");
    } else if (post->state == POST_QUOTA) {
        quota_cancel(post->sentinel->quota, &post->claim);
        post_answer(post, PEN_RETRY, 0, "stopping");
    } else if (post->state == POST_TOKEN) {
        post_answer(post, PEN_RETRY, 0, "stopping");
    }                                              /* PACKING: on_packed() does it */
}

/* The grace is over, or there is nothing left to wait for. */
static void on_stop(uv_timer_t *timer)
{
    struct sentinel *sentinel = timer->data;

    sentinel->stop_due = true;
    for (int64_t i = 0; i < sentinel->set.in_flight; i++)
        post_hand_back(&sentinel->posts[i]);
    if (sentinel->busy > 0 || !sentinel->stopped)
        return;
    uv_timer_stop(timer);
    sentinel->stopped(sentinel->stopped_arg);      /* may close us */
}

static void sentinel_stop(void *self, void (*stopped)(void *), void *arg)
{
    struct sentinel *sentinel = self;

    assert(!sentinel->stopping);
    sentinel->stopping = true;
    sentinel->stopped = stopped;
    sentinel->stopped_arg = arg;
    uv_timer_start(&sentinel->timer, on_stop, sentinel->busy > 0 ? SENTINEL_STOP_MS : 0, 0);
}

static void sentinel_free(struct sentinel *sentinel)
{
    for (int64_t i = 0; sentinel->posts && i < sentinel->set.in_flight; i++) {
        free(sentinel->posts[i].deflate_buf);
        free(sentinel->posts[i].body);
    }
    for (int i = 0; i < PEN_KINDS; i++)
        free(sentinel->urls[i]);
    free(sentinel->posts);
    free(sentinel);
}

static void on_closed(uv_handle_t *handle)
{
    sentinel_free(handle->data);
}

static void sentinel_close(void *self)
{
    struct sentinel *sentinel = self;

    if (!sentinel)
        return;
    assert(sentinel->busy == 0);
    entra_close(sentinel->entra);
    quota_close(sentinel->quota, (uint64_t)sentinel->set.requests_a_minute, sentinel->set.bytes_a_minute);
    arrival_close(sentinel->arrival, sentinel);
    uv_close((uv_handle_t *)&sentinel->timer, on_closed);
}

/* ---- Open ------------------------------------------------------------------------------------------------------ */

/* A DCE has an address for configuration (….handler.control.monitor.azure.com) and one for metrics as well, the workspace and the
 * management API have theirs; all of them are taken for it. Outside of Azure's domains it is a proxy's, and the user knows. */
static bool sentinel_takes_logs(const char *host)
{
    char name[256];

    snprintf(name, sizeof(name), "%.*s", (int)strcspn(host, ":/?#"), host);
    return strcasestr(name, ".azure.") == NULL ||
           (strcasestr(name, ".ingest.") != NULL && strcasestr(name, ".metrics.ingest.") == NULL);
}

static int sentinel_check_endpoint(const struct sentinel_settings *set, struct pen_error *err)
{
    struct pen_error inner = { 0 };
    const char *host, *rest;

    if (http_url_check(set->endpoint, 0, &inner) < 0)
        return pen_error_set(err, UV_EINVAL, "endpoint: %.*s", 400, inner.text);
    host = strstr(set->endpoint, "://");
    if (!host)
        return pen_error_set(err, UV_EINVAL, "endpoint: expected https://HOST");
    if (!sentinel_takes_logs(host + 3))
        return pen_error_set(err, UV_EINVAL, "endpoint: this address takes no logs; expected the DCR's or the DCE's \"logs ingestion\" "
                                             "endpoint, https://….ingest.monitor.azure.com");
    rest = host + 3 + strcspn(host + 3, "/?#");
    if (*rest != '\0' && strcmp(rest, "/") != 0)
        return pen_error_set(err, UV_EINVAL, "endpoint: expected https://HOST alone; the path is made from dcr and stream");
    return 0;
}

static int sentinel_check_dcr(const char *dcr, struct pen_error *err)
{
    if (strncmp(dcr, "dcr-", 4) != 0 || strlen(dcr) != 36 || strspn(dcr + 4, "0123456789abcdefABCDEF") != 32)
        return pen_error_set(err, UV_EINVAL, "dcr: expected dcr- and 32 hex digits: the DCR's immutable id, not its name");
    return 0;
}

static int sentinel_check_stream(const char *stream, struct pen_error *err)
{
    size_t size = strspn(stream, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.");
    bool prefix = strncmp(stream, "Custom-", 7) == 0 || strncmp(stream, "Microsoft-", 10) == 0;

    if (stream[size] != '\0' || size > 128 || !prefix)
        return pen_error_set(err, UV_EINVAL, "stream \"%.*s\": expected its name under streamDeclarations in the DCR, "
                             "Custom-…", 130, stream);
    return 0;
}

/* It becomes the path of an URL. */
static int sentinel_check_resource_id(const char *id, struct pen_error *err)
{
    static const char type[] = "/providers/Microsoft.Insights/dataCollectionRules/";
    const char *name;

    if (!id)
        return 0;
    name = strcasestr(id, type);
    if (strncasecmp(id, "/subscriptions/", 15) != 0 || !name || name[sizeof(type) - 1] == '\0' ||
        strchr(name + sizeof(type) - 1, '/') || strlen(id) > 1024 || strstr(id, "..") ||
        id[strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.()/")] != '\0')
        return pen_error_set(err, UV_EINVAL, "dcr_resource_id: expected /subscriptions/…/resourceGroups/…%sNAME", type);
    return 0;
}

static int sentinel_check_management(const char *management, struct pen_error *err)
{
    struct pen_error inner = { 0 };

    if (!management)
        return 0;
    if (http_url_check(management, 0, &inner) < 0)
        return pen_error_set(err, UV_EINVAL, "management: %.*s", 400, inner.text);
    if (management[strlen("https://") + strcspn(management + strlen("https://"), "/?#")] != '\0')
        return pen_error_set(err, UV_EINVAL, "management: expected https://HOST without anything behind it");
    return 0;
}

static int sentinel_check_proxy(const char *proxy, struct pen_error *err)
{
    if (!proxy || strcmp(proxy, "none") == 0)
        return 0;
    if (strncmp(proxy, "http://", 7) != 0 && strncmp(proxy, "https://", 8) != 0)
        return pen_error_set(err, UV_EINVAL, "proxy: expected http://HOST:PORT or none");
    if (strchr(proxy, '@'))
        return pen_error_set(err, UV_EINVAL, "proxy: a name and password have no place in the configuration");
    return 0;
}

static int sentinel_check_bytes(const struct sentinel_settings *set, struct pen_error *err)
{
    if (!set->compress && set->batch_bytes + 2 > set->post_bytes)
        return pen_error_set(err, UV_EINVAL, "batch_bytes: with compress = no it cannot be more than post_bytes less two");
    return 0;
}

/* The settings, filled in and proved. */
static int sentinel_fill(struct sentinel *sentinel, const struct pen_conf *conf, struct pen_error *err)
{
    struct sentinel_settings *set = &sentinel->set;
    int r = pen_conf_fill(conf, sentinel_options, set, err);
    const char *const streams[] = {
        set->stream_network, set->stream_audit, set->stream_alert, set->stream_unknown, set->stream_raw,
    };

    if (r == 0)
        r = sentinel_check_endpoint(set, err);
    if (r == 0)
        r = sentinel_check_dcr(set->dcr, err);
    if (r == 0)
        r = sentinel_check_resource_id(set->dcr_resource_id, err);
    if (r == 0)
        r = sentinel_check_management(set->management, err);
    if (r == 0)
        r = sentinel_check_proxy(set->proxy, err);
    if (r == 0)
        r = sentinel_check_bytes(set, err);
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]) && r == 0; i++)
        r = sentinel_check_stream(streams[i], err);
    if (r == 0)
        r = entra_conf_check(&set->entra, err);
    if (r == 0)
        r = entra_cloud_check(&set->entra, "endpoint", set->endpoint, err);
    return r;
}

static int sentinel_prove(const struct pen_conf *conf, struct pen_error *err)
{
    struct sentinel sentinel = { 0 };

    return sentinel_fill(&sentinel, conf, err);
}

static const char *sentinel_stream(const struct sentinel_settings *set, const char *schema, enum pen_kind kind)
{
    const char *const streams[PEN_KINDS] = {
        [PEN_UNKNOWN] = set->stream_unknown, [PEN_NETWORK] = set->stream_network,
        [PEN_AUDIT] = set->stream_audit, [PEN_ALERT] = set->stream_alert,
    };

    return strcmp(schema, "raw") == 0 ? set->stream_raw : streams[kind];
}

static struct http_conf sentinel_http_conf(const struct sentinel_settings *set)
{
    return (struct http_conf){
        .proxy = set->proxy && strcmp(set->proxy, "none") == 0 ? "" : set->proxy, .ca_file = set->ca_file,
        .timeout_ms = set->timeout_ms, .connect_timeout_ms = set->connect_timeout_ms,
    };
}

static void sentinel_open_urls(struct sentinel *sentinel)
{
    const struct sentinel_settings *set = &sentinel->set;
    size_t size = strlen(set->endpoint);

    if (size > 0 && set->endpoint[size - 1] == '/')
        size--;
    for (int i = 0; i < PEN_KINDS; i++) {
        sentinel->streams[i] = sentinel_stream(set, sentinel->host->schema, (enum pen_kind)i);
        if (asprintf(&sentinel->urls[i], "%.*s/dataCollectionRules/%s/streams/%s?api-version=2023-01-01", (int)size,
                     set->endpoint, set->dcr, sentinel->streams[i]) < 0)
            abort();
    }
}

static struct quota *sentinel_open_quota(const struct sentinel *sentinel)
{
    struct quota *quota = quota_open(sentinel->host->loop, sentinel->set.dcr, (uint64_t)sentinel->set.requests_a_minute,
                                     sentinel->set.bytes_a_minute);

    if (sentinel->host->beside != NULL)
        quota_give_way(quota, sentinel->host->beside);
    return quota;
}

static struct arrival *sentinel_open_arrival(const struct sentinel *sentinel, const struct pen_conf *conf)
{
    struct arrival *arrival = arrival_open(sentinel->host->loop, sentinel->set.dcr);
    struct sentinel_target target;
    struct pen_error err = { 0 };
    int r;

    if (sentinel->set.dcr_resource_id == NULL || sentinel->set.dcr_compare_ms == 0)
        return arrival;
    r = sentinel_target_read(&target, conf, sentinel->host->schema, &err);
    assert(r == 0);                                /* sentinel_fill() has proved it */
    arrival_watch(arrival, sentinel, sentinel->host->http, &target, sentinel->set.dcr_compare_ms);
    return arrival;
}

static void sentinel_open_posts(struct sentinel *sentinel)
{
    sentinel->posts = calloc((size_t)sentinel->set.in_flight, sizeof(*sentinel->posts));
    assert(sentinel->posts);
    for (int64_t i = 0; i < sentinel->set.in_flight; i++) {
        struct post *post = &sentinel->posts[i];

        post->sentinel = sentinel;
        post->work.data = post;
        post->deflate_buf = sentinel->set.compress ? malloc(ISAL_DEF_LVL1_DEFAULT) : NULL;
        post->body = malloc(body_max(&sentinel->set));
        assert(post->body && (post->deflate_buf || !sentinel->set.compress));
    }
}

static struct pen_limits sentinel_limits_of(const struct sentinel_settings *set)
{
    size_t post = sizeof(struct post) + body_max(set) + ISAL_DEF_LVL1_DEFAULT + SENTINEL_CURL_HELD;

    return (struct pen_limits){
        .bytes_max = set->batch_bytes,
        .messages_max = (uint32_t)(set->batch_bytes / SENTINEL_SMALLEST) + 1,
        .span_ticks_max = (int64_t)set->span_ms * 10000,
        .in_flight_max = (uint32_t)set->in_flight,
        .by_kind = true,
        .memory = (size_t)set->in_flight * post,
    };
}

static int sentinel_open(void **self, struct pen_host *host, const struct pen_conf *conf, struct pen_error *err)
{
    struct sentinel *sentinel = calloc(1, sizeof(*sentinel));
    struct sentinel_settings *set;
    int r;

    assert(sentinel);
    set = &sentinel->set;
    sentinel->host = host;
    r = sentinel_fill(sentinel, conf, err);
    if (r < 0)
        goto fail;
    sentinel_open_urls(sentinel);
    sentinel->http_conf = sentinel_http_conf(set);
    set->entra.audience = ENTRA_MONITOR;
    set->entra.http = sentinel->http_conf;
    r = entra_new(&sentinel->entra, host->http, host->loop, &set->entra, err);
    if (r < 0)
        goto fail;
    sentinel->quota = sentinel_open_quota(sentinel);
    sentinel->arrival = host->beside ? NULL : sentinel_open_arrival(sentinel, conf);
    sentinel_open_posts(sentinel);
    sentinel->limits = sentinel_limits_of(set);
    uv_timer_init(host->loop, &sentinel->timer);
    sentinel->timer.data = sentinel;
    *self = sentinel;
    return 0;
fail:
    sentinel_free(sentinel);
    return r;
}

/* ---- Seen from outside ------------------------------------------------------------------------------------------ */

/* What tokens are for is its address, but for the end. */
static struct pen_span sentinel_management(const struct sentinel_settings *set, const struct entra_conf *entra)
{
    const char *address = set->management ? set->management : entra_conf_scope(entra);

    return (struct pen_span){ address, strlen(address) - (set->management ? 0 : strlen("/.default")) };
}

int sentinel_target_read(struct sentinel_target *ret, const struct pen_conf *conf, const char *schema,
                         struct pen_error *err)
{
    struct sentinel sentinel = { 0 };
    const struct sentinel_settings *set = &sentinel.set;
    int r = sentinel_fill(&sentinel, conf, err);

    if (r < 0)
        return r;
    *ret = (struct sentinel_target){
        .endpoint = set->endpoint, .dcr = set->dcr, .resource_id = set->dcr_resource_id,
        .entra = set->entra, .http = sentinel_http_conf(set),
    };
    ret->entra.http = ret->http;
    ret->management_entra = ret->entra;
    ret->management_entra.scope = NULL;            /* what the user says of it is the ingestion API's */
    ret->entra.audience = ENTRA_MONITOR;
    ret->management_entra.audience = ENTRA_MANAGEMENT;
    ret->management = sentinel_management(set, &ret->management_entra);
    for (int i = 0; i < PEN_KINDS; i++)
        ret->streams[i] = sentinel_stream(set, schema, (enum pen_kind)i);
    return 0;
}

enum pen_outcome sentinel_judge(char why[static 512], const struct http_answer *answer, const char *stream)
{
    struct verdict verdict = sentinel_verdict(answer, 0, 1);

    sentinel_explain(why, answer, verdict.advice, stream);
    return verdict.outcome;
}

static uint64_t sentinel_token_ms(void *self)
{
    const struct sentinel *sentinel = self;

    return entra_life_ms(sentinel->entra);
}

static struct pen_arrival sentinel_arrival(void *self)
{
    return arrival_see(((struct sentinel *)self)->arrival);
}

static const char *const sentinel_schemas[] = { "asim", "ocsf", "raw", NULL };

const struct pen_sink sentinel_sink = {
    .size = sizeof(struct pen_sink),
    .name = "sentinel",
    .options = sentinel_options,
    .schemas = sentinel_schemas,
    .limits = sentinel_limits,
    .open = sentinel_open,
    .submit = sentinel_submit,
    .stop = sentinel_stop,
    .close = sentinel_close,
    .prove = sentinel_prove,
    .probe = sentinel_probe,
    .token_ms = sentinel_token_ms,
    .arrival = sentinel_arrival,
};
