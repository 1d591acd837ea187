/*
 * records.c - the pure pipeline: any bytes through framer, parsers and every schema.
 *
 * What must hold, whatever comes in:
 * - each record that the framer finds is accounted for: once in `raw`, and by events of its own elsewhere, which carry the
 *   id that its bytes have and count up from 0. One that no parser takes is one event, of kind unknown;
 * - each message is JSON on one line, and no name comes twice in it;
 * - cutting the stream, and bounding the output, changes nothing.
 *
 * Input: 1 byte which parser, 1 byte how the stream is cut, 1 byte of record_max and output_max; the stream.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/record/work.h"

#include <assert.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

enum { ASIM, OCSF, RAW, SCHEMAS };

struct result {                      /* all runs over one stream, end to end */
    struct buf bytes[SCHEMAS];
    struct work_message *messages[SCHEMAS];
    size_t count[SCHEMAS], capacity[SCHEMAS];
    struct work_counts counts;
};

static void result_take(struct result *result, const struct work *work)
{
    for (size_t s = 0; s < SCHEMAS; s++) {
        const struct work_messages *made = &work->messages[s];

        if (result->count[s] + made->count > result->capacity[s]) {
            result->capacity[s] = 2 * (result->count[s] + made->count);
            result->messages[s] = realloc(result->messages[s], result->capacity[s] * sizeof(**result->messages));
            assert(result->messages[s] != NULL);
        }
        for (size_t i = 0; i < made->count; i++) {
            struct work_message message = made->index[i];

            assert(message.offset + (size_t)message.size <= made->bytes.size && message.kind < PEN_KINDS);
            message.offset += (uint32_t)result->bytes[s].size;
            result->messages[s][result->count[s]++] = message;
        }
        buf_add(&result->bytes[s], made->bytes.data, made->bytes.size);
    }
    result->counts.records += work->counts.records;
    result->counts.events += work->counts.events;
    result->counts.unknown += work->counts.unknown;
    result->counts.malformed += work->counts.malformed;
    result->counts.partly += work->counts.partly;
    result->counts.oversize += work->counts.oversize;
    for (size_t i = 0; i < work->fault_count && i < WORK_FAULTS_MAX; i++)
        assert(judge_line((struct pen_span){ work->faults[i].why, strlen(work->faults[i].why) }, false));
}

static void result_free(struct result *result)
{
    for (size_t s = 0; s < SCHEMAS; s++) {
        buf_free(&result->bytes[s]);
        free(result->messages[s]);
    }
}

/* As the pipeline does it: the rest again with more behind it, a big record by itself, a full output from where it was. */
static void run(const struct work_plan *plan, struct worker *worker, struct pen_span all, size_t step, struct result *result)
{
    struct work work = { .plan = plan, .received_ms = 1700000000000 };
    size_t at = 0, size = step < all.size ? step : all.size;

    for (;;) {
        char *chunk = fuzz_copy((struct pen_span){ all.data + at, size }, JSON_PADDING);

        work.data = chunk;
        work.size = size;
        work.offset = at;
        work.final = at + size == all.size;
        work_run(worker, &work);
        assert(work.consumed <= size && (work.end == WORK_FULL || work.skip_after == 0 || work.end == WORK_BIG));
        result_take(result, &work);
        worker_shrink(worker);
        free(chunk);
        at += work.consumed;
        if (work.end == WORK_ALL && work.final)
            break;
        /* Full or big: the same bytes again. Else more of them, or the framer would starve. */
        size -= work.consumed;
        if (work.end == WORK_ALL)
            size = size + step < all.size - at ? size + step : all.size - at;
        work.big_allowed = work.end == WORK_BIG;
        work.word = work.word_after;
        work.skip = work.skip_after;
        work.blamed = work.blamed_after;
    }
    assert(work.consumed == size);
}

static struct pen_span message_of(const struct result *result, size_t schema, size_t i)
{
    const struct work_message *message = &result->messages[schema][i];

    return (struct pen_span){ result->bytes[schema].data + message->offset, message->size };
}

static void assert_same(const struct result *a, const struct result *b)
{
    assert(memcmp(&a->counts, &b->counts, sizeof(a->counts)) == 0);
    for (size_t s = 0; s < SCHEMAS; s++) {
        assert(a->count[s] == b->count[s] && a->bytes[s].size == b->bytes[s].size);
        assert(a->bytes[s].size == 0 || memcmp(a->bytes[s].data, b->bytes[s].data, a->bytes[s].size) == 0);
        for (size_t i = 0; i < a->count[s]; i++) {
            const struct work_message *x = &a->messages[s][i], *y = &b->messages[s][i];

            assert(x->offset == y->offset && x->size == y->size && x->kind == y->kind && x->position == y->position &&
                   x->ticks == y->ticks);
        }
    }
}

/* ---- One record and what became of it ---- */

static void assert_message(struct pen_span message, const char *rest)
{
    struct pen_span inner;

    assert(judge_json(message) && judge_line(message, false) && message.data[0] == '{');
    assert(judge_names_differ(message));
    inner = judge_member(message, rest);
    assert(inner.size == 0 || (inner.data[0] == '{' && judge_names_differ(inner)));
}

static void assert_id(struct pen_span id, const char *hash, size_t ordinal)
{
    char want[64];
    int size = snprintf(want, sizeof(want), "\"%s-%zu\"", hash, ordinal);

    assert(id.size == (size_t)size && memcmp(id.data, want, id.size) == 0);
}

struct seen {                        /* how far each schema's messages have been looked at */
    size_t at[SCHEMAS];
    struct json *json;
};

static void assert_record(const struct result *result, struct seen *seen, enum framer_found found,
                          const struct framer_piece *piece)
{
    char *copy = fuzz_copy((struct pen_span){ piece->data, piece->size }, JSON_PADDING), hash[33];
    unsigned char digest[SHA256_DIGEST_LENGTH];
    struct pen_span message, meta;
    struct pen_json root;
    const char *why;
    size_t n;
    bool json = found == FRAMER_RECORD && json_parse(seen->json, copy, piece->size, &root, &why) == 0;

    SHA256((const unsigned char *)piece->data, piece->size, digest);
    for (size_t i = 0; i < 16; i++)
        snprintf(hash + 2 * i, 3, "%02x", digest[i]);
    for (n = 0; seen->at[ASIM] < result->count[ASIM]; n++, seen->at[ASIM]++) {
        const struct work_message *asim = &result->messages[ASIM][seen->at[ASIM]];
        const struct work_message *ocsf = &result->messages[OCSF][seen->at[ASIM]];

        if (asim->position != piece->position)
            break;
        assert(ocsf->position == piece->position && ocsf->kind == asim->kind && ocsf->ticks == asim->ticks);
        assert(json || asim->kind == PEN_UNKNOWN);
        message = message_of(result, ASIM, seen->at[ASIM]);
        assert_message(message, "AdditionalFields");
        assert_id(judge_member(message, "EventOriginalUid"), hash, n);
        message = message_of(result, OCSF, seen->at[ASIM]);
        assert_message(message, "unmapped");
        meta = judge_member(message, "metadata");
        assert_id(judge_member(meta, "uid"), hash, n);
    }
    assert(json || n == 1);
    assert(seen->at[RAW] < result->count[RAW] && result->messages[RAW][seen->at[RAW]].position == piece->position);
    message = message_of(result, RAW, seen->at[RAW]++);
    assert(judge_json(message) && memchr(message.data, '\n', message.size) == NULL);
    free(copy);
}

static void assert_all(const struct result *result, struct pen_span all, size_t record_max)
{
    static struct json *json;
    struct seen seen = { .json = json != NULL ? json : (json = json_new()) };
    struct framer_piece piece;
    enum framer_found found;
    struct framer framer;
    uint64_t pieces = 0;

    assert(result->count[ASIM] == result->counts.events && result->count[OCSF] == result->counts.events);
    framer_begin(&framer, 0, all.data, all.size, 0, true, record_max);
    while ((found = framer_next(&framer, &piece)) < FRAMER_MORE) {
        assert_record(result, &seen, found, &piece);
        pieces++;
    }
    assert(pieces == result->counts.records && pieces == result->count[RAW]);
    assert(seen.at[ASIM] == result->count[ASIM] && seen.at[RAW] == result->count[RAW]);
    assert(result->counts.unknown <= pieces && result->counts.malformed + result->counts.oversize <= result->counts.unknown);
}

/* ---- The plans, one per parser ---- */

static struct work_plan *plan_of(uint8_t choice)
{
    static struct work_plan plans[8];
    static size_t count;

    if (count == 0) {
        struct pen_error err = { 0 };
        int r = work_plan_open(&plans[count++], "auto", NULL, &err);

        for (size_t i = 0; r == 0 && builtin_parsers[i] != NULL && count < 8; i++)
            r = work_plan_open(&plans[count++], builtin_parsers[i]->name, NULL, &err);
        assert(r == 0);
        for (size_t i = 0; i < count; i++) {
            plans[i].schemas[ASIM] = &asim_schema;
            plans[i].schemas[OCSF] = &ocsf_schema;
            plans[i].schemas[RAW] = &raw_schema;
            plans[i].schema_count = SCHEMAS;
            plans[i].source = PEN_SPAN("fuzz");
        }
    }
    return &plans[choice % count];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct worker *worker;
    struct feed feed = feed_of(data, size);
    struct work_plan *plan = plan_of(feed_byte(&feed));
    uint8_t step = feed_byte(&feed), bounds = feed_byte(&feed);
    struct pen_span all = feed_span(&feed, SIZE_MAX);
    struct result whole = { 0 }, cut = { 0 };

    if (worker == NULL)
        worker = worker_new();
    plan->record_max = FRAMER_RECORD_MIN << (bounds & 15);
    plan->big_record = SIZE_MAX;
    plan->output_max = SIZE_MAX;
    run(plan, worker, all, all.size + 1, &whole);
    assert_all(&whole, all, plan->record_max);

    plan->big_record = (size_t)step * 16;
    plan->output_max = (size_t)(bounds >> 4) * 1000;
    run(plan, worker, all, (step + 1) * (1 + all.size / 1024), &cut);
    assert_same(&whole, &cut);
    result_free(&whole);
    result_free(&cut);
    return 0;
}
