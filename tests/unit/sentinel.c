/*
 * The Sentinel sink against a small ingestion API and token endpoint on loopback. Promises: what the API gets is what it
 * documents; every answer it can give becomes the right outcome; every batch is answered once, on a later turn, also at
 * stop; no token and no far end's prose reaches a sentence.
 */
#include "sinks/sentinel.c"          /* the tables are not public */
#include "sinks/quota.c"             /* what is left of it is not, either */

#include "daemon/config/conf.h"

#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#define CALL_MAX 999998              /* of a batch, by default */
#define DCR     "dcr-0123456789abcdef0123456789abcdef"
#define GUID    "00000000-0000-0000-0000-0000000000aa"
#define TOKEN(name) { "HTTP/1.1 200 OK\r\n\r\n{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":\"" name "\"}", \
                      SERVER_HANG_UP }
#define REPLY(status) { "HTTP/1.1 " status "\r\nContent-Length: 0\r\n\r\n", SERVER_KEEP }

static uv_loop_t loop;
static struct http *http;
static struct pen_host host;
static struct server entra_server, api;
static struct conf *conf;
static void *sink;
static bool stopped, beside;
static char dir[] = "/tmp/penstock-sentinel-XXXXXX";

/* ---- The daemon's side, faked ---------------------------------------------------------------------------------- */

struct lent {                        /* a batch and the answers to it */
    struct pen_batch batch;
    struct pen_message messages[2];
    int answers;
    enum pen_outcome outcome;
    uint32_t delay_ms;
    char why[512];
    void (*then)(void);              /* run inside the answer */
};

static bool inside;                  /* a call of the sink's that must not answer */

void pen_batch_answer(struct pen_batch *batch, enum pen_outcome outcome, uint32_t delay_ms, const char *why)
{
    struct lent *lent = (struct lent *)batch;

    assert_false(inside);
    lent->answers++;
    lent->outcome = outcome;
    lent->delay_ms = delay_ms;
    snprintf(lent->why, sizeof(lent->why), "%s", why);
    uv_stop(&loop);
    if (lent->then)
        lent->then();
}

void pen_batch_answer_each(struct pen_batch *batch, const enum pen_outcome *outcomes, uint32_t delay_ms, const char *why)
{
    (void)batch, (void)outcomes, (void)delay_ms, (void)why;
    fail_msg("this sink answers for whole batches");
}

static const char two[] = "{\"TimeGenerated\":\"2026-11-22T03:29:33.548Z\",\"EventOriginalUid\":\"a-0\"},{\"b\":\"\xc3\xa9\"}";

static struct lent lend(const char *data, size_t size, uint32_t count, enum pen_kind kind)
{
    return (struct lent){ .batch = { .data = data, .size = size, .count = count, .kind = kind } };
}

static void submit(struct lent *lent)
{
    inside = true;
    sentinel_sink.submit(sink, &lent->batch);
    inside = false;
}

static void await(struct lent *lent)
{
    while (lent->answers == 0)
        uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(lent->answers, 1);
}

static void post(struct lent *lent)
{
    submit(lent);
    await(lent);
}

/* ---- The world ------------------------------------------------------------------------------------------------- */

static void no_mistake(void *arg, const char *file, unsigned line, const char *sentence)
{
    (void)arg;
    fail_msg("%s:%u: %s", file, line, sentence);
}

static const struct pen_beside nothing_beside;

/* The section as a user would write it; `rows` may repeat none of these. */
static int sink_open(const char *schema, const char *rows, const char *endpoint, const char *dcr, struct pen_error *err)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/penstock.conf", dir);
    file = fopen(path, "w");
    fprintf(file, "[sink s]\ntype = sentinel\nendpoint = %s\ndcr = %s\ntenant = " GUID "\nclient = " GUID "\n"
            "secret_file = %s/secret\nauthority = http://127.0.0.1:%d\n%s", endpoint, dcr, dir, entra_server.port, rows);
    fclose(file);
    assert_int_equal(conf_read(&conf, path, no_mistake, NULL, err), 0);
    host = (struct pen_host){ .loop = &loop, .http = http, .schema = schema, .beside = beside ? &nothing_beside : NULL };
    return sentinel_sink.open(&sink, &host, conf_section(conf, CONF_SINK, 0), err);
}

static void setup_with(const char *schema, const char *rows, const struct server_turn *tokens, size_t token_count,
                       const struct server_turn *turns, size_t count)
{
    struct pen_error err = { 0 };
    char endpoint[64];

    uv_loop_init(&loop);
    assert_int_equal(http_new(&http, &loop, &err), 0);
    server_open(&entra_server, &loop, tokens, token_count);
    server_open(&api, &loop, turns, count);
    stopped = false;
    snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%d/", api.port);
    if (sink_open(schema, rows, endpoint, DCR, &err) < 0)
        fail_msg("%s", err.text);
}

static const struct server_turn good_token[] = { TOKEN("tok-one"), TOKEN("tok-two"), TOKEN("tok-three") };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SETUP_ROWS(rows, ...)                                             \
    static const struct server_turn turns[] = { __VA_ARGS__ };            \
    setup_with("asim", rows, good_token, COUNT(good_token), turns, COUNT(turns))
#define SETUP(...) SETUP_ROWS("", __VA_ARGS__)

static void on_sink_stopped(void *arg)
{
    assert_ptr_equal(arg, &stopped);
    assert_false(stopped);
    stopped = true;
    sentinel_sink.close(sink);                     /* at once, as the contract allows */
    sink = NULL;
}

static void world_leave(void)
{
    http_close(http, NULL, NULL);
    server_close(&entra_server);
    server_close(&api);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    conf_free(conf);
    conf = NULL;
}

static void stop(void)
{
    inside = true;
    sentinel_sink.stop(sink, on_sink_stopped, &stopped);
    inside = false;
    assert_false(stopped);
    while (!stopped)
        uv_run(&loop, UV_RUN_ONCE);
}

static void teardown(void)
{
    stop();
    world_leave();
}

/* The same with nothing to wait for. */
static void teardown_without_grace(void)
{
    struct sentinel *sentinel = sink;

    sentinel_sink.stop(sink, on_sink_stopped, &stopped);
    uv_timer_start(&sentinel->timer, on_stop, 0, 0);
    while (!stopped)
        uv_run(&loop, UV_RUN_ONCE);
    world_leave();
}

/* The value of a header in what the API was asked, or "". */
static const char *header(size_t request, const char *name)
{
    static char value[256];
    char key[64];
    const char *at;

    snprintf(key, sizeof(key), "\r\n%s: ", name);
    at = strcasestr(api.requests[request].head, key);
    value[0] = '\0';
    if (at)
        sscanf(at + strlen(key), "%255[^\r]", value);
    return value;
}

/* The JSON that a request carried. */
static char *body(size_t request, size_t *size)
{
    static char out[2000000];
    z_stream z = { 0 };

    if (strcmp(header(request, "Content-Encoding"), "gzip") != 0) {
        *size = api.requests[request].body_size;
        return api.requests[request].body;
    }
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    z.next_in = (unsigned char *)api.requests[request].body;
    z.avail_in = (unsigned)api.requests[request].body_size;
    z.next_out = (unsigned char *)out;
    z.avail_out = sizeof(out) - 1;
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(z.avail_in, 0);
    *size = z.total_out;
    out[*size] = '\0';
    inflateEnd(&z);
    return out;
}

static void assert_body(size_t request, const char *data, size_t data_size)
{
    size_t size;
    char *text = body(request, &size);

    assert_int_equal(size, data_size + 2);
    assert_int_equal(text[0], '[');
    assert_memory_equal(text + 1, data, data_size);
    assert_int_equal(text[size - 1], ']');
}

/* ---- What is posted -------------------------------------------------------------------------------------------- */

static void test_a_post(void **state)
{
    struct lent lent = lend(two, sizeof(two) - 1, 2, PEN_AUDIT), next = lent;
    char first_id[64];

    (void)state;
    SETUP(REPLY("204 No Content"));
    post(&lent);
    assert_int_equal(lent.outcome, PEN_DELIVERED);
    assert_int_equal(lent.delay_ms, 0);
    assert_non_null(strstr(api.requests[0].head, "POST /dataCollectionRules/" DCR
                           "/streams/Custom-PenstockAudit?api-version=2023-01-01 HTTP/1.1\r\n"));
    assert_string_equal(header(0, "Authorization"), "Bearer tok-one");
    assert_string_equal(header(0, "Content-Type"), "application/json");
    snprintf(first_id, sizeof(first_id), "%s", header(0, "x-ms-client-request-id"));
    assert_true(pen_guid_valid((struct pen_span){ first_id, strlen(first_id) }));
    assert_body(0, two, sizeof(two) - 1);
    assert_non_null(strstr(entra_server.requests[0].body, "scope=https%3A%2F%2Fmonitor.azure.com%2F.default"));

    post(&next);
    assert_string_not_equal(header(1, "x-ms-client-request-id"), first_id);
    assert_int_equal(entra_server.request_count, 1);
    assert_int_equal(api.connections, 1);
    teardown();
}

static void test_streams_by_kind(void **state)
{
    static const char *const names[PEN_KINDS] = {
        [PEN_UNKNOWN] = "/streams/Custom-PenstockUnknown?", [PEN_NETWORK] = "/streams/Custom-Net_1?",
        [PEN_AUDIT] = "/streams/Custom-PenstockAudit?", [PEN_ALERT] = "/streams/Custom-PenstockAlert?",
    };

    (void)state;
    SETUP_ROWS("stream_network = Custom-Net_1\n", REPLY("204 No Content"));
    for (int kind = 0; kind < PEN_KINDS; kind++) {
        struct lent lent = lend("{}", 2, 1, (enum pen_kind)kind);

        post(&lent);
        assert_non_null(strstr(api.requests[kind].head, names[kind]));
    }
    teardown();
}

static void test_raw_goes_to_one_stream(void **state)
{
    static const struct server_turn turns[] = { REPLY("204 No Content") };

    (void)state;
    setup_with("raw", "", good_token, COUNT(good_token), turns, 1);
    for (int kind = 0; kind < PEN_KINDS; kind++) {
        struct lent lent = lend("{}", 2, 1, (enum pen_kind)kind);

        post(&lent);
        assert_non_null(strstr(api.requests[kind].head, "/streams/Custom-PenstockRaw?"));
    }
    teardown();
}

/* Sizes around every border: gzip where it helps, plain where it does not, and the JSON back in one piece. */
static void test_bodies(void **state)
{
    static const size_t sizes[] = { 2, 20, 21, 100, 4096, 65535, 65536, 500000, CALL_MAX };
    char *data = malloc(CALL_MAX);
    uint32_t seed = 1;

    (void)state;
    SETUP(REPLY("204 No Content"));
    for (size_t i = 0; i < 2 * COUNT(sizes); i++) {
        size_t size = sizes[i / 2];
        struct lent lent = lend(data, size, 1, PEN_NETWORK);

        for (size_t k = 0; k < size; k++) {                    /* even: text that repeats itself; odd: noise */
            seed = seed * 1664525u + 1013904223u;
            data[k] = i % 2 ? (char)(seed >> 24) : "{\"SrcIpAddr\":\"10.0.0.1\",\"DstPortNumber\":443},"[k % 45];
        }
        post(&lent);
        assert_int_equal(lent.outcome, PEN_DELIVERED);
        assert_body(i, data, size);
        assert_true(api.requests[i].body_size <= size + 2);
        if (size > 100)
            assert_string_equal(header(i, "Content-Encoding"), i % 2 ? "" : "gzip");
    }
    free(data);
    teardown();
}

static void test_without_compression(void **state)
{
    struct lent lent = lend(two, sizeof(two) - 1, 2, PEN_ALERT);

    (void)state;
    SETUP_ROWS("compress = no\n", REPLY("204 No Content"));
    post(&lent);
    assert_string_equal(header(0, "Content-Encoding"), "");
    assert_body(0, two, sizeof(two) - 1);
    teardown();
}

/* ---- Answers and outcomes: one test per row -------------------------------------------------------------------- */

static void test_statuses(void **state)
{
    static const struct { const char *status; enum pen_outcome outcome; uint32_t delay_ms; const char *says; } rows[] = {
        { "200 OK", PEN_DELIVERED, 0, "taken" },
        { "202 Accepted", PEN_DELIVERED, 0, "taken" },
        { "204 No Content\r\nRetry-After: 9", PEN_DELIVERED, 0, "taken" },
        { "301 Moved\r\nLocation: https://else.example/", PEN_REFUSED, 0, "`endpoint`" },
        { "400 Bad Request", PEN_REJECTED, 0, "status 400: the far end cannot read this" },
        { "402 Pay", PEN_REJECTED, 0, "status 402" },
        { "403 No\r\nx-ms-error-code: OperationFailed\r\nx-ms-request-id: r-7", PEN_REFUSED, 0,
          "status 403, OperationFailed, request r-7: the app may not write here: give it the role Monitoring Metrics Publisher" },
        { "404 No\r\nRetry-After: 86400", PEN_REFUSED, 0, "the stream's name with the DCR (stream Custom-PenstockAudit)" },
        { "405 No", PEN_REFUSED, 0, "`endpoint`" },
        { "407 Who", PEN_REFUSED, 0, "the proxy" },
        { "408 Slow", PEN_RETRY, 0, "waited" },
        { "410 Gone", PEN_REFUSED, 0, "gone" },
        { "413 Big\r\nx-ms-error-code: ContentLengthLimitExceeded", PEN_TOO_LARGE, 0, "status 413, ContentLengthLimitExceeded: " },
        { "415 What", PEN_REJECTED, 0, "compress = no" },
        { "418 Teapot", PEN_REJECTED, 0, "status 418" },
        { "425 Early", PEN_RETRY, 0, "early" },
        { "429 Busy\r\nRetry-After: 8", PEN_RETRY, 8000, "limit" },
        { "429 Busy", PEN_RETRY, 0, "limit" },
        { "429 Busy\r\nRetry-After: 99999999999999999999", PEN_RETRY, HTTP_RETRY_AFTER_MAX_MS, "limit" },
        { "429 Busy\r\nRetry-After: -1", PEN_RETRY, 0, "limit" },
        { "500 No", PEN_RETRY, 0, "status 500: the far end is in trouble" },
        { "502 No", PEN_RETRY, 0, "status 502" },
        { "503 No\r\nRetry-After: 120", PEN_RETRY, 120000, "status 503" },
        { "504 No", PEN_RETRY, 0, "status 504" },
        { "999 What", PEN_RETRY, 0, "no sense" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        static char reply[512];
        static const struct server_turn turns[] = { { reply, SERVER_HANG_UP } };
        struct lent lent = lend(two, sizeof(two) - 1, 2, PEN_AUDIT);

        snprintf(reply, sizeof(reply), "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", rows[i].status);
        setup_with("asim", "", good_token, COUNT(good_token), turns, 1);
        post(&lent);
        if (lent.outcome != rows[i].outcome || lent.delay_ms != rows[i].delay_ms || !strstr(lent.why, rows[i].says))
            fail_msg("%s: outcome %d, %u ms, %s", rows[i].status, lent.outcome, lent.delay_ms, lent.why);
        assert_int_equal(api.request_count, 1);
        teardown();
    }
}

/* Every row of both tables says what to do, in one line that fits. */
static void test_tables(void **state)
{
    struct http_answer answer = { .retry_after_ms = -1, .trouble = "x" };

    (void)state;
    for (answer.status = 100; answer.status < 1000; answer.status++)
        assert_true(strlen(sentinel_verdict(&answer, 1, 1).advice) > 4);
    answer.status = 0;
    for (int failure = HTTP_UNUSABLE; failure <= HTTP_BROKEN; failure++) {
        bool ours = failure == HTTP_UNUSABLE || failure == HTTP_UNTRUSTED;

        answer.failure = (enum http_failure)failure;
        assert_int_equal(sentinel_verdict(&answer, 1, 2).outcome, ours ? PEN_REFUSED : PEN_RETRY);
        assert_int_equal(sentinel_verdict(&answer, SENTINEL_RESET_SIZE, 2).outcome, ours ? PEN_REFUSED : PEN_RETRY);
        assert_int_equal(sentinel_verdict(&answer, SENTINEL_RESET_SIZE + 1, 1).outcome, ours ? PEN_REFUSED : PEN_RETRY);
        assert_int_equal(sentinel_verdict(&answer, SENTINEL_RESET_SIZE + 1, 2).outcome,
                         failure == HTTP_BROKEN ? PEN_TOO_LARGE : ours ? PEN_REFUSED : PEN_RETRY);
    }
}

/* The body's code serves where the header is missing; its message, which may quote records, does not. */
static void test_code_from_the_body(void **state)
{
    struct lent lent = lend("{}", 2, 1, PEN_AUDIT), next = lent;

    (void)state;
    SETUP({ "HTTP/1.1 400 No\r\n\r\n{\"error\":{\"code\":\"Invalid\\u001b[31mPayload\",\"message\":\"near 'SECRET'\"}}", SERVER_HANG_UP },
          { "HTTP/1.1 400 No\r\n\r\n<html>SECRET</html>", SERVER_HANG_UP });
    post(&lent);
    assert_ptr_equal(strstr(lent.why, "status 400, InvalidmPayload: "), lent.why);
    assert_null(strstr(lent.why, "SECRET"));
    post(&next);
    assert_ptr_equal(strstr(next.why, "status 400: "), next.why);
    assert_null(strstr(next.why, "SECRET"));
    teardown();
}

/* A reset under a large upload is how an over-long one may look; else it is the network's. */
static void test_resets(void **state)
{
    size_t size = 700000;
    char *data = malloc(size);
    struct lent large = lend(data, size, 2, PEN_AUDIT), alone = lend(data, size, 1, PEN_AUDIT), small = lend(data, 5000, 2, PEN_AUDIT);

    (void)state;
    memset(data, '1', size);
    SETUP_ROWS("compress = no\n", { NULL, SERVER_RESET_EARLY }, { NULL, SERVER_RESET_EARLY }, { NULL, SERVER_RESET_EARLY });
    post(&large);
    assert_int_equal(large.outcome, PEN_TOO_LARGE);
    post(&alone);
    assert_int_equal(alone.outcome, PEN_RETRY);
    post(&small);
    assert_int_equal(small.outcome, PEN_RETRY);
    free(data);
    teardown();
}

static void test_no_answer(void **state)
{
    struct lent silent = lend("{}", 2, 1, PEN_AUDIT), torn = silent, plain = silent;

    (void)state;
    SETUP({ NULL, SERVER_HANG_UP }, { "HTTP/1.1 204 No Con", SERVER_HANG_UP }, { NULL, SERVER_SILENT });
    post(&plain);
    assert_int_equal(plain.outcome, PEN_RETRY);
    post(&torn);
    assert_int_equal(torn.outcome, PEN_RETRY);
    ((struct sentinel *)sink)->http_conf.timeout_ms = 50;
    post(&silent);
    assert_int_equal(silent.outcome, PEN_RETRY);
    assert_non_null(strstr(silent.why, "in time"));
    teardown();
}

/* ---- Tokens ---------------------------------------------------------------------------------------------------- */

static void test_401_is_tried_once_with_a_new_token(void **state)
{
    struct lent lent = lend(two, sizeof(two) - 1, 2, PEN_AUDIT), next = lent;

    (void)state;
    SETUP(REPLY("401 No"), REPLY("204 No Content"), REPLY("401 No"));
    post(&lent);
    assert_int_equal(lent.outcome, PEN_DELIVERED);
    assert_string_equal(header(0, "Authorization"), "Bearer tok-one");
    assert_string_equal(header(1, "Authorization"), "Bearer tok-two");
    assert_body(1, two, sizeof(two) - 1);

    post(&next);
    assert_int_equal(next.outcome, PEN_REFUSED);
    assert_non_null(strstr(next.why, "status 401: the far end does not take our tokens"));
    assert_null(strstr(next.why, "tok-"));
    assert_int_equal(api.request_count, 4);
    assert_int_equal(entra_server.request_count, 3);
    teardown();
}

static void test_token_trouble(void **state)
{
    static const struct server_turn turns[] = { REPLY("204 No Content") };
    static const struct server_turn busy[] = { { "HTTP/1.1 503 No\r\nRetry-After: 30\r\n\r\n", SERVER_HANG_UP } };
    static const struct server_turn wrong[] = { { "HTTP/1.1 401 No\r\n\r\n{\"error_codes\":[7000222]}", SERVER_HANG_UP } };
    struct lent lent = lend("{}", 2, 1, PEN_AUDIT), next = lent;

    (void)state;
    setup_with("asim", "", busy, 1, turns, 1);
    post(&lent);
    assert_int_equal(lent.outcome, PEN_RETRY);
    assert_in_range(lent.delay_ms, 29000, 30000);
    teardown();
    setup_with("asim", "", wrong, 1, turns, 1);
    post(&next);
    assert_int_equal(next.outcome, PEN_REFUSED);
    assert_int_equal(next.delay_ms, 0);                        /* at our own pace: the token itself is held back */
    assert_non_null(strstr(next.why, "AADSTS7000222"));
    assert_int_equal(api.request_count, 0);
    teardown();
}

/* ---- Flow and stop --------------------------------------------------------------------------------------------- */

static struct lent follower;

static void submit_follower(void)
{
    submit(&follower);
}

/* The daemon submits the next batch from inside an answer. */
static void test_submit_inside_an_answer(void **state)
{
    struct lent lent = lend("{\"n\":1}", 7, 1, PEN_AUDIT);

    (void)state;
    SETUP(REPLY("204 No Content"));
    follower = lend("{\"n\":2}", 7, 1, PEN_AUDIT);
    lent.then = submit_follower;
    post(&lent);
    await(&follower);
    assert_body(0, "{\"n\":1}", 7);
    assert_body(1, "{\"n\":2}", 7);
    teardown();
}

static void test_several_in_flight(void **state)
{
    struct lent lents[5];

    (void)state;
    SETUP_ROWS("in_flight = 5\n", REPLY("204 No Content"));
    assert_int_equal(sentinel_sink.limits(sink)->in_flight_max, 5);
    for (int i = 0; i < 5; i++)
        lents[i] = lend("{}", 2, 1, PEN_AUDIT);
    for (int i = 0; i < 5; i++)
        submit(&lents[i]);
    for (int i = 0; i < 5; i++)
        await(&lents[i]);
    assert_int_equal(api.request_count, 5);
    assert_int_equal(entra_server.request_count, 1);           /* one token for all */
    teardown();
}

/* With larger batches the post's own size counts: what compresses well goes, what does not comes back to be cut. */
static void test_post_bytes(void **state)
{
    static char data[200000];
    struct lent plain = lend(data, sizeof(data), 2, PEN_AUDIT), noise = plain, alone = plain;
    uint32_t seed = 1;

    (void)state;
    SETUP_ROWS("batch_bytes = 1M\npost_bytes = 100000\n", REPLY("204 No Content"));
    memset(data, ' ', sizeof(data));
    post(&plain);
    assert_int_equal(plain.outcome, PEN_DELIVERED);
    assert_body(0, data, sizeof(data));
    for (size_t i = 0; i < sizeof(data); i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (char)(seed >> 24);
    }
    post(&noise);
    assert_int_equal(noise.outcome, PEN_TOO_LARGE);
    alone.batch.count = 1;
    post(&alone);
    assert_int_equal(alone.outcome, PEN_TOO_LARGE);
    assert_non_null(strstr(alone.why, "an event of 200000 bytes"));
    assert_int_equal(api.request_count, 1);
    teardown();
}

/* A post that would compress to a little more than it may is cut as well: no half of a gzip stream is ever sent. */
static void test_just_beyond_post_bytes(void **state)
{
    static char data[300000];
    uint32_t seed = 1;

    (void)state;
    SETUP_ROWS("batch_bytes = 1M\npost_bytes = 150000\n", REPLY("204 No Content"));
    for (size_t i = 0; i < sizeof(data); i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = "0123456789abcdef"[seed >> 28];  /* a byte says four bits: the whole is 160 KB in gzip */
    }
    for (size_t size = sizeof(data); size > 280000; size -= 5000) {
        struct lent lent = lend(data, size, 2, PEN_AUDIT);

        post(&lent);
        assert_int_equal(lent.outcome, PEN_TOO_LARGE);
    }
    assert_int_equal(api.request_count, 0);
    teardown();
}

/* The DCR's quota is one for all who name it; who waits for it at stop is handed back. */
static void test_quota(void **state)
{
    struct lent first = lend("{}", 2, 1, PEN_AUDIT), next = first;
    struct quota *quota;

    (void)state;
    SETUP_ROWS("requests_a_minute = 60\n", REPLY("204 No Content"));
    quota = quota_open(&loop, DCR, 0, 0);
    assert_ptr_equal(quota, ((struct sentinel *)sink)->quota);
    post(&first);
    assert_int_equal(first.outcome, PEN_DELIVERED);
    quota_charge(quota, 1);                        /* by another sink */
    submit(&next);
    while (((struct sentinel *)sink)->posts[0].state != POST_QUOTA)
        uv_run(&loop, UV_RUN_ONCE);
    quota_close(quota, 0, 0);
    teardown_without_grace();
    assert_int_equal(next.answers, 1);
    assert_int_equal(next.outcome, PEN_RETRY);
    assert_int_equal(api.request_count, 1);
}

/* A job beside the daemon leaves it half, and no bound stays none. */
static void test_a_job_beside_takes_half(void **state)
{
    static const struct server_turn turns[] = { REPLY("204 No Content") };

    (void)state;
    beside = true;
    setup_with("asim", "requests_a_minute = 601\nbytes_a_minute = 0\n", good_token, COUNT(good_token), turns, 1);
    beside = false;
    assert_true(((struct sentinel *)sink)->quota->requests.size == 601.0 / 60 / 2);
    assert_true(((struct sentinel *)sink)->quota->bytes.a_ms == 0);
    teardown();
}

/* A post that repeats one with a new token is one more request. */
static void test_the_second_try_is_charged(void **state)
{
    struct lent lent = lend("{}", 2, 1, PEN_AUDIT);
    struct quota *quota;

    (void)state;
    SETUP_ROWS("requests_a_minute = 600\n", REPLY("401 No"), REPLY("204 No Content"));
    quota = quota_open(&loop, DCR, 0, 0);
    post(&lent);
    assert_int_equal(lent.outcome, PEN_DELIVERED);
    assert_true(quota->requests.level == 600.0 / 60 - 2);
    quota_close(quota, 0, 0);
    teardown();
}

/* What was sealed under a larger batch_bytes comes back to be cut. */
static void test_longer_than_batch_bytes(void **state)
{
    static char data[2000];
    struct lent lent = lend(data, sizeof(data), 2, PEN_AUDIT);

    (void)state;
    memset(data, ' ', sizeof(data));
    SETUP_ROWS("batch_bytes = 1024\n", REPLY("204 No Content"));
    assert_int_equal(sentinel_sink.limits(sink)->bytes_max, 1024);
    post(&lent);
    assert_int_equal(lent.outcome, PEN_TOO_LARGE);
    assert_int_equal(api.request_count, 0);
    teardown();
}

/* A post on the wire is waited for; one that gets no answer, no token, or was still packed is handed back. */
static void test_stop_waits_for_an_answer(void **state)
{
    struct lent lent = lend("{}", 2, 1, PEN_AUDIT);

    (void)state;
    SETUP(REPLY("204 No Content"));
    submit(&lent);
    teardown();
    assert_int_equal(lent.answers, 1);
    assert_int_equal(lent.outcome, PEN_DELIVERED);
}

static void test_stop_hands_back(void **state)
{
    static const struct server_turn turns[] = { { NULL, SERVER_SILENT } };
    struct lent lent = lend("{}", 2, 1, PEN_AUDIT), next = lent;

    (void)state;
    setup_with("asim", "", good_token, COUNT(good_token), turns, 1);
    submit(&lent);
    while (api.request_count == 0)
        uv_run(&loop, UV_RUN_ONCE);
    teardown_without_grace();
    assert_int_equal(lent.answers, 1);
    assert_int_equal(lent.outcome, PEN_RETRY);

    setup_with("asim", "in_flight = 2\n", turns, 1, turns, 1);
    submit(&next);
    while (entra_server.request_count == 0)
        uv_run(&loop, UV_RUN_ONCE);
    teardown_without_grace();
    assert_int_equal(next.answers, 1);
    assert_int_equal(next.outcome, PEN_RETRY);
}

/* The grace may end while the pool is still busy with a body. */
static void test_stop_while_packing(void **state)
{
    struct lent lent = lend("{}", 2, 1, PEN_AUDIT);

    (void)state;
    SETUP(REPLY("204 No Content"));
    submit(&lent);
    ((struct sentinel *)sink)->stop_due = true;
    stop();
    assert_int_equal(lent.answers, 1);
    assert_int_equal(lent.outcome, PEN_RETRY);
    assert_int_equal(api.request_count, 0);
    world_leave();
}

/* ---- Settings -------------------------------------------------------------------------------------------------- */

static void test_limits(void **state)
{
    const struct pen_limits *limits;

    (void)state;
    SETUP_ROWS("span = 30m\n", REPLY("204 No Content"));
    limits = sentinel_sink.limits(sink);
    assert_int_equal(limits->bytes_max + 2, 1000000);
    assert_int_equal(limits->in_flight_max, 1);
    assert_true(limits->by_kind);
    assert_int_equal(limits->span_ticks_max, 30ll * 60 * 10000000);
    assert_true(limits->memory > limits->bytes_max);
    teardown();
}

static void test_bad_settings(void **state)
{
    static const struct { const char *endpoint, *dcr, *rows, *says; } cases[] = {
        { "http://acme.ingest.monitor.azure.com", DCR, "", "plain http" },
        { "https://acme.ingest.monitor.azure.com/dataCollectionRules/x", DCR, "", "expected https://HOST alone" },
        { "https://acme.ingest.monitor.azure.com?api-version=1", DCR, "", "expected https://HOST alone" },
        { "https://acme.ingest.monitor.azure.com", "dcr-x", "", "immutable id" },
        { "https://acme.ingest.monitor.azure.com", "my-rule", "", "immutable id" },
        { "https://acme.ingest.monitor.azure.com", "dcr-0123456789abcdef0123456789abcdeg", "", "immutable id" },
        { "https://acme.ingest.monitor.azure.com", DCR "0", "", "immutable id" },
        { "https://acme.ingest.monitor.azure.com", DCR, "stream_audit = Audit_CL\n", "streamDeclarations" },
        { "https://acme.ingest.monitor.azure.com", DCR, "stream_audit = Custom-a/b\n", "streamDeclarations" },
        { "https://acme.ingest.monitor.azure.com", DCR, "proxy = proxy:3128\n", "proxy: expected" },
        { "https://acme.ingest.monitor.azure.com", DCR, "proxy = http://me:pw@proxy:3128\n", "no place" },
        { "https://acme.ingest.monitor.azure.com", DCR, "in_flight = 17\n", "in_flight" },
        { "https://acme.ingest.monitor.azure.com", DCR, "batch_bytes = 33M\n", "batch_bytes" },
        { "https://acme.ingest.monitor.azure.com", DCR, "post_bytes = 2M\n", "post_bytes" },
        { "https://acme.ingest.monitor.azure.com", DCR, "compress = no\nbatch_bytes = 1M\n", "batch_bytes: with compress" },
        { "https://acme.ingest.monitor.azure.com", DCR, "compress = no\npost_bytes = 999999\n", "batch_bytes: with compress" },
    };

    (void)state;
    SETUP(REPLY("204 No Content"));
    stop();
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct pen_error err = { 0 };

        conf_free(conf);
        if (sink_open("asim", cases[i].rows, cases[i].endpoint, cases[i].dcr, &err) >= 0 || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: %s", i, err.text);
        assert_null(sink);
        assert_null(strstr(err.text, "pw"));
    }
    world_leave();
}

static void test_the_table_of_options(void **state)
{
    (void)state;
    for (const struct pen_option *row = sentinel_options; row->name; row++)
        assert_true(row->help && row->help[strlen(row->help) - 1] == '.');
    assert_string_equal(sentinel_sink.schemas[0], "asim");
    sentinel_sink.close(NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_post), cmocka_unit_test(test_streams_by_kind), cmocka_unit_test(test_raw_goes_to_one_stream),
        cmocka_unit_test(test_bodies), cmocka_unit_test(test_without_compression), cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_tables), cmocka_unit_test(test_code_from_the_body), cmocka_unit_test(test_resets),
        cmocka_unit_test(test_no_answer), cmocka_unit_test(test_401_is_tried_once_with_a_new_token),
        cmocka_unit_test(test_token_trouble), cmocka_unit_test(test_submit_inside_an_answer),
        cmocka_unit_test(test_several_in_flight), cmocka_unit_test(test_post_bytes), cmocka_unit_test(test_just_beyond_post_bytes),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_the_second_try_is_charged), cmocka_unit_test(test_a_job_beside_takes_half), cmocka_unit_test(test_longer_than_batch_bytes),
        cmocka_unit_test(test_stop_waits_for_an_answer), cmocka_unit_test(test_stop_hands_back),
        cmocka_unit_test(test_stop_while_packing), cmocka_unit_test(test_limits), cmocka_unit_test(test_bad_settings),
        cmocka_unit_test(test_the_table_of_options),
    };
    char path[128];
    FILE *file;
    int failed;

    alarm(60);
    assert(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/secret", dir);
    file = fopen(path, "w");
    fputs("s3cret\n", file);
    fclose(file);
    chmod(path, 0600);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    snprintf(path, sizeof(path), "%s/penstock.conf", dir);
    unlink(path);
    rmdir(dir);
    return failed;
}
