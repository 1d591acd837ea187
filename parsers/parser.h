/*
 * parser.h - what a Penstock parser is, and everything it may call.
 *
 * A parser is a function from one log record to zero or more events. It does no I/O, has no clock, no globals and no
 * threads; the daemon may call one parser from several workers at once, each with a record and an out of its own.
 * This header is all a user's parser needs: build a shared object that exports pen_parser_v1() and drop it into the
 * plugin folder (`[daemon] plugin_dir`).
 *
 * Ownership: a span set into an event may point into the record, which outlives the call, or into memory that came
 * from pen_out_alloc(), pen_out_copy() or pen_out_text(). What it points at stays as it is: a field changes by being set
 * again, not by writing to its bytes. A parser frees nothing. Functions cope with missing nodes
 * and empty spans, so a parser's body can read like its mapping; a value that is missing sets nothing.
 *
 * Growing: members are added last and may be absent; `size` says how much the plugin was compiled with.
 */
#ifndef PEN_PARSER_H
#define PEN_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PEN_EXPORT __attribute__((visibility("default")))

/* Borrowed bytes, no final NUL. data == NULL: there is none. */
struct pen_span {
    const char *data;
    size_t size;
};

#define PEN_SPAN(literal) ((struct pen_span){ (literal), sizeof(literal) - 1 })

/* A code in libuv's numbering and one sentence, where a human waits. Zero it before use. */
struct pen_error {
    int code;
    char text[512];
};

/* Sets code and sentence (cut to fit) and returns code, so that `return pen_error_set(err, UV_EINVAL, …)` reads well. */
PEN_EXPORT int pen_error_set(struct pen_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- Settings ------------------------------------------------------------------------------------------------- */

enum pen_option_type {
    PEN_TEXT = 1,      /* char *, owned by the configuration */
    PEN_URL,           /* char *, http or https */
    PEN_PATH,          /* char *, absolute */
    PEN_BOOL,          /* bool: yes/no, true/false, on/off, 1/0 */
    PEN_INT,           /* int64_t within min..max */
    PEN_BYTES,         /* uint64_t, accepts K, M, G, T (powers of 1024) */
    PEN_MS,            /* uint32_t milliseconds, accepts ms, s, m, h, d */
    PEN_CHOICE,        /* int: index into choices[] */
    PEN_LIST,          /* struct pen_list: comma separated texts */
    PEN_PAIRS,         /* struct pen_pairs: every key that starts with the row's name, which ends in a dot */
    PEN_SECRET_FILE,   /* char *, the file's path; its content is read with pen_secret_read() when it is needed */
};

struct pen_list {
    const char *const *items;
    size_t count;
};

struct pen_pairs {
    const char *const *keys;   /* without the prefix */
    const char *const *values;
    size_t count;
};

/* One row is one setting: it drives parsing, default, range, the printed configuration and the manual. */
struct pen_option {
    const char *name;
    enum pen_option_type type;
    size_t offset;             /* in the plugin's own struct */
    bool required;
    const char *fallback;      /* default, in the words a user would write; NULL: zero */
    int64_t min, max;          /* for PEN_INT, PEN_BYTES, PEN_MS; both 0: unbounded */
    const char *const *choices;/* for PEN_CHOICE, ends with NULL */
    const char *help;          /* one sentence */
};

struct pen_conf;               /* one section of the configuration file */

/* The section's own name, as in `[sink siem]`: "siem". */
PEN_EXPORT const char *pen_conf_name(const struct pen_conf *conf);
/* Fills the struct at `into` from the section by the rows; 0, or negative with a sentence that names file and line.
 * Texts live as long as the configuration. */
PEN_EXPORT int pen_conf_fill(const struct pen_conf *conf, const struct pen_option *options, void *into,
                             struct pen_error *err);

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

/* A node of a parsed record, by value; a missing node has tree == NULL. Never modify it. */
struct pen_json {
    const void *tree;
    uint64_t at;
};

enum pen_json_type {
    PEN_JSON_MISSING, PEN_JSON_NULL, PEN_JSON_BOOL, PEN_JSON_INT, PEN_JSON_UINT /* > INT64_MAX */, PEN_JSON_REAL,
    PEN_JSON_TEXT, PEN_JSON_ARRAY, PEN_JSON_OBJECT,
};

PEN_EXPORT enum pen_json_type pen_json_type(const struct pen_json *node);
/* The member of that name (the first one, where it is repeated), or missing. _nocase ignores ASCII case, and prefers
 * the exact spelling. _path takes names parted by dots ("identity.claims"). */
PEN_EXPORT struct pen_json pen_json_get(const struct pen_json *node, const char *name);
PEN_EXPORT struct pen_json pen_json_get_nocase(const struct pen_json *node, const char *name);
PEN_EXPORT struct pen_json pen_json_path(const struct pen_json *node, const char *path);
PEN_EXPORT struct pen_json pen_json_item(const struct pen_json *node, size_t index);
/* Member counts cost a walk; use the iterator where you can. */
PEN_EXPORT size_t pen_json_count(const struct pen_json *node);
/* The node's own text (unescaped; valid as long as the record); an empty span with data == NULL where it is no text. */
PEN_EXPORT struct pen_span pen_json_value(const struct pen_json *node);
/* The member's text: pen_json_value(pen_json_get()). */
PEN_EXPORT struct pen_span pen_json_text(const struct pen_json *node, const char *name);
/* Numbers, and texts that hold nothing but one number: Azure writes either. False where it is neither. */
PEN_EXPORT bool pen_json_int(const struct pen_json *node, int64_t *value);
PEN_EXPORT bool pen_json_real(const struct pen_json *node, double *value);
PEN_EXPORT bool pen_json_bool(const struct pen_json *node, bool *value);   /* also "True", "false" */

/* for (it = pen_json_each(&node); pen_json_next(&it);) … it.name (objects only), it.value */
struct pen_json_iter {
    struct pen_span name;
    struct pen_json value;
    const void *tree;
    uint64_t at, end;
    bool object;
};
PEN_EXPORT struct pen_json_iter pen_json_each(const struct pen_json *node);
PEN_EXPORT bool pen_json_next(struct pen_json_iter *it);

/* ---- Records and events --------------------------------------------------------------------------------------- */

struct pen_record {                  /* filled by the daemon, lent for one call */
    struct pen_span raw;             /* the record as it was read */
    const struct pen_json *json;     /* the same, parsed once; NULL where it is not JSON */
    struct pen_span source;          /* where it was read, as named in the config */
    uint64_t received_ms;            /* the daemon's wall clock, ms since 1970; parsers have no other */
    const char *trouble;             /* why `raw` is not JSON (or is damaged); NULL where all is well */
};

/* The kind decides the schema at the far end: ASIM's tables and OCSF's classes. */
enum pen_kind {
    PEN_UNKNOWN = 0,                 /* a record that no parser claims: custom table */
    PEN_NETWORK,                     /* ASIM NetworkSession, OCSF 4001 */
    PEN_AUDIT,                       /* ASIM AuditEvent, OCSF 6003 */
    PEN_ALERT,                       /* ASIM AlertEvent, OCSF 2004 */
    PEN_KINDS
};

/* The fields: one row each in fields.def, enumerated in its order. Rows are only ever added at its end. */
enum pen_field {
#define FIELD(id, type, name, tables, ocsf, ecs, cef) PEN_##id,
#include "fields.def"
#undef FIELD
    PEN_FIELDS
};

struct pen_event;
struct pen_out;

enum pen_parsed {
    PEN_PARSED,                      /* every event of the record was emitted; none is an answer too */
    PEN_PARTLY,                      /* some were; pen_out_blame() said what was wrong with the rest */
    PEN_MALFORMED,                   /* ours and broken; pen_out_blame() said why: travels as unknown */
};

/* A fresh event of that kind, every field unset. One at a time: the next call resets it. After pen_out_emit() its
 * fields stay set, so a parser may change a few and emit again (one flow record, thousands of tuples). */
PEN_EXPORT struct pen_event *pen_out_event(struct pen_out *out, enum pen_kind kind);
/* Emits the event as it stands. Returns PEN_PARSED, or PEN_PARTLY when the event could not be taken (blamed already). */
PEN_EXPORT enum pen_parsed pen_out_emit(struct pen_out *out, struct pen_event *event);
/* True: the daemon has the next event already, from an earlier pass over this record; it counts as emitted and need not be
 * made. A record of thousands of events is parsed once for every room it gets: ask before the work, not after it. */
PEN_EXPORT bool pen_out_skip(struct pen_out *out);
/* What is wrong with the record, for people. The first blame of a record is kept. Name keys and positions in it, never
 * contents: the sentence may reach a log. */
PEN_EXPORT void pen_out_blame(struct pen_out *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Memory that lives until the parse call's events are written. NULL only where size is absurd. */
PEN_EXPORT char *pen_out_alloc(struct pen_out *out, size_t size);
PEN_EXPORT struct pen_span pen_out_copy(struct pen_out *out, struct pen_span span);
PEN_EXPORT struct pen_span pen_out_text(struct pen_out *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The node written as JSON text, for a text field that takes a structure. */
PEN_EXPORT struct pen_span pen_out_json(struct pen_out *out, const struct pen_json *node);
/* Text that itself holds JSON ("[\"Persistence\"]"), parsed; missing where it is none or nests too deep. */
PEN_EXPORT struct pen_json pen_out_parse(struct pen_out *out, struct pen_span text);

/* Setters. True: set. False: nothing was set, because the value is missing (no trouble) or does not fit the field's
 * type; then keep it with pen_add_*(). Empty texts count as missing. */
PEN_EXPORT bool pen_set_text(struct pen_event *event, enum pen_field field, struct pen_span text);
PEN_EXPORT bool pen_set_int(struct pen_event *event, enum pen_field field, int64_t value);
PEN_EXPORT bool pen_set_real(struct pen_event *event, enum pen_field field, double value);
PEN_EXPORT bool pen_set_bool(struct pen_event *event, enum pen_field field, bool value);
/* Times are 100 ns ticks since 1970-01-01 UTC. pen_set_time() reads every form in which Azure writes a time. */
PEN_EXPORT bool pen_set_time(struct pen_event *event, enum pen_field field, struct pen_span text);
PEN_EXPORT bool pen_set_ticks(struct pen_event *event, enum pen_field field, int64_t ticks);
PEN_EXPORT bool pen_set_ip(struct pen_event *event, enum pen_field field, struct pen_span text);
/* Twelve hex digits, with or without separators; kept as aa:bb:cc:dd:ee:ff in the case given. */
PEN_EXPORT bool pen_set_mac(struct pen_event *event, enum pen_field field, struct pen_span text);
PEN_EXPORT bool pen_set_json(struct pen_event *event, enum pen_field field, const struct pen_json *node);
PEN_EXPORT void pen_unset(struct pen_event *event, enum pen_field field);
PEN_EXPORT bool pen_is_set(const struct pen_event *event, enum pen_field field);

/* Takes a member of a node into a field by the field's own type, accepting text where Azure writes text for numbers and
 * the reverse; a value that does not fit is kept under the member's name in the additional fields. True: was set. */
PEN_EXPORT bool pen_take(struct pen_event *event, enum pen_field field, const struct pen_json *node, const char *name);

/* The same for a node at hand; one that does not fit is the caller's to keep. */
PEN_EXPORT bool pen_set_node(struct pen_event *event, enum pen_field field, const struct pen_json *node);

/* Additional fields: what has no column. Names are the source's own. Later ones of the same name win nothing: all are
 * kept, the writer numbers repeats. Cleared by pen_out_event(). */
PEN_EXPORT void pen_add_text(struct pen_event *event, struct pen_span name, struct pen_span text);
PEN_EXPORT void pen_add_int(struct pen_event *event, struct pen_span name, int64_t value);
PEN_EXPORT void pen_add_json(struct pen_event *event, struct pen_span name, const struct pen_json *node);

/* Helpers that parsers of several families need. */
PEN_EXPORT bool pen_span_is(struct pen_span span, const char *text);          /* equal, byte for byte */
PEN_EXPORT bool pen_span_is_nocase(struct pen_span span, const char *text);   /* equal but for ASCII case */
PEN_EXPORT struct pen_span pen_span_trim(struct pen_span span);               /* ASCII blanks at both ends */
PEN_EXPORT bool pen_time_read(struct pen_span text, int64_t *ticks);
PEN_EXPORT bool pen_guid_valid(struct pen_span text);                         /* 8-4-4-4-12 hex digits */
PEN_EXPORT int pen_ip_version(struct pen_span text);                          /* 4, 6, or 0: no address */

/* ---- The plugin ----------------------------------------------------------------------------------------------- */

struct pen_parser {
    uint32_t size;                   /* sizeof(struct pen_parser) where the plugin was compiled */
    const char *name;                /* "nsg-flow": unique, static, used in config and counters */
    const struct pen_option *options;/* ends with an empty entry; may be NULL */
    int  (*open)(void **self, const struct pen_conf *conf, struct pen_error *err);   /* may be NULL */
    bool (*claims)(const struct pen_record *record);               /* by content, cheap, no side effect */
    enum pen_parsed (*parse)(void *self, const struct pen_record *record, struct pen_out *out);
    void (*close)(void *self);       /* accepts NULL; may be NULL */
};

/* The one symbol a shared object exports. */
PEN_EXPORT const struct pen_parser *pen_parser_v1(void);

#ifdef __cplusplus
}
#endif
#endif
