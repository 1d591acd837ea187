/*
 * kafka_pace.c - a broker's thread never turns for want of sleep, however long answers take; nothing stands still; throughput
 * stays near what one request in flight per partition can carry.
 *
 * The thread of librdkafka 2.0 is played here, message by message, on a clock of tenths of a millisecond.
 */
#include "sinks/kafka_pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define TENTHS     10                /* of a millisecond, in one */
#define REQUEST    1000000
#define MESSAGE    10000             /* bytes, its key included */
#define WIRE       (MESSAGE + 100)   /* what it takes up in a request */
#define LINGER_MS  15
#define QUEUE      4096

static struct kafka_pace pace;

struct partition {
    uint64_t queued[QUEUE];          /* when each was produced; a ring */
    uint32_t first, count;
    uint64_t flying[QUEUE];
    uint32_t flying_count;
    uint64_t answered_at;
};

struct run {
    struct partition partitions[4];
    uint32_t partition_count;
    uint32_t answer_ms;
    uint64_t now;                    /* tenths */
    uint64_t turning;                /* partitions' tenths */
    uint64_t delivered;
};

static void partition_send(struct run *run, struct partition *partition)
{
    bool full = (uint64_t)partition->count * MESSAGE >= REQUEST;

    if (partition->flying_count > 0 || partition->count == 0)
        return;
    if (!full && run->now - partition->queued[partition->first] < LINGER_MS * TENTHS)
        return;
    while (partition->count > 0 && (partition->flying_count + 1) * WIRE <= REQUEST) {
        partition->flying[partition->flying_count++] = partition->queued[partition->first];
        partition->first = (partition->first + 1) % QUEUE;
        partition->count--;
    }
    partition->answered_at = run->now + run->answer_ms * TENTHS;
}

static void partition_answer(struct run *run, uint32_t which)
{
    struct partition *partition = &run->partitions[which];

    if (partition->flying_count == 0 || run->now < partition->answered_at)
        return;
    for (uint32_t i = 0; i < partition->flying_count; i++)
        kafka_pace_reported(&pace, MESSAGE, (int32_t)which, i > 0 ? -1 : (int64_t)(run->now - partition->flying[i]) * 1000 / TENTHS);
    run->delivered += partition->flying_count;
    partition->flying_count = 0;
}

/* Everything that may be produced is, as if there were always more. */
static void run_produce(struct run *run)
{
    uint32_t next = 0;

    kafka_pace_turn(&pace);
    while (kafka_pace_allows(&pace)) {
        struct partition *partition = &run->partitions[next++ % run->partition_count];

        assert_true(partition->count < QUEUE);
        partition->queued[(partition->first + partition->count++) % QUEUE] = run->now;
        kafka_pace_produced(&pace, MESSAGE);
    }
}

static void run_for(struct run *run, uint32_t ms)
{
    run->turning = run->delivered = 0;
    for (uint64_t end = run->now + (uint64_t)ms * TENTHS; run->now < end; run->now++) {
        for (uint32_t i = 0; i < run->partition_count; i++)
            partition_answer(run, i);
        run_produce(run);
        for (uint32_t i = 0; i < run->partition_count; i++) {
            struct partition *partition = &run->partitions[i];

            partition_send(run, partition);
            run->turning += partition->flying_count > 0 && partition->count > 0 &&
                run->now - partition->queued[partition->first] >= LINGER_MS * TENTHS;
        }
    }
}

static void nobody_turns_however_long_answers_take(void **state)
{
    static const uint32_t answers[] = { 1, 3, 8, 12, 14, 16, 20, 40, 100, 1000 };

    (void)state;
    for (uint32_t partitions = 1; partitions <= 4; partitions++)
        for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
            struct run run = { .partition_count = partitions, .answer_ms = answers[i] };
            double best;

            kafka_pace_begin(&pace, REQUEST, LINGER_MS);
            run_for(&run, 40 * answers[i] + 200);          /* until it knows */
            run_for(&run, 200 * answers[i] + 1000);
            best = (double)partitions * (REQUEST / WIRE) * (200.0 * answers[i] + 1000) / answers[i];
            if ((double)run.turning > 0.03 * (200.0 * answers[i] + 1000) * TENTHS * partitions)
                fail_msg("%u partitions, %u ms: turning for %.0f ms", partitions, answers[i], (double)run.turning / TENTHS);
            if ((double)run.delivered < best * (answers[i] < LINGER_MS ? 0.9 : 0.8 * answers[i] / (answers[i] + LINGER_MS)))
                fail_msg("%u partitions, %u ms: %.0f %% of what could be", partitions, answers[i], 100.0 * run.delivered / best);
        }
}

static void a_far_end_that_comes_near_is_noticed(void **state)
{
    struct run run = { .partition_count = 1, .answer_ms = 200 };

    (void)state;
    kafka_pace_begin(&pace, REQUEST, LINGER_MS);
    run_for(&run, 10000);
    run.answer_ms = 5;
    run_for(&run, 2000);
    run_for(&run, 1000);
    assert_true(run.delivered > 0.9 * 1000 / 5 * (REQUEST / WIRE));
    run.answer_ms = 200;
    run_for(&run, 5000);
    run_for(&run, 20000);
    assert_true(run.turning < 20000 * TENTHS * 3 / 100);
}

/* What is larger than a request goes all the same; a linger of none at all still lets messages through. */
static void nothing_stands_still(void **state)
{
    (void)state;
    kafka_pace_begin(&pace, 1000, 0);
    for (int i = 0; i < 100; i++) {
        kafka_pace_turn(&pace);
        assert_true(kafka_pace_allows(&pace));
        kafka_pace_produced(&pace, 5000);
        assert_false(kafka_pace_allows(&pace));
        kafka_pace_turn(&pace);
        assert_false(kafka_pace_allows(&pace));
        kafka_pace_reported(&pace, 5000, i % 2 ? 300 : -1, i % 3 ? 1000000 : -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_turns_however_long_answers_take),
        cmocka_unit_test(a_far_end_that_comes_near_is_noticed),
        cmocka_unit_test(nothing_stands_still),
    };

    return cmocka_run_group_tests_name("kafka_pace", tests, NULL, NULL);
}
