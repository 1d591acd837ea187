/*
 * http.h - HTTPS on the loop: libcurl's multi interface driven by libuv. One struct http for the process.
 *
 * TLS is 1.2 or newer and always verified; there is no switch to turn that off. Plain http is accepted for loopback
 * addresses only (tests, IMDS is its own case: pass HTTP_PLAIN_OK). Redirects are not followed. Bodies of answers are cut
 * at HTTP_ANSWER_MAX, unless the caller takes them as they come. Callbacks run on a later turn of the loop, done() exactly
 * once per started request.
 */
#ifndef DAEMON_HTTP_H
#define DAEMON_HTTP_H

#include "parsers/parser.h"

#include <uv.h>

#define HTTP_ANSWER_MAX (64 * 1024)
#define HTTP_ANSWER_PADDING 64       /* readable bytes behind the body, for the JSON parser's sake */
#define HTTP_RETRY_AFTER_MAX_MS (24 * 3600 * 1000)   /* a far end that asks for more is held to this */

struct http;
struct http_request;

struct http_conf {                   /* texts are borrowed for the request's life */
    const char *proxy;               /* NULL: environment's https_proxy/no_proxy as curl reads them; "": none */
    const char *ca_file;             /* NULL: the system's */
    uint32_t timeout_ms;             /* whole request */
    uint32_t connect_timeout_ms;
};

enum http_flags { HTTP_PLAIN_OK = 1 };

struct http_ask {
    const char *method;              /* "GET", "HEAD", "DELETE" (these without a body), "POST" */
    const char *url;
    const char *const *headers;      /* "Name: value", NULL-ended; copied */
    struct pen_span body;            /* borrowed until the callback */
    struct http_conf conf;
    unsigned flags;
    /* Both may be NULL; they get http_start()'s arg and may neither start nor cancel a request. Each header of the answer,
     * those of an interim one before them; what has been told stands even where the line then breaks. */
    void (*on_header)(void *arg, struct pen_span name, struct pen_span value);
    /* The body of a 2xx answer, piece by piece, in place of gathering it. False hangs up. */
    bool (*on_data)(void *arg, int status, const char *data, size_t size);
};

/* Why no answer came, in the terms a caller decides by. */
enum http_failure {
    HTTP_ANSWERED = 0,               /* one came */
    HTTP_UNUSABLE,                   /* URL, headers, proxy or CA file cannot be used: our settings */
    HTTP_UNTRUSTED,                  /* the far end's certificate was refused */
    HTTP_UNREACHED,                  /* no connection: name, route, proxy, handshake */
    HTTP_SLOW,                       /* a timeout passed */
    HTTP_BROKEN,                     /* the connection was lost under way */
};

struct http_answer {
    int status;                      /* 0: no answer came; see failure and trouble */
    enum http_failure failure;
    const char *trouble;             /* curl's sentence, or NULL */
    bool sent;                       /* the request may have reached the far end */
    struct pen_span body;            /* at most HTTP_ANSWER_MAX, HTTP_ANSWER_PADDING readable bytes behind it */
    int64_t retry_after_ms;          /* -1: none; else 0 to HTTP_RETRY_AFTER_MAX_MS */
    const char *error_code;          /* x-ms-error-code, or NULL; printable ASCII without blanks, like the next */
    const char *request_id;          /* x-ms-request-id, or NULL */
};

typedef void (*http_done)(void *arg, const struct http_answer *answer);

/* Is this an URL that http_start() takes: https, or http to where it may go, no user or password in it? 0, or UV_EINVAL
 * with a sentence. */
int http_url_check(const char *url, unsigned flags, struct pen_error *err);
/* A Retry-After value, which is hostile: seconds or an HTTP date. -1 where it is neither. now: seconds since 1970. */
int64_t http_retry_after(struct pen_span value, int64_t now);

/* curl's own beginning, which http_new() makes as well: to be first, before there are threads. 0, or UV_ENOMEM. */
int http_init(void);
/* Also ignores SIGPIPE for the process, since OpenSSL writes to sockets with write(). */
int http_new(struct http **ret, uv_loop_t *loop, struct pen_error *err);
/* Never calls back inside the call. */
struct http_request *http_start(struct http *http, const struct http_ask *ask, http_done done, void *arg);
/* Its callback will not run. Not for a request whose callback has begun. */
void http_cancel(struct http_request *request);
/* Cancels what is left and closes its handles; closed() runs on a later turn, then the memory is gone. */
void http_close(struct http *http, void (*closed)(void *arg), void *arg);

#endif
