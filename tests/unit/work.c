/*
 * The pure pipeline's promises: every record becomes messages or travels as unknown with a reason; the counts add up; what
 * comes out does not depend on how the input was cut, nor on how much output one run may make.
 */
#include "daemon/record/window.h"
#include "daemon/record/work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/sha.h>

/* ---- Parsers and schemas that are as simple as can be ----------------------------------------------------------- */

static bool has(const struct pen_record *record, const char *key)
{
    struct pen_json node = pen_json_get(record->json, key);

    return pen_json_type(&node) != PEN_JSON_MISSING;
}

/* {"count":3}: so many events. {"count":3,"bad":1}: partly. {"count":0,"bad":1}: malformed. */
static bool count_claims(const struct pen_record *record)
{
    return has(record, "count");
}

static enum pen_parsed count_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    struct pen_json count = pen_json_get(record->json, "count");
    int64_t events = 0;

    (void)self;
    pen_json_int(&count, &events);
    for (int64_t i = 0; i < events; i++) {
        struct pen_event *event = pen_out_event(out, PEN_NETWORK);

        pen_set_ticks(event, PEN_TIME_GENERATED, i);
        pen_out_emit(out, event);
    }
    if (!has(record, "bad"))
        return PEN_PARSED;
    pen_out_blame(out, "bad is set");
    return events > 0 ? PEN_PARTLY : PEN_MALFORMED;
}

static bool other_claims(const struct pen_record *record)
{
    return has(record, "other");
}

static enum pen_parsed other_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    (void)self;
    (void)record;
    return pen_out_emit(out, pen_out_event(out, PEN_AUDIT));
}

static bool all_claims(const struct pen_record *record)
{
    (void)record;
    return true;
}

static enum pen_parsed all_parse(void *self, const struct pen_record *record, struct pen_out *out)
{
    (void)self;
    (void)record;
    return pen_out_emit(out, pen_out_event(out, PEN_UNKNOWN));
}

static const struct pen_parser count_parser = { sizeof(count_parser), "count", NULL, NULL, count_claims, count_parse, NULL };
static const struct pen_parser other_parser = { sizeof(other_parser), "other", NULL, NULL, other_claims, other_parse, NULL };
static const struct pen_parser all_parser = { sizeof(all_parser), "all", NULL, NULL, all_claims, all_parse, NULL };

static uint32_t line_write(const struct pen_event *event, const struct event_meta *meta, struct buf *out,
                           struct pattern *pattern)
{
    (void)pattern;
    buf_text(out, "%s %d %.*s %.*s %s\n", meta->parser, (int)event->kind, (int)meta->id_size, meta->id,
             (int)(meta->record->raw.size < 100 ? meta->record->raw.size : 100), meta->record->raw.data,
             meta->record->trouble != NULL ? meta->record->trouble : "");
    return event->kind == PEN_UNKNOWN && meta->record->trouble != NULL ? 2 : 0;
}

static const struct schema line_schema = { .name = "line", .write = line_write };
static const struct schema record_schema = { .name = "record", .per_record = true, .write = line_write };

static const struct work_parser parsers[] = { { .parser = &count_parser }, { .parser = &other_parser }, { .parser = &all_parser } };

static struct work_plan plan_of(size_t output_max)
{
    return (struct work_plan){
        .parsers = parsers, .parser_count = 3, .schemas = { &line_schema, &record_schema }, .schema_count = 2,
        .source = PEN_SPAN("test"), .record_max = 1 << 20, .big_record = SIZE_MAX, .output_max = output_max,
    };
}

/* ---- A stream through runs -------------------------------------------------------------------------------------- */

struct result {
    struct buf lines, records;
    struct work_counts counts;
    uint64_t left_out;               /* records */
    size_t faults, runs;
};

static void result_take(struct result *result, const struct work *work)
{
    const struct work_messages *messages = work->messages;

    for (unsigned schema = 0; schema < 2; schema++) {
        size_t end = 0;

        for (size_t i = 0; i < messages[schema].count; i++) {
            assert_int_equal(messages[schema].index[i].offset, end);
            end += messages[schema].index[i].size;
        }
        assert_int_equal(messages[schema].bytes.size, end);
    }
    buf_add(&result->lines, messages[0].bytes.data, messages[0].bytes.size);
    buf_add(&result->records, messages[1].bytes.data, messages[1].bytes.size);
    assert_int_equal(messages[0].count + messages[0].outside, work->counts.events);
    assert_int_equal(messages[0].outside, work->counts.outside);
    result->left_out += messages[1].outside;
    result->counts.records += work->counts.records;
    result->counts.events += work->counts.events;
    result->counts.unknown += work->counts.unknown;
    result->counts.malformed += work->counts.malformed;
    result->counts.partly += work->counts.partly;
    result->counts.oversize += work->counts.oversize;
    result->counts.cut += work->counts.cut;
    result->counts.outside += work->counts.outside;
    result->faults += work->fault_count;
    result->runs++;
}

static struct result run_all(struct work_plan plan, const char *data, size_t size, size_t step)
{
    struct worker *worker = worker_new();
    struct work work = { .plan = &plan };
    struct result result = { 0 };
    size_t end = 0;

    do {
        end = size - end < step ? size : end + step;
        do {
            struct buf chunk = { 0 };

            buf_add(&chunk, data + work.offset, end - work.offset);
            buf_reserve(&chunk, JSON_PADDING);
            work.data = chunk.data;
            work.size = chunk.size;
            work.final = end == size;
            work_run(worker, &work);
            result_take(&result, &work);
            work.offset += work.consumed;
            work.word = work.word_after;
            work.skip = work.skip_after;
            work.blamed = work.blamed_after;
            work.big_allowed = work.end == WORK_BIG;
            buf_free(&chunk);
        } while (work.end != WORK_ALL);
    } while (end < size);
    assert_int_equal(work.offset, size);
    assert_int_equal(work.skip, 0);
    worker_free(worker);
    buf_reserve(&result.lines, 1);
    result.lines.data[result.lines.size] = '\0';    /* for strstr() */
    return result;
}

static void result_free(struct result *result)
{
    buf_free(&result->lines);
    buf_free(&result->records);
}

static void assert_same(const struct result *left, const struct result *right)
{
    assert_int_equal(left->lines.size, right->lines.size);
    assert_memory_equal(left->lines.data, right->lines.data, left->lines.size);
    assert_int_equal(left->records.size, right->records.size);
    assert_memory_equal(left->records.data, right->records.data, left->records.size);
    assert_memory_equal(&left->counts, &right->counts, sizeof(left->counts));
    assert_int_equal(left->faults, right->faults);
}

static const char mixed[] =
    "{\"records\":[{\"count\":3},{\"other\":1},{\"count\":0}]}\n"
    "{\"count\":2,\"bad\":1}\n{\"count\":0,\"bad\":1}\n{\"nobody\":1}\n"
    "plain text\n{\"count\":1,}\n{\"count\":\"torn\n{\"other\":2}{\"count\":40}\n{\"cut\":";

static void test_every_record_is_accounted_for(void **state)
{
    struct result result = run_all(plan_of(1 << 20), mixed, strlen(mixed), sizeof(mixed));

    (void)state;
    assert_int_equal(result.counts.records, 12);
    assert_int_equal(result.counts.events, 3 + 1 + 0 + 2 + 1 + 1 + 1 + 1 + 1 + 1 + 40 + 1);
    assert_int_equal(result.counts.unknown, 6);      /* refused, claimed by nobody, text, no JSON, torn, cut off */
    assert_int_equal(result.counts.malformed, 5);
    assert_int_equal(result.counts.partly, 1);
    assert_int_equal(result.counts.oversize, 0);
    assert_int_equal(result.faults, 6);
    assert_non_null(strstr(result.lines.data, "{\"count\":0,\"bad\":1} bad is set\n"));
    result_free(&result);
}

/* Schemas that carry records whole get each once, the one without events too. */
static void test_per_record_schemas_get_each_record_once(void **state)
{
    struct result result = run_all(plan_of(1 << 20), mixed, strlen(mixed), sizeof(mixed));
    size_t lines = 0;

    (void)state;
    for (size_t i = 0; i < result.records.size; i++)
        lines += result.records.data[i] == '\n';
    assert_int_equal(lines, 12);
    result_free(&result);
}

static void test_output_bound_changes_nothing_but_the_runs(void **state)
{
    struct result whole = run_all(plan_of(1 << 20), mixed, strlen(mixed), sizeof(mixed));

    (void)state;
    for (size_t output_max = 0; output_max < 2000; output_max += output_max < 100 ? 1 : 97) {
        struct result bound = run_all(plan_of(output_max), mixed, strlen(mixed), sizeof(mixed));

        assert_same(&whole, &bound);
        if (output_max == 0)
            assert_true(bound.runs > 50);
        result_free(&bound);
    }
    result_free(&whole);
}

/* What lies outside is counted, its neighbours keep their ids, and a record travels whole once if anything of it lies inside:
 * wherever a run ends. Events without a time are in every window. */
static void test_a_window_leaves_out_what_lies_outside(void **state)
{
    static const struct window window = { .from_ticks = 10, .to_ticks = 20 };

    (void)state;
    for (size_t output_max = 0; output_max < 2000; output_max += output_max < 100 ? 1 : 97) {
        struct work_plan plan = plan_of(output_max);
        struct result result;
        size_t records = 0;

        plan.window = &window;
        result = run_all(plan, mixed, strlen(mixed), sizeof(mixed));
        assert_int_equal(result.counts.events, 53);
        assert_int_equal(result.counts.outside, 3 + 2 + 30);
        assert_int_equal(result.left_out, 2);        /* {"count":3} and {"count":2}; {"count":0} says nothing of time */
        for (size_t i = 0; i < result.records.size; i++)
            records += result.records.data[i] == '\n';
        assert_int_equal(records, 12 - 2);
        assert_non_null(strstr(result.lines.data, "-10 {\"count\":40}"));
        assert_non_null(strstr(result.lines.data, "-19 {\"count\":40}"));
        assert_null(strstr(result.lines.data, "-9 {\"count\":40}"));
        assert_null(strstr(result.lines.data, "-20 {\"count\":40}"));
        result_free(&result);
    }
}

static void test_cuts_change_nothing(void **state)
{
    struct result whole = run_all(plan_of(1 << 20), mixed, strlen(mixed), sizeof(mixed));

    (void)state;
    for (size_t step = 1; step < sizeof(mixed); step++) {
        struct result cut = run_all(plan_of(100), mixed, strlen(mixed), step);

        assert_same(&whole, &cut);
        result_free(&cut);
    }
    result_free(&whole);
}

/* A queue's message, in as many runs as its output needs: the first run leaves off in the middle of a record. */
static void test_records_of_a_whole_message_stand_at_its_number(void **state)
{
    static const char text[sizeof("{\"records\":[{\"count\":9},{\"other\":1},torn") + JSON_PADDING] =
        "{\"records\":[{\"count\":9},{\"other\":1},torn";
    struct work_plan plan = plan_of(16);
    struct worker *worker = worker_new();
    struct work work = { .plan = &plan, .data = text, .size = strlen(text), .final = true, .whole = true, .place = 7001 };
    size_t messages = 0, faults = 0, runs = 0;

    (void)state;
    do {
        work_run(worker, &work);
        for (size_t i = 0; i < work.messages[0].count; i++, messages++)
            assert_int_equal(work.messages[0].index[i].position, 7001);
        for (size_t i = 0; i < work.fault_count; i++, faults++)
            assert_int_equal(work.faults[i].position, 7001);
        work.data += work.consumed;
        work.size -= work.consumed;
        work.offset += work.consumed;
        work.word = work.word_after;
        work.skip = work.skip_after;
        runs++;
    } while (work.end != WORK_ALL);
    assert_int_equal(messages, 9 + 1 + 1);
    assert_true(faults > 0 && runs > 2);
    worker_free(worker);
}

/* Small messages in runs that add to each other are what they are in runs of their own; the one that is torn stays alone. */
static void test_runs_that_add_make_what_single_ones_make(void **state)
{
    static const char text[] = "{\"count\":2}{\"torn\":[{\"count\":1}{\"count\":0,\"bad\":1}plain";
    static const size_t ends[] = { 11, 20, 31, 31, 50, 55 };       /* the fourth has no bytes */
    char data[sizeof(text) + JSON_PADDING] = { 0 };
    struct work_plan plan = plan_of(1 << 20);
    struct worker *worker = worker_new();
    struct result single = { 0 }, added = { 0 };
    struct work work;

    (void)state;
    memcpy(data, text, sizeof(text));
    for (unsigned adds = 0; adds < 2; adds++) {
        for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
            size_t begin = i > 0 ? ends[i - 1] : 0;

            if (i == 0 || adds == 0)
                work = (struct work){ .plan = &plan, .final = true, .whole = true };
            work.data = data + begin;
            work.size = ends[i] - begin;
            work.word = 0;
            work.place = 7 + i;
            work.adds = adds && i > 0;
            work_run(worker, &work);
            assert_int_equal(work.end, WORK_ALL);
            assert_int_equal(work.consumed, work.size);
            if (!adds)
                result_take(&single, &work);
        }
    }
    result_take(&added, &work);
    assert_same(&single, &added);
    assert_int_equal(work.messages[0].index[0].position, 7);
    assert_int_equal(work.messages[0].index[work.messages[0].count - 1].position, 12);
    assert_int_equal(work.faults[0].position, 8);
    assert_int_equal(added.counts.records, 5);
    result_free(&single);
    result_free(&added);
    worker_free(worker);
}

static void test_event_id_is_the_records_hash_and_the_ordinal(void **state)
{
    const char *record = "{\"count\":12}";
    unsigned char hash[SHA256_DIGEST_LENGTH];
    char expected[64] = "";
    struct result result = run_all(plan_of(10), record, strlen(record), 100);

    (void)state;
    SHA256((const unsigned char *)record, strlen(record), hash);
    for (unsigned i = 0; i < 16; i++)
        snprintf(expected + 2 * i, 3, "%02x", hash[i]);
    for (unsigned i = 0; i < 12; i++) {
        snprintf(expected + 32, 16, "-%u ", i);
        assert_non_null(strstr(result.lines.data, expected));
    }
    result_free(&result);
}

static void test_big_records_wait_for_leave(void **state)
{
    struct work_plan plan = plan_of(1 << 20);
    struct buf data = { 0 };
    struct worker *worker = worker_new();
    struct work work = { .plan = &plan, .final = true };

    (void)state;
    plan.big_record = 1000;
    BUF_LITERAL(&data, "{\"other\":1}\n{\"count\":1,\"text\":\"");
    for (unsigned i = 0; i < 2000; i++)
        buf_char(&data, 'x');
    BUF_LITERAL(&data, "\"}\n{\"other\":2}\n");
    buf_reserve(&data, JSON_PADDING);
    work.data = data.data;
    work.size = data.size;
    work_run(worker, &work);
    assert_int_equal(work.end, WORK_BIG);
    assert_int_equal(work.counts.records, 1);
    assert_int_equal(work.consumed, 11);
    work.data += work.consumed;
    work.size -= work.consumed;
    work.offset += work.consumed;
    work.word = work.word_after;
    work.big_allowed = true;
    work_run(worker, &work);
    assert_int_equal(work.end, WORK_ALL);
    assert_int_equal(work.counts.records, 2);
    assert_int_equal(work.consumed, work.size);
    worker_shrink(worker);
    assert_int_equal(work.messages[0].count, 2);     /* still there */
    worker_free(worker);
    buf_free(&data);
}

static void test_oversize_travels_as_unknown(void **state)
{
    struct work_plan plan = plan_of(1 << 20);
    struct buf data = { 0 };
    struct result result;

    (void)state;
    plan.record_max = 8192;
    BUF_LITERAL(&data, "{\"count\":1,\"text\":\"");
    for (unsigned i = 0; i < 20000; i++)
        buf_char(&data, 'x');
    BUF_LITERAL(&data, "\"}\n{\"other\":2}\n");
    result = run_all(plan, data.data, data.size, 9000);
    assert_int_equal(result.counts.records, 2);
    assert_int_equal(result.counts.oversize, 1);
    assert_int_equal(result.counts.cut, 2);          /* one message of each schema, however many fields */
    assert_int_equal(result.counts.unknown, 1);
    assert_int_equal(result.counts.malformed, 0);
    assert_int_equal(result.faults, 1);
    result_free(&result);
    buf_free(&data);
}

/* Only so many faults are told in words; each is counted. */
static void test_more_faults_than_can_be_told_are_counted(void **state)
{
    struct buf data = { 0 };
    struct result result;

    (void)state;
    for (unsigned i = 0; i < 3 * WORK_FAULTS_MAX; i++)
        BUF_LITERAL(&data, "plain text\n");
    result = run_all(plan_of(1 << 20), data.data, data.size, data.size);
    assert_int_equal(result.faults, 3 * WORK_FAULTS_MAX);
    assert_int_equal(result.counts.records, 3 * WORK_FAULTS_MAX);
    assert_int_equal(result.counts.events, 3 * WORK_FAULTS_MAX);
    result_free(&result);
    buf_free(&data);
}

/* A user's parser may claim what a built-in one would: it is asked first, whoever claimed the record before. */
static void test_users_parsers_come_first(void **state)
{
    struct work_parser user[] = {
        { .parser = &other_parser, .plugin = (struct plugin *)parsers }, { .parser = &count_parser }, { .parser = &all_parser },
    };
    const char *data = "{\"count\":1}\n{\"count\":1,\"other\":1}\n{\"count\":1}\n";
    struct work_plan plan = plan_of(1 << 20);
    struct result result;

    (void)state;
    plan.parsers = user;
    result = run_all(plan, data, strlen(data), 1000);
    assert_memory_equal(result.lines.data, "count", 5);
    assert_non_null(strstr(result.lines.data, "\nother 2 "));
    assert_int_equal(result.counts.events, 3);
    result_free(&result);
}

/* Flow tuples that an earlier run took are not looked at again, neither the good ones nor the broken. */
static void test_skipped_tuples_change_nothing(void **state)
{
    struct work_plan plan = plan_of(1 << 20);
    struct pen_error err = { 0 };
    struct buf data = { 0 };
    struct result whole;

    (void)state;
    plan.schemas[0] = &asim_schema;
    assert_int_equal(work_plan_open(&plan, "auto", NULL, &err), 0);
    for (unsigned record = 0; record < 2; record++) {
        BUF_LITERAL(&data, "{\"time\":\"2026-11-18T11:08:40Z\",\"category\":\"NetworkSecurityGroupFlowEvent\",\"properties\":"
                           "{\"Version\":2,\"flows\":[");
        for (unsigned rule = 0; rule < 3; rule++) {
            buf_text(&data, "%s{\"rule\":\"r%u\",\"flows\":[{\"mac\":\"6045BD00000%u\",\"flowTuples\":[", rule > 0 ? "," : "",
                     rule, rule);
            for (unsigned i = 0; i < 5; i++)
                buf_text(&data, "\"17950000%02u,10.0.0.%u,%s,35620,443,%s,%c,A,E,1,74,%s\",", i, i,
                         i == 1 ? "nowhere" : "20.98.192.237", i == 3 ? "Z" : "T", i % 2 ? 'I' : 'O', i == 4 ? "0,0,more" : "0,0");
            BUF_LITERAL(&data, "7]}]}");
        }
        BUF_LITERAL(&data, "]}}\n");
    }
    whole = run_all(plan, data.data, data.size, data.size);
    assert_int_equal(whole.counts.events, 2 * 3 * 6);
    assert_int_equal(whole.counts.partly, 2);
    assert_int_equal(whole.faults, 2);
    for (plan.output_max = 0; plan.output_max < 20000; plan.output_max += plan.output_max < 1000 ? 333 : 2999) {
        struct result bound = run_all(plan, data.data, data.size, data.size);

        assert_same(&whole, &bound);
        result_free(&bound);
    }
    result_free(&whole);
    work_plan_close(&plan);
    buf_free(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_record_is_accounted_for),
        cmocka_unit_test(test_per_record_schemas_get_each_record_once),
        cmocka_unit_test(test_output_bound_changes_nothing_but_the_runs),
        cmocka_unit_test(test_a_window_leaves_out_what_lies_outside),
        cmocka_unit_test(test_cuts_change_nothing),
        cmocka_unit_test(test_records_of_a_whole_message_stand_at_its_number),
        cmocka_unit_test(test_runs_that_add_make_what_single_ones_make),
        cmocka_unit_test(test_event_id_is_the_records_hash_and_the_ordinal),
        cmocka_unit_test(test_big_records_wait_for_leave),
        cmocka_unit_test(test_oversize_travels_as_unknown),
        cmocka_unit_test(test_more_faults_than_can_be_told_are_counted),
        cmocka_unit_test(test_users_parsers_come_first),
        cmocka_unit_test(test_skipped_tuples_change_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
