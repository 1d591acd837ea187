/*
 * pages.h - what can be seen through the window of web.h: the status page and its files, metrics, health.
 */
#ifndef DAEMON_PAGES_H
#define DAEMON_PAGES_H

#include "daemon/pipeline/reload.h"

/* Below the state folder: where `penstock status` asks. */
#define PAGES_SOCKET "status.sock"

struct pages;
/* The settings are shared, the rest is borrowed. state_dir's socket is opened always, the port where the settings have one. */
struct pages *pages_open(struct settings *settings, uv_loop_t *loop, const char *state_dir, const struct pipeline *pipeline,
                         const struct reload *reload);
/* Other settings: another port, perhaps. */
void pages_take(struct pages *pages, struct settings *settings);
void pages_close(struct pages *pages);            /* before the pipeline; gone after one more turn of the loop; copes with NULL */

#endif
