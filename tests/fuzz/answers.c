/*
 * answers.c - whatever the far ends say, in any order: a batch is answered once, as delivered only where the ingestion API
 * said so, and the reason is one clean line without our secrets. Nothing that they say gets into a header of ours but a
 * token without control characters.
 *
 * The sink and the token are the daemon's; http.h is ours here, and its answers come from the input, one after another:
 * 1 byte what came, 2 bytes status, 1 byte delay, 2 bytes size of the body, the body.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/config/conf.h"
#include "daemon/remote/http.h"
#include "sinks/sink.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECRET "s3cret-of-ours"

static uv_loop_t loop;
static struct feed feed;

/* ---- http.h, by the input ---- */

struct http_request {
    http_done done;
    void *arg;
    bool token;                      /* asked of Entra, not of the API */
    bool out;
};
static struct http_request requests[2];
static int api_status;               /* of the last answer */

int http_url_check(const char *url, unsigned flags, struct pen_error *err)
{
    (void)url;
    (void)flags;
    (void)err;
    return 0;
}

struct http_request *http_start(struct http *http, const struct http_ask *ask, http_done done, void *arg)
{
    struct http_request *request = requests[0].out ? &requests[1] : &requests[0];

    (void)http;
    assert(!request->out);
    for (size_t i = 0; ask->headers[i]; i++)
        assert(judge_line((struct pen_span){ ask->headers[i], strlen(ask->headers[i]) }, false));
    *request = (struct http_request){ .done = done, .arg = arg, .token = strstr(ask->url, "oauth2"), .out = true };
    return request;
}

void http_cancel(struct http_request *request)
{
    assert(request->out);
    request->out = false;
}

static void request_answer(struct http_request *request)
{
    static const int statuses[] = { 200, 204, 400, 401, 403, 404, 413, 429, 500, 503 };
    uint8_t what = feed_byte(&feed);
    unsigned status = (unsigned)feed_number(&feed, 2);
    struct http_answer answer = { .retry_after_ms = (int64_t)feed_byte(&feed) * 1000 - 1000, .sent = what & 1 };
    size_t most = feed_number(&feed, 2);
    struct pen_span body = feed_span(&feed, most);
    char *copy = fuzz_copy(body, HTTP_ANSWER_PADDING), code[32];

    answer.status = what & 2 ? statuses[status % 10] : what & 4 ? (int)(status % 1000) : 0;
    if (answer.status == 0) {
        answer.failure = HTTP_UNUSABLE + status % 5;
        answer.trouble = "no connection";
    } else {
        snprintf(code, sizeof(code), "Code%u", status);
        answer.body = (struct pen_span){ copy, body.size };
        answer.error_code = what & 8 ? code : NULL;
        answer.request_id = what & 16 ? "00000000-0000-0000-0000-000000000000" : NULL;
    }
    if (!request->token)
        api_status = answer.status;
    request->out = false;
    request->done(request->arg, &answer);
    free(copy);
}

/* ---- The daemon's side ---- */

static unsigned answers;

void pen_batch_answer(struct pen_batch *batch, enum pen_outcome outcome, uint32_t delay_ms, const char *why)
{
    (void)batch;
    answers++;
    assert(outcome <= PEN_REFUSED && delay_ms <= HTTP_RETRY_AFTER_MAX_MS);
    assert((outcome == PEN_DELIVERED) == (api_status >= 200 && api_status <= 299));
    assert(why[0] != '\0' && judge_line((struct pen_span){ why, strlen(why) }, false));
    assert(strstr(why, SECRET) == NULL);
    for (; *why; why++)
        assert((unsigned char)*why < 0x80);
}

void pen_batch_answer_each(struct pen_batch *batch, const enum pen_outcome *outcomes, uint32_t delay_ms, const char *why)
{
    (void)batch;
    (void)outcomes;
    (void)delay_ms;
    (void)why;
    abort();
}

static void on_stopped(void *arg)
{
    *(bool *)arg = true;
}

static struct pen_conf *section(void)
{
    static struct conf *conf;
    static const char guid[] = "00000000-0000-0000-0000-000000000000";
    struct pen_error err = { 0 };
    char path[128], file[32], text[1024];
    int size;
    FILE *secret;

    if (conf)
        return conf_section(conf, CONF_SINK, 0);
    snprintf(path, sizeof(path), "%s/secret", fuzz_folder());
    secret = fopen(path, "w");
    assert(secret);
    fputs(SECRET, secret);
    fclose(secret);
    assert(chmod(path, 0600) == 0);
    size = snprintf(text, sizeof(text), "[sink s]\ntype = sentinel\nendpoint = https://a.example\n"
                    "dcr = dcr-0123456789abcdef0123456789abcdef\ntenant = %s\nclient = %s\nsecret_file = %s\n"
                    "compress = no\nbatch_bytes = 1K\n", guid, guid, path);
    (void)fuzz_file((struct pen_span){ text, (size_t)size }, file);
    if (conf_read(&conf, file, NULL, NULL, &err) < 0)
        abort();
    return conf_section(conf, CONF_SINK, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char message[] = "{}";
    struct pen_message index = { .size = 2 };
    const char *streams[] = { "fuzz" };
    struct pen_batch batch = { .data = message, .size = 2, .messages = &index, .count = 1, .kind = PEN_AUDIT, .streams = streams };
    struct pen_host host = { .loop = &loop, .schema = "asim" };
    struct pen_error err = { 0 };
    bool stopped = false;
    void *sink;

    if (loop.data == NULL)
        uv_loop_init(&loop);
    loop.data = &loop;
    feed = feed_of(data, size);
    if (sentinel_sink.open(&sink, &host, section(), &err) < 0)
        abort();
    for (int turn = 0; turn < 3; turn++) {         /* a token lives on, trouble is remembered */
        answers = 0;
        api_status = 0;
        sentinel_sink.submit(sink, &batch);
        while (answers == 0) {
            if (requests[0].out)
                request_answer(&requests[0]);
            else if (requests[1].out)
                request_answer(&requests[1]);
            else
                uv_run(&loop, UV_RUN_ONCE);
        }
        assert(answers == 1);
    }
    sentinel_sink.stop(sink, on_stopped, &stopped);
    while (!stopped)
        uv_run(&loop, UV_RUN_ONCE);
    sentinel_sink.close(sink);
    uv_run(&loop, UV_RUN_DEFAULT);
    requests[0].out = requests[1].out = false;
    return 0;
}
