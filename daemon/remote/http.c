/*
 * http.c - libcurl's multi interface on libuv.
 *
 * curl asks for two things and gets them from the loop: a uv_poll for each of its sockets and one uv_timer. When either
 * fires, curl is driven (http_drive) and then asked which transfers have ended (http_collect). Callbacks run from
 * http_collect() alone, where no function of curl's is on the stack, so a callback may start, cancel and close.
 *
 * A request that cannot even start (bad URL, no such CA file) waits in the list of ended ones for the next turn, so its
 * caller sees one road: http_start(), and later one callback.
 *
 * What comes from the far end is hostile: an answer's body is cut and the line hung up at HTTP_ANSWER_MAX, nothing is
 * unpacked, no redirect is followed, no answer older than HTTP/1.0 is understood, header values that reach people are
 * printable ASCII. HTTP/1.1 only: one batch in flight gains nothing from HTTP/2, and we spare its parser.
 */
#include "daemon/base/secret.h"
#include "daemon/remote/http.h"

#include <arpa/inet.h>
#include <assert.h>
#include <curl/curl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#define HTTP_ID_MAX 128              /* bytes kept of x-ms-error-code and x-ms-request-id */
#define HTTP_IDLE_MAX 32             /* connections kept open for later requests */

struct http_request {
    struct http *http;
    LIST_ENTRY(http_request) link;
    CURL *easy;
    CURLU *url;
    struct curl_slist *headers;
    http_done done;
    void *arg;
    void (*on_header)(void *arg, struct pen_span name, struct pen_span value);
    bool (*on_data)(void *arg, int status, const char *data, size_t size);
    enum http_failure failure;
    bool ended;                      /* failed before curl had it: in http->ended */
    bool headers_complete;           /* of the final answer, not of an interim one */
    bool body_cut;
    int64_t retry_after_ms;
    char error_code[HTTP_ID_MAX];
    char request_id[HTTP_ID_MAX];
    char trouble[CURL_ERROR_SIZE];
    size_t body_size;
    char body[HTTP_ANSWER_MAX + HTTP_ANSWER_PADDING];
};

LIST_HEAD(http_requests, http_request);

struct http_socket {
    struct http *http;
    LIST_ENTRY(http_socket) link;
    curl_socket_t fd;
    uv_poll_t poll;
};

struct http {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t timer;                /* curl's clock */
    uv_idle_t idle;                  /* runs while `ended` holds something */
    struct http_requests requests;   /* curl has them */
    struct http_requests ended;      /* never got that far */
    LIST_HEAD(, http_socket) sockets;
    unsigned handles;                /* of libuv's, not yet closed */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* ---- URLs and header values ------------------------------------------------------------------------------------ */

/* Names resolve to whatever the resolver says; curl itself pins "localhost" to loopback. */
static bool http_host_is_loopback(const char *host)
{
    struct in_addr v4;

    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return strcmp(host, "[::1]") == 0 || strcmp(host, "localhost") == 0;
}

/* The handle is what curl then connects by, so what was checked is what is used. */
static int http_url_parse(CURLU **ret, bool *plain, const char *text, unsigned flags, struct pen_error *err)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *host = NULL;
    int r = UV_EINVAL;

    assert(url);
    if (curl_url_set(url, CURLUPART_URL, text, CURLU_DISALLOW_USER) || curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) ||
        curl_url_get(url, CURLUPART_HOST, &host, 0)) {
        pen_error_set(err, r, "not a URL, or one with a user name in it; expected https://HOST[:PORT][/PATH]");
        goto fail;
    }
    *plain = strcmp(scheme, "http") == 0;
    if (!*plain && strcmp(scheme, "https") != 0) {
        pen_error_set(err, r, "the scheme is not https");
        goto fail;
    }
    if (*plain && !(flags & HTTP_PLAIN_OK) && !http_host_is_loopback(host)) {
        pen_error_set(err, r, "plain http goes to loopback addresses only; use https");
        goto fail;
    }
    r = 0;
fail:
    curl_free(scheme);
    curl_free(host);
    if (r < 0)
        curl_url_cleanup(url);
    else
        *ret = url;
    return r;
}

int http_url_check(const char *url, unsigned flags, struct pen_error *err)
{
    CURLU *parsed;
    bool plain;
    int r;

    r = http_url_parse(&parsed, &plain, url, flags, err);
    if (r == 0)
        curl_url_cleanup(parsed);
    return r;
}

int64_t http_retry_after(struct pen_span value, int64_t now)
{
    char text[64];
    size_t digits;
    int64_t s = 0;

    if (value.size == 0 || value.size >= sizeof(text))
        return -1;
    memcpy(text, value.data, value.size);
    text[value.size] = '\0';

    digits = strspn(text, "0123456789");
    if (digits == value.size) {
        for (size_t i = 0; i < digits && s <= HTTP_RETRY_AFTER_MAX_MS; i++)
            s = s * 10 + (text[i] - '0');
    } else {
        time_t date = curl_getdate(text, NULL);

        /* curl takes "-5" and "tomorrow"-like fragments kindly; a date of RFC 9110 starts with its weekday. */
        if (date == -1 || strchr("MTWFS", text[0]) == NULL)
            return -1;
        s = date > now ? date - now : 0;
    }
    return s < HTTP_RETRY_AFTER_MAX_MS / 1000 ? s * 1000 : HTTP_RETRY_AFTER_MAX_MS;
}

/* "name: value", the value without blanks at its ends. False: the line is no header. */
static bool http_header_split(struct pen_span line, struct pen_span *name, struct pen_span *value)
{
    const char *colon = memchr(line.data, ':', line.size);

    if (colon == NULL || colon == line.data)
        return false;
    *name = (struct pen_span){ line.data, (size_t)(colon - line.data) };
    line.data = colon + 1;
    line.size -= name->size + 1;
    while (line.size > 0 && strchr(" \t", line.data[0]) != NULL)
        line.data++, line.size--;
    while (line.size > 0 && strchr(" \t\r\n", line.data[line.size - 1]) != NULL)
        line.size--;
    *value = line;
    return true;
}

static bool http_name_is(struct pen_span name, const char *text)
{
    return name.size == strlen(text) && curl_strnequal(name.data, text, name.size);
}

static void http_id_copy(char to[HTTP_ID_MAX], struct pen_span value)
{
    size_t n = 0;

    for (size_t i = 0; i < value.size && n < HTTP_ID_MAX - 1; i++)
        if (value.data[i] > ' ' && value.data[i] < 0x7f)
            to[n++] = value.data[i];
    to[n] = '\0';
}

static bool http_text_is_printable(const char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text == 0x7f)
            return false;
    return true;
}

static void on_idle(uv_idle_t *idle);

/* curl's sentence may quote the far end: the names in its certificate, for one. */
static void http_text_clean(char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text == 0x7f)
            *text = '?';
}

/* ---- One request ----------------------------------------------------------------------------------------------- */

static void http_request_free(struct http_request *request)
{
    /* Headers hold our token, the body may hold a new one. What curl copied for itself it gives back by http_init()'s rule. */
    for (struct curl_slist *header = request->headers; header; header = header->next)
        explicit_bzero(header->data, strlen(header->data));
    curl_slist_free_all(request->headers);
    curl_easy_cleanup(request->easy);
    curl_url_cleanup(request->url);
    explicit_bzero(request->body, request->body_size);
    free(request);
}

static size_t on_header(char *data, size_t one, size_t size, void *arg)
{
    struct http_request *request = arg;
    struct pen_span line = { data, size }, name, value;

    (void)one;
    if (size >= 5 && memcmp(data, "HTTP/", 5) == 0) {          /* an interim answer went before: forget it */
        request->headers_complete = false;
        request->retry_after_ms = -1;
        request->error_code[0] = request->request_id[0] = '\0';
    } else if (size <= 2 && (data[0] == '\r' || data[0] == '\n')) {
        request->headers_complete = true;
    } else if (http_header_split(line, &name, &value)) {
        if (http_name_is(name, "Retry-After"))
            request->retry_after_ms = http_retry_after(value, time(NULL));
        else if (http_name_is(name, "x-ms-error-code"))
            http_id_copy(request->error_code, value);
        else if (http_name_is(name, "x-ms-request-id"))
            http_id_copy(request->request_id, value);
        if (request->on_header != NULL)
            request->on_header(request->arg, name, value);
    }
    return size;
}

static size_t on_body(char *data, size_t one, size_t size, void *arg)
{
    struct http_request *request = arg;
    size_t room = HTTP_ANSWER_MAX - request->body_size;
    size_t taken = size < room ? size : room;
    long status = 0;

    (void)one;
    if (request->on_data != NULL)
        curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status / 100 == 2)
        return request->on_data(request->arg, (int)status, data, size) ? size : 0;
    memcpy(request->body + request->body_size, data, taken);
    request->body_size += taken;
    request->body_cut = taken < size;
    return taken;                    /* less than came: curl hangs up */
}

static int http_request_headers(struct http_request *request, const char *const *headers, struct pen_error *err)
{
    for (; headers && *headers; headers++) {
        struct curl_slist *list = NULL;

        if (http_text_is_printable(*headers))
            list = curl_slist_append(request->headers, *headers);
        if (!list)
            return pen_error_set(err, UV_EINVAL, "a header holds control characters");
        request->headers = list;
    }
    return 0;
}

static CURLcode http_request_trust(CURL *easy, const struct http_conf *conf)
{
    CURLcode e = 0;

    e = e ? e : curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_PROXY_SSL_VERIFYPEER, 1L);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_PROXY_SSL_VERIFYHOST, 2L);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_PROXY_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (!conf->ca_file)
        return e;
    /* Own roots stand in place of the system's: without the NULLs curl would go on to trust its folder as well. */
    e = e ? e : curl_easy_setopt(easy, CURLOPT_CAINFO, conf->ca_file);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, conf->ca_file);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, NULL);
#if LIBCURL_VERSION_NUM >= 0x075700
    /* Else the file, once read, would be believed for a day whatever it holds by then. */
    e = e ? e : curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
#endif
    return e;
}

static CURLcode http_request_method(CURL *easy, const struct http_ask *ask)
{
    CURLcode e = 0;

    if (strcmp(ask->method, "GET") == 0)
        return curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    if (strcmp(ask->method, "HEAD") == 0)
        return curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    if (strcmp(ask->method, "DELETE") == 0)
        return curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
    e = e ? e : curl_easy_setopt(easy, CURLOPT_POST, 1L);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)ask->body.size);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_POSTFIELDS, ask->body.data ? ask->body.data : "");
    e = e ? e : curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, ask->method);
    return e;
}

static CURLcode http_request_set(struct http_request *request, const struct http_ask *ask, bool plain)
{
    CURL *easy = request->easy;
    /* Plain http stays on this machine or its link; a proxy named in the environment must not see it. */
    const char *proxy = plain && !ask->conf.proxy ? "" : ask->conf.proxy;
    CURLcode e = 0;

    e = e ? e : curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->trouble);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_CURLU, request->url);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    e = e ? e : curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_USERAGENT, "penstock/" PENSTOCK_VERSION);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);   /* a proxy's are not the far end's */
    e = e ? e : curl_easy_setopt(easy, CURLOPT_PROXY, proxy);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)ask->conf.timeout_ms);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)ask->conf.connect_timeout_ms);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    e = e ? e : curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* A name lookup hangs in a thread of curl's; a request that gives up must not hold the loop until it returns. */
    e = e ? e : curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    e = e ? e : http_request_trust(easy, &ask->conf);
    e = e ? e : http_request_method(easy, ask);
    return e;
}

static int http_request_open(struct http_request *request, const struct http_ask *ask, struct pen_error *err)
{
    bool plain;
    CURLcode e;
    int r;

    r = http_url_parse(&request->url, &plain, ask->url, ask->flags, err);
    if (r < 0)
        return r;
    r = http_request_headers(request, ask->headers, err);
    if (r < 0)
        return r;
    /* curl would wait up to a second for a "100 Continue" before a large body; the ingestion API sends none. */
    request->headers = curl_slist_append(request->headers, "Expect:");
    request->easy = curl_easy_init();
    assert(request->headers && request->easy);
    e = http_request_set(request, ask, plain);
    if (e)
        return pen_error_set(err, UV_EINVAL, "%s", curl_easy_strerror(e));
    return 0;
}

struct http_request *http_start(struct http *http, const struct http_ask *ask, http_done done, void *arg)
{
    struct http_request *request = calloc(1, sizeof(*request));
    struct pen_error err = { 0 };
    int r;

    assert(request && !http->closing);
    request->http = http;
    request->done = done;
    request->arg = arg;
    request->on_header = ask->on_header;
    request->on_data = ask->on_data;
    request->retry_after_ms = -1;

    r = http_request_open(request, ask, &err);
    if (r == 0 && curl_multi_add_handle(http->multi, request->easy) == CURLM_OK) {
        LIST_INSERT_HEAD(&http->requests, request, link);
        return request;
    }
    request->failure = HTTP_UNUSABLE;
    request->ended = true;
    snprintf(request->trouble, sizeof(request->trouble), "%.*s", (int)sizeof(request->trouble) - 1,
             r < 0 ? err.text : "curl does not take the request");
    LIST_INSERT_HEAD(&http->ended, request, link);
    uv_idle_start(&http->idle, on_idle);
    return request;
}

/* Takes the request out of curl's hands; the callers' next step is to free it. */
static void http_request_drop(struct http_request *request)
{
    if (!request->ended)
        curl_multi_remove_handle(request->http->multi, request->easy);
    LIST_REMOVE(request, link);
}

void http_cancel(struct http_request *request)
{
    http_request_drop(request);
    http_request_free(request);
}

/* ---- How a request ended --------------------------------------------------------------------------------------- */

static enum http_failure http_failure_of(CURLcode code, bool sent)
{
    switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_SSL_CACERT_BADFILE:
        return HTTP_UNUSABLE;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
        return HTTP_UNTRUSTED;
    case CURLE_OPERATION_TIMEDOUT:
        return HTTP_SLOW;
    default:
        return sent ? HTTP_BROKEN : HTTP_UNREACHED;
    }
}

/* An answer counts when it came whole, when we cut it ourselves, or when it is an error whose body alone is missing: a
 * server that refuses an upload half-way often resets the line behind its 413. A torn 2xx is no promise. */
static int http_request_status(struct http_request *request, CURLcode code)
{
    long status = 0;

    curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
    if (!request->headers_complete)                /* curl is content with a status line and a hang-up */
        return 0;
    return code == CURLE_OK || request->body_cut || status >= 400 ? (int)status : 0;
}

static void http_request_end(struct http_request *request, CURLcode code)
{
    struct http_answer answer = { .retry_after_ms = -1 };
    curl_off_t ready_us = 0;

    if (request->easy)
        curl_easy_getinfo(request->easy, CURLINFO_PRETRANSFER_TIME_T, &ready_us);
    answer.sent = ready_us > 0;
    answer.status = request->ended ? 0 : http_request_status(request, code);
    if (answer.status > 0) {
        answer.body = (struct pen_span){ request->body, request->body_size };
        answer.retry_after_ms = request->retry_after_ms;
        answer.error_code = request->error_code[0] ? request->error_code : NULL;
        answer.request_id = request->request_id[0] ? request->request_id : NULL;
    } else {
        if (code == CURLE_OK && !request->ended)
            code = CURLE_PARTIAL_FILE;             /* hung up on among the headers */
        http_text_clean(request->trouble);
        answer.failure = request->ended ? request->failure : http_failure_of(code, answer.sent);
        /* curl quotes an unusable proxy with its password; and it may have said nothing at all. */
        answer.trouble = code == CURLE_COULDNT_RESOLVE_PROXY || !request->trouble[0] ? curl_easy_strerror(code)
                                                                                       : request->trouble;
    }
    http_request_drop(request);
    request->done(request->arg, &answer);          /* may start, cancel others, or close */
    http_request_free(request);
}

/* ---- The loop -------------------------------------------------------------------------------------------------- */

static void http_collect(struct http *http)
{
    CURLMsg *message;
    int left;

    while (!http->closing && (message = curl_multi_info_read(http->multi, &left))) {
        struct http_request *request = NULL;
        CURLcode code = message->data.result;      /* the message goes with its handle */

        assert(message->msg == CURLMSG_DONE);
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&request);
        http_request_end(request, code);
    }
}

static void http_drive(struct http *http, curl_socket_t fd, int events)
{
    int running;

    curl_multi_socket_action(http->multi, fd, events, &running);
    http_collect(http);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct http_socket *socket = poll->data;
    int flags = 0;

    if (status < 0)
        flags |= CURL_CSELECT_ERR;
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    http_drive(socket->http, socket->fd, flags);
}

static void on_timer(uv_timer_t *timer)
{
    http_drive(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static void on_idle(uv_idle_t *idle)
{
    struct http *http = idle->data;

    uv_idle_stop(idle);
    while (!http->closing && !LIST_EMPTY(&http->ended))
        http_request_end(LIST_FIRST(&http->ended), CURLE_OK);
}

static void http_closed_one(struct http *http)
{
    assert(http->handles > 0);
    if (--http->handles > 0)
        return;
    curl_global_cleanup();
    if (http->closed)
        http->closed(http->closed_arg);
    free(http);
}

static void on_socket_closed(uv_handle_t *handle)
{
    struct http_socket *socket = handle->data;

    http_closed_one(socket->http);
    free(socket);
}

static void on_handle_closed(uv_handle_t *handle)
{
    http_closed_one(handle->data);
}

/* The descriptor is curl's and may be closed as soon as this returns: libuv lets go of it in uv_close(), at once. */
static void http_socket_close(struct http_socket *socket)
{
    LIST_REMOVE(socket, link);
    uv_close((uv_handle_t *)&socket->poll, on_socket_closed);
}

static struct http_socket *http_socket_open(struct http *http, curl_socket_t fd)
{
    struct http_socket *socket = calloc(1, sizeof(*socket));

    assert(socket);
    if (uv_poll_init_socket(http->loop, &socket->poll, fd) < 0) {
        free(socket);
        return NULL;
    }
    socket->http = http;
    socket->fd = fd;
    socket->poll.data = socket;
    http->handles++;
    LIST_INSERT_HEAD(&http->sockets, socket, link);
    curl_multi_assign(http->multi, fd, socket);
    return socket;
}

/* curl: watch this socket for that, or no longer. */
static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct http *http = arg;
    struct http_socket *socket = socket_arg;
    int events = 0;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (socket) {
            curl_multi_assign(http->multi, fd, NULL);
            http_socket_close(socket);
        }
        return 0;
    }
    if (!socket)
        socket = http_socket_open(http, fd);
    if (!socket)
        return -1;
    if (what & CURL_POLL_IN)
        events |= UV_READABLE;
    if (what & CURL_POLL_OUT)
        events |= UV_WRITABLE;
    return uv_poll_start(&socket->poll, events, on_poll) < 0 ? -1 : 0;
}

/* curl: call me after that long; -1: not at all. */
static int on_curl_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct http *http = arg;

    (void)multi;
    if (timeout_ms < 0)
        uv_timer_stop(&http->timer);
    else
        uv_timer_start(&http->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

/* curl copies what it sends: headers with tokens, forms with secrets. */
int http_init(void)
{
    return curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, secret_wiping_free, secret_wiping_realloc, strdup, calloc) ? UV_ENOMEM
                                                                                                                        : 0;
}

int http_new(struct http **ret, uv_loop_t *loop, struct pen_error *err)
{
    struct http *http;

    if (http_init() < 0)
        return pen_error_set(err, UV_ENOMEM, "libcurl does not start");
    http = calloc(1, sizeof(*http));
    assert(http);
    http->loop = loop;
    http->multi = curl_multi_init();
    assert(http->multi);
    LIST_INIT(&http->requests);
    LIST_INIT(&http->ended);
    LIST_INIT(&http->sockets);
    uv_timer_init(loop, &http->timer);
    uv_idle_init(loop, &http->idle);
    http->timer.data = http->idle.data = http;
    http->handles = 2;
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)HTTP_IDLE_MAX);
    signal(SIGPIPE, SIG_IGN);
    *ret = http;
    return 0;
}

void http_close(struct http *http, void (*closed)(void *arg), void *arg)
{
    assert(!http->closing);
    http->closing = true;
    http->closed = closed;
    http->closed_arg = arg;
    while (!LIST_EMPTY(&http->requests))
        http_cancel(LIST_FIRST(&http->requests));
    while (!LIST_EMPTY(&http->ended))
        http_cancel(LIST_FIRST(&http->ended));

    /* From here curl only closes what is left of its sockets; it must not ask for new watchers. */
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, NULL);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, NULL);
    while (!LIST_EMPTY(&http->sockets))
        http_socket_close(LIST_FIRST(&http->sockets));
    curl_multi_cleanup(http->multi);
    uv_close((uv_handle_t *)&http->timer, on_handle_closed);
    uv_close((uv_handle_t *)&http->idle, on_handle_closed);
}
