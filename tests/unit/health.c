/* Health: what stands still is seen, and what has nothing to do is left in peace. Minutes of it, on a clock of numbers. */
#include "daemon/status/health.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define LOOK 5000u
#define MINUTE 60000u

static struct world {
    struct health health;
    struct status_source source;
    struct status_sink sink;
    struct status status;
    uint64_t now_ms;
} world;

static int begin(void **state)
{
    (void)state;
    world = (struct world){ .now_ms = 1000 };
    world.health.stalled_after_ms = 5 * MINUTE;
    world.health.record_max = 4 << 20;
    world.source.name = "logs";
    world.sink.name = "siem";
    world.sink.dead_max = 1 << 20;
    world.status = (struct status){ .sources = &world.source, .source_count = 1, .sinks = &world.sink, .sink_count = 1 };
    health_look(&world.health, &world.status, world.now_ms);
    assert_true(world.status.ready);
    return 0;
}

/* So many minutes, and in each of them what on_look() does. */
static void pass(unsigned minutes, void (*on_look)(void))
{
    for (uint64_t end = world.now_ms + minutes * MINUTE; world.now_ms < end;) {
        world.now_ms += LOOK;
        if (on_look != NULL)
            on_look();
        health_look(&world.health, &world.status, world.now_ms);
    }
}

static void reasons_have(const char *sentence)
{
    struct buf out = { 0 };

    health_reasons(&world.health, &world.status, &out);
    buf_char(&out, '\0');
    if (sentence == NULL)
        assert_string_equal(out.data, "");
    else
        assert_non_null(strstr(out.data, sentence));
    buf_free(&out);
}

static void test_idle_is_ready_for_ever(void **state)
{
    (void)state;
    pass(600, NULL);
    assert_true(world.status.ready);
    assert_string_equal(world.source.state.word, "idle");
    assert_string_equal(world.sink.state.word, "idle");
    reasons_have(NULL);
}

static void delivers(void)
{
    world.sink.all.delivered++;
    world.source.bytes += 1000;
}

static void test_work_is_ready(void **state)
{
    (void)state;
    world.sink.waiting = 1;
    pass(60, delivers);
    assert_true(world.status.ready);
    assert_string_equal(world.source.state.word, "reading");
    assert_string_equal(world.sink.state.word, "delivering");
}

static void test_sink_that_takes_nothing(void **state)
{
    (void)state;
    world.sink.waiting = 1;
    world.sink.all.spooled = 7;
    world.sink.flow = OUTLET_SPOOLING;
    pass(4, NULL);
    assert_true(world.status.ready);
    assert_int_equal(world.sink.state.mood, MOOD_BAD);
    pass(2, NULL);
    assert_false(world.status.ready);
    reasons_have("sink siem: nothing was delivered for 360 s although 7 messages wait");
    delivers();
    pass(1, NULL);
    assert_true(world.status.ready);
    reasons_have(NULL);
}

/* Something trickles out of the spool, but never enough for the sources. */
static void test_spool_that_stays_full(void **state)
{
    (void)state;
    world.sink.waiting = 1;
    world.sink.flow = OUTLET_PAUSED;
    pass(6, delivers);
    assert_false(world.status.ready);
    assert_string_equal(world.sink.state.word, "spool full");
    reasons_have("its spool has taken nothing more for 360 s");
    world.sink.flow = OUTLET_SPOOLING;
    pass(1, delivers);
    assert_true(world.status.ready);
}

static void test_refusal_is_said_at_once(void **state)
{
    (void)state;
    world.sink.refused = 1;
    pass(1, NULL);
    assert_string_equal(world.sink.state.word, "refuses us");
    assert_true(world.status.ready);
}

static void grows(void)
{
    world.source.unread += 1000;
}

static void test_source_that_is_not_read(void **state)
{
    (void)state;
    pass(6, grows);
    assert_false(world.status.ready);
    reasons_have("source logs: nothing was read for");
    world.source.bytes += world.source.unread;
    world.source.unread = 2;
    pass(1, NULL);
    assert_true(world.status.ready);
}

/* A line that was begun, the last two bytes of a PT1H.json: there for hours, and nothing to be done about it. */
static void test_torn_end_is_no_stall(void **state)
{
    (void)state;
    world.source.unread = 300;
    pass(600, NULL);
    assert_true(world.status.ready);
    assert_string_equal(world.source.state.word, "idle");
}

static void test_more_than_any_record_is_a_stall(void **state)
{
    (void)state;
    world.source.unread = 5 << 20;
    pass(6, NULL);
    assert_false(world.status.ready);
}

static void fails(void)
{
    world.source.troubles++;
}

static void test_source_that_cannot_be_read(void **state)
{
    (void)state;
    pass(6, fails);
    assert_false(world.status.ready);
    pass(10, NULL);                  /* whatever it was, it has stopped */
    assert_true(world.status.ready);
}

static void test_source_whose_far_end_says_no(void **state)
{
    (void)state;
    fails();                         /* said once, and true all the while */
    world.source.ailing = true;
    pass(6, NULL);
    assert_false(world.status.ready);
    pass(600, NULL);
    assert_false(world.status.ready);
    assert_int_equal(world.source.state.mood, MOOD_BAD);
    world.source.ailing = false;
    pass(1, NULL);
    assert_true(world.status.ready);
}

/* All its other files are read meanwhile. */
static void test_source_of_which_a_part_cannot_be_read(void **state)
{
    (void)state;
    world.source.ailing = true;
    for (int minute = 0; minute < 6; minute++) {
        world.source.bytes += 1000;
        pass(1, NULL);
    }
    assert_false(world.status.ready);
    reasons_have("source logs: it, or some of it, cannot be read for");
    world.source.ailing = false;
    pass(1, NULL);
    assert_true(world.status.ready);
}

static void test_one_listing_that_failed_is_forgotten(void **state)
{
    (void)state;
    fails();
    pass(600, NULL);
    assert_true(world.status.ready);
}

/* A reload turned the sources round: each has the past of its name. */
static void test_a_reload_moves_nobodys_past(void **state)
{
    struct status_source both[2] = { { .name = "new", .bytes = 5 }, { .name = "logs", .unread = 8 << 20 } };

    (void)state;
    world.source.unread = 8 << 20;
    pass(4, NULL);
    world.status.sources = both;
    world.status.source_count = 2;
    pass(2, NULL);
    assert_false(world.status.ready);
    assert_true(both[1].stalled_ms >= 5 * MINUTE && both[0].stalled_ms == 0);
    reasons_have("source logs: nothing was read");
}

static void test_never(void **state)
{
    (void)state;
    world.health.stalled_after_ms = 0;
    world.sink.waiting = 1;
    pass(600, fails);
    assert_true(world.status.ready);
    reasons_have(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_idle_is_ready_for_ever, begin),
        cmocka_unit_test_setup(test_work_is_ready, begin),
        cmocka_unit_test_setup(test_sink_that_takes_nothing, begin),
        cmocka_unit_test_setup(test_spool_that_stays_full, begin),
        cmocka_unit_test_setup(test_refusal_is_said_at_once, begin),
        cmocka_unit_test_setup(test_source_that_is_not_read, begin),
        cmocka_unit_test_setup(test_torn_end_is_no_stall, begin),
        cmocka_unit_test_setup(test_more_than_any_record_is_a_stall, begin),
        cmocka_unit_test_setup(test_source_that_cannot_be_read, begin),
        cmocka_unit_test_setup(test_source_whose_far_end_says_no, begin),
        cmocka_unit_test_setup(test_source_of_which_a_part_cannot_be_read, begin),
        cmocka_unit_test_setup(test_one_listing_that_failed_is_forgotten, begin),
        cmocka_unit_test_setup(test_a_reload_moves_nobodys_past, begin),
        cmocka_unit_test_setup(test_never, begin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
