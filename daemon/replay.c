/*
 * replay.c - `penstock replay`: archived files through the same pipeline to the same sinks, once, as a job of its own.
 *
 * A job has its own state folder below the daemon's, `replay/HASH`, named after what is replayed, so that it runs beside
 * the daemon and the same command goes on where a killed one stopped. When all is delivered its cursors go, so that the
 * same archive can be replayed again; dead letters stay.
 */
#include "daemon/commands.h"
#include "daemon/io.h"
#include "daemon/log.h"
#include "daemon/service.h"
#include "daemon/words.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "Usage: penstock replay [-c FILE] [--parser NAME] [--sink NAME] PATH...\n"
    "Reads files, folders and patterns (plain, gzip or zstd) to their end, delivers all of it, and exits.\n"
    "\n"
    "  -c, --config FILE   configuration whose sinks are used (default /etc/penstock/penstock.conf)\n"
    "      --parser NAME   parser for every record (default auto)\n"
    "      --sink NAME     to this sink only (default: to every sink)\n"
    "  -h, --help          this text\n"
    "\n"
    "The same command goes on where a killed one stopped. Exit: 0 all delivered, 1 stopped before that or some dead,\n"
    "2 wrong use or configuration.\n";

struct replay_call {
    const char *config, *parser, *sink;
    char *paths[256];
    size_t count;
};

/* Absolute, and a folder means everything in it. A pattern is left to the source. */
static int replay_path(char **ret, const char *given)
{
    char full[PATH_MAX], here[PATH_MAX];
    struct stat st;

    if (stat(given, &st) == 0) {
        if (realpath(given, full) == NULL)
            return -errno;
        return asprintf(ret, S_ISDIR(st.st_mode) ? "%s/**" : "%s", full) < 0 ? -ENOMEM : 0;
    }
    if (strpbrk(given, "*?[") == NULL)
        return -errno;
    if (given[0] == '/')
        return (*ret = strdup(given)) == NULL ? -ENOMEM : 0;
    if (getcwd(here, sizeof(here)) == NULL)
        return -errno;
    return asprintf(ret, "%s/%s", here, given) < 0 ? -ENOMEM : 0;
}

/* FNV-1a, 64 bits: names a folder, protects nothing. */
static uint64_t replay_hash(const struct replay_call *call)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    const char *sink = call->sink != NULL ? call->sink : "";

    for (size_t i = 0; i <= call->count; i++) {
        const char *text = i < call->count ? call->paths[i] : sink;

        for (const char *at = text; ; at++) {
            hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
            if (*at == '\0')
                break;
        }
    }
    return hash;
}

static char *replay_state_dir(const struct settings *settings, const struct replay_call *call)
{
    char *parent, *dir;

    if (asprintf(&parent, "%s/replay", settings->daemon.state_dir) < 0 ||
        asprintf(&dir, "%s/%016" PRIx64, parent, replay_hash(call)) < 0)
        abort();
    io_make_folder(settings->daemon.state_dir);    /* trouble shows when the job's own folder is opened */
    io_make_folder(parent);
    free(parent);
    return dir;
}

static void replay_forget(const char *dir)
{
    static const char *const files[] = { "state.db", "state.db-wal", "state.db-shm", "lock", "reserve" };
    char *path;

    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        if (asprintf(&path, "%s/%s", dir, files[i]) < 0)
            abort();
        unlink(path);
        free(path);
    }
}

static int replay_run(const struct replay_call *call)
{
    struct settings *settings;
    struct pen_error err = { 0 };
    char *dir;
    int status;

    if (settings_read(&settings, call->config, service_report, NULL, &err) < 0) {
        fprintf(stderr, "penstock: %s\n", err.text);
        return 2;
    }
    if (settings_replay(settings, "replay", call->paths, call->count, call->parser, call->sink, &err) < 0) {
        fprintf(stderr, "penstock replay: %s\n", err.text);
        settings_free(settings);
        return 2;
    }
    dir = replay_state_dir(settings, call);
    status = service_run(&(struct service_conf){ .settings = settings, .state_dir = dir, .once = true });
    if (status == 0)
        replay_forget(dir);
    else
        fprintf(stderr, "penstock replay: not everything is delivered; state and dead letters are in %s\n"
                "(\"penstock dead list --state-dir\" shows them)\n", dir);
    free(dir);
    settings_free(settings);
    return status;
}

int command_replay(int argc, char **argv)
{
    struct replay_call call = { .config = "/etc/penstock/penstock.conf", .parser = "auto" };
    const struct word words[] = {
        { "config", 'c', &call.config, NULL }, { "parser", '\0', &call.parser, NULL },
        { "sink", '\0', &call.sink, NULL }, { 0 },
    };
    struct pen_error err = { 0 };
    int status, r;

    status = words_read(argc, argv, words, usage);
    if (status >= 0)
        return status;
    status = 2;
    if (optind == argc || (size_t)(argc - optind) > sizeof(call.paths) / sizeof(*call.paths)) {
        fprintf(stderr, "penstock replay: expected 1 to %zu paths\n%s", sizeof(call.paths) / sizeof(*call.paths), usage);
        return 2;
    }
    for (; optind < argc; optind++) {
        r = replay_path(&call.paths[call.count], argv[optind]);
        if (r < 0) {
            (void)pen_error_set(&err, r, "%s: %s", argv[optind], strerror(-r));
            fprintf(stderr, "penstock replay: %s\n", err.text);
            goto out;
        }
        call.count++;
    }
    status = replay_run(&call);
out:
    while (call.count > 0)
        free(call.paths[--call.count]);
    return status;
}
