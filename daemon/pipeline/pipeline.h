/*
 * pipeline.h - sources, workers, outlets and cursors put together: the whole daemon but for signals and commands.
 *
 * The loop's thread owns all of it. See the head of pipeline.c for how a chunk travels.
 */
#ifndef DAEMON_PIPELINE_H
#define DAEMON_PIPELINE_H

#include "daemon/config/settings.h"
#include "daemon/outlet/outlet.h"

struct pipeline;

struct pipeline_conf {
    struct settings *settings;       /* shared */
    uv_loop_t *loop;
    const char *state_dir;           /* settings' own, or a replay job's */
    bool once;                       /* replay: read what is there, deliver it, stop by itself */
    const struct window *window;     /* replay: the event times that are wanted; NULL: all */
    struct pace *pace;               /* replay: how fast; NULL: as fast as it goes */
    const struct pen_beside *beside; /* replay: what the daemon takes; sink.h */
    void (*on_stopped)(void *arg);   /* after pipeline_stop(), or by itself with `once` */
    void *arg;
};

/* Opens state, spools, sinks and sources; reads nothing yet. */
int pipeline_new(struct pipeline **ret, const struct pipeline_conf *conf, struct pen_error *err);
void pipeline_start(struct pipeline *pipeline);

/* ---- Changing under way: pipeline_change.c ---- */

/* Does as the new configuration says, or nothing: then why. What the change does not touch goes on all the while: sources and
 * sinks keep their connections, streams, spools and counters. done() comes on a later turn, before on_stopped(): 0 and a line for
 * each thing that changed, or negative (UV_EINVAL: the configuration will not do) and one sentence why everything is as it was.
 * One at a time, and only once started. The settings are shared. */
void pipeline_change(struct pipeline *pipeline, struct settings *settings,
                     void (*done)(void *arg, int result, const char *told), void *arg);
bool pipeline_is_changing(const struct pipeline *pipeline);

/* Delivers or spools what is in flight, saves the cursors; on_stopped() runs on a later turn. */
void pipeline_stop(struct pipeline *pipeline);
/* Only after on_stopped(), or instead of pipeline_start(). Its handles are gone after one more turn of the loop. */
void pipeline_close(struct pipeline *pipeline);

/* What there is to see of it: pipeline_see() in status.h. */
/* Since when the oldest job on the pool runs, on the loop's clock; 0: none does. */
uint64_t pipeline_busy_since(const struct pipeline *pipeline);
/* True while every message of every source is delivered, dead or dropped by rule; for `replay`'s exit status: none dead. */
bool pipeline_all_delivered(const struct pipeline *pipeline);

#endif
