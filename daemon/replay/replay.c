/*
 * replay.c - `penstock replay`: archived logs through the same pipeline to the same sinks, once, as a job beside the daemon.
 *
 * A job has its own state folder (replay_job.h), named after what is replayed, so that the same command goes on where a
 * stopped or killed one was. It reads only what may hold events of its window (window.h), no faster than its rate
 * (pace.h), with less claim to the processor than the daemon, and gives way to the daemon's own traffic
 * (replay_beside.h). With --dry-run it sends and keeps nothing: sinks that count take the places of all (replay_dry.h).
 */
#include "daemon/base/log.h"
#include "daemon/command/commands.h"
#include "daemon/command/service.h"
#include "daemon/command/words.h"
#include "daemon/disk/io.h"
#include "daemon/pipeline/pipeline.h"
#include "daemon/replay/replay_beside.h"
#include "daemon/replay/replay_dry.h"
#include "daemon/replay/replay_job.h"
#include "daemon/replay/replay_progress.h"
#include "daemon/status/status.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define NICE 10                      /* a tenth of the processor, where the daemon wants the rest */
#define EVERY_MS 1000
#define SAY_FIRST_MS 10000           /* not on a terminal: a line so often in the first minute, … */
#define SAY_MS 60000                 /* … and so often later */
#define THINGS_MAX 256

static const char usage[] =
    "Usage: penstock replay [OPTION...] SOURCE|PATH...\n"
    "Delivers archived logs once more and exits: files, folders, patterns (plain, gzip or zstd), and configured sources by\n"
    "name.\n"
    "\n"
    "  -c, --config FILE   configuration whose sinks are used (default /etc/penstock/penstock.conf)\n"
    "      --from TIME     events from this time on: 2026-03-01, 2026-03-01T10:00Z, -36h (before now; d, h, m)\n"
    "      --to TIME       events before this time\n"
    "      --late SPAN     how late events may have come into their y=/m=/d=/h= folders (default 48h)\n"
    "      --rate RATE     at most so much a second: 5M bytes (K, M, G; unpacked), or 2000r records\n"
    "      --parser NAME   parser for every record of the paths (default auto)\n"
    "      --sink NAME     to this sink only (default: to every sink that takes the source)\n"
    "      --dry-run       send nothing: count events, bytes and what Sentinel would bill, by table\n"
    "      --anew          begin at the beginning, where the same command was stopped before\n"
    "  -h, --help          this text\n"
    "\n"
    "The same command goes on where a stopped or killed one was; `penstock status` lists those. Times are UTC; events\n"
    "without a readable time are replayed, whatever the window. Exit: 0 all delivered, 1 stopped before that, or something\n"
    "is dead or could not be read, 2 wrong use or configuration.\n";

struct replay_call {
    const char *config, *parser, *sink, *from, *to, *late, *rate;
    bool dry, anew;
    char *paths[THINGS_MAX];
    const char *sources[THINGS_MAX];
    size_t path_count, source_count;
};

struct replay {
    const struct replay_call *call;
    struct settings *settings;
    struct window window;
    struct pace_rate rate;
    struct replay_job job;
    struct pen_beside beside;
    struct replay_beside_conf beside_conf;         /* its loop and pace are known when the service runs */
    struct replay_beside *watch;
    struct pace *pace;
    uv_loop_t *loop;
    uv_timer_t timer;
    const struct pipeline *pipeline;
    struct progress progress;
    struct replay_figures figures;
    uint64_t said_ms, began_ms;
    bool terminal, stopped, began;
};

/* ---- What is asked for ---- */

/* The pattern of this path alone. A list loses a blank at a pattern's end. */
static char *path_pattern(const char *path, const char *more)
{
    struct buf pattern = { 0 };

    for (; *path != '\0'; path++) {
        if (strchr("*?[\\", *path) != NULL)
            buf_char(&pattern, '\\');
        if (isspace((unsigned char)*path) && path[1] == '\0' && *more == '\0')
            buf_text(&pattern, "[%c]", *path);
        else
            buf_char(&pattern, *path);
    }
    buf_text(&pattern, "%s", more);
    buf_char(&pattern, '\0');
    return pattern.data;
}

/* Absolute, and a folder means everything in it. A pattern is left to the source. */
static int replay_path(char **ret, const char *given)
{
    char full[PATH_MAX], here[PATH_MAX];
    struct stat st;

    if (stat(given, &st) == 0) {
        if (realpath(given, full) == NULL)
            return -errno;
        *ret = path_pattern(full, S_ISDIR(st.st_mode) ? "/**" : "");
        return 0;
    }
    if (strpbrk(given, "*?[") == NULL)
        return -errno;
    if (given[0] == '/')
        return (*ret = strdup(given)) == NULL ? -ENOMEM : 0;
    if (getcwd(here, sizeof(here)) == NULL)
        return -errno;
    return asprintf(ret, "%s/%s", here, given) < 0 ? -ENOMEM : 0;
}

/* The name of a source is that source; a file of such a name is ./NAME. */
static int call_take(struct replay_call *call, const struct settings *settings, const char *given)
{
    struct pen_error err = { 0 };
    int r;

    if (settings_source(settings, given) != NULL) {
        call->sources[call->source_count++] = given;
        return 0;
    }
    r = replay_path(&call->paths[call->path_count], given);
    if (r == 0) {
        call->path_count++;
        return 0;
    }
    (void)pen_error_set(&err, r, "%s: %s%s", given, strerror(-r),
                        strchr(given, '/') == NULL ? ", and there is no source of this name" : "");
    fprintf(stderr, "penstock replay: %s\n", err.text);
    return r;
}

static int rate_read(const char *text, struct pace_rate *rate, struct pen_error *err)
{
    static const char units[] = "KMG";
    unsigned long long number;
    const char *unit;
    char *end;

    if (text == NULL)
        return 0;
    errno = 0;
    number = strtoull(text, &end, 10);
    unit = *end != '\0' ? strchr(units, *end) : NULL;
    *rate = (struct pace_rate){ .a_second = number, .unit = *end == 'r' ? PACE_RECORDS : PACE_BYTES };
    for (; unit != NULL && unit >= units && rate->a_second <= UINT64_MAX >> 20; unit--)
        rate->a_second <<= 10;
    if (*text < '0' || *text > '9' || errno != 0 || number == 0 || number > UINT64_C(1) << 40 ||
        (*end != '\0' && (end[1] != '\0' || (unit == NULL && *end != 'r'))))
        return pen_error_set(err, UV_EINVAL, "--rate: expected bytes a second (5M; K, M or G) or records a second (2000r), "
                             "found \"%.64s\"", text);
    return 0;
}

static int time_option(const char *name, const char *text, int64_t *ticks, struct pen_error *err)
{
    struct pen_error inner = { 0 };
    int r = text != NULL ? window_time_read(text, io_now_ticks(), ticks, &inner) : 0;

    return r < 0 ? pen_error_set(err, r, "--%s: %s", name, inner.text) : 0;
}

static int window_option(const struct replay_call *call, struct window *window, struct pen_error *err)
{
    struct pen_error inner = { 0 };
    int r;

    *window = WINDOW_ALL;
    r = time_option("from", call->from, &window->from_ticks, err);
    if (r == 0)
        r = time_option("to", call->to, &window->to_ticks, err);
    if (r == 0 && call->late != NULL && (r = window_span_read(call->late, &window->late_ticks, &inner)) < 0)
        pen_error_set(err, r, "--late: %s", inner.text);
    if (r == 0 && window->from_ticks >= window->to_ticks)
        r = pen_error_set(err, UV_EINVAL, "--to: expected a time after --from");
    return r;
}

/* The daemon's sinks that share a far end with ours: of the same name, or of the same DCR. */
static void shared_sinks(struct replay *replay)
{
    struct replay_beside_conf *conf = &replay->beside_conf;
    const struct settings *settings = replay->settings;

    for (unsigned i = 0; i < settings->sink_count && conf->shared_count < REPLAY_SHARED_MAX; i++) {
        const struct sink_settings *sink = &settings->sinks[i];
        const char *dcr = conf_value(sink->section, "dcr");
        bool shared = replay->call->sink == NULL || strcmp(replay->call->sink, sink->name) == 0;

        for (unsigned k = 0; k < settings->sink_count && !shared && dcr != NULL; k++) {
            const char *other = conf_value(settings->sinks[k].section, "dcr");

            shared = strcmp(settings->sinks[k].name, replay->call->sink) == 0 && other != NULL && strcasecmp(other, dcr) == 0;
        }
        if (shared)
            conf->shared[conf->shared_count++] = sink->name;
    }
}

/* ---- How far it is ---- */

/* What this start has done, and those before; but what is done of what lies there is told by the sources, over all. */
static void replay_look(struct replay *replay)
{
    const struct replay_figures *before = &replay->job.before;
    struct replay_figures *figures = &replay->figures;
    struct status status;

    pipeline_see(replay->pipeline, &status);
    *figures = (struct replay_figures){ .whole = true, .newest_ms = before->newest_ms };
    for (uint32_t i = 0; i < status.source_count; i++) {
        const struct status_source *source = &status.sources[i];

        figures->records += source->records;
        figures->events += source->events;
        figures->outside += source->outside;
        figures->bytes += source->bytes;
        figures->troubles += source->troubles;
        figures->done += source->progress.done;
        figures->total += source->progress.total;
        figures->whole = figures->whole && source->progress.whole;
        if (source->newest_ms != STATUS_NONE && (int64_t)source->newest_ms > figures->newest_ms)
            figures->newest_ms = (int64_t)source->newest_ms;
    }
    for (uint32_t i = 0; i < status.sink_count; i++) {
        figures->delivered += status.sinks[i].all.delivered;
        figures->dead += status.sinks[i].all.dead;
        figures->dropped += status.sinks[i].all.dropped;
        figures->dead_bytes += status.sinks[i].dead_bytes;
        figures->damaged += status.sinks[i].damaged;
        figures->waiting += status.sinks[i].all.held + status.sinks[i].all.spooled;
    }
    status_free(&status);
    figures->records += before->records;
    figures->events += before->events;
    figures->outside += before->outside;
    figures->bytes += before->bytes;
    figures->delivered += before->delivered;
    figures->dead += before->dead;
    figures->dropped += before->dropped;
    figures->damaged += before->damaged;
}

static const char *replay_waits(const struct replay *replay)
{
    return replay->watch != NULL ? replay_beside_waits(replay->watch) : NULL;
}

static void replay_draw(const struct replay *replay)
{
    struct winsize size = { 0 };
    char line[256];

    (void)ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
    progress_line(line, size.ws_col > 0 && size.ws_col < sizeof(line) ? size.ws_col : 80, &replay->figures,
                  progress_rate(&replay->progress), progress_left_s(&replay->progress, &replay->figures),
                  replay_waits(replay));
    fprintf(stderr, "\r%s\033[K", line);
    log_over_progress(true);
}

static void replay_undraw(const struct replay *replay)
{
    if (!replay->terminal)
        return;
    log_over_progress(false);
    fputs("\r\033[K", stderr);
}

static void replay_say(struct replay *replay, uint64_t now_ms)
{
    char line[256];
    const char *text = line;

    if (now_ms - replay->said_ms < (now_ms - replay->began_ms < SAY_MS + EVERY_MS ? SAY_FIRST_MS : SAY_MS))
        return;
    replay->said_ms = now_ms;
    progress_line(line, sizeof(line), &replay->figures, progress_rate(&replay->progress),
                  progress_left_s(&replay->progress, &replay->figures), replay_waits(replay));
    text += strspn(text, " ");
    log_line(LOG_NOTE, text, "replay", strrchr(replay->job.dir, '/') + 1, NULL);
}

static void on_second(uv_timer_t *timer)
{
    struct replay *replay = timer->data;
    uint64_t now_ms = uv_now(replay->loop);

    replay_look(replay);
    progress_take(&replay->progress, now_ms, &replay->figures);
    if (!replay->call->dry)
        replay_job_save(&replay->job, "running", &replay->figures, progress_rate(&replay->progress),
                        progress_left_s(&replay->progress, &replay->figures), replay_waits(replay));
    if (replay->terminal)
        replay_draw(replay);
    else
        replay_say(replay, now_ms);
}

/* ---- As a service ---- */

static struct pace *on_prepare(void *arg, uv_loop_t *loop)
{
    struct replay *replay = arg;

    replay->loop = loop;
    replay->pace = pace_new(loop, replay->rate);
    replay->progress.rate = replay->rate;
    uv_timer_init(loop, &replay->timer);
    replay->timer.data = replay;
    return replay->pace;
}

static void on_begin(void *arg, const struct pipeline *pipeline)
{
    struct replay *replay = arg;

    replay->pipeline = pipeline;
    replay->began = true;
    replay->began_ms = replay->said_ms = uv_now(replay->loop);
    if (!replay->call->dry) {
        replay->beside_conf.loop = replay->loop;
        replay->beside_conf.pace = replay->pace;
        replay->watch = replay_beside_open(&replay->beside_conf);
    }
    uv_timer_start(&replay->timer, on_second, 0, EVERY_MS);
}

static void on_stopping(void *arg)
{
    struct replay *replay = arg;

    replay->stopped = true;
}

static void on_end(void *arg, const struct pipeline *pipeline)
{
    struct replay *replay = arg;

    if (pipeline != NULL) {
        replay_look(replay);
        replay_undraw(replay);
        if (replay->call->dry)
            replay_dry_print(replay->settings);
    }
    uv_close((uv_handle_t *)&replay->timer, NULL);
    replay_beside_close(replay->watch);
    pace_close(replay->pace);
}

/* ---- The end ---- */

static void replay_sum(const struct replay *replay)
{
    const struct replay_figures *figures = &replay->figures;
    char bytes[40];

    progress_bytes(bytes, sizeof(bytes), (double)figures->bytes);
    fprintf(stderr, "penstock replay: %" PRIu64 " records (%s), %" PRIu64 " events, %" PRIu64 " of them outside of the window; "
            "%" PRIu64 " messages %s, %" PRIu64 " dead\n", figures->records, bytes, figures->events, figures->outside,
            figures->delivered, replay->call->dry ? "counted" : "delivered", figures->dead);
}

/* The exit status. What is left to do is said, and kept: not so letters that have been resent or dropped since. */
static int replay_end(const struct replay *replay, int status)
{
    const struct replay_figures *figures = &replay->figures;

    if (!replay->began)
        return status;
    replay_sum(replay);
    if (figures->troubles > 0) {
        fprintf(stderr, "penstock replay: %" PRIu64 " files or blobs could not be read, or not whole; the log says which%s\n",
                figures->troubles, replay->call->dry ? "" : ". The same command tries them again");
        status = status == 0 ? 1 : status;
    }
    if (figures->records == 0 && figures->troubles == 0 && !replay->stopped && !replay->job.resumed) {
        bool bounded = replay->call->from != NULL || replay->call->to != NULL;

        fprintf(stderr, "penstock replay: there was nothing to read: check the paths%s\n", bounded ? " and the window" : "");
        if (!bounded)                /* a day without a record is none that failed; a path that holds nothing is a mistake */
            status = status == 0 ? 1 : status;
    }
    if (replay->call->dry)
        return status;
    if (replay->stopped)
        fputs("penstock replay: stopped: not everything is delivered; the same command goes on there\n", stderr);
    if (figures->damaged > 0) {
        fputs("penstock replay: messages were lost to damage in the job's spool, the log says where; with --anew all is sent again\n",
              stderr);
        status = 1;
    }
    if (figures->dead_bytes > 0) {
        fprintf(stderr, "penstock replay: for the dead letters: penstock dead list --state-dir %s\n", replay->job.dir);
        status = 1;
    }
    if (status == 0)
        replay_job_forget(&replay->job);
    else
        replay_job_save(&replay->job, replay->stopped ? "stopped" : "failed", figures, 0, -1, NULL);
    return status;
}

/* ---- The beginning ---- */

/* As a shell would take it. */
static void command_add(struct buf *command, const char *word)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:=+,@%";

    if (command->size > 0)
        buf_char(command, ' ');
    if (*word != '\0' && strspn(word, plain) == strlen(word)) {
        buf_add(command, word, strlen(word));
        return;
    }
    buf_char(command, '\'');
    for (; *word != '\0'; word++)
        if (*word == '\'')
            BUF_LITERAL(command, "'\\''");
        else
            buf_char(command, *word);
    buf_char(command, '\'');
}

/* By its meaning: other spellings of a path, another rate, another order of options are the same job. */
static int replay_open_job(struct replay *replay, const char *command, struct pen_error *err)
{
    const struct replay_call *call = replay->call;
    const char *words[2 * THINGS_MAX + 8];
    size_t count = 0;

    for (size_t i = 0; i < call->path_count; i++)
        words[count++] = call->paths[i];
    words[count++] = "";
    for (size_t i = 0; i < call->source_count; i++)
        words[count++] = call->sources[i];
    words[count++] = "";
    words[count++] = call->sink;
    words[count++] = call->parser;
    words[count++] = call->from;
    words[count++] = call->to;
    words[count++] = call->late;
    return replay_job_open(&replay->job, replay->settings->daemon.state_dir, words, count, command, &replay->window,
                           call->anew, err);
}

static void replay_say_begin(const struct replay *replay)
{
    char line[256];

    if (!replay->job.resumed)
        return;
    progress_line(line, sizeof(line), &(struct replay_figures){
        .records = replay->job.before.records, .bytes = replay->job.before.bytes, .done = replay->job.before.done,
        .total = replay->job.before.total, .whole = replay->job.before.total > 0, .newest_ms = replay->job.before.newest_ms,
    }, -1, -1, NULL);
    fprintf(stderr, "penstock replay: going on where it was:  %s\n", line);
}

static int replay_serve(struct replay *replay, const char *state_dir)
{
    const struct service_job job = {
        .window = &replay->job.window, .beside = &replay->beside, .quiet = replay->terminal || replay->call->dry,
        .prepare = on_prepare, .begin = on_begin, .stopping = on_stopping, .end = on_end, .arg = replay,
    };

    return service_run(&(struct service_conf){ .settings = replay->settings, .state_dir = state_dir, .job = &job });
}

/* A state folder of its own that goes with it, wherever temporary files may be. */
static int replay_run_dry(struct replay *replay)
{
    const char *parent = getenv("TMPDIR");
    char dir[PATH_MAX];
    int status;

    (void)snprintf(dir, sizeof(dir), "%s/penstock-dry-run-XXXXXX", parent != NULL && *parent == '/' ? parent : "/tmp");
    if (mkdtemp(dir) == NULL) {
        fprintf(stderr, "penstock replay: %s cannot be made: %s\n", dir, strerror(errno));
        return 1;
    }
    replay->job = (struct replay_job){ .dir = dir, .window = replay->window, .before.newest_ms = -1 };
    replay_dry(replay->settings);
    status = replay_end(replay, replay_serve(replay, dir));
    folder_remove(dir);
    return status;
}

static int replay_run(struct replay *replay, const char *command)
{
    struct pen_error err = { 0 };
    int status;

    replay->terminal = isatty(STDERR_FILENO) == 1;
    if (replay->terminal && replay->settings->daemon.log_level > 1)
        replay->settings->daemon.log_level = 1;    /* warnings: the line says the rest */
    if (getpriority(PRIO_PROCESS, 0) < NICE)
        (void)setpriority(PRIO_PROCESS, 0, NICE);
    if (replay->call->dry)
        return replay_run_dry(replay);
    if (replay_open_job(replay, command, &err) < 0) {
        fprintf(stderr, "penstock replay: %s\n", err.text);
        replay_job_free(&replay->job);
        return 1;
    }
    replay->beside_conf.state_dir = replay->settings->daemon.state_dir;
    replay->beside_conf.beside = &replay->beside;
    replay_say_begin(replay);
    status = replay_end(replay, replay_serve(replay, replay->job.dir));
    replay_job_free(&replay->job);
    return status;
}

/* Everything that can be wrong with the words is found before anything is opened: 2, and it was said. */
static int replay_read(struct replay *replay, struct replay_call *call, int argc, char **argv)
{
    struct pen_error err = { 0 };

    if (window_option(call, &replay->window, &err) < 0 || rate_read(call->rate, &replay->rate, &err) < 0)
        goto wrong;
    if (settings_read(&replay->settings, call->config, service_report, NULL, &err) < 0) {
        fprintf(stderr, "penstock: %s\n", err.text);
        return 2;
    }
    for (; optind < argc; optind++)
        if (call_take(call, replay->settings, argv[optind]) < 0)
            return 2;
    shared_sinks(replay);
    if (settings_replay(replay->settings, &(struct settings_replay){
            .paths = call->paths, .path_count = call->path_count, .sources = call->sources, .source_count = call->source_count,
            .parser = call->parser, .sink = call->sink }, &err) == 0)
        return 0;
wrong:
    fprintf(stderr, "penstock replay: %s\n", err.text);
    return 2;
}

int command_replay(int argc, char **argv)
{
    struct replay_call call = { .config = "/etc/penstock/penstock.conf", .parser = "auto" };
    const struct word words[] = {
        { "config", 'c', &call.config, NULL }, { "from", '\0', &call.from, NULL }, { "to", '\0', &call.to, NULL },
        { "late", '\0', &call.late, NULL }, { "rate", '\0', &call.rate, NULL }, { "parser", '\0', &call.parser, NULL },
        { "sink", '\0', &call.sink, NULL }, { "dry-run", '\0', NULL, &call.dry }, { "anew", '\0', NULL, &call.anew }, { 0 },
    };
    struct replay replay = { .call = &call };
    struct buf command = { 0 };
    int status;

    command_add(&command, "penstock");
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--anew") != 0)
            command_add(&command, argv[i]);
    buf_char(&command, '\0');
    status = words_read(argc, argv, words, usage);
    if (status < 0 && (optind == argc || argc - optind > THINGS_MAX)) {
        fprintf(stderr, "penstock replay: expected 1 to %d paths or sources\n%s", THINGS_MAX, usage);
        status = 2;
    }
    if (status < 0)
        status = replay_read(&replay, &call, argc, argv);
    if (status == 0 && replay.settings != NULL)
        status = replay_run(&replay, command.data);
    settings_free(replay.settings);
    while (call.path_count > 0)
        free(call.paths[--call.path_count]);
    buf_free(&command);
    return status;
}
