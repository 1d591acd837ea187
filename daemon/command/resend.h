/*
 * resend.h - dead letters through the sink once more, as a job of its own beside the daemon.
 */
#ifndef DAEMON_RESEND_H
#define DAEMON_RESEND_H

#include "daemon/disk/dead.h"

struct resend_conf {
    const char *config;              /* file with the sink's section */
    const char *state_dir;           /* NULL: the configuration's */
    const char *sink;
    bool (*selects)(void *arg, const struct dead_letter *letter);  /* asked more than once; the same answer each time */
    void *arg;
};

/* Runs to the end, and says on stdout what came of it; the exit status. */
int resend_run(const struct resend_conf *conf);
/* Does such a job run on this sink? Then nothing else may rewrite its file. */
bool resend_is_running(const char *state_dir, const char *sink);

#endif
