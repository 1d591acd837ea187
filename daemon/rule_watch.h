/*
 * rule_watch.h - the comparison of rule_look.h at the start of a daemon: a log line for each thing that its far ends would lose
 * without a word. Nothing waits for it and nothing stops for it.
 */
#ifndef DAEMON_RULE_WATCH_H
#define DAEMON_RULE_WATCH_H

#include "daemon/settings.h"

struct rule_watch;

/* NULL: no sink names its rule (dcr_resource_id). */
struct rule_watch *rule_watch_start(const struct settings *settings, uv_loop_t *loop);
void rule_watch_close(struct rule_watch *watch);  /* its handles are gone after one more turn of the loop; accepts NULL */

#endif
