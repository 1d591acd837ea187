/*
 * conf.h - the configuration: one INI file of `[daemon]`, `[source NAME]` and `[sink NAME]` sections.
 *
 * Unknown sections, unknown keys and bad values are refused, each with file, line, what was expected and the nearest valid
 * key; conf_read() collects them all rather than stopping at the first. Values may hold ${ENV}; an unset variable is an
 * error. Secrets come from files only.
 */
#ifndef DAEMON_CONF_H
#define DAEMON_CONF_H

#include "parsers/parser.h"

#include <stdio.h>

#define CONF_LINE_MAX 8192           /* bytes of one line */
#define CONF_FILE_MAX (1 << 20)

struct conf;                         /* the whole file; owns every text handed out */

enum conf_kind { CONF_DAEMON, CONF_SOURCE, CONF_SINK };

/* One mistake. */
typedef void (*conf_report)(void *arg, const char *file, unsigned line, const char *sentence);

/* Reads and splits the file; 0, or negative with a sentence in err where the file itself cannot be read. Mistakes of
 * syntax are reported and counted. */
int conf_read(struct conf **ret, const char *path, conf_report report, void *arg, struct pen_error *err);
void conf_free(struct conf *conf);
/* Mistakes reported so far, by conf_read() and conf_fill(). */
unsigned conf_mistakes(const struct conf *conf);

/* Sections of a kind, in the file's order; NULL past the last. [daemon] may be absent: then an empty one. */
struct pen_conf *conf_section(struct conf *conf, enum conf_kind kind, unsigned index);
/* A section that stands in no file, for commands that make a source of their arguments; conf_section() does not find it.
 * Values are taken as they are, without ${ENV}. */
struct pen_conf *conf_section_make(struct conf *conf, enum conf_kind kind, const char *name);
void conf_section_put(struct pen_conf *section, const char *key, const char *value);
const char *conf_section_file(const struct pen_conf *section);
unsigned conf_section_line(const struct pen_conf *section);
/* False: a value of the section could not be read, which was reported then. */
bool conf_section_whole(const struct pen_conf *section);
/* True: what either section says, the other says too, whatever the order; keys that are rows of `except` do not count (NULL: all do). */
bool conf_sections_agree(const struct pen_conf *a, const struct pen_conf *b, const struct pen_option *except);
/* A key's value as written (after ${ENV}), or NULL: for `type`, before the rows are known. Marks it used. */
const char *conf_value(struct pen_conf *section, const char *key);
unsigned conf_value_line(const struct pen_conf *section, const char *key);

/* Fills `into` by several tables of rows at once (the daemon's common ones and the plugin's own); intos[i] goes with
 * tables[i]. Reports every unknown key with the nearest valid one of all tables, and every bad or missing value.
 * Returns the number of mistakes. */
unsigned conf_fill(struct pen_conf *section, const struct pen_option *const *tables, void *const *intos, size_t count);
/* Reports a mistake found later (a sink that names no existing source), at a key's line. */
void conf_mistake(struct pen_conf *section, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The section as it takes effect: a line per row, fallbacks marked as comments, secrets only as file names. Reads back. */
void conf_print(const struct pen_conf *section, const struct pen_option *const *tables, size_t count, FILE *out);

/* The nearest of the names by edit distance, or NULL where none is near. */
const char *conf_nearest(const char *word, const char *const *names);

/* Reads a secret file: at most 64 KiB, one trailing line break taken off, refused when empty or readable by others than
 * owner and group. The result is the caller's to pen_secret_wipe(). */
int pen_secret_read(char **ret, size_t *size, const char *path, struct pen_error *err);
void pen_secret_wipe(char *secret, size_t size);  /* overwrites and frees; copes with NULL */

#endif
