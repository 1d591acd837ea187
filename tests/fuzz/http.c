/*
 * http.c - any answer as curl hands it over, header by header and piece by piece: what is kept of it is bounded, in range,
 * and fit for people. And any text as an URL.
 *
 * Input: 1 byte how the body comes in; header lines up to an empty one; the body.
 */
#include "daemon/remote/http.c"             /* what curl calls is not public */

#include "tests/fuzz/fuzz.h"

static void assert_id(const char *id)
{
    assert(strlen(id) < HTTP_ID_MAX);
    for (; *id; id++)
        assert(*id > ' ' && *id < 0x7f);
}

/* As much of the line as curl would show at once. */
static struct pen_span line_of(struct feed *feed)
{
    const uint8_t *end = memchr(feed->at, '\n', feed_left(feed));

    return feed_span(feed, end ? (size_t)(end + 1 - feed->at) : feed_left(feed));
}

static void answer(struct http_request *request, struct feed *feed, size_t piece)
{
    while (feed_left(feed) > 0 && !request->headers_complete) {
        struct pen_span line = line_of(feed);
        char *copy = fuzz_copy(line, 0);

        assert(on_header(copy, 1, line.size, request) == line.size);
        free(copy);
        assert(request->retry_after_ms >= -1 && request->retry_after_ms <= HTTP_RETRY_AFTER_MAX_MS);
        assert_id(request->error_code);
        assert_id(request->request_id);
    }
    for (size_t taken = piece; feed_left(feed) > 0 && taken == piece; ) {
        struct pen_span body = feed_span(feed, piece);
        char *copy = fuzz_copy(body, 0);

        taken = on_body(copy, 1, body.size, request);
        free(copy);
        assert(taken <= body.size && request->body_size <= HTTP_ANSWER_MAX);
        assert(request->body_cut == (taken < body.size));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = feed_of(data, size);
    struct http_request *request = calloc(1, sizeof(*request));
    size_t piece = ((size_t)feed_byte(&feed) + 1) * 64;
    struct pen_span all = { (const char *)feed.at, feed_left(&feed) };
    struct pen_error err = { 0 };
    int64_t retry = http_retry_after(all, 1700000000);
    char *text = fuzz_copy(all, 1);

    assert(request && retry >= -1 && retry <= HTTP_RETRY_AFTER_MAX_MS);
    if (http_url_check(text, 0, &err) < 0)
        assert(err.text[0] && judge_line((struct pen_span){ err.text, strlen(err.text) }, false));
    http_text_clean(text);
    assert(http_text_is_printable(text));
    answer(request, &feed, piece);
    http_request_free(request);
    free(text);
    return 0;
}
