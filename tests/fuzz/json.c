/*
 * json.c - any text: taken or refused as RFC 8259 has it, every node answers every question, and what is written reads back.
 */
#include "tests/fuzz/fuzz.h"

#include "daemon/record/json.h"

#include <assert.h>
#include <stdlib.h>

static void walk(const struct pen_json *node, unsigned depth)
{
    enum pen_json_type type = pen_json_type(node);
    struct pen_json_iter it = pen_json_each(node);
    struct pen_span text = pen_json_value(node);
    size_t count = 0;
    int64_t number;
    double real;
    bool truth;

    assert(type != PEN_JSON_MISSING && depth <= JSON_DEPTH_MAX);
    assert((text.data != NULL) == (type == PEN_JSON_TEXT));
    assert(!pen_json_real(node, &real) || real - real == 0);
    assert(!pen_json_int(node, &number) || pen_json_real(node, &real));
    (void)pen_json_bool(node, &truth);
    for (; pen_json_next(&it); count++) {
        struct pen_json item = count < 16 ? pen_json_item(node, count) : it.value;

        assert(item.at == it.value.at && it.object == (type == PEN_JSON_OBJECT));
        if (it.object && count < 16) {
            char *name = fuzz_copy(it.name, 1);
            struct pen_json member = pen_json_get(node, name), folded = pen_json_get_nocase(node, name);

            /* By name comes the first of its name; a NUL in the name hides it. */
            assert(strlen(name) < it.name.size || (member.tree != NULL && member.at <= it.value.at));
            assert(member.tree == NULL || folded.at == member.at);
            (void)pen_json_path(node, name);
            (void)pen_json_text(node, name);
            free(name);
        }
        walk(&it.value, depth + 1);
    }
    assert(count == pen_json_count(node));
}

/* 0, and a walk; the text is compared with what the judge says of it. */
static int parse(struct json *json, struct pen_span text, struct pen_json *root)
{
    char *copy = fuzz_copy(text, JSON_PADDING);
    const char *why = NULL;
    int r;

    memset(copy + text.size, '"', JSON_PADDING);   /* "their values do not matter" */
    r = json_parse(json, copy, text.size, root, &why);
    free(copy);
    if (r == 0)
        walk(root, 1);
    else
        assert(why != NULL && (!judge_json(text) || strstr(why, "beyond 64 bits") != NULL));
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct json *json, *again;
    struct pen_span text = { (const char *)data, size };
    struct buf out = { 0 }, second = { 0 };
    struct pen_json root, copy;
    int r;

    if (json == NULL) {
        json = json_new();
        again = json_new();
    }
    r = parse(json, text, &root);
    if (r == 0) {
        assert(judge_json(text));
        json_write(&root, &out);
        assert(judge_json((struct pen_span){ out.data, out.size }));
        assert(judge_line((struct pen_span){ out.data, out.size }, false));
        r = parse(again, (struct pen_span){ out.data, out.size }, &copy);
        assert(r == 0);
        json_write(&copy, &second);
        assert(out.size == second.size && memcmp(out.data, second.data, out.size) == 0);
    }
    buf_free(&out);
    buf_free(&second);
    json_shrink(json, 4096);
    json_shrink(again, 4096);
    return 0;
}
