/*
 * json.cc - simdjson's DOM, and our own walk over its tape.
 *
 * simdjson parses a text into a tape of 64-bit words (its doc/tape.md): a type letter in the top byte, 56 bits of
 * payload. An object or array holds the index just behind its end, a text an offset into the document's string buffer
 * (length in 4 bytes, then the bytes), a number its value in the next word. A pen_json is a tape and an index into it,
 * so nodes are values, lookups allocate nothing and members are visited by adding to an index. The walk is ours because
 * simdjson's own nodes are C++ objects that would have to be rebuilt at every call through the C face.
 *
 * Numbers beyond 64 bits, NaN and Infinity are refused, and so is the text that holds them: the record then travels as
 * text, whole, rather than with a number that has silently lost digits. Where a key is repeated the first one counts.
 *
 * Nothing throws: simdjson is used through its error codes, and built without exceptions on this side.
 */
#define SIMDJSON_EXCEPTIONS 0
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

extern "C" {                         /* buf.h is plain C */
#include "daemon/record/json.h"
}

#include <simdjson.h>
#include <uv.h>

using simdjson::dom::document;

/* Trees grow in steps, so that a run of slowly growing records does not allocate for each. */
static const size_t STEP_SMALL = 4096, STEP_LARGE = 65536;

struct json {
    simdjson::dom::parser parser;
};

extern "C" {

/* ---- The tree ------------------------------------------------------------------------------------------------- */

struct json *json_new(void)
{
    struct json *json = new (std::nothrow) struct json;

    if (json == NULL)
        abort();
    return json;
}

void json_free(struct json *json)
{
    delete json;
}

static size_t json_capacity(size_t size)
{
    size_t step = size < STEP_LARGE ? STEP_SMALL : STEP_LARGE;

    return (size + step) / step * step;
}

static const char *json_why(simdjson::error_code error)
{
    switch (error) {
    case simdjson::CAPACITY:
        return "the text is too large for one JSON tree";
    case simdjson::DEPTH_ERROR:
        return "it is nested too deep";
    case simdjson::STRING_ERROR:
        return "a string holds a broken escape";
    case simdjson::T_ATOM_ERROR:
    case simdjson::F_ATOM_ERROR:
    case simdjson::N_ATOM_ERROR:
        return "a bare word is none of true, false and null";
    case simdjson::NUMBER_ERROR:
    case simdjson::NUMBER_OUT_OF_RANGE:
        return "a number is malformed or beyond 64 bits";
    case simdjson::UTF8_ERROR:
        return "it is not valid UTF-8";
    case simdjson::EMPTY:
        return "it is empty";
    case simdjson::UNESCAPED_CHARS:
        return "a string holds a raw control character or line break";
    case simdjson::UNCLOSED_STRING:
        return "a string is not closed";
    default:
        return "it is not well-formed JSON (a bracket, comma, colon or quote is missing or too many)";
    }
}

int json_parse(struct json *json, const char *text, size_t size, struct pen_json *root, const char **why)
{
    simdjson::error_code error = simdjson::SUCCESS;

    if (size >= json->parser.capacity() || json->parser.max_depth() != JSON_DEPTH_MAX)
        error = json->parser.allocate(json_capacity(size), JSON_DEPTH_MAX);
    if (!error)
        error = json->parser.parse(text, size, false).error();
    if (error == simdjson::MEMALLOC)
        abort();                     /* as all memory here: see buf.h */
    if (error) {
        *why = json_why(error);
        return UV_EINVAL;
    }
    root->tree = &json->parser.doc;
    root->at = 1;                    /* word 0 is the tape's own root */
    return 0;
}

/* Per byte of text: 8 of tape, 5/3 of strings, 4 of structural indexes; see document::allocate(). */
static size_t json_bytes(size_t capacity)
{
    return capacity == 0 ? 0 : capacity * 14 + JSON_DEPTH_MAX * 16 + 1024;
}

size_t json_held(const struct json *json)
{
    return json_bytes(json->parser.capacity());
}

size_t json_need(size_t size)
{
    return json_bytes(json_capacity(size));
}

void json_shrink(struct json *json, size_t size)
{
    if (json->parser.capacity() <= json_capacity(size))
        return;
    json->~json();
    new (json) struct json;          /* empty; allocates at the next parse */
}

/* ---- Nodes ---------------------------------------------------------------------------------------------------- */

static inline uint64_t tape_word(const void *tree, uint64_t at)
{
    return static_cast<const document *>(tree)->tape[at];
}

static inline char tape_type(uint64_t word)
{
    return (char)(word >> 56);
}

static inline uint64_t tape_payload(uint64_t word)
{
    return word & 0x00FFFFFFFFFFFFFFu;
}

/* Index of the word behind the value at `at`. */
static inline uint64_t tape_after(const void *tree, uint64_t at)
{
    uint64_t word = tape_word(tree, at);

    switch (tape_type(word)) {
    case '{':
    case '[':
        return tape_payload(word) & 0xFFFFFFFFu;    /* above them a count that saturates */
    case 'l':
    case 'u':
    case 'd':
        return at + 2;
    default:
        return at + 1;
    }
}

static inline struct pen_span tape_text(const void *tree, uint64_t at)
{
    const uint8_t *text = static_cast<const document *>(tree)->string_buf.get() + tape_payload(tape_word(tree, at));
    uint32_t size;

    memcpy(&size, text, sizeof(size));
    return { (const char *)text + sizeof(size), size };
}

static inline char node_type(const struct pen_json *node)
{
    return node->tree == NULL ? 0 : tape_type(tape_word(node->tree, node->at));
}

static const struct pen_json missing = { NULL, 0 };

enum pen_json_type pen_json_type(const struct pen_json *node)
{
    switch (node_type(node)) {
    case 'n':
        return PEN_JSON_NULL;
    case 't':
    case 'f':
        return PEN_JSON_BOOL;
    case 'l':
        return PEN_JSON_INT;
    case 'u':
        return PEN_JSON_UINT;
    case 'd':
        return PEN_JSON_REAL;
    case '"':
        return PEN_JSON_TEXT;
    case '[':
        return PEN_JSON_ARRAY;
    case '{':
        return PEN_JSON_OBJECT;
    default:
        return PEN_JSON_MISSING;
    }
}

struct pen_json_iter pen_json_each(const struct pen_json *node)
{
    struct pen_json_iter it = { { NULL, 0 }, missing, node->tree, 0, 0, false };
    char type = node_type(node);

    if (type == '{' || type == '[') {
        it.at = node->at + 1;
        it.end = tape_after(node->tree, node->at) - 1;
        it.object = type == '{';
    }
    return it;
}

bool pen_json_next(struct pen_json_iter *it)
{
    if (it->at >= it->end)
        return false;
    if (it->object)
        it->name = tape_text(it->tree, it->at++);
    it->value = { it->tree, it->at };
    it->at = tape_after(it->tree, it->at);
    return true;
}

/* Compares as bytes; with `fold`, ASCII letters of either case are one. */
static bool name_is(struct pen_span name, const char *wanted, size_t size, bool fold)
{
    if (name.size != size)
        return false;
    return fold ? strncasecmp(name.data, wanted, size) == 0 : memcmp(name.data, wanted, size) == 0;
}

static struct pen_json node_member(const struct pen_json *node, const char *name, size_t size, bool fold)
{
    struct pen_json_iter it = pen_json_each(node);

    if (it.object)
        while (pen_json_next(&it))
            if (name_is(it.name, name, size, fold))
                return it.value;
    return missing;
}

struct pen_json pen_json_get(const struct pen_json *node, const char *name)
{
    return node_member(node, name, strlen(name), false);
}

struct pen_json pen_json_get_nocase(const struct pen_json *node, const char *name)
{
    struct pen_json exact = pen_json_get(node, name);

    return exact.tree != NULL ? exact : node_member(node, name, strlen(name), true);
}

struct pen_json pen_json_path(const struct pen_json *node, const char *path)
{
    struct pen_json at = *node;
    size_t size;

    for (;;) {
        size = strcspn(path, ".");
        at = node_member(&at, path, size, false);
        if (path[size] == '\0')
            return at;
        path += size + 1;
    }
}

struct pen_json pen_json_item(const struct pen_json *node, size_t index)
{
    struct pen_json_iter it = pen_json_each(node);

    while (pen_json_next(&it))
        if (index-- == 0)
            return it.value;
    return missing;
}

size_t pen_json_count(const struct pen_json *node)
{
    struct pen_json_iter it = pen_json_each(node);
    size_t count = 0;

    if (it.end > 0) {                /* the tape has it, up to where it saturates */
        count = tape_payload(tape_word(node->tree, node->at)) >> 32;
        if (count < 0xFFFFFFu)
            return count;
        count = 0;
    }
    while (pen_json_next(&it))
        count++;
    return count;
}

/* ---- Values --------------------------------------------------------------------------------------------------- */

struct pen_span pen_json_value(const struct pen_json *node)
{
    if (node_type(node) != '"')
        return { NULL, 0 };
    return tape_text(node->tree, node->at);
}

struct pen_span pen_json_text(const struct pen_json *node, const char *name)
{
    struct pen_json member = pen_json_get(node, name);

    return pen_json_value(&member);
}

static double node_real(const struct pen_json *node)
{
    uint64_t word = tape_word(node->tree, node->at + 1);
    double value;

    memcpy(&value, &word, sizeof(value));
    return value;
}

/* Exact or not at all: 2^63 itself is out of range. */
static bool real_to_int(double real, int64_t *value)
{
    if (!(real >= -9223372036854775808.0 && real < 9223372036854775808.0) || real != (double)(int64_t)real)
        return false;
    *value = (int64_t)real;
    return true;
}

/* The text as a NUL-terminated number, or NULL: strtod() alone would take blanks, hex, "nan" and "inf". */
static const char *number_text(const struct pen_json *node, char *into, size_t size)
{
    struct pen_span text = pen_json_value(node);

    if (text.size == 0 || text.size >= size)
        return NULL;
    memcpy(into, text.data, text.size);
    into[text.size] = '\0';
    return strspn(into, "0123456789+-.eE") == text.size ? into : NULL;
}

bool pen_json_real(const struct pen_json *node, double *value)
{
    char digits[64], *end;
    const char *text;
    double real;

    switch (node_type(node)) {
    case 'l':
        *value = (double)(int64_t)tape_word(node->tree, node->at + 1);
        return true;
    case 'u':
        *value = (double)tape_word(node->tree, node->at + 1);
        return true;
    case 'd':
        *value = node_real(node);
        return true;
    case '"':
        text = number_text(node, digits, sizeof(digits));
        if (text == NULL)
            return false;
        real = strtod(text, &end);
        if (end == text || *end != '\0' || real - real != 0)    /* the last: overflowed to infinity */
            return false;
        *value = real;
        return true;
    default:
        return false;
    }
}

bool pen_json_int(const struct pen_json *node, int64_t *value)
{
    char digits[64], *end;
    const char *text;
    long long number;
    double real;

    switch (node_type(node)) {
    case 'l':
        *value = (int64_t)tape_word(node->tree, node->at + 1);
        return true;
    case 'd':
        return real_to_int(node_real(node), value);
    case '"':
        text = number_text(node, digits, sizeof(digits));
        if (text == NULL)
            return false;
        errno = 0;
        number = strtoll(text, &end, 10);
        if (end != text && *end == '\0') {
            if (errno == ERANGE)
                return false;
            *value = number;
            return true;
        }
        return pen_json_real(node, &real) && real_to_int(real, value);
    default:
        return false;
    }
}

bool pen_json_bool(const struct pen_json *node, bool *value)
{
    char type = node_type(node);
    struct pen_span text = pen_json_value(node);

    if (type == 't' || name_is(text, "true", 4, true))
        *value = true;
    else if (type == 'f' || name_is(text, "false", 5, true))
        *value = false;
    else
        return false;
    return true;
}

/* ---- Writing -------------------------------------------------------------------------------------------------- */

static void json_write_members(const struct pen_json *node, struct buf *out)
{
    struct pen_json_iter it = pen_json_each(node);
    bool first = true;

    buf_char(out, it.object ? '{' : '[');
    for (; pen_json_next(&it); first = false) {
        if (!first)
            buf_char(out, ',');
        if (it.object) {
            buf_json_string(out, it.name.data, it.name.size);
            buf_char(out, ':');
        }
        json_write(&it.value, out);  /* as deep as the parser lets a text nest: JSON_DEPTH_MAX */
    }
    buf_char(out, it.object ? '}' : ']');
}

void json_write(const struct pen_json *node, struct buf *out)
{
    struct pen_span text;

    switch (node_type(node)) {
    case '{':
    case '[':
        json_write_members(node, out);
        return;
    case '"':
        text = pen_json_value(node);
        buf_json_string(out, text.data, text.size);
        return;
    case 'l':
        buf_int(out, (int64_t)tape_word(node->tree, node->at + 1));
        return;
    case 'u':
        buf_text(out, "%llu", (unsigned long long)tape_word(node->tree, node->at + 1));
        return;
    case 'd':
        buf_real(out, node_real(node));
        return;
    case 't':
        BUF_LITERAL(out, "true");
        return;
    case 'f':
        BUF_LITERAL(out, "false");
        return;
    default:
        BUF_LITERAL(out, "null");    /* a missing node too: what is written must stay JSON */
        return;
    }
}

}
