/*
 * quota.c - no sixty seconds, wherever they begin, see more than a minute's limit, and little less is used when there is
 * more to send; live claims go first; sinks that name one DCR share one quota.
 *
 * Time is the loop's, set by hand: nothing waits here.
 */
#include "sinks/quota.c"             /* the clock is set, and the timer fired, from here */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define CLAIMS 64
#define GRANTS_MAX 20000

static uv_loop_t loop;
static struct quota *quota;
static struct { uint64_t ms, bytes; } grants[GRANTS_MAX];
static size_t grant_count;
static struct quota_claim claims[CLAIMS];
static bool waits[CLAIMS];

static void granted(const struct quota_claim *claim)
{
    assert_true(grant_count < GRANTS_MAX);
    grants[grant_count].ms = loop.time;
    grants[grant_count++].bytes = claim->bytes;
}

static void on_granted(struct quota_claim *claim)
{
    assert_true(waits[claim - claims]);
    waits[claim - claims] = false;
    granted(claim);
}

static bool ask(size_t i, uint64_t bytes, bool replayed)
{
    claims[i] = (struct quota_claim){ .bytes = bytes, .replayed = replayed, .granted = on_granted };
    waits[i] = !quota_ask(quota, &claims[i]);
    if (!waits[i])
        granted(&claims[i]);
    return !waits[i];
}

/* The clock goes on, and the timer strikes when it is due. */
static void pass(uint64_t ms)
{
    for (uint64_t end = loop.time + ms; loop.time < end;) {
        loop.time++;
        if (uv_is_active((uv_handle_t *)&quota->timer) && uv_timer_get_due_in(&quota->timer) == 0)
            on_timer(&quota->timer);
    }
}

static int setup(void **state)
{
    (void)state;
    uv_loop_init(&loop);
    quota = NULL;
    grant_count = 0;
    memset(waits, 0, sizeof(waits));
    return 0;
}

static int teardown(void **state)
{
    const struct wish *wish = quota != NULL ? LIST_FIRST(&quota->wishes) : NULL;

    (void)state;
    for (size_t i = 0; i < CLAIMS; i++)
        if (waits[i])
            quota_cancel(quota, &claims[i]);
    quota_close(quota, wish != NULL ? wish->requests : 0, wish != NULL ? wish->bytes : 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static void assert_windows(uint64_t requests, uint64_t bytes)
{
    uint64_t sum = 0;

    for (size_t from = 0, to = 0; to < grant_count; to++) {
        sum += grants[to].bytes;
        for (; grants[to].ms - grants[from].ms >= 60000; from++)
            sum -= grants[from].bytes;
        if (to - from + 1 > requests || sum > bytes)
            fail_msg("at %llu ms: %zu requests and %llu bytes in a minute", (unsigned long long)grants[to].ms, to - from + 1,
                     (unsigned long long)sum);
    }
}

/* Everybody always wants: the limit is nearly reached, and never passed. */
static void test_a_minute_is_kept_and_used(void **state)
{
    static const struct { uint64_t requests, bytes, size; } cases[] = {
        { 1200, 0, 1000 }, { 0, 60000000, 900000 }, { 1200, 60000000, 60000 }, { 6, 0, 1 }, { 90, 90000000, 1000000 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint64_t requests = cases[i].requests != 0 ? cases[i].requests : UINT64_MAX;
        uint64_t bytes = cases[i].bytes != 0 ? cases[i].bytes : UINT64_MAX;
        uint64_t most = bytes / cases[i].size < requests ? bytes / cases[i].size : requests;

        quota = quota_open(&loop, "dcr-a", cases[i].requests, cases[i].bytes);
        for (uint64_t end = loop.time + 240000; loop.time < end; pass(1))
            for (size_t k = 0; k < 4; k++)
                if (!waits[k])
                    (void)ask(k, cases[i].size, k % 2);
        assert_windows(requests, bytes);
        assert_true(grant_count >= 4 * most * 9 / 10);
        teardown(state);
        setup(state);
    }
}

/* A job takes half of the minute; what the daemon takes beyond its own half is not the job's; and it never stands still. */
static void test_a_job_gives_way(void **state)
{
    static const struct { uint64_t live, least, most; } cases[] = {
        { 0, 590, 600 }, { 500, 590, 600 }, { 900, 270, 310 }, { 1100, 70, 110 }, { 1200, 19, 31 }, { 9000, 19, 31 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct pen_beside beside = { .requests_a_minute = cases[i].live, .bytes_a_minute = cases[i].live * 1000 };

        quota = quota_open(&loop, "dcr-a", 1200, 1200000);
        quota_give_way(quota, &beside);
        for (uint64_t end = loop.time + 240000; loop.time < end; pass(1))
            if (!waits[0])
                (void)ask(0, 1000, false);
        assert_windows(cases[i].most, cases[i].most * 1000);
        assert_in_range(grant_count, 4 * cases[i].least, 4 * cases[i].most);
        teardown(state);
        setup(state);
    }
}

/* At random, with pauses, in which no more is saved up than the burst. */
static void test_a_minute_is_kept_at_random(void **state)
{
    unsigned seed = 7;

    (void)state;
    quota = quota_open(&loop, "dcr-a", 600, 30000000);
    for (int turn = 0; turn < 3000; turn++) {
        size_t i = (size_t)rand_r(&seed) % CLAIMS;

        if (!waits[i])
            (void)ask(i, (uint64_t)rand_r(&seed) % 400000, rand_r(&seed) % 2);
        else if (rand_r(&seed) % 8 == 0)
            quota_cancel(quota, &claims[i]), waits[i] = false;
        pass((uint64_t)(rand_r(&seed) % 100 == 0 ? rand_r(&seed) % 90000 : rand_r(&seed) % 60));
    }
    assert_windows(600, 30000000);
    assert_true(grant_count > 1000);
}

static void test_live_goes_first(void **state)
{
    (void)state;
    quota = quota_open(&loop, "dcr-a", 60, 0);
    assert_true(ask(0, 1, false));
    assert_false(ask(1, 1, true));
    assert_false(ask(2, 1, true));
    assert_false(ask(3, 1, false));
    pass(1100);
    assert_true(waits[1] && waits[2] && !waits[3]);
    pass(1100);
    assert_true(!waits[1] && waits[2]);
    assert_false(ask(4, 1, false));
    pass(1100);
    assert_true(waits[2] && !waits[4]);
    quota_cancel(quota, &claims[2]);
    waits[2] = false;
    pass(5000);
    assert_int_equal(grant_count, 4);
    assert_true(ask(5, 1, true));
}

/* One for all who name the DCR, the tightest of their wishes; another DCR has its own. */
static void test_a_dcr_has_one_quota(void **state)
{
    struct quota *again, *other;

    (void)state;
    quota = quota_open(&loop, "dcr-ab", 0, 0);
    for (size_t i = 0; i < 10; i++)
        assert_true(ask(0, 1 << 30, false));
    again = quota_open(&loop, "DCR-AB", 60, 0);
    assert_ptr_equal(again, quota);
    other = quota_open(&loop, "dcr-ac", 60, 0);
    assert_ptr_not_equal(other, quota);
    assert_true(ask(0, 1, false));
    assert_false(ask(1, 1, false));
    assert_ptr_equal(quota_open(&loop, "dcr-ab", 6000, 0), quota);
    pass(900);
    assert_true(waits[1]);
    pass(200);
    assert_false(waits[1]);
    quota_close(again, 60, 0);                     /* the tightest leaves, and its wish with it */
    pass(1000);
    quota_fill(quota);
    assert_true(bucket_wait_ms(&quota->requests, 50) == 0);
    quota_close(again, 6000, 0);
    quota_close(other, 60, 0);
    quota_close(NULL, 0, 0);
    assert_ptr_equal(quota_find(&loop, "dcr-ab"), quota);
    assert_null(quota_find(&loop, "dcr-ac"));
}

/* What goes unasked counts all the same. */
static void test_a_charge_is_paid_back(void **state)
{
    (void)state;
    quota = quota_open(&loop, "dcr-a", 60, 0);
    assert_true(ask(0, 1, false));
    quota_charge(quota, 1);
    assert_false(ask(1, 1, false));
    pass(1900);
    assert_true(waits[1]);
    pass(300);
    assert_false(waits[1]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        TEST(test_a_minute_is_kept_and_used), TEST(test_a_minute_is_kept_at_random), TEST(test_live_goes_first),
        TEST(test_a_job_gives_way),
        TEST(test_a_dcr_has_one_quota), TEST(test_a_charge_is_paid_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
