/*
 * What the tests of the parsers share: a record goes through the parsers in the daemon's order, and what came out is
 * read as text, one line "Name=value" per field, "+name=value" per additional field, "--" after each event.
 */
#ifndef TESTS_PARSERS_H
#define TESTS_PARSERS_H

#include "daemon/record/event.h"
#include "parsers/builtin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct pen_parser *const all_parsers[] = {
    &nsg_flow_parser, &vnet_flow_parser, &activity_log_parser, &defender_alert_parser, &unknown_parser,
};

static const char *const kind_names[] = { "unknown", "network", "audit", "alert" };

#define RECEIVED_MS UINT64_C(1790000000000)        /* 2026-09-21T14:13:20Z */

struct parsed {
    struct buf text;                 /* NUL-terminated */
    size_t events;
    enum pen_parsed result;
    const char *parser;
    unsigned claims;                 /* parsers but `unknown` that claimed it */
    char blame[256];
};

static void dump_value(struct buf *text, enum field_type type, const union value *value)
{
    switch (type) {
    case FIELD_TEXT:
    case FIELD_IP:
    case FIELD_MAC:
        buf_add(text, value->text.data, value->text.size);
        break;
    case FIELD_INT:
    case FIELD_LONG:
    case FIELD_BOOL:
        buf_int(text, value->number);
        break;
    case FIELD_REAL:
        buf_real(text, value->real);
        break;
    case FIELD_TIME:
        buf_time(text, value->number);
        break;
    case FIELD_JSON:
        json_write(&value->json, text);
        break;
    }
    buf_char(text, '\n');
}

static bool on_parsed_event(void *arg, const struct pen_event *event, uint64_t ordinal)
{
    struct parsed *parsed = arg;

    assert_int_equal(ordinal, parsed->events);
    parsed->events++;
    buf_text(&parsed->text, "kind=%s\n", kind_names[event->kind]);
    for (int field = 0; field < PEN_FIELDS; field++) {
        if (!event_has(event, (enum pen_field)field))
            continue;
        buf_text(&parsed->text, "%s=", fields[field].name);
        dump_value(&parsed->text, fields[field].type, &event->values[field]);
    }
    for (uint32_t i = 0; i < event->extra_count; i++) {
        buf_char(&parsed->text, '+');
        buf_add(&parsed->text, event->extras[i].name.data, event->extras[i].name.size);
        buf_char(&parsed->text, '=');
        dump_value(&parsed->text, event->extras[i].type, &event->extras[i].value);
    }
    BUF_LITERAL(&parsed->text, "--\n");
    return true;
}

/* As the daemon does it: the first parser that claims the record; `unknown` for what is not JSON or was refused. */
static struct parsed parse_bytes(const char *data, size_t size)
{
    struct parsed parsed = { 0 };
    struct pen_out *out = out_new(on_parsed_event, &parsed);
    struct json *json = json_new();
    char *padded = calloc(1, size + JSON_PADDING);
    struct pen_json root;
    struct pen_record record = { .raw = { padded, size }, .source = PEN_SPAN("test"), .received_ms = RECEIVED_MS };
    const struct pen_parser *parser = NULL;

    assert_non_null(padded);
    memcpy(padded, data, size);
    if (json_parse(json, padded, size, &root, &record.trouble) == 0) {
        record.json = &root;
        record.trouble = NULL;
    }
    for (size_t i = 0; i < sizeof(all_parsers) / sizeof(*all_parsers); i++) {
        if (!all_parsers[i]->claims(&record))
            continue;
        parser = parser == NULL ? all_parsers[i] : parser;
        parsed.claims += all_parsers[i] != &unknown_parser;
    }
    parsed.parser = parser->name;
    out_begin(out, 0);
    parsed.result = parser->parse(NULL, &record, out);
    snprintf(parsed.blame, sizeof(parsed.blame), "%s", out->blame);
    if (parsed.result == PEN_MALFORMED) {
        assert_int_equal(parsed.events, 0);
        record.trouble = parsed.blame;
        out_begin(out, 0);
        unknown_parser.parse(NULL, &record, out);
    }
    assert_true((parsed.result == PEN_PARSED) == (parsed.blame[0] == '\0'));
    assert_true(parsed.claims <= 1);
    buf_char(&parsed.text, '\0');
    free(padded);
    json_free(json);
    out_free(out);
    return parsed;
}

static inline struct parsed parse_text(const char *text)
{
    return parse_bytes(text, strlen(text));
}

static inline void parsed_free(struct parsed *parsed)
{
    buf_free(&parsed->text);
}

/* Whether the dump has this line, whole. */
static inline bool has_line(const struct parsed *parsed, const char *line)
{
    size_t size = strlen(line);
    const char *at = parsed->text.data;

    for (; (at = strstr(at, line)) != NULL; at++)
        if ((at == parsed->text.data || at[-1] == '\n') && at[size] == '\n')
            return true;
    return false;
}

static inline void assert_line(const struct parsed *parsed, const char *line)
{
    if (!has_line(parsed, line))
        fail_msg("no line \"%s\" in:\n%s", line, parsed->text.data);
}

static inline void assert_no_line(const struct parsed *parsed, const char *begin)
{
    char needle[128];

    snprintf(needle, sizeof(needle), "\n%s", begin);
    if (strstr(parsed->text.data, needle) != NULL)
        fail_msg("\"%s\" in:\n%s", begin, parsed->text.data);
}

/* Parses one record and asserts the lines, which end with NULL; a line that begins with "!" must not begin one. */
static inline void expect(const char *record, const char *parser, const char *const *lines)
{
    struct parsed parsed = parse_text(record);

    if (strcmp(parsed.parser, parser) != 0)
        fail_msg("%s claimed %s", parsed.parser, record);
    for (; *lines != NULL; lines++) {
        if ((*lines)[0] == '!')
            assert_no_line(&parsed, *lines + 1);
        else
            assert_line(&parsed, *lines);
    }
    parsed_free(&parsed);
}

#define EXPECT(record, parser, ...) expect((record), (parser), (const char *const[]){ __VA_ARGS__, NULL })

/* ---- Samples -------------------------------------------------------------------------------------------------- */

static inline struct buf file_read(const char *path)
{
    struct buf buf = { 0 };
    FILE *file = fopen(path, "rb");
    size_t got;

    if (file == NULL)
        fail_msg("cannot open %s", path);
    do {
        buf_reserve(&buf, 65536);
        got = fread(buf.data + buf.size, 1, 65536, file);
        buf.size += got;
    } while (got > 0);
    fclose(file);
    return buf;
}

typedef void (*on_sample)(void *arg, const char *path, struct parsed *parsed);

static inline void sample_visit(const char *path, const struct pen_json *node, on_sample visit, void *arg)
{
    struct pen_json list = *node;
    struct pen_json_iter it;
    struct buf text = { 0 };
    struct parsed parsed;

    if (pen_json_type(node) == PEN_JSON_OBJECT) {
        list = pen_json_get(node, "records");
        if (list.tree == NULL)
            list = pen_json_get(node, "value");
    }
    if (pen_json_type(&list) == PEN_JSON_ARRAY) {
        for (it = pen_json_each(&list); pen_json_next(&it);)
            sample_visit(path, &it.value, visit, arg);
        return;
    }
    json_write(node, &text);
    parsed = parse_bytes(text.data, text.size);
    visit(arg, path, &parsed);
    parsed_free(&parsed);
    buf_free(&text);
}

/* Every record of a file: JSON of any of the envelopes, or JSON lines; what is not JSON goes through as it is. */
static inline void sample_each(const char *path, on_sample visit, void *arg)
{
    struct buf file = file_read(path);
    struct json *json = json_new();
    struct parsed parsed;
    struct pen_json root;
    const char *why;
    size_t at = 0;

    buf_reserve(&file, JSON_PADDING);
    if (json_parse(json, file.data, file.size, &root, &why) == 0) {
        sample_visit(path, &root, visit, arg);
        at = file.size;
    }
    while (at < file.size) {
        const char *end = memchr(file.data + at, '\n', file.size - at);
        size_t size = end != NULL ? (size_t)(end - file.data) - at : file.size - at;

        if (size > 0 && json_parse(json, file.data + at, size, &root, &why) != 0) {
            parsed = parse_bytes(file.data, file.size);
            visit(arg, path, &parsed);
            parsed_free(&parsed);
            break;
        }
        if (size > 0)
            sample_visit(path, &root, visit, arg);
        at += size + 1;
    }
    buf_free(&file);
    json_free(json);
}

#endif
