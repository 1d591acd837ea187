/*
 * service.h - a pipeline as a process: loop, signals, systemd. `run` and `replay` are this with other settings.
 *
 * A replay is a job beside the daemon: it reads what is there, ends by itself, and has a word with the service now and then.
 *
 *   SIGTERM, SIGINT   stop: deliver or spool, save, exit (a second one: exit at once; nothing that was safe is lost)
 *   SIGHUP            reads the configuration again (reload.h); where there is none to read, it is as SIGTERM
 *   SIGUSR1           the counters, as log lines
 */
#ifndef DAEMON_SERVICE_H
#define DAEMON_SERVICE_H

#include "daemon/config/settings.h"

struct pace;
struct pen_beside;
struct pipeline;
struct window;

struct service_job {
    const struct window *window;
    const struct pen_beside *beside;
    bool quiet;                      /* counters are not for whoever sits there */
    /* Once the loop stands and before anything is opened: how fast it may go. */
    struct pace *(*prepare)(void *arg, uv_loop_t *loop);
    void (*begin)(void *arg, const struct pipeline *pipeline);     /* it is about to start */
    void (*stopping)(void *arg);     /* a signal said so */
    /* All has come to rest, and handles must be closed; also where it could not start (NULL). */
    void (*end)(void *arg, const struct pipeline *pipeline);
    void *arg;
};

struct service_conf {
    struct settings *settings;       /* shared */
    const char *path;                /* of the configuration, to be read again; NULL: it never is */
    const char *state_dir;
    const struct service_job *job;   /* NULL: the daemon */
};

/* Keeps these signals waiting until service_run() can act on them: the first thing a process does that will be a service, before
 * there are threads. A stop that comes while it starts is then a clean stop, too, and no death by signal. */
void service_hold_signals(void);

/* Runs to the end; the exit status. */
int service_run(const struct service_conf *conf);

/* Prints a mistake of the configuration to stderr: a conf_report. */
void service_report(void *arg, const char *file, unsigned line, const char *sentence);

#endif
