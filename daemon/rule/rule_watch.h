/*
 * rule_watch.h - the comparison of rule_look.h at the start of a daemon: a log line for each thing that its far ends would lose
 * without a word. Nothing waits for it and nothing stops for it.
 */
#ifndef DAEMON_RULE_WATCH_H
#define DAEMON_RULE_WATCH_H

#include "daemon/config/settings.h"

struct rule_watch;

/* At the sinks that `before` (NULL: none) does not have just so; the settings are shared. NULL: none of them names its rule
 * (dcr_resource_id). */
struct rule_watch *rule_watch_start(struct settings *settings, const struct settings *before, uv_loop_t *loop);
bool rule_watch_is_over(const struct rule_watch *watch);           /* all has been looked at; also for NULL */
void rule_watch_close(struct rule_watch *watch);  /* its handles are gone after one more turn of the loop; accepts NULL */

#endif
