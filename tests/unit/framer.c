/*
 * The framer's promises: every shape of input gives its records, with the right positions; damage costs itself and
 * nothing else; where the stream is cut into chunks changes nothing; a cursor never passes a moving end.
 */
#include "daemon/base/buf.h"
#include "daemon/record/framer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define RECORD_MAX 2048

/* ---- Reading a stream in pieces, as one line of text each ------------------------------------------------------ */

static void pieces_add(struct buf *out, enum framer_found found, const struct framer_piece *piece)
{
    buf_char(out, found == FRAMER_RECORD ? 'R' : found == FRAMER_TEXT ? 'T' : 'O');
    buf_text(out, "@%llu:", (unsigned long long)piece->position);
    buf_add(out, piece->data, piece->size);
    buf_char(out, '\0');
}

/* Reads the stream with a cursor only: each chunk is a fresh copy, so that reading past its end is caught, and starts at the
 * last consumed byte. `step` bytes more are brought each time. */
static struct buf pieces_of(const char *data, size_t size, size_t step)
{
    struct buf out = { 0 };
    size_t position = 0, end = 0;
    uint64_t word = 0;
    enum framer_found found;

    do {
        struct framer framer;
        struct framer_piece piece;
        bool final;
        char *chunk;

        end = size - end < step ? size : end + step;
        final = end == size;
        chunk = malloc(end - position + 1);
        memcpy(chunk, data + position, end - position);
        framer_begin(&framer, word, chunk, end - position, position, final, RECORD_MAX);
        do {
            size_t before = framer_consumed(&framer);

            found = framer_next(&framer, &piece);
            assert_true(framer_consumed(&framer) >= before);
            if (found < FRAMER_MORE) {
                assert_true(piece.size > 0);
                assert_true(framer_consumed(&framer) > before);
                assert_memory_equal(data + piece.position, piece.data, piece.size);
                pieces_add(&out, found, &piece);
                /* as if the daemon had died here */
                framer_begin(&framer, framer_word(&framer), framer.data + framer_consumed(&framer),
                             framer.size - framer_consumed(&framer), framer.offset + framer_consumed(&framer), final,
                             RECORD_MAX);
            }
        } while (found < FRAMER_MORE);
        position = framer.offset + framer_consumed(&framer);
        word = framer_word(&framer);
        assert_true(end - position <= RECORD_MAX + 2 * 4096 + step);
        free(chunk);
    } while (found != FRAMER_DONE);
    assert_int_equal(position, size);
    return out;
}

static void assert_same(const struct buf *left, const struct buf *right, const char *data, size_t size, size_t step)
{
    if (left->size == right->size && (left->size == 0 || memcmp(left->data, right->data, left->size) == 0))
        return;
    fprintf(stderr, "step %zu of %zu bytes:\n%.*s\n--- whole:\n", step, size, (int)(size < 4000 ? size : 4000), data);
    for (size_t at = 0; at < left->size; at += strlen(left->data + at) + 1)
        fprintf(stderr, "%.100s\n", left->data + at);
    fprintf(stderr, "--- cut:\n");
    for (size_t at = 0; at < right->size; at += strlen(right->data + at) + 1)
        fprintf(stderr, "%.100s\n", right->data + at);
    fail();
}

static void check_cuts(const char *data, size_t size, struct buf *whole)
{
    static const size_t steps[] = { 1, 2, 3, 7, 64, 1000, 0 };

    for (unsigned i = 0; steps[i] != 0; i++) {
        struct buf cut;

        if (size / steps[i] > 3000)
            continue;
        cut = pieces_of(data, size, steps[i]);
        assert_same(whole, &cut, data, size, steps[i]);
        buf_free(&cut);
    }
}

/* ---- Shapes: input, and its pieces in order; 'R' a record, 'T' text -------------------------------------------- */

struct shape {
    const char *name, *input, *pieces[8];
};

static const struct shape shapes[] = {
    { "nothing", "", { 0 } },
    { "blanks", " \r\n\t\n", { 0 } },
    { "json lines", "{\"a\":1}\n{\"b\":2}\n", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "no final newline", "{\"a\":1}\n{\"b\":2}", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "crlf, bom, blank lines", "\xef\xbb\xbf{\"a\":1}\r\n\r\n{\"b\":2}\r\n", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "concatenated", "{\"a\":1}{\"b\":{\"c\":\"}\"}}", { "R{\"a\":1}", "R{\"b\":{\"c\":\"}\"}}" } },
    { "escapes", "{\"a\":\"\\\"}\\\\\"}{\"b\":\"\\\\\\\"{\"}", { "R{\"a\":\"\\\"}\\\\\"}", "R{\"b\":\"\\\\\\\"{\"}" } },
    { "records", "{\"records\":[{\"a\":1},{\"b\":2}]}", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "records, spread out", " {\n \"records\" :\n [\n\n {\"a\": 1 }\n ,\n {\"b\":2}\n ]\n }\n", { "R{\"a\": 1 }", "R{\"b\":2}" } },
    { "records, not first", "{\"count\":2,\"x\":{\"y\":[1]},\"records\":[{\"a\":1}],\"more\":false}{\"b\":2}", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "empty envelopes", "{\"records\":[]}\n{\"records\":[ ]}\n[]\n", { 0 } },
    { "two arrays in one envelope", "{\"records\":[{\"a\":1}],\"value\":[{\"b\":2}]}", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "records that are none", "{\"records\":[1,2]}{\"records\":\"x\"}", { "R{\"records\":[1,2]}", "R{\"records\":\"x\"}" } },
    { "records deeper down", "{\"p\":{\"records\":[{\"a\":1}]}}", { "R{\"p\":{\"records\":[{\"a\":1}]}}" } },
    { "value", "{\"value\":[{\"a\":1},{\"b\":2}],\"nextLink\":\"https://x/?a={1}\"}", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "value, odata", "{\"@odata.context\":\"c\",\"count\":2,\"value\":[{\"a\":1}]}", { "R{\"a\":1}" } },
    { "value in a record", "{\"time\":\"t\",\"value\":[{\"a\":1}]}", { "R{\"time\":\"t\",\"value\":[{\"a\":1}]}" } },
    { "array", "[{\"a\":1},\n{\"b\":2}]\n", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "nested envelopes", "{\"records\":[{\"records\":[{\"a\":1}]},{\"b\":2}]}{\"c\":3}", { "R{\"a\":1}", "R{\"b\":2}", "R{\"c\":3}" } },
    { "nested too deep for records", "[[[[{\"records\":[{\"a\":1}]}]]]]", { "R{\"records\":[{\"a\":1}]}" } },
    { "envelope per line", "{\"records\":[{\"a\":1}]}\n{\"records\":[{\"b\":2}]}\n", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "array per line", "[{\"a\":1}]\n[{\"b\":2}]\n", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "blocks of a flow log", ",{\"a\":1}\n,{\"b\":2}\n", { "R{\"a\":1}", "R{\"b\":2}" } },
    { "pretty, no indent", "{\n\"a\":\n[\n{\n\"b\":1\n},\n{\n\"c\":2\n}\n]\n}\n{\n\"d\":1\n}", { "R{\n\"a\":\n[\n{\n\"b\":1\n},\n{\n\"c\":2\n}\n]\n}", "R{\n\"d\":1\n}" } },

    { "text lines", "hello\n[INFO] {x}\n{\"a\":1}\n[2026] bye", { "Thello", "T[INFO] {x}", "R{\"a\":1}", "T[2026] bye" } },
    { "array of no objects", "{\"records\":[1]}[\n 218 B blob data\n]\n{\"a\":1}", { "R{\"records\":[1]}", "T218 B blob data", "R{\"a\":1}" } },
    { "scalars among records", "[{\"a\":1},2,[\"x\"],null,{\"b\":2}]", { "R{\"a\":1}", "T2,[\"x\"],null", "R{\"b\":2}" } },
    { "torn in a string", "{\"a\":1,\"b\":\"x\n{\"a\":2}\n", { "T{\"a\":1,\"b\":\"x", "R{\"a\":2}" } },
    { "torn behind a backslash", "{\"a\":1,\"b\":\"x\\\n{\"a\":2}\n", { "T{\"a\":1,\"b\":\"x\\", "R{\"a\":2}" } },
    { "torn behind a colon", "{\"a\":\n{\"a\":2}\n{\"a\":3}\n", { "T{\"a\":", "R{\"a\":2}", "R{\"a\":3}" } },
    { "torn behind a bracket", "{\"a\":[\n{\"a\":2}\n{\"a\":3}\n", { "T{\"a\":[", "R{\"a\":2}", "R{\"a\":3}" } },
    { "torn behind a comma", "{\"a\":1,\n{\"a\":2}\n", { "T{\"a\":1,", "R{\"a\":2}" } },
    { "torn in a word", "{\"a\":fal\r\n{\"a\":2}\r\n", { "T{\"a\":fal", "R{\"a\":2}" } },
    { "torn key", "{\"a\n{\"a\":2}\n", { "T{\"a", "R{\"a\":2}" } },
    { "torn twice, then good", "{\"a\":[\n{\"a\":[\n{\"a\":2}\n{\"a\":3}\n", { "T{\"a\":[", "T{\"a\":[", "R{\"a\":2}", "R{\"a\":3}" } },
    { "torn, and the last line is good", "{\"a\":[\n{\"a\":2}\n", { "T{\"a\":[", "R{\"a\":2}" } },
    { "torn front", "\":1,\"x\":\"y\"}\n{\"a\":2}\n", { "T\":1,\"x\":\"y\"}", "R{\"a\":2}" } },
    { "torn envelope", "{\"records\":[{\"a\":1},{\"a\":\"x\n{\"records\":[{\"a\":2}]}\n{\"a\":3}\n", { "R{\"a\":1}", "T{\"a\":\"x", "R{\"a\":2}", "R{\"a\":3}" } },
    { "envelopes without their ends", "{\"records\":[{\"a\":1}\n{\"records\":[{\"a\":2}\n{\"records\":[{\"a\":3}\n{\"records\":[{\"a\":4}\n"
      "{\"records\":[{\"a\":5}\n{\"records\":[{\"a\":6}\n", { "R{\"a\":1}", "R{\"a\":2}", "R{\"a\":3}", "R{\"a\":4}", "R{\"a\":5}", "R{\"a\":6}" } },
    { "cut off", "{\"a\":1}\n{\"a\":\"x", { "R{\"a\":1}", "T{\"a\":\"x" } },
    { "cut off in an envelope", "{\"records\":[{\"a\":1},{\"a\":{", { "R{\"a\":1}", "T{\"a\":{" } },
    { "an envelope's end is missing", "{\"records\":[{\"a\":1},{\"a\":2}", { "R{\"a\":1}", "R{\"a\":2}" } },
    { "an array's end is missing", "{\"records\":[{\"a\":1},{\"a\":2} }\n}\n", { "R{\"a\":1}", "R{\"a\":2}" } },
    { "dots at the end", "{\"records\":[{\"a\":1}\n,\n...\n", { "R{\"a\":1}", "T..." } },
    { "unescaped quotes in an array", "{\"records\":[{\"t\":1,\"b\":\"{\"Id\":5}\"},{\"t\":2},{\"t\":3}]}\n", { "T{\"t\":1,\"b\":\"{\"Id\":5}\"}", "R{\"t\":2}", "R{\"t\":3}" } },
    { "a brace too few", "{\"records\":[{\"t\":1,\"p\":{\"x\":1},{\"t\":2},{\"t\":3}]}", { "T{\"t\":1,\"p\":{\"x\":1}", "R{\"t\":2}", "R{\"t\":3}" } },
    { "a brace too many", "{\"records\":[{\"t\":1}},{\"t\":2}]}{\"t\":3}", { "R{\"t\":1}", "T}", "R{\"t\":2}", "R{\"t\":3}" } },
    { "a brace too many, lines", "{\"t\":1}}\n{\"t\":2}\n", { "R{\"t\":1}", "T}", "R{\"t\":2}" } },
    { "wrong bracket", "{\"t\":1,\"x\":[1}}\n{\"t\":2}\n", { "T{\"t\":1,\"x\":[1}}", "R{\"t\":2}" } },
    { "string not closed, one line", "[{\"t\":1},{\"t\":2,\"m\":\"oops},{\"t\":3,\"m\":\"fine\"},{\"t\":4}]", { "R{\"t\":1}", "T{\"t\":2,\"m\":\"oops}", "R{\"t\":3,\"m\":\"fine\"}", "R{\"t\":4}" } },
    { "damage between bare objects", "{\"t\":1,\"b\":\"{\"Id\":5}\"}{\"t\":2}\n", { "T{\"t\":1,\"b\":\"{\"Id\":5}\"}", "R{\"t\":2}" } },
    { "trailing commas are for the parser", "{\"a\":[1,],}\n{\"a\":2}", { "R{\"a\":[1,],}", "R{\"a\":2}" } },
    { "raw newline in a pretty object", "  {\n  \"a\": \"x\ny\",\n  \"b\": { \"c\": 1 }\n  }\n", { "T{\n  \"a\": \"x\ny\",\n  \"b\": { \"c\": 1 }\n  }" } },
};

static void test_shapes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *shape = &shapes[i];
        size_t size = strlen(shape->input), at = 0;
        struct buf whole = pieces_of(shape->input, size, size + 1);
        unsigned count = 0;

        for (; at < whole.size; at += strlen(whole.data + at) + 1, count++) {
            const char *expected = shape->pieces[count], *colon = strchr(whole.data + at, ':');

            if (expected == NULL || expected[0] != whole.data[at] || strcmp(expected + 1, colon + 1) != 0)
                fail_msg("%s: piece %u is %s, not %s", shape->name, count, whole.data + at, expected);
        }
        if (shape->pieces[count] != NULL)
            fail_msg("%s: piece %u is missing", shape->name, count);
        check_cuts(shape->input, size, &whole);
        buf_free(&whole);
    }
}

/* ---- A growing PT1H.json ---------------------------------------------------------------------------------------- */

/* Each commit puts `,{…}` where `]}` was. Read at every commit from the cursor alone, with the reader's leftovers dropped. */
static void test_growing_blob(void **state)
{
    char blob[4096] = "{\"records\":[]}";
    uint64_t position = 0, word = 0;
    unsigned seen = 0;

    (void)state;
    for (unsigned commit = 0; commit < 20; commit++) {
        size_t size = strlen(blob);
        struct framer framer;
        struct framer_piece piece;

        framer_begin(&framer, word, blob + position, size - position, position, false, RECORD_MAX);
        while (framer_next(&framer, &piece) == FRAMER_RECORD) {
            char expected[64];

            snprintf(expected, sizeof(expected), "{\"n\":%u,\"x\":{\"y\":[\"%u\"]}}", seen, seen);
            assert_int_equal(piece.size, strlen(expected));
            assert_memory_equal(piece.data, expected, piece.size);
            seen++;
        }
        position += framer_consumed(&framer);
        word = framer_word(&framer);
        assert_int_equal(seen, commit);
        assert_true(position <= size - 2);
        snprintf(blob + size - 2, sizeof(blob) - size, "%s{\"n\":%u,\"x\":{\"y\":[\"%u\"]}}]}%s", commit > 0 ? "," : "", commit,
                 commit, "");
    }
}

/* But a stream of envelopes moves on over the ends of all but the last. */
static void test_ends_are_passed_once_more_follows(void **state)
{
    const char *data = "{\"records\":[{\"a\":1}]}\n[{\"a\":2}]\n{\"a\":";
    struct framer framer;
    struct framer_piece piece;

    (void)state;
    framer_begin(&framer, 0, data, strlen(data), 0, false, RECORD_MAX);
    assert_int_equal(framer_next(&framer, &piece), FRAMER_RECORD);
    assert_int_equal(framer_consumed(&framer), 19);
    assert_int_equal(framer_next(&framer, &piece), FRAMER_RECORD);
    assert_int_equal(framer_next(&framer, &piece), FRAMER_MORE);
    assert_int_equal(framer_consumed(&framer), strlen(data) - 5);
    assert_int_equal(framer_word(&framer), 0);
}

/* ---- Bounds ------------------------------------------------------------------------------------------------------ */

static void test_record_bound_is_exact(void **state)
{
    (void)state;
    for (size_t size = RECORD_MAX - 1; size <= RECORD_MAX + 1; size++) {
        struct buf data = { 0 }, pieces;
        char expected = size > RECORD_MAX ? 'O' : 'R';

        BUF_LITERAL(&data, "[{\"a\":\"");
        while (data.size < size + 1 - 2)
            buf_char(&data, 'x');
        BUF_LITERAL(&data, "\"},{\"b\":1}]");
        pieces = pieces_of(data.data, data.size, data.size + 1);
        assert_int_equal(pieces.data[0], expected);
        assert_string_equal(pieces.data + strlen(pieces.data) + 1 + 7, "{\"b\":1}");
        check_cuts(data.data, data.size, &pieces);
        buf_free(&data);
        buf_free(&pieces);
    }
}

/* Oversize in each way; the record behind it comes out whole, and the memory asked for stays bounded (pieces_of checks). */
static void test_oversize(void **state)
{
    static const struct { const char *before, *filling, *after; const char *expected; } cases[] = {
        { "{\"a\":\"", "x", "\"}\n{\"b\":1}\n", "OR" },
        { "{\"a\":\"", "\\\"", "\"}\n{\"b\":1}\n", "OR" },
        { "{\"a\":\"", "\\\\", "\"}\n{\"b\":1}\n", "OR" },
        { "{\"aa\":\"", "\\\"}", "\"}\n{\"b\":1}\n", "OR" },
        { "{\"a\":[", "{\"x\":[\"]\"]},", "1]}\n{\"b\":1}\n", "OR" },
        { "{\"a\":\"", "x", "\n{\"b\":1}\n", "OR" },
        { "{\"a\":[1", ",1", "\n{\"b\":1}\n", "OR" },
        { "{\"records\":[{\"b\":0},{\"b\":\"", "x", "\"},{\"b\":1}]}\n", "ROR" },
        { "{\"records\":[{\"b\":1}],\"rest\":\"", "x", "\"}\n", "R" },
        { "{\"records\":[{\"b\":1}],\"rest\":[", "[],", "[]]}\n{\"b\":1}", "RR" },
        { "{\"records\":[{\"b\":1}],\"rest\":\"", "x", "\n{\"b\":1}", "RR" },
        { "", "word ", "\n{\"b\":1}\n", "OR" },
        { "{\"records\":[", "1,", "{\"b\":1}]}", "O" },
        { "{\"records\":[{\"b\":1},", "1,", "{\"b\":1}]}", "ROR" },
        { "{\"a\":1 {", "x", "\n{\"b\":1}\n", "OR" },
        { "{\"a\":1 {", "\nx {y", "\n{\"b\":1}\n", "OR" },
        { "{\"b\":1}", " ", "\n{\"b\":1}\n", "RR" },
        { "{\"records\":[]}", "\n", "\n{\"b\":1}\n", "R" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static const size_t sizes[] = { 1500, 2000, 2048, 2100, 9000, 20000 };

        for (size_t j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++) {
            struct buf data = { 0 }, pieces, kinds = { 0 };

            buf_text(&data, "%s", cases[i].before);
            while (data.size < sizes[j])
                buf_text(&data, "%s", cases[i].filling);
            buf_text(&data, "%s", cases[i].after);
            pieces = pieces_of(data.data, data.size, data.size + 1);
            for (size_t at = 0; at < pieces.size; at += strlen(pieces.data + at) + 1)
                buf_char(&kinds, pieces.data[at]);
            buf_char(&kinds, '\0');
            if (sizes[j] > 4096 && strcmp(kinds.data, cases[i].expected) != 0)
                fail_msg("case %zu of %zu bytes: %s, not %s", i, sizes[j], kinds.data, cases[i].expected);
            check_cuts(data.data, data.size, &pieces);
            buf_free(&data);
            buf_free(&pieces);
            buf_free(&kinds);
        }
    }
}

/* Damage about as long as a record may be: wherever the next record begins, it is found. */
static void test_damage_near_the_bound(void **state)
{
    (void)state;
    for (unsigned filling = RECORD_MAX - 300; filling < RECORD_MAX + 50; filling++) {
        struct buf data = { 0 }, pieces;

        BUF_LITERAL(&data, "[{\"b\":0},{\"b\":1 {");
        while (data.size < filling)
            buf_char(&data, 'x');
        BUF_LITERAL(&data, "}  ,  {\"b\":2}\n,]");
        pieces = pieces_of(data.data, data.size, data.size + 1);
        assert_string_equal(pieces.data + pieces.size - 8, "{\"b\":2}");
        check_cuts(data.data, data.size, &pieces);
        buf_free(&data);
        buf_free(&pieces);
    }
}

static void test_depth(void **state)
{
    (void)state;
    for (unsigned depth = FRAMER_DEPTH - 2; depth < FRAMER_DEPTH + 2; depth++) {
        struct buf data = { 0 };
        struct framer framer;
        struct framer_piece piece;

        BUF_LITERAL(&data, "{\"a\":");
        for (unsigned i = 1; i < depth; i++)
            buf_char(&data, '[');
        for (unsigned i = 1; i < depth; i++)
            buf_char(&data, ']');
        BUF_LITERAL(&data, "}\n{\"b\":1}\n");
        framer_begin(&framer, 0, data.data, data.size, 0, true, 1 << 20);
        assert_int_equal(framer_next(&framer, &piece), depth <= FRAMER_DEPTH ? FRAMER_RECORD : FRAMER_TEXT);
        assert_int_equal(framer_next(&framer, &piece), FRAMER_RECORD);
        assert_int_equal(framer_next(&framer, &piece), FRAMER_DONE);
        buf_free(&data);
    }
}

/* What hurts: the work may not grow faster than the input, nor be another order of magnitude than for plain lines. */
static double hostile_seconds(const char *unit, size_t size)
{
    struct buf data = { 0 };
    struct framer framer;
    struct framer_piece piece;
    clock_t begin;
    double seconds;

    buf_reserve(&data, size + strlen(unit));
    while (data.size < size)
        buf_add(&data, unit, strlen(unit));
    begin = clock();
    framer_begin(&framer, 0, data.data, data.size, 0, true, 64 << 20);
    while (framer_next(&framer, &piece) != FRAMER_DONE)
        ;
    seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    buf_free(&data);
    return seconds;
}

static void test_time_is_linear(void **state)
{
    static const char *const units[] = {
        "{\n", "{", "[", "[{", "}", "]", "\"", "{\"", "{\"a\":", "{\"a\":[\n", "{\"a\":[\n{},\n", "{\"a\":[\n{}\n", "{}],\"x\":[\n",
        "{\"a\":\"x\n", "{\"a\"", "{}}", "{\"a\":1}}", "[{\"a\":1,{\"a\"", ",", ",{\"records\":[", "{\"value\":[{", "{\"records\":[\n{\"a\":\n", "{}]\n",
        "{\"records\":[{}],\"x\":[\n", "[{}]x", "{\"a\":\"\\", "x\n", "{\"a\":[\n{\"b\":1},\n{\"c\":[\n{}\n", "{\"a\":1,\"a\":\"{\"a\":", "[{\"a\":[{\"a\":\"x\n",
        "{\"a\":\"0123456789012345678901234567890123456789012345678901234567890123456789\",\"b\":[\n",
    };

    double plain = hostile_seconds("{\"a\":{\"b\":1,\"c\":[1,2,3]},\"d\":{}}\n", 1 << 20);

    (void)state;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        double small = hostile_seconds(units[i], 1 << 18), large = hostile_seconds(units[i], 1 << 20);

        if (large > 10 * small + 0.05 || large > 30 * plain + 0.05)
            fail_msg("%s: %.3f s for 256 KiB, %.3f s for 1 MiB, plain %.3f s", units[i], small, large, plain);
    }
}

/* ---- Any input, any cut ----------------------------------------------------------------------------------------- */

static uint32_t random_next(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static void test_any_cut(void **state)
{
    static const char *const words[] = {
        "{\"records\":[", "{\"value\":[", "]}", "{\"t\":1}", "{\"t\":\"x\"}", ",", "\n", "\n{\"t\":2}", "{\"t\":{\"u\":[1,\"]\"]}}", "[", "]", "{", "}",
        "\"", "\\", ":", "\"t\":", "text", " ", "\r\n", "\xef\xbb\xbf", "...", "{\"t\":\"\\\\\\\"\"}", ",\"nextLink\":\"l\"}", "\xc3\xa9", "{\"t\":[\n", ",{\"t\":",
        "                                                                                                                        ",
        "{\"t\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}",
        "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
    };
    uint32_t seed = 20261122;

    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        struct buf data = { 0 }, whole;
        unsigned length = random_next(&seed) % (round % 10 == 0 ? 120 : 20), kinds = round % 3 == 0 ? 12 : 30;

        for (unsigned i = 0; i < length; i++) {
            const char *word = words[random_next(&seed) % kinds];
            unsigned times = round % 50 == 0 && random_next(&seed) % 8 == 0 ? 40 : 1;

            while (times-- > 0)
                buf_text(&data, "%s", word);
        }
        buf_reserve(&data, 1);
        whole = pieces_of(data.data, data.size, data.size + 1);
        check_cuts(data.data, data.size, &whole);
        buf_free(&whole);
        buf_free(&data);
    }
}

/* Words from a damaged disk: whatever they say, the framer ends. */
static void test_any_word(void **state)
{
    const char *data = "]}\"\\\n{\"a\":1},{\"a\":[\"x\"]}]}\n{\"a\":2}\n";
    uint32_t seed = 7;

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        uint64_t word = (uint64_t)random_next(&seed) << 32 | random_next(&seed);
        struct framer framer;
        struct framer_piece piece;
        unsigned count = 0;

        framer_begin(&framer, word, data, strlen(data), 1000, true, RECORD_MAX);
        while (framer_next(&framer, &piece) != FRAMER_DONE)
            assert_true(++count < 20);
        assert_int_equal(framer_consumed(&framer), strlen(data));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_growing_blob),
        cmocka_unit_test(test_ends_are_passed_once_more_follows),
        cmocka_unit_test(test_record_bound_is_exact),
        cmocka_unit_test(test_oversize),
        cmocka_unit_test(test_damage_near_the_bound),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_time_is_linear),
        cmocka_unit_test(test_any_cut),
        cmocka_unit_test(test_any_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
