/*
 * finder.c - a stack of paths to look at, and the watches.
 *
 * One job runs at a time. It takes the newest path off the stack: folders come before their neighbours' files that way, and
 * the stack stays as small as the tree is deep and wide at one place. A path of unknown kind is only asked for its kind; a
 * folder is then watched and listed, slice by slice.
 *
 * The walk starts at "/": folders on the way whose next name is known are not listed but asked for that name, and a root
 * that is missing today is heard of when it is made.
 *
 * Watches are bounded, and the kernel's are too. When they are used up, a folder that changed more recently takes the
 * place of the one that has been quiet longest: of a tree with a folder per hour, the last hours stay watched.
 */
#include "daemon/source/finder.h"
#include "daemon/base/log.h"
#include "daemon/record/window.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#define LOOKS_MAX 16384              /* paths asked for by events; beyond, a sweep is cheaper */

struct item {
    struct item *below;
    bool folder;                     /* known to be one, and watched: list it */
    bool sweep;                      /* belongs to the sweep under way */
    bool look;                       /* in the tree of looks */
    char path[];
};

struct watch {
    uv_fs_event_t event;
    struct finder *finder;
    LIST_ENTRY(watch) link;
    char *path;
    uint64_t dev, ino;
    int64_t active;                  /* second of its last sign of life */
};

struct finder {
    const struct finder_conf *conf;
    const struct finder_events *events;
    void *arg;
    void (*stopped)(void *arg);
    bool closing;
    unsigned handles;                /* still to be closed, timer included */

    struct item *stack;
    void *looks;                     /* tree of items that events asked for: each path is asked for once */
    size_t look_count;

    uv_work_t job;
    bool busy;
    struct item *item;               /* at work */
    struct glob_list *list;          /* of item; NULL until opened */
    struct glob_entry entries[FINDER_SLICE];
    size_t entry_count;
    struct stat st;
    int result;                      /* of opening: 0 or negative */
    bool list_end;
    int list_trouble;

    uv_timer_t timer;
    size_t sweep_items;              /* of the sweep under way; 0: none is */
    bool sweep_wanted;               /* another one, as soon as this one is done */
    uint64_t sweep_began_ms;

    void *watch_tree;                /* by path */
    LIST_HEAD(, watch) watches;
    size_t watch_count;
    int64_t watch_floor;             /* no watch was active before this second */
    bool watch_short, folder_trouble;/* said already */
};

static void finder_next(struct finder *finder);

/* ---- The stack ------------------------------------------------------------------------------------------------- */

static int item_compare(const void *a, const void *b)
{
    return strcmp(((const struct item *)a)->path, ((const struct item *)b)->path);
}

static struct item *finder_push(struct finder *finder, const char *path, bool folder, bool sweep)
{
    size_t size = strlen(path) + 1;
    struct item *item = malloc(sizeof *item + size);

    *item = (struct item){ .below = finder->stack, .folder = folder, .sweep = sweep };
    memcpy(item->path, path, size);
    finder->stack = item;
    finder->sweep_items += sweep;
    return item;
}

static void finder_sweep(struct finder *finder)
{
    if (finder->sweep_items > 0) {
        finder->sweep_wanted = true;
        return;
    }
    finder->sweep_wanted = false;
    finder->sweep_began_ms = uv_now(finder->conf->loop);
    finder->events->sweeping(finder->arg);
    finder_push(finder, "/", false, true);
}

void finder_look(struct finder *finder, const char *path)
{
    struct item *item;

    if (finder->closing)
        return;
    if (finder->look_count >= LOOKS_MAX) {
        finder_sweep(finder);
    } else {
        item = finder_push(finder, path, false, false);
        if (*(struct item **)tsearch(item, &finder->looks, item_compare) == item) {
            item->look = true;
            finder->look_count++;
        } else {
            finder->stack = item->below;
            free(item);
        }
    }
    finder_next(finder);
}

static void on_sweep_timer(uv_timer_t *timer)
{
    struct finder *finder = timer->data;

    if (finder->closing)
        return;
    finder_sweep(finder);
    finder_next(finder);
}

/* A tree too large to be swept within the interval is swept a tenth of the time. */
static void finder_swept(struct finder *finder)
{
    uint64_t took_ms = uv_now(finder->conf->loop) - finder->sweep_began_ms;
    uint64_t wait_ms = took_ms * 10 > finder->conf->rescan_ms ? took_ms * 10 : finder->conf->rescan_ms;

    if (finder->sweep_wanted)
        finder_sweep(finder);
    else if (!finder->conf->once)
        uv_timer_start(&finder->timer, on_sweep_timer, wait_ms, 0);
    finder->events->swept(finder->arg);
}

static void item_done(struct finder *finder, struct item *item)
{
    bool sweep = item->sweep;

    free(item);
    if (sweep && --finder->sweep_items == 0)
        finder_swept(finder);
}

/* ---- Watches --------------------------------------------------------------------------------------------------- */

static int watch_compare(const void *a, const void *b)
{
    return strcmp(((const struct watch *)a)->path, ((const struct watch *)b)->path);
}

static struct watch *watch_find(struct finder *finder, const char *path)
{
    struct watch key = { .path = (char *)path }, **found = tfind(&key, &finder->watch_tree, watch_compare);

    return found != NULL ? *found : NULL;
}

static void finder_handle_closed(struct finder *finder)
{
    if (--finder->handles == 0 && finder->closing && !finder->busy)
        finder->stopped(finder->arg);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;
    struct finder *finder = watch->finder;

    free(watch->path);
    free(watch);
    finder_handle_closed(finder);
}

static void watch_close(struct watch *watch)
{
    tdelete(watch, &watch->finder->watch_tree, watch_compare);
    LIST_REMOVE(watch, link);
    watch->finder->watch_count--;
    uv_close((uv_handle_t *)&watch->event, on_watch_closed);
}

/* What is told is a hint only: the name is looked at, whatever happened to it. */
static void on_watch(uv_fs_event_t *event, const char *name, int events, int status)
{
    struct watch *watch = event->data;
    struct finder *finder = watch->finder;
    char path[PATH_MAX];
    int size;

    (void)events;
    if (finder->closing || uv_is_closing((uv_handle_t *)event) || status < 0)
        return;
    watch->active = time(NULL);
    if (name == NULL)
        return;
    size = snprintf(path, sizeof path, "%s%s%s", watch->path, watch->path[1] == '\0' ? "" : "/", name);
    if (size >= (int)sizeof path)
        return;
    if (finder->events->changed(finder->arg, path))
        return;
    if (glob_matches(finder->conf->glob, path) || glob_enters(finder->conf->glob, path))
        finder_look(finder, path);
    /* A folder that is itself removed or renamed speaks under its own name. */
    else if (strcmp(name, strrchr(watch->path, '/') + 1) == 0)
        finder_look(finder, watch->path);
}

static struct watch *watch_quietest(struct finder *finder)
{
    struct watch *quietest = NULL, *watch;

    LIST_FOREACH(watch, &finder->watches, link)
        if (quietest == NULL || watch->active < quietest->active)
            quietest = watch;
    return quietest;
}

/* The kernel's or our own number of watches is used up: said once, and the sweeps do the rest. */
static void watch_say_short(struct finder *finder)
{
    if (!finder->watch_short)
        log_line(LOG_WARN, "not all folders can be watched: changes in the others are seen by rescan only (see "
                 "fs.inotify.max_user_watches)", "source", finder->conf->source, "watches",
                 log_number(finder->watch_count), "rescan_ms", log_number(finder->conf->rescan_ms), NULL);
    finder->watch_short = true;
}

static bool watch_make_room(struct finder *finder, int64_t active)
{
    struct watch *quietest;

    if (finder->watch_count < finder->conf->watches_max)
        return true;
    watch_say_short(finder);
    if (active <= finder->watch_floor)
        return false;
    quietest = watch_quietest(finder);
    finder->watch_floor = quietest != NULL ? quietest->active : INT64_MAX;
    if (quietest == NULL || active <= quietest->active)
        return false;
    watch_close(quietest);
    return true;
}

static void finder_watch(struct finder *finder, const char *path, const struct stat *st)
{
    struct watch *watch = watch_find(finder, path);
    int r;

    if (finder->conf->once)
        return;
    if (watch != NULL && watch->dev == st->st_dev && watch->ino == st->st_ino) {
        if (watch->active < st->st_mtime)
            watch->active = st->st_mtime;
        return;
    }
    if (watch != NULL)
        watch_close(watch);
    if (!watch_make_room(finder, st->st_mtime))
        return;
    watch = calloc(1, sizeof *watch);
    *watch = (struct watch){ .finder = finder, .path = strdup(path), .dev = st->st_dev, .ino = st->st_ino,
                             .active = st->st_mtime };
    uv_fs_event_init(finder->conf->loop, &watch->event);
    watch->event.data = watch;
    finder->handles++;
    finder->watch_count++;
    LIST_INSERT_HEAD(&finder->watches, watch, link);
    tsearch(watch, &finder->watch_tree, watch_compare);
    r = uv_fs_event_start(&watch->event, on_watch, path, 0);
    if (r < 0) {
        watch_close(watch);
        if (r == UV_ENOSPC || r == UV_EMFILE || r == UV_ENFILE)
            watch_say_short(finder);
    }
}

/* ---- Looking --------------------------------------------------------------------------------------------------- */

static void job_run(uv_work_t *job)
{
    struct finder *finder = job->data;
    struct item *item = finder->item;

    finder->entry_count = 0;
    finder->result = 0;
    if (!item->folder) {
        finder->result = stat(item->path, &finder->st) < 0 ? uv_translate_sys_error(errno) : 0;
        return;
    }
    if (finder->list == NULL)
        finder->result = glob_list_open(&finder->list, finder->conf->glob, finder->conf->exclude, finder->conf->links,
                                        item->path);
    if (finder->result < 0)
        return;
    finder->entry_count = glob_list_next(finder->list, finder->entries, FINDER_SLICE);
    finder->list_end = finder->entry_count < FINDER_SLICE;
    if (finder->list_end) {
        finder->list_trouble = glob_list_close(finder->list);
        finder->list = NULL;
    }
}

static void finder_say_trouble(struct finder *finder, const char *path, int trouble)
{
    if (!finder->folder_trouble)
        log_line(LOG_WARN, "cannot look into a folder: let the user penstock read it (by group or ACL); its files are not read, and further such "
                 "folders not named", "source",
                 finder->conf->source, "path", path, "error", uv_strerror(trouble), NULL);
    finder->folder_trouble = true;
    if (finder->conf->once && finder->events->missed != NULL)
        finder->events->missed(finder->arg);
}

/* By its path alone: what it holds lies outside of the window. */
static bool finder_passes_over(const struct finder *finder, const char *path, bool folder)
{
    char name[PATH_MAX + 1];

    if (finder->conf->window == NULL)
        return false;
    (void)snprintf(name, sizeof name, "%s%s", path, folder ? "/" : "");
    return !window_may_hold(finder->conf->window, name);
}

static void finder_take_entries(struct finder *finder)
{
    for (size_t i = 0; i < finder->entry_count; i++) {
        struct glob_entry *entry = &finder->entries[i];

        if (finder->closing || finder_passes_over(finder, entry->path, S_ISDIR(entry->st.st_mode))) {
            ;
        } else if (S_ISDIR(entry->st.st_mode)) {
            finder_watch(finder, entry->path, &entry->st);
            finder_push(finder, entry->path, true, finder->item->sweep);
        } else {
            finder->events->found(finder->arg, entry->path, &entry->st);
        }
        free(entry->path);
    }
    finder->entry_count = 0;
}

static bool finder_wants(const struct finder *finder, const char *path, bool folder)
{
    const struct glob *glob = finder->conf->glob, *exclude = finder->conf->exclude;

    return !finder_passes_over(finder, path, folder) && (exclude == NULL || !glob_matches(exclude, path)) &&
           (folder ? glob_enters(glob, path) : glob_matches(glob, path));
}

/* Its kind is known now. */
static void finder_take_kind(struct finder *finder)
{
    struct item *item = finder->item;
    bool gone = finder->result == UV_ENOENT || finder->result == UV_ENOTDIR;

    if (finder->result == 0 && S_ISDIR(finder->st.st_mode) && finder_wants(finder, item->path, true)) {
        finder_watch(finder, item->path, &finder->st);
        finder_push(finder, item->path, true, item->sweep);
    } else if (finder->result == 0 && S_ISREG(finder->st.st_mode) && finder_wants(finder, item->path, false)) {
        finder->events->found(finder->arg, item->path, &finder->st);
    } else if (finder->result == 0 || gone) {
        struct watch *watch = watch_find(finder, item->path);

        if (watch != NULL)
            watch_close(watch);
        finder->events->absent(finder->arg, item->path);
    } else {
        finder_say_trouble(finder, item->path, finder->result);
    }
}

static void on_job_done(uv_work_t *job, int status)
{
    struct finder *finder = job->data;
    struct item *item = finder->item;

    /* Busy to the end: what the events ask for must not start a job over this one's entries. */
    if (status == UV_ECANCELED)
        finder->entry_count = 0;
    finder_take_entries(finder);
    if (finder->closing) {
        finder->busy = false;
        if (finder->handles == 0)
            finder->stopped(finder->arg);
        return;
    }
    if (!item->folder)
        finder_take_kind(finder);
    else if (finder->result == 0 && finder->list_trouble < 0)
        finder_say_trouble(finder, item->path, finder->list_trouble);
    else if (finder->result < 0 && finder->result != UV_ENOENT)
        finder_say_trouble(finder, item->path, finder->result);
    finder->list_trouble = 0;
    if (finder->list == NULL) {
        finder->item = NULL;
        item_done(finder, item);
    }
    finder->busy = false;
    finder_next(finder);
}

static void finder_next(struct finder *finder)
{
    if (finder->busy || finder->closing)
        return;
    if (finder->item == NULL) {
        if (finder->stack == NULL)
            return;
        finder->item = finder->stack;
        finder->stack = finder->item->below;
        if (finder->item->look) {
            tdelete(finder->item, &finder->looks, item_compare);
            finder->look_count--;
        }
    }
    finder->busy = true;
    uv_queue_work(finder->conf->loop, &finder->job, job_run, on_job_done);
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

struct finder *finder_new(const struct finder_conf *conf, const struct finder_events *events, void *arg)
{
    struct finder *finder = calloc(1, sizeof *finder);

    finder->conf = conf;
    finder->events = events;
    finder->arg = arg;
    finder->job.data = finder;
    finder->timer.data = finder;
    finder->watch_floor = INT64_MIN;
    LIST_INIT(&finder->watches);
    return finder;
}

void finder_start(struct finder *finder)
{
    uv_timer_init(finder->conf->loop, &finder->timer);
    finder->handles = 1;
    finder_sweep(finder);
    finder_next(finder);
}

static void on_timer_closed(uv_handle_t *handle)
{
    finder_handle_closed(handle->data);
}

void finder_stop(struct finder *finder, void (*stopped)(void *arg))
{
    struct watch *watch, *next;

    assert(!finder->closing && finder->handles > 0);
    finder->closing = true;
    finder->stopped = stopped;
    for (watch = LIST_FIRST(&finder->watches); watch != NULL; watch = next) {
        next = LIST_NEXT(watch, link);
        watch_close(watch);
    }
    uv_close((uv_handle_t *)&finder->timer, on_timer_closed);
    if (finder->busy)
        uv_cancel((uv_req_t *)&finder->job);
}

static void looks_keep(void *node)
{
    (void)node;                      /* the items are freed with the stack */
}

void finder_free(struct finder *finder)
{
    if (finder == NULL)
        return;
    tdestroy(finder->looks, looks_keep);
    glob_list_close(finder->list);
    free(finder->item);
    while (finder->stack != NULL) {
        struct item *item = finder->stack;

        finder->stack = item->below;
        free(item);
    }
    free(finder);
}
