/*
 * settings.c - the rows of the daemon's own settings, and the checks that need more than one row: types, names, routes.
 *
 * Every mistake is reported, none hides another: a section whose `type` is wrong is the only one left unread, because
 * nobody can say which keys it may hold.
 */
#include "daemon/config/settings.h"

#include "daemon/base/log.h"
#include "daemon/config/option.h"
#include "daemon/record/work.h"
#include "daemon/status/web.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const log_levels[] = { "error", "warning", "info", "debug", NULL };
static const char *const spool_uses[] = { [SPOOL_WHEN_NEEDED] = "when-needed", [SPOOL_ALWAYS] = "always", NULL };
static const char *const spool_fulls[] = { [SPOOL_WAIT] = "wait", [SPOOL_DROP_OLDEST] = "drop-oldest", NULL };
const char *const kind_words[] = {
    [PEN_UNKNOWN] = "unknown", [PEN_NETWORK] = "network", [PEN_AUDIT] = "audit", [PEN_ALERT] = "alert",
    [PEN_KINDS] = NULL,
};

#define K (INT64_C(1) << 10)
#define M (INT64_C(1) << 20)
#define T (INT64_C(1) << 40)
#define SECOND 1000
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)

#define AT(member) offsetof(struct daemon_settings, member)
const struct pen_option daemon_options[] = {
    { "state_dir", PEN_PATH, AT(state_dir), .fallback = "/var/lib/penstock",
      .help = "Folder of the cursors, spools and dead letters; a local disk, never a network mount." },
    { "memory", PEN_BYTES, AT(memory), .fallback = "64M", .min = 16 * M, .max = T,
      .help = "Budget for everything in flight; the program itself needs about 16M more." },
    { "workers", PEN_INT, AT(workers), .fallback = "0", .min = 0, .max = 256,
      .help = "Threads that parse and write messages; 0 is one per processor." },
    { "record_max", PEN_BYTES, AT(record_max), .fallback = "4M", .min = 64 * K, .max = 64 * M,
      .help = "Largest record that is parsed; of a larger one the beginning travels as unknown. At most a quarter of "
              "memory." },
    { "plugin_dir", PEN_PATH, AT(plugin_dir),
      .help = "Folder of further parsers, one shared object each; it must belong to root." },
    { "key_file", PEN_SECRET_FILE, AT(key_file),
      .help = "File of the keys that the spools are encrypted with, one a line, 32 bytes each as hexadecimal digits or "
              "base64; the last one writes, all of them read." },
    { "log_level", PEN_CHOICE, AT(log_level), .fallback = "info", .choices = log_levels,
      .help = "Least important lines that are logged." },
    { "cursor_save", PEN_MS, AT(cursor_save_ms), .fallback = "1s", .min = 10, .max = 5 * MINUTE,
      .help = "Cursors are saved at most this often; what lies between is read again after a crash." },
    { "stop_wait", PEN_MS, AT(stop_ms), .fallback = "8s", .min = 100, .max = 10 * MINUTE,
      .help = "Time that batches in flight get at stop before they are spooled, and each step of a reload; keep the unit's "
              "TimeoutStopSec above it." },
    { "listen", PEN_TEXT, AT(listen),
      .help = "Address and port of the status page, metrics and health, such as 127.0.0.1:9101; without it there is none. It is "
              "read-only and asks for no password: anyone who reaches it may look." },
    { "listen_names", PEN_LIST, AT(listen_names),
      .help = "Host names and addresses under which it may be asked, beside the loopback's own. Needed beyond loopback: a browser "
              "that was led here under any other name is sent away." },
    { "stalled_after", PEN_MS, AT(stalled_after_ms), .fallback = "5m", .min = 0, .max = 24 * HOUR,
      .help = "The daemon is no longer ready (/readyz) when a source or sink has stood still for so long although it has something "
              "to do; 0 never." },
    { 0 }
};
#undef AT

#define AT(member) offsetof(struct source_settings, member)
const struct pen_option source_options[] = {
    { "type", PEN_TEXT, AT(type_name), .required = true, .help = "What kind of place this is." },
    { "parser", PEN_TEXT, AT(parser), .fallback = "auto",
      .help = "Parser for every record, or auto: each record finds its own by its content." },
    { 0 }
};
#undef AT

#define AT(member) offsetof(struct sink_settings, member)
const struct pen_option sink_options[] = {
    { "type", PEN_TEXT, AT(type_name), .required = true, .help = "What kind of far end this is." },
    { "schema", PEN_TEXT, AT(schema), .help = "How events are written; without it the first one that the type takes." },
    { "sources", PEN_LIST, AT(sources), .help = "Names of the sources whose events go here; empty is all." },
    { "events", PEN_LIST, AT(events),
      .help = "Kinds of events that go here, of network, audit, alert, unknown; empty is all. Others are dropped and "
              "counted." },
    { "flush", PEN_MS, AT(flush_ms), .fallback = "2s", .min = 10, .max = HOUR,
      .help = "A batch is sealed when its oldest message is this old; where it could not be sent yet, it goes on filling up to "
              "spool_after." },
    { "spool", PEN_CHOICE, AT(spool), .fallback = "when-needed", .choices = spool_uses,
      .help = "Whether batches go to disk only when the far end cannot take them, or always, for sources that forget." },
    { "spool_max", PEN_BYTES, AT(spool_max), .fallback = "4G", .min = M, .max = 1024 * T,
      .help = "Cap of this sink's spool in whole blocks of the disk, its folder included; at least two batches." },
    { "spool_full", PEN_CHOICE, AT(spool_full), .fallback = "wait", .choices = spool_fulls,
      .help = "At the cap the sources wait, or the oldest batches are dropped and counted." },
    { "spool_after", PEN_MS, AT(spool_after_ms), .fallback = "5s", .min = 0, .max = HOUR,
      .help = "A sealed batch that could not be submitted for this long goes to disk." },
    { "spool_compress", PEN_BOOL, AT(spool_compress), .fallback = "yes", .help = "Compress the spool with zstd." },
    { "dead_max", PEN_BYTES, AT(dead_max), .fallback = "1G", .min = M, .max = 1024 * T,
      .help = "Cap of this sink's dead letters on disk; at the cap nothing more is sent until some are resent or dropped." },
    { "dead_in_a_row", PEN_INT, AT(dead_in_a_row), .fallback = "16", .min = 0, .max = 1000000,
      .help = "So many messages rejected one after the other look like a wrong setting: from there on they are tried slowly, "
              "one by one, until one is delivered; 0 lets them all go to the dead letters at once." },
    { "retry_min", PEN_MS, AT(retry_min_ms), .fallback = "1s", .min = 10, .max = HOUR,
      .help = "First wait after the far end could not take a batch; it doubles with each try." },
    { "retry_max", PEN_MS, AT(retry_max_ms), .fallback = "60s", .min = 10, .max = HOUR,
      .help = "Longest wait between tries; a far end that names a time is obeyed up to ten times this." },
    { 0 }
};
#undef AT

int settings_log_level(const struct settings *settings)
{
    static const enum log_level levels[] = { LOG_ERROR, LOG_WARN, LOG_NOTE, LOG_TRACE };

    return (int)levels[settings->daemon.log_level];
}

/* Reports a word that is none of the names, with the nearest one. */
static void word_refuse(struct pen_conf *section, const char *key, const char *what, const char *word,
                        const char *const *names)
{
    const char *near = conf_nearest(word, names);
    struct buf all = { 0 };

    for (size_t i = 0; names[i] != NULL; i++)
        buf_text(&all, "%s%s", i == 0 ? "" : ", ", names[i]);
    if (near != NULL)
        conf_mistake(section, key, "\"%s\": expected %s, found \"%.64s\"; did you mean \"%s\"?", key, what, word, near);
    else
        conf_mistake(section, key, "\"%s\": expected %s (%.*s), found \"%.64s\"", key, what, (int)all.size,
                     all.size > 0 ? all.data : "", word);
    buf_free(&all);
}

/* Index of the word among the names, or -1. */
static int word_index(const char *word, const char *const *names)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(word, names[i]) == 0)
            return i;
    }
    return -1;
}

/* ---- [daemon] ---- */

/* Beyond loopback nobody should get by accident: the names are what says that it is meant. */
static void daemon_check_listen(const struct daemon_settings *daemon, struct pen_conf *section)
{
    struct sockaddr_storage address;
    struct pen_error err = { 0 };

    if (daemon->listen == NULL || *daemon->listen == '\0')
        return;
    if (web_address_read(daemon->listen, &address, &err) < 0)
        conf_mistake(section, "listen", "\"listen\": %s", err.text);
    else if (!web_address_is_loopback(&address) && daemon->listen_names.count == 0)
        conf_mistake(section, "listen", "\"listen\": this address can be reached from other machines, and whoever reaches it may "
                     "look: if that is meant, name in \"listen_names\" under which names or addresses");
}

static void daemon_read(struct settings *settings)
{
    struct pen_conf *section = conf_section(settings->conf, CONF_DAEMON, 0);
    const struct pen_option *const tables[] = { daemon_options };
    void *const intos[] = { &settings->daemon };
    struct daemon_settings *daemon = &settings->daemon;

    (void)conf_fill(section, tables, intos, 1);
    if (daemon->memory > 0 && daemon->record_max > daemon->memory / 4)
        conf_mistake(section, "record_max", "\"record_max\": expected at most a quarter of \"memory\", which is %lluM",
                     (unsigned long long)(daemon->memory / M));
    daemon_check_listen(daemon, section);
}

/* ---- Types ---- */

#define TYPES_MAX 16

static size_t source_type_names(const char *names[TYPES_MAX + 1])
{
    size_t count = 0;

    for (; source_types[count] != NULL && count < TYPES_MAX; count++)
        names[count] = source_types[count]->name;
    names[count] = NULL;
    return count;
}

static size_t sink_type_names(const char *names[TYPES_MAX + 1])
{
    size_t count = 0;

    for (; sink_types[count] != NULL && count < TYPES_MAX; count++)
        names[count] = sink_types[count]->name;
    names[count] = NULL;
    return count;
}

/* Which of the names the section's type is; -1: none, and reported. */
static int type_read(struct pen_conf *section, const char *what, const char *const *names)
{
    const char *word = conf_value(section, "type");
    int type = word != NULL ? word_index(word, names) : -1;

    if (word == NULL)
        conf_mistake(section, "type", "this %s needs a \"type\"", what);
    else if (type < 0)
        word_refuse(section, "type", "a known type", word, names);
    return type;
}

/* Fills by the common rows, and tries the plugin's own on memory that nobody keeps: its open() reads them again. A row that
 * was refused is zero, and the checks that follow leave it alone. */
static void rows_read(struct pen_conf *section, const struct pen_option *common, void *into,
                          const struct pen_option *own)
{
    const struct pen_option *const tables[] = { common, own };
    void *trial = calloc(1, option_extent(own) + 1);
    void *const intos[] = { into, trial };

    assert(trial != NULL);
    (void)conf_fill(section, tables, intos, 2);
    free(trial);
}

/* ---- [source NAME] ---- */

/* With a plugin folder the names are only known when it is opened; then work_plan_open() judges. */
static void source_check_parser(const struct settings *settings, const struct source_settings *source)
{
    const char *names[64] = { "auto" };
    size_t count;

    if (settings->daemon.plugin_dir != NULL || source->parser == NULL)
        return;
    for (count = 1; builtin_parsers[count - 1] != NULL && count < 63; count++)
        names[count] = builtin_parsers[count - 1]->name;
    names[count] = NULL;
    if (word_index(source->parser, names) < 0)
        word_refuse(source->section, "parser", "a parser", source->parser, names);
}

/* Only where the rows are right: a type's own proof may count on them. */
static void type_prove(struct pen_conf *section, int (*prove)(const struct pen_conf *conf, struct pen_error *err))
{
    struct pen_error err = { 0 };
    char *key;

    if (prove == NULL || !conf_section_whole(section) || prove(section, &err) == 0)
        return;
    key = strndup(err.text, strcspn(err.text, ": "));
    assert(key != NULL);
    conf_mistake(section, key, "%s", err.text);
    free(key);
}

static void source_read(struct settings *settings, struct pen_conf *section)
{
    const unsigned mistakes = conf_mistakes(settings->conf);
    struct source_settings *source = &settings->sources[settings->source_count];
    const char *names[TYPES_MAX + 1];
    int type;

    source->section = section;
    source->name = pen_conf_name(section);
    settings->source_count++;        /* even where it is wrong: sinks may name it */
    source_type_names(names);
    type = type_read(section, "source", names);
    if (type < 0)
        return;
    source->type = source_types[type];
    rows_read(section, source_options, source, source->type->options);
    source_check_parser(settings, source);
    if (conf_mistakes(settings->conf) == mistakes)
        type_prove(section, source->type->prove);
}

static void sources_read(struct settings *settings)
{
    struct pen_conf *section;

    while ((section = conf_section(settings->conf, CONF_SOURCE, settings->source_count)) != NULL) {
        if (settings->source_count == SETTINGS_SOURCES_MAX) {
            conf_mistake(section, "", "expected at most %d sources", SETTINGS_SOURCES_MAX);
            return;
        }
        source_read(settings, section);
    }
}

/* ---- [sink NAME] ---- */

static void sink_read_sources(const struct settings *settings, struct sink_settings *sink)
{
    const char *names[SETTINGS_SOURCES_MAX + 1];
    unsigned i;
    int source;

    for (i = 0; i < settings->source_count; i++)
        names[i] = settings->sources[i].name;
    names[i] = NULL;
    for (i = 0; i < settings->source_count && sink->sources.count == 0; i++)
        sink->source_mask[i / 64] |= UINT64_C(1) << i % 64;
    for (i = 0; i < sink->sources.count; i++) {
        source = word_index(sink->sources.items[i], names);
        if (source < 0)
            word_refuse(sink->section, "sources", "names of sources", sink->sources.items[i], names);
        else
            sink->source_mask[source / 64] |= UINT64_C(1) << source % 64;
    }
}

static void sink_read_events(struct sink_settings *sink)
{
    int kind;

    if (sink->events.count == 0)
        sink->kind_mask = (1U << PEN_KINDS) - 1;
    for (size_t i = 0; i < sink->events.count; i++) {
        kind = word_index(sink->events.items[i], kind_words);
        if (kind < 0)
            word_refuse(sink->section, "events", "kinds of events", sink->events.items[i], kind_words);
        else
            sink->kind_mask |= 1U << kind;
    }
}

/* A batch with its index, and a segment around it: a spool that takes none of them would be no spool. */
static void sink_check_spool(const struct sink_settings *sink)
{
    const struct pen_option *row = sink->type->options;
    struct pen_option rows[2] = { 0 };
    struct pen_error err = { 0 };
    uint64_t batch_bytes = 0;

    while (row != NULL && row->name != NULL && strcmp(row->name, "batch_bytes") != 0)
        row++;
    if (row == NULL || row->name == NULL)
        return;
    rows[0] = *row;
    rows[0].offset = 0;
    if (pen_conf_fill(sink->section, rows, &batch_bytes, &err) == 0 && sink->spool_max < 2 * batch_bytes)
        conf_mistake(sink->section, "spool_max", "\"spool_max\": expected at least twice \"batch_bytes\", which is %llu: the "
                     "spool must have room for a batch", (unsigned long long)batch_bytes);
}

static void sink_read(struct settings *settings, struct pen_conf *section)
{
    const unsigned mistakes = conf_mistakes(settings->conf);
    struct sink_settings *sink = &settings->sinks[settings->sink_count];
    const char *names[TYPES_MAX + 1];
    int type;

    sink->section = section;
    sink->name = pen_conf_name(section);
    settings->sink_count++;
    sink_type_names(names);
    type = type_read(section, "sink", names);
    if (type < 0)
        return;
    sink->type = sink_types[type];
    rows_read(section, sink_options, sink, sink->type->options);
    if (sink->schema != NULL && word_index(sink->schema, sink->type->schemas) < 0)
        word_refuse(section, "schema", "a schema of this sink", sink->schema, sink->type->schemas);
    if (sink->retry_max_ms > 0 && sink->retry_min_ms > sink->retry_max_ms)
        conf_mistake(section, "retry_min", "\"retry_min\": expected no more than \"retry_max\"");
    sink_read_sources(settings, sink);
    sink_read_events(sink);
    if (conf_mistakes(settings->conf) == mistakes)
        sink_check_spool(sink);
    if (conf_mistakes(settings->conf) == mistakes)
        type_prove(sink->section, sink->type->prove);
}

static void sinks_read(struct settings *settings)
{
    struct pen_conf *section;

    while ((section = conf_section(settings->conf, CONF_SINK, settings->sink_count)) != NULL) {
        if (settings->sink_count == SETTINGS_SINKS_MAX) {
            conf_mistake(section, "", "expected at most %d sinks", SETTINGS_SINKS_MAX);
            return;
        }
        sink_read(settings, section);
    }
}

/* ---- All of it ---- */

static void settings_check_ends(const struct settings *settings)
{
    struct pen_conf *daemon = conf_section(settings->conf, CONF_DAEMON, 0);

    if (settings->source_count == 0)
        conf_mistake(daemon, "", "expected at least one [source NAME]: there is nothing to read");
    if (settings->sink_count == 0)
        conf_mistake(daemon, "", "expected at least one [sink NAME]: there is nowhere to deliver");
}

/* Its records would be read, and forgotten: nobody means that. */
static void settings_check_routes(const struct settings *settings)
{
    bool taken;

    for (unsigned i = 0; i < settings->source_count; i++) {
        taken = false;
        for (unsigned n = 0; n < settings->sink_count; n++)
            taken = taken || (settings->sinks[n].source_mask[i / 64] >> i % 64 & 1) != 0;
        if (!taken)
            conf_mistake(settings->sources[i].section, "", "no sink takes what is read here: name %s in the `sources` of one",
                         settings->sources[i].name);
    }
}

int settings_read(struct settings **ret, const char *path, conf_report report, void *arg, struct pen_error *err)
{
    struct settings *settings = calloc(1, sizeof(*settings));
    unsigned mistakes;
    int r;

    if (settings == NULL)
        return pen_error_set(err, UV_ENOMEM, "out of memory");
    settings->holders = 1;
    r = conf_read(&settings->conf, path, report, arg, err);
    if (r < 0)
        goto fail;
    daemon_read(settings);
    sources_read(settings);
    sinks_read(settings);
    settings_check_ends(settings);
    if (conf_mistakes(settings->conf) == 0)
        settings_check_routes(settings);
    mistakes = conf_mistakes(settings->conf);
    if (mistakes > 0) {
        r = pen_error_set(err, UV_EINVAL, "%u mistake%s in %s", mistakes, mistakes == 1 ? "" : "s", path);
        goto fail;
    }
    *ret = settings;
    return 0;
fail:
    settings_free(settings);
    return r;
}

static void report_nothing(void *arg, const char *file, unsigned line, const char *sentence)
{
    (void)arg, (void)file, (void)line, (void)sentence;
}

int settings_state_dir(char **ret, const char *path, struct pen_error *err)
{
    const struct pen_option *const tables[] = { daemon_options };
    struct daemon_settings daemon = { 0 };
    void *const intos[] = { &daemon };
    struct conf *conf;
    int r = conf_read(&conf, path, report_nothing, NULL, err);

    if (r < 0)
        return r;
    (void)conf_fill(conf_section(conf, CONF_DAEMON, 0), tables, intos, 1);
    if (daemon.state_dir == NULL)
        r = pen_error_set(err, UV_EINVAL, "%s: \"state_dir\" cannot be used; `penstock check` says why", path);
    else if ((*ret = strdup(daemon.state_dir)) == NULL)
        abort();
    conf_free(conf);
    return r;
}

static int replay_keep_sink(struct settings *settings, const char *sink, struct pen_error *err)
{
    unsigned i;

    for (i = 0; i < settings->sink_count && strcmp(settings->sinks[i].name, sink) != 0; i++)
        ;
    if (i == settings->sink_count)
        return pen_error_set(err, UV_EINVAL, "there is no sink %s in the configuration", sink);
    settings->sinks[0] = settings->sinks[i];
    settings->sink_count = 1;
    return 0;
}

const struct source_settings *settings_source(const struct settings *settings, const char *name)
{
    for (unsigned i = 0; i < settings->source_count; i++)
        if (strcmp(settings->sources[i].name, name) == 0)
            return &settings->sources[i];
    return NULL;
}

/* The configured source moves to place `to`, and with it who takes it: masks are the new ones, settings->sinks' the old. */
static int replay_keep_source(struct settings *settings, const struct settings *all, const char *name, struct pen_error *err)
{
    const struct source_settings *source = settings_source(all, name);
    unsigned to = settings->source_count, from;

    if (source == NULL)
        return pen_error_set(err, UV_EINVAL, "there is no source %s in the configuration", name);
    if (source->type->progress == NULL)
        return pen_error_set(err, UV_EINVAL, "source %s: a %s keeps no archive that could be replayed; give the files or the container "
                             "that hold one", name, source->type->name);
    from = (unsigned)(source - all->sources);
    settings->sources[to] = *source;
    settings->source_count++;
    for (unsigned i = 0; i < settings->sink_count; i++)
        if (all->sinks[i].source_mask[from / 64] >> from % 64 & 1)
            settings->sinks[i].source_mask[to / 64] |= UINT64_C(1) << to % 64;
    return 0;
}

static int replay_add_paths(struct settings *settings, const struct settings_replay *replay, struct pen_error *err)
{
    struct pen_conf *section = conf_section_make(settings->conf, CONF_SOURCE, "replay");
    unsigned to = settings->source_count;
    struct buf list = { 0 };

    for (size_t i = 0; i < replay->path_count; i++) {
        if (strchr(replay->paths[i], ',') != NULL) {
            buf_free(&list);
            return pen_error_set(err, UV_EINVAL, "%s: a path with a comma cannot be replayed; rename it or name its folder",
                                 replay->paths[i]);
        }
        buf_text(&list, "%s%s", i == 0 ? "" : ",", replay->paths[i]);
    }
    buf_char(&list, '\0');
    conf_section_put(section, "type", "file");
    conf_section_put(section, "parser", replay->parser);
    conf_section_put(section, "path", list.data);
    buf_free(&list);
    source_read(settings, section);
    for (unsigned i = 0; i < settings->sink_count; i++)
        settings->sinks[i].source_mask[to / 64] |= UINT64_C(1) << to % 64;
    return conf_mistakes(settings->conf) > 0 ? pen_error_set(err, UV_EINVAL, "these paths cannot be replayed") : 0;
}

int settings_replay(struct settings *settings, const struct settings_replay *replay, struct pen_error *err)
{
    struct settings *all;
    int r = replay->sink != NULL ? replay_keep_sink(settings, replay->sink, err) : 0;

    if (r < 0)
        return r;
    all = malloc(sizeof(*all));
    if (all == NULL)
        abort();
    *all = *settings;
    memset(settings->sources, 0, sizeof(settings->sources));
    settings->source_count = 0;
    for (unsigned i = 0; i < settings->sink_count; i++)
        memset(settings->sinks[i].source_mask, 0, sizeof(settings->sinks[i].source_mask));
    for (size_t i = 0; i < replay->source_count && r == 0; i++)
        r = replay_keep_source(settings, all, replay->sources[i], err);
    if (r == 0 && replay->path_count > 0)
        r = replay_add_paths(settings, replay, err);
    free(all);
    return r;
}

void settings_free(struct settings *settings)
{
    if (settings == NULL || --settings->holders > 0)
        return;
    conf_free(settings->conf);
    free(settings);
}

struct settings *settings_share(struct settings *settings)
{
    settings->holders++;
    return settings;
}

const char *settings_schema(const struct sink_settings *sink)
{
    return sink->schema != NULL ? sink->schema : sink->type->schemas[0];
}
