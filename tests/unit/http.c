/*
 * The promises of daemon/remote/http.h, against a real server on loopback: one answer per request and never inside the call,
 * verified TLS, bounded and cleaned answers, no redirects, handles gone at the end.
 */
#include "daemon/remote/http.h"

#include "server.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uv_loop_t loop;
static struct http *http;
static struct server server;

struct got {
    int count;
    struct http_answer answer;
    char trouble[256], body[HTTP_ANSWER_MAX + 1], error_code[256], request_id[256];
    void (*then)(void);              /* run inside the callback */
};

static void on_done(void *arg, const struct http_answer *answer)
{
    struct got *got = arg;

    got->count++;
    got->answer = *answer;
    snprintf(got->trouble, sizeof(got->trouble), "%s", answer->trouble ? answer->trouble : "");
    snprintf(got->error_code, sizeof(got->error_code), "%s", answer->error_code ? answer->error_code : "");
    snprintf(got->request_id, sizeof(got->request_id), "%s", answer->request_id ? answer->request_id : "");
    if (answer->body.size > 0)
        memcpy(got->body, answer->body.data, answer->body.size);
    got->body[answer->body.size] = '\0';
    uv_stop(&loop);
    if (got->then)
        got->then();
}

static void setup_with(const struct server_turn *turns, size_t count)
{
    struct pen_error err = { 0 };

    uv_loop_init(&loop);
    assert_int_equal(http_new(&http, &loop, &err), 0);
    server_open(&server, &loop, turns, count);
}

#define SETUP(...)                                                        \
    static const struct server_turn turns[] = { __VA_ARGS__ };            \
    setup_with(turns, sizeof(turns) / sizeof(turns[0]))

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

/* Nothing may be left in the loop: uv_run() returns by itself. */
static void teardown(void)
{
    bool closed = false;

    if (http)
        http_close(http, on_closed, &closed);
    assert_false(closed);
    server_close(&server);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_true(closed || !http);
    assert_int_equal(uv_loop_close(&loop), 0);
    http = NULL;
}

static struct http_ask ask_of(const char *method, const char *format, ...)
{
    static char url[512];
    va_list args;

    va_start(args, format);
    vsnprintf(url, sizeof(url), format, args);
    va_end(args);
    return (struct http_ask){ .method = method, .url = url,
                              .conf = { .proxy = "", .timeout_ms = 10000, .connect_timeout_ms = 5000 } };
}

static void ask(struct got *got, const struct http_ask *what)
{
    int before = got->count;

    http_start(http, what, on_done, got);
    assert_int_equal(got->count, before);          /* never inside the call */
    while (got->count == before)
        uv_run(&loop, UV_RUN_DEFAULT);             /* until on_done() stops it */
    assert_int_equal(got->count, before + 1);
}

static void test_get(void **state)
{
    static const char *const headers[] = { "X-One: 1", "Authorization: Bearer abc", NULL };
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-ms-request-id:  r-1 \r\n\r\nhello", SERVER_KEEP });
    what = ask_of("GET", "http://127.0.0.1:%d/a?b=c", server.port);
    what.headers = headers;
    ask(&got, &what);
    assert_int_equal(got.answer.status, 200);
    assert_int_equal(got.answer.failure, HTTP_ANSWERED);
    assert_string_equal(got.body, "hello");
    assert_string_equal(got.request_id, "r-1");
    assert_null(got.answer.error_code);
    assert_null(got.answer.trouble);
    assert_int_equal(got.answer.retry_after_ms, -1);
    assert_true(got.answer.sent);
    assert_memory_equal(server.requests[0].head, "GET /a?b=c HTTP/1.1\r\n", 21);
    assert_non_null(strstr(server.requests[0].head, "X-One: 1\r\n"));
    assert_non_null(strstr(server.requests[0].head, "Authorization: Bearer abc\r\n"));
    teardown();
}

/* A body of a megabyte goes out whole, in one piece and without waiting for "100 Continue"; the line is used again. */
static void test_post_keeps_the_connection(void **state)
{
    struct got got = { 0 };
    struct http_ask what;
    char *body = malloc(3000000);

    (void)state;
    memset(body, 'x', 3000000);
    SETUP({ "HTTP/1.1 204 No Content\r\n\r\n", SERVER_KEEP });
    what = ask_of("POST", "http://localhost:%d/p", server.port);
    what.body = (struct pen_span){ body, 3000000 };
    for (int i = 0; i < 3; i++) {
        ask(&got, &what);
        assert_int_equal(got.answer.status, 204);
        assert_int_equal(server.requests[i].body_size, 3000000);
        assert_memory_equal(server.requests[i].body, body, 3000000);
        assert_null(strcasestr(server.requests[i].head, "\r\nExpect"));
    }
    assert_int_equal(server.connections, 1);
    free(body);
    teardown();
}

static void test_answer_headers_are_cleaned(void **state)
{
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ "HTTP/1.1 100 Continue\r\nx-ms-error-code: old\r\n\r\nHTTP/1.1 429 Busy\r\nContent-Length: 0\r\nretry-AFTER: 7\r\n"
            "X-MS-Error-Code: a\x1b[31m b\xc3\xa9"
            "0123456789012345678901234567890123456789012345678901234567890123456789"
            "0123456789012345678901234567890123456789012345678901234567890123456789\r\n\r\n", SERVER_KEEP });
    what = ask_of("GET", "http://127.0.0.1:%d/", server.port);
    ask(&got, &what);
    assert_int_equal(got.answer.status, 429);
    assert_int_equal(got.answer.retry_after_ms, 7000);
    assert_memory_equal(got.error_code, "a[31mb0123", 10);
    assert_int_equal(strlen(got.error_code), 127);
    teardown();
}

/* A far end that sends without end is hung up on; its status is what counts. */
static void test_answer_is_bounded(void **state)
{
    static char reply[HTTP_ANSWER_MAX + 100000];
    static struct server_turn turns[] = { { reply, SERVER_KEEP } };
    struct got got = { 0 };
    struct http_ask what;
    int n = snprintf(reply, sizeof(reply), "HTTP/1.1 400 Bad\r\nContent-Length: 99999999\r\n\r\n");

    (void)state;
    memset(reply + n, 'y', sizeof(reply) - (size_t)n - 1);
    setup_with(turns, 1);
    what = ask_of("GET", "http://127.0.0.1:%d/", server.port);
    ask(&got, &what);
    assert_int_equal(got.answer.status, 400);
    assert_int_equal(got.answer.body.size, HTTP_ANSWER_MAX);
    assert_int_equal(got.body[HTTP_ANSWER_MAX - 1], 'y');
    teardown();
}

/* A caller that takes the body as it comes has no bound but its own; an error's body is gathered all the same. */
static struct taken {
    struct got got;                  /* first: on_done()'s arg */
    size_t size, most;
    int status;
    char etag[32];
} taken;

static void on_header(void *arg, struct pen_span name, struct pen_span value)
{
    if (name.size == 4 && memcmp(name.data, "ETag", 4) == 0)
        snprintf(((struct taken *)arg)->etag, sizeof(taken.etag), "%.*s", (int)value.size, value.data);
}

static bool on_data(void *arg, int status, const char *data, size_t size)
{
    struct taken *into = arg;

    for (size_t i = 0; i < size; i++)
        assert_int_equal(data[i], 'z');
    into->status = status;
    into->size += size;
    return into->size <= into->most;
}

static void ask_taking(const struct http_ask *what, size_t most)
{
    struct http_ask taking = *what;

    taken = (struct taken){ .most = most };
    taking.on_header = on_header;
    taking.on_data = on_data;
    ask(&taken.got, &taking);
}

static void test_bodies_as_they_come(void **state)
{
    static char reply[HTTP_ANSWER_MAX * 3];
    static struct server_turn turns[] = {
        { reply, SERVER_HANG_UP }, { reply, SERVER_HANG_UP },
        { "HTTP/1.1 404 Gone\r\nETag: late\r\nContent-Length: 4\r\n\r\nbody", SERVER_KEEP },
        { "HTTP/1.1 206 Part\r\nContent-Length: 9\r\n\r\nzzz", SERVER_HANG_UP },
    };
    size_t body = sizeof(reply) - 1 - (size_t)sprintf(reply, "HTTP/1.1 200 OK\r\nETag: \"0x1\"\r\nConnection: close\r\n\r\n");
    struct http_ask what;

    (void)state;
    memset(reply + sizeof(reply) - 1 - body, 'z', body);
    setup_with(turns, 4);
    what = ask_of("GET", "http://127.0.0.1:%d/", server.port);
    ask_taking(&what, SIZE_MAX);
    assert_int_equal(taken.got.answer.status, 200);
    assert_int_equal(taken.size, body);
    assert_int_equal(taken.status, 200);
    assert_int_equal(taken.got.answer.body.size, 0);
    assert_string_equal(taken.etag, "\"0x1\"");
    ask_taking(&what, 1000);                       /* it has enough, and hangs up */
    assert_int_equal(taken.got.answer.status, 0);
    assert_true(taken.size > 1000 && taken.size < body);
    ask_taking(&what, SIZE_MAX);
    assert_int_equal(taken.got.answer.status, 404);
    assert_int_equal(taken.size, 0);
    assert_string_equal(taken.got.body, "body");
    assert_string_equal(taken.etag, "late");
    ask_taking(&what, SIZE_MAX);                   /* torn: no answer, but what came was told */
    assert_int_equal(taken.got.answer.status, 0);
    assert_int_equal(taken.got.answer.failure, HTTP_BROKEN);
    assert_int_equal(taken.size, 3);
    teardown();
}

/* The length in a HEAD's answer is of a body that does not come. */
static void test_head(void **state)
{
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", SERVER_KEEP });
    what = ask_of("HEAD", "http://127.0.0.1:%d/b", server.port);
    ask(&got, &what);
    assert_int_equal(got.answer.status, 200);
    assert_memory_equal(server.requests[0].head, "HEAD /b HTTP/1.1\r\n", 18);
    teardown();
}

/* A 2xx whose body is torn is no answer, for nothing must count as delivered by half a word; an error is one. */
static void test_torn_answers(void **state)
{
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", SERVER_HANG_UP },
          { "HTTP/1.1 413 Big\r\nContent-Length: 10\r\n\r\nhalf", SERVER_HANG_UP },
          { "HTTP/1.1 413 Big\r\nContent-Le", SERVER_HANG_UP },
          { "nonsense, not HTTP\r\n\r\n", SERVER_HANG_UP },
          { NULL, SERVER_HANG_UP },
          { NULL, SERVER_RESET });
    what = ask_of("POST", "http://127.0.0.1:%d/", server.port);
    what.body = PEN_SPAN("[]");
    ask(&got, &what);
    assert_int_equal(got.answer.status, 0);
    assert_int_equal(got.answer.failure, HTTP_BROKEN);
    assert_true(strlen(got.trouble) > 0);
    ask(&got, &what);
    assert_int_equal(got.answer.status, 413);
    for (int i = 2; i < 6; i++) {
        ask(&got, &what);
        assert_int_equal(got.answer.status, 0);
        assert_int_equal(got.answer.failure, HTTP_BROKEN);
        assert_true(got.answer.sent);
        assert_int_equal(got.answer.body.size, 0);
    }
    teardown();
}

static void test_no_redirects(void **state)
{
    static char reply[200];
    static struct server_turn turns[] = { { reply, SERVER_KEEP } };
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    setup_with(turns, 1);
    snprintf(reply, sizeof(reply), "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/b\r\nContent-Length: 0\r\n\r\n", server.port);
    what = ask_of("GET", "http://127.0.0.1:%d/a", server.port);
    ask(&got, &what);
    assert_int_equal(got.answer.status, 302);
    assert_int_equal(server.request_count, 1);
    teardown();
}

static void test_timeout(void **state)
{
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ NULL, SERVER_SILENT });
    what = ask_of("GET", "http://127.0.0.1:%d/", server.port);
    what.conf.timeout_ms = 50;
    ask(&got, &what);
    assert_int_equal(got.answer.status, 0);
    assert_int_equal(got.answer.failure, HTTP_SLOW);
    assert_true(got.answer.sent);
    teardown();
}

static void test_nobody_listens(void **state)
{
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ NULL, SERVER_SILENT });
    what = ask_of("GET", "http://127.0.0.1:1/");
    ask(&got, &what);
    assert_int_equal(got.answer.failure, HTTP_UNREACHED);
    assert_false(got.answer.sent);
    teardown();
}

/* What cannot start is answered on a later turn like all else, and nothing goes out. */
static void test_unusable(void **state)
{
    static const char *const urls[] = {
        "http://192.0.2.1/", "http://example.com/", "http://127.0.0.1.example.com/", "http://localhost.example/",
        "ftp://127.0.0.1/", "file:///etc/passwd", "https://user:pw@127.0.0.1/", "no url", "", "https://", "https://a b/",
    };
    static const char *const evil[] = { "X: a\r\nY: b", NULL };
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ "HTTP/1.1 204 No\r\n\r\n", SERVER_KEEP });
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        struct pen_error err = { 0 };

        assert_int_equal(http_url_check(urls[i], 0, &err), UV_EINVAL);
        assert_true(strlen(err.text) > 0);
        what = ask_of("GET", "%s", urls[i]);
        ask(&got, &what);
        assert_int_equal(got.answer.failure, HTTP_UNUSABLE);
        assert_true(strlen(got.trouble) > 0);
        assert_null(strstr(got.trouble, "pw"));
    }
    what = ask_of("GET", "http://127.0.0.1:%d/", server.port);
    what.headers = evil;
    ask(&got, &what);
    assert_int_equal(got.answer.failure, HTTP_UNUSABLE);
    assert_int_equal(server.request_count, 0);
    teardown();
}

static void test_urls_that_may_go(void **state)
{
    static const char *const urls[] = {
        "https://acme.westeurope-1.ingest.monitor.azure.com", "https://[2001:db8::1]:8443/x", "http://127.0.0.1:80/",
        "http://127.255.0.9/", "http://[::1]:8080/", "http://localhost/", "HTTPS://A.example/",
    };
    struct pen_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
        assert_int_equal(http_url_check(urls[i], 0, &err), 0);
    assert_int_equal(http_url_check("http://169.254.169.254/metadata", HTTP_PLAIN_OK, &err), 0);
    assert_int_equal(http_url_check("http://169.254.169.254/metadata", 0, &err), UV_EINVAL);
}

/* The password in a proxy's URL is not quoted back, and plain http does not meet the environment's proxy. */
static void test_proxies(void **state)
{
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ "HTTP/1.1 204 No\r\n\r\n", SERVER_KEEP });
    what = ask_of("GET", "https://127.0.0.1:%d/", server.port);
    what.conf.proxy = "http://me:hunter2@[bad";
    ask(&got, &what);
    assert_int_equal(got.answer.status, 0);
    assert_null(strstr(got.trouble, "hunter2"));

    setenv("http_proxy", "http://127.0.0.1:1", 1);
    what = ask_of("GET", "http://127.0.0.1:%d/", server.port);
    what.conf.proxy = NULL;
    ask(&got, &what);
    assert_int_equal(got.answer.status, 204);
    unsetenv("http_proxy");
    teardown();
}

/* https through a named proxy asks it for a tunnel; what a refusing proxy says is not the far end's answer. */
static void test_proxy_refuses(void **state)
{
    static char proxy[64];
    struct got got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ "HTTP/1.1 403 No\r\nContent-Length: 0\r\nRetry-After: 9\r\n\r\n", SERVER_HANG_UP });
    what = ask_of("GET", "https://far.example/");
    snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%d", server.port);
    what.conf.proxy = proxy;
    ask(&got, &what);
    assert_int_equal(got.answer.status, 0);
    assert_int_equal(got.answer.failure, HTTP_UNREACHED);
    assert_int_equal(got.answer.retry_after_ms, -1);
    assert_memory_equal(server.requests[0].head, "CONNECT far.example:443 ", 24);
    teardown();
}

static struct http_request *victim;

static void cancel_victim(void)
{
    http_cancel(victim);
}

static void close_http(void)
{
    http_close(http, NULL, NULL);
    http = NULL;
}

static void test_cancel(void **state)
{
    struct got cancelled = { 0 }, got = { 0 };
    struct http_ask what;

    (void)state;
    SETUP({ "HTTP/1.1 204 No\r\n\r\n", SERVER_KEEP });
    what = ask_of("GET", "http://127.0.0.1:%d/", server.port);
    http_cancel(http_start(http, &what, on_done, &cancelled));             /* before its first turn */
    what.url = "no url";
    http_cancel(http_start(http, &what, on_done, &cancelled));             /* before its failure was told */
    what = ask_of("GET", "http://127.0.0.1:%d/", server.port);
    ask(&got, &what);
    assert_int_equal(cancelled.count, 0);
    teardown();
}

/* A callback may cancel another request, and close everything; the others' callbacks are then dropped. */
static void test_cancel_and_close_inside_a_callback(void **state)
{
    struct got dropped = { 0 }, got = { .then = cancel_victim };
    struct http_ask what, quiet;
    static char url[64];

    (void)state;
    SETUP({ NULL, SERVER_SILENT }, { NULL, SERVER_SILENT }, { "HTTP/1.1 204 No\r\n\r\n", SERVER_KEEP });
    what = ask_of("GET", "http://127.0.0.1:%d/", server.port);
    snprintf(url, sizeof(url), "%s", what.url);
    quiet = what;
    quiet.url = url;
    victim = http_start(http, &quiet, on_done, &dropped);
    http_start(http, &quiet, on_done, &dropped);
    while (server.request_count < 2)
        uv_run(&loop, UV_RUN_ONCE);
    ask(&got, &what);
    assert_int_equal(got.answer.status, 204);
    got.then = close_http;
    ask(&got, &what);
    assert_int_equal(dropped.count, 0);
    teardown();
}

static void test_retry_after(void **state)
{
    static const struct { const char *text; int64_t ms; } rows[] = {
        { "0", 0 }, { "1", 1000 }, { "120", 120000 }, { "86400", 86400000 },
        { "86401", HTTP_RETRY_AFTER_MAX_MS }, { "99999999999999999999999999999999999", HTTP_RETRY_AFTER_MAX_MS },
        { "", -1 }, { "-5", -1 }, { "1.5", -1 }, { "+1", -1 }, { "5 s", -1 }, { "soon", -1 }, { "0x10", -1 },
        { "Wed, 21 Oct 2015 07:28:30 GMT", 30000 }, { "Wed, 21 Oct 2015 07:28:00 GMT", 0 },
        { "Tue, 20 Oct 2015 07:28:00 GMT", 0 }, { "Wednesday, 21-Oct-15 07:28:30 GMT", 30000 },
        { "Wed Oct 21 07:28:30 2015", 30000 }, { "Fri, 31 Dec 9999 23:59:59 GMT", HTTP_RETRY_AFTER_MAX_MS },
        { "Wed, 99 Oct 2015 07:28:30 GMT", -1 }, { "W", -1 },
        { "Wed, 21 Oct 2015 07:28:30 GMT and then a very long tail that fills it up to the brim", -1 },
    };
    int64_t now = 1445412480;        /* Wed, 21 Oct 2015 07:28:00 GMT */

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(http_retry_after((struct pen_span){ rows[i].text, strlen(rows[i].text) }, now), rows[i].ms);
}

/* ---- TLS: openssl s_server with a throw-away CA ---------------------------------------------------------------- */

static char tls_dir[] = "/tmp/penstock-http-XXXXXX";

static void tls_run(const char *format, ...)
{
    char command[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    assert_int_equal(system(command), 0);
}

static int tls_make(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(tls_dir));
    for (const char *const *name = (const char *const[]){ "ca", "other", NULL }; *name; name++)
        tls_run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=throw-away-%s "
                "-keyout %s/%s.key -out %s/%s.pem 2>/dev/null", *name, tls_dir, *name, tls_dir, *name);
    tls_run("cd %s && printf 'subjectAltName=IP:127.0.0.1' > san && printf 'subjectAltName=DNS:else.example' > san2 && "
            "for n in '' 2; do openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=far -keyout far$n.key "
            "-out far$n.csr 2>/dev/null && openssl x509 -req -in far$n.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 "
            "-extfile san$n -out far$n.pem 2>/dev/null; done", tls_dir);
    return 0;
}

static int tls_remove(void **state)
{
    (void)state;
    tls_run("rm -r %s", tls_dir);
    return 0;
}

/* Starts one and waits until it listens. */
static pid_t tls_serve(int *port, const char *cert, const char *version)
{
    char path[128], key[128], line[256];
    int out[2];
    FILE *from;
    pid_t pid;

    snprintf(path, sizeof(path), "%s/%s.pem", tls_dir, cert);
    snprintf(key, sizeof(key), "%s/%s.key", tls_dir, cert);
    assert_int_equal(pipe(out), 0);
    pid = fork();
    if (pid == 0) {
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(out[0]);
        execlp("openssl", "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", path, "-key", key, "-www", "-cipher",
               "DEFAULT:@SECLEVEL=0", version, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    from = fdopen(out[0], "r");
    *port = 0;
    while (*port == 0 && fgets(line, sizeof(line), from))
        sscanf(line, "ACCEPT 127.0.0.1:%d", port);
    assert_int_not_equal(*port, 0);
    fclose(from);
    return pid;
}

static void tls_ask(struct got *got, const char *cert, const char *ca, const char *version)
{
    char path[128];
    struct http_ask what;
    int port;
    pid_t pid = tls_serve(&port, cert, version);

    SETUP({ NULL, SERVER_SILENT });
    what = ask_of("GET", "https://127.0.0.1:%d/", port);
    snprintf(path, sizeof(path), "%s/%s.pem", tls_dir, ca);
    what.conf.ca_file = ca ? path : NULL;
    ask(got, &what);
    teardown();
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}

static void test_tls(void **state)
{
    struct got got = { 0 };

    (void)state;
    tls_ask(&got, "far", "ca", "-tls1_2");
    assert_int_equal(got.answer.status, 200);
    tls_ask(&got, "far", "ca", "-tls1_3");
    assert_int_equal(got.answer.status, 200);
}

static void test_tls_unknown_ca(void **state)
{
    struct got got = { 0 };

    (void)state;
    tls_ask(&got, "far", "other", "-tls1_2");
    assert_int_equal(got.answer.failure, HTTP_UNTRUSTED);
    assert_false(got.answer.sent);
    tls_ask(&got, "far", NULL, "-tls1_2");                     /* the system's roots do not know it either */
    assert_int_equal(got.answer.failure, HTTP_UNTRUSTED);
}

static void test_tls_wrong_name(void **state)
{
    struct got got = { 0 };

    (void)state;
    tls_ask(&got, "far2", "ca", "-tls1_2");
    assert_int_equal(got.answer.failure, HTTP_UNTRUSTED);
    assert_false(got.answer.sent);
}

static void test_tls_too_old(void **state)
{
    struct got got = { 0 };

    (void)state;
    tls_ask(&got, "far", "ca", "-tls1_1");
    assert_int_equal(got.answer.status, 0);
    assert_int_equal(got.answer.failure, HTTP_UNREACHED);
    assert_false(got.answer.sent);
}

static void test_tls_no_ca_file(void **state)
{
    struct got got = { 0 };

    (void)state;
    tls_ask(&got, "far", "no-such", "-tls1_2");
    assert_int_equal(got.answer.failure, HTTP_UNUSABLE);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get), cmocka_unit_test(test_post_keeps_the_connection),
        cmocka_unit_test(test_answer_headers_are_cleaned), cmocka_unit_test(test_answer_is_bounded),
        cmocka_unit_test(test_bodies_as_they_come), cmocka_unit_test(test_head),
        cmocka_unit_test(test_torn_answers), cmocka_unit_test(test_no_redirects), cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_nobody_listens), cmocka_unit_test(test_unusable), cmocka_unit_test(test_urls_that_may_go),
        cmocka_unit_test(test_proxies), cmocka_unit_test(test_proxy_refuses), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_and_close_inside_a_callback), cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_tls), cmocka_unit_test(test_tls_unknown_ca), cmocka_unit_test(test_tls_wrong_name),
        cmocka_unit_test(test_tls_too_old), cmocka_unit_test(test_tls_no_ca_file),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, tls_make, tls_remove);
}
