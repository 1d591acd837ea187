/*
 * http.h - HTTPS on the loop: libcurl's multi interface driven by libuv. One struct http for the process.
 *
 * TLS is 1.2 or newer and always verified; there is no switch to turn that off. Plain http is accepted for loopback
 * addresses only (tests, IMDS is its own case: pass HTTP_PLAIN_OK). Redirects are not followed. Bodies of answers are cut
 * at HTTP_ANSWER_MAX. Callbacks run on a later turn of the loop, exactly once per started request.
 */
#ifndef DAEMON_HTTP_H
#define DAEMON_HTTP_H

#include "parsers/parser.h"

#include <uv.h>

#define HTTP_ANSWER_MAX (64 * 1024)

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
    const char *method;              /* "GET", "POST" */
    const char *url;
    const char *const *headers;      /* "Name: value", NULL-ended; copied */
    struct pen_span body;            /* borrowed until the callback */
    struct http_conf conf;
    unsigned flags;
};

struct http_answer {
    int status;                      /* 0: no answer came; see trouble */
    const char *trouble;             /* curl's sentence, or NULL */
    bool sent;                       /* the request may have reached the far end */
    struct pen_span body;            /* at most HTTP_ANSWER_MAX */
    int64_t retry_after_ms;          /* -1: none. Seconds and HTTP dates are understood; never negative otherwise */
    const char *error_code;          /* x-ms-error-code, or NULL */
    const char *request_id;          /* x-ms-request-id, or NULL */
};

typedef void (*http_done)(void *arg, const struct http_answer *answer);

int http_new(struct http **ret, uv_loop_t *loop, struct pen_error *err);
/* Never calls back inside the call. */
struct http_request *http_start(struct http *http, const struct http_ask *ask, http_done done, void *arg);
/* Its callback will not run. */
void http_cancel(struct http_request *request);
/* Cancels what is left and closes its handles; closed() runs on a later turn, then the memory is gone. */
void http_close(struct http *http, void (*closed)(void *arg), void *arg);

#endif
