/*
 * check.c - `penstock check`: every mistake of the configuration, what it comes to, and what may yet stand in its way.
 *
 * Mistakes make it wrong for any machine (exit 2). Warnings are about this machine, now, and this user: a folder that a
 * mount will bring, a secret that only the service may read.
 */
#include "daemon/command/check_online.h"
#include "daemon/command/commands.h"
#include "daemon/command/words.h"
#include "daemon/config/settings.h"
#include "daemon/disk/spools.h"
#include "daemon/record/work.h"
#include "daemon/source/glob.h"

#include <errno.h>
#include <getopt.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PROGRAM_BYTES (16ULL << 20)  /* what the program needs besides its budget */

static const char usage[] =
    "Usage: penstock check [-c FILE] [--online [--send-test-record]]\n"
    "\n"
    "Reads the configuration (default: /etc/penstock/penstock.conf), reports every mistake as FILE:LINE: on stderr, and\n"
    "prints what takes effect: lines with '#' are defaults.\n"
    "\n"
    "With --online it asks every far end instead, and prints what is good, what is wrong and what could not be looked at:\n"
    "tokens, addresses, topics, containers, spools, and whether the data collection rule declares all columns that are sent.\n"
    "\n"
    "  -c, --config FILE       the configuration\n"
    "      --online            ask the far ends; nothing is sent to them\n"
    "      --send-test-record  send one record to each sink, which says that it is a test\n"
    "  -h, --help              print this\n"
    "\n"
    "Exit: 0 nothing is wrong, 1 a far end says otherwise, 2 mistakes in the configuration.\n";

static void on_mistake(void *arg, const char *file, unsigned line, const char *sentence)
{
    (void)arg;
    if (line > 0)
        fprintf(stderr, "%s:%u: %s\n", file, line, sentence);
    else
        fprintf(stderr, "%s: %s\n", file, sentence);
}

__attribute__((format(printf, 3, 4)))
static void warn(struct pen_conf *section, const char *key, const char *format, ...)
{
    unsigned line = conf_value_line(section, key);
    va_list args;

    fprintf(stderr, "%s:", conf_section_file(section));
    if (line > 0)
        fprintf(stderr, "%u:", line);
    fputs(" warning: ", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* ---- What may stand in the way ---- */

/* A client secret, a password, a connection string, a SAS: one line of text, which editors and shells like to add to. A file with
 * a certificate is another matter. */
static bool secret_is_line(const char *secret, size_t size)
{
    if (secret[0] == ' ' || secret[size - 1] == ' ' || strncmp(secret, "\xef\xbb\xbf", 3) == 0)
        return false;
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)secret[i] < ' ' || secret[i] == 0x7f)
            return false;
    return true;
}

static void secrets_warn(struct pen_conf *section, const struct pen_option *rows)
{
    struct pen_error err = { 0 };
    const char *path;
    char *secret;
    size_t size;

    for (; rows != NULL && rows->name != NULL; rows++) {
        path = rows->type == PEN_SECRET_FILE ? conf_value(section, rows->name) : NULL;
        if (path == NULL)
            continue;
        if (pen_secret_read(&secret, &size, path, &err) < 0) {
            warn(section, rows->name, "%s", err.text);
            continue;
        }
        if (strcmp(rows->name, "certificate_file") != 0 && !secret_is_line(secret, size))
            warn(section, rows->name, "the secret in %s has more to it than one line of text: a line break, a blank at an end or a "
                 "byte order mark would be sent as a part of it; write the file again without", path);
        pen_secret_wipe(secret, size);
    }
}

/* The patterns of a file source, as it will read them itself; of any other, none. */
static struct pen_list patterns_read(const struct source_settings *source)
{
    static const struct pen_option rows[] = { { "path", PEN_LIST, 0, .help = "" }, { 0 } };
    struct pen_error err = { 0 };
    struct pen_list patterns = { 0 };

    if (source->type == &file_source)
        (void)pen_conf_fill(source->section, rows, &patterns, &err);
    return patterns;
}

/* The folder that a pattern starts in: all before the first name with a wildcard. */
static char *pattern_folder(const char *pattern)
{
    size_t size = strcspn(pattern, "*?[");

    while (size > 1 && pattern[size - 1] != '/')
        size--;
    return strndup(pattern, size);
}

/* glob(3) knows no "**"; for such a pattern the folder it starts in must do. */
static void pattern_warn(struct pen_conf *section, const char *pattern)
{
    char *folder = pattern_folder(pattern);
    glob_t found = { 0 };
    struct stat st;

    if (folder == NULL)
        return;
    if (stat(pattern, &st) == 0 && S_ISDIR(st.st_mode))
        warn(section, "path", "%s is a folder: %s/* would mean the files in it, %s/** all below it", pattern, pattern, pattern);
    else if (pattern[strcspn(pattern, "*?[")] != '\0' && access(folder, R_OK | X_OK) < 0)
        warn(section, "path", "cannot read the folder %s: %s", folder, strerror(errno));
    else if (strstr(pattern, "**") == NULL && glob(pattern, GLOB_NOSORT, NULL, &found) == GLOB_NOMATCH)
        warn(section, "path", "nothing matches %s yet; what comes will be read, if that is how it is called", pattern);
    globfree(&found);
    free(folder);
}

static void patterns_warn(const struct source_settings *source)
{
    struct pen_list patterns = patterns_read(source);

    for (size_t i = 0; i < patterns.count; i++)
        pattern_warn(source->section, patterns.items[i]);
}

static uint64_t stores_max(const struct settings *settings)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < settings->sink_count; i++)
        sum += settings->sinks[i].spool_max + settings->sinks[i].dead_max;
    return sum;
}

static void state_dir_warn(const struct settings *settings)
{
    struct pen_conf *section = conf_section(settings->conf, CONF_DAEMON, 0);
    const char *path = settings->daemon.state_dir;
    struct statvfs disk;
    uint64_t free_bytes;

    if (access(path, W_OK | X_OK) < 0) {
        warn(section, "state_dir", "cannot write to %s: %s%s", path, strerror(errno),
             errno == ENOENT ? "; the systemd unit creates /var/lib/penstock" : "");
        return;
    }
    if (statvfs(path, &disk) < 0)
        return;
    free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (free_bytes < stores_max(settings))
        warn(section, "state_dir", "spools and dead letters may grow to %lluM, but %s has %lluM left",
             (unsigned long long)(stores_max(settings) >> 20), path, (unsigned long long)(free_bytes >> 20));
}

static void keys_warn(const struct settings *settings)
{
    struct pen_error err = { 0 };
    struct keys *keys;

    if (settings->daemon.key_file == NULL)
        return;
    if (keys_read(&keys, settings->daemon.key_file, &err) < 0)
        warn(conf_section(settings->conf, CONF_DAEMON, 0), "key_file", "%s", err.text);
    else
        keys_free(keys);
}

static void on_orphan(void *arg, const char *sink, const struct spool_look *look)
{
    const struct settings *settings = arg;

    warn(conf_section(settings->conf, CONF_DAEMON, 0), "state_dir", "%llu messages (%llu bytes) wait for the sink %.64s, which "
         "left the configuration: \"penstock spool adopt %.64s SINK\" gives them to another one, \"penstock spool drop\" throws "
         "them away", (unsigned long long)look->messages, (unsigned long long)look->bytes, sink, sink);
}

static void settings_warn(const struct settings *settings)
{
    unsigned i;

    spools_orphans(settings->daemon.state_dir, settings, on_orphan, (void *)settings);
    keys_warn(settings);
    state_dir_warn(settings);
    for (i = 0; i < settings->source_count; i++) {
        secrets_warn(settings->sources[i].section, settings->sources[i].type->options);
        patterns_warn(&settings->sources[i]);
    }
    for (i = 0; i < settings->sink_count; i++)
        secrets_warn(settings->sinks[i].section, settings->sinks[i].type->options);
}

/* ---- What rows alone cannot tell ---- */

/* With a plugin folder, only opening the parsers shows whether a name is one. */
static int parser_prove(const struct settings *settings, const struct source_settings *source, struct pen_error *err)
{
    struct work_plan plan = { 0 };
    int r = work_plan_open(&plan, source->parser, settings->daemon.plugin_dir, err);

    if (r == 0)
        work_plan_close(&plan);
    return r;
}

static int patterns_prove(const struct source_settings *source, struct pen_error *err)
{
    struct pen_list patterns = patterns_read(source);
    struct glob *glob = NULL;
    int r = patterns.count > 0 ? glob_new(&glob, &patterns, err) : 0;

    glob_free(glob);
    return r;
}

/* Where it cannot be looked at, that is said elsewhere. */
static int spool_prove(const struct settings *settings, const struct sink_settings *sink, struct pen_error *err)
{
    char *dir = spools_dir(settings->daemon.state_dir, sink->name);
    struct spool_place place = { 0 };
    struct spool_look look;
    int r = 0;

    if (spools_place(&place, settings->daemon.state_dir, sink->name, err) == 0 && spool_look(&look, dir, place) == 0)
        r = spool_look_fits(&look, sink, err);
    free(dir);
    return r;
}

/* The number of mistakes, each reported. */
static unsigned settings_prove(const struct settings *settings)
{
    const struct source_settings *source;
    struct pen_error err = { 0 };
    unsigned mistakes = 0;

    for (unsigned i = 0; i < settings->source_count; i++) {
        source = &settings->sources[i];
        if (parser_prove(settings, source, &err) < 0) {
            on_mistake(NULL, conf_section_file(source->section), conf_value_line(source->section, "parser"), err.text);
            mistakes++;
        }
        if (patterns_prove(source, &err) < 0) {
            on_mistake(NULL, conf_section_file(source->section), conf_value_line(source->section, "path"), err.text);
            mistakes++;
        }
    }
    for (unsigned i = 0; i < settings->sink_count; i++) {
        if (spool_prove(settings, &settings->sinks[i], &err) < 0) {
            on_mistake(NULL, conf_section_file(settings->sinks[i].section), conf_value_line(settings->sinks[i].section, "schema"),
                       err.text);
            mistakes++;
        }
    }
    return mistakes;
}

/* ---- What it comes to ---- */

static void settings_print(const struct settings *settings)
{
    const struct pen_option *tables[2] = { daemon_options, NULL };
    const struct sink_settings *sink;
    unsigned i;

    conf_print(conf_section(settings->conf, CONF_DAEMON, 0), tables, 1, stdout);
    for (i = 0; i < settings->source_count; i++) {
        tables[0] = source_options;
        tables[1] = settings->sources[i].type->options;
        putchar('\n');
        conf_print(settings->sources[i].section, tables, 2, stdout);
    }
    for (i = 0; i < settings->sink_count; i++) {
        sink = &settings->sinks[i];
        tables[0] = sink_options;
        tables[1] = sink->type->options;
        putchar('\n');
        conf_print(sink->section, tables, 2, stdout);
    }
}

static void sums_print(const struct settings *settings)
{
    unsigned long long memory = settings->daemon.memory >> 20, program = PROGRAM_BYTES >> 20;

    printf("\n# memory: %lluM budget + %lluM program = %lluM resident at most\n", memory, program, memory + program);
    printf("# disk: spools and dead letters of %u sink%s in %s, %lluM at most\n", settings->sink_count,
           settings->sink_count == 1 ? "" : "s", settings->daemon.state_dir,
           (unsigned long long)(stores_max(settings) >> 20));
}

/* What is found here stands on stderr either way; then comes what takes effect, or what the far ends say. */
static int check(const char *path, bool online, bool send_test_record)
{
    struct settings *settings = NULL;
    struct pen_error err = { 0 };
    unsigned mistakes;
    int status = 0;

    if (settings_read(&settings, path, on_mistake, NULL, &err) < 0) {
        fprintf(stderr, "penstock check: %s\n", err.text);
        return 2;
    }
    mistakes = settings_prove(settings);
    if (mistakes > 0) {
        fprintf(stderr, "penstock check: %u mistake%s in %s\n", mistakes, mistakes == 1 ? "" : "s", path);
        status = 2;
    } else if (online) {
        settings_warn(settings);
        status = check_online(settings, send_test_record);
    } else {
        settings_warn(settings);
        settings_print(settings);
        sums_print(settings);
    }
    settings_free(settings);
    return status;
}

int command_check(int argc, char **argv)
{
    const char *path = "/etc/penstock/penstock.conf";
    bool online = false, send_test_record = false;
    const struct word words[] = {
        { "config", 'c', &path, NULL }, { "online", '\0', NULL, &online },
        { "send-test-record", '\0', NULL, &send_test_record }, { 0 },
    };
    int status;

    status = words_read(argc, argv, words, usage);
    if (status >= 0)
        return status;
    if (optind < argc || (send_test_record && !online)) {
        if (optind < argc)
            fprintf(stderr, "penstock check: there is nothing to do with \"%s\"; a configuration is named by -c\n\n", argv[optind]);
        fputs(usage, stderr);
        return 2;
    }
    return check(path, online, send_test_record);
}
