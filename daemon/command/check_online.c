/*
 * check_online.c - see check_online.h.
 *
 * What is known of each type lies with the type (its `probe`); here are the order, the loop, the printing, and what is this
 * machine's: the stores of a sink.
 */
#include "daemon/command/check_online.h"

#include "daemon/disk/spools.h"
#include "daemon/remote/probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct online {
    uv_loop_t loop;
    struct http *http;
    const char *kind, *name;         /* "sink", "sentinel": whose turn it is */
    unsigned counts[FINDING_WRONG + 1];
};

static void on_finding(void *arg, enum finding finding, const char *sentence)
{
    static const char *const words[] = { [FINDING_GOOD] = "good", [FINDING_UNKNOWN] = "unknown", [FINDING_WRONG] = "wrong" };
    struct online *online = arg;

    online->counts[finding]++;
    printf("%-8s%s %s: %s\n", words[finding], online->kind, online->name, sentence);
    (void)fflush(stdout);            /* the next answer may take its time */
}

static struct probe probe_of(struct online *online, const char *kind, const char *name)
{
    online->kind = kind;
    online->name = name;
    return (struct probe){ .loop = &online->loop, .http = online->http, .name = name, .tell = on_finding, .arg = online };
}

/* ---- A sink's spool ---- */

/* Beside a running daemon: it is looked at, not opened. */
static void spool_probe(struct probe *probe, const struct settings *settings)
{
    const char *state_dir = settings->daemon.state_dir;
    char *dir = spools_dir(state_dir, probe->name);
    struct spool_place place;
    struct spool_look look;
    struct pen_error err = { 0 };
    bool there = access(dir, F_OK) == 0;

    if (access(there ? dir : state_dir, R_OK | W_OK | X_OK) < 0)
        probe_tell(probe, FINDING_WRONG, "this user cannot write to %s: %s; it must belong to the service's user",
                   there ? dir : state_dir, strerror(errno));
    else if (spools_place(&place, state_dir, probe->name, &err) < 0)
        probe_tell(probe, FINDING_WRONG, "%s", err.text);
    else if (there && spool_look(&look, dir, place) < 0)
        probe_tell(probe, FINDING_WRONG, "the spool %s cannot be read: \"penstock spool check %s\" tells more", dir, probe->name);
    else if (there && look.messages > 0)
        probe_tell(probe, FINDING_GOOD, "its spool can be written to, and holds %llu messages",
                   (unsigned long long)look.messages);
    else
        probe_tell(probe, FINDING_GOOD, "its spool can be written to");
    free(dir);
}

/* ---- All of them ---- */

static void sources_probe(struct online *online, const struct settings *settings)
{
    const struct source_settings *source;
    struct probe probe;

    for (unsigned i = 0; i < settings->source_count; i++) {
        source = &settings->sources[i];
        probe = probe_of(online, "source", source->name);
        if (source->type->probe != NULL)
            source->type->probe(&probe, source->section);
    }
}

static void sinks_probe(struct online *online, const struct settings *settings, bool send_test_record)
{
    const struct sink_settings *sink;
    struct probe probe;

    for (unsigned i = 0; i < settings->sink_count; i++) {
        sink = &settings->sinks[i];
        probe = probe_of(online, "sink", sink->name);
        probe.schema = settings_schema(sink);
        probe.kinds = sink->kind_mask;
        probe.send_test_record = send_test_record;
        spool_probe(&probe, settings);
        if (sink->type->probe != NULL)
            sink->type->probe(&probe, sink->section);
    }
}

static void on_closed(void *arg)
{
    (void)arg;
}

int check_online(const struct settings *settings, bool send_test_record)
{
    struct online online = { 0 };
    struct pen_error err = { 0 };

    uv_loop_init(&online.loop);
    if (http_new(&online.http, &online.loop, &err) < 0) {
        fprintf(stderr, "penstock check: %s\n", err.text);
        return 1;
    }
    sources_probe(&online, settings);
    sinks_probe(&online, settings, send_test_record);
    http_close(online.http, on_closed, NULL);
    uv_run(&online.loop, UV_RUN_DEFAULT);
    uv_loop_close(&online.loop);
    printf("# %u good, %u unknown, %u wrong\n", online.counts[FINDING_GOOD], online.counts[FINDING_UNKNOWN],
           online.counts[FINDING_WRONG]);
    return online.counts[FINDING_WRONG] > 0 ? 1 : 0;
}
