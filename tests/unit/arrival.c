/*
 * arrival.c - rows are tallied by their minute for two hours and no longer; what is compared has settled, is never more than the
 * tally knows, and fewer rows received than accepted, or any loss that the DCR itself counts, is a difference; more is none.
 *
 * The clock is an argument, or the tally is as if it had begun an hour ago: nothing waits here. Resource Manager and Entra are small
 * servers on loopback.
 */
#include "sinks/arrival.c"           /* window and comparison are not public */

#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#define BEGUN 29000000u              /* a minute of 2025 */

static struct tally tally;

static int begin(void **state)
{
    (void)state;
    tally_begin(&tally, BEGUN);
    return 0;
}

/* ---- The tally ---- */

static void test_rows_are_summed_by_minute(void **state)
{
    (void)state;
    tally_add(&tally, BEGUN, 5);
    tally_add(&tally, BEGUN, 7);
    tally_add(&tally, BEGUN + 1, 100);
    tally_add(&tally, BEGUN + TALLY_MINUTES - 1, 1000);
    assert_int_equal(tally_sum(&tally, BEGUN, BEGUN + 1), 12);
    assert_int_equal(tally_sum(&tally, BEGUN, BEGUN + 2), 112);
    assert_int_equal(tally_sum(&tally, BEGUN + 1, BEGUN + TALLY_MINUTES), 1100);
    assert_int_equal(tally_sum(&tally, BEGUN + 2, BEGUN + 2), 0);
    assert_int_equal(tally_sum(&tally, BEGUN + 2, BEGUN + 1), 0);
}

static void test_a_minute_leaves_after_two_hours(void **state)
{
    (void)state;
    tally_add(&tally, BEGUN, 5);
    tally_add(&tally, BEGUN + 1, 6);
    tally_add(&tally, BEGUN + TALLY_MINUTES, 7);
    assert_int_equal(tally_sum(&tally, BEGUN, BEGUN + 1), 0);
    assert_int_equal(tally_sum(&tally, BEGUN, BEGUN + TALLY_MINUTES + 1), 13);
}

static void test_a_clock_set_back_is_followed(void **state)
{
    struct window window;

    (void)state;
    tally_add(&tally, BEGUN + 1, 5);
    tally_add(&tally, BEGUN - 600, 7);
    assert_int_equal(tally.begun, BEGUN - 600);
    window = window_at(&tally, BEGUN - 600 + ARRIVAL_SETTLED + 1);
    assert_true(window.from < window.to);
    assert_int_equal(window.accepted, 7);
}

/* ---- The window ---- */

static void test_nothing_is_compared_before_it_has_settled(void **state)
{
    struct window window;

    (void)state;
    tally_add(&tally, BEGUN, 5);
    for (unsigned minute = 0; minute <= ARRIVAL_SETTLED; minute++) {
        window = window_at(&tally, BEGUN + minute);
        assert_true(window.from >= window.to);
        assert_int_equal(window.accepted, 0);
    }
    window = window_at(&tally, BEGUN + ARRIVAL_SETTLED + 1);
    assert_true(window.from == BEGUN && window.to == BEGUN + 1);
    assert_int_equal(window.accepted, 5);
}

/* A row a minute: whenever it is looked, as many are accepted as the window has minutes, none of which has left the ring. */
static void test_a_window_holds_what_it_says(void **state)
{
    struct window window;

    (void)state;
    for (unsigned minute = 0; minute < 5 * TALLY_MINUTES; minute++) {
        tally_add(&tally, BEGUN + minute, 1);
        window = window_at(&tally, BEGUN + minute);
        assert_int_equal(window.accepted, window.from < window.to ? window.to - window.from : 0);
        assert_true(window.to + ARRIVAL_SETTLED <= BEGUN + minute);
        assert_true(ARRIVAL_EDGE < ARRIVAL_SETTLED);                /* what is asked for more has settled, too */
    }
    assert_int_equal(window.accepted, TALLY_MINUTES - ARRIVAL_SETTLED - 1);
}

/* ---- The comparison ---- */

static void differs(int64_t received, int64_t dropped, int64_t columns, int64_t errors, unsigned losses)
{
    const struct window window = { BEGUN, BEGUN + 9, .accepted = 100 };
    const struct sentinel_counts counts = { .received = received, .dropped = dropped, .errors = errors, .columns = columns };

    assert_int_equal(losses_of(&window, &counts), losses);
}

static void test_what_is_a_loss(void **state)
{
    (void)state;
    differs(100, 0, 0, 0, 0);
    differs(5000, 0, 0, 0, 0);
    differs(100, -1, -1, -1, 0);
    differs(-1, 0, 0, 0, 0);
    differs(99, 0, 0, 0, 1 << LOST_ROWS);
    differs(0, 0, 0, 0, 1 << LOST_ROWS);
    differs(100, 1, 0, 0, 1 << LOST_DROPPED);
    differs(100, 0, 1, 0, 1 << LOST_COLUMNS);
    differs(100, 0, 0, 1, 1 << LOST_ERRORS);
    differs(1, 2, 3, 4, (1 << LOSSES) - 1);
}

/* ---- Whose it is ---- */

static void test_sinks_of_one_rule_share_its_tally(void **state)
{
    uv_loop_t loop;
    struct arrival *first, *second, *other;

    (void)state;
    uv_loop_init(&loop);
    first = arrival_open(&loop, "dcr-a");
    second = arrival_open(&loop, "DCR-A");
    other = arrival_open(&loop, "dcr-b");
    assert_ptr_equal(first, second);
    assert_ptr_not_equal(first, other);
    arrival_add(first, 3);
    arrival_add(second, 4);
    arrival_add(NULL, 4);
    assert_int_equal(tally_sum(&first->tally, 0, UINT64_MAX), 7);
    assert_int_equal(tally_sum(&other->tally, 0, UINT64_MAX), 0);
    assert_true(arrival_see(first).accepted == UINT64_MAX && arrival_see(first).differs == UINT64_MAX);
    assert_true(arrival_see(NULL).unknown_ms == UINT64_MAX);
    arrival_close(first, NULL);
    arrival_add(second, 1);
    arrival_close(second, NULL);
    arrival_close(other, NULL);
    arrival_close(NULL, NULL);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* ---- The question ---- */

#define GUID "00000000-0000-0000-0000-0000000000aa"
#define TOKEN(name) { "HTTP/1.1 200 OK\r\n\r\n{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":\"" name "\"}", \
                      SERVER_HANG_UP }
#define METRIC(name, points) "{\"name\":{\"value\":\"" name "\"},\"timeseries\":[{\"data\":[" points "]}]}"
#define ANSWER(metrics) { "HTTP/1.1 200 OK\r\n\r\n{\"value\":[" metrics "]}", SERVER_HANG_UP }
#define ROWS(points) METRIC("RowsReceived_Count", points) "," METRIC("RowsDropped_Count", "") "," \
                     METRIC("TransformationErrors_Count", "{\"timeStamp\":\"x\"}")
#define REFUSAL(status) { "HTTP/1.1 " status "\r\nContent-Length: 0\r\n\r\n", SERVER_HANG_UP }

static const struct server_turn good_tokens[] = { TOKEN("tok-one"), TOKEN("tok-two") };
static const struct server_turn silence[] = { { NULL, SERVER_SILENT } };

static uv_loop_t loop;
static struct http *http;
static struct server entra_server, manager;
static struct arrival *arrival;
static char secret[64];

/* Ten rows were accepted half an hour ago, and it is asked as often as can be. */
static void watch(const struct server_turn *tokens, size_t token_count, const struct server_turn *turns, size_t count)
{
    static char authority[64], management[64];
    struct sentinel_target target = { .resource_id = "/subscriptions/s/dataCollectionRules/r",
                                      .http = { .proxy = "", .timeout_ms = 20000, .connect_timeout_ms = 20000 } };
    struct pen_error err = { 0 };
    FILE *file;

    file = fdopen(mkstemp(strcpy(secret, "/tmp/penstock-arrival-XXXXXX")), "w");    /* mode 0600 */
    fputs("hush", file);
    fclose(file);
    uv_loop_init(&loop);
    assert_int_equal(http_new(&http, &loop, &err), 0);
    server_open(&entra_server, &loop, tokens, token_count);
    server_open(&manager, &loop, turns, count);
    snprintf(authority, sizeof(authority), "http://127.0.0.1:%d", entra_server.port);
    snprintf(management, sizeof(management), "http://127.0.0.1:%d", manager.port);
    target.management = (struct pen_span){ management, strlen(management) };
    target.management_entra = (struct entra_conf){
        .auth = ENTRA_SECRET, .tenant = GUID, .client = GUID, .secret_file = secret, .authority = authority,
        .audience = ENTRA_MANAGEMENT, .http = target.http,
    };
    arrival = arrival_open(&loop, "dcr-a");
    tally_begin(&arrival->tally, minute_now() - 60);
    tally_add(&arrival->tally, minute_now() - 30, 10);
    arrival_watch(arrival, http, http, &target, 1);
}
#define WATCH(...)                                                        \
    static const struct server_turn turns[] = { __VA_ARGS__ };            \
    watch(good_tokens, 2, turns, sizeof(turns) / sizeof(turns[0]))

static void leave(void)
{
    arrival_close(arrival, http);
    http_close(http, NULL, NULL);
    server_close(&entra_server);
    server_close(&manager);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    unlink(secret);
}

static void until_asked(const struct server *server, size_t times)
{
    while (server->request_count < times)
        uv_run(&loop, UV_RUN_ONCE);
}

static void until_judged(void)
{
    while (arrival->seen.accepted == UINT64_MAX)
        uv_run(&loop, UV_RUN_ONCE);
}

static bool asked(size_t request, const char *text)
{
    return strstr(manager.requests[request].head, text) != NULL;
}

static void test_it_is_asked_by_the_minute(void **state)
{
    char from[64];

    (void)state;
    WATCH(ANSWER(ROWS("{\"total\":6.0,\"count\":1.0},{},{\"total\":4.0}")), ANSWER(METRIC("ColumnsDroppedCount", "")));
    until_judged();
    assert_int_equal(arrival_see(arrival).accepted, 10);
    assert_int_equal(arrival_see(arrival).received, 10);
    assert_int_equal(arrival_see(arrival).columns, 0);
    assert_int_equal(arrival_see(arrival).errors, 0);
    assert_int_equal(arrival_see(arrival).differs, 0);
    assert_int_equal(arrival_see(arrival).unknown_ms, 0);
    assert_true(asked(0, "GET /subscriptions/s/dataCollectionRules/r/providers/Microsoft.Insights/metrics?") &&
                asked(0, "RowsReceived_Count,RowsDropped_Count,TransformationErrors_Count") && asked(0, "interval=PT1M") &&
                asked(0, "Authorization: Bearer tok-one"));
    minute_write(from, arrival->tally.begun - ARRIVAL_EDGE);
    assert_true(asked(0, from));
    assert_true(asked(1, "metricnames=ColumnsDroppedCount&"));
    leave();
}

static void test_rows_that_are_missing_differ(void **state)
{
    (void)state;
    WATCH(ANSWER(ROWS("{\"total\":9.0}")), REFUSAL("400 Bad Request"));
    until_judged();
    assert_int_equal(arrival_see(arrival).received, 9);
    assert_int_equal(arrival_see(arrival).differs, 1);
    assert_true(arrival_see(arrival).columns == UINT64_MAX);
    leave();
}

static void test_a_token_that_is_refused_is_replaced(void **state)
{
    (void)state;
    WATCH(REFUSAL("401 Unauthorized"), ANSWER(ROWS("{\"total\":10.0}")), ANSWER(""));
    until_asked(&manager, 1);
    assert_true(arrival_see(arrival).differs == UINT64_MAX);
    until_judged();
    assert_true(asked(1, "Authorization: Bearer tok-two"));
    assert_int_equal(arrival_see(arrival).differs, 0);
    leave();
}

static void test_what_is_no_count_is_unknown(void **state)
{
    (void)state;
    WATCH(REFUSAL("403 Forbidden"), ANSWER(METRIC("RowsDropped_Count", "")), { "HTTP/1.1 200 OK\r\n\r\n{\"value\":", SERVER_HANG_UP },
          REFUSAL("500 Trouble"), ANSWER(METRIC("RowsReceived_Count", "{\"total\":\"ten\"}") ",7"), ANSWER(""));
    until_asked(&manager, 4);
    assert_true(arrival->unknown_since_ms > 0 && arrival->said == 0 && arrival->seen.accepted == UINT64_MAX);
    until_judged();                                /* a count that is no number counts nothing */
    assert_int_equal(arrival_see(arrival).received, 0);
    assert_int_equal(arrival_see(arrival).unknown_ms, 0);
    leave();
}

static void test_it_ends_while_it_is_asked(void **state)
{
    (void)state;
    watch(good_tokens, 2, silence, 1);
    until_asked(&manager, 1);
    leave();
    assert_int_equal(manager.request_count, 1);                    /* one at a time */
}

static void test_it_ends_while_it_waits_for_a_token(void **state)
{
    (void)state;
    watch(silence, 1, silence, 1);
    until_asked(&entra_server, 1);
    leave();
    assert_int_equal(manager.request_count, 0);
}

/* A reload opens a sink anew beside the old one, whose settings go with it: what is asked from then on is in the new one's words. */
static void test_who_leaves_leaves_it_to_the_next(void **state)
{
    static const struct server_turn turns[] = { { NULL, SERVER_SILENT }, ANSWER(ROWS("{\"total\":10.0}")), ANSWER("") };
    char *old = strdup("/subscriptions/s/dataCollectionRules/old");
    struct sentinel_target next;

    (void)state;
    watch(good_tokens, 2, turns, 3);
    next = arrival->target;
    arrival->target.resource_id = old;
    assert_ptr_equal(arrival_open(&loop, "dcr-a"), arrival);
    arrival_watch(arrival, &next, http, &next, 1);
    until_asked(&manager, 1);
    assert_true(asked(0, "/dataCollectionRules/old/"));
    arrival_close(arrival, http);
    memset(old, 'x', strlen(old));
    until_judged();
    assert_true(asked(1, "/dataCollectionRules/r/"));
    assert_int_equal(arrival_see(arrival).differs, 0);
    arrival_open(&loop, "dcr-a");
    arrival_close(arrival, &next);
    assert_null(arrival->entra);
    leave();
    free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_rows_are_summed_by_minute, begin),
        cmocka_unit_test_setup(test_a_minute_leaves_after_two_hours, begin),
        cmocka_unit_test_setup(test_a_clock_set_back_is_followed, begin),
        cmocka_unit_test_setup(test_nothing_is_compared_before_it_has_settled, begin),
        cmocka_unit_test_setup(test_a_window_holds_what_it_says, begin),
        cmocka_unit_test(test_what_is_a_loss),
        cmocka_unit_test(test_sinks_of_one_rule_share_its_tally),
        cmocka_unit_test(test_it_is_asked_by_the_minute),
        cmocka_unit_test(test_rows_that_are_missing_differ),
        cmocka_unit_test(test_a_token_that_is_refused_is_replaced),
        cmocka_unit_test(test_what_is_no_count_is_unknown),
        cmocka_unit_test(test_it_ends_while_it_is_asked),
        cmocka_unit_test(test_it_ends_while_it_waits_for_a_token),
        cmocka_unit_test(test_who_leaves_leaves_it_to_the_next),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
