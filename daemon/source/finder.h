/*
 * finder.h - finds a file source's files and hears when they change.
 *
 * Full sweeps from the root folder down, every `rescan_ms`, are what can be relied on; inotify only makes it quick. All
 * blocking work is done on libuv's pool, one folder and at most FINDER_SLICE entries at a time, so that neither the loop
 * nor memory notices a tree of a million files. A folder is watched before it is listed: what comes into it meanwhile is
 * either listed or heard of.
 */
#ifndef DAEMON_SOURCE_FINDER_H
#define DAEMON_SOURCE_FINDER_H

#include "daemon/source/glob.h"

#include <uv.h>

#define FINDER_SLICE 256

struct finder;

struct finder_conf {
    uv_loop_t *loop;
    const char *source;              /* for log lines */
    const struct glob *glob, *exclude;
    bool links;
    bool once;                       /* one sweep, no watches */
    const struct window *window;     /* folders and files of other hours are passed over; NULL: none are */
    uint32_t rescan_ms;
    size_t watches_max;
};

struct finder_events {
    /* A file that matches is there now. */
    void (*found)(void *arg, const char *path, const struct stat *st);
    /* Nothing that matches is at this path, which was asked for. */
    void (*absent)(void *arg, const char *path);
    /* Something happened to this path. True: known, needs no look. */
    bool (*changed)(void *arg, const char *path);
    /* A sweep begins; a sweep has seen everything. */
    void (*sweeping)(void *arg);
    void (*swept)(void *arg);
    /* Only of the one sweep: a folder, or something in it, could not be looked at. NULL: nobody asks. */
    void (*missed)(void *arg);
};

/* conf and events must outlive it. */
struct finder *finder_new(const struct finder_conf *conf, const struct finder_events *events, void *arg);
void finder_start(struct finder *finder);
/* Look at one path soon: found() or absent() tells. */
void finder_look(struct finder *finder, const char *path);
void finder_stop(struct finder *finder, void (*stopped)(void *arg));   /* called on a later turn, with finder_new's arg */
void finder_free(struct finder *finder);                               /* after stopped; copes with NULL */

#endif
