/*
 * service.h - a pipeline as a process: loop, signals, systemd. `run` and `replay` are this with other settings.
 *
 *   SIGTERM, SIGINT   stop: deliver or spool, save, exit (a second one: exit at once; nothing that was safe is lost)
 *   SIGHUP            reads the configuration again (reload.h); where there is none to read, it is as SIGTERM
 *   SIGUSR1           the counters, as log lines
 */
#ifndef DAEMON_SERVICE_H
#define DAEMON_SERVICE_H

#include "daemon/settings.h"

struct service_conf {
    struct settings *settings;       /* shared */
    const char *path;                /* of the configuration, to be read again; NULL: it never is */
    const char *state_dir;
    bool once;
};

/* Keeps these signals waiting until service_run() can act on them: the first thing a process does that will be a service, before
 * there are threads. A stop that comes while it starts is then a clean stop, too, and no death by signal. */
void service_hold_signals(void);

/* Runs to the end; the exit status. */
int service_run(const struct service_conf *conf);

/* Prints a mistake of the configuration to stderr: a conf_report. */
void service_report(void *arg, const char *file, unsigned line, const char *sentence);

#endif
