/*
 * The promises of daemon/remote/entra.h, against a token endpoint on loopback, with a clock of the test's own: one fetch for all
 * who wait, renewal before the end while the old token serves, our faults told from passing ones, nothing leaked. What is sent
 * for each kind of identity is tests/unit/credential.c's matter.
 */
#include "daemon/config/conf.h"
#include "daemon/remote/entra.h"

#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define TENANT "00000000-0000-0000-0000-0000000000aa"
#define CLIENT "00000000-0000-0000-0000-0000000000bb"
#define SECRET "p~w&x=+ \xc3\xa9%"

static uv_loop_t loop;
static struct http *http;
static struct server server;
static struct entra *entra;
static char secret_file[] = "/tmp/penstock-entra-XXXXXX", authority[64];
static uint64_t clock_ms;

static uint64_t test_clock(void)
{
    return clock_ms;
}

static void secret_write(const char *text)
{
    FILE *file = fopen(secret_file, "w");

    fputs(text, file);
    fclose(file);
}

struct got {
    int count;
    char token[256];                 /* "": none */
    bool refused;
    int64_t retry_after_ms;
    char why[512];
    void (*then)(void);
};

static void on_token(void *arg, const char *token, bool refused, int64_t retry_after_ms, const char *why)
{
    struct got *got = arg;

    got->count++;
    snprintf(got->token, sizeof(got->token), "%s", token ? token : "");
    snprintf(got->why, sizeof(got->why), "%s", why ? why : "");
    got->refused = refused;
    got->retry_after_ms = retry_after_ms;
    assert_true(token || strlen(got->why) > 0);
    uv_stop(&loop);
    if (got->then)
        got->then();
}

static struct entra_conf conf_of(void)
{
    snprintf(authority, sizeof(authority), "http://127.0.0.1:%d/", server.port);
    return (struct entra_conf){ .authority = authority, .tenant = TENANT, .client = CLIENT, .secret_file = secret_file,
                                .scope = "https://monitor.azure.com/.default",
                                .http = { .proxy = "", .timeout_ms = 5000, .connect_timeout_ms = 5000 } };
}

static void setup_with(const struct server_turn *turns, size_t count)
{
    struct pen_error err = { 0 };
    struct entra_conf conf;

    secret_write(SECRET "\n");
    chmod(secret_file, 0600);
    clock_ms = 1000000;
    uv_loop_init(&loop);
    assert_int_equal(http_new(&http, &loop, &err), 0);
    server_open(&server, &loop, turns, count);
    conf = conf_of();
    assert_int_equal(entra_new(&entra, http, &loop, &conf, &err), 0);
    entra_set_clock(entra, test_clock);
}

#define SETUP(...)                                                        \
    static const struct server_turn turns[] = { __VA_ARGS__ };            \
    setup_with(turns, sizeof(turns) / sizeof(turns[0]))

static void teardown(void)
{
    entra_close(entra);
    http_close(http, NULL, NULL);
    server_close(&server);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void ask(struct got *got)
{
    int before = got->count;

    entra_token(entra, on_token, got);
    assert_int_equal(got->count, before);          /* never inside the call */
    while (got->count == before)
        uv_run(&loop, UV_RUN_DEFAULT);
}

/* Lets a renewal in the background come to its end. */
static void until_requests(size_t count)
{
    while (server.request_count < count)
        uv_run(&loop, UV_RUN_ONCE);
    for (int i = 0; i < 20; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* Answers without a Content-Length end with the connection. */
#define OK(json) { "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" json, SERVER_HANG_UP }
#define NO(status, json) { "HTTP/1.1 " status " No\r\nContent-Type: application/json\r\n\r\n" json, SERVER_HANG_UP }
#define TOKEN(name) OK("{\"token_type\":\"Bearer\",\"expires_in\":3599,\"ext_expires_in\":3599,\"access_token\":\"" name "\"}")

static void test_request_and_token(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP(TOKEN("eyJ.one"));
    ask(&got);
    assert_string_equal(got.token, "eyJ.one");
    assert_false(got.refused);
    assert_ptr_equal(strstr(server.requests[0].head, "POST /" TENANT "/oauth2/v2.0/token HTTP/1.1\r\n"),
                     server.requests[0].head);
    assert_non_null(strstr(server.requests[0].head, "\r\nContent-Type: application/x-www-form-urlencoded\r\n"));
    assert_string_equal(server.requests[0].body,
                        "grant_type=client_credentials&client_id=" CLIENT
                        "&scope=https%3A%2F%2Fmonitor.azure.com%2F.default&client_secret=p~w%26x%3D%2B%20%C3%A9%25");
    ask(&got);
    assert_string_equal(got.token, "eyJ.one");
    assert_int_equal(server.request_count, 1);                 /* kept */
    teardown();
}

static void test_single_flight(void **state)
{
    struct got got[5] = { 0 };

    (void)state;
    SETUP(TOKEN("one"), TOKEN("two"));
    for (int i = 0; i < 5; i++)
        entra_token(entra, on_token, &got[i]);
    while (got[4].count == 0)
        uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(got[i].count, 1);
        assert_string_equal(got[i].token, "one");
    }
    assert_int_equal(server.request_count, 1);
    teardown();
}

/* Within 300 s of its end a token is renewed, and serves on while the renewal is under way; past its end it never does,
 * not even when the clock jumped over everything in between. */
static void test_renewal(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP(TOKEN("one"), TOKEN("two"), TOKEN("three"));
    ask(&got);
    clock_ms += 3298 * 1000;
    ask(&got);
    assert_string_equal(got.token, "one");
    assert_int_equal(server.request_count, 1);
    clock_ms += 1000;
    ask(&got);
    assert_string_equal(got.token, "one");
    until_requests(2);
    ask(&got);
    assert_string_equal(got.token, "two");
    assert_int_equal(server.request_count, 2);
    clock_ms += 30ull * 24 * 3600 * 1000;
    ask(&got);
    assert_string_equal(got.token, "three");
    teardown();
}

/* refresh_in comes earlier than the margin; the old token serves while the renewal fails, and renewals keep their
 * distance. */
static void test_refresh_in(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP(OK("{\"token_type\":\"bearer\",\"expires_in\":\"7200\",\"refresh_in\":3600,\"access_token\":\"one\"}"),
          NO("503", ""), TOKEN("two"));
    ask(&got);
    clock_ms += 3600 * 1000 - 1;
    ask(&got);
    assert_int_equal(server.request_count, 1);
    clock_ms += 1;
    ask(&got);
    until_requests(2);
    ask(&got);
    assert_string_equal(got.token, "one");
    assert_int_equal(server.request_count, 2);                 /* held for 5 s */
    clock_ms += 5000;
    ask(&got);
    assert_string_equal(got.token, "one");
    until_requests(3);
    ask(&got);
    assert_string_equal(got.token, "two");
    teardown();
}

static void test_spoiled(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP(TOKEN("one"), TOKEN("two"));
    ask(&got);
    entra_spoiled(entra, "older");                             /* not the one held */
    ask(&got);
    assert_int_equal(server.request_count, 1);
    entra_spoiled(entra, "one");
    ask(&got);
    assert_string_equal(got.token, "two");
    entra_spoiled(entra, "one");                               /* a late 401 to the old one */
    ask(&got);
    assert_string_equal(got.token, "two");
    assert_int_equal(server.request_count, 2);
    teardown();
}

/* Our faults are told with what to do, and asked about again only after a minute. */
static void test_refusals(void **state)
{
    static const struct { const char *status, *body, *says; } rows[] = {
        { "401", "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid SECRETWORD\\u001b[2J\","
                 "\"error_codes\":[7000215],\"trace_id\":\"11111111-2222-3333-4444-555555555555\"}",
          "AADSTS7000215, the secret is wrong: put the secret's value, not its id, into secret_file (trace id 11111111-" },
        { "401", "{\"error_codes\":[7000222]}", "has expired" },
        { "400", "{\"error_codes\":[700016]}", "check client and tenant" },
        { "400", "{\"error_codes\":[90002]}", "the tenant does not exist" },
        { "400", "{\"error_codes\":[70011]}", "/.default" },
        { "400", "{\"error_codes\":[500011]}", "check cloud and scope" },
        { "401", "{\"error_codes\":[700027]}", "upload the one in certificate_file" },
        { "401", "{\"error_codes\":[700024]}", "clock" },
        { "400", "{\"error_codes\":[700213]}", "subject" },
        { "400", "{\"error_codes\":[12345678]}", "AADSTS12345678, check tenant, client" },
        { "400", "{\"error_codes\":[],\"trace_id\":\"evil\\nline\"}", "status 400, check tenant" },
        { "404", "<html>not found</html>", "status 404" },
        { "400", "", "status 400" },
        { "302", "", "redirects" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static char reply[1024];
        static const struct server_turn turns[] = { { reply, SERVER_HANG_UP }, TOKEN("later") };
        struct got got = { 0 };

        snprintf(reply, sizeof(reply), "HTTP/1.1 %s No\r\n\r\n%s", rows[i].status, rows[i].body);
        setup_with(turns, 2);
        ask(&got);
        assert_string_equal(got.token, "");
        assert_true(got.refused);
        assert_int_equal(got.retry_after_ms, -1);
        if (!strstr(got.why, rows[i].says))
            fail_msg("row %zu: %s", i, got.why);
        assert_null(strstr(got.why, "SECRETWORD"));
        assert_null(strstr(got.why, "evil"));
        clock_ms += 54999;
        ask(&got);
        assert_true(got.refused);
        assert_int_equal(server.request_count, 1);
        clock_ms += 1;
        ask(&got);
        assert_string_equal(got.token, "later");
        teardown();
    }
}

static void test_passing(void **state)
{
    static const struct { const char *head, *body; int64_t ms; } rows[] = {
        { "429 Busy\r\nRetry-After: 17", "", 17000 },
        { "429 Busy", "", 5000 },
        { "503 No\r\nRetry-After: 999999", "", 3600000 },
        { "500 No\r\nRetry-After: 0", "", 1000 },              /* never without a pause */
        { "504 No", "{\"error_codes\":[7000215]}", 5000 },
        { "200 OK", "", 5000 },
        { "200 OK", "{\"token_type\":\"Bearer\",\"expires_in\":3599}", 5000 },
        { "200 OK", "{\"token_type\":\"pop\",\"expires_in\":3599,\"access_token\":\"x\"}", 5000 },
        { "200 OK", "{\"token_type\":\"Bearer\",\"expires_in\":0,\"access_token\":\"x\"}", 5000 },
        { "200 OK", "{\"token_type\":\"Bearer\",\"expires_in\":-1,\"access_token\":\"x\"}", 5000 },
        { "200 OK", "{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":\"x\\r\\nHost: y\"}", 5000 },
        { "200 OK", "{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":[\"x\"]}", 5000 },
        { "200 OK\r\nContent-Length: 999", "{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":\"x\"}", 5000 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static char reply[1024];
        static const struct server_turn turns[] = { { reply, SERVER_HANG_UP }, TOKEN("later") };
        struct got got = { 0 };

        snprintf(reply, sizeof(reply), "HTTP/1.1 %s\r\n\r\n%s", rows[i].head, rows[i].body);
        setup_with(turns, 2);
        ask(&got);
        assert_string_equal(got.token, "");
        assert_false(got.refused);
        if (got.retry_after_ms != rows[i].ms)
            fail_msg("row %zu: %lld ms, %s", i, (long long)got.retry_after_ms, got.why);
        clock_ms += (uint64_t)rows[i].ms;
        ask(&got);
        assert_string_equal(got.token, "later");
        teardown();
    }
}

/* Ages that Entra never gives: longer than a token can last, shorter than our margin. */
static void test_odd_ages(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP(OK("{\"token_type\":\"Bearer\",\"expires_in\":9223372036854775807,\"refresh_in\":-5,\"access_token\":\"one\"}"),
          OK("{\"token_type\":\"Bearer\",\"expires_in\":100,\"refresh_in\":999999999999,\"access_token\":\"two\"}"),
          TOKEN("three"));
    ask(&got);
    clock_ms += 48ull * 3600 * 1000;
    ask(&got);
    assert_string_equal(got.token, "two");
    clock_ms += 49999;
    ask(&got);
    assert_int_equal(server.request_count, 2);
    clock_ms += 1;
    ask(&got);
    assert_string_equal(got.token, "two");
    until_requests(3);
    teardown();
}

/* A refusal is remembered for a minute, but not once there is another secret. Answers are cheap: nobody is asked twice. */
static void test_a_new_secret_ends_a_refusal(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP(NO("401", "{\"error_codes\":[7000222]}"), NO("401", "{\"error_codes\":[7000215]}"), TOKEN("one"));
    ask(&got);
    assert_true(got.refused);
    secret_write("second");
    ask(&got);                                     /* not within a second of the last: files may change all the time */
    assert_non_null(strstr(got.why, "7000222"));
    clock_ms += 1000;
    ask(&got);
    assert_non_null(strstr(got.why, "7000215"));
    clock_ms += 1000;
    ask(&got);
    assert_int_equal(server.request_count, 2);
    secret_write("third");
    ask(&got);
    assert_string_equal(got.token, "one");
    assert_non_null(strstr(server.requests[2].body, "client_secret=third"));
    teardown();
}

/* Sinks and sources of one identity ask once for all of them, and each hears of it by itself; another scope is another token. */
static void test_one_identity_is_one_flight(void **state)
{
    struct entra *users[4], *other;
    struct got got[4] = { 0 }, apart = { 0 };
    struct entra_conf conf;

    (void)state;
    SETUP(TOKEN("one"), TOKEN("two"), TOKEN("three"));
    conf = conf_of();
    for (int i = 0; i < 4; i++) {
        conf.http.timeout_ms = 1000 + (uint32_t)i;             /* patience tells nobody apart */
        assert_int_equal(entra_new(&users[i], http, &loop, &conf, NULL), 0);
        entra_token(users[i], on_token, &got[i]);
    }
    entra_close(users[1]);                                     /* its callback is dropped, and nobody else's */
    while (got[0].count + got[2].count + got[3].count < 3)
        uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 4; i++)
        assert_string_equal(got[i].token, i == 1 ? "" : "one");
    assert_int_equal(server.request_count, 1);
    entra_spoiled(users[0], "one");
    ask(&got[0]);                                              /* the first of all, from setup */
    assert_string_equal(got[0].token, "two");
    conf.scope = "https://storage.azure.com/.default";
    assert_int_equal(entra_new(&other, http, &loop, &conf, NULL), 0);
    entra_token(other, on_token, &apart);
    while (apart.count == 0)
        uv_run(&loop, UV_RUN_DEFAULT);
    assert_string_equal(apart.token, "three");
    assert_int_equal(server.request_count, 3);
    entra_close(users[0]), entra_close(users[2]), entra_close(users[3]), entra_close(other);
    teardown();
}

/* ---- The machine's own ----------------------------------------------------------------------------------------- */

/* In place of setup's. */
static void managed(const char *kind)
{
    char url[96];
    struct entra_conf conf = { .auth = ENTRA_MANAGED, .http = { .proxy = "http://127.0.0.1:1", .timeout_ms = 5000,
                                                                .connect_timeout_ms = 5000 } };

    entra_close(entra);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", server.port, strcmp(kind, "imds") == 0 ? "" : "/token");
    unsetenv("IDENTITY_HEADER");
    unsetenv("IMDS_ENDPOINT");
    unsetenv("IDENTITY_ENDPOINT");
    setenv(strcmp(kind, "imds") == 0 ? "AZURE_POD_IDENTITY_AUTHORITY_HOST" : "IDENTITY_ENDPOINT", url, 1);
    if (strcmp(kind, "app") == 0)
        setenv("IDENTITY_HEADER", "h3ader", 1);
    if (strcmp(kind, "arc") == 0)
        setenv("IMDS_ENDPOINT", url, 1);
    assert_int_equal(entra_new(&entra, http, &loop, &conf, NULL), 0);
    entra_set_clock(entra, test_clock);
}

/* Numbers are texts; a day's token is renewed at half its life; no proxy is asked, though one is set. */
static void test_a_machines_token(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP(OK("{\"access_token\":\"one\",\"expires_in\":\"86400\",\"expires_on\":\"1\",\"not_before\":\"1\","
             "\"resource\":\"https://monitor.azure.com\",\"token_type\":\"Bearer\"}"),
          OK("{\"access_token\":\"two\",\"expires_in\":\"7199\",\"token_type\":\"Bearer\"}"),
          OK("{\"access_token\":\"three\",\"expires_in\":\"3599\",\"token_type\":\"Bearer\"}"));
    managed("imds");
    ask(&got);
    assert_string_equal(got.token, "one");
    assert_non_null(strstr(server.requests[0].head, "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource="
                                                    "https%3A%2F%2Fmonitor.azure.com HTTP/1.1\r\n"));
    assert_non_null(strstr(server.requests[0].head, "\r\nMetadata: true\r\n"));
    clock_ms += 43200 * 1000 - 1;
    ask(&got);
    assert_int_equal(server.request_count, 1);
    clock_ms += 1;
    ask(&got);
    assert_string_equal(got.token, "one");
    until_requests(2);
    ask(&got);
    assert_string_equal(got.token, "two");
    clock_ms += 3600 * 1000;                                   /* of two hours less a second, no half */
    ask(&got);
    assert_int_equal(server.request_count, 2);
    teardown();
}

/* An endpoint that is updated, throttles or stumbles is asked again after 2, 4, 8 … 32 s, or when it says. */
static void test_a_machines_endpoint_in_trouble(void **state)
{
    static const int64_t waits[] = { 2000, 4000, 8000, 16000, 32000, 17000, 32000, 32000 };
    struct got got = { 0 };

    (void)state;
    SETUP(NO("410", ""), NO("404", ""), NO("500", "{\"error\":\"unknown\"}"), { NULL, SERVER_RESET }, NO("503", ""),
          { "HTTP/1.1 429 Busy\r\nRetry-After: 17\r\n\r\n", SERVER_HANG_UP }, OK("{}"), NO("408", ""),
          OK("{\"access_token\":\"one\",\"expires_in\":\"3599\",\"token_type\":\"Bearer\"}"));
    managed("imds");
    for (size_t i = 0; i < sizeof(waits) / sizeof(*waits); i++) {
        ask(&got);
        assert_false(got.refused);
        if (got.retry_after_ms != waits[i])
            fail_msg("row %zu: %lld ms, %s", i, (long long)got.retry_after_ms, got.why);
        clock_ms += (uint64_t)waits[i];
    }
    ask(&got);
    assert_string_equal(got.token, "one");
    teardown();
}

static void test_a_machine_without_the_identity(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP(NO("400", "{\"error\":\"invalid_request\",\"error_description\":\"Identity not found SECRETWORD\"}"),
          NO("400", "{\"error\":\"invalid_resource\",\"error_description\":\"AADSTS500011\"}"));
    managed("imds");
    ask(&got);
    assert_true(got.refused);
    assert_non_null(strstr(got.why, "assign one to it"));
    assert_null(strstr(got.why, "SECRETWORD"));
    clock_ms += 60000;
    ask(&got);
    assert_true(got.refused);
    assert_non_null(strstr(got.why, "check cloud and scope"));
    teardown();
}

/* Its answer names the end, by the wall clock, and no life. */
static void test_app_service(void **state)
{
    static char reply[512];
    static const struct server_turn turns[] = {
        { reply, SERVER_HANG_UP },
        OK("{\"access_token\":\"two\",\"expires_on\":\"1000000\",\"token_type\":\"Bearer\"}"),
    };
    struct got got = { 0 };

    (void)state;
    snprintf(reply, sizeof(reply), "HTTP/1.1 200 OK\r\n\r\n{\"access_token\":\"one\",\"expires_on\":\"%lld\","
             "\"token_type\":\"Bearer\"}", (long long)time(NULL) + 3000);
    setup_with(turns, 2);
    managed("app");
    ask(&got);
    assert_string_equal(got.token, "one");
    assert_non_null(strstr(server.requests[0].head, "GET /token?api-version=2019-08-01&resource=https%3A%2F%2Fmonitor.azure.com "));
    assert_non_null(strstr(server.requests[0].head, "\r\nX-IDENTITY-HEADER: h3ader\r\n"));
    assert_in_range(entra_life_ms(entra), 2990 * 1000, 3000 * 1000);
    entra_spoiled(entra, "one");
    ask(&got);                                                 /* over for half a century: no token that can be used */
    assert_string_equal(got.token, "");
    assert_false(got.refused);
    teardown();
}

/* A challenge that leads elsewhere is a refusal, and sends nothing more. */
static void test_arc_led_astray(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP({ "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=/etc/shadow\r\n\r\n", SERVER_HANG_UP },
          { "HTTP/1.1 401 No\r\n\r\n", SERVER_HANG_UP });
    managed("arc");
    for (int i = 0; i < 2; i++) {
        ask(&got);
        assert_true(got.refused);
        assert_non_null(strstr(got.why, "does not name a key in /var/opt/azcmagent/tokens"));
        assert_int_equal(server.request_count, i + 1);
        clock_ms += 60000;
    }
    assert_null(strstr(server.requests[1].head, "Authorization"));
    teardown();
}

static void test_secret_is_read_for_every_fetch(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP(TOKEN("one"), TOKEN("two"));
    unlink(secret_file);
    ask(&got);
    assert_true(got.refused);
    assert_non_null(strstr(got.why, secret_file));
    assert_int_equal(server.request_count, 0);
    secret_write("first");
    chmod(secret_file, 0600);
    clock_ms += 60000;
    ask(&got);
    assert_string_equal(got.token, "one");
    assert_non_null(strstr(server.requests[0].body, "client_secret=first"));
    secret_write("second");
    entra_spoiled(entra, "one");
    ask(&got);
    assert_non_null(strstr(server.requests[1].body, "client_secret=second"));
    teardown();
}

static void test_nobody_answers(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP({ NULL, SERVER_RESET });
    ask(&got);
    assert_false(got.refused);
    assert_int_equal(got.retry_after_ms, 5000);
    teardown();
}

static struct got again;

static void ask_again_and_spoil(void)
{
    entra_spoiled(entra, "one");
    entra_token(entra, on_token, &again);
}

static void close_entra(void)
{
    entra_close(entra);
    entra = NULL;
}

/* Callbacks may ask, spoil and close; the others still get the token, or nothing any more. */
static void test_callbacks_may_do_anything(void **state)
{
    struct got first = { .then = ask_again_and_spoil }, second = { 0 };

    (void)state;
    SETUP(TOKEN("one"), TOKEN("two"));
    again = (struct got){ 0 };
    entra_token(entra, on_token, &first);
    entra_token(entra, on_token, &second);
    while (again.count == 0)
        uv_run(&loop, UV_RUN_DEFAULT);
    assert_string_equal(second.token, "one");
    assert_string_equal(again.token, "two");

    first = (struct got){ .then = close_entra };
    entra_token(entra, on_token, &first);
    entra_token(entra, on_token, &second);
    while (first.count == 0)
        uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(second.count, 1);
    teardown();
}

static void test_close_while_fetching(void **state)
{
    struct got got = { 0 };

    (void)state;
    SETUP({ NULL, SERVER_SILENT });
    entra_token(entra, on_token, &got);
    while (server.request_count == 0)
        uv_run(&loop, UV_RUN_ONCE);
    teardown();
    assert_int_equal(got.count, 0);
}

static void test_settings(void **state)
{
    struct pen_error err = { 0 };
    struct entra *none = NULL;
    struct entra_conf conf;

    (void)state;
    SETUP(TOKEN("one"));
    conf = conf_of();
    conf.authority = "http://login.microsoftonline.com";
    assert_int_equal(entra_new(&none, http, &loop, &conf, &err), UV_EINVAL);
    conf.authority = "https://login.microsoftonline.com/?a";
    assert_int_equal(entra_new(&none, http, &loop, &conf, &err), UV_EINVAL);
    conf = conf_of();
    conf.tenant = "../x";
    assert_int_equal(entra_new(&none, http, &loop, &conf, &err), UV_EINVAL);
    conf.tenant = "acme.onmicrosoft.com?x";
    assert_int_equal(entra_new(&none, http, &loop, &conf, &err), UV_EINVAL);
    conf = conf_of();
    conf.client = "penstock";
    assert_int_equal(entra_new(&none, http, &loop, &conf, &err), UV_EINVAL);
    assert_null(none);
    teardown();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_and_token), cmocka_unit_test(test_single_flight), cmocka_unit_test(test_renewal),
        cmocka_unit_test(test_refresh_in), cmocka_unit_test(test_spoiled), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_passing), cmocka_unit_test(test_odd_ages),
        cmocka_unit_test(test_secret_is_read_for_every_fetch), cmocka_unit_test(test_nobody_answers),
        cmocka_unit_test(test_callbacks_may_do_anything), cmocka_unit_test(test_close_while_fetching),
        cmocka_unit_test(test_settings), cmocka_unit_test(test_a_new_secret_ends_a_refusal),
        cmocka_unit_test(test_one_identity_is_one_flight), cmocka_unit_test(test_a_machines_token),
        cmocka_unit_test(test_a_machines_endpoint_in_trouble), cmocka_unit_test(test_a_machine_without_the_identity),
        cmocka_unit_test(test_app_service), cmocka_unit_test(test_arc_led_astray),
    };
    int failed;

    alarm(60);
    close(mkstemp(secret_file));
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(secret_file);
    return failed;
}
