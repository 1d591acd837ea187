/*
 * reload.h - reads the configuration once more and puts it into effect, or leaves everything as it was and says why.
 *
 * SIGHUP asks for it; `penstock reload` sends one and then reads, behind the daemon's own socket, what came of it. Whoever asks
 * while one is under way gets another one after it: that one reads the file as it is then.
 */
#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H

#include "daemon/pipeline/pipeline.h"
#include "daemon/status/status.h"

/* Below the window of pages.h, and at the socket alone: "VERSION PID BEGUN ENDED RESULT\n", then sentences, one a line. BEGUN and
 * ENDED count reloads since the start; RESULT is the last one's exit status: 0 done, 1 failed, 2 the configuration is wrong. */
#define RELOAD_PAGE "/reload"
#define RELOAD_PAGE_VERSION 1

struct reload;

struct reload_conf {
    const char *path;                /* of the configuration */
    struct settings *settings;       /* as read at the start; shared */
    struct pipeline *pipeline;
    void (*on_begun)(void *arg);
    /* `before` is what held until now; NULL: nothing has changed, for it failed. */
    void (*on_ended)(void *arg, struct settings *settings, const struct settings *before);
    void *arg;
};

struct reload *reload_new(const struct reload_conf *conf);
void reload_free(struct reload *reload);          /* once the pipeline has stopped; copes with NULL */
void reload_ask(struct reload *reload);
void reload_stop(struct reload *reload);          /* whoever asks from here on is not heard */
bool reload_is_under_way(const struct reload *reload);
void reload_see(const struct reload *reload, struct status *status);
void reload_page(const struct reload *reload, struct buf *out);

#endif
