/*
 * service.h - a pipeline as a process: loop, signals, systemd. `run` and `replay` are this with other settings.
 *
 *   SIGTERM, SIGINT   stop: deliver or spool, save, exit (a second one: exit at once; nothing that was safe is lost)
 *   SIGUSR1           the counters, as log lines
 */
#ifndef DAEMON_SERVICE_H
#define DAEMON_SERVICE_H

#include "daemon/settings.h"

struct service_conf {
    const struct settings *settings;
    const char *state_dir;
    bool once;
};

/* Runs to the end; the exit status. */
int service_run(const struct service_conf *conf);

/* Prints a mistake of the configuration to stderr: a conf_report. */
void service_report(void *arg, const char *file, unsigned line, const char *sentence);

#endif
