/*
 * settings.h - the whole configuration, read and checked, as the daemon uses it: what `check` proves and `run` runs.
 */
#ifndef DAEMON_SETTINGS_H
#define DAEMON_SETTINGS_H

#include "daemon/config/conf.h"
#include "daemon/source/source.h"
#include "sinks/sink.h"

#define SETTINGS_SOURCES_MAX 256
#define SETTINGS_SINKS_MAX 32

struct daemon_settings {
    char *state_dir;                 /* /var/lib/penstock */
    uint64_t memory;                 /* budget, bytes; at least 16M */
    int64_t workers;                 /* 0: as many as processors */
    uint64_t record_max;             /* 4M */
    char *plugin_dir;                /* NULL: none */
    char *key_file;                  /* NULL: the spool is not encrypted */
    int log_level;                   /* choice: error, warning, info, debug; settings_log_level() translates */
    uint32_t cursor_save_ms;         /* 1s: how often cursors are saved, at most */
    uint32_t stop_ms;                /* 8s: time that in-flight batches get at stop */
    char *listen;                    /* "127.0.0.1:9101"; NULL or "": no port */
    struct pen_list listen_names;    /* beyond loopback: the names it goes by */
    uint32_t stalled_after_ms;       /* 5m; 0: always ready */
};

struct source_settings {             /* rows every source has */
    char *type_name;                 /* the row `type`; the type itself is below */
    char *parser;                    /* "auto" */
    struct pen_conf *section;
    const struct source_type *type;
    const char *name;
};

enum spool_use { SPOOL_WHEN_NEEDED, SPOOL_ALWAYS };
enum spool_full { SPOOL_WAIT, SPOOL_DROP_OLDEST };

struct sink_settings {               /* rows every sink has */
    char *type_name;
    char *schema;                    /* NULL: the sink's default */
    struct pen_list sources;         /* empty: all */
    struct pen_list events;          /* kinds to send: network, audit, alert, unknown; empty: all. Others are dropped, counted */
    uint32_t flush_ms;               /* 2s: a batch is sealed when its oldest message is this old */
    int spool;                       /* enum spool_use */
    uint64_t spool_max;              /* 4G: cap in bytes on disk */
    int spool_full;                  /* enum spool_full */
    uint32_t spool_after_ms;         /* 5s: a sealed batch that could not be submitted for this long goes to disk */
    bool spool_compress;             /* yes: zstd */
    uint64_t dead_max;               /* 1G: cap of the dead letters' file; nothing is sent while it is reached */
    int64_t dead_in_a_row;           /* 16: dead letters without a delivery between that look like a wrong setting; 0: none do */
    uint32_t retry_min_ms, retry_max_ms;   /* 1s, 60s: backoff, doubling, with jitter; Retry-After obeyed up to retry_max_ms * 10 */
    struct pen_conf *section;
    const struct pen_sink *type;
    const char *name;
    uint64_t source_mask[SETTINGS_SOURCES_MAX / 64];
    unsigned kind_mask;
};

struct settings {
    unsigned holders;
    struct conf *conf;
    struct daemon_settings daemon;
    struct source_settings sources[SETTINGS_SOURCES_MAX];
    unsigned source_count;
    struct sink_settings sinks[SETTINGS_SINKS_MAX];
    unsigned sink_count;
};

/* Reads everything and reports every mistake, plugins' rows included (their open() is not called). 0, or negative with err
 * set ("3 mistakes in /etc/penstock/penstock.conf"). */
int settings_read(struct settings **ret, const char *path, conf_report report, void *arg, struct pen_error *err);
/* The last of those who hold it frees it; copes with NULL. What a source or a sink was opened with must outlive it. */
void settings_free(struct settings *settings);
struct settings *settings_share(struct settings *settings);        /* one more to hold it */
/* For commands that look at what lies on disk: the file's state_dir, whatever else is wrong with the file or missing in the
 * environment. The caller's to free. */
int settings_state_dir(char **ret, const char *path, struct pen_error *err);
/* For `replay`, what takes the place of all sources: those named, which go to the sinks that take them, and a file source of the
 * name `replay` over absolute paths, which goes to every sink. */
struct settings_replay {
    char *const *paths;
    size_t path_count;
    const char *const *sources;      /* names of configured ones */
    size_t source_count;
    const char *parser;              /* for the paths */
    const char *sink;                /* to this one alone; NULL: to every one */
};
int settings_replay(struct settings *settings, const struct settings_replay *replay, struct pen_error *err);
/* NULL: there is none. */
const struct source_settings *settings_source(const struct settings *settings, const char *name);

/* ---- What a reload changes: settings_compare.c ---- */

/* The first key of [daemon] that differs and that only a restart changes; NULL: none. */
const char *settings_fixed(const struct settings *old, const struct settings *new);
/* A print of what lies in the files that the section names and that are read when it is opened: passwords, certificates. What
 * is read anew for each token is not in it. Only good beside another one of this process. */
struct settings_print {
    unsigned char bytes[32];
};
void settings_print_files(struct settings_print *ret, struct pen_conf *section, const struct pen_option *rows);
bool settings_prints_agree(const struct settings_print *a, const struct settings_print *b);
/* `opened` is the print of when the old one was opened. */
enum settings_change { SETTINGS_SAME, SETTINGS_ROWS /* of the daemon's own alone: the far end hears nothing of it */, SETTINGS_CHANGED };
enum settings_change settings_compare_source(const struct source_settings *old, const struct settings_print *opened,
                                             const struct source_settings *new);
enum settings_change settings_compare_sink(const struct sink_settings *old, const struct settings_print *opened,
                                           const struct sink_settings *new);

/* The name of the schema that it writes: its own, or its type's default. */
const char *settings_schema(const struct sink_settings *sink);
/* The level that log_set_level() takes (daemon/base/log.h). */
int settings_log_level(const struct settings *settings);

extern const char *const kind_words[];   /* by enum pen_kind, NULL-ended: as in `events =` */
extern const struct pen_option daemon_options[], source_options[], sink_options[];
/* The one place that knows the plugins by name: daemon/config/types.c. NULL-ended. */
extern const struct source_type *const source_types[];
extern const struct pen_sink *const sink_types[];

#endif
