/* replay_job.c - see replay_job.h. */
#include "daemon/replay/replay_job.h"

#include "daemon/base/log.h"
#include "daemon/disk/io.h"
#include "daemon/record/json.h"
#include "daemon/replay/replay_progress.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>
#include <uv.h>

#define JOB_MAX (4 * 1024 * 1024)    /* bytes of a job's file: a command may be long */
#define NAME_SIZE 16                 /* of a job's folder: hex digits */
#define STALE_MS 15000               /* a running job says so every second: one that does not was killed */

/* ---- The folder ---- */

static int on_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    (void)remove(path);
    return 0;
}

void folder_remove(const char *path)
{
    (void)nftw(path, on_entry, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* FNV-1a, 64 bits: names a folder, protects nothing. */
static uint64_t words_hash(const char *const *words, size_t count)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < count; i++)
        for (const char *at = words[i] != NULL ? words[i] : ""; ; at++) {
            hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
            if (*at == '\0')
                break;
        }
    return hash;
}

static char *path_of(const char *dir, const char *name)
{
    char *path;

    if (asprintf(&path, "%s/%s", dir, name) < 0)
        abort();
    return path;
}

/* All but the dead letters: those are nowhere else. One that runs holds its lock, and is not forgotten under its feet. */
static void job_empty(const char *dir)
{
    static const char *const names[] = { "job", "state.db", "state.db-wal", "state.db-shm", "spool" };

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char *path = path_of(dir, names[i]);

        folder_remove(path);
        free(path);
    }
}

static int job_clear(const char *dir, struct pen_error *err)
{
    char *path = path_of(dir, "lock");
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW), r = 0;

    free(path);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
        r = pen_error_set(err, UV_EBUSY, "this replay is running already");
    else
        job_empty(dir);
    if (fd >= 0)
        close(fd);
    return r;
}

/* ---- Its file ---- */

struct job_file {
    struct buf text;
    struct json *tree;
    struct pen_json root;
};

static void job_file_free(struct job_file *file)
{
    buf_free(&file->text);
    if (file->tree != NULL)
        json_free(file->tree);
}

static bool job_file_read(struct job_file *file, const char *dir)
{
    char *path = path_of(dir, "job");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    const char *why;
    ssize_t size;

    *file = (struct job_file){ 0 };
    free(path);
    if (fd < 0)
        return false;
    buf_reserve(&file->text, JOB_MAX + JSON_PADDING);
    size = io_read_full(fd, file->text.data, JOB_MAX, 0);
    close(fd);
    file->tree = json_new();
    if (size > 0 && file->tree != NULL && json_parse(file->tree, file->text.data, (size_t)size, &file->root, &why) == 0)
        return true;
    job_file_free(file);
    return false;
}

static int64_t whole(const struct pen_json *root, const char *key, int64_t fallback)
{
    const struct pen_json member = pen_json_get(root, key);
    int64_t value;

    return pen_json_int(&member, &value) ? value : fallback;
}

static uint64_t count_of(const struct pen_json *root, const char *key)
{
    int64_t value = whole(root, key, 0);

    return value > 0 ? (uint64_t)value : 0;
}

static void job_take(struct replay_job *job, const struct pen_json *root)
{
    job->resumed = true;
    job->started_ms = whole(root, "started_ms", job->started_ms);
    job->window.from_ticks = whole(root, "from_ticks", INT64_MIN);
    job->window.to_ticks = whole(root, "to_ticks", INT64_MAX);
    job->window.late_ticks = whole(root, "late_ticks", job->window.late_ticks);
    job->before = (struct replay_figures){
        .records = count_of(root, "records"), .events = count_of(root, "events"), .outside = count_of(root, "outside"),
        .bytes = count_of(root, "bytes"), .delivered = count_of(root, "delivered"), .dead = count_of(root, "dead"),
        .dropped = count_of(root, "dropped"), .newest_ms = whole(root, "newest_ms", -1), .done = count_of(root, "done"),
        .total = count_of(root, "total"), .damaged = count_of(root, "damaged"),
    };
}

static void job_member(struct buf *out, const char *key, int64_t value)
{
    buf_text(out, ",\"%s\":%" PRId64, key, value);
}

static void job_write(const struct replay_job *job, const char *state, const struct replay_figures *figures, double rate,
                      int64_t left_s, const char *waits, struct buf *out)
{
    buf_text(out, "{\"state\":\"%s\",\"command\":", state);
    buf_json_string(out, job->command, strlen(job->command));
    job_member(out, "started_ms", job->started_ms);
    job_member(out, "updated_ms", io_now_ticks() / 10000);
    job_member(out, "late_ticks", job->window.late_ticks);
    if (job->window.from_ticks != INT64_MIN)
        job_member(out, "from_ticks", job->window.from_ticks);
    if (job->window.to_ticks != INT64_MAX)
        job_member(out, "to_ticks", job->window.to_ticks);
    job_member(out, "records", (int64_t)figures->records);
    job_member(out, "events", (int64_t)figures->events);
    job_member(out, "outside", (int64_t)figures->outside);
    job_member(out, "bytes", (int64_t)figures->bytes);
    job_member(out, "delivered", (int64_t)figures->delivered);
    job_member(out, "dead", (int64_t)figures->dead);
    job_member(out, "dropped", (int64_t)figures->dropped);
    job_member(out, "waiting", (int64_t)figures->waiting);
    job_member(out, "done", (int64_t)figures->done);
    job_member(out, "total", (int64_t)figures->total);
    job_member(out, "damaged", (int64_t)figures->damaged);
    buf_text(out, ",\"whole\":%s", figures->whole ? "true" : "false");
    job_member(out, "rate", (int64_t)rate);
    if (left_s >= 0)
        job_member(out, "left_s", left_s);
    if (figures->newest_ms >= 0)
        job_member(out, "newest_ms", figures->newest_ms);
    if (waits != NULL) {
        BUF_LITERAL(out, ",\"gives_way_to\":");
        buf_json_string(out, waits, strlen(waits));
    }
    BUF_LITERAL(out, "}\n");
}

/* Replaced whole, so that whoever looks sees one or the other. What is lost with it is how far people were told it is, and
 * the window of a job that was started seconds before the power went. */
void replay_job_save(const struct replay_job *job, const char *state, const struct replay_figures *figures, double rate,
                     int64_t left_s, const char *waits)
{
    char *path = path_of(job->dir, "job"), *next = path_of(job->dir, "job.new");
    int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct buf text = { 0 };

    job_write(job, state, figures, rate, left_s, waits, &text);
    if (fd >= 0 && io_write_full(fd, text.data, text.size, 0) == 0)
        (void)rename(next, path);
    if (fd >= 0)
        close(fd);
    buf_free(&text);
    free(path);
    free(next);
}

int replay_job_open(struct replay_job *job, const char *state_dir, const char *const *words, size_t count, const char *command,
                    const struct window *window, bool anew, struct pen_error *err)
{
    char *parent = path_of(state_dir, "replay");
    struct job_file file;
    int r = 0;

    *job = (struct replay_job){ .window = *window, .started_ms = io_now_ticks() / 10000, .before.newest_ms = -1 };
    if (asprintf(&job->dir, "%s/%016" PRIx64, parent, words_hash(words, count)) < 0 || (job->command = strdup(command)) == NULL)
        abort();
    io_make_folder(state_dir);       /* trouble shows when the job's own folder is made */
    io_make_folder(parent);
    free(parent);
    if (anew)
        r = job_clear(job->dir, err);
    if (r == 0 && (r = io_make_folder(job->dir)) < 0)
        pen_error_set(err, r, "%s cannot be made: %s", job->dir, strerror(-r));
    if (r == 0 && job_file_read(&file, job->dir)) {
        job_take(job, &file.root);
        job_file_free(&file);
    }
    return r;
}

/* At once, or not at all: half a place that a power cut left would pass for one to go on from. What remains under the hidden
 * name goes when the job has come and gone again. */
void replay_job_forget(const struct replay_job *job)
{
    const char *slash = strrchr(job->dir, '/');
    char *hidden;

    if (asprintf(&hidden, "%.*s/.%s", (int)(slash - job->dir), job->dir, slash + 1) < 0)
        abort();
    folder_remove(hidden);
    folder_remove(rename(job->dir, hidden) == 0 ? hidden : job->dir);
    free(hidden);
}

void replay_job_free(struct replay_job *job)
{
    free(job->dir);
    free(job->command);
}

/* ---- Those who look ---- */

/* Whatever else lies there is none, and its name not fit to be shown. */
static bool name_is_job(const char *name)
{
    return strlen(name) == NAME_SIZE && strspn(name, "0123456789abcdef") == NAME_SIZE;
}

static void jobs_each(const char *state_dir, void (*each)(void *arg, const char *name, const struct job_file *file), void *arg)
{
    char *parent = path_of(state_dir, "replay");
    struct dirent **entries;
    int count = scandir(parent, &entries, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        struct job_file file;
        char *dir = path_of(parent, entries[i]->d_name);

        if (name_is_job(entries[i]->d_name) && job_file_read(&file, dir)) {
            each(arg, entries[i]->d_name, &file);
            job_file_free(&file);
        }
        free(dir);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    free(parent);
}

static bool job_is_stale(const struct job_file *file)
{
    return pen_span_is(pen_json_text(&file->root, "state"), "running") &&
        io_now_ticks() / 10000 - whole(&file->root, "updated_ms", 0) > STALE_MS;
}

static void each_view(void *arg, const char *name, const struct job_file *file)
{
    struct buf *out = arg;
    struct pen_span state = pen_json_text(&file->root, "state"), command = pen_json_text(&file->root, "command");
    struct pen_span waits = pen_json_text(&file->root, "gives_way_to");
    bool running = pen_span_is(state, "running") && !job_is_stale(file);
    const struct replay_figures figures = {
        .records = count_of(&file->root, "records"), .done = count_of(&file->root, "done"), .total = count_of(&file->root, "total"),
        .whole = true, .newest_ms = whole(&file->root, "newest_ms", -1), .bytes = count_of(&file->root, "bytes"),
    };
    char line[256], shown[200];

    progress_line(line, sizeof(line), &figures, running ? (double)whole(&file->root, "rate", 0) : -1,
                  running ? whole(&file->root, "left_s", -1) : -1, NULL);
    (void)snprintf(shown, sizeof(shown), "%.*s%.*s", waits.size > 0 ? 15 : 0, ", gives way to ", (int)(waits.size < 60 ? waits.size : 60),
                   waits.data != NULL ? waits.data : "");
    text_clean(shown);
    buf_text(out, "%s  %s  %s  %s%s\n    ", out->size == 0 ? "\nREPLAY\n" : "", name,
             running ? "running" : job_is_stale(file) ? "killed " : pen_span_is(state, "failed") ? "failed " : "stopped", line,
             running ? shown : "");
    for (size_t i = 0, step; i < command.size; i += step) {
        step = log_character(command.data + i, command.size - i);
        if (step > 0)
            buf_add(out, command.data + i, step);
        else
            buf_char(out, '?');
        step = step > 0 ? step : 1;
    }
    buf_char(out, '\n');
}

void replay_jobs_view(const char *state_dir, struct buf *out)
{
    struct buf view = { 0 };

    jobs_each(state_dir, each_view, &view);
    buf_add(out, view.data, view.size);
    buf_free(&view);
}

static void each_json(void *arg, const char *name, const struct job_file *file)
{
    struct buf *out = arg;
    bool stale = job_is_stale(file);

    if (out->data[out->size - 1] != '[')
        buf_char(out, ',');
    BUF_LITERAL(out, "{\"id\":");
    buf_json_string(out, name, strlen(name));
    for (struct pen_json_iter it = pen_json_each(&file->root); pen_json_next(&it);) {
        buf_char(out, ',');
        buf_json_string(out, it.name.data, it.name.size);
        buf_char(out, ':');
        if (stale && pen_span_is(it.name, "state"))
            BUF_LITERAL(out, "\"killed\"");
        else
            json_write(&it.value, out);
    }
    buf_char(out, '}');
}

void replay_jobs_json(const char *state_dir, struct buf *out)
{
    buf_char(out, '[');
    jobs_each(state_dir, each_json, out);
    buf_char(out, ']');
}
