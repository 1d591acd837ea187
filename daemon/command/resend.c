/*
 * resend.c - `penstock dead resend`: letters read from the file, handed to an outlet of the same sink, and taken out of the
 * file when it is over.
 *
 *   file ──letters──▶ outlet ──▶ delivered
 *                        └─────▶ refused again: the job's own dead letters, with a new reason and time
 *   at the end: the file anew, without what was sent, with what was refused again
 *
 * Only that last step changes the file. Until then every letter is still in it, so the job needs no spool and no state: its
 * folder, `resend-SINK` in the state folder, is thrown away at the beginning and at the end, and locked between.
 *
 * If we die before the last step, all of it is sent again next time: repeats, with the same event ids. The last step itself
 * is dead_rewrite()'s, whole or not at all. A job that is stopped takes out of the file what is answered up to the first
 * letter that is not; what was answered behind it repeats.
 */
#include "daemon/command/resend.h"

#include "daemon/base/log.h"
#include "daemon/command/service.h"
#include "daemon/outlet/outlet.h"
#include "daemon/remote/http.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* Letters are read in runs of at most so many, as long as no more than that is held. */
#define RUN_LETTERS 256
#define RUN_BYTES   ((size_t)1 << 20)
#define HELD_MAX(settings) ((settings)->daemon.memory / 4)

struct resend {
    const struct resend_conf *conf;
    struct settings *settings;
    struct sink_settings sink;
    char *path, *dir;                /* the file; the job's folder */
    int lock_fd;
    struct dead_file *file;
    struct json *json;
    struct buf text;
    uv_loop_t loop;
    uv_idle_t idle;                  /* turns while there is something to read or to end */
    uv_signal_t signals[2];
    struct http *http;
    struct budget budget;
    struct outlet *outlet;
    const char *schema;              /* the outlet's; outlives it */
    TAILQ_HEAD(, run) runs;          /* oldest first */
    uint64_t at, safe;               /* of the file: read; at its end, all of it */
    uint64_t skipped;
    int trouble;
    bool drained, stopping, stopped;
    bool quiet;                      /* letters that cannot be sent have been named */
    bool frozen;                     /* stopping has put messages into the job's spool: what is let go now is not at its end */
};

/* What the daemon takes meanwhile is not looked at: letters are few. */
static const struct pen_beside resend_beside;

/* ---- Runs: how far is all of the file at its end? ---- */

struct resend_run {
    struct run run;
    struct resend *resend;
    struct arena names;              /* of streams */
};

static void resend_run_free(struct run *run)
{
    struct resend_run *mine = (struct resend_run *)run;

    TAILQ_REMOVE(&mine->resend->runs, run, entry);
    arena_free(&mine->names);
    free(mine);
}

static void on_run_released(struct run *released)
{
    struct resend *resend = ((struct resend_run *)released)->resend;
    struct run *run;

    resend->frozen |= outlet_ledger(resend->outlet, 0)->count[LEDGER_SPOOLED] > 0;
    while (!resend->frozen && (run = TAILQ_FIRST(&resend->runs)) != NULL && run->holds == 0) {
        resend->safe = run->position;
        resend_run_free(run);
    }
}

static struct resend_run *resend_run_new(struct resend *resend)
{
    struct resend_run *run = calloc(1, sizeof(*run));

    if (run == NULL)
        abort();
    *run = (struct resend_run){ .run = { .holds = 1, .on_released = on_run_released }, .resend = resend };
    TAILQ_INSERT_TAIL(&resend->runs, &run->run, entry);
    return run;
}

/* ---- From letters to messages ---- */

static int kind_of(struct pen_span word)
{
    int kind = PEN_KINDS - 1;

    while (kind >= 0 && (strlen(kind_words[kind]) != word.size || memcmp(kind_words[kind], word.data, word.size) != 0))
        kind--;
    return kind;
}

/* NULL, or why this letter cannot be sent. */
static const char *letter_trouble(struct resend *resend, const struct dead_letter *letter)
{
    const char *schema = resend->schema, *why;
    struct pen_json root;

    if (letter->damage != NULL)
        return letter->damage;
    if (kind_of(letter->kind) < 0)
        return "of no kind that is known";
    if (letter->schema.size != strlen(schema) || memcmp(letter->schema.data, schema, letter->schema.size) != 0)
        return "written in another schema than the one that the sink has now";
    resend->text.size = 0;
    buf_add(&resend->text, letter->message.data, letter->message.size);
    buf_reserve(&resend->text, JSON_PADDING);
    if (json_parse(resend->json, resend->text.data, resend->text.size, &root, &why) < 0)
        return why;
    return NULL;
}

static bool resend_selects(struct resend *resend, const struct dead_letter *letter)
{
    const char *trouble;

    if (!resend->conf->selects(resend->conf->arg, letter))
        return false;
    trouble = letter_trouble(resend, letter);
    if (trouble == NULL)
        return true;
    if (!resend->quiet) {
        fprintf(stderr, "%s:%" PRIu64 ": %s; it stays where it is\n", resend->path, letter->line, trouble);
        resend->skipped++;
    }
    return false;
}

static void resend_letter(struct resend *resend, struct resend_run *run, const struct dead_letter *letter)
{
    char *name = arena_alloc(&run->names, letter->stream.size + 1);
    struct batch_origin origin = { &run->run, name, 0, letter->position, letter->ticks };

    memcpy(name, letter->stream.data, letter->stream.size);
    name[letter->stream.size] = '\0';
    outlet_add(resend->outlet, (enum pen_kind)kind_of(letter->kind), letter->message.data, letter->message.size, &origin);
}

static void resend_read(struct resend *resend)
{
    struct resend_run *run = resend_run_new(resend);
    struct dead_letter letter;
    size_t bytes = 0;

    for (unsigned n = 0; n < RUN_LETTERS && bytes < RUN_BYTES; n++) {
        int r = dead_next(resend->file, &letter);

        if (r <= 0) {
            resend->drained = true;
            resend->trouble = r;
            break;
        }
        if (resend_selects(resend, &letter))
            resend_letter(resend, run, &letter);
        resend->at = letter.end;
        bytes += letter.text.size;
    }
    run->run.position = resend->at;
    run_release(&run->run);
    if (resend->drained)
        outlet_flush(resend->outlet);
    else
        outlet_pump(resend->outlet);
}

/* ---- The loop ---- */

static void on_outlet_stopped(void *arg)
{
    struct resend *resend = arg;

    resend->stopped = true;
    uv_stop(&resend->loop);
}

static void on_idle(uv_idle_t *idle)
{
    struct resend *resend = idle->data;
    bool done = resend->drained && outlet_is_idle(resend->outlet);

    if (!resend->stopping && !resend->drained && resend->budget.held < HELD_MAX(resend->settings)) {
        resend_read(resend);
        return;
    }
    uv_idle_stop(&resend->idle);
    if (done && !resend->stopping) {
        resend->stopping = true;
        outlet_stop(resend->outlet, on_outlet_stopped, resend);
    }
}

/* Comes from inside the outlet, which must not be entered again. */
static void on_moved(void *arg)
{
    struct resend *resend = arg;

    if (!resend->stopping)
        uv_idle_start(&resend->idle, on_idle);
}

static void on_signal(uv_signal_t *signal, int number)
{
    struct resend *resend = signal->data;

    (void)number;
    if (resend->stopping)
        _exit(1);
    resend->stopping = true;
    outlet_stop(resend->outlet, on_outlet_stopped, resend);
}

static int resend_open_outlet(struct resend *resend, struct pen_error *err)
{
    struct outlet_conf conf = {
        .settings = &resend->sink, .loop = &resend->loop, .budget = &resend->budget, .state_dir = resend->dir, .life = 1,
        .source_count = 1, .stop_ms = resend->settings->daemon.stop_ms,
        .memory_max = resend->settings->daemon.memory / 8, .beside = &resend_beside, .on_moved = on_moved, .arg = resend,
    };
    int r = http_new(&resend->http, &resend->loop, err);

    conf.http = resend->http;
    if (r == 0)
        r = outlet_open(&resend->outlet, &conf, err);
    if (r == 0)
        resend->schema = outlet_schema(resend->outlet)->name;
    return r;
}

static void on_closed(void *arg)
{
    (void)arg;
}

static void resend_watch(struct resend *resend)
{
    static const int numbers[] = { SIGTERM, SIGINT };

    uv_idle_init(&resend->loop, &resend->idle);
    resend->idle.data = resend;
    uv_idle_start(&resend->idle, on_idle);
    for (size_t i = 0; i < 2; i++) {
        uv_signal_init(&resend->loop, &resend->signals[i]);
        resend->signals[i].data = resend;
        uv_signal_start(&resend->signals[i], on_signal, numbers[i]);
    }
}

/* Sends what is to be sent; the ledger says what became of it. */
static int resend_send(struct resend *resend, struct ledger_row *ledger, struct pen_error *err)
{
    struct run *run;
    int r;

    uv_loop_init(&resend->loop);
    TAILQ_INIT(&resend->runs);
    r = resend_open_outlet(resend, err);
    if (r == 0) {
        resend_watch(resend);
        while (!resend->stopped)
            uv_run(&resend->loop, UV_RUN_DEFAULT);
        *ledger = *outlet_ledger(resend->outlet, 0);
        outlet_close(resend->outlet);
        uv_close((uv_handle_t *)&resend->idle, NULL);
        uv_close((uv_handle_t *)&resend->signals[0], NULL);
        uv_close((uv_handle_t *)&resend->signals[1], NULL);
    }
    if (resend->http != NULL)
        http_close(resend->http, on_closed, NULL);
    uv_run(&resend->loop, UV_RUN_DEFAULT);
    uv_loop_close(&resend->loop);
    while ((run = TAILQ_FIRST(&resend->runs)) != NULL)
        resend_run_free(run);
    return r;
}

/* ---- The job's folder ---- */

static int folder_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type;
    return ftw->level > 0 ? remove(path) : 0;
}

static void folder_empty(const char *dir)
{
    (void)nftw(dir, folder_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* The folder, locked; closing the descriptor unlocks. UV_EAGAIN: somebody else has it. */
static int folder_lock(const char *dir)
{
    struct stat st, now;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), r = 0;

    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0)
        r = -errno;
    else if (stat(dir, &now) < 0 || now.st_ino != st.st_ino)
        r = UV_EAGAIN;                             /* its last owner has just thrown it away */
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

static char *resend_dir(const char *state_dir, const char *sink)
{
    char *dir;

    if (asprintf(&dir, "%s/resend-%s", state_dir, sink) < 0)
        abort();
    return dir;
}

bool resend_is_running(const char *state_dir, const char *sink)
{
    char *dir = resend_dir(state_dir, sink);
    int fd = folder_lock(dir);

    free(dir);
    if (fd >= 0)
        close(fd);
    return fd == UV_EAGAIN;
}

static int resend_open_folder(struct resend *resend, const char *state_dir, struct pen_error *err)
{
    char path[4096];
    int fd;

    resend->dir = resend_dir(state_dir, resend->conf->sink);
    if (mkdir(resend->dir, 0700) < 0 && errno != EEXIST)
        return pen_error_set(err, -errno, "%s cannot be made: %s", resend->dir, strerror(errno));
    fd = folder_lock(resend->dir);
    if (fd == UV_EAGAIN)
        return pen_error_set(err, fd, "letters of %s are being resent already", resend->conf->sink);
    if (fd < 0)
        return pen_error_set(err, fd, "%s: %s", resend->dir, strerror(-fd));
    resend->lock_fd = fd;
    folder_empty(resend->dir);
    snprintf(path, sizeof(path), "%s/spool", resend->dir);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/dead", resend->dir);
    if (mkdir(path, 0700) < 0)
        return pen_error_set(err, -errno, "%s cannot be made: %s", path, strerror(errno));
    return 0;
}

/* ---- From the beginning to the end ---- */

static int resend_find_sink(struct resend *resend, struct pen_error *err)
{
    const struct settings *settings = resend->settings;

    for (unsigned i = 0; i < settings->sink_count; i++) {
        if (strcmp(settings->sinks[i].name, resend->conf->sink) != 0)
            continue;
        resend->sink = settings->sinks[i];
        resend->sink.spool = SPOOL_WHEN_NEEDED;
        resend->sink.spool_after_ms = UINT32_MAX;  /* the letters lie in their file: they need no second one */
        resend->sink.dead_max = UINT64_MAX;
        resend->sink.dead_in_a_row = 0;            /* who asks for all of them wants to know of each */
        return 0;
    }
    return pen_error_set(err, UV_EINVAL, "there is no sink %s in the configuration", resend->conf->sink);
}

static int resend_open(struct resend *resend, struct pen_error *err)
{
    const char *state_dir = resend->conf->state_dir;
    int r = settings_read(&resend->settings, resend->conf->config, service_report, NULL, err);

    if (r == 0)
        r = resend_find_sink(resend, err);
    if (r < 0)
        return r;
    log_set_level((enum log_level)settings_log_level(resend->settings));
    if (state_dir == NULL)
        state_dir = resend->settings->daemon.state_dir;
    if (asprintf(&resend->path, "%s/dead/%s.jsonl", state_dir, resend->conf->sink) < 0)
        abort();
    r = resend_open_folder(resend, state_dir, err);
    if (r < 0)
        return r;
    r = dead_open(&resend->file, resend->path);
    if (r < 0 && r != UV_ENOENT)
        return pen_error_set(err, r, "%s: %s", resend->path, strerror(-r));
    return r;
}

static bool was_sent(void *arg, const struct dead_letter *letter)
{
    struct resend *resend = arg;

    return letter->end <= resend->safe && resend_selects(resend, letter);
}

static int resend_finish(struct resend *resend, struct pen_error *err)
{
    char *again;
    int r;

    if (asprintf(&again, "%s/dead/%s.jsonl", resend->dir, resend->conf->sink) < 0)
        abort();
    resend->quiet = true;
    r = dead_rewrite(resend->path, resend->file, was_sent, resend, again);
    free(again);
    if (r == UV_ECANCELED)
        return pen_error_set(err, r, "%s was replaced by another file meanwhile, which is left as it is", resend->path);
    if (r < 0)
        return pen_error_set(err, r, "%s cannot be written anew, so what was sent is still in it: %s", resend->path, strerror(-r));
    return 0;
}

static int resend_report(const struct resend *resend, const struct ledger_row *ledger)
{
    uint64_t delivered = ledger->count[LEDGER_DELIVERED], dead = ledger->count[LEDGER_DEAD];
    uint64_t open = ledger_taken(ledger) - delivered - dead;

    printf("%" PRIu64 " delivered, %" PRIu64 " refused again and kept", delivered, dead);
    if (open > 0)
        printf(", %" PRIu64 " without an answer and kept", open);
    puts("");
    return dead + open + resend->skipped == 0 && resend->drained && resend->trouble == 0 ? 0 : 1;
}

static int resend_all(struct resend *resend, struct pen_error *err)
{
    struct ledger_row ledger = { 0 };
    int r = resend_open(resend, err);

    if (r == UV_ENOENT) {
        puts("no dead letters");
        return 0;
    }
    if (r < 0)
        return r == UV_EINVAL ? 2 : 1;
    resend->json = json_new();
    r = resend_send(resend, &ledger, err);
    if (r < 0)
        return r == UV_EINVAL ? 2 : 1;
    if (ledger_taken(&ledger) > 0 && resend_finish(resend, err) < 0)
        return 1;
    if (resend->trouble < 0)
        pen_error_set(err, resend->trouble, "%s: %s", resend->path, strerror(-resend->trouble));
    return resend_report(resend, &ledger);
}

int resend_run(const struct resend_conf *conf)
{
    struct resend resend = { .conf = conf, .lock_fd = -1 };
    struct pen_error err = { 0 };
    int status = resend_all(&resend, &err);

    if (err.text[0] != '\0')
        fprintf(stderr, "penstock dead resend: %s\n", err.text);
    dead_close(resend.file);
    if (resend.lock_fd >= 0) {
        folder_empty(resend.dir);
        rmdir(resend.dir);
        close(resend.lock_fd);
    }
    if (resend.json != NULL)
        json_free(resend.json);
    buf_free(&resend.text);
    free(resend.path);
    free(resend.dir);
    settings_free(resend.settings);
    return status;
}
